"""The kinds of images: which settings each has, and which kind a path is of where that is plain.

No torch here: the settings of a study are read with it.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from itertools import islice
from pathlib import Path
from typing import NamedTuple

from difftime.support.files import expanded


class Kind(NamedTuple):
    """What a kind of images is and the settings it has: those that it needs, and those that it may have."""

    what: str
    needs: tuple[str, ...] = ()
    may: tuple[str, ...] = ()
    data_dir: bool = False
    """Whether it is looked for, or downloaded to, in the study's `data_dir`."""

    @property
    def own(self) -> bool:
        """Whether it is a user's own, at a path."""
        return "path" in self.needs


KINDS = {
    "mnist": Kind("MNIST", data_dir=True),
    "cifar10": Kind("CIFAR-10", data_dir=True),
    "mnist5k": Kind("5,000 images of MNIST that need no download"),
    "torchvision": Kind("a data set that torchvision knows", ("name",), ("path", "extra"), data_dir=True),
    "folder": Kind("a folder of PNG or JPEG files", ("path",), ("channels", "test_share")),
    "npz": Kind("a NumPy archive", ("path",), ("channels", "test_share")),
    "npy": Kind("a NumPy array, or a folder with train.npy and test.npy", ("path",), ("channels", "test_share")),
    "parquet": Kind("Parquet files with a column of images", ("path",), ("column", "channels", "test_share")),
}
TORCHVISION = ("CIFAR100", "FashionMNIST", "KMNIST", "QMNIST", "STL10", "SVHN")
"""The data sets of kind torchvision. They are stored as images of 8 bits and one size."""
ENDINGS = (".png", ".jpg", ".jpeg")
FILES = {"npz": ".npz", "npy": ".npy", "parquet": ".parquet"}
LOOKED_AT = 100
"""Entries of a folder, at most, that tell its kind."""


class NotPlain(Exception):
    """The kind of a path cannot be told; the message says why, and which kinds there are."""


def guessed(path: str | Path) -> str:
    """The kind of the images at a path, from its name, or from the names in a folder. Raises NotPlain."""
    place = expanded(path)
    by_name = [kind for kind, ending in FILES.items() if place.suffix.lower() == ending]
    if not place.is_dir():
        if by_name:
            return by_name[0]
        what = "is a file that does not end in .npz, .npy or .parquet" if place.exists() else "does not exist"
        raise NotPlain(f"{path} {what}, so its kind cannot be told. {_all()}")
    found = _in_folder(place)
    if len(found) == 1:
        return found.pop()
    what = f"{path} holds what is of kind {' and of kind '.join(sorted(found))}" if found else f"{path} holds no images"
    raise NotPlain(f"{what}, so its kind cannot be told. {_all()}")


def _all() -> str:
    return "Say which: " + ", ".join(f"{name} ({kind.what})" for name, kind in KINDS.items() if kind.own) + "."


def _in_folder(place: Path) -> set[str]:
    """The kinds that something in a folder is of."""
    found = set()
    for entry in _entries(place, deep=2):
        suffix, above = entry.suffix.lower(), entry.parent
        if suffix in ENDINGS and (above == place or (above.parent == place and above.name in ("train", "test"))):
            found.add("folder")
        elif entry.name in ("train.npy", "test.npy") and above == place:
            found.add("npy")
        elif suffix == ".parquet":
            found.add("parquet")
    return found


def _entries(place: Path, deep: int) -> Iterator[Path]:
    """The first files of a folder and of the folders in it, without hidden ones."""
    with os.scandir(place) as entries:
        first = [*islice((entry for entry in entries if not entry.name.startswith(".")), LOOKED_AT)]
    for entry in first:
        if not entry.is_dir():
            yield Path(entry.path)
        elif deep:
            yield from _entries(Path(entry.path), deep - 1)
