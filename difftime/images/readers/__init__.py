"""Readers of images, one module for each kind. What a kind is called and which settings it has is in `images.kinds`.

`read` of a module returns an `ImageData`, or raises `BadImages`. Of a user's own images, `is_split` says whether
training and test images are told apart already.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

from difftime.images.data import BadImages, ImageData, check_batch, remark
from difftime.images.readers import cifar10, folder, mnist, mnist5k, npy, npz, parquet, torchvision

__all__ = ["OWN", "READERS", "BadImages", "ImageData", "check_batch", "load_images", "remark"]

READERS: dict[str, Callable[..., ImageData]] = {
    "mnist": mnist.read,
    "cifar10": cifar10.read,
    "mnist5k": mnist5k.read,
    "torchvision": torchvision.read,
    "folder": folder.read,
    "npz": npz.read,
    "npy": npy.read,
    "parquet": parquet.read,
}
OWN: dict[str, Callable[[Path], bool]] = {
    "folder": folder.is_split,
    "npz": npz.is_split,
    "npy": npy.is_split,
    "parquet": parquet.is_split,
}
"""Of the kinds of a user's own images: whether what lies at a path is split."""


def load_images(kind: str, **options: Any) -> ImageData:
    """The data set of a kind in the configuration; the options are its reader's arguments."""
    return READERS[kind](**options)
