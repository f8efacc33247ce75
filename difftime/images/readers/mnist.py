"""The kind `mnist`, and the files that MNIST and its successors are in."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import torch
from jaxtyping import UInt8
from torch import Tensor

from difftime.images.data import BadImages, ImageData, image_data
from difftime.images.readers.download import fetch, obtain, torchvision_datasets, unpacked, verified

FILES = {
    "train-images-idx3-ubyte": "sha256:ba891046e6505d7aadcbbe25680a0738ad16aec93bde7f9b65e87a2fc25776db",
    "t10k-images-idx3-ubyte": "sha256:0fa7898d509279e482958e8ce81c8e77db3f2f8254e26661ceb7762c4d494ce7",
}
"""Of the uncompressed content: it holds however a file was compressed."""


def read(data_dir: Path, download: bool = True) -> ImageData:
    """MNIST (LeCun & Cortes): 60,000 and 10,000 images, 28 × 28, grey.

    The files lie in `data_dir`/MNIST/raw, where torchvision has them, compressed or not, and are downloaded there if
    they are absent. Raises BadImages if they cannot be had or are not the original ones.
    """
    folder = data_dir / "MNIST" / "raw"

    def missing() -> list[str]:
        return [name for name in FILES if not any((folder / f"{name}{end}").exists() for end in ("", ".gz"))]

    def get() -> None:
        source = torchvision_datasets().MNIST
        known = dict(source.resources)
        for name in missing():
            file = f"{name}.gz"
            fetch(folder / file, [f"{mirror}{file}" for mirror in source.mirrors], known[file])

    if names := missing():
        obtain("MNIST", get if download else None, [folder / f"{name}.gz" for name in names])
    splits = []
    for name, checksum in FILES.items():
        path = folder / name
        path = path if path.exists() else folder / f"{name}.gz"
        remedy = f"Delete {path} and run again: it will be downloaded anew."
        splits.append(idx_images(verified(unpacked(path, remedy), checksum, path, remedy), path))
    train, test = splits
    return image_data("mnist", train, test)


IDX = 0x803
"""The magic number of an IDX file of bytes in three dimensions."""


def idx_images(content: bytes, path: Path) -> UInt8[Tensor, "n 1 H W"]:
    """The images in an IDX file: a magic number, then n, H and W as big-endian 32-bit integers, then the pixels.

    Raises BadImages if the content is anything else, or is not as long as these numbers say.
    """
    header, pixels = np.frombuffer(content[:16], ">i4", len(content[:16]) // 4), np.frombuffer(content[16:], np.uint8)
    if len(header) < 4 or header[0] != IDX or header[1:].astype(object).prod() != len(pixels):
        raise BadImages(f"{path} is no whole IDX file of images: it was cut short, or is something else. Replace it.")
    return torch.from_numpy(pixels.reshape(header[1], 1, *header[2:]).copy())
