"""A cell of images that is trained once, and measured once, for all tests of this folder."""

import shutil
from pathlib import Path

import pytest
from of_images import QUICK, a_cell, done, images_in, measure, write


@pytest.fixture(scope="session")
def trained(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A trained cell of two seeds, with nothing measured yet."""
    place = tmp_path_factory.mktemp("trained")
    cell = write(place / "cell", a_cell(images_in(place)))
    done("train", cell)
    return cell


@pytest.fixture
def cell(trained: Path, tmp_path: Path) -> Path:
    """A copy that a test may change."""
    return Path(shutil.copytree(trained, tmp_path / "cell"))


@pytest.fixture(scope="session")
def measured(trained: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The same cell with all measurements."""
    cell = Path(shutil.copytree(trained, tmp_path_factory.mktemp("measured") / "cell"))
    for name in QUICK:
        measure(name, cell)
    return cell
