"""Take the ELBO of one cell apart, for every p_noise and seed."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from difftime.measures.elbo import end_terms, expected_log_density, path_terms
from difftime.study.cell import p_noises
from difftime.study.commands.common import finite, keys, log, open_mixture
from difftime.study.settings import ElboSettings
from difftime.tables.schema import write_rows


def run(folder: Path, settings: ElboSettings, p_noise: Sequence[str]) -> None:
    """Read the trained cell in `folder`; write elbo.parquet."""
    cell, problem = open_mixture(folder)
    p, sde, T, epsilon = problem.density, problem.sde, problem.T, problem.epsilon
    streams = f"{cell.seed}/{cell.dataset}"
    log_p_data, log_p_data_se = expected_log_density(p, points=settings.points, seed=streams)
    path = path_terms(
        problem.score, p, sde, T, epsilon,
        seeds=cell.seeds, time_steps=settings.time_steps, points=settings.points, seed=streams,
    )  # fmt: skip
    rows = []
    for name, noise in zip(p_noise, p_noises(problem, p_noise, folder), strict=True):
        ends = end_terms(p, sde, noise, T, epsilon, points=settings.points, seed=streams)
        for seed, (gap, gap_se, I_se) in enumerate(zip(path.gap, path.gap_se, path.I_se, strict=True)):
            # Eq. 11, as its terms have the smaller Monte Carlo error; Eq. 4 is the check
            elbo = -ends.entropy - ends.kl - gap
            elbo_se = (ends.entropy_se**2 + ends.kl_se**2 + gap_se**2) ** 0.5
            eq4 = ends.prior - (path.K + gap) + ends.R
            rows.append(keys(cell) | {
                "seed": seed, "p_noise": name, "elbo": finite(elbo), "elbo_se": finite(elbo_se),
                "kl": ends.kl, "kl_se": ends.kl_se, "gap": finite(gap), "gap_se": finite(gap_se),
                "K": path.K.item(), "K_se": path.K_se.item(), "R": ends.R, "I": finite(path.K + gap),
                "I_se": finite(I_se), "prior": ends.prior, "prior_se": ends.prior_se, "entropy": ends.entropy,
                "entropy_se": ends.entropy_se, "log_p_data": log_p_data, "log_p_data_se": log_p_data_se,
                "residual": finite(eq4 - elbo), "epsilon": epsilon,
                "weighting": cell.training.weighting, "steps": cell.training.steps,
            })  # fmt: skip
    write_rows(folder / "elbo.parquet", "elbo", rows)
    log.info("ELBO taken apart at %d times: %s", settings.time_steps, folder / "elbo.parquet")
