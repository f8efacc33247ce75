"""A model of diffusers in a study, on the real Snakefile: measured at two T, not trained, seen when it changes."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from clones import STUDY, Clone, clone_of, copy_of
from safetensors.torch import load_file, save_file
from test_models import needs_diffusers, save
from test_pretrained import of_the_library

from difftime.models import load_model
from difftime.tables import parquet

OF_MODEL: dict[str, Any] = STUDY | {
    "datasets": {"pictures": STUDY["datasets"]["pictures"]},
    "nets": {"ddpm": {"kind": "pretrained", "path": "./ddpm"}},
    "study": [
        {"dataset": "pictures", "net": "ddpm", "measure": ["elbo", "likelihood"]},
        {"dataset": "pictures", "net": "ddpm", "T": 0.4, "measure": ["elbo", "likelihood"]},
    ],
}
pytestmark = needs_diffusers
MODEL = "unet/diffusion_pytorch_model.safetensors"


@pytest.fixture(scope="module")
def measured(tmp_path_factory: pytest.TempPathFactory) -> Clone:
    made = clone_of(tmp_path_factory.mktemp("model") / "clone", OF_MODEL)
    save(made.path / "ddpm", pipeline=True)
    made.snakemake("--cores", "2", "tables", f"{made.results.name}/figures/pictures/ddpm/prediction.pdf")
    return made


@pytest.fixture
def clone(measured: Clone, tmp_path: Path) -> Clone:
    return copy_of(measured, tmp_path / "clone")


def cell_of(clone: Clone, T: str) -> Path:
    return clone.results / "cells" / "dataset=pictures" / "sde=of-model" / "net=ddpm" / f"T={T}"


def test_its_tables_are_those_of_a_network_without_training(measured: Clone) -> None:
    tables = measured.results / "tables" / "pictures"
    names = {path.stem for path in tables.glob("*.parquet")}
    assert {"elbo", "curve", "likelihood", "optimum", "table1", "tradeoff", "cheapest", "training", "runs"} <= names
    assert "history" not in names
    frame = parquet.read(tables / "table1.parquet", "table1")
    assert {*zip(frame["T"], frame.p_noise, strict=True)} == {
        (T, p_noise) for T in (1.00338, 0.4) for p_noise in ("standard", "full")
    }
    assert frame.iterations.isna().all()
    assert frame.weighting.isna().all()
    assert (frame.nfe > 0).all()
    assert (frame.against_T == 1.00338).all()
    best = parquet.read(tables / "optimum.parquet", "optimum")
    assert [*zip(best.method, best.trained, strict=True)] == [("curve", "1.00338")] * 2
    assert parquet.read(tables / "summary.parquet", "summary").T_star.notna().all()
    assert {*parquet.read(tables / "runs.parquet", "runs").command} == {"elbo", "likelihood", "noise_full"}
    assert not [*measured.results.rglob("weights.safetensors")]
    suggested = measured.run("difftime", "suggest", measured.results).stdout
    assert suggested.count("of one model, whose running ELBO knows every T") == 2
    assert len([*measured.results.rglob("prediction.pdf")]) == 1


@pytest.mark.parametrize("T", ["1.00338", "0.4"])
def test_its_numbers_are_the_library_s_for_the_same_images_and_draws(measured: Clone, T: str) -> None:
    """The standard p_noise; the cell's images are the two test images of the data set."""
    model = load_model(measured.path / "ddpm")
    expected = of_the_library(model, measured.path / "pictures.npz", float(T), 5, 1, "pictures")[0]
    found = parquet.read(cell_of(measured, T) / "curve_units.parquet", "curve_units").query("p_noise == 'standard'")
    np.testing.assert_allclose(found.elbo_bpd.to_numpy().reshape(5, 2), expected.numpy(), rtol=1e-6)


def test_nothing_is_left_to_do_and_a_touch_changes_that_not(clone: Clone) -> None:
    (clone.path / "ddpm" / MODEL).touch()
    planned = clone.snakemake("--dry-run", "tables")
    assert "Nothing to be done" in planned.stdout + planned.stderr


def test_other_weights_are_measured_anew_and_others_than_planned_are_refused(clone: Clone) -> None:
    path = clone.path / "ddpm" / MODEL
    weights = load_file(path)
    save_file(weights | {"conv_in.bias": weights["conv_in.bias"] + 1}, path, metadata={"format": "pt"})
    planned = clone.planned()
    assert {rule: planned[rule] for rule in ("model", "fit_noise", "elbo", "likelihood", "train", "fetch")} == {
        "model": 2, "fit_noise": 2, "elbo": 2, "likelihood": 2, "train": 0, "fetch": 0,
    }  # fmt: skip
    refused = clone.run("difftime", "elbo", cell_of(clone, "0.4"), check=False)
    assert refused.returncode == 1
    assert "has changed since" in refused.stderr


def test_another_T_of_the_model_is_one_more_cell(clone: Clone) -> None:
    clone.change(study=[*OF_MODEL["study"], {"dataset": "pictures", "net": "ddpm", "T": 0.7, "measure": "elbo"}])
    planned = clone.planned()
    assert {rule: planned[rule] for rule in ("cell", "model", "elbo", "likelihood", "train")} == {
        "cell": 1, "model": 1, "elbo": 1, "likelihood": 0, "train": 0,
    }  # fmt: skip


def test_a_model_of_other_images_is_refused_in_one_message_before_anything_is_measured(clone: Clone) -> None:
    config = clone.path / "ddpm" / "unet" / "config.json"
    config.write_text(json.dumps(json.loads(config.read_text()) | {"sample_size": 16}))
    run = clone.snakemake("--cores", "2", "tables", check=False)
    assert run.returncode != 0
    assert (run.stdout + run.stderr).count("difftime: ddpm was trained on images of 16 × 16 pixels") >= 1
    assert "rule elbo" not in run.stdout + run.stderr


def test_a_T_above_its_own_is_refused_before_any_job(clone: Clone) -> None:
    clone.change(study=[{"dataset": "pictures", "net": "ddpm", "T": 1.5}])
    run = clone.snakemake("--dry-run", check=False)
    assert run.returncode != 0
    assert "is above T = 1.00338, to which ddpm was trained" in run.stdout + run.stderr
