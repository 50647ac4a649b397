"""Why a video gives no features."""

from __future__ import annotations

from tca.cache.layout import Status


class VideoError(Exception):
    """A video that gives no features: its row gets `status`, the report `reason`."""

    def __init__(self, status: Status, reason: str) -> None:
        super().__init__(status, reason)
        self.status, self.reason = status, reason

    def __str__(self) -> str:
        return self.reason
