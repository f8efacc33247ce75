"""The kind of images is told by their path where it is plain; else it is asked for, with the kinds there are."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import jsonschema
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from image_files import pixels
from PIL import Image
from studies import ROOT, settings, study
from test_settings import faults

from difftime.images.kinds import NotPlain, guessed
from difftime.images.readers import BadImages
from difftime.images.readers.download import torchvision_datasets
from difftime.images.sources import images_at
from difftime.study.cell import read_images
from difftime.study.settings import plain_study
from difftime.study.settings.datasets import Plain, what_it_is
from difftime.study.settings.files import given_by, merged
from difftime.study.settings.images import ImageSettings, ParquetSettings, TorchvisionSettings


def picture(path: Path, seed: int = 0) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(pixels(4, 4, seed=seed)).save(path)


def array(path: Path) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    np.save(path, pixels(40, 4, 4))


def table(path: Path) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    flat(path.parent / ".hidden")
    pq.write_table(pa.table({"image": [file.read_bytes() for file in (path.parent / ".hidden").iterdir()]}), path)


def archive(path: Path) -> None:
    np.savez(path, train=pixels(9, 4, 4), test=pixels(3, 4, 4, seed=1))


def flat(path: Path) -> None:
    for i in range(30):
        picture(path / f"{i}.png", i)


def halves(path: Path) -> None:
    picture(path / "train/a.jpg")
    picture(path / "test/a.JPEG", 1)


def two_arrays(path: Path) -> None:
    array(path / "train.npy")
    array(path / "test.npy")


def hub(path: Path) -> None:
    table(path / "data/train-00000-of-00001.parquet")
    table(path / "data/test-00000-of-00001.parquet")
    (path / "README.md").write_text("about")


PLACES = {
    "flat": ("folder", flat), "halves": ("folder", halves), "a.npz": ("npz", archive), "a.npy": ("npy", array),
    "arrays": ("npy", two_arrays), "a.parquet": ("parquet", table), "hub": ("parquet", hub),
}  # fmt: skip
ALL = pytest.mark.parametrize("name", PLACES)


@pytest.fixture(autouse=True)
def place(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / ".caches"))
    for name, (_, make) in PLACES.items():
        make(tmp_path / name)
    return tmp_path


@ALL
def test_a_path_tells_the_kind(name: str) -> None:
    assert guessed(name) == PLACES[name][0]


@pytest.mark.parametrize(("name", "kind"), [("gone/A.NPY", "npy"), ("gone.npz", "npz"), ("gone.parquet", "parquet")])
def test_the_ending_of_what_does_not_exist_yet_tells_it(name: str, kind: str) -> None:
    assert guessed(name) == kind


def test_a_home_folder_is_looked_into(place: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HOME", str(place))
    assert guessed("~/halves") == "folder"


KINDS = r"Say which: folder \(.*\), npz \(.*\), npy \(.*\), parquet \(.*\)\.$"
UNCLEAR = {
    "gone": "does not exist, so its kind cannot be told",
    "a.txt": "is a file that does not end in .npz, .npy or .parquet",
    "empty": "holds no images",
    "hidden": "holds no images",
    "mixed": "holds what is of kind folder and of kind parquet",
    "deep": "holds no images",
}


@pytest.fixture
def unclear(place: Path) -> None:
    (place / "a.txt").write_text("")
    (place / "empty").mkdir()
    picture(place / "hidden/.a.png")
    picture(place / "mixed/a.png")
    table(place / "mixed/data/train.parquet")
    picture(place / "deep/cats/a.png")


@pytest.mark.parametrize("name", UNCLEAR)
@pytest.mark.usefixtures("unclear")
def test_a_path_that_does_not_tell_is_refused_with_the_kinds_there_are(name: str) -> None:
    with pytest.raises(NotPlain, match=f"^{name} {UNCLEAR[name]}.*{KINDS}"):
        guessed(name)


CELLS = {"study": [{"dataset": "mine", "sde": "vp", "net": "unet-16", "T": [0.6]}]}
"""A network for images, which no mixture may have."""


@ALL
def test_a_study_needs_no_kind_beside_a_path(name: str) -> None:
    own = {} if name in ("halves", "a.npz", "arrays", "hub") else {"test_share": 0.4}
    left_out = study({"datasets": {"mine": {"path": name, **own}}, **CELLS})
    given = study({"datasets": {"mine": {"kind": PLACES[name][0], "path": name, **own}}, **CELLS})
    assert left_out.canonical() == given.canonical()
    assert plain_study(left_out)["datasets"]["mine"]["kind"] == PLACES[name][0]  # read again, it is not guessed again
    cell = left_out.cell("mine", "vp", "unet-16", "0.6")
    assert read_images(cell.data, Path("data")).digest == images_at(name, Path("data"), 0.4).digest


@pytest.mark.usefixtures("unclear")
def test_a_path_that_does_not_tell_is_a_fault_at_its_place() -> None:
    (fault,) = faults(settings(changes={"datasets.mine": {"path": "mixed"}}))
    assert fault.startswith("datasets.mine.path: mixed holds what is of kind folder and of kind parquet")


def test_a_path_over_a_mixture_makes_images_of_it_and_keeps_the_kind_of_images() -> None:
    def laid(old: dict[str, Any], new: dict[str, Any]) -> dict[str, Any]:
        return dict(merged(given_by("a file", {"datasets": {"a": one}}) for one in (old, new))["datasets"]["a"])

    mixture = {"kind": "mixture", "weights": [1.0], "means": [0.0], "stds": [1.0]}
    assert laid(mixture, {"path": "a.npz"}) == {"path": "a.npz"}
    assert laid({"kind": "folder", "path": "a"}, {"path": "b"}) == {"kind": "folder", "path": "b"}
    assert laid({"path": "a", "flip": True}, {"path": "b"}) == {"path": "b", "flip": True}


REFUSED: dict[str, tuple[dict[str, Any], str]] = {
    "another class": ({"kind": "torchvision", "name": "Food101"}, r"datasets\.mine\.name: .* of another one make"),
    "nearly a name": ({"kind": "torchvision", "name": "FashionMnist"}, r"did you mean FashionMNIST\?"),
    "a kind of its own": ({"kind": "torchvision", "name": "MNIST"}, r"is a kind of its own; write kind: mnist"),
    "no name": ({"kind": "torchvision"}, r"datasets\.mine\.name: Field required"),
    "a share": ({"kind": "torchvision", "name": "KMNIST", "test_share": 0.1}, r"test_share: no such key"),
    "extra": ({"kind": "torchvision", "name": "KMNIST", "extra": True}, "KMNIST has no extra images"),
    "a column": ({"kind": "npz", "path": "a.npz", "column": "image"}, r"column: no such key"),
    "no path": ({"kind": "parquet"}, "images of kind parquet need a path"),
    "a number": ({"path": 3}, r"datasets\.mine\.path"),
}


@pytest.mark.parametrize("fault", REFUSED)
def test_settings_that_a_kind_does_not_have_are_refused(fault: str) -> None:
    data, message = REFUSED[fault]
    (found,) = faults(settings(changes={"datasets.mine": data}))
    assert re.search(message, found), found


@pytest.mark.parametrize(
    ("data", "valid"),
    [
        ({"path": "a.npz"}, True), ({"path": "a", "column": "img"}, True), ({"kind": "parquet", "path": "a"}, True),
        ({"kind": "torchvision", "name": "SVHN", "extra": True}, True), ({"kind": "mnist"}, True),
        ({"kind": "torchvision", "name": "MNIST"}, False), ({"kind": "torchvision"}, False),
        ({"kind": "npz", "path": "a", "column": "x"}, False), ({"path": "a", "colum": "x"}, False),
    ],
)  # fmt: skip
def test_editors_see_what_is_possible(data: dict[str, Any], valid: bool) -> None:
    schema = json.loads((ROOT / "workflow/schemas/config.schema.json").read_text())
    whole = settings(changes={"datasets.mine": data})
    if valid:
        jsonschema.validate(whole, schema)
    else:
        with pytest.raises(jsonschema.ValidationError):
            jsonschema.validate(whole, schema)


def test_the_settings_of_the_old_kinds_name_their_cells_as_before() -> None:
    """Weights know their cell by these; a key more, and trained cells would be strangers."""
    assert ImageSettings(kind="npz", path="a.npz", test_share=0.1).canonical() == (
        '{"channels": null, "flip": false, "kind": "npz", "path": "a.npz", "test_share": 0.1}'
    )


@pytest.mark.parametrize(
    "data",
    [
        TorchvisionSettings(kind="torchvision", name="SVHN", extra=True),
        ParquetSettings(kind="parquet", path="a", column="img"),
    ],
)
def test_a_cell_holds_what_the_data_are(data: Plain) -> None:
    whole = study({"datasets": {"mine": data.model_dump()}, **CELLS})
    assert what_it_is(whole.datasets["mine"]) == data.model_dump(mode="json")


def test_one_word_names_torchvisions_data_sets_too(place: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torchvision_datasets().FashionMNIST, "mirrors", [])
    with pytest.raises(BadImages, match="FashionMNIST is not there and cannot be downloaded"):
        images_at("FashionMNIST", place / "nowhere", 0.2)


@pytest.mark.usefixtures("unclear")
def test_one_word_that_does_not_tell_is_refused_with_what_there_is(place: Path) -> None:
    with pytest.raises(BadImages, match=r"gone is no data: .* mnist, cifar10, mnist5k, CIFAR100, FashionMNIST"):
        images_at("gone", place, 0.2)
    with pytest.raises(BadImages, match="mixed holds what is of kind folder and of kind parquet"):
        images_at("mixed", place, 0.2)
