"""torchvision's data sets are read where they lie, or downloaded; whatever is not the original is refused."""

from __future__ import annotations

import gzip
import hashlib
import pickle
import struct
import tarfile
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, get_args

import numpy as np
import pytest
from image_files import Loaded, Site, batch, idx, pixels
from scipy.io import savemat

from difftime.images.data import BadImages
from difftime.images.kinds import KINDS, TORCHVISION
from difftime.images.readers.download import torchvision_datasets
from difftime.images.readers.torchvision import PLAIN, WITH_EXTRA, read
from difftime.study.settings.images import TorchvisionSettings


def md5(path: Path) -> str:
    return hashlib.md5(path.read_bytes()).hexdigest()


TRAIN, TEST = pixels(6, 5, 4), pixels(3, 5, 4, seed=1)
COLOURS, MORE, TESTED = (pixels(n, 3, 96, 96, seed=n) for n in (4, 3, 2))


@dataclass(frozen=True)
class Placed:
    """A small data set in the form of a class of torchvision, whose checksums are taken for the class's."""

    files: list[Path]
    train: np.ndarray
    test: np.ndarray


def like_mnist(name: str, root: Path, patch: Callable[[str, Any], None]) -> Placed:
    folder = root / name / "raw"
    folder.mkdir(parents=True)
    files = [folder / f"{half}-images-idx3-ubyte.gz" for half in ("train", "t10k")]
    for file, array in zip(files, (TRAIN, TEST), strict=True):
        file.write_bytes(gzip.compress(idx(array)))
    patch("resources", [(file.name, md5(file)) for file in files])
    return Placed(files, TRAIN[:, None], TEST[:, None])


def qmnist(name: str, root: Path, patch: Callable[[str, Any], None]) -> Placed:
    folder = root / name / "raw"
    folder.mkdir(parents=True)
    files = [folder / f"qmnist-{half}-images-idx3-ubyte.gz" for half in ("train", "test")]
    for file, array in zip(files, (TRAIN, TEST), strict=True):
        file.write_bytes(gzip.compress(idx(array)))
    known = {
        half: [(f"http://x/{file.name}", md5(file)), ("", "")]
        for half, file in zip(("train", "test"), files, strict=True)
    }
    patch("resources", known)
    return Placed(files, TRAIN[:, None], TEST[:, None])


def cifar100(name: str, root: Path, patch: Callable[[str, Any], None]) -> Placed:
    folder = root / "cifar-100-python"
    folder.mkdir(parents=True)
    arrays = [pixels(n, 3072, seed=n) for n in (5, 2)]
    files = [folder / half for half in ("train", "test")]
    for file, rows in zip(files, arrays, strict=True):
        file.write_bytes(batch(rows))
    patch("train_list", [["train", md5(files[0])]])
    patch("test_list", [["test", md5(files[1])]])
    train, test = (rows.reshape(-1, 3, 32, 32) for rows in arrays)
    return Placed(files, train, test)


def svhn(name: str, root: Path, patch: Callable[[str, Any], None]) -> Placed:
    root.mkdir(parents=True)
    arrays = {half: pixels(n, 3, 32, 32, seed=n) for half, n in (("train", 5), ("extra", 4), ("test", 2))}
    known = {}
    for half, array in arrays.items():
        file = root / f"{half}_32x32.mat"
        savemat(file, {"X": array.transpose(2, 3, 1, 0), "y": np.arange(len(array))[:, None]})
        known[half] = [f"http://x/{file.name}", file.name, md5(file)]
    patch("split_list", known)
    return Placed([root / known[half][1] for half in ("train", "test")], arrays["train"], arrays["test"])


def stl10(name: str, root: Path, patch: Callable[[str, Any], None]) -> Placed:
    folder = root / "stl10_binary"
    folder.mkdir(parents=True)
    files = {half: folder / f"{half}_X.bin" for half in ("train", "unlabeled", "test")}
    for file, array in zip(files.values(), (COLOURS, MORE, TESTED), strict=True):
        file.write_bytes(array.swapaxes(2, 3).tobytes())  # column by column
    patch("train_list", [[files[half].name, md5(files[half])] for half in ("train", "unlabeled")])
    patch("test_list", [[files["test"].name, md5(files["test"])]])
    return Placed([files["train"], files["test"]], COLOURS, TESTED)


MAKERS = {
    "FashionMNIST": like_mnist, "KMNIST": like_mnist, "QMNIST": qmnist, "CIFAR100": cifar100, "SVHN": svhn,
    "STL10": stl10,
}  # fmt: skip
ALL = pytest.mark.parametrize("name", MAKERS)
Place = Callable[[str], Placed]


@pytest.fixture
def root(tmp_path: Path) -> Path:
    return tmp_path / "root"


@pytest.fixture
def place(root: Path, monkeypatch: pytest.MonkeyPatch) -> Place:
    def make(name: str) -> Placed:
        source = getattr(torchvision_datasets(), name)
        return MAKERS[name](name, root, lambda key, value: monkeypatch.setattr(source, key, value))

    return make


def test_the_names_are_one_list_in_settings_and_readers() -> None:
    assert set(MAKERS) == set(TORCHVISION) == {*PLAIN, *WITH_EXTRA}
    assert set(get_args(TorchvisionSettings.model_fields["name"].annotation)) == set(TORCHVISION)
    assert not {name.lower() for name in TORCHVISION} & set(KINDS)


@ALL
def test_every_data_set_is_read_where_it_lies_pixel_by_pixel(place: Place, root: Path, name: str) -> None:
    placed = place(name)
    data = read(Path("nowhere"), name, path=root, download=False)
    assert (data.train.numpy() == placed.train).all()
    assert (data.test.numpy() == placed.test).all()
    assert data.name == name
    assert read(root, name, download=False).digest == data.digest


@pytest.mark.parametrize("name", ["SVHN", "STL10", "FashionMNIST", "QMNIST"])
def test_torchvision_itself_reads_the_same_pixels(
    place: Place, root: Path, monkeypatch: pytest.MonkeyPatch, name: str
) -> None:
    """It wants uncompressed files, and labels beside the images."""
    placed, source = place(name), getattr(torchvision_datasets(), name)
    folder = placed.files[0].parent
    for file in folder.glob("*.gz"):
        file.with_suffix("").write_bytes(gzip.decompress(file.read_bytes()))
    if name == "STL10":
        (folder / "train_y.bin").write_bytes(bytes(range(1, 1 + len(COLOURS))))
        monkeypatch.setattr(source, "train_list", [source.train_list[0], ["train_y.bin", md5(folder / "train_y.bin")]])
    if name == "FashionMNIST":
        (folder / "train-labels-idx1-ubyte").write_bytes(struct.pack(">2i", 0x801, len(TRAIN)) + bytes(len(TRAIN)))
        monkeypatch.setattr(source, "resources", source.resources[:1])
    if name == "QMNIST":
        (folder / "labels").write_bytes(struct.pack(">3i", 0xC02, len(TRAIN), 8) + bytes(len(TRAIN) * 8 * 4))
        monkeypatch.setattr(source, "resources", {"train": [source.resources["train"][0], ("http://x/labels.gz", "")]})
    train = source(root, split="train") if name in ("SVHN", "STL10") else source(root, train=True)
    assert (np.asarray(train.data).reshape(placed.train.shape) == placed.train).all()


@ALL
def test_an_altered_file_is_refused_by_name(place: Place, root: Path, name: str) -> None:
    file = place(name).files[1]
    content = bytearray(file.read_bytes())
    content[-9] ^= 1
    file.write_bytes(content)
    with pytest.raises(BadImages, match=rf"{file.name} is not the original file: its md5 .*Delete"):
        read(root, name)


@ALL
def test_an_absent_file_is_asked_for_at_its_place(place: Place, root: Path, name: str) -> None:
    placed = place(name)
    if name == "CIFAR100":
        [file.unlink() for file in placed.files]
        placed.files[0].parent.rmdir()
        wanted = "cifar-100-python.tar.gz"
    else:
        placed.files[1].unlink()
        wanted = placed.files[1].name
    with pytest.raises(BadImages, match=rf"{name} is not there and may not be downloaded here. Put \S*{wanted} there"):
        read(root, name, download=False)


@pytest.mark.parametrize("name", ["FashionMNIST", "STL10"])
def test_what_cannot_be_downloaded_says_which_files_to_put_where(
    site: Site, root: Path, monkeypatch: pytest.MonkeyPatch, name: str
) -> None:
    source = getattr(torchvision_datasets(), name)
    if name == "STL10":
        monkeypatch.setattr(source, "url", f"{site.address}/nowhere.tar.gz")
    else:
        monkeypatch.setattr(source, "mirrors", [f"{site.address}/nowhere/"])
    with pytest.raises(BadImages, match=rf"{name} is not there and cannot be downloaded \(.*nowhere.*\). Put "):
        read(root, name)


def test_absent_files_are_downloaded(place: Place, site: Site, root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    placed = place("KMNIST")
    monkeypatch.setattr(torchvision_datasets().KMNIST, "mirrors", [f"{site.address}/"])
    for file in placed.files:
        file.rename(site.place / file.name)
    assert (read(root, "KMNIST").train.numpy() == placed.train).all()
    assert all(file.exists() for file in placed.files)


def test_the_archive_of_stl10_is_downloaded_and_only_its_images_are_unpacked(
    place: Place, site: Site, root: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    place("STL10")
    archive, source = site.place / "stl10_binary.tar.gz", torchvision_datasets().STL10
    with tarfile.open(archive, "w:gz") as packed:
        packed.add(root / "stl10_binary", "stl10_binary")
    (root / "stl10_binary").rename(root / "gone")
    monkeypatch.setattr(source, "url", f"{site.address}/{archive.name}")
    monkeypatch.setattr(source, "tgz_md5", md5(archive))
    assert (read(root, "STL10").train.numpy() == COLOURS).all()
    assert sorted(file.name for file in (root / "stl10_binary").iterdir()) == ["test_X.bin", "train_X.bin"]
    assert len(read(root, "STL10", extra=True).train) == len(COLOURS) + len(MORE)


def test_a_truncated_archive_of_stl10_is_refused_by_name(place: Place, root: Path) -> None:
    place("STL10")
    archive = root / "stl10_binary.tar.gz"
    with tarfile.open(archive, "w:gz") as packed:
        packed.add(root / "stl10_binary", "stl10_binary")
    archive.write_bytes(archive.read_bytes()[:-9000])
    (root / "stl10_binary").rename(root / "gone")
    with pytest.raises(BadImages, match=r"stl10_binary\.tar\.gz cannot be read .*Delete"):
        read(root, "STL10")
    assert not (root / "stl10_binary/test_X.bin").exists()


@pytest.mark.parametrize(("name", "more"), [("SVHN", 4), ("STL10", 3)])
def test_extra_images_are_trained_on_too(place: Place, root: Path, name: str, more: int) -> None:
    placed = place(name)
    data = read(root, name, extra=True)
    assert len(data.train) == len(placed.train) + more
    assert (data.train[: len(placed.train)].numpy() == placed.train).all()
    assert (data.test.numpy() == placed.test).all()


def test_a_data_set_without_extra_images_says_so(place: Place, root: Path) -> None:
    place("KMNIST")
    with pytest.raises(BadImages, match="KMNIST has no extra images; STL10 and SVHN have"):
        read(root, "KMNIST", extra=True)


@pytest.mark.parametrize(
    "damage", [lambda c: c[:-1], lambda c: c + b"0", lambda c: c[:9], lambda c: b"", lambda c: b"x" + c[1:]]
)
def test_uncompressed_files_have_no_checksum_but_must_be_whole(
    place: Place, root: Path, damage: Callable[[bytes], bytes]
) -> None:
    placed = place("FashionMNIST")
    for file in placed.files:
        file.with_suffix("").write_bytes(gzip.decompress(file.read_bytes()))
        file.unlink()
    assert (read(root, "FashionMNIST", download=False).train.numpy() == placed.train).all()
    plain = placed.files[0].with_suffix("")
    plain.write_bytes(damage(plain.read_bytes()))
    with pytest.raises(BadImages, match=r"train-images-idx3-ubyte is no whole IDX file"):
        read(root, "FashionMNIST", download=False)


def test_a_pickle_that_would_execute_code_is_refused_even_with_its_checksum(
    place: Place, root: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    file = place("CIFAR100").files[0]
    file.write_bytes(pickle.dumps({b"data": Loaded(tmp_path / "executed")}, protocol=2))
    monkeypatch.setattr(torchvision_datasets().CIFAR100, "train_list", [["train", md5(file)]])
    with pytest.raises(BadImages, match="train is not a CIFAR batch"):
        read(root, "CIFAR100")
    assert not (tmp_path / "executed").exists()
