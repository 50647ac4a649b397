"""Folders behind a URL, through fsspec: S3 and its like, HTTP, memory.

Endpoints, credentials and proxies are fsspec's and its drivers' business: for S3 the variables of
AWS (`AWS_ENDPOINT_URL`, `AWS_PROFILE`, …), for all of them fsspec's own configuration files.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

from tca.cache.format import reading_failed
from tca.errors import TcaError

EXTRAS = {"s3": "tca[s3]", "s3a": "tca[s3]"}
"""What to install for a scheme, where it is one of tca's extras."""

LOOK_AT = "look at the network, the address and the credentials, and try again"


class RemoteError(OSError):
    """The server or the network, in one sentence without a full stop."""


def is_url(path: Path | str) -> bool:
    """Say whether a path is a URL, and so lies behind fsspec."""
    return isinstance(path, str) and "://" in path


def as_place(path: Path | str) -> Path | str:
    """Return a URL as text without a slash at its end, all else, `file://` too, as a path."""
    if isinstance(path, str) and path.startswith("file://"):
        return Path(path.removeprefix("file://"))
    if isinstance(path, str) and is_url(path):
        return path.rstrip("/")
    return Path(path)


class RemoteFolder:
    """Reads whole files of a folder behind a URL.

    Attributes:
        url: where it is.
    """

    def __init__(self, url: str) -> None:
        """Find the driver for `url`; nothing is read yet.

        Raises:
            TcaError: no driver for such URLs.
        """
        self.url = url
        with _DriverErrors(url):
            from fsspec.core import url_to_fs

            self._files, self._path = url_to_fs(url)

    def read(self, name: str) -> bytes:
        """Return the bytes of a file.

        Raises:
            FileNotFoundError: it is not there.
            RemoteError: the server says no, or nothing.
        """
        try:
            data: bytes = self._files.cat_file(f"{self._path}/{name}")
        except FileNotFoundError:
            raise
        except Exception as error:
            raise as_remote_error(error) from error
        return data

    def has(self, name: str) -> bool:
        """Say whether a file is there.

        Raises:
            RemoteError: the server says nothing.
        """
        try:
            self.read(name)
        except FileNotFoundError:
            return False
        return True


def zarr_store(url: str) -> Any:
    """Return zarr-python's store for `url`.

    Raises:
        TcaError: no driver for such URLs.
    """
    from zarr.storage import FsspecStore

    with _DriverErrors(url):
        return FsspecStore.from_url(url, read_only=True)


def as_remote_error(error: Exception) -> RemoteError:
    """Turn what a driver raises, of any class, into one sentence."""
    text = " ".join(str(error).split()) or type(error).__name__
    return RemoteError(text if len(text) <= 300 else text[:299] + "…")


class _DriverErrors:
    """Turns a missing or unknown driver, or one that cannot start, into a sentence."""

    def __init__(self, url: str) -> None:
        self._url = url

    def __enter__(self) -> None:
        pass

    def __exit__(self, kind: Any, error: BaseException | None, trace: Any) -> None:
        scheme = self._url.partition("://")[0]
        if isinstance(error, ImportError):
            what = EXTRAS.get(scheme)
            remedy = f"pip install '{what}'" if what else f"fsspec says: {error}"
            raise TcaError(f"{self._url} needs a driver that is not installed; {remedy}.") from None
        if isinstance(error, ValueError):
            raise TcaError(
                f"{self._url} is not a URL that fsspec can read: {error}; give a path or a URL "
                "like s3://bucket/train.zarr."
            ) from None
        if isinstance(error, Exception) and not isinstance(error, TcaError):
            # Some connect, or look for credentials, before the first file.
            raise reading_failed(self._url, as_remote_error(error), LOOK_AT) from None
