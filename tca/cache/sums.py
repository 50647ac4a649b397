"""`tca.sums`: the sha256 of the files outside the shards of the stores in one folder.

The sums lie beside the stores: a foreign file inside a group makes zarr-python warn. They are
written as `sha256sum` writes them, so that it checks them too.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path

from tca.cache.files import locked, write_atomic
from tca.cache.format import reading_failed
from tca.cache.place import SUMS
from tca.console import warn
from tca.errors import TcaError


def sums_path(store: Path) -> Path:
    """Return where the sha256 of every file of `store` outside its shards is written."""
    return store.resolve().with_name(SUMS)


def write_sums(store: Path, folder: Path, names: Iterable[str]) -> None:
    """Write the sums of the files `names` of `folder`, which is about to become `store`.

    Raises:
        TcaError: the folder of the store cannot be written or locked.
    """
    path = sums_path(store)
    # Two splits may be made at the same moment; each keeps the other's lines.
    with locked(path.with_name(SUMS + ".lock"), wait=True):
        ours = f"{store.resolve().name}/"
        kept = {k: v for k, v in parse_sums(_bytes(path)).items() if not k.startswith(ours)}
        sums = kept | {ours + name: digest((folder / name).read_bytes()) for name in names}
        lines = [f"{value}  {name}\n" for name, value in sorted(sums.items())]
        write_atomic(path, ["".join(lines).encode(errors="surrogateescape")])


def sums_of(store: Path) -> dict[str, str]:
    """Return the sha256 of the store's files outside its shards, by their names inside it.

    Raises:
        TcaError: the sums cannot be read.
    """
    return _of_store(parse_sums(_bytes(sums_path(store))), store.resolve().name)


def parse_sums(data: bytes) -> dict[str, str]:
    """Return sha256 by file name; of a damaged line nothing that would fit any file."""
    text = data.decode(errors="surrogateescape")
    parts = (line.partition("  ") for line in text.split("\n"))
    return {name: value for value, _, name in parts if name}


def digest(data: bytes) -> str:
    """Return the sha256 of `data` in hexadecimal."""
    return hashlib.sha256(data).hexdigest()


def remote_sums(store: str, read: Callable[[str], bytes]) -> dict[str, str]:
    """Do as `sums_of` for a store behind a URL; `read` gets files of the folder it lies in.

    Raises:
        OSError: the sums are there and cannot be read.
    """
    try:
        return _of_store(parse_sums(read(SUMS)), store.rpartition("/")[2])
    except FileNotFoundError:
        return {}


def warn_unchecked(store: Path | str) -> None:
    """Say, once a process, that a store has no sums to hold its metadata against."""
    if str(store) not in _WARNED:
        _WARNED.add(str(store))
        warn(
            f"{_sums_name(store)} says nothing of {store}: whether its metadata have changed since "
            "it was made cannot be checked."
        )


_WARNED: set[str] = set()


def check_sum(store: Path | str, name: str, data: bytes, sums: Mapping[str, str]) -> None:
    """Hold one file against its sum; a store without any sums cannot be checked.

    Raises:
        TcaError: it has changed, or has no sum where others have one.
    """
    if not sums:
        return
    expected = sums.get(name)
    where = _sums_name(store)
    ours = store.resolve().name if isinstance(store, Path) else store.rpartition("/")[2]
    if expected is None:
        raise TcaError(
            f"{where} has lost the sha256 of {ours}/{name}; bring the "
            "store's lines of that file back, or take the store as it is with "
            f"`tca cache repair {store}`."
        )
    if digest(data) != expected:
        raise TcaError(
            f"{store}/{name} has changed since the store was made (its sha256 is not that in "
            f"{where}); {put_back(store)}."
        )


def put_back(store: Path | str) -> str:
    """Return the remedy for damage outside the shards."""
    if isinstance(store, str):
        return "put the file back from where the store came from"
    return (
        f"put the file back, or run `tca cache repair {store}` and extract again, which makes that "
        "file anew and keeps what is sound"
    )


def remedy(store: Path | str, error: OSError) -> str:
    """Return the remedy for a file outside the shards that cannot be read."""
    missing = isinstance(error, FileNotFoundError | NotADirectoryError)
    return put_back(store) if missing or isinstance(store, str) else "make it readable"


def _sums_name(store: Path | str) -> str:
    """Return what to call the file of the sums of a store."""
    if isinstance(store, Path):
        return str(sums_path(store))
    return f"{store.rpartition('/')[0]}/{SUMS}"


def _of_store(sums: Mapping[str, str], store: str) -> dict[str, str]:
    ours = f"{store}/"
    return {name.removeprefix(ours): value for name, value in sums.items() if name.startswith(ours)}


def _bytes(path: Path) -> bytes:
    try:
        return path.read_bytes()
    except FileNotFoundError:
        return b""
    except OSError as error:
        raise reading_failed(path, error) from None
