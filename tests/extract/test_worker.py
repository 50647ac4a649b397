"""The pipeline from videos to a store, alone and in several processes."""

import csv
import json
import os
import shutil
from pathlib import Path

import hostile_decoders
import numpy as np
import pytest
import torch
from drawn_video import write_video
from in_process import in_process

from tca.cache.files import sole_writer
from tca.cache.layout import SCALE, Status
from tca.cache.store import Store
from tca.cache.types import decode as decode_features
from tca.cache.types import from_numpy
from tca.cache.zarr_shard import with_checksum
from tca.errors import TcaError
from tca.extract import decoder, worker
from tca.extract.backbones.pair import Backbones
from tca.extract.config import DataConfig, ExtractConfig, MotionConfig, SemanticConfig, Stage1Config
from tca.extract.decoding import decode
from tca.extract.engine import run_local
from tca.extract.geometry import squares
from tca.extract.run import extract

VIDEOS = 21


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> DataConfig:
    """21 videos in two classes, one of them truncated, one empty, one missing."""
    folder = tmp_path_factory.mktemp("data")
    (folder / "videos").mkdir()
    for number in range(VIDEOS):
        path = write_video(folder / f"videos/{number}.webm", 16 + number)
        if number == 4:
            path.write_bytes(path.read_bytes()[:300])
        if number == 9:
            path.write_bytes(b"")
        if number == 15:
            path.unlink()
    (folder / "labels.json").write_text(json.dumps({"Something left": "0", "Something right": "1"}))
    template = ["[Something] left", "[Something] right"]
    entries = [{"id": str(n), "template": template[n % 2]} for n in range(VIDEOS)]
    (folder / "train.json").write_text(json.dumps(entries))
    return DataConfig(
        videos=folder / "videos",
        annotations={"train": folder / "train.json"},
        labels=folder / "labels.json",
    )


def settings(data: DataConfig, **extract_options: object) -> Stage1Config:
    sizes = {"hidden_size": 16, "num_hidden_layers": 1, "num_attention_heads": 2}
    return Stage1Config(
        data=data,
        semantic=SemanticConfig(
            weights="random:0", sizes=sizes | {"intermediate_size": 16}, size=32, keep="frames"
        ),
        motion=MotionConfig(weights="random:0", blocks=(1, 1, 1, 1), size=16),
        extract=ExtractConfig(batch_size=3, threads=2, precision="float32", **extract_options),
    )


def run(store: Path, config: Stage1Config, devices: tuple[str, ...] = ("cpu",)):
    engine = in_process if devices == ("cpu",) else run_local
    return extract("train", store, config, devices=list(devices), engine=engine, allow_missing=True)


def files(folder: Path) -> dict[str, bytes]:
    return {
        str(path.relative_to(folder)): path.read_bytes()
        for path in sorted(folder.rglob("*"))
        if path.is_file() and path.suffix != ".lock"
    }


def test_rows_are_what_the_backbones_say_of_the_sampled_frames(
    data: DataConfig, tmp_path: Path
) -> None:
    config = settings(data, dtype="float32")
    summary = run(tmp_path / "train.zarr", config)
    assert (summary.rows, summary.done) == (21, 21)
    assert summary.status == {"ok": 18, "missing": 1, "unreadable": 1, "empty": 1}
    store = Store.open(tmp_path / "train.zarr")
    assert store.status[[4, 9, 15]].tolist() == [Status.UNREADABLE, Status.EMPTY, Status.MISSING]
    assert store.label.tolist() == [n % 2 for n in range(VIDEOS)]
    assert store.ids == [str(n) for n in range(VIDEOS)]
    assert store.streams["semantic"].shape == (21, 8, 4, 16)
    assert store.streams["motion"].shape == (21, 8, 512)
    backbones = Backbones.load(config.semantic, config.motion, Path())
    for row in (0, 8, 20):
        clip = decode(data.videos / f"{row}.webm")
        features = backbones(
            squares(clip.frames[::2], 32, "full")[None],
            squares(clip.frames, 16, "full")[None],
            "float32",
        )
        for name, expected in features.items():
            found = store.read(name, np.array([row]))
            np.testing.assert_allclose(found, expected.numpy(), atol=1e-5, rtol=1e-5)


@pytest.mark.parametrize(
    ("dtype", "relative"), [("float16", 2**-11), ("bfloat16", 2**-8), ("int8", None)]
)
def test_every_stored_type_is_the_float32_features_rounded(
    data: DataConfig, tmp_path: Path, dtype: str, relative: float | None
) -> None:
    run(tmp_path / "exact.zarr", settings(data, dtype="float32"))
    run(tmp_path / "train.zarr", settings(data, dtype=dtype))
    exact, store = Store.open(tmp_path / "exact.zarr"), Store.open(tmp_path / "train.zarr")
    rows = store.ready()
    assert np.array_equal(rows, exact.ready())
    for name in store.streams:
        expected = torch.from_numpy(exact.read(name, rows))
        numbers = from_numpy(store.read(name, rows), dtype)
        scale = torch.from_numpy(store.read(name + SCALE, rows)) if dtype == "int8" else None
        error = (decode_features(numbers, scale).float() - expected).abs()
        if scale is None:
            # Half a unit in the last place, and the smallest steps near zero.
            allowed = expected.abs() * relative + 2**-25
        else:
            largest = expected.abs().amax(-1, keepdim=True)
            allowed = largest * (1 + 2**-10) / 127 / 2 + 1e-6
            assert numbers.abs().amax() <= 127
        assert (error <= allowed).all()
        assert error.any()


def test_hdf5_holds_the_same_rows(data: DataConfig, tmp_path: Path) -> None:
    run(tmp_path / "train.zarr", settings(data))
    config = settings(data)
    summary = run(tmp_path / "train.h5", config)
    assert summary.status == {"ok": 18, "missing": 1, "unreadable": 1, "empty": 1}
    one, other = Store.open(tmp_path / "train.zarr"), Store.open(tmp_path / "train.h5")
    assert other.format.name == "hdf5"
    assert one.spec.differences(other.spec) == []
    assert np.array_equal(one.status, other.status)
    for name in one.streams:
        rows = one.ready()
        assert np.array_equal(one.read(name, rows), other.read(name, rows))


def test_the_report_beside_the_store_names_every_failure(data: DataConfig, tmp_path: Path) -> None:
    summary = run(tmp_path / "train.zarr", settings(data))
    with open(summary.failures, newline="") as file:
        rows = list(csv.DictReader(file))
    assert [(row["id"], row["status"]) for row in rows] == [
        ("4", "unreadable"),
        ("9", "empty"),
        ("15", "missing"),
    ]
    assert all(row["reason"] for row in rows)
    assert rows[1]["file"] == str(data.videos / "9.webm")


def test_a_run_that_was_stopped_goes_on_and_gives_the_same_bytes(
    data: DataConfig, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    run(tmp_path / "whole/train.zarr", settings(data))
    made: list[int] = []
    commit = worker._commit

    def stops_after_one(*arguments: object) -> float:
        if made:
            raise KeyboardInterrupt
        made.append(arguments[1])
        return commit(*arguments)

    with monkeypatch.context() as patch:
        patch.setattr(worker, "_commit", stops_after_one)
        with pytest.raises(KeyboardInterrupt):
            run(tmp_path / "again/train.zarr", settings(data))
    half = Store.open(tmp_path / "again/train.zarr")
    assert 0 < len(half.ready()) < 18
    summary = run(tmp_path / "again/train.zarr", settings(data))
    assert summary.done == 21 - 8
    assert files(tmp_path / "again") == files(tmp_path / "whole")
    idle = run(tmp_path / "again/train.zarr", settings(data))
    assert (idle.done, idle.status) == (0, summary.status)


def test_several_processes_give_the_same_bytes(data: DataConfig, tmp_path: Path) -> None:
    # One thread each, as in the other processes: kernels then add up in the same order.
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        run(tmp_path / "one/train.zarr", settings(data))
        summary = run(tmp_path / "two/train.zarr", settings(data), ("cpu", "cpu"))
    finally:
        torch.set_num_threads(threads)
    assert summary.done == 21
    assert files(tmp_path / "one") == files(tmp_path / "two")


def test_a_worker_that_fails_ends_the_run_with_its_reason(data: DataConfig, tmp_path: Path) -> None:
    config = settings(data)
    run(tmp_path / "train.zarr", config)
    # The other processes cannot write: their folder is a file.
    status = tmp_path / "train.zarr/status/c"
    for path in status.iterdir():
        path.unlink()
    status.rmdir()
    status.write_text("in the way")
    with pytest.raises(TcaError, match=r"cannot (read|write)"):
        run(tmp_path / "train.zarr", config, ("cpu", "cpu"))


def test_what_cannot_start_says_why(
    data: DataConfig, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    store = tmp_path / "train.zarr"
    with pytest.raises(TcaError, match=r"1 of 21 videos .*--allow-missing"):
        extract("train", store, settings(data), devices=["cpu"])
    assert not store.exists()
    run(store, settings(data))
    with pytest.raises(TcaError, match="min_frames: expected 4, found 8"):
        run(store, settings(data, min_frames=4))
    other = tmp_path / "other.zarr"
    with sole_writer(other), pytest.raises(TcaError, match="is being written by another process"):
        run(other, settings(data))

    class Full:
        free = 1000

    monkeypatch.setattr(shutil, "disk_usage", lambda _: Full)
    with pytest.raises(TcaError, match=r"needs .* kB more and 1 kB are free; .* semantic\.keep"):
        run(other, settings(data))


def test_videos_that_hang_or_kill_their_decoder_cost_themselves_and_no_byte_of_the_others(
    data: DataConfig, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    names = ["0", "segfault", "2", "hang", "raise", "5", "6", "greedy", "abort", "10"]
    for name in names:
        source = data.videos / f"{name if name.isdigit() else 0}.webm"
        (tmp_path / source.with_stem(name).name).write_bytes(source.read_bytes())
    (tmp_path / "train.csv").write_text("".join(f"{name}.webm,x\n" for name in names))
    data = DataConfig(videos=tmp_path, annotations={"train": tmp_path / "train.csv"})
    config = settings(data, max_seconds=3, max_megabytes=300)
    with monkeypatch.context() as patch:
        patch.setattr(decoder, "draw", hostile_decoders.draw)
        summary = run(tmp_path / "hostile/train.zarr", config)
    assert summary.status == {"ok": 5, "unreadable": 4, "timed out": 1}
    with open(summary.failures, newline="") as file:
        reasons = {Path(row["file"]).stem: row["reason"] for row in csv.DictReader(file)}
    assert {name: reasons[name] for name in ("segfault", "hang", "raise", "greedy", "abort")} == {
        "segfault": "its decoder died of SIGSEGV, and so did another one",
        "hang": "decoding it takes over 3 seconds (extract.max_seconds)",
        "raise": "ArithmeticError: too odd",
        "greedy": "decoding it takes over 300 MB (extract.max_megabytes)",
        "abort": "its decoder died of SIGABRT, and so did another one",
    }
    for name in names:
        if not name.isdigit():
            (tmp_path / f"{name}.webm").write_bytes(b"")
    run(tmp_path / "empty/train.zarr", config)
    for name in ("semantic", "motion"):
        hostile, empty = (
            files(tmp_path / f"{kind}/train.zarr/{name}") for kind in ("hostile", "empty")
        )
        assert hostile
        assert hostile == empty


def test_every_odd_file_gets_features_or_a_reason(shared: Path, tmp_path: Path) -> None:
    folder = shared / "data/odd"
    names = sorted(path.name for path in folder.iterdir())
    table = tmp_path / "train.csv"
    table.write_text("".join(f"{name},odd\n" for name in names))
    data = DataConfig(videos=folder, annotations={"train": table})
    summary = extract("train", tmp_path / "train.zarr", settings(data), devices=["cpu"])
    store = Store.open(tmp_path / "train.zarr")
    status = dict(zip(names, store.status.tolist(), strict=True))
    failed = {
        "audio_only.mp4": Status.UNREADABLE,
        "broken_header.mp4": Status.UNREADABLE,
        "empty_0byte.webm": Status.EMPTY,
        "init_only_zero_frames.mp4": Status.EMPTY,
    }
    assert status == {name: failed.get(name, Status.OK) for name in names}
    features = store.read("semantic", store.ready())
    assert np.isfinite(features).all()
    assert (np.abs(features).sum((1, 2, 3)) > 0).all()
    with open(summary.failures, newline="") as file:
        assert [row["file"] for row in csv.DictReader(file)] == [str(folder / n) for n in failed]


def test_real_ssv2_annotations_with_two_of_24777_videos_here(shared: Path, tmp_path: Path) -> None:
    labels = shared / "data/ssv2/labels"
    data = DataConfig(
        videos=shared / "data/ssv2/videos",
        labels=labels / "labels.json",
        annotations={"validation": labels / "validation.json"},
    )
    path = tmp_path / "validation.zarr"
    with pytest.raises(TcaError, match="24,775 of 24,777 videos of split validation"):
        extract("validation", path, settings(data), devices=["cpu"])
    summary = extract("validation", path, settings(data), devices=["cpu"], allow_missing=True)
    assert summary.status == {"ok": 2, "missing": 24_775}
    store = Store.open(path)
    entries = json.loads((labels / "validation.json").read_text())
    assert store.ids == [entry["id"] for entry in entries]
    (first, second) = store.ready()
    for row in (first, second):
        template = entries[row]["template"].replace("[", "").replace("]", "")
        assert store.classes[store.label[row]] == template
        assert (shared / f"data/ssv2/videos/{store.ids[row]}.webm").is_file()
        assert np.abs(store.read("motion", np.array([row]))).max() > 0
    with open(summary.failures, newline="") as file:
        assert sum(row["status"] == "missing" for row in csv.DictReader(file)) == 24_775


def test_features_that_the_stored_type_cannot_hold_cost_that_video_alone(
    data: DataConfig, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    call = Backbones.__call__

    def overflows(self: Backbones, frames: torch.Tensor, *rest: object) -> dict[str, torch.Tensor]:
        features = call(self, frames, *rest)
        if not seen:
            features["motion"] = features["motion"].clone()
            features["motion"][1, 3, 7] = 70_000.0
        seen.append(1)
        return features

    for dtype, good in (("float16", 17), ("float32", 18)):
        seen: list[int] = []
        monkeypatch.setattr(Backbones, "__call__", overflows)
        summary = run(tmp_path / f"{dtype}.zarr", settings(data, dtype=dtype))
        assert summary.status["ok"] == good
        assert ("no finite numbers in float16" in summary.failures.read_text()) == (good == 17)
    assert Store.open(tmp_path / "float16.zarr").status[1] == Status.UNREADABLE


def test_too_little_memory_for_one_video_is_an_error(
    data: DataConfig, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(*_: object) -> None:
        raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 20.00 GiB.")

    monkeypatch.setattr(Backbones, "__call__", full)
    with pytest.raises(TcaError, match="not enough memory for one video"):
        run(tmp_path / "train.zarr", settings(data))


def test_a_file_whose_name_is_no_text_can_fail_too(tmp_path: Path) -> None:
    folder = tmp_path / os.fsdecode(b"clips-\xff")
    folder.mkdir()
    (folder / "a.webm").write_bytes(b"no video")
    write_video(folder / "b.webm", 16)
    (tmp_path / "train.csv").write_text("a,x\nb,x\n")
    data = DataConfig(videos=tmp_path, annotations={"train": tmp_path / "train.csv"})
    summary = run(tmp_path / "train.zarr", settings(data))
    assert summary.status == {"ok": 1, "unreadable": 1}
    assert os.fsencode(folder / "a.webm") in summary.failures.read_bytes()


def test_a_status_of_a_later_tca_and_reports_in_the_way(data: DataConfig, tmp_path: Path) -> None:
    store = tmp_path / "train.zarr"
    report = run(store, settings(data)).failures
    status = Store.open(store).shard_status(0).copy()
    status[0] = 77
    (store / "status/c/0").write_bytes(b"".join(with_checksum(status)))
    assert run(store, settings(data)).status["status 77"] == 1
    assert "status 77" in report.read_text()
    report.unlink()
    report.mkdir()
    with pytest.raises(TcaError, match=r"cannot write .*failures\.csv"):
        run(store, settings(data))


def test_relative_paths_start_where_the_program_is_now(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    # Decoders are forked from one process, which was somewhere else the second time.
    for name in ("first", "second"):
        (tmp_path / name / "clips").mkdir(parents=True)
        monkeypatch.chdir(tmp_path / name)
        write_video(Path("clips") / f"{name}.webm", 16)
        Path("train.csv").write_text(f"{name},x\n")
        data = DataConfig(videos=Path("clips"), annotations={"train": Path("train.csv")})
        assert run(Path("train.zarr"), settings(data)).status == {"ok": 1}
