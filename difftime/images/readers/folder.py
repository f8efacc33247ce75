"""The kind `folder`: PNG and JPEG files."""

from __future__ import annotations

from pathlib import Path

from difftime.images.data import BadImages, ImageData, image_data
from difftime.images.kinds import ENDINGS
from difftime.images.readers.encoded import Encoded, decoded_all
from difftime.images.readers.shares import checked_share, held_out


def is_split(path: Path) -> bool:
    """Whether training and test images are told apart there."""
    return any((path / half).is_dir() for half in ("train", "test"))


def read(path: Path, channels: int | None = None, test_share: float | None = None) -> ImageData:
    """PNG and JPEG images, 8-bit grey or RGB, all of one size, in the order of their names.

    They lie in `path`/train and `path`/test, or in `path` itself, and then `test_share` of them, chosen by the hash of
    the file's name, are test images. `channels` (1 or 3), if it is set, must be what the images have.
    Raises BadImages if anything is otherwise.
    """
    train, test = _splits(path, test_share)
    files = [*train, *test]
    images = decoded_all((Encoded(str(file), file.read_bytes) for file in files), len(files), channels)
    return image_data(path.resolve().name, images[: len(train)], images[len(train) :])


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
        share = checked_share(test_share, str(path))
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
