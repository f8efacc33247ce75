"""Images that are encoded as PNG or JPEG, in files of their own or in a column of a table."""

from __future__ import annotations

import io
import logging
from collections.abc import Callable, Iterable
from typing import NamedTuple

import numpy as np
import torch
from jaxtyping import UInt8
from PIL import Image, ImageOps, UnidentifiedImageError
from torch import Tensor

from difftime.images.data import BadImages

log = logging.getLogger("difftime")

CHANNELS = {"L": 1, "RGB": 3}
"""Of Pillow's modes; the others have a palette, transparency, or more than 8 bits."""


class Encoded(NamedTuple):
    """What an image is called in a message, and what reads its bytes."""

    name: str
    read: Callable[[], bytes]


class _Picture(NamedTuple):
    """An image: its mode, its pixels [H, W] or [H, W, C], whether EXIF turned them, and how many frames it has."""

    mode: str
    pixels: np.ndarray
    turned: bool
    frames: int


EXIF_ORIENTATION = 0x0112


def decoded(encoded: Encoded) -> _Picture:
    """The first frame, turned as its EXIF orientation says. Raises BadImages if it is not 8-bit grey or RGB."""
    try:
        content = encoded.read()
        if not content:
            raise EOFError("the file is empty")
        with Image.open(io.BytesIO(content), formats=("PNG", "JPEG")) as image:
            image.verify()  # the checksums, which decoding passes over
        with Image.open(io.BytesIO(content), formats=("PNG", "JPEG")) as image:
            turned = image.getexif().get(EXIF_ORIENTATION, 1) in range(2, 9)
            pixels = np.asarray(ImageOps.exif_transpose(image))
            mode, info, frames = image.mode, image.info, getattr(image, "n_frames", 1)
    except UnidentifiedImageError:
        raise BadImages(
            f"{encoded.name} cannot be read as a PNG or JPEG image: its content is neither. Replace or remove it."
        ) from None
    except Exception as error:  # a damaged image can fail in any way
        raise BadImages(
            f"{encoded.name} cannot be read as a PNG or JPEG image ({error}). Replace or remove it."
        ) from error
    # Pillow cuts 16-bit colours to 8 bits without a word, so the depth is read from the file: PNG, section 11.2.2
    depth = content[24] if content.startswith(b"\x89PNG") else 8
    if mode not in CHANNELS or depth != 8 or "transparency" in info:
        raise BadImages(
            f"{encoded.name} is not an 8-bit grey or RGB image: its mode is {mode}, with {depth} bits"
            f"{' and transparency' * ('transparency' in info)}. Convert all images: nothing is converted here."
        )
    return _Picture(mode, pixels, turned, frames)


def decoded_all(images: Iterable[Encoded], n: int, channels: int | None) -> UInt8[Tensor, "n C H W"]:
    """All of `n` > 0 images. Raises BadImages if they are not of one mode and size, or do not have `channels`."""
    pixels, first, name = np.empty(0, np.uint8), None, ""
    turned, animated = 0, 0
    for i, encoded in enumerate(images):
        image = decoded(encoded)
        if first is None:
            first, name = image, encoded.name
            if channels not in (None, CHANNELS[image.mode]):
                raise BadImages(
                    f"channels is {channels}, but {name} is {image.mode}. Convert the images, or set channels."
                )
            pixels = np.empty((n, CHANNELS[image.mode], *image.pixels.shape[:2]), np.uint8)
        if (image.mode, image.pixels.shape) != (first.mode, first.pixels.shape):
            size, its_size = ("{1} × {0}".format(*one.pixels.shape) for one in (first, image))
            raise BadImages(
                f"{encoded.name} is {image.mode}, {its_size} pixels, but {name} is {first.mode}, {size}. "
                "All images must have one size and one mode."
            )
        pixels[i] = np.moveaxis(np.atleast_3d(image.pixels), -1, 0)
        turned, animated = turned + image.turned, animated + (image.frames > 1)
    where = f"of the {n} images beside {name}"
    if turned:
        log.warning("%d %s were turned or mirrored as their EXIF orientation says.", turned, where)
    if animated:
        log.warning("WARNING: %d %s have more than one frame, of which only the first is read.", animated, where)
    return torch.from_numpy(pixels)
