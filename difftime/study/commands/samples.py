"""Draw samples from one cell's two models, and compare them with the data's density."""

from __future__ import annotations

import math
import time
from collections.abc import Sequence
from pathlib import Path

import torch
from torch import Tensor

from difftime.diffusion.sde import Noise
from difftime.measures.quality import (
    histogram,
    histogram_edges,
    median_log_prob,
    mode_shares,
    true_shares,
    wasserstein1,
    wasserstein1_floor,
)
from difftime.measures.samplers import reverse_ode, reverse_sde
from difftime.study.cell import MixtureProblem as Problem
from difftime.study.cell import p_noises
from difftime.study.commands.common import finite, keys, log, open_mixture
from difftime.study.settings import Cell, SampleSettings
from difftime.support.streams import stream
from difftime.tables.schema import Row, write_rows

OUTPUTS = ("samples", "modes", "histogram", "cost")


def _draw(problem: Problem, noise: Noise, sampler: str, settings: SampleSettings) -> tuple[Tensor, Tensor]:
    """Samples [seeds, points, d] in float64, and each seed's number of score evaluations."""
    x = torch.stack([noise.sample(settings.points, generator=stream(seed, "x_T")) for seed in problem.seeds])
    if sampler == "ode":
        return reverse_ode(
            problem.score, problem.sde, x, problem.T, problem.epsilon,
            rtol=settings.rtol, atol=settings.atol, max_evaluations=settings.max_evaluations,
        )  # fmt: skip
    steps = math.ceil(settings.steps_per_unit_time * problem.T)
    generators = [stream(seed, "reverse SDE") for seed in problem.seeds]
    drawn = reverse_sde(
        problem.score, problem.sde, x.float(), problem.T, problem.epsilon, steps=steps, generators=generators
    )
    return drawn.double(), torch.full((len(problem.seeds),), steps)


def _sample_rows(x: Tensor, nfe: Tensor, sampler: str, problem: Problem, shares: Tensor, truth: Tensor) -> list[Row]:
    p, points = problem.density, x.shape[1]
    log_p = p.log_prob(x)
    low, median, high = torch.quantile(log_p, torch.tensor([0.025, 0.5, 0.975], dtype=torch.float64), dim=1)
    distance, floor, typical = wasserstein1(x, p), wasserstein1_floor(p, points), median_log_prob(p)
    return [
        {
            "points": points, "nfe": nfe[seed].item(),
            "steps": nfe[seed].item() if sampler == "sde" else (nfe[seed].item() - 2) // 6,
            "log_p_data_median": finite(median[seed]), "log_p_data_median_p_data": typical,
            "log_p_data_q025": finite(low[seed]),
            "log_p_data_q975": finite(high[seed]), "log_p_data_mean": finite(log_p[seed].mean()),
            "log_p_data_mean_se": finite(log_p[seed].std() / math.sqrt(points)),
            "finite": x[seed].isfinite().all(-1).double().mean().item(),
            "wasserstein1": finite(distance[seed]), "wasserstein1_floor": floor,
            "share_first": shares[seed, 0].item(), "share_first_p_data": truth[0].item(),
        }
        for seed in range(len(x))
    ]  # fmt: skip


def _mode_rows(points: int, shares: Tensor, truth: Tensor) -> list[list[Row]]:
    return [
        [
            {"mode": k, "share": s, "share_se": math.sqrt(s * (1 - s) / points), "share_p_data": truth[k].item()}
            for k, s in enumerate(row)
        ]
        for row in shares.tolist()
    ]


def _histogram_rows(x: Tensor, problem: Problem, bins: int) -> list[list[Row]]:
    """One list of bins per seed; empty for data that are not one-dimensional."""
    if problem.density.d > 1:
        return [[] for _ in x]
    edges = histogram_edges(problem.density, bins)
    width = edges.diff()
    truth = (problem.density.cdf(edges).diff() / width).tolist()
    return [
        [
            {"left": left, "right": right, "density": density, "density_p_data": p}
            for left, right, density, p in zip(edges[:-1].tolist(), edges[1:].tolist(), row, truth, strict=True)
        ]
        for row in (histogram(x[..., 0], edges) / width).tolist()
    ]


def _cost_row(nfe: Tensor, seconds: float, points: int) -> Row:
    nfe = nfe.double()
    se = nfe.std().item() / math.sqrt(len(nfe)) if len(nfe) > 1 else None
    return {"points": points, "seeds": len(nfe), "nfe": nfe.mean().item(), "nfe_se": se, "seconds": seconds}


def _measure(
    cell: Cell, problem: Problem, name: str, noise: Noise, sampler: str, settings: SampleSettings
) -> dict[str, list[Row]]:
    start = time.perf_counter()
    x, nfe = _draw(problem, noise, sampler, settings)
    seconds = time.perf_counter() - start
    kind = {"p_noise": name, "sampler": sampler}
    shares, truth = mode_shares(x, problem.density), true_shares(problem.density)
    rows = _sample_rows(x, nfe, sampler, problem, shares, truth)
    modes, bins = _mode_rows(settings.points, shares, truth), _histogram_rows(x, problem, settings.bins)
    of_seed = [keys(cell) | {"seed": seed} | kind for seed in range(cell.seeds)]
    return {
        "samples": [k | row for k, row in zip(of_seed, rows, strict=True)],
        "modes": [k | row for k, of_modes in zip(of_seed, modes, strict=True) for row in of_modes],
        "histogram": [k | row for k, of_bins in zip(of_seed, bins, strict=True) for row in of_bins],
        "cost": [keys(cell) | kind | _cost_row(nfe, seconds, settings.points)],
    }


def run(folder: Path, settings: SampleSettings, p_noise: Sequence[str]) -> None:
    """Read the trained cell in `folder`; write samples.parquet, modes.parquet, histogram.parquet and cost.parquet."""
    cell, problem = open_mixture(folder)
    parts = [
        _measure(cell, problem, name, noise, sampler, settings)
        for name, noise in zip(p_noise, p_noises(problem, p_noise, folder), strict=True)
        for sampler in ("sde", "ode")
    ]
    for table in OUTPUTS:
        write_rows(folder / f"{table}.parquet", table, [row for part in parts for row in part[table]])
    log.info("%d samples per seed, sampler and p_noise: %s", settings.points, folder / "samples.parquet")
