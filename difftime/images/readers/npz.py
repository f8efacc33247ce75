"""The kind `npz`: arrays of pixels in an archive of NumPy."""

from __future__ import annotations

import logging
from contextlib import suppress
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
from jaxtyping import UInt8
from torch import Tensor

from difftime.images.data import BadImages, ImageData, image_data
from difftime.images.readers.arrays import check_channels, load, planes, tested

log = logging.getLogger("difftime")


class _Names(NamedTuple):
    """What the arrays of a file are called: training and test images, or all images; and the ones that are not used."""

    train: str
    test: str | None = None
    unused: tuple[str, ...] = ()


NAMES = (
    _Names("train", "test", ("val", "valid", "validation")),
    _Names("train_images", "test_images", ("val_images",)),  # MedMNIST
    _Names("x_train", "x_test", ("x_val",)),  # Keras
    _Names("images"),
    _Names("arr_0"),  # numpy.savez of one array without a name
)
ANEW = (
    "Write it anew with the ones that are meant: numpy.savez(path, train=..., test=...), or images=... with test_share."
)


def is_split(path: Path) -> bool:
    """Whether training and test images are told apart there; what cannot be read is for `read` to refuse."""
    with suppress(Exception), np.load(path, allow_pickle=False) as arrays:
        return any(names.test in arrays.files for names in NAMES if names.test)
    return False


def read(path: Path, channels: int | None = None, test_share: float | None = None) -> ImageData:
    """uint8 arrays N×H×W, N×H×W×C or N×C×H×W in a NumPy archive, under one of the pairs of names in NAMES.

    Or one array under one of the single names, of which `test_share`, chosen by the hash of the image's number, are
    test images. `channels` (1 or 3), if it is set, must be what the images have. Arrays of other names, such as labels,
    are passed over. Raises BadImages if anything is otherwise.
    """
    arrays = load(path)
    if not isinstance(arrays, np.lib.npyio.NpzFile):
        raise BadImages(f"{path} is a single array, of kind npy, not npz.")
    with arrays:
        train, test = _splits(arrays, path, test_share)
    data = image_data(path.stem, train, test)
    check_channels(data, channels, path)
    return data


def _array(arrays: Any, key: str, path: Path) -> UInt8[np.ndarray, "n C H W"]:
    """One array of the archive. Raises BadImages if it is damaged or is no array of images."""
    try:
        array = arrays[key]
        if not isinstance(array, np.ndarray):
            raise TypeError("it is no array")
    except Exception as error:  # a damaged archive can fail in any way
        raise BadImages(f"The array {key} of {path} cannot be read ({error}). Write the file anew.") from error
    return planes(array, f"The array {key} of {path}")


def _tensor(array: UInt8[np.ndarray, "n C H W"]) -> UInt8[Tensor, "n C H W"]:
    return torch.from_numpy(np.ascontiguousarray(array))


def _splits(arrays: Any, path: Path, test_share: float | None) -> tuple[Tensor, Tensor]:
    """Training and test images of an archive whose names are those of one entry of NAMES."""
    keys = set(arrays.files)
    found = ", ".join(sorted(keys)) or "none"
    fitting = [names for names in NAMES if {names.train, names.test or names.train} <= keys]
    if not fitting:
        pairs = ", ".join(f"{names.train} and {names.test}" if names.test else names.train for names in NAMES)
        raise BadImages(f"{path} has none of the arrays {pairs}; found: {found}. {ANEW}")
    if len(fitting) > 1:
        several = " or ".join(names.train for names in fitting)
        raise BadImages(f"{path} may be read by {several}; found: {found}. {ANEW}")
    (names,) = fitting
    if names.test is None:
        images = _array(arrays, names.train, path)
        if others := [key for key in sorted(keys - {names.train}) if _alike(arrays, key, images)]:
            raise BadImages(f"{path} may be read by {names.train} or {others[0]}; found: {found}. {ANEW}")
        chosen = tested(len(images), test_share, path)
        return _tensor(images[~chosen]), _tensor(images[chosen])
    if test_share is not None:
        raise BadImages(f"{path} is split already into {names.train} and {names.test}. Leave test_share out.")
    if unused := keys.intersection(names.unused):
        log.warning("WARNING: the images %s of %s are neither trained on nor tested.", ", ".join(sorted(unused)), path)
    return _tensor(_array(arrays, names.train, path)), _tensor(_array(arrays, names.test, path))


def _alike(arrays: Any, key: str, images: UInt8[np.ndarray, "n C H W"]) -> bool:
    """Whether another array looks like images of the same size."""
    try:
        return planes(arrays[key], key).shape[2:] == images.shape[2:]
    except Exception:  # what cannot be read is not meant
        return False
