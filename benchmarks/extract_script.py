"""How fast `tca extract` is, next to the script that a researcher writes.

Same clips, same networks with the same random weights, same cores; both sides in turns. The script
is in `script.py`. Loading the networks is left out on both sides.

    python benchmarks/extract_script.py --data FOLDER --backbones full --videos 48 --markdown
"""

from __future__ import annotations

import csv
import time
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import click
from measuring import take_turns, use_cores
from report import Report, common_options, run, working_folder
from tiny_backbones import TINY
from transformers import DINOv3ViTImageProcessor

from tca.cache.store import Store
from tca.errors import TcaError
from tca.extract.backbones.pair import Backbones
from tca.extract.config import Stage1Config
from tca.extract.run import extract
from tca.extract.video_files import VIDEO_SUFFIXES

BACKBONES: dict[str, dict[str, Any]] = {
    "small": {
        "semantic": {**TINY["semantic"], "size": 64},
        "motion": {**TINY["motion"], "size": 32},
    },
    "tiny": TINY,
    "full": {"semantic": {}, "motion": {}},
}
"""full: DINOv3 ViT-B/16 and R3D-18; small: tiny at 64 and 32 pixels."""


class Sides:
    """Both ways to extract some videos."""

    def __init__(self, videos: list[Path], backbones: str, precision: str, folder: Path) -> None:
        self.videos, self.folder = videos, folder
        annotations = folder / "train.csv"
        with annotations.open("w", newline="") as file:
            csv.writer(file).writerows([["id", "label"], *([v.stem, "any"] for v in videos)])
        chosen = BACKBONES[backbones]
        self.config = Stage1Config.model_validate(
            {
                "data": {"videos": videos[0].parent, "annotations": {"train": annotations}},
                "semantic": {"weights": "random:0", **chosen["semantic"]},
                "motion": {"weights": "random:0", **chosen["motion"]},
                "extract": {"precision": precision},
            }
        )
        self.backbones = Backbones.load(self.config.semantic, self.config.motion, folder)
        self._turn = 0

    def script(self) -> float:
        """Return videos/s of the script."""
        out = self._empty()
        begin = time.perf_counter()
        side = self.backbones.semantic.size
        processor = DINOv3ViTImageProcessor(size={"height": side, "width": side})
        # Of an extra: OpenCV.
        from script import extract_by_script

        extract_by_script(self.videos, self.backbones, processor, out)
        return len(self.videos) / (time.perf_counter() - begin)

    def tca(self) -> float:
        """Return videos/s of `tca extract`.

        Raises:
            ValueError: it left a video out.
        """
        store = self._empty() / "train.zarr"
        summary = extract("train", store, self.config, devices=["cpu"])
        ready = len(Store.open(store).ready())
        if ready != len(self.videos):
            raise ValueError(f"{ready} of {len(self.videos)} videos were extracted")
        return len(self.videos) / summary.seconds

    def _empty(self) -> Path:
        self._turn += 1
        made = self.folder / str(self._turn)
        made.mkdir()
        return made


@click.command(help=__doc__.replace("    python", "\b\n    python"))
@click.option("--data", type=click.Path(path_type=Path, exists=True), required=True)
@click.option("--backbones", type=click.Choice(list(BACKBONES)), default="tiny", show_default=True)
@click.option("--precision", default="auto", show_default=True, help="As extract.precision.")
@click.option("--videos", type=click.IntRange(1), default=48, show_default=True)
@click.option("--rounds", type=click.IntRange(1), default=3, show_default=True)
@click.option("--cores", type=click.IntRange(1), default=2, show_default=True)
@common_options
def main(
    data: Path,
    backbones: str,
    precision: str,
    videos: int,
    rounds: int,
    cores: int,
    output: str | None,
    keep: bool,
    folder: Path | None,
) -> None:
    if find_spec("cv2") is None:
        raise TcaError("the script reads with OpenCV; install it with pip install '.[bench]'.")
    cores = use_cores(cores)
    found = sorted(f for f in data.rglob("*") if f.suffix.lower() in VIDEO_SUFFIXES)[:videos]
    settings = {"videos": len(found), "cores": cores, "rounds": rounds, "precision": precision}
    report = Report("extract_script", settings)
    with working_folder(folder, keep) as place:
        sides = Sides(found, backbones, precision, place)
        tca, script, ratio = take_turns(sides.script, {"tca": sides.tca}, rounds)["tca"]
    table = [[backbones, tca, script, ratio, ratio >= 3]]
    columns = ["backbones", "tca extract, videos/s", "the script, videos/s", "ratio", "≥ 3"]
    report.table("Against the script", columns, table)
    report.show(output)


if __name__ == "__main__":
    run(main)
