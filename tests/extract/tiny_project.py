"""A small data set with its tca.yaml, and what tests ask of the files and processes it makes."""

import json
import os
import signal
import time
from pathlib import Path

from drawn_video import write_video

from tca.cache.store import Store

CONFIG = """
data:
  videos: videos
  labels: labels.json
  annotations: {train: train.json}
semantic:
  weights: random:0
  sizes: {hidden_size: 16, num_hidden_layers: 1, num_attention_heads: 2, intermediate_size: 16}
  size: 32
  keep: frames
motion: {weights: random:0, blocks: [1, 1, 1, 1], size: 16}
extract: {batch_size: 3, threads: 1}
"""


def write_project(folder: Path, videos: int) -> Path:
    """Write `videos` of 8 contents, 4 of them without one frame or file, and return tca.yaml."""
    (folder / "videos").mkdir(parents=True)
    contents = [write_video(folder / f"{number}.webm", 16 + number) for number in range(8)]
    for number in range(videos):
        os.link(contents[number % 8], folder / f"videos/{number}.webm")
    for path in contents:
        path.unlink()
    for number, data in ((4, b"no video"), (9, b""), (10, b"")):
        (folder / f"videos/{number}.webm").unlink()
        (folder / f"videos/{number}.webm").write_bytes(data)
    (folder / "videos/15.webm").unlink()
    (folder / "labels.json").write_text(json.dumps({"Something left": "0", "Something right": "1"}))
    names = ["[Something] left", "[Something] right"]
    entries = [{"id": str(n), "template": names[n % 2]} for n in range(videos)]
    (folder / "train.json").write_text(json.dumps(entries))
    (folder / "tca.yaml").write_text(CONFIG)
    return folder / "tca.yaml"


def store_files(store: Path) -> dict[str, bytes]:
    """Every byte that belongs to a store: its files, its sums, why rows failed."""
    files = {
        str(path.relative_to(store.parent)): path.read_bytes()
        for folder in (store, Path(f"{store}.failures"))
        for path in sorted(folder.rglob("*"))
        if path.is_file()
    }
    report = Path(f"{store}.failures.csv")
    if report.exists():
        files[report.name] = report.read_bytes()
    sums = (store.parent / "tca.sums").read_bytes().splitlines()
    files["sums"] = b"\n".join(line for line in sums if f"  {store.name}/".encode() in line)
    return files


def committed_files(store: Path) -> dict[str, tuple[int, int]]:
    """(inode, time of writing) of every file of a committed shard; none without a store."""
    if not store.exists():
        return {}
    opened = Store.open(store)
    return {
        str(file): (file.stat().st_ino, file.stat().st_mtime_ns)
        for shard in range(opened.shards)
        if opened.shard_status(shard) is not None
        for file in opened.format.shard_files(shard)
        if file.exists()
    }


def outlived(session: int) -> list[int]:
    """End what is left of a session after a while, and return it."""
    end = time.monotonic() + 60
    while (left := session_members(session)) and time.monotonic() < end:
        time.sleep(0.1)
    for process in left:
        os.kill(process, signal.SIGKILL)
    return left


def session_members(session: int) -> list[int]:
    """Processes of a session that have not ended."""
    found = []
    for entry in Path("/proc").iterdir():
        if entry.name.isdigit():
            try:
                state, _, _, of = (entry / "stat").read_text().rpartition(")")[2].split()[:4]
            except (OSError, ValueError):
                continue
            if int(of) == session and state != "Z":
                found.append(int(entry.name))
    return found
