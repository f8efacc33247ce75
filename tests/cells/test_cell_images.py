"""Cells of images as a whole: all commands, bad images, short memory, and what is looked at before anything starts."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from of_images import (
    NETWORK,
    QUICK,
    SIZE,
    TEST,
    TRAIN,
    TRAINING,
    a_cell,
    alter,
    call,
    contents,
    done,
    files_of,
    grey,
    images_in,
    measure,
    measurement,
    read,
    refusal,
    shorten,
    write,
)
from PIL import Image

from difftime.images.readers import BadImages
from difftime.images.readers.mnist5k import read as mnist5k
from difftime.study.cell import WEIGHTS
from difftime.study.commands import elbo, fetch, likelihood, samples, train
from difftime.study.commands.common import measured_images
from difftime.study.registry import MEASUREMENTS, ONLY_OF
from difftime.study.registry import TRAINING as TRAINED
from difftime.study.settings import BadSettings, ImageNeeds, ImageSettings


def test_everything_that_is_written_has_its_schema_and_nothing_else_is_left(measured: Path) -> None:
    tables = {path.removesuffix(".parquet") for name in MEASUREMENTS for path in files_of(name)} | {*TRAINED}
    runs = {f"run_{name}.parquet" for name in ("train", *MEASUREMENTS)}
    assert {path.name for path in measured.iterdir()} == {
        "cell.json", WEIGHTS, *(f"{table}.parquet" for table in tables), *runs,
    }  # fmt: skip
    for table in tables - {table for table, kind in ONLY_OF.items() if kind == "mixture"}:
        frame = read(measured, table)
        assert set(frame["T"]) == {0.4}
        assert set(frame.dataset) == {"mine"}


def test_colour_images_in_a_folder_pass_through_every_command(tmp_path: Path) -> None:
    pictures = tmp_path / "pictures"
    for split, n in (("train", 4), ("test", 3)):
        (pictures / split).mkdir(parents=True)
        for i, pixels in enumerate(grey(n, (SIZE, SIZE, 3))):
            Image.fromarray(pixels).save(pictures / split / f"{i}.png")
    data = ImageSettings(kind="folder", path=str(pictures), channels=3, flip=True)
    path = write(tmp_path / "cell", a_cell(data, seeds=1, training=TRAINING | {"steps": 3, "batch": 2}))
    done("train", path)
    for name in QUICK:
        measure(name, path)
    assert len(read(path, "images").pixels[0]) == 3 * SIZE * SIZE
    assert read(path, "likelihood").bpd.notna().all()


def test_a_cell_with_exploding_variance_passes_through_every_command(tmp_path: Path) -> None:
    path = write(tmp_path / "cell", a_cell(images_in(tmp_path), seeds=1, diffusion={"kind": "ve-exponential"}))
    done("train", path)
    for name in QUICK:
        measure(name, path)
    assert read(path, "likelihood").bpd.notna().all()
    assert set(read(path, "images").not_finite) == {0}


# What is looked at before anything starts


def test_fetch_says_what_the_images_are(tmp_path: Path) -> None:
    settings = images_in(tmp_path)
    for name in ("one", "two"):
        fetch.run(settings, ImageNeeds(), tmp_path / "data" / f"{name}.json", data_dir=tmp_path)
    found = json.loads((tmp_path / "data" / "one.json").read_text())
    assert (found["shape"], found["train"], found["test"]) == ([1, SIZE, SIZE], TRAIN, TEST)
    assert (tmp_path / "data" / "one.json").read_bytes() == (tmp_path / "data" / "two.json").read_bytes()


NOT_FITTING = [
    ({"batches": [4, TRAIN + 1]}, "12 training images, fewer than one batch of 13. Set batch to at most 12."),
    ({"test_images": [TEST, TEST + 1]}, "8 test images are asked for, but images has 7."),
    ({"networks": {"deep": NETWORK | {"multipliers": [1] * 5}}}, "does not fit images, 8 × 8 pixels"),
    ({"networks": {"odd": NETWORK | {"width": 6}}}, "GroupNorm"),
]


@pytest.mark.parametrize(("needs", "message"), NOT_FITTING)
def test_fetch_refuses_what_the_jobs_would_refuse(tmp_path: Path, needs: dict[str, Any], message: str) -> None:
    settings, output = images_in(tmp_path), tmp_path / "images.json"
    with pytest.raises((BadImages, BadSettings)) as refused:
        fetch.run(settings, ImageNeeds.model_validate(needs), output, data_dir=tmp_path)
    assert message in str(refused.value)
    assert not output.exists()
    fits = ImageNeeds.model_validate({"batches": [TRAIN], "test_images": [TEST], "networks": {"fits": NETWORK}})
    fetch.run(settings, fits, output, data_dir=tmp_path)
    assert output.exists()


def test_a_damaged_mnist_file_is_named_with_its_remedy(tmp_path: Path) -> None:
    raw = tmp_path / "data" / "MNIST" / "raw"
    raw.mkdir(parents=True)
    for name in ("train-images-idx3-ubyte", "t10k-images-idx3-ubyte"):
        (raw / name).write_bytes(b"\0\0\x08\x03" + bytes(100))
    output = tmp_path / "mnist.json"
    with pytest.raises(BadImages) as refused:
        fetch.run(ImageSettings(kind="mnist"), ImageNeeds(), output, data_dir=tmp_path / "data")
    assert f"{raw / 'train-images-idx3-ubyte'} is not the original file" in str(refused.value)
    assert "Delete" in str(refused.value)
    assert not output.exists()


# Bad input: one message, and what is there stays


def npz_of(place: Path, **arrays: np.ndarray) -> dict[str, Any]:
    np.savez(place / "bad.npz", **arrays)
    return {"kind": "npz", "path": str(place / "bad.npz")}


def folder_of(place: Path, *pictures: Image.Image) -> dict[str, Any]:
    for half in ("train", "test"):
        (place / "bad" / half).mkdir(parents=True)
        for i, picture in enumerate(pictures):
            picture.save(place / "bad" / half / f"{i}.png")
    return {"kind": "folder", "path": str(place / "bad")}


def flat(mode: str, size: int = SIZE) -> Image.Image:
    return Image.new(mode, (size, size))


def split(size: tuple[int, ...], train: int = TRAIN) -> dict[str, np.ndarray]:
    return {"train": grey(train, size), "test": grey(TEST, size)}


def cut_short(place: Path) -> dict[str, Any]:
    settings = npz_of(place, **split((SIZE, SIZE)))
    shorten(place / "bad.npz")
    return settings


BAD: dict[str, tuple[Callable[[Path], dict[str, Any]], list[str]]] = {
    "a size that the levels cannot halve": (
        lambda place: npz_of(place, **split((7, 7))), ["does not fit bad, 7 × 7 pixels", "7"],
    ),
    "images that are not square": (
        lambda place: npz_of(place, **split((8, 6))), ["images of 6 × 8 pixels", "square"],
    ),
    "channels that the files do not have": (
        lambda place: npz_of(place, **split((SIZE, SIZE))) | {"channels": 3}, ["channels is 3", "have 1"],
    ),
    "no images": (lambda place: npz_of(place, train=grey(0), test=grey(3)), ["bad has no training images"]),
    "an empty folder": (folder_of, ["holds no images"]),
    "no folder": (lambda place: {"kind": "folder", "path": str(place / "none")}, ["none does not exist"]),
    "no file": (lambda place: {"kind": "npz", "path": str(place / "none.npz")}, ["none.npz does not exist"]),
    "images of mixed sizes": (
        lambda place: folder_of(place, flat("L"), flat("L", 16)), ["one size", "8 × 8", "16 × 16"],
    ),
    "images of mixed channels": (lambda place: folder_of(place, flat("L"), flat("RGB")), ["one mode", "RGB"]),
    "16-bit images": (lambda place: folder_of(place, flat("I;16"), flat("I;16")), ["8-bit", "16 bits"]),
    "numbers that are NaN": (
        lambda place: npz_of(place, train=np.full((4, 8, 8), np.nan), test=grey(2)), ["float64", "must be uint8"],
    ),
    "16-bit numbers": (
        lambda place: npz_of(place, train=grey(4).astype(np.uint16), test=grey(2)), ["uint16", "must be uint8"],
    ),
    "fewer images than a batch": (
        lambda place: npz_of(place, **split((SIZE, SIZE), train=3)), ["3 training images", "batch of 4", "at most 3"],
    ),
    "a file that was cut short": (cut_short, ["bad.npz cannot be read"]),
}  # fmt: skip


@pytest.mark.parametrize(("make", "phrases"), BAD.values(), ids=BAD)
@pytest.mark.parametrize("name", ["train", "likelihood"])
def test_bad_images_are_one_message_and_nothing_is_overwritten(
    cell: Path, tmp_path: Path, make: Callable[[Path], dict[str, Any]], phrases: list[str], name: str
) -> None:
    write(cell, a_cell(ImageSettings.model_validate(make(tmp_path))))
    before = contents(cell)
    message = refusal(*(["train", cell] if name == "train" else measurement(name, cell)))
    assert all(phrase in message for phrase in phrases)
    assert contents(cell) == before


def test_a_network_that_cannot_be_built_is_one_message(cell: Path) -> None:
    settings = a_cell(
        ImageSettings.model_validate_json(json.dumps(json.loads((cell / "cell.json").read_text())["data"]))
    )
    (cell / "cell.json").write_text(
        settings.model_copy(update={"network": settings.network.model_copy(update={"width": 6})}).canonical()
    )
    assert "GroupNorm" in refusal("train", cell)


@pytest.mark.parametrize("name", QUICK)
def test_a_T_beyond_what_was_trained_is_refused(cell: Path, name: str) -> None:
    values = json.loads((cell / "cell.json").read_text())
    (cell / "cell.json").write_text(json.dumps(values | {"T": 0.8}))
    before = contents(cell)
    assert f"{cell / WEIGHTS} was trained with other settings" in refusal(*measurement(name, cell))
    assert contents(cell) == before


@pytest.mark.parametrize("name", QUICK)
@pytest.mark.parametrize(("damage", "expected"), [(shorten, "cannot be read"), (alter, "does not match its checksum")])
def test_damaged_weights_are_refused_by_name(cell: Path, name: str, damage, expected: str) -> None:
    damage(cell / WEIGHTS)
    before = contents(cell)
    assert f"{cell / WEIGHTS} {expected}" in refusal(*measurement(name, cell))
    assert contents(cell) == before


@pytest.mark.parametrize("name", ["likelihood", "elbo"])
def test_more_test_images_than_there_are_is_one_message(cell: Path, name: str) -> None:
    message = refusal(*measurement(name, cell, images=8))
    assert message.startswith("8 test images are asked for, but images has 7. Set ")
    assert f"{name}.images" in message


@pytest.mark.parametrize(("name", "key"), [("elbo", "time_steps"), ("likelihood", "grid_cells"), ("samples", "bins")])
def test_a_setting_of_mixtures_is_refused_for_images(cell: Path, name: str, key: str) -> None:
    before = contents(cell)
    assert key in call(*measurement(name, cell, **{key: 100})).stderr
    assert contents(cell) == before


def test_a_network_for_vectors_on_images_is_one_message(cell: Path) -> None:
    settings = json.loads((cell / "cell.json").read_text()) | {"network": {"kind": "mlp"}}
    (cell / "cell.json").write_text(json.dumps(settings))
    assert "a network of kind mlp is not for data of kind npz" in refusal("train", cell)


def test_weights_of_other_images_are_refused(cell: Path) -> None:
    path = Path(json.loads((cell / "cell.json").read_text())["data"]["path"])
    before = path.read_bytes()
    arrays = dict(np.load(path))
    try:
        np.savez(path, **(arrays | {"train": 255 - arrays["train"]}))
        assert "on other images" in refusal(*measurement("likelihood", cell))
    finally:
        path.write_bytes(before)


# Memory


def gpu_is_full(*_: Any, **__: Any) -> None:
    raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 20.00 GiB.")


def no_such_memory(*_: Any, **__: Any) -> None:
    torch.empty(2**58, dtype=torch.uint8)


def python_is_full(*_: Any, **__: Any) -> None:
    raise MemoryError


@pytest.mark.parametrize("lack", [gpu_is_full, no_such_memory, python_is_full])
@pytest.mark.parametrize(
    ("name", "module", "function", "setting"),
    [
        ("train", train, "train", "datasets.mine.training.batch = 4"),
        ("likelihood", likelihood, "ode_likelihood", "likelihood.batch = 3"),
        ("elbo", elbo, "image_elbo", "elbo.batch = 256"),
        ("samples", samples, "reverse_sde", "samples.images = 3"),
    ],
)
def test_a_lack_of_memory_names_the_setting_to_change(
    cell: Path, monkeypatch: pytest.MonkeyPatch, name: str, module, function: str, setting: str, lack
) -> None:
    monkeypatch.setattr(module, function, lack)
    before = contents(cell)
    message = refusal(*(["train", cell] if name == "train" else measurement(name, cell)))
    assert message == f"Memory does not suffice with {setting}. Set {setting.split(' =')[0]} to less."
    assert contents(cell) == before


def test_another_error_of_pytorch_keeps_its_traceback(cell: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def broken(*_: Any, **__: Any) -> None:
        raise RuntimeError("mat1 and mat2 shapes cannot be multiplied")

    monkeypatch.setattr(likelihood, "ode_likelihood", broken)
    assert isinstance(call(*measurement("likelihood", cell)).exception, RuntimeError)


# Which images


def test_the_test_images_that_are_measured_are_of_all_classes_and_nested() -> None:
    """mnist5k is sorted by digit, 100 test images each: the first 64 would all be zeros."""
    images = mnist5k()
    few, more = measured_images(images, 64), measured_images(images, 256)
    digits = more.div(100, rounding_mode="floor").bincount(minlength=10)
    assert digits.min() > 10
    assert set(few.tolist()) < set(more.tolist())
    assert measured_images(images, None).tolist() == list(range(1000))
