"""`tca bench extract`: what it measures adds up, and it leaves nothing behind."""

from pathlib import Path

import pytest
from drawn_video import write_video

from tca.errors import TcaError
from tca.extract.bench import ExtractBench, bench_extract
from tca.extract.config import DataConfig, ExtractConfig, MotionConfig, SemanticConfig, Stage1Config

TINY = {
    "hidden_size": 16,
    "intermediate_size": 32,
    "num_hidden_layers": 1,
    "num_attention_heads": 2,
}


def bench(folder: Path, videos: int) -> ExtractBench:
    (folder / "clips").mkdir()
    for number in range(12):
        write_video(folder / f"clips/{number}.webm", 16)
    (folder / "train.csv").write_text("".join(f"{number},x\n" for number in range(12)))
    config = Stage1Config(
        data=DataConfig(videos=folder / "clips", annotations={"train": folder / "train.csv"}),
        semantic=SemanticConfig(weights="random:0", sizes=TINY, size=32),
        motion=MotionConfig(weights="random:0", blocks=(1, 1, 1, 1), size=16),
        extract=ExtractConfig(batch_size=1, threads=1),
    )
    return bench_extract(
        "train", config, device="cpu", videos=videos, rounds=1, folder=folder, scratch=folder
    )


def test_stages_and_the_whole_add_up(tmp_path: Path) -> None:
    found = bench(tmp_path, 100)
    assert (found.rows, found.batch_size, list(found.alone)) == (12, 1, ["decode", "map", "write"])
    spent = sum(speed.cpu_seconds for speed in found.alone.values())
    assert found.limit == pytest.approx(found.cores / spent)
    assert found.efficiency == pytest.approx(found.whole.rows_per_second / found.limit)
    assert found.slowest == max(found.alone, key=lambda name: found.alone[name].cpu_seconds)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["clips", "train.csv"]


def test_too_few_videos_are_an_error(tmp_path: Path) -> None:
    with pytest.raises(TcaError, match="7 rows of train are too few"):
        bench(tmp_path, 7)
