"""Settings of the loader; free of torch, so that the command line can read them."""

from __future__ import annotations

from typing import Literal

from pydantic import Field

from tca.config import MOST, Section


class LoaderConfig(Section):
    """In what order rows are trained on, where they are kept, and how they are checked."""

    shuffle: Literal["rows", "blocks"] = Field(
        "rows",
        description="rows: any row may come next; blocks: whole blocks of neighbouring rows are "
        "read and mixed, for stores larger than the memory or on slow disks",
    )
    block_rows: int | None = Field(
        None,
        ge=1,
        le=MOST,
        description="rows in one block; null: as many as the store has in a shard",
    )
    buffer_blocks: int = Field(
        8,
        ge=1,
        le=MOST,
        description="blocks that are mixed with each other; two times as many are held",
    )
    residency: Literal["disk", "ram", "gpu", "auto"] = Field(
        "disk",
        description="disk: rows are read when they are needed; ram, gpu: all are read once and "
        "kept there; auto: the fastest of them with room to spare",
    )
    checksum: Literal["always", "first_epoch", "never"] = Field(
        "always",
        description="when a row is held against its checksum: whenever it is read from disk, the "
        "first time that this process reads it, or never",
    )
    prefetch: int = Field(2, ge=0, le=1024, description="batches made ahead of the one in use")
