"""The kind `torchvision`: data sets that are stored as images of 8 bits and one size.

torchvision knows the addresses and the checksums. The files are read here, as some of torchvision's classes read
pickles, and some read what they do not verify.
"""

from __future__ import annotations

import gzip
import io
import shutil
import tarfile
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from jaxtyping import UInt8
from torch import Tensor

from difftime.images.data import BadImages, ImageData, image_data
from difftime.images.readers.cifar10 import Batches
from difftime.images.readers.cifar10 import splits as batch_splits
from difftime.images.readers.download import File, ensure, obtain, original, torchvision_datasets
from difftime.images.readers.mnist import idx_images
from difftime.support.files import atomic

Splits = tuple[UInt8[Tensor, "n C H W"], UInt8[Tensor, "m C H W"]]


def read(data_dir: Path, name: str, path: Path | None = None, extra: bool = False, download: bool = True) -> ImageData:
    """The training and the test images of torchvision's class `name`.

    They are read from `path`, or else `data_dir`, where they lie as torchvision has them, and downloaded there if they
    are absent. With `extra`, images that a class has beside are training images too: SVHN's extra ones, STL10's
    unlabelled ones. Raises BadImages if they cannot be had or are not the original ones.
    """
    source = getattr(torchvision_datasets(), name)
    if name in WITH_EXTRA:
        return image_data(name, *WITH_EXTRA[name](source, path or data_dir, extra, download))
    if extra:
        raise BadImages(f"{name} has no extra images; {' and '.join(WITH_EXTRA)} have. Leave extra out.")
    return image_data(name, *PLAIN[name](source, path or data_dir, download))


def _mnist_like(source: Any, root: Path, download: bool) -> Splits:
    """Files of MNIST's names, from a mirror."""
    folder, known = root / source.__name__ / "raw", dict(source.resources)
    names = [f"{half}-images-idx3-ubyte.gz" for half in ("train", "t10k")]
    files = [File(folder / name, [f"{mirror}{name}" for mirror in source.mirrors], known[name]) for name in names]
    return _idx(source, files, download)


def _qmnist(source: Any, root: Path, download: bool) -> Splits:
    """QMNIST (Yadav & Bottou, 2019): all of its 60,000 test images."""
    folder, known = root / source.__name__ / "raw", [source.resources[half][0] for half in ("train", "test")]
    files = [File(folder / address.rpartition("/")[2], [address], md5) for address, md5 in known]
    return _idx(source, files, download)


def _idx(source: Any, files: Sequence[File], download: bool) -> Splits:
    """Two IDX files. A compressed one has a known checksum; of another one the form is checked."""
    ensure(source.__name__, [file for file in files if not file.path.with_suffix("").exists()], download)
    train, test = map(_idx_file, files)
    return train, test


def _idx_file(file: File) -> UInt8[Tensor, "n 1 H W"]:
    if file.path.exists():
        return idx_images(gzip.decompress(original(file)), file.path)
    plain = file.path.with_suffix("")
    try:
        return idx_images(plain.read_bytes(), plain)
    except OSError as error:
        raise BadImages(f"{plain} cannot be read ({error}). Replace it.") from error


def _cifar100(source: Any, root: Path, download: bool) -> Splits:
    """CIFAR-100 (Krizhevsky, 2009)."""
    files = {name: f"md5:{md5}" for name, md5 in [*source.train_list, *source.test_list]}
    batches = Batches(source.__name__, source.base_folder, source.filename, files, source.test_list[0][0])
    return batch_splits(batches, root, download)


def _svhn(source: Any, root: Path, extra: bool, download: bool) -> Splits:
    """The cropped digits of SVHN (Netzer et al., 2011), in files of MATLAB's, H×W×C×N."""
    from scipy.io import loadmat

    halves = ("train", "extra", "test") if extra else ("train", "test")
    files = [File(root / name, [url], md5) for url, name, md5 in (source.split_list[half] for half in halves)]
    ensure(source.__name__, files, download)
    *train, test = (
        torch.from_numpy(np.ascontiguousarray(loadmat(io.BytesIO(original(file)))["X"].transpose(3, 2, 0, 1)))
        for file in files
    )
    return torch.cat(train), test


def _stl10(source: Any, root: Path, extra: bool, download: bool) -> Splits:
    """STL-10 (Coates et al., 2011), 96 × 96; an image is stored channel by channel, and column by column."""
    wanted = ["train_X.bin", *["unlabeled_X.bin"] * extra, "test_X.bin"]
    known = dict([*source.train_list, *source.test_list])
    files = [File(root / source.base_folder / name, [], known[name]) for name in wanted]
    if absent := [file.path for file in files if not file.path.exists()]:
        archive = File(root / source.filename, [source.url], source.tgz_md5)
        if not archive.path.exists():
            obtain(source.__name__, (lambda: ensure(source.__name__, [archive], True)) if download else None, absent)
        _unpack(archive.path, absent)
    *train, test = (
        torch.from_numpy(np.frombuffer(original(file), np.uint8).reshape(-1, 3, 96, 96).swapaxes(2, 3).copy())
        for file in files
    )
    return torch.cat(train), test


def _unpack(archive: Path, files: Sequence[Path]) -> None:
    """Write members of an archive to the folder of their name beside it, each whole or not at all."""
    try:
        with tarfile.open(archive) as opened:
            for file in files:
                member = opened.extractfile(f"{file.parent.name}/{file.name}")
                with atomic(file) as temporary, temporary.open("wb") as written:
                    shutil.copyfileobj(member, written)  # type: ignore[arg-type]  # None is an error like others
    except Exception as error:  # a damaged archive can fail in any way
        raise BadImages(
            f"{archive} cannot be read ({error}). Delete {archive} and run again: it will be downloaded anew."
        ) from error


PLAIN: dict[str, Callable[[Any, Path, bool], Splits]] = {
    "CIFAR100": _cifar100,
    "FashionMNIST": _mnist_like,
    "KMNIST": _mnist_like,
    "QMNIST": _qmnist,
}
WITH_EXTRA: dict[str, Callable[[Any, Path, bool, bool], Splits]] = {"STL10": _stl10, "SVHN": _svhn}
