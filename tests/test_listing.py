"""Other images under one path are seen; the same images elsewhere, or at another time, are the same."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from difftime.images import listing as module
from difftime.images.listing import listing
from difftime.images.readers import BadImages
from difftime.images.readers.folder import read as folder

Make = Callable[[Path, bytes], None]


@pytest.fixture(autouse=True)
def caches(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "caches"))
    return tmp_path / "caches" / "difftime" / "images"


def a_folder(path: Path, pixels: bytes) -> None:
    (path / "train").mkdir(parents=True, exist_ok=True)
    (path / "train" / "0.png").write_bytes(pixels)
    (path / "train" / "1.png").write_bytes(b"same")


def an_archive(path: Path, pixels: bytes) -> None:
    with path.open("wb") as file:
        np.savez(file, train=np.frombuffer(pixels, np.uint8))


def an_array(path: Path, pixels: bytes) -> None:
    with path.open("wb") as file:
        np.save(file, np.frombuffer(pixels, np.uint8))


KINDS = pytest.mark.parametrize("make", [a_folder, an_archive, an_array])


def files(path: Path) -> list[Path]:
    return [path] if path.is_file() else [file for file in path.rglob("*") if file.is_file()]


@pytest.fixture
def settled(monkeypatch: pytest.MonkeyPatch) -> None:
    """Files that were written just now count as old."""
    monkeypatch.setattr(module, "SETTLED", -1.0)


@KINDS
@pytest.mark.parametrize("times_kept", [False, True])
@pytest.mark.usefixtures("settled")
def test_others_of_equal_size_are_others_even_if_their_time_is_kept(
    tmp_path: Path, make: Make, times_kept: bool
) -> None:
    path = tmp_path / "mine"
    make(path, b"0123")
    before, times = listing(path), {file: file.stat() for file in files(path)}
    make(path, b"0124")
    for file, stat in times.items():
        assert file.stat().st_size == stat.st_size
        if times_kept:
            os.utime(file, ns=(stat.st_atime_ns, stat.st_mtime_ns))
    assert listing(path) != before


@KINDS
def test_a_copy_with_other_times_at_another_place_is_the_same(tmp_path: Path, make: Make) -> None:
    path, copied = tmp_path / "mine", tmp_path / "elsewhere" / "mine"
    make(path, b"0123")
    copied.parent.mkdir()
    (shutil.copytree if path.is_dir() else shutil.copyfile)(path, copied)
    for file in files(copied):
        os.utime(file, (1, 1))
    assert listing(copied) == listing(path) != ""


@pytest.mark.parametrize("make", [a_folder, an_array])
def test_contents_are_read_once_and_again_when_a_time_changes(
    tmp_path: Path, make: Make, caches: Path, settled: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    path, read, content = tmp_path / "mine", [], module._content
    make(path, b"0123")
    monkeypatch.setattr(module, "_content", lambda file: read.append(file) or content(file))
    first = listing(path)
    assert listing(path) == first
    assert read == sorted(files(path))
    assert len([*caches.iterdir()]) == 1
    os.utime(files(path)[0], (1, 1))
    assert listing(path) == first
    assert read == 2 * sorted(files(path))


def test_what_has_just_changed_is_not_remembered(tmp_path: Path, caches: Path) -> None:
    """Within the grain of its clock it could change again, at the same time of change."""
    a_folder(tmp_path / "mine", b"0123")
    listing(tmp_path / "mine")
    assert not caches.exists()


def test_where_nothing_can_be_remembered_the_digest_is_the_same(
    tmp_path: Path, settled: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    a_folder(tmp_path / "mine", b"0123")
    first = listing(tmp_path / "mine")
    (tmp_path / "a file").write_text("in the way")
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "a file"))
    assert listing(tmp_path / "mine") == first


def test_names_count_and_hidden_files_do_not(tmp_path: Path) -> None:
    a_folder(tmp_path / "mine", b"0123")
    first = listing(tmp_path / "mine")
    (tmp_path / "mine" / ".DS_Store").write_text("")
    (tmp_path / "mine" / ".hidden").mkdir()
    (tmp_path / "mine" / ".hidden" / "0.png").write_text("")
    assert listing(tmp_path / "mine") == first
    (tmp_path / "mine" / "train" / "0.png").rename(tmp_path / "mine" / "train" / "2.png")
    assert listing(tmp_path / "mine") != first


def test_nothing_is_empty(tmp_path: Path) -> None:
    assert listing(tmp_path / "gone") == ""


def test_it_is_asked_without_torch() -> None:
    asked = "import sys, difftime.images.listing; sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", asked], check=False).returncode == 0


@pytest.mark.parametrize("target", ["nowhere.png", "broken.png"])
def test_a_link_that_leads_nowhere_is_left_to_the_reader(target: str, tmp_path: Path) -> None:
    a_folder(tmp_path / "images", b"some")
    before = listing(tmp_path / "images")
    (tmp_path / "images" / "train" / "broken.png").symlink_to(target)
    assert listing(tmp_path / "images") == before
    (tmp_path / "images" / "test").mkdir()
    with pytest.raises(BadImages, match=r"broken\.png"):
        folder(tmp_path / "images")
