"""The kind `cifar10`, and the batches that CIFAR-10 and CIFAR-100 are in."""

from __future__ import annotations

import io
import pickle
import tarfile
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
from jaxtyping import UInt8
from torch import Tensor

from difftime.images.data import BadImages, ImageData, image_data
from difftime.images.readers.download import fetch, obtain, torchvision_datasets, unpacked, verified


class Batches(NamedTuple):
    """A data set of this form: its class in torchvision, its folder and archive, its files with their checksums."""

    source: str
    folder: str
    archive: str
    files: Mapping[str, str]
    test: str
    """The file of test images; all others are of training images."""


CIFAR10 = Batches(
    source="CIFAR10",
    folder="cifar-10-batches-py",
    archive="cifar-10-python.tar.gz",
    files={
        "data_batch_1": "md5:c99cafc152244af753f735de768cd75f",
        "data_batch_2": "md5:d4bba439e000b95fd0a9bffe97cbabec",
        "data_batch_3": "md5:54ebc095f3ab1f0389bbae665268c751",
        "data_batch_4": "md5:634d18415352ddfa80567beed471001a",
        "data_batch_5": "md5:482c414d41f54cd18b22e5b47cb7c3cb",
        "test_batch": "md5:40351d587109b95175f43aff81a1287e",
    },
    test="test_batch",
)


def read(data_dir: Path, download: bool = True) -> ImageData:
    """CIFAR-10 (Krizhevsky, 2009): 50,000 and 10,000 images, 32 × 32, RGB."""
    return image_data("cifar10", *splits(CIFAR10, data_dir, download))


def splits(batches: Batches, root: Path, download: bool) -> tuple[Tensor, Tensor]:
    """The training and the test images of a data set in batches.

    Read from its folder in `root`, where torchvision has it, or else from its archive in `root`, which is downloaded if
    both are absent. Raises BadImages if they cannot be had or are not the original ones.

    The files are pickles, which can execute code when they are read in the usual way, as torchvision does. So here only
    a file with the known checksum is read, and by an unpickler that makes arrays and nothing else. (The binary
    version has no pickles, but nobody who has used torchvision has it on disk, and its files' checksums are not known.)
    """
    folder, archive = root / batches.folder, root / batches.archive

    def get() -> None:
        source = getattr(torchvision_datasets(), batches.source)
        fetch(archive, [source.url], source.tgz_md5)

    place = folder if folder.exists() else archive
    if not place.exists():
        obtain(batches.source, get if download else None, [archive])
    remedy = f"Delete {place} and run again: it will be downloaded anew."
    images = {}
    for name, content in (_in_folder if place == folder else _in_archive)(place, batches, remedy):
        images[name] = _batch(verified(content, batches.files[name], place / name, remedy), place / name)
    test = images.pop(batches.test)
    return torch.cat([*images.values()]), test


def _in_folder(place: Path, batches: Batches, remedy: str) -> Iterator[tuple[str, bytes]]:
    """The name and the content of each batch."""
    for name in batches.files:
        yield name, unpacked(place / name, remedy)


def _in_archive(place: Path, batches: Batches, remedy: str) -> Iterator[tuple[str, bytes]]:
    """The same from the archive, without unpacking it on disk."""
    try:
        with tarfile.open(place) as archive:
            contents = {name: _member(archive, f"{batches.folder}/{name}") for name in batches.files}
    except Exception as error:  # a damaged archive can fail in any way
        raise BadImages(f"{place} cannot be read ({error}). {remedy}") from error
    yield from contents.items()


def _member(archive: tarfile.TarFile, name: str) -> bytes:
    opened = archive.extractfile(name)
    if opened is None:
        raise BadImages(f"{name} is no file")
    return opened.read()


class _Arrays(pickle.Unpickler):
    """Unpickles NumPy arrays among plain containers; whatever else a pickle asks for is refused, not called."""

    ADMITTED = {  # noqa: RUF012
        ("numpy.core.multiarray", "_reconstruct"): np.empty(0).__reduce__()[0],
        ("numpy", "ndarray"): np.ndarray,
        ("numpy", "dtype"): np.dtype,
    }

    def find_class(self, module: str, name: str) -> Any:
        if (module, name) not in self.ADMITTED:
            raise pickle.UnpicklingError(f"it asks for {module}.{name}")
        return self.ADMITTED[module, name]


def _batch(content: bytes, path: Path) -> UInt8[Tensor, "n 3 32 32"]:
    """The images of one batch; a row holds the red, then the green, then the blue plane."""
    try:
        pixels = _Arrays(io.BytesIO(content), encoding="bytes").load()[b"data"]
        return torch.from_numpy(np.array(pixels).reshape(-1, 3, 32, 32))
    except Exception as error:  # a pickle that is no batch can fail in any way
        raise BadImages(f"{path} is not a CIFAR batch ({error}).") from error
