"""Stores behind URLs: S3 (a server of moto's, started here), HTTP and fsspec's own memory."""

import importlib
import json
import os
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from functools import partial
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from threading import Thread
from typing import Any

import numpy as np
import pytest
from example_store import Example
from foreign_store import write_foreign
from zarr.codecs import ZstdCodec

from tca.cache.convert import convert
from tca.cache.info import describe
from tca.cache.layout import Status
from tca.cache.loader import Loader
from tca.cache.store import Store
from tca.cli import run
from tca.errors import TcaError

fsspec = pytest.importorskip("fsspec")
s3fs = pytest.importorskip("s3fs", reason="needs s3fs, which reads s3:// URLs")
moto = pytest.importorskip("moto", reason="needs moto, which is the S3 server here")
moto_server = pytest.importorskip("moto.server", reason="needs moto, which is the S3 server here")

SHAPES = {"semantic": (4, 16), "motion": (8, 16)}


@dataclass
class Bucket:
    """A server of S3 with one bucket, which has the stores of a folder.

    Attributes:
        folder: the same on disk.
        stores: what they were made of, by split.
        server: moto's.
    """

    folder: Path
    stores: dict[str, Example]
    server: Any

    def url(self, split: str) -> str:
        return f"s3://bucket/{split}.zarr"


def start_server(patch: pytest.MonkeyPatch) -> Any:
    """Start a server and let AWS's clients find it, with fake credentials."""
    server = moto_server.ThreadedMotoServer("127.0.0.1", 0, verbose=False)
    server.start()
    host, port = server.get_host_and_port()
    for name in [name for name in os.environ if name.startswith("AWS_")]:
        patch.delenv(name)
    patch.setenv("AWS_ENDPOINT_URL", f"http://{host}:{port}")
    patch.setenv("AWS_ACCESS_KEY_ID", "testing")
    patch.setenv("AWS_SECRET_ACCESS_KEY", "testing")
    patch.setenv("AWS_DEFAULT_REGION", "us-east-1")
    patch.setenv("AWS_EC2_METADATA_DISABLED", "true")
    patch.setenv("AWS_CONFIG_FILE", os.devnull)
    patch.setenv("AWS_SHARED_CREDENTIALS_FILE", os.devnull)
    # A server that is gone is tried again for seconds.
    patch.setenv("AWS_MAX_ATTEMPTS", "1")
    patch.setattr(s3fs.S3FileSystem, "retries", 1)
    forget_clients()
    return server


def forget_clients() -> None:
    """Or the next one would speak to the server before, with the credentials before."""
    s3fs.S3FileSystem.clear_instance_cache()


@pytest.fixture(scope="module")
def bucket(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Bucket]:
    folder = tmp_path_factory.mktemp("bucket")
    stores = {
        "train": Example(folder / "train.zarr", rows=61, row_shapes=SHAPES),
        "validation": Example(folder / "validation.zarr", rows=20, row_shapes=SHAPES),
    }
    with pytest.MonkeyPatch.context() as patch:
        server = start_server(patch)
        try:
            for example in stores.values():
                example.write()
            files = fsspec.filesystem("s3")
            files.mkdir("bucket")
            files.put(f"{folder}/", "bucket/", recursive=True)
            yield Bucket(folder, stores, server)
        finally:
            server.stop()
            forget_clients()


def holds(url: str, example: Example) -> Store:
    """Hold the store behind a URL against what was written."""
    store = Store.open(url)
    assert (store.path, store.rows, store.ids) == (url, example.rows, example.table.ids)
    for name in ("label", "video", "view"):
        assert np.array_equal(getattr(store, name), getattr(example.table, name))
    assert np.array_equal(store.status, example.status)
    rows = np.random.default_rng(0).choice(store.ready(), 40)
    for name in store.format.arrays:
        # Few of a shard, most of it, all, none.
        for chosen in (rows[:4], rows, store.ready(), rows[:0]):
            assert np.array_equal(store.read(name, chosen), example.features[name][chosen])
    return store


def test_s3_gives_the_same_rows(
    bucket: Bucket, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    for split, example in bucket.stores.items():
        store = holds(bucket.url(split), example)
        local = Store.open(example.path)
        assert store.spec.attributes() == local.spec.attributes()
        assert store.rows_per_shard == local.rows_per_shard
    # Their tca.sums was found.
    assert not capsys.readouterr().err


def test_metadata_on_s3_are_held_against_their_sums(bucket: Bucket) -> None:
    files = fsspec.filesystem("s3")
    files.copy("bucket/train.zarr", "bucket/other/train.zarr", recursive=True)
    files.copy("bucket/tca.sums", "bucket/other/tca.sums")
    name = "bucket/other/train.zarr/zarr.json"
    files.pipe_file(name, files.cat_file(name).replace(b"224", b"225"))
    with pytest.raises(TcaError, match=r"s3://bucket/other/train.zarr/zarr.json has changed since"):
        Store.open("s3://bucket/other/train.zarr")
    files.rm("bucket/other/tca.sums")
    assert Store.open("s3://bucket/other/train.zarr").identity["size"] == [225, 225]


def test_compressed_stores_on_s3(bucket: Bucket, tmp_path: Path) -> None:
    example = bucket.stores["train"]
    for name, settings in (("chunks", {}), ("shards", {"shard_rows": 8})):
        write_foreign(tmp_path / name, example, compressors=[ZstdCodec()], **settings)
        fsspec.filesystem("s3").put(str(tmp_path / name), f"bucket/{name}", recursive=True)
        holds(f"s3://bucket/{name}", example)


def test_the_loader_reads_s3(bucket: Bucket) -> None:
    example = bucket.stores["train"]
    store = Store.open(bucket.url("train"))
    loader = Loader(store, store.ready(), 16, seed=3)
    local = Store.open(example.path)
    expected = Loader(local, local.ready(), 16, seed=3)
    for batch, same in zip(loader.epoch(1), expected.epoch(1), strict=True):
        assert np.array_equal(batch.rows, same.rows)
        for name, tensor in batch.arrays.items():
            assert np.array_equal(tensor, same.arrays[name])
            assert np.array_equal(tensor, example.features[name][batch.rows])


def test_a_shard_is_fetched_by_one_request(
    bucket: Bucket, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked = []
    fetch = s3fs.S3FileSystem._cat_file

    async def counted(files: Any, path: str, *args: Any, **kwargs: Any) -> bytes:
        asked.append(path)
        return await fetch(files, path, *args, **kwargs)

    store = Store.open(bucket.url("train"))
    monkeypatch.setattr(s3fs.S3FileSystem, "_cat_file", counted)
    # Row 3 and 7 have failed.
    store.read("motion", [0, 1, 2, 4, 5, 6])
    assert asked == ["bucket/train.zarr/motion/c/0/0/0"]


@pytest.mark.parametrize("name", ["new.zarr", "new.h5"])
def test_a_store_is_brought_here_by_converting(bucket: Bucket, tmp_path: Path, name: str) -> None:
    convert(bucket.url("train"), tmp_path / name)
    store = Store.open(tmp_path / name)
    example = bucket.stores["train"]
    for array, features in example.features.items():
        assert np.array_equal(store.read(array, store.ready()), features[store.ready()])
    (step,) = store.record["converted"]
    assert step["source"] == "train.zarr"
    if name == "new.zarr":
        local = tmp_path / "local" / "new.zarr"
        convert(example.path, local)
        for file in local.rglob("*"):
            assert (
                file.is_dir()
                or file.read_bytes() == (tmp_path / name / file.relative_to(local)).read_bytes()
            )


def one_sentence(error: pytest.ExceptionInfo[TcaError], *parts: str) -> None:
    text = str(error.value)
    assert "\n" not in text
    assert "Traceback" not in text
    for part in parts:
        assert part in text


def test_a_lost_shard_on_s3_names_the_row(bucket: Bucket) -> None:
    files = fsspec.filesystem("s3")
    files.copy("bucket/train.zarr", "bucket/lost.zarr", recursive=True)
    files.rm("bucket/lost.zarr/motion/c/2/0/0")
    store = Store.open("s3://bucket/lost.zarr")
    with pytest.raises(TcaError) as error:
        store.read("motion", store.ready())
    one_sentence(error, f"row 16 (id {store.ids[16]}) of s3://", "c/2/0/0 is missing", "put that")
    data = bytearray(files.cat_file("bucket/lost.zarr/motion/c/4/0/0"))
    data[600] ^= 1
    files.pipe_file("bucket/lost.zarr/motion/c/4/0/0", bytes(data))
    others = np.setdiff1d(store.ready(), range(16, 24))
    with pytest.raises(TcaError) as error:
        store.read("motion", others)
    # Row 33 begins behind 516 bytes of row 32.
    one_sentence(error, f"row 33 (id {store.ids[33]}) of s3://bucket/lost.zarr", "is damaged")
    others = np.setdiff1d(others, [33])
    found = store.read("motion", others)
    assert np.array_equal(found, bucket.stores["train"].features["motion"][others])


def test_nothing_there(bucket: Bucket) -> None:
    for url in ("s3://no-such-bucket/train.zarr", "s3://bucket/no.zarr", "s3://bucket"):
        with pytest.raises(TcaError) as error:
            Store.open(url)
        one_sentence(error, f"there is no store at {url}: it has no zarr.json; give the URL")


def test_hdf5_behind_a_url_says_what_to_do(bucket: Bucket) -> None:
    fsspec.filesystem("s3").pipe_file("bucket/train.h5/index.h5", b"anything")
    with pytest.raises(TcaError) as error:
        Store.open("s3://bucket/train.h5")
    one_sentence(error, "is HDF5, which tca reads from disks only; copy or mount it")


def test_a_server_that_stops(bucket: Bucket) -> None:
    with pytest.MonkeyPatch.context() as patch:
        server = start_server(patch)
        try:
            # All of moto's servers in a process have the same buckets.
            store = Store.open(bucket.url("train"))
            store.read("motion", [5])
        finally:
            server.stop()
        gone = "look at the network, the address and the credentials, and try again"
        for rows, named in (([6], "row 6 (id "), ([9, 40], "row 9 (id ")):
            with pytest.raises(TcaError) as error:
                store.read("motion", rows)
            one_sentence(error, "cannot read s3://bucket/train.zarr/motion", named, gone)
        with pytest.raises(TcaError, match=r"row \d+ \(id "):
            list(Loader(store, store.ready(), 32, seed=0).epoch(0))
        with pytest.raises(TcaError) as error:
            Store.open(bucket.url("train"))
        one_sentence(error, "cannot read s3://bucket/train.zarr", gone)
    forget_clients()


def test_wrong_credentials(bucket: Bucket, monkeypatch: pytest.MonkeyPatch) -> None:
    # Requests that moto lets through before it looks at who is asking.
    monkeypatch.setattr(moto.settings, "INITIAL_NO_AUTH_ACTION_COUNT", 0)
    forget_clients()
    try:
        with pytest.raises(TcaError) as error:
            Store.open(bucket.url("train"))
        one_sentence(error, "cannot read s3://bucket/train.zarr", "and the credentials, and try")
    finally:
        forget_clients()


def test_a_driver_that_cannot_start(bucket: Bucket, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("AWS_PROFILE", "nobody")
    forget_clients()
    try:
        for url in (bucket.url("train"), "zip://train.zarr::s3://bucket/stores.zip"):
            with pytest.raises(TcaError) as error:
                Store.open(url)
            one_sentence(error, f"cannot read {url}: The config profile (nobody) could not be")
    finally:
        forget_clients()


def test_a_scheme_that_nobody_knows() -> None:
    with pytest.raises(TcaError) as error:
        Store.open("sthree://bucket/train.zarr")
    one_sentence(error, "sthree://bucket/train.zarr is not a URL that fsspec can read", "like s3:")


@pytest.mark.parametrize(
    ("url", "module", "remedy"),
    [
        ("s3://bucket/train.zarr", "s3fs", "pip install 'tca[s3]'"),
        ("gs://bucket/train.zarr", "gcsfs", "gcsfs"),
    ],
)
def test_a_driver_that_is_not_installed(
    monkeypatch: pytest.MonkeyPatch, url: str, module: str, remedy: str
) -> None:
    # By this way, since `fsspec.registry` is also the name of what is in it.
    registry = importlib.import_module("fsspec.registry")
    monkeypatch.delitem(registry._registry, url.partition(":")[0], raising=False)
    monkeypatch.setitem(sys.modules, module, None)
    with pytest.raises(TcaError) as error:
        Store.open(url)
    one_sentence(error, f"{url} needs a driver that is not installed; ", remedy)


def test_fsspec_s_own_memory(bucket: Bucket, tmp_path: Path) -> None:
    files = fsspec.filesystem("memory")
    try:
        files.put(f"{bucket.folder}/", "/stores/", recursive=True)
        store = holds("memory://stores/train.zarr", bucket.stores["train"])
        loader = Loader(store, store.ready(), 16, seed=3)
        assert sum(len(batch.rows) for batch in loader.epoch(0)) == len(store.ready())
    finally:
        files.rm("/stores", recursive=True)


class Quiet(SimpleHTTPRequestHandler):
    """Python's own server: it knows no requests for a part of a file."""

    def log_message(self, *args: Any) -> None:
        pass


@pytest.fixture
def http(tmp_path: Path) -> Iterator[str]:
    server = ThreadingHTTPServer(("127.0.0.1", 0), partial(Quiet, directory=str(tmp_path)))
    thread = Thread(target=server.serve_forever)
    thread.start()
    yield f"http://127.0.0.1:{server.server_port}"
    server.shutdown()
    server.server_close()
    thread.join()


def test_http_gives_whole_files(tmp_path: Path, http: str) -> None:
    pytest.importorskip("aiohttp", reason="needs aiohttp, which reads http:// URLs")
    example = Example(tmp_path / "train.zarr", rows=61)
    write_foreign(example.path, example, compressors=[ZstdCodec()])
    holds(f"{http}/train.zarr", example)


def test_http_without_ranges_is_told_from_damage(tmp_path: Path, http: str) -> None:
    pytest.importorskip("aiohttp", reason="needs aiohttp, which reads http:// URLs")
    example = Example(tmp_path / "train.zarr", rows=61, failed={3: Status.MISSING})
    example.write()
    store = Store.open(f"{http}/train.zarr")
    # All of a shard needs no part of a file.
    rows = np.arange(8, 16)
    assert np.array_equal(store.read("motion", rows), example.features["motion"][rows])
    with pytest.raises(TcaError) as error:
        store.read("motion", [9])
    one_sentence(error, "row 9 (id ", "does not answer requests for a part of a file")


def usable(example: Example) -> np.ndarray:
    return np.flatnonzero((example.status == Status.OK) & (example.table.label >= 0))


CONFIG = """
data: {videos: videos, annotations: {train: train.csv, validation: validation.csv}}
model: {heads: 2, bottleneck: 8, layers: 1, rank: 4}
train: {epochs: 1, holdout: 0.25, device: cpu}
stores: s3://bucket/{split}.zarr
"""


def test_the_command_line_takes_urls(
    bucket: Bucket,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "tca.yaml").write_text(CONFIG)
    assert run(["train-fusion", "--json"]) == 0
    trained = json.loads(capsys.readouterr().out)
    assert run(["evaluate", "--json"]) == 0
    scored = json.loads(capsys.readouterr().out)
    assert trained["rows"] + trained["holdout_rows"] == len(usable(bucket.stores["train"]))
    example = bucket.stores["validation"]
    assert scored["videos"] == len(np.unique(example.table.video[usable(example)]))
    assert run(["extract", "--split", "train"]) == 2
    assert "extract writes to disks only" in capsys.readouterr().err


def test_info_describes_urls(bucket: Bucket, capsys: pytest.CaptureFixture[str]) -> None:
    assert run(["cache", "info", bucket.url("train"), "--json"]) == 0
    found = json.loads(capsys.readouterr().out)
    local = describe(Store.open(bucket.stores["train"].path))
    for key in ("rows", "status", "labels", "identity", "classes"):
        assert found[key] == local[key]
