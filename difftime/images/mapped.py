"""Images in a file that is mapped into memory: only those that are asked for are read.

The operating system keeps what was read for as long as nobody needs the memory, so a set larger than memory can be
trained on.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
import torch
from jaxtyping import Int, UInt8
from torch import Tensor


@dataclass(frozen=True)
class Mapped:
    """Some rows of a mapped array of images. An index reads the images that it names into a tensor."""

    array: UInt8[np.ndarray, "N C H W"]
    rows: Int[np.ndarray, " n"]

    def __len__(self) -> int:
        return len(self.rows)

    @property
    def shape(self) -> tuple[int, ...]:
        return (len(self), *self.array.shape[1:])

    @property
    def device(self) -> torch.device:
        """Where an index has to be, and where the images come to be."""
        return torch.device("cpu")

    def __getitem__(self, index: int | slice | Tensor) -> UInt8[Tensor, "..."]:
        rows = self.rows[index.numpy() if isinstance(index, Tensor) else index]
        return torch.from_numpy(np.require(self.array[rows], requirements=["C", "W"]))


AT_ONCE = 1 << 22
"""Pixels that are in memory at once; in float64 they take 34 MB."""
Images = UInt8[Tensor, "_ _ _ _"] | Mapped
"""A data set's training or test images, N×C×H×W."""


def blocks(images: Images, size: int) -> Iterator[UInt8[Tensor, "n C H W"]]:
    """The images, `size` at once, or as many as have AT_ONCE pixels."""
    size = min(size, max(1, AT_ONCE // math.prod(images.shape[1:])))
    for start in range(0, len(images), size):
        yield images[start : start + size]
