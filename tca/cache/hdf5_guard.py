"""HDF5 files and data sets, opened as if somebody meant harm by them.

HDF5 follows what a file says: into other files, and to sizes that no memory has. Here a data set
has the shape that is expected of it, its bytes in its own file, and no larger chunks than itself,
so that reading it takes no more than is known beforehand. What HDF5 objects to is one line.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
from h5py import h5d, h5f, h5l, h5p

from tca.cache.format import DamageError


@contextmanager
def opened(file: Path) -> Iterator[h5f.FileID]:
    """Open an HDF5 file to read it.

    Raises:
        DamageError: HDF5 cannot make sense of it, at opening or within the block.
        OSError: the system says why it cannot be read, perhaps that there is none.
    """
    try:
        group = h5f.open(os.fsencode(file), h5f.ACC_RDONLY, _reading())
        try:
            yield group
        finally:
            group.close()
    except OSError as error:
        if error.errno:
            # HDF5 wraps the system's words in a paragraph of its own.
            raise OSError(error.errno, os.strerror(error.errno)) from None
        raise DamageError(library_words(error)) from None
    except (LookupError, RuntimeError, TypeError, ValueError) as error:
        raise DamageError(library_words(error)) from None


@contextmanager
def opened_shard(file: Path) -> Iterator[h5f.FileID]:
    """Do as `opened` with a file that ought to be there."""
    try:
        with opened(file) as group:
            yield group
    except FileNotFoundError:
        raise DamageError("the file is missing") from None


def open_array(
    group: h5f.FileID, name: str, shape: tuple[int, ...], dtype: np.dtype[Any]
) -> h5d.DatasetID:
    """Open a data set, which must be of this shape and type.

    Raises:
        DamageError: it is not, or it lies in another file.
    """
    data_set = open_own(group, name)
    found = data_set.shape, data_set.dtype
    if found[0] != shape or found[1].newbyteorder("=") != dtype:
        raise DamageError(f"its {name} is {found[1]} {found[0]} instead of {dtype} {shape}")
    return data_set


def open_own(group: h5f.FileID, name: str) -> h5d.DatasetID:
    """Open a data set of any shape that lies in this very file.

    Raises:
        DamageError: there is none, or its bytes are elsewhere.
    """
    key = name.encode()
    if not group.links.exists(key):
        raise DamageError(f"it has no {name}")
    if not is_hard_link(group, key):
        raise DamageError(f"its {name} is a link to something else")
    data_set = h5d.open(group, key)
    how = data_set.get_create_plist()
    if how.get_layout() == h5d.VIRTUAL or how.get_external_count():
        raise DamageError(f"its {name} lies in another file")
    if how.get_layout() == h5d.CHUNKED:
        chunk = how.get_chunk()
        if any(c > s for c, s in zip(chunk, data_set.shape, strict=True)):
            raise DamageError(f"its {name} has chunks of {chunk}, larger than itself")
    return data_set


def is_hard_link(group: h5f.FileID, key: bytes) -> bool:
    """Say whether a name stands for something in the same file."""
    return bool(group.links.get_info(key).type == h5l.TYPE_HARD)


def library_words(error: Exception) -> str:
    """Return in one line what h5py says."""
    return f"HDF5 says: {' '.join(str(error).strip(chr(39)).split())}"


def _reading() -> h5p.PropFAID:
    access = h5p.create(h5p.FILE_ACCESS)
    # As h5py does it: what was opened in the file is closed with it.
    access.set_fclose_degree(h5f.CLOSE_STRONG)
    # Some network file systems have no locks; nobody changes a file that is in place.
    access.set_file_locking(False, True)
    return access
