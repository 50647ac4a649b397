"""Rendering a data set in SSv2's own format: WebM clips, official JSON files, a flip table.

Two things go wrong on purpose, as they do in every real data set: the file of one training clip is
missing, and that of one validation clip breaks off after a few frames.
"""

from __future__ import annotations

import json
import os
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import av
import numpy as np

from tca.cache.files import write_atomic
from tca.demo.motions import TEMPLATES, class_name
from tca.demo.painter import HEIGHT, Frame, paint
from tca.demo.scenes import SPLIT_NUMBERS, Scene, draw_scene

FRAMES_A_SECOND = 12
FRAMES_LEFT = 5
"""Whole frames before the break of the truncated video: too few to count as one."""

_ENCODER = {"deadline": "realtime", "cpu-used": "8", "lag-in-frames": "0", "crf": "34", "b": "0"}


@dataclass(frozen=True)
class Entry:
    """One clip of a split: an id as SSv2 has them, a template, a scene."""

    id: str
    template: str
    scene: Scene

    @property
    def placeholders(self) -> list[str]:
        """Names of what is in the template's brackets."""
        names = [
            f"{look.family} {shape}"
            for look, shape in zip(self.scene.looks, self.scene.shapes, strict=False)
        ]
        return names[: self.template.count("[")]

    def annotation(self) -> dict[str, Any]:
        """Return the clip's entry in `SPLIT.json`."""
        label = self.template
        for name in self.placeholders:
            label = label.replace(label[label.index("[") : label.index("]") + 1], name, 1)
        return {
            "id": self.id,
            "label": label[0].lower() + label[1:],
            "template": self.template,
            "placeholders": self.placeholders,
        }


def entries(split: str, count: int, seed: int) -> list[Entry]:
    """Draw the clips of a split; every template has its share, the order tells nothing.

    The scene of a clip depends on split, seed and number alone.
    """
    number = SPLIT_NUMBERS[split]
    generator = np.random.default_rng([seed, number])
    templates = list(TEMPLATES)
    classes = generator.permutation(np.arange(count) % len(templates))
    # Train ids are odd and validation ids are even: no video is in both.
    ids = 2 * generator.permutation(100_000)[:count] + number
    return [
        Entry(
            id=str(ids[i]),
            template=templates[classes[i]],
            scene=draw_scene(split, np.random.default_rng([seed, number, i])),
        )
        for i in range(count)
    ]


def render_data_set(
    folder: Path,
    *,
    train: int,
    validation: int,
    seed: int,
    shuffle_frames: bool = False,
    report: Callable[[int], None] = lambda done: None,
) -> None:
    """Write `videos/ID.webm`, `labels/train.json` and the like into `folder`.

    Args:
        folder: made if it is not there; files of an earlier rendering are replaced.
        train: training clips, one of them missing.
        validation: validation clips, one of them truncated.
        seed: the same seed gives the same clips.
        shuffle_frames: put each clip's frames into a random order, which takes from them what
            tells a template from its reversal.
        report: called with a number of clips whenever so many more are done.
    """
    videos, labels = folder / "videos", folder / "labels"
    videos.mkdir(parents=True, exist_ok=True)
    splits = {
        "train": entries("train", train, seed),
        "validation": entries("validation", validation, seed),
    }
    _write(labels / "labels.json", {n: str(i) for i, n in enumerate(class_names())})
    _write(labels / "flip.json", {"left/right": _flips()})
    for split, clips in splits.items():
        _write(labels / f"{split}.json", [clip.annotation() for clip in clips])
    missing, truncated = splits["train"][-1], splits["validation"][-1]
    (videos / f"{missing.id}.webm").unlink(missing_ok=True)

    def render(clip: Entry) -> None:
        frames = paint(clip.scene, TEMPLATES[clip.template])
        if shuffle_frames:
            order = np.random.default_rng([seed, int(clip.id)]).permutation(len(frames))
            frames = [frames[place] for place in order]
        encode(frames, videos / f"{clip.id}.webm", cut=clip is truncated)

    jobs = [clip for clip in (*splits["train"], *splits["validation"]) if clip is not missing]
    with ThreadPoolExecutor(len(os.sched_getaffinity(0))) as pool:
        for _ in pool.map(render, jobs):
            report(1)


def class_names() -> list[str]:
    """Return the templates without brackets, sorted: what `labels.json` holds."""
    return sorted(class_name(template) for template in TEMPLATES)


def encode(frames: list[Frame], path: Path, *, cut: bool = False) -> None:
    """Write frames (240, width, 4) as VP9; with `cut` the file ends within its sixth frame."""
    packets: list[bytes] = []
    # Bit-exact: the file has no random identifier, a seed gives the same bytes.
    with av.open(str(path), "w", format="webm", options={"fflags": "bitexact"}) as container:
        stream = container.add_stream("libvpx-vp9", rate=FRAMES_A_SECOND, options=_ENCODER)
        stream.width, stream.height, stream.pix_fmt = frames[0].shape[1], HEIGHT, "yuv420p"
        # The clips themselves are done in parallel.
        stream.thread_count = 1
        for packet in _packets(stream, frames):
            packets.append(bytes(packet))
            container.mux(packet)
    if cut:
        broken = packets[FRAMES_LEFT]
        content = path.read_bytes()
        path.write_bytes(content[: content.index(broken) + len(broken) // 2])


def _packets(stream: Any, frames: list[Frame]) -> Iterator[Any]:
    for frame in frames:
        yield from stream.encode(av.VideoFrame.from_ndarray(frame, format="rgba"))
    yield from stream.encode()


def _flips() -> dict[str, str]:
    """Return the left/right pairs, both ways."""
    pairs: dict[str, str] = {}
    for name in class_names():
        if "from left to right" in name:
            other = name.replace("from left to right", "from right to left")
            pairs |= {name: other, other: name}
    return pairs


def _write(path: Path, document: Any) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    write_atomic(path, [json.dumps(document, ensure_ascii=False, indent=1).encode()])
