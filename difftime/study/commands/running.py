"""What one trained cell says of every diffusion time up to its own: the ELBO as a running integral."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import torch

from difftime.measures.elbo import end_terms, expected_log_density, running_gap
from difftime.study.commands.common import finite, keys, log, open_mixture
from difftime.study.settings import BadSettings, RunningSettings
from difftime.tables.schema import write_rows


def run(folder: Path, settings: RunningSettings, p_noise: Sequence[str]) -> None:
    """Read the trained cell in `folder`; write running.parquet. The p_noises are those that need no fitting."""
    cell, problem = open_mixture(folder)
    p, sde, T, epsilon = problem.density, problem.sde, problem.T, problem.epsilon
    streams = f"{cell.seed}/{cell.dataset}"
    times = T * (torch.arange(1, settings.times + 1, dtype=torch.float64) / settings.times)
    if times[0] <= epsilon:
        raise BadSettings(
            f"{cell.name} is asked for the ELBO at {times[0]:g}, not above epsilon, {epsilon:g}. Lower scout.times."
        )
    gap, gap_se = running_gap(
        problem.score, p, sde, times, T, epsilon,
        seeds=cell.seeds, time_steps=settings.time_steps, points=settings.points, seed=streams,
    )  # fmt: skip
    log_p_data, log_p_data_se = expected_log_density(p, points=settings.points, seed=streams)
    rows = []
    for name in p_noise:
        for k, t in enumerate(times.tolist()):
            noise = replace(problem, T=t).noise(name)
            ends = end_terms(p, sde, noise, t, epsilon, points=settings.points, seed=streams)
            rows += [
                keys(cell) | {
                    "seed": seed, "p_noise": name, "t": t, "elbo": finite(-ends.entropy - ends.kl - gap[seed, k]),
                    "elbo_se": finite((ends.entropy_se**2 + ends.kl_se**2 + gap_se[seed, k] ** 2) ** 0.5),
                    "kl": ends.kl, "kl_se": ends.kl_se, "gap": finite(gap[seed, k]), "gap_se": finite(gap_se[seed, k]),
                    "entropy": ends.entropy, "entropy_se": ends.entropy_se, "log_p_data": log_p_data,
                    "log_p_data_se": log_p_data_se,
                    "epsilon": epsilon, "weighting": cell.training.weighting,
                }
                for seed in range(cell.seeds)
            ]  # fmt: skip
    write_rows(folder / "running.parquet", "running", rows)
    log.info("ELBO at %d times up to %g: %s", settings.times, T, folder / "running.parquet")
