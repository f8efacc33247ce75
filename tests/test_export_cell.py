"""A cell of images as a folder of diffusers: the same samples without difftime, and a card from the study's tables."""

import importlib.util
import json
import math
import subprocess
import sys
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch
from builders import frame
from safetensors.torch import load_file, save_file
from test_export import ALONE
from typer.testing import CliRunner

from difftime.cli import app
from difftime.diffusion.sde import Gaussian
from difftime.measures.few_steps import SOLVERS, level_times
from difftime.models import BadModel, load_model
from difftime.study.cell import WEIGHTS, ImageProblem, build
from difftime.study.commands.export_cell import noise_of
from difftime.study.settings import Cell
from difftime.tables import parquet
from difftime.training.checkpoint import save_weights

pytestmark = pytest.mark.skipif(importlib.util.find_spec("diffusers") is None, reason="needs difftime[models]")

NETWORK = {"kind": "ncsnpp", "width": 8, "multipliers": [1, 2], "blocks": 1, "attention": [4], "dropout": 0.2}
SDES = {
    "vp": {"kind": "vp", "epsilon": 1e-4},
    "sub-vp": {"kind": "sub-vp", "epsilon": 1e-3},
    "ve": {"kind": "ve-exponential", "base": 25.0, "epsilon": 1e-4},
}
SIZE = 8


def trained(results: Path, sde: str = "vp", T: float = 0.6, **network: object) -> tuple[Path, ImageProblem]:
    """The folder of a cell of two models whose weights are all random, the last layers' too."""
    images = np.random.default_rng(0).integers(256, size=(2, 40, SIZE, SIZE), dtype=np.uint8)
    images[images < 100] = 0
    results.mkdir(parents=True, exist_ok=True)
    np.savez(results / "images.npz", train=images[0], test=images[1])
    cell = Cell.model_validate({
        "dataset": "mine", "sde": sde, "net": "unet", "T": T, "seed": 0, "seeds": 2,
        "data": {"kind": "npz", "path": str(results / "images.npz")}, "diffusion": SDES[sde],
        "network": NETWORK | network, "training": {"steps": 1, "batch": 4},
    })  # fmt: skip
    folder = results / "cells" / "dataset=mine" / f"sde={sde}" / "net=unet" / f"T={T:g}"
    folder.mkdir(parents=True)
    (folder / "cell.json").write_text(cell.canonical())
    problem = build(cell)
    generator = torch.Generator().manual_seed(1)
    for parameter in problem.score.net.parameters():
        parameter.data += 0.05 * torch.randn(parameter.shape, generator=generator)
    save_weights(folder / WEIGHTS, problem.score.net.state_dict(), problem.digest)
    problem.load(folder)
    return folder, problem


def call(*arguments: object) -> tuple[int, str, str]:
    result = CliRunner().invoke(app, [str(argument) for argument in arguments], env={"COLUMNS": "200"})
    if result.exception is not None and not isinstance(result.exception, SystemExit):
        raise result.exception
    return result.exit_code, result.stdout, result.stderr


def exported(cell: Path, to: Path, *more: object) -> str:
    code, out, error = call("export", cell, "--to", to, *more)
    assert code == 0, error
    return out


def refusal(*arguments: object) -> str:
    code, out, error = call("export", *arguments)
    assert (code, out) == (1, "")
    return error


@pytest.mark.parametrize(
    ("sde", "p_noise", "network"),
    [
        # at higher frequencies random weights carry rounding of 1e-7 to 1e-2
        ("vp", "full", {"fourier": [0, 1], "pixel_prior": True}),
        ("ve", "matched", {"pixel_prior": True}),
        ("sub-vp", "standard", {"scale_input": True, "bottleneck_attention": False}),
    ],
    ids=[
        "VP, Fourier features and pixel prior",
        "VE, which scales its input",
        "sub-VP with a scaled input, no attention",
    ],
)
def test_an_exported_cell_draws_the_same_samples_without_difftime(
    tmp_path: Path, sde: str, p_noise: str, network: dict
) -> None:
    cell, problem = trained(tmp_path / "results", sde, **network)
    T = 0.45
    exported(cell, tmp_path / "fast", "--T", T, "--p-noise", p_noise, "--seed", 1)
    z = torch.randn(3, problem.d, generator=torch.Generator().manual_seed(1))
    save_file({"z": z.reshape(3, *problem.images.shape)}, tmp_path / "z.safetensors")
    command = [sys.executable, "-c", ALONE, tmp_path / "fast", tmp_path / "z.safetensors", tmp_path / "x.safetensors"]
    ran = subprocess.run([str(part) for part in command], capture_output=True, text=True, cwd=tmp_path, check=False)
    assert ran.returncode == 0, ran.stderr
    assert ran.stdout.strip() == f"({SIZE}, {SIZE})"
    noise = noise_of(problem, T, p_noise)
    factor = noise.variance.flatten().sqrt().diag() if isinstance(noise, Gaussian) else noise.factor
    start = noise.mean.flatten() + z.double() @ factor.T
    times = level_times(problem.sde, T, problem.epsilon, 999)[::111]
    # the folder's x has alpha² + sigma² = 1
    unit = (problem.sde.alpha(times[-1]) ** 2 + problem.sde.variance(times[-1])).sqrt()
    both = start.expand(2, -1, -1)
    for sampler, drawn in load_file(tmp_path / "x.safetensors").items():
        other, ours = SOLVERS[sampler][0](problem.score, problem.sde, both, times)
        found = unit * drawn.flatten(1).double()
        assert torch.allclose(found, ours, rtol=1e-5, atol=1e-5 * ours.abs().max().item())
        assert (other - ours).abs().max() > 0.01


def test_the_start_is_the_cells_own_unless_another_is_given(tmp_path: Path) -> None:
    cell, problem = trained(tmp_path / "results")
    assert "T = 0.6" in exported(cell, tmp_path / "fast")
    settings = json.loads((tmp_path / "fast" / "scheduler" / "scheduler_config.json").read_text())
    betas = torch.tensor(settings["trained_betas"], dtype=torch.float64)
    signal = (1 - betas).cumprod(0)
    T = torch.tensor([problem.epsilon, problem.T], dtype=torch.float64)
    assert torch.allclose(signal[[0, -1]], problem.sde.alpha(T) ** 2, rtol=1e-9)
    levels = ((1 - signal) / signal).log()
    assert torch.allclose(levels.diff(), levels.diff().mean(), rtol=1e-6)


def test_the_card_has_the_numbers_of_the_studys_tables(tmp_path: Path) -> None:
    results = tmp_path / "results"
    cell, _ = trained(results)
    curve = {"dataset": "mine", "sde": "vp", "net": "unet", "p_noise": "full"}
    best = {"method": "trained", "unit": "bits per dimension", "T_star": 0.51, "T_star_low": 0.4, "T_star_high": 0.6}
    row = {"T": 0.6, "elbo_bpd": 1.4, "elbo_bpd_se": 0.02, "bpd": 1.3, "bpd_se": 0.03, "nfe": 281.0, "nfe_sd": 4.0}
    row |= {"against_T": 1.0, "delta_bpd": -0.08, "delta_bpd_se": 0.008, "units": 64.0, "elbo_units": 256.0}
    tables: dict[str, pd.DataFrame] = {
        "optimum": frame("optimum", [curve | best, curve | best | {"sde": "ve", "T_star": 0.1}]),
        "table1": frame("table1", [curve | row, curve | row | {"T": 1.0, "bpd": 9.0}]),
    }
    (results / "tables" / "mine").mkdir(parents=True)
    for name, table in tables.items():
        parquet.save(table, name, results / "tables" / "mine" / f"{name}.parquet")
    exported(cell, tmp_path / "fast")
    card = (tmp_path / "fast" / "README.md").read_text()
    for said in (
        "0.51 [0.4, 0.6]",
        "1.4000 ± 0.0200",
        "1.3000 ± 0.0300",
        "281 ± 4",
        "-0.0800 ± 0.0080",
        "256 test images",
    ):
        assert said in card
    assert "9.0000" not in card
    assert '"width": 8' in card
    assert "| diffusers | " in card
    # the bits are those of the cell's T
    exported(cell, tmp_path / "shorter", "--T", 0.5)
    shorter = (tmp_path / "shorter" / "README.md").read_text()
    assert "0.51 [0.4, 0.6]" in shorter
    assert "1.3000" not in shorter


def test_a_cell_outside_a_study_says_that_nothing_was_measured(tmp_path: Path) -> None:
    cell, _ = trained(tmp_path / "results")
    assert "no measured numbers" in exported(cell, tmp_path / "fast")


def test_what_cannot_be_exported_is_refused_and_nothing_is_written(tmp_path: Path) -> None:
    cell, _ = trained(tmp_path / "results")
    to = tmp_path / "fast"
    for T in (0.7, 1e-4, math.nan):
        assert f"T cannot be {T:g}" in refusal(cell, "--to", to, "--T", T)
    assert "there is no seed 2" in refusal(cell, "--to", to, "--seed", 2)
    assert "Leave out --data" in refusal(cell, "--to", to, "--data", "mnist5k")
    (cell / WEIGHTS).write_bytes((cell / WEIGHTS).read_bytes()[:-100])
    assert WEIGHTS in refusal(cell, "--to", to)
    assert not to.exists()
    assert "Give --data and --T" in refusal(tmp_path, "--to", to)


def test_nothing_is_overwritten(tmp_path: Path) -> None:
    cell, _ = trained(tmp_path / "results")
    (tmp_path / "fast").mkdir()
    assert "exists already" in refusal(cell, "--to", tmp_path / "fast")
    assert sorted(path.name for path in tmp_path.iterdir()) == ["fast", "results"]


@pytest.mark.parametrize("sde", SDES)
def test_an_exported_cell_is_read_back_as_the_same_score(tmp_path: Path, sde: str) -> None:
    """At times between the indices too: the folder names the SDE."""
    cell, problem = trained(tmp_path / "results", sde, pixel_prior=True)
    exported(cell, tmp_path / "fast", "--T", 0.45, "--seed", 1)
    model = load_model(tmp_path / "fast")
    assert (model.sde, model.epsilon, model.T, model.shape) == (problem.sde, problem.epsilon, 0.45, (1, SIZE, SIZE))
    t = torch.tensor([problem.epsilon, 0.0123456, 0.3, 0.45], dtype=torch.float64)
    x = torch.randn(4, problem.d, generator=torch.Generator().manual_seed(2), dtype=torch.float64)
    ours = problem.score(x.expand(2, -1, -1), t.expand(2, -1))[1]
    assert torch.allclose(model.score(x, t), ours, rtol=1e-5, atol=1e-5 * ours.abs().max().item())
    index = model.clock.index(t)
    assert index[0].item() == pytest.approx(0, abs=1e-3)
    assert index[-1].item() == pytest.approx(999, abs=1e-3)


def test_an_exported_cell_that_does_not_name_its_sde_is_refused(tmp_path: Path) -> None:
    cell, _ = trained(tmp_path / "results")
    exported(cell, tmp_path / "fast")
    path = tmp_path / "fast" / "unet" / "config.json"
    settings = json.loads(path.read_text())
    for clock in ({}, {"sde": "os.system", "options": {}, "epsilon": 1e-5, "T": 1}):
        path.write_text(json.dumps(settings | {"clock": clock}))
        with pytest.raises(BadModel, match="does not name the SDE"):
            load_model(tmp_path / "fast")


def test_an_exported_cell_with_a_damaged_scheduler_is_refused(tmp_path: Path) -> None:
    cell, _ = trained(tmp_path / "results")
    exported(cell, tmp_path / "fast")
    path = tmp_path / "fast" / "scheduler" / "scheduler_config.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | {"trained_betas": [2.0, 0.1]}))
    with pytest.raises(BadModel, match="give no noise levels"):
        load_model(tmp_path / "fast")
