"""Image data: 8-bit pixels, in memory or in a file that is mapped into memory.

A reader for each kind of source returns an `ImageData`, or raises `BadImages`. Nothing is converted on the way (no
resizing, no grey from colours), and nothing that is read can execute code.
"""

from __future__ import annotations

import hashlib
import logging
import math
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from difftime.images.listing import remembered
from difftime.images.mapped import Images, blocks

log = logging.getLogger("difftime")

BLOCK = 1024
"""Images of a mapped file that are in memory at once."""


class BadImages(Exception):
    """Images are missing, damaged or of a wrong form; the message says what was found and what to do."""


@dataclass(frozen=True)
class ImageData:
    """A data set. `digest` is the SHA-256 of both splits' shapes and pixels."""

    name: str
    train: Images
    test: Images
    digest: str

    @property
    def shape(self) -> tuple[int, int, int]:
        """Channels, height and width."""
        channels, height, width = self.train.shape[1:]
        return channels, height, width

    @property
    def d(self) -> int:
        """The number of dimensions, D in the paper's formulas."""
        return math.prod(self.shape)


def image_data(name: str, train: Images, test: Images, file: Path | None = None, how: str = "") -> ImageData:
    """A data set. Raises BadImages if a split is empty or the two are of different shapes.

    `file` is the file or the folder that mapped images lie in, and `how` says how they are read from it: their digest
    is remembered, as it takes a second per 500 MB.
    """
    for split, images in (("training", train), ("test", test)):
        if not len(images) or not math.prod(images.shape):
            raise BadImages(f"{name} has no {split} images (the array's shape is {tuple(images.shape)}).")
    if train.shape[1:] != test.shape[1:]:
        raise BadImages(
            f"{name}: the training images are {_form(train.shape[1:])}, the test images {_form(test.shape[1:])}. "
            "Bring them to one size and one number of channels."
        )
    if file is None:
        return ImageData(name, train, test, _digest(train, test))
    return ImageData(name, train, test, remembered(file, lambda: _digest(train, test), how))


def _digest(train: Images, test: Images) -> str:
    digest = hashlib.sha256(f"{tuple(train.shape)} {tuple(test.shape)}".encode())
    for images in (train, test):
        for part in blocks(images, BLOCK):
            digest.update(part.contiguous().numpy().data)
    return digest.hexdigest()


def _digests(images: Images) -> Iterator[bytes]:
    """The SHA-256 of the pixels of each image."""
    for part in blocks(images, BLOCK):
        yield from (hashlib.sha256(image).digest() for image in part.contiguous().numpy())


def _form(shape: Sequence[int]) -> str:
    channels, height, width = shape
    return f"{width} wide, {height} high with {channels} channel{'s' if channels > 1 else ''}"


def remark(data: ImageData) -> None:
    """Say what is strange about images that are read as they are."""
    largest = max(part.max().item() for images in (data.train, data.test) for part in blocks(images, BLOCK))
    if largest <= 1:
        log.warning(
            "WARNING: no pixel of %s is above %d. Pixels are taken to be of 8 bits, 0 to 255: multiply black and white "
            "ones by 255.", data.name, largest,
        )  # fmt: skip
    tested = Counter(_digests(data.test))
    if shared := sum(tested[digest] for digest in tested.keys() & set(filter(tested.get, _digests(data.train)))):
        log.warning(
            "WARNING: %d of the %d test images of %s are also training images, to the pixel: what is measured of them "
            "is not what new images would give.", shared, len(data.test), data.name,
        )  # fmt: skip


def check_batch(data: ImageData, batch: int) -> None:
    """Raises BadImages if a minibatch of `batch` images cannot be filled."""
    if len(data.train) < batch:
        raise BadImages(
            f"{data.name} has {len(data.train)} training images, fewer than one batch of {batch}. "
            f"Set batch to at most {len(data.train)}."
        )
