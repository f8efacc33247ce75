"""Images by one word: the name of a data set, a folder, or a NumPy file."""

from __future__ import annotations

from contextlib import suppress
from pathlib import Path

import numpy as np

from difftime.images.readers import NAMES, READERS, BadImages, ImageData, load_images
from difftime.support.files import expanded

OWN = ("folder", "npz")


def images_at(source: str, data_dir: Path, test_share: float) -> ImageData:
    """The data set that `source` names, or the images at that path. Raises BadImages.

    Of images that are not split into training and test images, `test_share` are test images.
    """
    named = [kind for kind in READERS if kind not in OWN]
    if source in named:
        return load_images(source, **({} if source == "mnist5k" else {"data_dir": expanded(data_dir)}))
    path = expanded(source)
    if not path.exists():
        raise BadImages(
            f"{source} is no data: it is not a folder of images, not an .npz or .npy file, and not {', '.join(named)}."
        )
    share = None if _is_split(path) else test_share
    return load_images("folder" if path.is_dir() else "npz", path=path, test_share=share)


def _is_split(path: Path) -> bool:
    """Whether training and test images are told apart there; what cannot be read is for the reader to refuse."""
    if path.is_dir():
        return any((path / half).is_dir() for half in ("train", "test"))
    with suppress(Exception), np.load(path, allow_pickle=False) as arrays:
        return any(names.test in arrays.files for names in NAMES if names.test)
    return False
