"""Videos whose pictures are to be turned and mirrored."""

import struct
from pathlib import Path

import numpy as np

TURN, MIRROR = np.array([[0, 1], [-1, 0]]), np.array([[-1, 0], [0, 1]])


def turn(path: Path, turns: int, mirrored: bool) -> None:
    """Write into an MP4 that it is shown mirrored, then turned by quarters."""
    matrix = np.linalg.matrix_power(TURN, turns) @ (MIRROR if mirrored else np.eye(2, dtype=int))
    (a, b), (c, d) = (65536 * matrix).tolist()
    whole = bytearray(path.read_bytes())
    struct.pack_into(">9i", whole, whole.index(b"tkhd") + 44, a, b, 0, c, d, 0, 0, 0, 2**30)
    path.write_bytes(whole)
