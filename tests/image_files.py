"""Files of images for tests, in the forms that others write, and a web site on this machine to download them from."""

from __future__ import annotations

import struct
from dataclasses import dataclass
from http.server import SimpleHTTPRequestHandler
from pathlib import Path

import numpy as np


def pixels(*shape: int, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).integers(0, 256, shape, dtype=np.uint8)


def idx(array: np.ndarray) -> bytes:
    return struct.pack(">4i", 0x803, *array.shape) + array.tobytes()


def batch(rows: np.ndarray) -> bytes:
    """A pickle as Python 2 and the NumPy of its time wrote it, opcode by opcode."""
    return b"".join(
        [
            b"\x80\x02}(U\x04datacnumpy.core.multiarray\n_reconstruct\ncnumpy\nndarray\nK\x00\x85U\x01b\x87R(K\x01",
            struct.pack("<cici", b"J", len(rows), b"J", rows[0].size),
            b"\x86cnumpy\ndtype\nU\x02u1K\x00K\x01\x87R(K\x03U\x01|NNNJ\xff\xff\xff\xffJ\xff\xff\xff\xffK\x00tb\x89T",
            struct.pack("<i", rows.nbytes) + rows.tobytes(),
            b"tbU\x06labels](K\x01K\x02eu.",
        ]
    )


class Loaded:
    """Unpickled in the usual way, it makes a file."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self) -> tuple:
        return (Path.touch, (self.path,))


@dataclass(frozen=True)
class Site:
    """A web site on this machine, and the folder whose files it has."""

    address: str
    place: Path


class Quiet(SimpleHTTPRequestHandler):
    def log_message(self, *args: object) -> None:
        pass
