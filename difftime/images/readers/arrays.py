"""Arrays of pixels in NumPy's files."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
from jaxtyping import Bool, UInt8

from difftime.images.data import BadImages, ImageData
from difftime.images.readers.shares import checked_share, held_out


def load(path: Path) -> Any:
    """What NumPy makes of a file: an array that is mapped into memory, or an archive. Raises BadImages if nothing."""
    if not path.is_file():
        raise BadImages(f"{path} is not a file." if path.exists() else f"The file {path} does not exist.")
    try:
        return np.load(path, allow_pickle=False, mmap_mode="r")
    except Exception as error:  # a damaged file can fail in any way
        # what NumPy cannot tell it takes for a pickle, and advises to execute it
        reason = "its content is no NumPy array or archive" if "pickle" in str(error) else error
        raise BadImages(
            f"{path} cannot be read as a NumPy file ({reason}). Write it with numpy.save or numpy.savez."
        ) from error


def planes(array: np.ndarray, name: str) -> UInt8[np.ndarray, "n C H W"]:
    """An array of images as N×C×H×W, without a copy; where both axes may be the channels, they are the last one.

    Raises BadImages if it is not uint8, or not N×H×W, N×H×W×C or N×C×H×W.
    """
    if array.dtype != np.uint8:
        raise BadImages(f"{name} is {array.dtype}; pixels must be uint8, from 0 to 255.")
    if array.ndim == 3:
        return array[:, None]
    if array.ndim == 4 and array.shape[3] in (1, 3):
        return np.moveaxis(array, 3, 1)
    if array.ndim == 4 and array.shape[1] in (1, 3):
        return array
    raise BadImages(f"{name} has the shape {array.shape}; it must be N×H×W, N×H×W×C or N×C×H×W with C = 1 or 3.")


def tested(n: int, test_share: float | None, path: Path) -> Bool[np.ndarray, " n"]:
    """Which of `n` images are test images, by the hashes of their numbers."""
    share = checked_share(test_share, str(path))
    return np.array([held_out(str(i), share) for i in range(n)], dtype=np.bool_)


def check_channels(data: ImageData, channels: int | None, path: Path) -> None:
    """Raises BadImages if the images do not have the channels that are asked for."""
    if channels not in (None, data.shape[0]):
        raise BadImages(f"channels is {channels}, but the images of {path} have {data.shape[0]}.")
