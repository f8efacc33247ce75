"""The likelihood of held-out points under one cell's two models: the probability-flow ODE and the reverse SDE."""

from __future__ import annotations

import math
from collections.abc import Sequence
from pathlib import Path

import torch
from torch import Tensor

from difftime.diffusion.sde import Noise
from difftime.measures.density import expected_log_q, reverse_sde_density
from difftime.measures.likelihood import ode_likelihood
from difftime.study.cell import MixtureProblem, p_noises
from difftime.study.commands.common import finite, keys, log, open_mixture
from difftime.study.settings import LikelihoodSettings
from difftime.support.streams import stream
from difftime.tables.schema import write_rows


def _reverse_sde(
    problem: MixtureProblem, noises: Sequence[Noise], settings: LikelihoodSettings
) -> tuple[Tensor, Tensor, Tensor]:
    """E log q under the reverse SDE, its numerical error, and the probability that left the grid, [noises, seeds].

    NaN for data that are not one-dimensional, and, with a warning, where the grid is too coarse for the densities.
    """
    p = problem.density
    unknown = torch.full((len(noises), len(problem.seeds)), torch.nan, dtype=torch.float64)
    if p.d > 1:
        return unknown, unknown, unknown
    try:
        density = reverse_sde_density(
            problem.sde, problem.score, noises, problem.T, problem.epsilon,
            data_mean=p.mean.item(), data_variance=p.variance.item(),
            seeds=len(problem.seeds), cells=settings.grid_cells, steps=settings.grid_steps,
        )  # fmt: skip
        value, error = expected_log_q(density, p.diffused(problem.sde, problem.epsilon).log_prob(density.x[:, None]))
    except ValueError as error:
        log.warning(
            "WARNING: the density of the reverse SDE of %s is left out. %s (In the configuration, `cells` is "
            "likelihood.grid_cells, now %d.)", problem.name, error, settings.grid_cells,
        )  # fmt: skip
        return unknown, unknown, unknown
    return value, error, density.boundary_mass


def run(folder: Path, settings: LikelihoodSettings, p_noise: Sequence[str]) -> None:
    """Read the trained cell in `folder`; write likelihood.parquet."""
    cell, problem = open_mixture(folder)
    start = problem.density.diffused(problem.sde, problem.epsilon)
    x = torch.stack([start.sample(settings.points, stream(seed, "held-out points")) for seed in problem.seeds])
    noises = p_noises(problem, p_noise, folder)
    ode = ode_likelihood(
        problem.score, problem.sde, noises, x, problem.T, problem.epsilon,
        rtol=settings.rtol, atol=settings.atol, max_evaluations=settings.max_evaluations,
    )  # fmt: skip
    sde, sde_error, lost = _reverse_sde(problem, noises, settings)
    log_p = start.log_prob(x).mean(1)
    rows = [
        keys(cell) | {
            "seed": seed, "p_noise": name,
            "log_q_ode": finite(ode.log_q[i, seed].mean()),
            "log_q_ode_se": finite(ode.log_q[i, seed].std() / math.sqrt(settings.points)),
            "log_p_points": log_p[seed].item(), "points": settings.points, "nfe": ode.nfe[seed].item(),
            "accepted": ode.accepted[seed].item(), "rejected": ode.rejected[seed].item(),
            "rtol": settings.rtol, "atol": settings.atol,
            "log_q_sde": finite(sde[i, seed]), "log_q_sde_error": finite(sde_error[i, seed]),
            "log_q_sde_lost": finite(lost[i, seed]),
            "epsilon": problem.epsilon,
        }
        for i, name in enumerate(p_noise)
        for seed in range(cell.seeds)
    ]  # fmt: skip
    write_rows(folder / "likelihood.parquet", "likelihood", rows)
    log.info(
        "Likelihood of %d points per seed, NFE %s: %s", settings.points, ode.nfe.tolist(), folder / "likelihood.parquet"
    )
