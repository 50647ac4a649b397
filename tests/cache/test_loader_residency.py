"""The same batches from wherever rows are kept, checked when they should be."""

from pathlib import Path

import numpy as np
import pytest
import torch
from example_store import Example

import tca.cache.residency as residency_module
from tca.cache.config import LoaderConfig
from tca.cache.loader import Batch, Loader
from tca.cache.memory import available_memory
from tca.cache.residency import DeviceRows, DiskRows, RamRows, open_source, read_decoded
from tca.cache.store import Store
from tca.errors import TcaError, UsageError

TYPES = ["float16", "bfloat16", "float32", "int8"]
DEVICE = torch.device("cuda" if torch.cuda.is_available() else "cpu")


def of_type(folder: Path, stored: str, **more: object) -> Example:
    example = Example(
        folder / "train.zarr", types={"semantic": stored, "motion": stored}, rows=61, **more
    )
    example.write()
    return example


def same(one: Batch, other: Batch) -> None:
    assert np.array_equal(one.rows, other.rows)
    assert torch.equal(one.label, other.label)
    assert one.position == other.position
    assert set(one.arrays) == set(other.arrays)
    for name, tensor in one.arrays.items():
        assert tensor.dtype == other.arrays[name].dtype
        assert torch.equal(tensor.cpu(), other.arrays[name].cpu())


@pytest.mark.parametrize("stored", TYPES)
@pytest.mark.parametrize("shuffle", ["rows", "blocks"])
def test_batches_are_the_same_in_every_residency(tmp_path: Path, stored: str, shuffle: str) -> None:
    example = of_type(tmp_path, stored)
    store = Store.open(example.path)
    config = LoaderConfig(shuffle=shuffle, block_rows=4, buffer_blocks=3)
    rows = store.ready()[::2]
    sources = [
        DiskRows(store, None, config),
        RamRows(store, rows, None, config),
        DeviceRows(store, rows, None, config, DEVICE),
    ]
    epochs = [
        list(Loader(store, rows, 4, seed=1, config=config, source=source).epoch(2))
        for source in sources
    ]
    for disk, ram, gpu in zip(*epochs, strict=True):
        same(disk, ram)
        same(disk, gpu)
        for name, features in example.features.items():
            tensor = disk.arrays[name]
            bits = tensor.view(torch.uint16) if tensor.dtype == torch.bfloat16 else tensor
            assert np.array_equal(bits.numpy(), features[disk.rows])


@pytest.mark.parametrize("stored", TYPES)
def test_features_are_floating_point_and_near_those_that_were_encoded(
    tmp_path: Path, stored: str
) -> None:
    store = Store.open(of_type(tmp_path, stored).path)
    exact = of_type(tmp_path / "exact", "float32").features["semantic"]
    batch = next(Loader(store, store.ready(), 8, seed=0).epoch(0))
    found = batch.features("semantic", DEVICE)
    assert found.device.type == DEVICE.type
    assert found.is_floating_point()
    tolerance = {"float16": 1e-3, "bfloat16": 1e-2, "float32": 0, "int8": 1e-2}[stored]
    largest = np.abs(exact[batch.rows]).max(-1, keepdims=True)
    assert (np.abs(found.float().cpu().numpy() - exact[batch.rows]) <= tolerance * largest).all()
    assert torch.equal(read_decoded(store, "semantic", batch.rows), found.cpu())


def flip(path: Path) -> None:
    """Change a bit of row 8 of the motion stream."""
    data = bytearray((path / "motion/c/1/0/0").read_bytes())
    data[1] ^= 1
    with open(path / "motion/c/1/0/0", "r+b") as file:
        file.write(data)


@pytest.mark.parametrize("residency", ["disk", "ram"])
@pytest.mark.parametrize("checksum", ["always", "first_epoch", "never"])
def test_damage_is_found_when_it_should_be(tmp_path: Path, residency: str, checksum: str) -> None:
    path = of_type(tmp_path, "float32").path
    flip(path)
    store = Store.open(path)
    config = LoaderConfig(residency=residency, checksum=checksum)

    def read() -> int:
        loader = Loader(store, store.ready(), 8, seed=0, config=config)
        return sum(len(batch.rows) for batch in loader.epoch(7))

    if checksum == "never":
        assert read() == 58
        return
    with pytest.raises(TcaError, match=r"row 8 \(id .+motion/c/1/0/0 is damaged"):
        read()


def test_first_epoch_checks_each_row_the_first_time_it_is_read(tmp_path: Path) -> None:
    example = of_type(tmp_path, "float32")
    store = Store.open(example.path)
    loader = Loader(
        store, store.ready(), 8, seed=0, shuffle=False, config=LoaderConfig(checksum="first_epoch")
    )
    always = Loader(store, store.ready(), 8, seed=0, shuffle=False)
    # Rows 0 to 9 but the failed ones: row 8 is among them.
    assert 8 in next(loader.epoch(0)).rows
    flip(example.path)
    first = next(loader.epoch(1))
    assert not np.array_equal(first.arrays["motion"], example.features["motion"][first.rows])
    with pytest.raises(TcaError, match="row 8"):
        next(always.epoch(1))
    # Another process, going on with a late epoch, has checked nothing yet.
    fresh = Loader(
        store, store.ready(), 8, seed=0, shuffle=False, config=LoaderConfig(checksum="first_epoch")
    )
    with pytest.raises(TcaError, match="row 8"):
        next(fresh.epoch(7))


def test_a_row_that_was_not_loaded_is_no_other_row(tmp_path: Path) -> None:
    store = Store.open(of_type(tmp_path, "float32").path)
    config = LoaderConfig()
    source = RamRows(store, store.ready()[10:20], None, config)
    for row in (0, 12, 60):
        if row in store.ready()[10:20]:
            continue
        loader = Loader(store, np.array([row]), 1, seed=0, config=config, source=source)
        with pytest.raises(ValueError, match="not loaded"):
            next(loader.epoch(0))


def test_auto_takes_memory_with_room_to_spare_and_says_so_once(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    store = Store.open(of_type(tmp_path, "float32").path)
    rows = store.ready()
    wanted = len(rows) * (4 * 6 + 8 * 5) * 4
    config = LoaderConfig(residency="auto")
    for free, kind, place in ((2 * wanted, RamRows, "ram"), (2 * wanted - 1, DiskRows, "disk")):
        monkeypatch.setattr(residency_module, "available_memory", lambda free=free: free)
        loader = Loader(store, rows, 8, seed=0, config=config)
        list(loader.epoch(0))
        list(loader.epoch(1))
        assert type(loader.source) is kind
        assert capsys.readouterr().err.count(f"auto chose {place}: the rows take 14.8 kB") == 1
    # A GPU counts with its own memory, and comes first.
    monkeypatch.setattr(residency_module, "_free", lambda device: 2 * wanted)
    assert residency_module._choose(wanted, torch.device("cuda")) == "gpu"
    monkeypatch.setattr(
        residency_module, "_free", lambda device: (2 if device.type == "cpu" else 1) * wanted
    )
    assert residency_module._choose(wanted, torch.device("cuda")) == "ram"


def test_what_does_not_fit_is_refused_before_anything_is_read(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    store = Store.open(of_type(tmp_path, "float32").path)
    monkeypatch.setattr(residency_module, "available_memory", lambda: 14_000)
    with pytest.raises(TcaError, match=r"residency=ram needs 14\.8 kB for 58 rows.*14\.0 kB"):
        open_source(store, store.ready(), None, LoaderConfig(residency="ram"))
    with pytest.raises(UsageError, match="residency=gpu needs a GPU, and the device is cpu"):
        open_source(store, store.ready(), None, LoaderConfig(residency="gpu"))


def test_a_stream_that_is_not_stored_is_named(tmp_path: Path) -> None:
    example = Example(
        tmp_path / "train.zarr", row_shapes={"motion": (8, 5)}, types={"motion": "float32"}
    )
    store = example.write()
    with pytest.raises(TcaError, match="holds no semantic stream, only motion"):
        Loader(store, store.ready(), 4, seed=0, streams=["semantic"])
    batch = next(Loader(store, store.ready(), 4, seed=0).epoch(0))
    assert set(batch.arrays) == {"motion"}


def write(folder: Path, files: dict[str, str]) -> None:
    for name, text in files.items():
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_text(text)


MEMINFO = "MemTotal: 8000 kB\nMemAvailable:    4000 kB\n"
V2 = {"memory.current": "900000\n", "memory.stat": "anon 5\ninactive_file 300000\n"}


@pytest.mark.parametrize(
    ("group", "files", "expected"),
    [
        ("0::/a/b\n", {}, 4000 * 1024),
        ("0::/a/b\n", {"a/b/memory.max": "max\n"}, 4000 * 1024),
        (
            "0::/a/b\n",
            {f"a/b/{name}": text for name, text in (V2 | {"memory.max": "1000000\n"}).items()},
            400_000,
        ),
        # The limit of a group above counts too, and a path of the host is not there.
        (
            "0::/a/b\n",
            {f"a/{name}": text for name, text in (V2 | {"memory.max": "950000\n"}).items()},
            350_000,
        ),
        (
            "4:memory:/gone\n0::/\n",
            {
                "memory/memory.limit_in_bytes": "2000000\n",
                "memory/memory.usage_in_bytes": "1500000\n",
                "memory/memory.stat": "inactive_file 7\ntotal_inactive_file 100000\n",
            },
            600_000,
        ),
        ("4:memory:/\n", {"memory/memory.limit_in_bytes": "9223372036854771712\n"}, 4000 * 1024),
    ],
)
def test_available_memory_is_what_the_system_and_its_groups_leave(
    tmp_path: Path, group: str, files: dict[str, str], expected: int
) -> None:
    write(tmp_path / "proc", {"meminfo": MEMINFO, "self/cgroup": group})
    write(tmp_path / "cgroup", files)
    assert available_memory(tmp_path / "proc", tmp_path / "cgroup") == expected


def test_available_memory_here_is_a_part_of_what_there_is() -> None:
    total = int(Path("/proc/meminfo").read_text().split()[1]) * 1024
    assert 0 < available_memory() <= total
