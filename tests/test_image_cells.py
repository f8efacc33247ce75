"""Cells of images from the command line: what is written is whole and right, and a run that was cut goes on.

The networks are tiny and barely trained: the laws below hold for any weights.
"""

from __future__ import annotations

import json
import logging
import os
import random
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
import torch
from PIL import Image
from scipy.stats import wasserstein_distance
from typer.testing import CliRunner, Result

from difftime.cli import app
from difftime.images.pixels import bits_per_dimension
from difftime.images.readers import mnist5k
from difftime.measures.image_elbo import ImageElbo
from difftime.measures.likelihood import OdeLikelihood, ode_likelihood
from difftime.measures.quality import directions, perfect_sliced_wasserstein1, projections
from difftime.study.cell import RESUME, WEIGHTS, build
from difftime.study.commands import bpd as verb
from difftime.study.commands import image_elbo as elbo_verb
from difftime.study.commands import image_samples as samples_verb
from difftime.study.commands import train as train_verb
from difftime.study.commands.common import measured_images
from difftime.study.settings import Cell, ImageSettings, MixtureSettings, read_cell
from difftime.support.progress import Progress
from difftime.tables import derived as tables
from difftime.tables.schema import TABLES, arrow_schema
from difftime.training import train as training
from difftime.training.checkpoint import load_weights, save_weights

SIZE, TRAIN, TEST = 8, 12, 7
TRAINING = {"steps": 25, "batch": 4, "learning_rate": 1e-3, "ema": 0.9, "weighting": "noise", "time_sampling": "lambda"}
NETWORK = {"kind": "ncsnpp", "width": 4, "multipliers": [1, 2], "blocks": 1, "dropout": 0.3}
BPD = {"batch": 3, "draws": 2, "rtol": 3e-2, "atol": 3e-2}
ELBO = {"pairs": 1}
SAMPLES = {"images": 3, "steps_per_unit_time": 5}
BOTH = ["--p-noise", "standard", "--p-noise", "matched"]
QUICK = {"bpd": BPD, "image-elbo": ELBO, "image-samples": SAMPLES}
OUTPUTS = {
    "train": ["history", "training"], "bpd": ["bpd", "bpd_images"], "image-elbo": ["image_elbo", "image_elbo_images"],
    "image-samples": ["image_samples", "image_quality"],
}  # fmt: skip
CURVE = ["seed", "p_noise"]


def grey(n: int, size: tuple[int, ...] = (SIZE, SIZE), seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).integers(256, size=(n, *size), dtype=np.uint8)


def images_in(place: Path) -> ImageSettings:
    """Training and test images of their own, as configuration alone names them."""
    np.savez(place / "images.npz", train=grey(TRAIN), test=grey(TEST, seed=1))
    return ImageSettings(kind="npz", path=str(place / "images.npz"))


def a_cell(data: ImageSettings | MixtureSettings, **changes: Any) -> Cell:
    settings = {
        "dataset": "mine", "sde": "vp", "net": "unet", "T": 0.4, "seed": 0, "seeds": 2, "data": data.model_dump(),
        "diffusion": {"kind": "vp", "epsilon": 0.01}, "network": NETWORK, "training": TRAINING,
    }  # fmt: skip
    return Cell.model_validate(settings | changes)


def write(folder: Path, cell: Cell) -> Path:
    folder.mkdir(exist_ok=True)
    (folder / "cell.json").write_text(cell.canonical())
    return folder / "cell.json"


def call(*arguments: object) -> Result:
    return CliRunner().invoke(app, [str(argument) for argument in arguments], env={"COLUMNS": "200"})


def done(*arguments: object) -> Result:
    result = call(*arguments)
    assert result.exit_code == 0, result.stderr or result.exception
    return result


def measure(name: str, cell: Path, **settings: Any) -> None:
    done(name, cell, *BOTH, "--settings", json.dumps(QUICK[name] | settings))


def refusal(*arguments: object) -> str:
    """The message of a verb that ends with exit code 1, not with a traceback."""
    result = call(*arguments)
    assert isinstance(result.exception, SystemExit), result.exception
    assert result.exit_code == 1
    (line,) = [line for line in result.stderr.splitlines() if line.startswith("difftime: ")]
    return line.removeprefix("difftime: ")


def read(cell: Path, table: str) -> pd.DataFrame:
    return tables.read(cell.parent / f"{table}.parquet", table)


def contents(folder: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in folder.iterdir()}


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A trained cell of two seeds, with nothing measured yet."""
    place = tmp_path_factory.mktemp("trained")
    cell = write(place / "cell", a_cell(images_in(place)))
    done("train", cell)
    return cell


@pytest.fixture
def cell(trained: Path, tmp_path: Path) -> Path:
    """A copy that a test may change."""
    shutil.copytree(trained.parent, tmp_path / "cell")
    return tmp_path / "cell" / "cell.json"


@pytest.fixture(scope="module")
def measured(trained: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The same cell with all measurements."""
    place = tmp_path_factory.mktemp("measured") / "cell"
    shutil.copytree(trained.parent, place)
    for name in QUICK:
        measure(name, place / "cell.json")
    return place / "cell.json"


# What is written


def test_fetch_says_what_the_images_are(tmp_path: Path) -> None:
    settings = images_in(tmp_path).canonical()
    for name in ("one", "two"):
        done("fetch", "--settings", settings, "--output", tmp_path / "data" / f"{name}.json")
    found = json.loads((tmp_path / "data" / "one.json").read_text())
    assert (found["shape"], found["train"], found["test"]) == ([1, SIZE, SIZE], TRAIN, TEST)
    assert (tmp_path / "data" / "one.json").read_bytes() == (tmp_path / "data" / "two.json").read_bytes()


def test_everything_that_is_written_has_its_schema_and_nothing_else_is_left(measured: Path) -> None:
    written = [table for tables_of_verb in OUTPUTS.values() for table in tables_of_verb]
    assert {path.name for path in measured.parent.iterdir()} == {
        "cell.json", WEIGHTS, *(f"{table}.parquet" for table in written),
        *(f"run_{name.replace('-', '_')}.parquet" for name in OUTPUTS),
    }  # fmt: skip
    for table in written:
        frame = read(measured, table)
        assert arrow_schema(table).names == [*frame.columns]
        assert set(frame["T"]) == {0.4}
        assert set(frame.dataset) == {"mine"}


def test_the_training_table_says_what_was_done(measured: Path) -> None:
    row = read(measured, "training").iloc[0]
    assert (row.steps, row.batch, row.seeds, row.weighting) == (25, 4, 2, "noise")
    assert row.points_per_second == pytest.approx(2 * 25 * 4 / row.seconds)
    assert read(measured, "history").groupby("seed").step.apply(list).to_list() == [[10, 20, 25]] * 2


def test_every_image_and_draw_is_evaluated_exactly_once_with_an_incomplete_last_batch(measured: Path) -> None:
    assert TEST % BPD["batch"]
    wanted = sorted((image, draw) for image in range(TEST) for draw in range(BPD["draws"]))
    curves = read(measured, "bpd_images").groupby(CURVE)
    assert len(curves) == 4
    for _, rows in curves:
        assert sorted(zip(rows.image, rows.draw, strict=True)) == wanted


def test_the_means_are_those_of_the_images(measured: Path) -> None:
    single, rows = read(measured, "bpd_images").groupby(CURVE), read(measured, "bpd").set_index(CURVE)
    assert single.bpd.mean()[rows.index].to_numpy() == pytest.approx(rows.bpd.to_numpy())
    assert single.log_q_ode.mean()[rows.index].to_numpy() == pytest.approx(rows.log_q_ode.to_numpy())
    assert bits_per_dimension(rows.log_q_ode, SIZE * SIZE).to_numpy() == pytest.approx(rows.bpd.to_numpy())
    assert set(rows.images) == {TEST}
    assert set(rows.failed) == {0}
    # two draws of one image are no independent images: the error is that of the means per image
    per_image = read(measured, "bpd_images").groupby([*CURVE, "image"]).bpd.mean().groupby(CURVE).sem()
    assert per_image[rows.index].to_numpy() == pytest.approx(rows.bpd_se.to_numpy(), rel=1e-6)


def test_the_nfe_is_the_mean_over_batches_whatever_their_size(measured: Path) -> None:
    single = read(measured, "bpd_images")
    per_batch = single.assign(batch=single.image // BPD["batch"]).groupby([*CURVE, "draw", "batch"]).nfe
    assert (per_batch.nunique() == 1).all()
    rows = read(measured, "bpd").set_index(CURVE)
    nfe = per_batch.first().groupby(CURVE)
    assert nfe.mean()[rows.index].to_numpy() == pytest.approx(rows.nfe.to_numpy())
    assert nfe.std()[rows.index].to_numpy() == pytest.approx(rows.nfe_sd.to_numpy())
    assert (2 + 6 * (rows.accepted + rows.rejected)).to_numpy() == pytest.approx(rows.nfe.to_numpy())


def test_the_elbo_table_is_the_mean_of_its_images(measured: Path) -> None:
    single, rows = read(measured, "image_elbo_images").groupby(CURVE), read(measured, "image_elbo").set_index(CURVE)
    assert all(sorted(one.image) == [*range(TEST)] for _, one in single)
    for column in ("elbo", "elbo_epsilon", "I", "prior", "residual"):
        assert single[column].mean()[rows.index].to_numpy() == pytest.approx(rows[column].to_numpy())
    assert (rows.prior - rows.I + rows.R).to_numpy() == pytest.approx(rows.elbo_epsilon.to_numpy())
    assert (rows.kl_low <= rows.kl_high).all()


def test_the_elbo_of_an_image_does_not_depend_on_its_batch(cell: Path, measured: Path) -> None:
    measure("image-elbo", cell, batch=2)
    one, other = read(cell, "image_elbo_images"), read(measured, "image_elbo_images")
    pd.testing.assert_frame_equal(one, other, rtol=1e-4)  # float32 sums in another order


def test_the_first_images_are_measured_alike_where_fewer_are_asked_for(cell: Path, measured: Path) -> None:
    measure("bpd", cell, images=BPD["batch"], draws=1)
    one, other = read(cell, "bpd_images"), read(measured, "bpd_images")
    keys = [*CURVE, "image"]
    both = one.merge(other[other.draw == 0], on=keys, suffixes=("", "_all"), validate="one_to_one")
    assert len(both) == len(one) == 4 * BPD["batch"]
    # another batch, another control of the steps: within the tolerance, not to the bit
    assert both.bpd.to_numpy() == pytest.approx(both.bpd_all.to_numpy(), abs=0.05)


def test_samples_are_images_of_the_datas_shape_and_come_out_the_same_again(cell: Path, measured: Path) -> None:
    rows = read(measured, "image_samples")
    assert rows.groupby(CURVE).image.apply(list).to_list() == [[0, 1, 2]] * 4
    assert {*zip(rows.channels, rows["size"], rows.pixels.map(len), strict=True)} == {(1, SIZE, SIZE * SIZE)}
    assert set(rows.steps) == {2}
    measure("image-samples", cell)
    pd.testing.assert_frame_equal(read(cell, "image_samples"), rows)
    pd.testing.assert_frame_equal(read(cell, "image_quality"), read(measured, "image_quality"))


def test_the_distance_in_the_table_is_that_of_the_images_in_the_other_one(measured: Path) -> None:
    data = build(read_cell(measured)).images
    drawn, quality = read(measured, "image_samples"), read(measured, "image_quality")
    floor, floor_se = perfect_sliced_wasserstein1(data.train, projections(data.test), 3)
    for keys, rows in drawn.groupby(CURVE):
        (row,) = quality[(quality[CURVE] == list(keys)).all(axis=1)].itertuples()
        pixels = np.stack([np.frombuffer(one, np.uint8).reshape(data.shape) for one in rows.pixels])
        both = (torch.from_numpy(pixels), data.test)
        points = [(k.flatten(1).double() / 128) @ directions(data.d).mT for k in both]
        oracle = np.mean([wasserstein_distance(a, b) for a, b in zip(*(p.mT.numpy() for p in points), strict=True)])
        assert row.wasserstein1 == pytest.approx(oracle, rel=1e-12)
        assert row.wasserstein1_se > 0
        assert (row.wasserstein1_floor, row.wasserstein1_floor_se) == (floor, floor_se)
        assert (row.images, row.test_images, row.steps, row.not_finite) == (3, TEST, 2, 0)
    assert set(quality.data_digest) == {data.digest}


def test_colour_images_in_a_folder_pass_through_every_verb(tmp_path: Path) -> None:
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
    assert len(read(path, "image_samples").pixels[0]) == 3 * SIZE * SIZE
    assert read(path, "bpd").bpd.notna().all()


# Evaluation that is cut


class Cut(BaseException):
    """Stands for a SIGKILL."""


@pytest.fixture
def solves(monkeypatch: pytest.MonkeyPatch) -> Callable[[int | None], list[int]]:
    """Counts the batches that are solved from now on, and cuts the run before the one with the given number."""

    def watch(last: int | None = None) -> list[int]:
        calls: list[int] = []

        def solve(*arguments: Any, **options: Any) -> OdeLikelihood:
            if len(calls) == last:
                raise Cut
            calls.append(arguments[3].shape[1])
            return ode_likelihood(*arguments, **options)

        monkeypatch.setattr(verb, "ode_likelihood", solve)
        return calls

    return watch


def same_bpd(one: Path, other: Path) -> None:
    """The files are alike but for the time that it took."""
    timed = ["images_per_second"]
    pd.testing.assert_frame_equal(
        read(one, "bpd").drop(columns=timed), read(other, "bpd").drop(columns=timed), check_exact=True
    )
    files = [(path.parent / "bpd_images.parquet").read_bytes() for path in (one, other)]
    assert files[0] == files[1]


@pytest.mark.parametrize("batches", [1, 4])
def test_an_evaluation_that_is_killed_goes_on_and_ends_with_the_same_files(
    cell: Path, measured: Path, solves, batches: int
) -> None:
    solves(batches)
    with pytest.raises(Cut):
        measure("bpd", cell)
    assert (cell.parent / verb.RESUME).exists()
    assert not (cell.parent / "bpd.parquet").exists()
    rest = solves()
    measure("bpd", cell)
    assert rest == ([3, 3, 1] * 2)[batches:]
    same_bpd(cell, measured)
    assert not (cell.parent / verb.RESUME).exists()


def shorten(path: Path) -> None:
    path.write_bytes(path.read_bytes()[:-100])


def alter(path: Path) -> None:
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 1
    path.write_bytes(content)


@pytest.mark.parametrize("damage", [alter])
def test_a_damaged_state_of_an_evaluation_is_named_and_all_images_are_evaluated_anew(
    cell: Path, measured: Path, solves, caplog: pytest.LogCaptureFixture, damage: Callable[[Path], None]
) -> None:
    solves(2)
    with pytest.raises(Cut):
        measure("bpd", cell)
    damage(cell.parent / verb.RESUME)
    calls = solves()
    measure("bpd", cell)
    assert len(calls) == 6
    assert f"{cell.parent / verb.RESUME} does not match its checksum" in caplog.text
    assert "Starting from the first image" in caplog.text
    same_bpd(cell, measured)


@pytest.mark.parametrize("change", [{"rtol": 2e-2}, {"batch": 2}, {"atol": 2e-2}])
def test_the_state_of_an_evaluation_with_other_settings_is_not_gone_on_from(
    cell: Path, solves, change: dict[str, Any]
) -> None:
    few = {"images": 6, "draws": 1}
    solves(1)
    with pytest.raises(Cut):
        measure("bpd", cell, **few)
    calls = solves()
    measure("bpd", cell, **(few | change))
    assert sum(calls) == 6


@pytest.mark.parametrize("damage", [None, alter])
def test_an_elbo_that_is_killed_goes_on_and_ends_with_the_same_files(
    cell: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture, damage
) -> None:
    whole = elbo_verb.image_elbo
    shutil.copytree(cell.parent, cell.parent.parent / "whole")
    measure("image-elbo", cell.parent.parent / "whole" / "cell.json", batch=3)
    sizes: list[int] = []

    def cut(*arguments: Any, **options: Any) -> ImageElbo:
        if len(sizes) == 1:
            raise Cut
        sizes.append(len(arguments[3]))
        return whole(*arguments, **options)

    monkeypatch.setattr(elbo_verb, "image_elbo", cut)
    with pytest.raises(Cut):
        measure("image-elbo", cell, batch=3)
    assert not (cell.parent / "image_elbo.parquet").exists()
    if damage:
        damage(cell.parent / elbo_verb.RESUME)
    counted: list[int] = []
    monkeypatch.setattr(
        elbo_verb, "image_elbo", lambda *a, **o: counted.append(len(a[3])) or whole(*a, **o)
    )  # fmt: skip
    measure("image-elbo", cell, batch=3)
    assert counted == ([3, 3, 1] if damage else [3, 1])
    assert (f"{cell.parent / elbo_verb.RESUME} does not match its checksum" in caplog.text) == bool(damage)
    here, there = contents(cell.parent), contents(cell.parent.parent / "whole")
    for files in (here, there):
        del files["run_image_elbo.parquet"]  # says when and how long it ran
    assert here == there


# Values that are not finite


def test_an_image_without_a_finite_value_is_counted_and_not_averaged(
    cell: Path, measured: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def solve(*arguments: Any, **options: Any) -> OdeLikelihood:
        solved = ode_likelihood(*arguments, **options)
        log_q = solved.log_q.clone()
        if log_q.shape[2] == 1:  # image 6, alone in the last batch
            log_q[:, 0] = torch.nan
        return replace(solved, log_q=log_q)

    monkeypatch.setattr(verb, "ode_likelihood", solve)
    measure("bpd", cell)
    rows, whole = read(cell, "bpd").set_index(CURVE), read(measured, "bpd_images")
    rest = whole[(whole.image != 6) | (whole.seed != 0)].groupby(CURVE).bpd
    assert rows.failed.to_dict() == {(s, p): 2 * (s == 0) for s in (0, 1) for p in ("standard", "matched")}
    assert rows.bpd.to_numpy() == pytest.approx(rest.mean()[rows.index].to_numpy())
    single = read(cell, "bpd_images")
    assert len(single) == len(whole)
    assert single[single.bpd.isna()][["seed", "image"]].drop_duplicates().to_numpy().tolist() == [[0, 6]]


def test_a_solver_that_gives_up_leaves_nulls_and_not_numbers(cell: Path) -> None:
    measure("bpd", cell, max_evaluations=8, rtol=1e-9, atol=1e-9)
    rows = read(cell, "bpd")
    assert (rows.failed == TEST * BPD["draws"]).all()
    assert rows[["bpd", "bpd_se", "log_q_ode"]].isna().all(axis=None)
    assert read(cell, "bpd_images").bpd.isna().all()


def test_a_network_trained_in_bfloat16_is_measured_in_float32(cell: Path, measured: Path) -> None:
    """The same weights under another name of their precision: nothing of the measurement changes."""
    settings = json.loads(cell.read_text())
    settings["network"]["precision"] = "bfloat16"
    low = Cell.model_validate(settings)
    weights = load_weights(cell.parent / WEIGHTS, build(Cell.model_validate_json(cell.read_text())).digest)
    cell.write_text(low.canonical())
    save_weights(cell.parent / WEIGHTS, weights, build(low).digest)
    measure("bpd", cell)
    same_bpd(cell, measured)


def test_a_cpu_without_bfloat16_trains_in_float32_and_says_so(
    cell: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    before = Cell.model_validate_json(cell.read_text())
    wanted = load_weights(cell.parent / WEIGHTS, build(before).digest)
    network = before.network.model_copy(update={"precision": "bfloat16"})
    settings = before.model_copy(update={"network": network})
    cell.write_text(settings.canonical())
    monkeypatch.setattr(torch.ops.mkldnn, "_is_mkldnn_bf16_supported", lambda: False)
    (cell.parent / WEIGHTS).unlink()
    done("train", cell)
    assert "no instructions for bfloat16" in caplog.text
    assert set(read(cell, "training").precision) == {"float32"}
    for name, weight in load_weights(cell.parent / WEIGHTS, build(settings).digest).items():
        assert torch.equal(weight, wanted[name])


def test_samples_that_are_not_finite_are_counted_and_told(
    cell: Path, measured: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    whole = samples_verb.reverse_sde

    def broken(*arguments: Any, **options: Any) -> torch.Tensor:
        x = whole(*arguments, **options)
        x[1, 2, :5], x[1, 2, 5] = torch.nan, torch.inf
        return x

    monkeypatch.setattr(samples_verb, "reverse_sde", broken)
    measure("image-samples", cell)
    rows, sound = read(cell, "image_samples"), read(measured, "image_samples")
    assert set(sound.not_finite) == {0}
    failed = (rows.seed == 1) & (rows.image == 2)
    assert rows.not_finite.to_list() == [6 * one for one in failed]
    assert [pixels[:6] for pixels in rows.pixels[failed]] == [bytes(6)] * 2
    assert rows.pixels[~failed].equals(sound.pixels[~failed])
    assert "1 of 6 images have values that are not finite" in caplog.text
    quality, whole = (read(one, "image_quality").sort_values(CURVE) for one in (cell, measured))
    assert quality.not_finite.to_list() == [0, 0, 1, 1]
    for column in ("wasserstein1", "wasserstein1_se"):
        assert quality[column].isna().to_list() == [False, False, True, True]
    assert quality.wasserstein1[:2].to_list() == whole.wasserstein1[:2].to_list()


# Exploding variance


@pytest.mark.parametrize(("diffusion", "scaled"), [("vp", False), ("ve-exponential", True)])
def test_inputs_are_scaled_for_ve_and_not_for_vp(tmp_path: Path, diffusion: str, scaled: bool) -> None:
    data = images_in(tmp_path)
    usual = build(a_cell(data, diffusion={"kind": diffusion, "epsilon": 0.01})).score
    told = build(
        a_cell(data, diffusion={"kind": diffusion, "epsilon": 0.01}, network=NETWORK | {"scale_input": not scaled})
    ).score
    assert (usual.scale_input, told.scale_input) == (scaled, not scaled)
    x0 = torch.from_numpy(grey(TRAIN)).flatten(1).double() / 128 - 1
    z = torch.randn(x0.shape, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    for T in (0.01, 0.5, 1.0):
        t = torch.full((TRAIN,), T, dtype=torch.float64)
        x = usual.sde.perturb(x0, t, z)
        seen = usual.inputs(x, t)
        if scaled:  # of 768 values, of variance 1
            assert seen.std().item() == pytest.approx(1, abs=0.1)
        else:
            assert seen is x


def test_a_cell_with_exploding_variance_passes_through_every_verb(tmp_path: Path) -> None:
    path = write(tmp_path / "cell", a_cell(images_in(tmp_path), seeds=1, diffusion={"kind": "ve-exponential"}))
    done("train", path)
    for name in QUICK:
        measure(name, path)
    assert read(path, "bpd").bpd.notna().all()
    assert set(read(path, "image_samples").not_finite) == {0}


# What is told


def test_attention_at_a_resolution_that_no_level_has_is_told_and_trained_all_the_same(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    data = images_in(tmp_path)
    done("train", write(tmp_path / "fits", a_cell(data, network=NETWORK | {"attention": [4]})))
    assert "WARNING" not in caplog.text
    done("train", write(tmp_path / "misses", a_cell(data, network=NETWORK | {"attention": [4, 5]})))
    assert "attention is asked for at resolutions [5]" in caplog.text
    assert "its levels: [8, 4]" in caplog.text


def test_the_log_of_a_training_has_images_a_second_and_the_time_left(caplog: pytest.LogCaptureFixture) -> None:
    progress = Progress("train it", 100, "step", done=20, inside=("image", 256), every=0.0)
    progress.start -= 10  # seconds ago
    with caplog.at_level(logging.INFO):
        progress.advance(40, "loss 1.5")
    assert "train it: step 60 of 100, loss 1.5, 4 steps/s, 1.02e+03 images/s, 10 s left" in caplog.text


# Refused by fetch

NOT_FITTING = [
    ({"batches": [4, TRAIN + 1]}, "12 training images, fewer than one batch of 13. Set batch to at most 12."),
    ({"test_images": [TEST, TEST + 1]}, "8 test images are asked for, but images has 7."),
    ({"networks": {"deep": NETWORK | {"multipliers": [1] * 5}}}, "does not fit images, 8 × 8 pixels"),
    ({"networks": {"odd": NETWORK | {"width": 6}}}, "GroupNorm"),
]


@pytest.mark.parametrize(("needs", "message"), NOT_FITTING)
def test_fetch_refuses_what_the_jobs_would_refuse(tmp_path: Path, needs: dict[str, Any], message: str) -> None:
    output = tmp_path / "images.json"
    arguments = ("fetch", "--settings", images_in(tmp_path).canonical(), "--output", output, "--needs")
    assert message in refusal(*arguments, json.dumps(needs))
    assert not output.exists()
    done(*arguments, json.dumps({"batches": [TRAIN], "test_images": [TEST], "networks": {"fits": NETWORK}}))


# In pieces


def test_a_cell_worked_on_in_pieces_has_the_bits_of_one_that_was_not(tmp_path: Path) -> None:
    """Training, BPD and ELBO by their commands, each ended again and again, by signals that ask and by SIGKILL."""
    settings = a_cell(images_in(tmp_path), seeds=1, training=TRAINING | {"steps": 150})
    path, whole = write(tmp_path / "pieces", settings), write(tmp_path / "whole", settings)
    verbs = {"train": RESUME, "bpd": verb.RESUME, "image-elbo": elbo_verb.RESUME}
    options = {
        name: [] if name == "train" else [*BOTH, "--settings", json.dumps(QUICK[name] | {"batch": 1})] for name in verbs
    }
    options["train"] = ["--checkpoint-minutes", "0"]
    for name, resume in verbs.items():
        command, state, codes = [sys.executable, "-m", "difftime.cli", name, str(path), *options[name]], None, []
        for end in (signal.SIGTERM, signal.SIGINT, signal.SIGHUP, signal.SIGKILL):
            process, before = subprocess.Popen(command, stderr=subprocess.DEVNULL), state
            while process.poll() is None and state == before:
                file = path.parent / resume
                state = file.stat().st_mtime_ns if file.exists() else before
                time.sleep(0.005)
            process.send_signal(end)
            codes.append(process.wait())
        assert 0 not in codes, name
        assert (path.parent / resume).exists()
        subprocess.run(command, check=True, stderr=subprocess.DEVNULL)
        done(name, whole, *options[name])
    assert weights_of(path.parent) == weights_of(whole.parent)
    same_bpd(path, whole)
    for table in ("image_elbo", "image_elbo_images"):
        file = f"{table}.parquet"
        assert (path.parent / file).read_bytes() == (whole.parent / file).read_bytes()


# Training that is cut


def weights_of(folder: Path) -> bytes:
    return (folder / WEIGHTS).read_bytes()


def test_a_training_that_is_killed_at_random_moments_ends_with_the_same_bits(tmp_path: Path) -> None:
    """By SIGKILL, with dropout, and with a state after every block, so that some kills fall into its writing."""
    settings = a_cell(images_in(tmp_path), seeds=1, training=TRAINING | {"steps": 150})
    path, whole = write(tmp_path / "cut", settings), write(tmp_path / "whole", settings)
    command = [sys.executable, "-m", "difftime.cli", "train", path, "--checkpoint-minutes", "0"]
    state, cuts = path.parent / RESUME, []
    for _ in range(2):
        before = state.stat().st_mtime_ns if state.exists() else 0
        process = subprocess.Popen(command, stderr=subprocess.PIPE)
        while process.poll() is None and not (state.exists() and state.stat().st_mtime_ns > before):
            time.sleep(0.01)
        time.sleep(random.uniform(0, 0.2))
        process.kill()
        process.communicate()
        cuts.append(process.returncode)
    assert cuts == [-signal.SIGKILL] * 2
    assert not (path.parent / WEIGHTS).exists()
    finished = subprocess.run(command, capture_output=True, text=True, check=True)
    assert "Resuming at step" in finished.stderr
    done("train", whole)
    assert weights_of(path.parent) == weights_of(whole.parent)
    pd.testing.assert_frame_equal(read(path, "history"), read(whole, "history"), check_exact=True)
    assert contents(path.parent).keys() == contents(whole.parent).keys()


def test_sigterm_saves_at_once_and_the_next_run_goes_on(
    cell: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    wanted = weights_of(cell.parent)
    (cell.parent / WEIGHTS).unlink()
    draw = training._draw

    def signalled(*arguments: Any) -> Any:
        if arguments[2] == 1:
            os.kill(os.getpid(), signal.SIGTERM)
        return draw(*arguments)

    monkeypatch.setattr(training, "_draw", signalled)
    assert "its state after step 20 is saved" in refusal("train", cell, "--checkpoint-minutes", "60")
    assert (cell.parent / RESUME).exists()
    monkeypatch.setattr(training, "_draw", draw)
    with caplog.at_level(logging.INFO):
        done("train", cell)
    assert "Resuming at step 20" in caplog.text
    assert weights_of(cell.parent) == wanted


@pytest.mark.parametrize("damage", [shorten])
def test_a_damaged_state_of_a_training_is_named_and_not_used(
    cell: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture, damage: Callable[[Path], None]
) -> None:
    wanted = weights_of(cell.parent)
    (cell.parent / WEIGHTS).unlink()

    def cut(*_: Any) -> None:
        raise Cut

    with monkeypatch.context() as patched:
        patched.setattr(train_verb, "save_weights", cut)
        patched.setattr(training.time, "monotonic", iter(range(0, 10**9, 10**6)).__next__)
        with pytest.raises(Cut):
            call("train", cell)
    damage(cell.parent / RESUME)
    done("train", cell)
    assert f"{cell.parent / RESUME} does not match its checksum" in caplog.text
    assert "Starting from step 0" in caplog.text
    assert weights_of(cell.parent) == wanted


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
@pytest.mark.parametrize("name", ["train", "bpd"])
def test_bad_images_are_one_message_and_nothing_is_overwritten(
    cell: Path, tmp_path: Path, make: Callable[[Path], dict[str, Any]], phrases: list[str], name: str
) -> None:
    write(cell.parent, a_cell(ImageSettings.model_validate(make(tmp_path))))
    before = contents(cell.parent)
    message = refusal(name, cell, *(BOTH if name == "bpd" else []))
    assert all(phrase in message for phrase in phrases)
    assert contents(cell.parent) == before


def test_a_network_that_cannot_be_built_is_one_message(cell: Path) -> None:
    settings = a_cell(ImageSettings.model_validate_json(json.dumps(json.loads(cell.read_text())["data"])))
    cell.write_text(
        settings.model_copy(update={"network": settings.network.model_copy(update={"width": 6})}).canonical()
    )
    assert "GroupNorm" in refusal("train", cell)


@pytest.mark.parametrize("name", QUICK)
def test_a_T_beyond_what_was_trained_is_refused(cell: Path, name: str) -> None:
    values = json.loads(cell.read_text())
    cell.write_text(json.dumps(values | {"T": 0.8}))
    before = contents(cell.parent)
    message = refusal(name, cell, *BOTH)
    assert f"{cell.parent / WEIGHTS} was trained with other settings" in message
    assert contents(cell.parent) == before


@pytest.mark.parametrize("name", QUICK)
@pytest.mark.parametrize(("damage", "expected"), [(shorten, "cannot be read"), (alter, "does not match its checksum")])
def test_damaged_weights_are_refused_by_name(cell: Path, name: str, damage, expected: str) -> None:
    damage(cell.parent / WEIGHTS)
    before = contents(cell.parent)
    assert f"{cell.parent / WEIGHTS} {expected}" in refusal(name, cell, *BOTH)
    assert contents(cell.parent) == before


@pytest.mark.parametrize("name", ["bpd", "image-elbo"])
def test_more_test_images_than_there_are_is_one_message(cell: Path, name: str) -> None:
    message = refusal(name, cell, *BOTH, "--settings", '{"images": 8}')
    assert message == "8 test images are asked for, but images has 7."


@pytest.mark.parametrize("name", ["elbo", "likelihood", "samples"])
def test_images_have_no_measurement_of_a_known_density(cell: Path, name: str) -> None:
    before = contents(cell.parent)
    assert "is of images" in refusal(name, cell, *BOTH)
    assert contents(cell.parent) == before


@pytest.mark.parametrize("name", QUICK)
def test_a_known_density_has_no_measurement_of_images(tmp_path: Path, name: str) -> None:
    toy = {"weights": [1.0], "means": [0.0], "stds": [1.0]}
    path = write(tmp_path / "cell", a_cell(MixtureSettings(**toy), network={"kind": "mlp"}))
    assert "is no cell of images" in refusal(name, path, *BOTH)


def test_a_network_for_vectors_on_images_is_one_message(cell: Path) -> None:
    cell.write_text(json.dumps(json.loads(cell.read_text()) | {"network": {"kind": "mlp"}}))
    assert "a network of kind mlp is not for data of kind npz" in refusal("train", cell)


def test_a_damaged_mnist_file_is_named_with_its_remedy(tmp_path: Path) -> None:
    raw = tmp_path / "data" / "MNIST" / "raw"
    raw.mkdir(parents=True)
    for name in ("train-images-idx3-ubyte", "t10k-images-idx3-ubyte"):
        (raw / name).write_bytes(b"\0\0\x08\x03" + bytes(100))
    settings = ImageSettings(kind="mnist").canonical()
    output = tmp_path / "mnist.json"
    message = refusal("fetch", "--settings", settings, "--data-dir", tmp_path / "data", "--output", output)
    assert f"{raw / 'train-images-idx3-ubyte'} is not the original file" in message
    assert "Delete" in message
    assert not output.exists()


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
        ("train", train_verb, "train", "datasets.mine.training.batch = 4"),
        ("bpd", verb, "ode_likelihood", "bpd.batch = 100"),
        ("image-elbo", elbo_verb, "image_elbo", "image_elbo.batch = 256"),
        ("image-samples", samples_verb, "reverse_sde", "image_samples.images = 64"),
    ],
)
def test_a_lack_of_memory_names_the_setting_to_change(
    cell: Path, monkeypatch: pytest.MonkeyPatch, name: str, module, function: str, setting: str, lack
) -> None:
    monkeypatch.setattr(module, function, lack)
    before = contents(cell.parent)
    message = refusal(name, cell, *([] if name == "train" else BOTH))
    assert message == f"Memory does not suffice with {setting}. Set {setting.split(' =')[0]} to less."
    assert contents(cell.parent) == before


def test_another_error_of_pytorch_keeps_its_traceback(cell: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def broken(*_: Any, **__: Any) -> None:
        raise RuntimeError("mat1 and mat2 shapes cannot be multiplied")

    monkeypatch.setattr(verb, "ode_likelihood", broken)
    assert isinstance(call("bpd", cell, *BOTH).exception, RuntimeError)


def test_every_table_of_images_is_written_by_a_verb() -> None:
    written = {table for names in OUTPUTS.values() for table in names}
    assert {name for name in TABLES if name.startswith(("bpd", "image_"))} <= written


# Which images


def test_the_test_images_that_are_measured_are_of_all_classes_and_nested() -> None:
    """mnist5k is sorted by digit, 100 test images each: the first 64 would all be zeros."""
    images = mnist5k()
    few, more = measured_images(images, 64), measured_images(images, 256)
    digits = more.div(100, rounding_mode="floor").bincount(minlength=10)
    assert digits.min() > 10
    assert set(few.tolist()) < set(more.tolist())
    assert measured_images(images, None).tolist() == list(range(1000))


def test_weights_of_other_images_are_refused(cell: Path) -> None:
    path = Path(json.loads(cell.read_text())["data"]["path"])
    before = path.read_bytes()
    arrays = dict(np.load(path))
    try:
        np.savez(path, **(arrays | {"train": 255 - arrays["train"]}))
        assert "on other images" in refusal("bpd", cell, *BOTH, "--settings", json.dumps(QUICK["bpd"]))
    finally:
        path.write_bytes(before)
