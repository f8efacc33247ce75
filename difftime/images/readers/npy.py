"""The kind `npy`: an array of pixels that is mapped into memory, so that it may be larger than memory."""

from __future__ import annotations

from pathlib import Path

import numpy as np
from jaxtyping import UInt8

from difftime.images.data import BadImages, ImageData, image_data
from difftime.images.mapped import Mapped
from difftime.images.readers.arrays import check_channels, load, planes, tested


def is_split(path: Path) -> bool:
    """Whether training and test images are told apart there."""
    return path.is_dir()


def read(path: Path, channels: int | None = None, test_share: float | None = None) -> ImageData:
    """A uint8 array N×H×W, N×H×W×C or N×C×H×W in a file of NumPy's, mapped into memory.

    `test_share` of the images, chosen by the hash of the image's number, are test images. Or `path` is a folder with
    train.npy and test.npy. `channels` (1 or 3), if it is set, must be what the images have. Raises BadImages if
    anything is otherwise.
    """
    if is_split(path):
        if test_share is not None:
            raise BadImages(f"{path} is split already into train.npy and test.npy. Leave test_share out.")
        arrays = [_array(path / f"{half}.npy") for half in ("train", "test")]
        train, test = (Mapped(array, np.arange(len(array))) for array in arrays)
    else:
        array = _array(path)
        chosen = tested(len(array), test_share, path)
        train, test = (Mapped(array, np.flatnonzero(chosen == half)) for half in (False, True))
    data = image_data(path.stem, train, test, path, f"pixels, test_share = {test_share}")
    check_channels(data, channels, path)
    return data


def _array(path: Path) -> UInt8[np.ndarray, "n C H W"]:
    """The array in a file, which is not read. Raises BadImages if it is damaged or is no array of images."""
    array = load(path)
    if isinstance(array, np.lib.npyio.NpzFile):
        array.close()
        raise BadImages(f"{path} is an archive, of kind npz, not npy.")
    return planes(np.asarray(array), str(path))
