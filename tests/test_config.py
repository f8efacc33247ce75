"""Settings: every fault is told at once and in plain words; a cell is named by what determines its weights."""

from __future__ import annotations

import itertools
import json
import math
import os
import re
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path
from shutil import copy as copy_file
from shutil import copytree, rmtree
from typing import Any

import jsonschema
import pytest
import yaml
from pydantic import BaseModel
from snakemake.utils import update_config
from typer.testing import CliRunner

from difftime.cli import app
from difftime.study.settings import (
    FIGURE_TABLE,
    MEASURED_BY,
    BadSettings,
    Block,
    Cell,
    ElboSettings,
    FigureSettings,
    Grid,
    LikelihoodSettings,
    OptimumSettings,
    SampleSettings,
    Study,
    cell_name,
    parse,
    read_cell,
    read_study,
    refuse_repeated_keys,
)

ROOT = Path(__file__).parents[1]
CONFIGS = [ROOT / "config.yaml", *sorted((ROOT / "config").glob("*.yaml"))]
SCHEMA = ROOT / "workflow" / "schemas" / "config.schema.json"
GONE = object()
"""As a change: take the key away."""


@pytest.fixture(autouse=True)
def _elsewhere(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A relative results folder is looked for where the test writes."""
    monkeypatch.chdir(tmp_path)


def settings(path: Path = ROOT / "config.yaml", changes: dict[str, Any] | None = None) -> dict[str, Any]:
    """config.yaml with the file at `path` merged over it as Snakemake does, and changes by place, e.g. study[0].T."""
    merged = yaml.safe_load((ROOT / "config.yaml").read_text())
    update_config(merged, yaml.safe_load(path.read_text()))
    for place, value in (changes or {}).items():
        *around, last = [int(part) if part.isdigit() else part for part in re.findall(r"[^.\[\]]+", place)]
        inner: Any = merged
        for part in around:
            inner = inner[part] if isinstance(inner, list) else inner.setdefault(part, {})
        if value is GONE:
            del inner[last]
        else:
            inner[last] = value
    return merged


def study(**changes: Any) -> Study:
    return read_study(settings(changes=changes.pop("changes", None)), "test")


def faults(values: Any) -> list[str]:
    """The lines of the message that these settings are refused with."""
    with pytest.raises(BadSettings) as error:
        read_study(values, "The configuration")
    first, *lines = str(error.value).splitlines()
    assert first == f"The configuration has {'a fault' if len(lines) == 1 else f'{len(lines)} faults'}:"
    assert all(line.startswith("  - ") for line in lines)
    return [line.removeprefix("  - ") for line in lines]


TOY = {"weights": [0.3, 0.7], "means": [1.0, 3.0], "stds": [0.1, 0.5]}
PLANE = {"datasets.toy.means": [[0.0, 1.0], [2.0, 3.0]], "datasets.toy.stds": GONE}
"""The toy's means in two dimensions."""
SQUARE = [[0.2, 0.1], [0.1, 0.2]]


def refining(tolerance: float = 0.1, cells: int = 16) -> dict[str, Any]:
    return {"study[0].refine": {"tolerance": tolerance, "cells": cells}}


FAULTY: dict[str, tuple[dict[str, Any], list[tuple[str, ...]]]] = {
    # keys
    "unknown key": ({"colour": "red"}, [("colour:", "no such key", "known here are results, seed, datasets")]),
    "misspelt key": ({"resuls": "out"}, [("resuls:", "did you mean results?", "'out'")]),
    "misspelt key of a measurement": ({"elbo.time_step": 9}, [("elbo.time_step:", "did you mean time_steps?")]),
    "misspelt key of a data set's training": (
        {"datasets.toy.training.learning_rte": 1e-3},
        [("datasets.toy.training.learning_rte:", "did you mean learning_rate?", "0.001")],
    ),
    "misspelt key of a network's training": (
        {"nets.mlp-32x2.training": {"learning_rte": 1e-3}},
        [("nets.mlp-32x2.training.learning_rte:", "did you mean learning_rate?", "0.001")],
    ),
    "misspelt key of an SDE": ({"sdes.vp.beta_mni": 1}, [("sdes.vp.beta_mni:", "did you mean beta_min?", "1")]),
    "misspelt key of a block": ({"study[0].mesure": "elbo"}, [("study[0].mesure:", "did you mean measure?")]),
    "misspelt key that is needed": (
        {"datasets.toy.weights": GONE, "datasets.toy.weigths": [0.3, 0.7]},
        [("datasets.toy.weights:", "missing"), ("datasets.toy.weigths:", "did you mean weights?")],
    ),
    "missing grid": ({"study": GONE}, [("study:", "is missing")]),
    # diffusion times
    "T below epsilon": ({"study[0].T[0]": 1e-6}, [("study[0].T[0]:", "above the epsilon = 1e-05 of sde vp", "1e-06")]),
    "T equal to epsilon": (
        {"sdes.ve.epsilon": 0.05},
        [("study[0].T[0]:", "above the epsilon = 0.05 of sde ve", "0.05")],
    ),
    "T not a number": ({"study[0].T[1]": "long"}, [("study[0].T[1]:", "must be a number", "'long'")]),
    "T that is nan": ({"study[0].T[1]": math.nan}, [("study[0].T[1]:", "must be a finite number", "nan")]),
    "T that is infinite": ({"study[0].T[1]": math.inf}, [("study[0].T[1]:", "must be a finite number", "inf")]),
    "T that is yes": ({"study[0].T[1]": True}, [("study[0].T[1]:", "must be a number, not yes or no", "True")]),
    "T that is a list": ({"study[0].T[1]": [0.1]}, [("study[0].T[1]:", "must be a number", "[0.1]")]),
    "T of zero": ({"study[0].T[1]": 0}, [("study[0].T[1]:", "must be greater than 0", "found: 0")]),
    "negative T": ({"study[0].T[1]": -0.5}, [("study[0].T[1]:", "must be greater than 0", "-0.5")]),
    "T left empty": ({"study[0].T": None}, [("study[0].T[0]:", "must be a number", "nothing")]),
    "no T at all": ({"study[0].T": []}, [("study[0].T:", "must not be empty", "[]")]),
    "duplicate T": ({"study[0].T[1]": 0.05}, [("study[0].T[1]:", "listed twice", "0.05")]),
    "duplicate T as 1 and 1.0": ({"study[0].T[0]": 1}, [("study[0].T[10]:", "listed twice", "1.0")]),
    "T that folders cannot tell apart": (
        {"study[0].T[0]": 0.1234567, "study[0].T[1]": 0.1234568},
        [("study[0].T[0]:", "six digits", "write 0.123457", "0.1234567"), ("study[0].T[1]:", "six digits")],
    ),
    "several faults in one list of T": (
        {"study[0].T[0]": "x", "study[0].T[1]": -1, "study[0].T[2]": 1e-7, "study[0].T[3]": 0.4},
        [
            ("study[0].T[0]:", "number"), ("study[0].T[1]:", "greater than 0"),
            ("study[0].T[2]:", "epsilon"), ("study[0].T[4]:", "twice"),
        ],
    ),
    # the grid
    "unknown dataset": ({"study[0].dataset": "tyo"}, [("study[0].dataset[0]:", "defined are toy", "'tyo'")]),
    "unknown SDE": ({"study[1].sde": ["vp", "sub-vp"]}, [("study[1].sde[1]:", "defined are vp, ve", "'sub-vp'")]),
    "unknown net": (
        {"study[1].net[0]": "mlp-8x8"},
        [("study[1].net[0]:", "defined are mlp-16x1, mlp-32x2, mlp-64x3", "'mlp-8x8'")],
    ),
    "duplicate dataset": ({"study[0].dataset": ["toy", "toy"]}, [("study[0].dataset[1]:", "listed twice", "'toy'")]),
    "unknown measurement": (
        {"study[0].measure": "fid"},
        [("study[0].measure[0]:", "must be 'elbo', 'likelihood' or 'samples'", "'fid'")],
    ),
    "the same cell in two blocks": (
        {"study[1].net": "mlp-32x2", "study[1].T": [0.6, 0.65], "figures.draw": []},
        [("study[1]:", "cells of an earlier block", "dataset=toy/sde=vp/net=mlp-32x2/T=0.6")],
    ),
    "empty grid": ({"study": []}, [("study:", "must not be empty", "[]")]),
    "grid that is no list": ({"study": {"dataset": "toy"}}, [("study:", "must be a list")]),
    "block that is no block": ({"study[1]": "toy"}, [("study[1]:", "must be keys and their values", "'toy'")]),
    # data sets
    "zero seeds": ({"datasets.toy.seeds": 0}, [("datasets.toy.seeds:", "must be at least 1", "found: 0")]),
    "half a seed": ({"datasets.toy.seeds": 2.5}, [("datasets.toy.seeds:", "must be a whole number", "2.5")]),
    "seeds that are yes": ({"datasets.toy.seeds": True}, [("datasets.toy.seeds:", "must be a number, not yes or no")]),
    "negative training points": ({"datasets.toy.samples": -5}, [("datasets.toy.samples:", "at least 1", "-5")]),
    "weights not summing to 1": (
        {"datasets.toy.weights": [0.3, 0.6]},
        [("datasets.toy.weights:", "must sum to 1, but sum to 0.9", "[0.3, 0.6]")],
    ),
    "weights nearly summing to 1": (
        {"datasets.toy.weights": [0.3, 0.7000001]},
        [("datasets.toy.weights:", "must sum to 1, but sum to 1.0000001")],
    ),
    "negative weight": (
        {"datasets.toy.weights": [-0.3, 1.3]},
        [("datasets.toy.weights[0]:", "must be greater than 0", "-0.3")],
    ),
    "no weights": (
        {"datasets.toy.weights": []},
        [("datasets.toy.weights:", "must not be empty", "[]")],
    ),
    "negative standard deviation": (
        {"datasets.toy.stds": [0.1, -0.5]},
        [("datasets.toy.stds[1][0]:", "must be greater than 0", "-0.5")],
    ),
    "weights and a standard deviation at once": (
        {"datasets.toy.weights": [0.3, 0.8], "datasets.toy.stds": [0.0, 0.5]},
        [("datasets.toy.weights:", "sum to 1.1"), ("datasets.toy.stds[0][0]:", "greater than 0")],
    ),
    "too few means": (
        {"datasets.toy.means": [1.0]},
        [("datasets.toy.means:", "one for each of the 2 weights, but are 1", "[1.0]")],
    ),
    "too many standard deviations": (
        {"datasets.toy.stds": [0.1, 0.5, 0.5]},
        [("datasets.toy.stds:", "one for each of the 2 weights, but are 3")],
    ),
    "means of mixed length": (
        {"datasets.toy.means": [1.0, [1.0, 2.0]]},
        [("datasets.toy.means:", "all be numbers, or all be lists of the same length", "[1.0, [1.0, 2.0]]")],
    ),
    "mean that is nan": (
        {"datasets.toy.means": [1.0, math.nan]},
        [("datasets.toy.means[1][0]:", "must be a finite number", "nan")],
    ),
    "standard deviations longer than the means": (
        {"datasets.toy.stds": [[0.1, 0.2], 0.5]},
        [("datasets.toy.stds:", "one number or 1 numbers", "[[0.1, 0.2], 0.5]")],
    ),
    "neither standard deviations nor covariances": (
        {"datasets.toy.stds": GONE},
        [("datasets.toy.covariances:", "give either stds or covariances, and only one", "nothing")],
    ),
    "both standard deviations and covariances": (
        {"datasets.toy.covariances": [[[0.1]], [[0.2]]]},
        [("datasets.toy.covariances:", "give either stds or covariances, and only one", "[[[0.1]], [[0.2]]]")],
    ),
    "covariance that is not symmetric": (
        PLANE | {"datasets.toy.covariances": [SQUARE, [[1.0, 0.0], [0.1, 1.0]]]},
        [("datasets.toy.covariances[1]:", "must be symmetric", "[[1.0, 0.0], [0.1, 1.0]]")],
    ),
    "covariance that is not positive definite": (
        PLANE | {"datasets.toy.covariances": [[[1.0, 2.0], [2.0, 1.0]], SQUARE]},
        [("datasets.toy.covariances[0]:", "must be positive definite", "[[1.0, 2.0], [2.0, 1.0]]")],
    ),
    "covariance that is not square": (
        PLANE | {"datasets.toy.covariances": [SQUARE, [[1.0, 0.0]]]},
        [("datasets.toy.covariances[1]:", "must be a square matrix", "[[1.0, 0.0]]")],
    ),
    "covariances smaller than the means": (
        PLANE | {"datasets.toy.covariances": [[[1.0]], [[1.0]]]},
        [("datasets.toy.covariances:", "a 2 × 2 matrix, as the means have 2 coordinates")],
    ),
    "unknown kind of data": (
        {"datasets.toy.kind": "mnits"},
        [("datasets.toy:", "kind must be 'mixture', 'mnist', 'cifar10', 'mnist5k', 'folder', 'npz'", "'mnits'")],
    ),
    "no data sets": (
        {"datasets": {}},
        [
            ("datasets:", "must not be empty"),
            ("study[0].dataset[0]:", "no dataset has this name"), ("study[1].dataset[0]:", "no dataset has this name"),
            ("study[2].dataset[0]:", "no dataset has this name"),
        ],
    ),
    "data sets that are a list": ({"datasets": ["toy"]}, [("datasets:", "must be keys and their values", "['toy']")]),
    "name with a slash": ({"datasets.a/b": TOY}, [("datasets.a/b:", "a name begins with", "'a/b'")]),
    "name with an equals sign": ({"sdes.a=b": {"kind": "vp"}}, [("sdes.a=b:", "a name begins with", "'a=b'")]),
    "name with a space": ({"nets.a b": {"width": 4}}, [("nets.a b:", "a name begins with", "'a b'")]),
    # SDEs
    "negative beta": ({"sdes.vp.beta_min": -0.1}, [("sdes.vp.beta_min:", "must be greater than 0", "-0.1")]),
    "beta_max below beta_min": (
        {"sdes.vp.beta_max": 0.05},
        [("sdes.vp.beta_max:", "must not be below beta_min = 0.1", "0.05")],
    ),
    "beta_max left at a default below beta_min": (
        {"sdes.vp": {"kind": "vp", "beta_min": 30}},
        [("sdes.vp.beta_max:", "must not be below beta_min = 30", "20.0")],
    ),
    "sigma_max equal to sigma_min": (
        {"sdes.ve": {"kind": "ve-geometric", "sigma_min": 2, "sigma_max": 2}},
        [("sdes.ve.sigma_max:", "must be above sigma_min = 2", "found: 2")],
    ),
    "base of 1": ({"sdes.ve.base": 1}, [("sdes.ve.base:", "must be greater than 1", "found: 1")]),
    "epsilon of zero": ({"sdes.vp.epsilon": 0}, [("sdes.vp.epsilon:", "must be greater than 0", "found: 0")]),
    "unknown kind of SDE": (
        {"sdes.vp": {"kind": "vpp"}},
        [("sdes.vp:", "kind must be 'vp', 'sub-vp', 've-exponential', 've-geometric'", "'vpp'")],
    ),
    "SDE without a kind": (
        {"sdes.vp": {"beta_min": 1}},
        [("sdes.vp:", "has no kind; it must be vp, sub-vp, ve-exponential, ve-geometric")],
    ),
    "key of another SDE": ({"sdes.vp.base": 25}, [("sdes.vp.base:", "known here are epsilon, beta_min, beta_max, kind")]),
    "SDE that is a number": ({"sdes.vp": 3}, [("sdes.vp:", "must be keys and their values", "3")]),
    # networks and training
    "unknown kind of network": (
        {"nets.mlp-32x2.kind": "unet"},
        [("nets.mlp-32x2:", "kind must be 'mlp', 'ncsnpp'", "'unet'")],
    ),
    "network of no width": ({"nets.mlp-32x2.width": 0}, [("nets.mlp-32x2.width:", "must be at least 1")]),
    "unknown activation": (
        {"nets.mlp-32x2.activation": "swish"},
        [("nets.mlp-32x2.activation:", "'silu', 'tanh', 'relu' or 'gelu'", "'swish'")],
    ),
    "ema of 1": ({"datasets.toy.training.ema": 1}, [("datasets.toy.training.ema:", "must be less than 1", "found: 1")]),
    "no training steps": ({"datasets.toy.training.steps": 0}, [("datasets.toy.training.steps:", "at least 1", "0")]),
    "negative training steps of a network": (
        {"nets.mlp-16x1.training": {"steps": -3}},
        [("nets.mlp-16x1.training.steps:", "at least 1", "-3")],
    ),
    "learning rate in words": (
        {"datasets.toy.training.learning_rate": "small"},
        [("datasets.toy.training.learning_rate:", "must be a number", "'small'")],
    ),
    "training left empty": (
        {"datasets.toy.training": None},
        [("datasets.toy.training:", "must be keys and their values", "nothing")],
    ),
    # measurements
    "rtol below what the solver takes": (
        {"likelihood.rtol": 1e-14},
        [("likelihood.rtol:", "must be at least 1e-13", "1e-14")],
    ),
    "too few evaluations for a step": (
        {"samples.max_evaluations": 7},
        [("samples.max_evaluations:", "must be at least 8", "7")],
    ),
    "too few cells for a density": ({"likelihood.grid_cells": 15}, [("likelihood.grid_cells:", "at least 16", "15")]),
    "one resample, which has no standard error": ({"optimum.resamples": 1}, [("optimum.resamples:", "at least 2")]),
    "certainty": ({"optimum.confidence": 1}, [("optimum.confidence:", "must be less than 1", "found: 1")]),
    "misspelt p_noise": (
        {"p_noise": ["standrad"]},
        [("p_noise[0]:", "must be 'standard', 'matched', 'full', 'mixture' or 'flow'", "'standrad'")],
    ),
    "duplicate p_noise": ({"p_noise": ["matched", "matched"], "figures.draw": []}, [("p_noise[1]:", "twice")]),
    "negative seed": ({"seed": -1}, [("seed:", "must be at least 0", "-1")]),
    "never a resume state": ({"checkpoint_minutes": 0}, [("checkpoint_minutes:", "must be greater than 0")]),
    # images
    "path of a kind that has its own": (
        {"datasets.mnist5k.path": "pictures"},
        [("datasets.mnist5k:", "images of kind mnist5k have no path")],
    ),
    "path, channels and share of a kind that has its own": (
        {"datasets.mnist5k": {"kind": "cifar10", "path": "x", "channels": 3, "test_share": 0.1}},
        [("datasets.mnist5k:", "images of kind cifar10 have no path and no channels and no test_share")],
    ),
    "folder without a path": (
        {"datasets.mnist5k": {"kind": "folder"}},
        [("datasets.mnist5k:", "images of kind folder need a path")],
    ),
    "npz without a path": (
        {"datasets.mnist5k": {"kind": "npz", "test_share": 0.1}},
        [("datasets.mnist5k:", "images of kind npz need a path")],
    ),
    "two channels": (
        {"datasets.mnist5k": {"kind": "npz", "path": "x.npz", "channels": 2}},
        [("datasets.mnist5k.channels:", "must be 1 or 3", "2")],
    ),
    "all images held out": (
        {"datasets.mnist5k": {"kind": "npz", "path": "x.npz", "test_share": 1}},
        [("datasets.mnist5k.test_share:", "must be less than 1", "1")],
    ),
    "flip that is no yes or no": (
        {"datasets.mnist5k.flip": "sometimes"},
        [("datasets.mnist5k.flip:", "must be yes or no", "'sometimes'")],
    ),
    "GPUs that do not divide the batch": (
        {"datasets.mnist5k.gpu": 3},
        [("study[2]:", "mnist5k and unet-16 train with batches of 16, which its gpu = 3 do not divide", "mnist5k")],
    ),
    "GPUs that do not divide the network's own batch": (
        {"datasets.mnist5k.gpu": 2, "nets.unet-16.training": {"batch": 9}},
        [("study[2]:", "train with batches of 9, which its gpu = 2 do not divide", "unet-16")],
    ),
    "half a GPU": ({"datasets.mnist5k.gpu": 0.5}, [("datasets.mnist5k.gpu:", "must be a whole number", "0.5")]),
    "key of a mixture": (
        {"datasets.mnist5k.samples": 9},
        [("datasets.mnist5k.samples:", "no such key", "known here are kind, path")],
    ),
    "misspelt key of images' training": (
        {"datasets.mnist5k.training.stesp": 9},
        [("datasets.mnist5k.training.stesp:", "did you mean steps?", "9")],
    ),
    "data of an unknown kind with a network of a known one": (
        {"datasets.mnist5k.kind": "minst"},
        [("datasets.mnist5k:", "kind must be 'mixture', 'mnist', 'cifar10', 'mnist5k', 'folder', 'npz'", "'minst'")],
    ),
    "kind that is a list": (
        {"datasets.mnist5k.kind": ["mnist"]},
        [("datasets.mnist5k:", "kind must be 'mixture', 'mnist'")],
    ),
    "network for images on a mixture": (
        {"study[0].net": ["mlp-32x2", "unet-16"]},
        [("study[0].net[1]:", "kind mlp is for mixtures, one of kind ncsnpp for images", "'unet-16'")],
    ),
    "network for vectors on images": (
        {"study[2].net": "mlp-32x2"},
        [("study[2].net[0]:", "kind mlp is for mixtures, one of kind ncsnpp for images", "'mlp-32x2'")],
    ),
    "images and a mixture in one block": (
        {"study[2].dataset": ["mnist5k", "toy"]},
        [("study[2].net[0]:", "use a block for each", "'unet-16'")],
    ),
    "blocks of no residual block": ({"nets.unet-16.blocks": 0}, [("nets.unet-16.blocks:", "must be at least 1")]),
    "a frequency that float32 cannot hold": (
        {"nets.unet-16.fourier": [4, 17]}, [("nets.unet-16.fourier[1]:", "at most 16", "17")],
    ),
    "frequencies that are no list": ({"nets.unet-16.fourier": 4}, [("nets.unet-16.fourier:", "must be a list", "4")]),
    "an optimiser that is not known": (
        {"datasets.toy.training.optimiser": "sgd"}, [("datasets.toy.training.optimiser:", "'adam' or 'muon'", "sgd")],
    ),
    "a prior that is no switch": (
        {"nets.unet-16.pixel_prior": "grey"}, [("nets.unet-16.pixel_prior:", "must be yes or no", "grey")],
    ),
    "a prior of pixels for vectors": ({"nets.mlp-32x2.pixel_prior": True}, [("nets.mlp-32x2.pixel_prior:", "")]),
    "a decay that is not known": (
        {"datasets.toy.training.decay": "linear"}, [("datasets.toy.training.decay:", "'none' or 'cosine'", "linear")],
    ),
    "no level": ({"nets.unet-16.multipliers": []}, [("nets.unet-16.multipliers:", "must not be empty", "[]")]),
    "dropout of everything": ({"nets.unet-16.dropout": 1}, [("nets.unet-16.dropout:", "must be less than 1", "1")]),
    "precision of other devices": (
        {"nets.unet-16.precision": "float16"},
        [("nets.unet-16.precision:", "must be 'float32' or 'bfloat16'", "'float16'")],
    ),
    "key of the other network": ({"nets.unet-16.depth": 3}, [("nets.unet-16.depth:", "no such key")]),
    "no test image": ({"bpd.images": 0}, [("bpd.images:", "must be at least 1", "0")]),
    "figures of images where there are none": (
        {"study": [{"dataset": "toy", "sde": "vp", "net": "mlp-32x2", "T": [0.5, 0.8, 1, 2]}],
         "figures.draw": ["table1", "fig1", "images", "learning"]},
        [
            ("figures.draw[0]:", "table1 shows 'elbo' of images, which no cell measures", "'table1'"),
            ("figures.draw[2]:", "images shows 'samples' of images", "'images'"),
            ("figures.draw[3]:", "learning shows 'training' of images", "'learning'"),
        ],
    ),
    "figures of images that are measured otherwise": (
        {"study[2].measure": "elbo"},
        [
            ("figures.draw[8]:", "table1 shows 'likelihood' of images, which no cell measures"),
            ("figures.draw[9]:", "table2 shows 'likelihood' of images"),
            ("figures.draw[10]:", "images shows 'samples' of images"),
        ],
    ),
    "an ELBO asked for before epsilon": (
        {"sdes.vp.epsilon": 0.004, "scout.times": 40},
        [("scout.times:", "asks toy vp mlp-32x2 for the ELBO at 0.00125, which is not above its epsilon, 0.004")],
    ),
    # figures
    "images from a start that they have not": (
        {"datasets.mnist5k.p_noise": ["matched", "full"], "figures.draw": ["images"]},
        [("figures.p_noise:", "images shows images from it, which start from matched, full", "'standard'")],
    ),
    "sensitivity of data that nobody measures": (
        {"figures.draw": ["sensitivity"], "figures.dataset": "nope"},
        [("figures.dataset:", "sensitivity shows 'elbo' of this dataset, which no cell measures", "'nope'")],
    ),
    "unknown figure": ({"figures.draw": ["fig1", "fig5"]}, [("figures.draw[1]:", "must be 'fig1', 'fig2'", "'fig5'")]),
    "quality against a cost that nobody measures": (
        {"study": [{"dataset": "toy", "sde": "vp", "net": "mlp-32x2", "T": 0.5, "measure": "elbo"}],
         "figures.draw": ["tradeoff"]},
        [("figures.draw[0]:", "some cell must measure likelihood or samples", "'tradeoff'")],
    ),
    "figure of a network outside the study": (
        {"figures.net": "mlp-8x8"},
        [("figures.net:", "fig1 shows 'samples' of dataset toy with this net, which no cell measures", "'mlp-8x8'")],
    ),
    "figure of a measurement that is not made": (
        {"study[0].measure": ["elbo", "likelihood"]},
        [("figures.net:", "fig1 shows 'samples'", "which no cell measures", "'mlp-32x2'")],
    ),
    "capacity outside the study": (
        {"figures.capacities": ["mlp-16x1", "mlp-8x8"]},
        [("figures.capacities[1]:", "fig3 shows 'elbo'", "'mlp-8x8'")],
    ),
    "a figure of lines that are not scouted": (
        {"scout.cells": 5},
        [("figures.draw[7]:", "scout shows dataset toy and net mlp-32x2", "3 times as many T", "'scout'")],
    ),
    # cells that a study adds
    "refining one T": (
        {**refining(), "study[0].T": 0.6, "figures.draw": []}, [("study[0].refine:", "two T at least", "(0.6,)")],
    ),
    "refining without an ELBO": (
        {**refining(), "study[0].measure": "samples", "figures.draw": []},
        [("study[0].refine:", "needs 'elbo'", "('samples',)")],
    ),
    "no tolerance and no budget": (
        refining(tolerance=0, cells=1),
        [("study[0].refine.tolerance:", "greater than 0"), ("study[0].refine.cells:", "at least 2")],
    ),
    "a budget below the number of T": (refining(cells=13), [("study[0].refine.cells:", "at least 14", "13")]),
    "a tolerance that all T are within": (
        refining(tolerance=1.95), [("study[0].refine.tolerance:", "less than 1.95", "1.95")],
    ),
    "a refined line in two blocks": (
        {**refining(), "study[1].net": "mlp-32x2", "study[1].T": [0.15], "figures.draw": []},
        [("study[0].refine: toy vp mlp-32x2 is a line of another block", "'toy vp mlp-32x2'"),
         ("study[0].refine: toy ve mlp-32x2 is a line of another block", "'toy ve mlp-32x2'")],
    ),
    "refining images": (
        {"study[2].refine": {"tolerance": 0.1, "cells": 5}},
        [("study[2].refine: mnist5k vp unet-16 is of images",), ("study[2].refine: mnist5k vp unet-16 has one seed",)],
    ),
    "refining a single seed with fitted p_noises": (
        {**refining(), "study[0].sde": "vp", "datasets.toy.seeds": 1, "datasets.toy.p_noise": "full",
         "figures.p_noise": "full"},
        [("study[0].refine: toy vp mlp-32x2 has one seed, which tells no interval",),
         ("study[0].refine: toy vp mlp-32x2 needs a p_noise that is not fitted",)],
    ),
    # what a few cells say of the others
    "scouting more times than a model is asked for, and only under fitted p_noises": (
        {"scout.times": 39, "datasets.toy.p_noise": "full", "figures.draw": []},
        [(f"scout.{text} toy {sde} mlp-32x2", found) for sde in ("vp", "ve")
         for text, found in (("times: must be at least 40 for", "39"), ("cells: predicts nothing of", "not fitted"))],
    ),
    "histogram at a T outside the study": (
        {"figures.histogram_T": [0.5, 0.55]},
        [("figures.histogram_T[1]:", "fig4", "taken at 0.05, 0.1, 0.2", "0.55")],
    ),
    "figure of a p_noise outside the study": (
        {"p_noise": "matched"},
        [("figures.p_noise:", "one of the study's p_noise, matched", "'standard'")],
    ),
    # the folder
    "results without a name": ({"results": ""}, [("results:", "must be the path of a folder", "''")]),
    "results with a wildcard": ({"results": "out/{x}"}, [("results:", "without { and }", "'out/{x}'")]),
    "results that are a number": ({"results": 5}, [("results:", "must be text", "5")]),
    "results below a device": (
        {"results": "/dev/null/out"},
        [("results:", "/dev/null is not a folder", "name another one", "'/dev/null/out'")],
    ),
    # several at once
    "one fault in every room": (
        {
            "resuls": "out", "datasets.toy.weights": [1.0, 1.0], "sdes.vp.beta_min": -1, "nets.mlp-16x1.depth": 0,
            "study[0].T[0]": 1e-9, "study[1].dataset": "tyo", "elbo.points": 1, "results": "/dev/null",
        },
        [
            ("resuls:", "did you mean results?"), ("datasets.toy.weights:", "sum to 2"), ("sdes.vp.beta_min:", "-1"),
            ("nets.mlp-16x1.depth:", "at least 1"), ("study[0].T[0]:", "epsilon = 1e-05 of sde vp"),
            ("study[1].dataset[0]:", "defined are toy"), ("elbo.points:", "at least 2"), ("results:", "not a folder"),
        ],
    ),
}  # fmt: skip
JARGON = ("Input", "Value error", "tuple", "dictionary", "instance", "discriminator", "Extra", "[key]", "pydantic")


@pytest.mark.parametrize(("changes", "expected"), FAULTY.values(), ids=FAULTY)
def test_every_fault_is_told_with_its_place_what_was_found_and_what_is_allowed(
    changes: dict[str, Any], expected: list[tuple[str, ...]]
) -> None:
    lines = faults(settings(changes=changes))
    for phrases in expected:
        (told,) = [line for line in lines if line.startswith(phrases[0])]
        assert all(phrase in told for phrase in phrases)
    assert len(lines) == len(expected)
    assert not [word for line in lines for word in JARGON if word in line]


def test_settings_that_are_no_mapping_are_refused() -> None:
    assert faults(["toy"]) == ["must be keys and their values (found: ['toy'])"]


def test_a_long_value_is_quoted_in_part() -> None:
    (line,) = faults(settings(changes={"datasets.toy.means": list(range(1000))}))
    assert "[0, 1, 2, " in line
    assert len(line) < 200


def test_the_results_folder_may_lie_below_folders_that_do_not_exist_yet(tmp_path: Path) -> None:
    place = str(tmp_path / "a" / "b" / "results")
    assert study(changes={"results": place}).results == place
    assert not list(tmp_path.iterdir())


def test_a_file_in_the_place_of_the_results_folder_is_refused(tmp_path: Path) -> None:
    (tmp_path / "taken").write_text("mine")
    for results in ("taken", "taken/below"):
        (line,) = faults(settings(changes={"results": results}))
        assert line == f"results: cannot be made, as taken is not a folder; name another one (found: '{results}')"
    assert (tmp_path / "taken").read_text() == "mine"


def test_a_link_to_nowhere_in_the_place_of_the_results_folder_is_refused(tmp_path: Path) -> None:
    (tmp_path / "link").symlink_to("nowhere")
    (line,) = faults(settings(changes={"results": "link"}))
    assert "link is not a folder" in line


def as_nobody(action: Callable[[], str]) -> str:
    """What `action` returns in a process that may not write everywhere, as the superuser may."""
    reader, writer = os.pipe()
    child = os.fork()
    if child == 0:
        try:
            if os.getuid() == 0:
                os.setgroups([])
                os.setgid(65534)
                os.setuid(65534)
            os.write(writer, action().encode())
        finally:
            os._exit(0)
    os.close(writer)
    with os.fdopen(reader) as told:
        answer = told.read()
    os.waitpid(child, 0)
    return answer


@pytest.fixture
def sealed() -> Iterator[Path]:
    """A folder that everybody may read, and nobody write."""
    place = Path(tempfile.mkdtemp())
    place.chmod(0o555)
    yield place
    place.chmod(0o755)
    rmtree(place)


@pytest.mark.parametrize("below", ["", "results", "a/b"])
def test_a_results_folder_that_cannot_be_written_is_refused_beside_other_faults(sealed: Path, below: str) -> None:
    values = settings(changes={"results": str(sealed / below), "seed": -1})
    writable, seed = as_nobody(lambda: "\n".join(faults(values))).splitlines()
    assert writable.startswith(f"results: cannot be written, as {sealed} is read-only for you; name another folder")
    assert seed.startswith("seed: ")


# What is allowed


@pytest.mark.parametrize("path", CONFIGS, ids=lambda path: path.name)
def test_every_configuration_that_comes_with_the_package_is_valid(path: Path) -> None:
    assert read_study(settings(path), path.name).grid()


def test_the_papers_study_has_the_references_settings() -> None:
    """Those of docs/paper-settings.md; nothing of the default study's own recipe reaches it."""
    paper = read_study(settings(ROOT / "config" / "paper.yaml"), "paper.yaml")
    for keys, _ in paper.grid():
        cell, mnist = paper.cell(**keys), keys["dataset"] == "mnist"
        training = cell.training.model_dump()
        assert training == {
            "weighting": "noise", "time_sampling": "uniform", "optimiser": "adam", "decay": "none", "clip": 1.0,
            "learning_rate": 2e-4, "batch": 128, "ema": 0.9999,
            "steps": 65_000 if mnist else 1_300_000, "warmup": 1000 if mnist else 5000,
        }  # fmt: skip
        network = cell.network
        assert (network.dropout, network.fourier, network.pixel_prior, network.blocks) == (0.1, (), False, 4)
        assert (network.width, network.multipliers) == ((64, (1, 2)) if mnist else (128, (1, 2, 2, 2)))
        assert cell.data.flip is not mnist


@pytest.mark.parametrize("path", CONFIGS, ids=lambda path: path.name)
def test_editors_find_no_fault_in_the_configurations_that_come_with_the_package(path: Path) -> None:
    jsonschema.validate(settings(path), json.loads(SCHEMA.read_text()))


@pytest.mark.parametrize(
    "changes",
    [{"resuls": 1}, {"study[0].T": ["x"]}, {"sdes.vp.beta_min": -1}, {"datasets.toy.seeds": 0}],
)
def test_editors_find_what_is_wrong_in_itself(changes: dict[str, Any]) -> None:
    with pytest.raises(jsonschema.ValidationError):
        jsonschema.validate(settings(changes=changes), json.loads(SCHEMA.read_text()))


def test_the_json_schema_is_in_step_with_the_settings() -> None:
    """`difftime schema > workflow/schemas/config.schema.json` puts it right."""
    assert CliRunner().invoke(app, ["schema"]).stdout == SCHEMA.read_text()


def test_the_only_item_of_a_list_may_stand_without_brackets() -> None:
    bare = {
        "study": [{"dataset": "toy", "sde": "vp", "net": "mlp-32x2", "T": 0.6}],
        "p_noise": "standard",
        "figures": {"draw": "fig4", "capacities": "mlp-32x2", "histogram_T": 0.6},
    }
    listed = {
        "study": [{"dataset": ["toy"], "sde": ["vp"], "net": ["mlp-32x2"], "T": [0.6]}],
        "p_noise": ["standard"],
        "figures": {"draw": ["fig4"], "capacities": ["mlp-32x2"], "histogram_T": [0.6]},
    }
    assert study(changes=bare) == study(changes=listed)


def test_a_number_that_yaml_takes_for_text_is_still_a_number() -> None:
    """YAML 1.1 reads 1e-5, without a point, as text."""
    values = settings()
    values["sdes"]["vp"] = yaml.safe_load("{kind: vp, epsilon: 1e-5}")
    assert isinstance(values["sdes"]["vp"]["epsilon"], str)
    assert read_study(values, "test") == study()


def test_numbers_as_means_and_stds_are_lists_of_one() -> None:
    cell = study().cell("toy", "vp", "mlp-32x2", "0.6")
    assert cell.data.means == ((1.0,), (3.0,))
    assert cell.data.covariance_matrices() == [[[0.1**2]], [[0.5**2]]]


def test_a_standard_deviation_holds_for_every_coordinate() -> None:
    changes = PLANE | {"datasets.toy.stds": [2.0, [1.0, 3.0]]}
    cell = study(changes=changes).cell("toy", "vp", "mlp-32x2", "0.6")
    assert cell.data.covariance_matrices() == [[[4.0, 0.0], [0.0, 4.0]], [[1.0, 0.0], [0.0, 9.0]]]


def test_images_have_training_defaults_of_their_own() -> None:
    changes = {"datasets.mnist5k": {"kind": "mnist5k"}, "nets.unet-16.training": {"steps": 9}}
    own = study(changes=changes).cell("mnist5k", "vp", "unet-16", "0.6").training
    assert (own.weighting, own.batch, own.learning_rate, own.warmup, own.clip) == ("noise", 128, 2e-4, 1000, 1.0)
    assert (own.steps, own.ema) == (9, 0.9999)
    toy = study(changes={"datasets.toy.training": {}}).cell("toy", "vp", "mlp-32x2", "0.6").training
    assert (toy.weighting, toy.batch, toy.warmup, toy.clip) == ("likelihood", 256, 0, None)


def test_the_kind_may_be_left_out_where_it_is_the_usual_one() -> None:
    changes = {"datasets.toy.kind": GONE, "nets.mlp-32x2.kind": GONE}
    assert study(changes=changes).canonical() == study().canonical()


def test_flip_has_one_form_however_it_is_written() -> None:
    written = [study(changes={"datasets.mnist5k.flip": flip}).canonical() for flip in (True, "yes", "on", 1)]
    assert len(set(written)) == 1
    assert study(changes={"datasets.mnist5k.flip": False}).canonical() == study().canonical() != written[0]


def test_images_come_from_a_folder_or_a_file_by_configuration_alone() -> None:
    for data in ({"kind": "folder", "path": "pictures"}, {"kind": "npz", "path": "a.npz", "test_share": 0.2}):
        cell = study(changes={"datasets.mnist5k": data}).cell("mnist5k", "vp", "unet-16", "0.6")
        assert cell.data.model_dump(exclude_defaults=True) == data


def test_figures_of_images_or_of_all_data_do_not_depend_on_the_toys_settings() -> None:
    one, other = FigureSettings(), FigureSettings(dataset="square", net="mlp-8x8", images=3)
    changed = {name for name in FIGURE_TABLE if one.of(name) != other.of(name)}
    assert changed == {*FIGURE_TABLE} - {"table1", "table2", "learning", "tradeoff"}


def test_sampling_needs_no_figure_and_no_figure_needs_the_whole_study() -> None:
    assert study(changes={"study[0].measure": "elbo", "figures.draw": ["fig2", "fig3", "sensitivity"]})
    assert study(changes={"figures.draw": [], "figures.net": "none", "figures.dataset": "none"})


# The grid


def test_the_grid_is_the_product_of_every_block_each_cell_once() -> None:
    first, second, third = (block["T"] for block in settings()["study"])
    wanted = [
        *itertools.product(["toy"], ["vp", "ve"], ["mlp-32x2"], first),
        *itertools.product(["toy"], ["vp", "ve"], ["mlp-16x1", "mlp-64x3"], second),
        *itertools.product(["mnist5k"], ["vp"], ["unet-16"], third),
    ]
    found = [(k["dataset"], k["sde"], k["net"], float(k["T"])) for k, _ in study().grid()]
    assert found == wanted
    assert len(set(found)) == len(found)


@pytest.mark.parametrize("path", CONFIGS, ids=lambda path: path.name)
def test_a_cell_is_found_again_by_its_keys(path: Path) -> None:
    whole = read_study(settings(path), path.name)
    for keys, _ in whole.grid():
        cell = whole.cell(**keys)
        assert cell.keys == keys
        assert cell.name == cell_name(keys)


def test_cells_are_listed_by_the_measurements_of_their_block() -> None:
    whole = study()
    assert parse(Grid, json.loads(whole.cells().canonical()), "cells.json") == whole.cells()
    measured = {table: whole.cells().measured(table) for table in MEASURED_BY}
    toy, capacities, images = ([cell_name(keys) for keys, block in whole.grid() if block == one] for one in whole.study)
    for table in ("likelihood", "samples", "modes", "histogram", "cost"):
        assert measured[table] == toy
    assert measured["elbo"] == [*toy, *capacities]
    for table in ("image_elbo", "bpd", "image_samples", "image_quality", "history"):
        assert measured[table] == images
    assert measured["training"] == [cell_name(keys) for keys, _ in whole.grid()]


def test_the_table_of_runs_has_every_verb_of_every_cell() -> None:
    whole = study().cells()
    parts = whole.parts("runs")
    assert len(parts) == len({*parts})
    for verb in ("elbo", "likelihood", "samples", "image_elbo", "bpd", "image_samples"):
        wanted = [part.replace(f"/{verb}.parquet", f"/run_{verb}.parquet") for part in whole.parts(verb)]
        assert [part for part in parts if part.endswith(f"/run_{verb}.parquet")] == wanted
    assert sum(part.endswith("/run_train.parquet") for part in parts) == len(study().grid())


def test_the_networks_training_wins_over_the_data_sets_where_it_says_something() -> None:
    changes = {
        "datasets.toy.training": {"steps": 100, "batch": 64, "ema": 0.5},
        "nets.mlp-16x1.training": {"steps": 3000, "weighting": "noise"},  # 3000 is also the default
    }
    whole = study(changes=changes)
    own = whole.cell("toy", "vp", "mlp-16x1", "0.6").training
    assert (own.steps, own.weighting, own.batch, own.ema) == (3000, "noise", 64, 0.5)
    other = whole.cell("toy", "vp", "mlp-32x2", "0.6").training
    assert (other.steps, other.weighting, other.batch, other.ema) == (100, "likelihood", 64, 0.5)


# What a cell is named by


def cell(changes: dict[str, Any] | None = None, T: str = "0.6") -> Cell:
    return study(changes=changes).cell("toy", "vp", "mlp-32x2", T)


def rewritten(value: Any) -> Any:
    """The same settings with keys in another order and 1 written as 1.0."""
    if isinstance(value, dict):
        return {key: rewritten(value[key]) for key in reversed(value)}
    if isinstance(value, list):
        return [rewritten(item) for item in value]
    return float(value) if isinstance(value, int) and not isinstance(value, bool) else value


@pytest.mark.parametrize("path", CONFIGS, ids=lambda path: path.name)
def test_the_canonical_text_knows_neither_the_order_of_keys_nor_1_from_1_0(path: Path) -> None:
    one, other = read_study(settings(path), "one"), read_study(rewritten(settings(path)), "other")
    assert one.canonical() == other.canonical()
    assert one.cells().canonical() == other.cells().canonical()
    for keys, _ in one.grid():
        assert one.cell(**keys).canonical() == other.cell(**keys).canonical()


@pytest.mark.parametrize("path", CONFIGS, ids=lambda path: path.name)
def test_a_cell_comes_back_from_its_file_as_it_was(path: Path, tmp_path: Path) -> None:
    whole = read_study(settings(path), path.name)
    for keys, _ in whole.grid():
        before = whole.cell(**keys)
        (tmp_path / "cell.json").write_text(before.canonical() + "\n")
        after = read_cell(tmp_path / "cell.json")
        assert after == before
        assert after.digest() == before.digest()


def test_the_cells_of_a_study_have_digests_of_their_own() -> None:
    whole = study()
    assert len({whole.cell(**keys).digest() for keys, _ in whole.grid()}) == len(whole.grid())


IMAGES_TRAIN = {
    "seed": 1,
    "datasets.mnist5k.kind": "mnist", "datasets.mnist5k": {"kind": "npz", "path": "a.npz"},
    "datasets.mnist5k.flip": True, "datasets.mnist5k.seeds": 2, "datasets.mnist5k.training.steps": 9,
    "sdes.vp.beta_max": 19, "nets.unet-16.width": 32, "nets.unet-16.multipliers": [1, 2, 2], "nets.unet-16.blocks": 2,
    "nets.unet-16.attention": [7], "nets.unet-16.dropout": 0.2, "nets.unet-16.precision": "float32",
    "nets.unet-16.fourier": [3], "nets.unet-16.pixel_prior": False,
    "nets.unet-16.channels_last": False, "nets.unet-16.compile": True, "nets.unet-16.training": {"batch": 9},
}  # fmt: skip
IMAGES_MEASURE = {
    "datasets.mnist5k.gpu": 2, "datasets.mnist5k.threads": 2, "datasets.mnist5k.memory": 9,
    "datasets.mnist5k.minutes": 9, "bpd.rtol": 1e-3, "image_elbo.pairs": 1, "image_samples.images": 1,
    "data_dir": "elsewhere", "study[2].T": [0.6, 0.7],
}  # fmt: skip


@pytest.mark.parametrize("place", [*IMAGES_TRAIN, *IMAGES_MEASURE])
def test_what_determines_the_weights_of_an_image_cell_and_nothing_else_changes_its_digest(place: str) -> None:
    value = (IMAGES_TRAIN | IMAGES_MEASURE)[place]
    one, other = (
        study(changes={"figures.draw": []} | change).cell("mnist5k", "vp", "unet-16", "0.6").digest()
        for change in ({}, {place: value})
    )
    assert (one != other) == (place in IMAGES_TRAIN)


TRAINS = {
    "seed": 1,
    "datasets.toy.weights": [0.4, 0.6], "datasets.toy.means": [1.0, 3.5], "datasets.toy.stds": [0.1, 0.6],
    "datasets.toy.samples": 4096, "datasets.toy.seeds": 4,
    "datasets.toy.training.weighting": "noise", "datasets.toy.training.time_sampling": "lambda",
    "datasets.toy.training.steps": 3001, "datasets.toy.training.batch": 255,
    "datasets.toy.training.learning_rate": 2e-3, "datasets.toy.training.warmup": 5,
    "datasets.toy.training.clip": 1.0, "datasets.toy.training.ema": 0.99, "datasets.toy.training.decay": "cosine",
    "datasets.toy.training.optimiser": "muon",
    "sdes.vp.beta_min": 0.2, "sdes.vp.beta_max": 19, "sdes.vp.epsilon": 1e-4,
    "nets.mlp-32x2.width": 33, "nets.mlp-32x2.depth": 3, "nets.mlp-32x2.activation": "tanh",
    "nets.mlp-32x2.time_features": "fourier", "nets.mlp-32x2.scale_input": True, "nets.mlp-32x2.predicts": "noise",
    "nets.mlp-32x2.training": {"batch": 128},
}  # fmt: skip
MEASURES = {
    "results": "elsewhere", "p_noise": ["matched", "standard"], "checkpoint_minutes": 1, "data_dir": "elsewhere",
    "study[0].T": [0.5, 0.6, 0.8, 1, 2], "study[0].measure": ["samples", "elbo"],
    "datasets.toy.p_noise": ["standard", "full"], "noise.mixture.components": 3, "noise.flow.steps": 9,
    "elbo.time_steps": 80, "elbo.points": 2,
    "scout.cells": 3, "scout.times": 80, "scout.time_steps": 80, "scout.points": 2,
    "likelihood.points": 9, "likelihood.rtol": 1e-6, "likelihood.atol": 1e-6, "likelihood.max_evaluations": 99,
    "likelihood.grid_cells": 99, "likelihood.grid_steps": 99,
    "samples.points": 9, "samples.steps_per_unit_time": 9, "samples.rtol": 1e-6, "samples.atol": 1e-6,
    "samples.max_evaluations": 99, "samples.bins": 9,
    "bpd.images": 9, "bpd.draws": 2, "bpd.batch": 9, "bpd.rtol": 1e-6, "bpd.atol": 1e-6, "bpd.max_evaluations": 99,
    "image_elbo.images": 9, "image_elbo.pairs": 9, "image_elbo.batch": 9,
    "image_samples.images": 9, "image_samples.steps_per_unit_time": 9,
    "optimum.resamples": 9, "optimum.confidence": 0.5,
    "figures.draw": ["fig1"], "figures.dataset": "other", "figures.net": "mlp-64x3",
    "figures.capacities": ["mlp-16x1"], "figures.histogram_T": [0.5], "figures.images": 9, "figures.p_noise": "matched",
    "figures.width": 3, "figures.font_size": 9,
}  # fmt: skip
OTHERS = {
    "datasets.other": TOY, "sdes.ve.base": 24, "sdes.ve.epsilon": 1e-4, "nets.mlp-16x1.width": 17,
    "nets.mlp-64x3.training": {"steps": 9}, "nets.new": {"width": 8},
    "study[1].T": [0.2, 0.7], "study[1].sde": "ve",
}  # fmt: skip


def test_a_key_that_stands_twice_is_refused_with_its_line(tmp_path: Path) -> None:
    path = tmp_path / "twice.yaml"
    path.write_text("results: a\nelbo:\n  points: 3\n  time_steps: 4\n  points: 5\nresults: b\n")
    with pytest.raises(BadSettings) as caught:
        refuse_repeated_keys(path)
    assert str(path) in str(caught.value)
    assert "line 5: points" in str(caught.value)
    assert "line 6: results" in str(caught.value)
    refuse_repeated_keys(ROOT / "config.yaml")


@pytest.mark.parametrize("place", TRAINS)
def test_what_determines_the_weights_changes_the_digest(place: str) -> None:
    assert cell({place: TRAINS[place]}).digest() != cell().digest()


def test_another_time_is_another_digest() -> None:
    assert cell(T="0.5").digest() != cell(T="0.6").digest()


@pytest.mark.parametrize("place", [*MEASURES, *OTHERS])
def test_what_only_measures_or_belongs_to_another_cell_leaves_the_digest_alone(place: str) -> None:
    drawn = {} if place.startswith("figures.d") else {"figures.draw": []}
    changes = drawn | {"figures.draw": []} | {place: (MEASURES | OTHERS)[place]}
    if place == "figures.draw":
        changes["figures.draw"] = MEASURES[place]
    assert settings(changes=changes) != settings(changes={"figures.draw": []})
    assert cell(changes).digest() == cell().digest()


def leaves(model: type[BaseModel], place: str) -> set[str]:
    return {f"{place}.{name}" for name in model.model_fields}


MEASURED_WITH = ("elbo", "scout", "likelihood", "samples", "bpd", "image_elbo", "image_samples", "optimum", "figures")


def test_the_two_lists_above_leave_out_no_setting() -> None:
    whole = study()
    listed = TRAINS.keys() | MEASURES.keys()
    trains = set().union(
        leaves(type(whole.datasets["toy"]), "datasets.toy"),
        leaves(type(whole.datasets["toy"].training), "datasets.toy.training"),
        leaves(type(whole.sdes["vp"]), "sdes.vp"),
        leaves(type(whole.nets["mlp-32x2"]), "nets.mlp-32x2"),
    )
    measures = set().union(*(leaves(type(getattr(whole, name)), name) for name in MEASURED_WITH))
    only_one_choice = {"datasets.toy.kind", "datasets.toy.covariances", "sdes.vp.kind", "nets.mlp-32x2.kind"}
    assert trains - listed - only_one_choice == {"datasets.toy.training"}
    assert measures <= listed
    rooms = {re.split(r"[.\[]", place)[0] for place in listed}
    assert rooms == set(Study.model_fields)


def test_stds_and_the_same_covariances_are_the_same_data_by_another_name() -> None:
    """The digest is of the settings as they stand: it errs towards training again."""
    same = cell({"datasets.toy.stds": GONE, "datasets.toy.covariances": [[[0.1**2]], [[0.5**2]]]})
    assert same.data.covariance_matrices() == cell().data.covariance_matrices()
    assert same.digest() != cell().digest()


def test_a_cells_file_holds_no_setting_of_a_measurement() -> None:
    def keys(value: Any) -> set[str]:
        if isinstance(value, dict):
            return set(value).union(*map(keys, value.values()))
        return set().union(*map(keys, value)) if isinstance(value, list) else set()

    kinds = (ElboSettings, LikelihoodSettings, SampleSettings, OptimumSettings)
    measuring = {name for kind in kinds for name in kind.model_fields} | {"p_noise", "results", "measure"}
    assert keys(json.loads(cell().canonical())) & measuring == set()


def test_a_figure_depends_on_its_own_settings_only() -> None:
    one = FigureSettings()
    other = FigureSettings(capacities=("a",), histogram_T=(0.7,), draw=("fig1",))
    changed = {name for name in ("fig1", "fig2", "fig3", "fig4", "quality", "cost") if one.of(name) != other.of(name)}
    assert changed == {"fig3", "fig4"}
    assert parse(FigureSettings, json.loads(one.of("fig3")), "test").capacities == one.capacities
    assert all(one.of(name) != FigureSettings(width=3).of(name) for name in ("fig1", "fig3", "fig4"))


def test_settings_cannot_be_changed_once_read() -> None:
    with pytest.raises(ValueError, match="frozen"):
        cell().T = 1.0


# cell.json


def damaged(text: str) -> dict[str, str]:
    return {
        "cut short": text[: len(text) // 2],
        "empty": "",
        "not JSON": "T = 0.6",
        "not text": "\udcff\udcfe",
    }


@pytest.mark.parametrize("how", damaged(""))
def test_a_damaged_cell_file_is_named_with_its_remedy(tmp_path: Path, how: str) -> None:
    path = tmp_path / "cell.json"
    path.write_bytes(damaged(cell().canonical())[how].encode(errors="surrogateescape"))
    with pytest.raises(BadSettings) as error:
        read_cell(path)
    assert str(path) in str(error.value)
    assert "Delete it and run Snakemake" in str(error.value)


def test_a_cell_file_with_faults_tells_every_one_by_its_place(tmp_path: Path) -> None:
    path = tmp_path / "cell.json"
    values = json.loads(cell().canonical())
    values["diffusion"]["beta_min"] = -1
    values["data"]["weights"] = [1, 1]
    values["Tt"] = values.pop("T")
    path.write_text(json.dumps(values))
    with pytest.raises(BadSettings) as error:
        read_cell(path)
    first, *lines = str(error.value).splitlines()
    assert first == f"{path} has 4 faults:"
    for place in ("T: is missing", "data.weights: ", "diffusion.beta_min: ", "Tt: no such key"):
        assert any(line.startswith(f"  - {place}") for line in lines)


def test_a_list_of_cells_with_a_fault_is_refused() -> None:
    cells = json.loads(study().cells().canonical())
    cells["study"][0]["T"][0] = -1
    with pytest.raises(
        BadSettings, match=r"the list of cells has a fault:\n  - study\[0\].T\[0\]: must be greater than 0"
    ):
        parse(Grid, cells, "the list of cells")
    assert parse(Block, cells["study"][1], "test") == study().study[1]


# Through Snakemake itself


@pytest.fixture(scope="module")
def project(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A copy of the workflow, with results of its own."""
    place = tmp_path_factory.mktemp("project")
    for name in ("workflow", "config", "profiles"):
        copytree(ROOT / name, place / name)
    for name in ("Snakefile", "config.yaml"):
        copy_file(ROOT / name, place)
    kept = place / "results" / "cells" / "dataset=toy" / "sde=vp" / "net=mlp-32x2" / "T=0.6"
    kept.mkdir(parents=True)
    (kept / "cell.json").write_text("older settings")
    (kept / "weights.safetensors").write_bytes(bytes(range(256)))
    (place / "taken").write_text("a file, not a folder")
    return place


def snapshot(folder: Path) -> dict[str, tuple[int, bytes]]:
    """Every file and folder with its time and content."""
    return {
        str(path.relative_to(folder)): (path.stat().st_mtime_ns, path.read_bytes() if path.is_file() else b"")
        for path in [folder, *folder.rglob("*")]
    }


def dry_run(project: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    """`snakemake -n`, and nothing in results has changed."""
    before = snapshot(project / "results")
    finished = subprocess.run(
        [sys.executable, "-m", "snakemake", "-n", *arguments], cwd=project, capture_output=True, text=True,
        env=os.environ | {"XDG_CACHE_HOME": str(project / "cache")}, check=False, timeout=120,
    )  # fmt: skip
    assert snapshot(project / "results") == before
    return finished


def test_snakemake_plans_the_study_where_there_is_no_fault(project: Path) -> None:
    assert dry_run(project, "--quiet").returncode == 0


BAD_FILES: dict[str, tuple[str, list[str]]] = {
    "unreadable YAML": ("study: [1\n  - {:", ["not valid JSON or YAML"]),
    "two faults at once": (
        "sdes: {vp: {beta_min: -1}}\nelbo: {time_step: 80}\n",
        [
            "The configuration has 2 faults:",
            "  - sdes.vp.beta_min: must be greater than 0 (found: -1)",
            "  - elbo.time_step: no such key; did you mean time_steps? (found: 80)",
        ],
    ),
    "T not above epsilon and an unknown data set": (
        "study:\n  - {dataset: toy, sde: vp, net: mlp-32x2, T: [1.0e-6, 0.5]}\n"
        "  - {dataset: cifar, sde: vp, net: mlp-32x2, T: 0.7}\n",
        [
            "The configuration has 2 faults:",
            "  - study[0].T[0]: must be above the epsilon = 1e-05 of sde vp (found: 1e-06)",
            "  - study[1].dataset[0]: no dataset has this name; defined are toy, mnist5k (found: 'cifar')",
        ],
    ),
    "results that are a file": (
        "results: taken",
        [
            "The configuration has a fault:",
            "  - results: cannot be made, as taken is not a folder; name another one (found: 'taken')",
        ],
    ),
    "a list instead of keys": ("- results\n- study\n", ["with keys at top level"]),
}


@pytest.mark.parametrize(("text", "expected"), BAD_FILES.values(), ids=BAD_FILES)
def test_snakemake_stops_with_one_readable_message_and_touches_nothing(
    project: Path, text: str, expected: list[str]
) -> None:
    (project / "bad.yaml").write_text(text)
    finished = dry_run(project, "--configfile", "bad.yaml")
    output = finished.stdout + finished.stderr
    assert finished.returncode != 0
    assert [output.count(line) for line in expected] == [1] * len(expected)
    assert "Traceback" not in output
    assert (project / "taken").read_text() == "a file, not a folder"
