"""An array that is mapped into memory gives the images of one in memory, and may be larger than memory."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from image_files import Loaded, pixels
from torch import Tensor

from difftime.images import data as module
from difftime.images import listing
from difftime.images.data import BadImages, ImageData, remark
from difftime.images.mapped import Mapped, blocks
from difftime.images.pixel_prior import PixelPrior
from difftime.images.pixels import marginals, mean_variance, moments
from difftime.images.readers.npy import read
from difftime.images.readers.npz import read as npz
from difftime.measures.quality import perfect_sliced_wasserstein1, projections
from difftime.training.data import ImageSample

WHOLE = pixels(60, 4, 6, 3)
LAYOUTS: dict[str, np.ndarray] = {
    "channels last": WHOLE,
    "channels first": WHOLE.transpose(0, 3, 1, 2).copy(),
    "Fortran's order": np.asfortranarray(WHOLE),
}


@pytest.fixture(autouse=True)
def caches(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "caches"))


def saved(path: Path, array: np.ndarray) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    np.save(path, array)
    return path


@pytest.fixture
def both(tmp_path: Path) -> tuple[ImageData, ImageData]:
    """The same images, mapped and in memory."""
    np.savez(tmp_path / "set.npz", images=WHOLE)
    mapped = read(saved(tmp_path / "set.npy", WHOLE), test_share=0.3)
    return mapped, npz(tmp_path / "set.npz", test_share=0.3)


@pytest.mark.parametrize("layout", LAYOUTS)
def test_every_layout_is_the_same_images(tmp_path: Path, both: tuple[ImageData, ImageData], layout: str) -> None:
    data = read(saved(tmp_path / "other.npy", LAYOUTS[layout]), channels=3, test_share=0.3)
    assert isinstance(data.train, Mapped)
    assert data.digest == both[0].digest == both[1].digest
    assert data.shape == (3, 4, 6)
    assert torch.equal(data.train[:], both[1].train)


def test_grey_images_need_no_axis_of_channels(tmp_path: Path) -> None:
    grey = [saved(tmp_path / f"{i}.npy", array) for i, array in enumerate((WHOLE[..., 0], WHOLE[..., :1]))]
    assert len({read(path, test_share=0.3).digest for path in grey}) == 1
    assert read(grey[0], test_share=0.3).shape == (1, 4, 6)


def test_where_both_axes_may_be_channels_they_are_the_last_one(tmp_path: Path) -> None:
    odd = pixels(20, 3, 9, 1)
    assert read(saved(tmp_path / "odd.npy", odd), test_share=0.3).shape == (1, 3, 9)


def test_a_folder_of_two_arrays_is_split(tmp_path: Path) -> None:
    saved(tmp_path / "set/train.npy", WHOLE[:40])
    saved(tmp_path / "set/test.npy", WHOLE[40:])
    data = read(tmp_path / "set")
    assert (data.train[:].numpy() == WHOLE[:40].transpose(0, 3, 1, 2)).all()
    assert (data.test[:].numpy() == WHOLE[40:].transpose(0, 3, 1, 2)).all()
    with pytest.raises(BadImages, match="is split already"):
        read(tmp_path / "set", test_share=0.2)
    (tmp_path / "set/test.npy").unlink()
    with pytest.raises(BadImages, match=r"test\.npy does not exist"):
        read(tmp_path / "set")


USES: dict[str, Callable[[ImageData], Any]] = {
    "one": lambda data: data.train[3],
    "some": lambda data: data.train[torch.tensor([5, 5, 0])],
    "a slice": lambda data: data.test[2:9],
    "blocks": lambda data: torch.cat([*blocks(data.train, 7)]),
    "moments": lambda data: torch.cat([part.flatten() for part in moments(data.train)]),
    "marginals": lambda data: torch.cat(marginals(data.train)),
    "variance": lambda data: torch.tensor(mean_variance(data.train)),
    "prior": lambda data: torch.tensor([PixelPrior.of(data.train).black, PixelPrior.of(data.train).white]),
    "projections": lambda data: projections(data.test),
    "floor": lambda data: torch.tensor(perfect_sliced_wasserstein1(data.train, projections(data.test), 5)),
    "draws": lambda data: ImageSample(data.train, flip=True).draw(0, (4, 3), torch.Generator().manual_seed(1)),
}


@pytest.mark.parametrize("use", USES)
def test_whatever_is_done_with_images_gives_the_same_bits(both: tuple[ImageData, ImageData], use: str) -> None:
    mapped, loaded = map(USES[use], both)
    assert isinstance(mapped, Tensor)
    assert torch.equal(mapped, loaded)


def test_what_is_strange_is_said_of_mapped_images_too(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    saved(tmp_path / "set/train.npy", WHOLE % 2)
    saved(tmp_path / "set/test.npy", np.concatenate([WHOLE[:3] % 2, 1 - WHOLE[3:6] % 2]))
    remark(read(tmp_path / "set"))
    assert caplog.text.count("no pixel of set is above 1") == 1
    assert caplog.text.count("3 of the 6 test images of set are also training images") == 1


def test_the_digest_is_found_once_and_anew_after_a_change(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(listing, "SETTLED", -1.0)  # files that were written just now count as old
    found, digest = [], module._digest

    def watched(*splits: Any) -> str:
        found.append(digest(*splits))
        return found[-1]

    monkeypatch.setattr(module, "_digest", watched)
    path = saved(tmp_path / "set.npy", WHOLE)
    digests = [read(path, test_share=share).digest for share in (0.3, 0.3, 0.4, 0.4, 0.3)]
    assert found == [digests[0], digests[2]]
    assert digests == [*found[:1] * 2, *found[1:] * 2, found[0]]
    changed = WHOLE.copy()
    changed[7, 1, 1, 1] ^= 1
    saved(path, changed)
    assert read(path, test_share=0.3).digest not in found[:2]
    assert len(found) == 3


BAD: dict[str, tuple[np.ndarray, str]] = {
    "floats": (WHOLE / 255, r"set\.npy is float64; pixels must be uint8"),
    "16 bits": (WHOLE.astype(np.uint16), r"set\.npy is uint16"),
    "two channels": (WHOLE[..., :2], r"\(60, 4, 6, 2\); it must be N×H×W, N×H×W×C or N×C×H×W"),
    "flat": (WHOLE.reshape(60, -1), r"\(60, 72\); it must be"),
    "one image": (WHOLE[0], "is split|no test images|has the shape"),
    "none": (WHOLE[:0], r"set\.npy cannot be read|no training images"),
    "grey where colours are asked for": (WHOLE[..., 0], "channels is 3, but .* have 1"),
}


@pytest.mark.parametrize("fault", BAD)
def test_an_array_of_another_form_is_refused(tmp_path: Path, fault: str) -> None:
    array, message = BAD[fault]
    with pytest.raises(BadImages, match=message):
        read(saved(tmp_path / "set.npy", array), channels=3, test_share=0.3)


def test_objects_are_refused_unread(tmp_path: Path) -> None:
    evil = np.empty(3, dtype=object)
    evil[:] = [Loaded(tmp_path / "executed")] * 3
    np.save(tmp_path / "set.npy", evil, allow_pickle=True)
    with pytest.raises(BadImages, match=r"set\.npy cannot be read as a NumPy file"):
        read(tmp_path / "set.npy", test_share=0.3)
    assert not (tmp_path / "executed").exists()


@pytest.mark.parametrize("kept", [0, 5, 100, -1])
def test_a_truncated_array_is_refused_by_name(tmp_path: Path, kept: int) -> None:
    path = saved(tmp_path / "set.npy", WHOLE)
    path.write_bytes(path.read_bytes()[:kept])
    with pytest.raises(BadImages, match=r"set\.npy cannot be read as a NumPy file"):
        read(path, test_share=0.3)


def test_arrays_of_two_sizes_are_refused(tmp_path: Path) -> None:
    saved(tmp_path / "set/train.npy", WHOLE)
    saved(tmp_path / "set/test.npy", WHOLE[:, :3])
    with pytest.raises(BadImages, match=r"training images are 6 wide, 4 high .*, the test images 6 wide, 3 high"):
        read(tmp_path / "set")


def test_an_archive_and_an_array_are_told_apart(tmp_path: Path, both: tuple[ImageData, ImageData]) -> None:
    with pytest.raises(BadImages, match=r"set\.npz is an archive, of kind npz"):
        read(tmp_path / "set.npz", test_share=0.3)
    with pytest.raises(BadImages, match=r"set\.npy is a single array, of kind npy"):
        npz(tmp_path / "set.npy", test_share=0.3)


CONFINED = """
import json, re, resource, sys
from pathlib import Path

import numpy as np

from difftime.measures.quality import projections
from difftime.study.cell import build
from difftime.study.commands import fetch, train
from difftime.study.settings import ImageNeeds, read_cell

small, large, allowed = Path(sys.argv[1]), Path(sys.argv[2]), int(sys.argv[3])


def whole(folder):
    cell = read_cell(folder / "cell.json")
    fetch.run(cell.data, ImageNeeds(), folder / "images.json", data_dir=folder)
    train.run(folder, checkpoint_minutes=10.0, data_dir=folder)
    problem = build(cell)
    return problem, problem.marginals(), projections(problem.images.test)


whole(small)  # what does not depend on the images: code, threads, caches
used = 1024 * int(re.search(r"VmData:\\s+(\\d+)", Path("/proc/self/status").read_text())[1])
resource.setrlimit(resource.RLIMIT_DATA, (used + allowed, used + allowed))
problem, *_ = whole(large)
size = sum(len(split) * problem.d for split in (problem.images.train, problem.images.test))
try:
    np.load(json.loads((large / "cell.json").read_text())["data"]["path"])
except MemoryError:
    print("refused", size)
"""
"""Private memory is limited, which mapped files are not part of: the system can drop their pages at any time."""


@pytest.mark.skipif(sys.platform != "linux", reason="elsewhere the limit on data does not count what NumPy allocates")
def test_a_set_larger_than_memory_is_looked_at_trained_on_and_measured(tmp_path: Path) -> None:
    """The control in the same process: the limit refuses to load the file as a whole."""
    cells = {"small": 40, "large": 160_000}
    for name, n in cells.items():
        folder = tmp_path / name
        folder.mkdir()
        array = np.lib.format.open_memmap(folder / "set.npy", "w+", np.uint8, (n, 32, 32, 3))  # zeros take no disk
        array[::20] = pixels(len(array[::20]), 1, 1, 3)
        del array
        data = {"kind": "npy", "path": str(folder / "set.npy"), "test_share": 0.2 if n < 100 else 0.01}
        network = {"kind": "ncsnpp", "width": 4, "multipliers": [1, 2], "blocks": 1}
        training = {"steps": 4, "batch": 4, "weighting": "noise", "time_sampling": "lambda"}
        cell = {
            "dataset": "mine", "sde": "vp", "net": "unet", "T": 0.4, "seed": 0, "seeds": 1, "data": data,
            "diffusion": {"kind": "vp", "epsilon": 0.01}, "network": network, "training": training,
        }  # fmt: skip
        (folder / "cell.json").write_text(json.dumps(cell))
    allowed = 288 * 2**20
    ended = subprocess.run(
        [sys.executable, "-c", CONFINED, tmp_path / "small", tmp_path / "large", str(allowed)],
        capture_output=True, text=True, check=False,
        env=os.environ | {"OMP_NUM_THREADS": "1"},  # a thread's stack is private memory
    )  # fmt: skip
    assert ended.returncode == 0, ended.stderr
    word, size = ended.stdout.split()
    assert word == "refused"
    assert int(size) > 1.5 * allowed
