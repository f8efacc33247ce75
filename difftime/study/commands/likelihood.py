"""The likelihood of held-out points, or test images, under one cell's models, and its cost in function evaluations.

The probability-flow ODE gives log q of every kind of data, and the bits per dimension of images. The reverse SDE's own
density is another model's; it is known for one-dimensional data.
"""

from __future__ import annotations

import math
import time
from collections.abc import Sequence
from pathlib import Path

import torch
from jaxtyping import Float, Int
from torch import Tensor

from difftime.diffusion.score import Hutchinson, rademacher
from difftime.diffusion.sde import Noise
from difftime.measures.density import expected_log_q, reverse_sde_density
from difftime.measures.image_elbo import over_images
from difftime.measures.likelihood import ode_likelihood
from difftime.study.cell import ImageProblem, MixtureProblem, p_noises
from difftime.study.commands.common import (
    Work,
    bits_of,
    dequantised,
    evaluation,
    finite,
    keys,
    log,
    measured_images,
    memory_for,
    resumed,
    write_tables,
)
from difftime.study.fingerprint import fingerprint
from difftime.study.opening import open_cell
from difftime.study.settings import Cell, ImageLikelihoodSettings, MixtureLikelihoodSettings
from difftime.support.files import discard
from difftime.support.progress import Progress, Watched
from difftime.support.streams import stream
from difftime.tables.schema import Row, filled
from difftime.training.checkpoint import save_resume
from difftime.training.parallel import ALONE, Group

RESUME = "likelihood.resume.pt"


def run(
    folder: Path,
    settings: MixtureLikelihoodSettings | ImageLikelihoodSettings,
    p_noise: Sequence[str],
    *,
    data_dir: Path,
    group: Group = ALONE,
) -> Work | None:
    """Read the trained cell in `folder`; write likelihood.parquet, and likelihood_units.parquet of images.

    A solve of images that was cut goes on where it was. The processes of `group` solve whole batches of them, to which
    the NFE belongs: their number changes no bit. Returns None in all processes but the first.
    """
    cell, problem = open_cell(folder, data_dir)
    if isinstance(problem, MixtureProblem):
        assert isinstance(settings, MixtureLikelihoodSettings)
        return _of_density(folder, cell, problem, settings, p_noise)
    assert isinstance(settings, ImageLikelihoodSettings)
    return _of_images(folder, cell, problem, settings, p_noise, group)


def _solver(settings: MixtureLikelihoodSettings | ImageLikelihoodSettings) -> Row:
    return {"rtol": settings.rtol, "atol": settings.atol}


def _of_density(
    folder: Path, cell: Cell, problem: MixtureProblem, settings: MixtureLikelihoodSettings, p_noise: Sequence[str]
) -> Work:
    """All held-out points of a seed as one system, and the density of the reverse SDE."""
    begin = time.monotonic()
    start = problem.density.diffused(problem.sde, problem.epsilon)
    x = torch.stack([start.sample(settings.points, stream(seed, "held-out points")) for seed in problem.seeds])
    noises = p_noises(problem, p_noise, folder)
    ode = ode_likelihood(
        problem.score, problem.sde, noises, x, problem.T, problem.epsilon,
        max_evaluations=settings.max_evaluations, **_solver(settings),
    )  # fmt: skip
    sde, sde_error, lost = _reverse_sde(problem, noises, settings)
    log_p = start.log_prob(x).mean(1)
    rows = [
        filled("likelihood", keys(cell) | _solver(settings) | {
            "seed": seed, "p_noise": name,
            "log_q_ode": finite(ode.log_q[i, seed].mean()),
            "log_q_ode_se": finite(ode.log_q[i, seed].std() / math.sqrt(settings.points)),
            "log_p_points": log_p[seed].item(), "units": settings.points, "draws": 1, "batch": settings.points,
            "failed": int((~ode.log_q[i, seed].isfinite()).sum()), "nfe": float(ode.nfe[seed]),
            "accepted": float(ode.accepted[seed]), "rejected": float(ode.rejected[seed]),
            "log_q_sde": finite(sde[i, seed]), "log_q_sde_error": finite(sde_error[i, seed]),
            "log_q_sde_lost": finite(lost[i, seed]),
            "epsilon": problem.epsilon,
        })
        for i, name in enumerate(p_noise)
        for seed in range(cell.seeds)
    ]  # fmt: skip
    write_tables(folder, "likelihood", {"likelihood": rows})
    log.info(
        "Likelihood of %d points per seed, NFE %s: %s", settings.points, ode.nfe.tolist(), folder / "likelihood.parquet"
    )
    return Work(time.monotonic() - begin, None)


def _reverse_sde(
    problem: MixtureProblem, noises: Sequence[Noise], settings: MixtureLikelihoodSettings
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


def _batches(images: Int[Tensor, " n"], settings: ImageLikelihoodSettings) -> list[tuple[int, Int[Tensor, " batch"]]]:
    """Every image once per draw, the last batch as long as it happens to be: the draw, and indices."""
    return [(draw, part) for draw in range(settings.draws) for part in images.split(settings.batch)]


def _solve(
    problem: ImageProblem,
    noises: Sequence[Noise],
    settings: ImageLikelihoodSettings,
    streams: str,
    draw: int,
    part: Tensor,
) -> dict[str, Tensor]:
    """log q of a batch of images [noises, seeds, batch] in nats, and what the solver did, per seed."""
    x = dequantised(problem, streams, draw, part)
    signs = [rademacher((problem.images.d,), stream(streams, "Hutchinson's probe", draw, i)) for i in part.tolist()]
    solved = ode_likelihood(
        Watched(f"likelihood {problem.name}", problem.score), problem.sde, noises,
        x.expand(len(problem.seeds), -1, -1), problem.T, problem.epsilon, max_evaluations=settings.max_evaluations,
        divergence=Hutchinson(torch.stack(signs).to(x.device)), **_solver(settings),
    )  # fmt: skip
    return {name: getattr(solved, name).cpu() for name in ("log_q", "nfe", "accepted", "rejected")}


def _of_images(
    folder: Path,
    cell: Cell,
    problem: ImageProblem,
    settings: ImageLikelihoodSettings,
    p_noise: Sequence[str],
    group: Group,
) -> Work | None:
    """Bits per dimension of the test images, by batches that are solved as one system each."""
    streams, noises = f"{cell.seed}/{cell.dataset}", p_noises(problem, p_noise, folder)
    batches = _batches(measured_images(problem.images, settings.images), settings)
    identity = evaluation(problem, folder, settings, p_noise, fingerprint("study.commands.likelihood"))
    done, seconds = resumed(folder / RESUME, identity)
    counts = [len(part) for _, part in batches]
    progress = Progress(f"likelihood {cell.name}", sum(counts), "image", done=sum(counts[: len(done)]))
    group.agree(len(done), folder)

    def solve(batch: tuple[int, Tensor]) -> dict[str, Tensor]:
        with memory_for("likelihood.batch", settings.batch):
            return _solve(problem, noises, settings, streams, *batch)

    start = time.monotonic()
    for solved in group.each(batches[len(done) :], solve):
        seconds += time.monotonic() - start
        done += solved
        if group.first:
            save_resume(folder / RESUME, {"identity": identity, "batches": done, "seconds": seconds})
        progress.advance(sum(counts[: len(done)]) - progress.done, f"NFE {done[-1]['nfe'].tolist()}")
        start = time.monotonic()
    progress.close()
    if not group.first:
        return None
    _write(folder, cell, problem, settings, p_noise, batches, done)
    discard(folder / RESUME)
    log.info("Bits per dimension of %d images: %s", sum(counts) // settings.draws, folder / "likelihood.parquet")
    return Work(seconds, cell.seeds * sum(counts) / seconds)


def _write(
    folder: Path, cell: Cell, problem: ImageProblem, settings: ImageLikelihoodSettings, p_noise: Sequence[str],
    batches: list[tuple[int, Tensor]], done: list[dict[str, Tensor]],
) -> None:  # fmt: skip
    log_q: Float[Tensor, "noises seeds n"] = torch.cat([batch["log_q"] for batch in done], -1)
    image = torch.cat([part for _, part in batches])
    draws = torch.cat([torch.full_like(part, draw) for draw, part in batches])
    nfe = torch.cat(
        [batch["nfe"][:, None].expand(-1, len(part)) for batch, (_, part) in zip(done, batches, strict=True)], 1
    )
    counts = {
        name: torch.stack([batch[name] for batch in done], 1).double() for name in ("nfe", "accepted", "rejected")
    }
    rows, single = [], []
    for i, name in enumerate(p_noise):
        for seed in range(cell.seeds):
            key = keys(cell) | {"seed": seed, "p_noise": name}
            values = bits_of(problem, log_q[i, seed])
            good = values.isfinite()
            if not good.all():
                log.warning(
                    "WARNING: %s, seed %d, %s p_noise: %d of %d values are not finite and in no mean.",
                    cell.name, seed, name, (~good).sum(), len(good),
                )  # fmt: skip
            none = (torch.nan, torch.nan)
            bits, bits_se = over_images(values[good], image[good]) if good.any() else none
            nats, nats_se = over_images(log_q[i, seed, good], image[good]) if good.any() else none
            rows.append(filled("likelihood", key | _solver(settings) | {
                "log_q_ode": finite(nats), "log_q_ode_se": finite(nats_se), "bpd": finite(bits),
                "bpd_se": finite(bits_se), "units": len(image.unique()), "draws": settings.draws,
                "failed": int((~good).sum()), "batch": settings.batch, "nfe": counts["nfe"][seed].mean().item(),
                "nfe_sd": finite(counts["nfe"][seed].std()) if len(done) > 1 else None,
                "accepted": counts["accepted"][seed].mean().item(),
                "rejected": counts["rejected"][seed].mean().item(),
                "epsilon": problem.epsilon, "data_digest": problem.images.digest,
            }))  # fmt: skip
            single += [
                key | {
                    "unit": k, "draw": j, "log_q_ode": finite(log_density), "bpd": finite(of_bits), "nfe": calls,
                }
                for k, j, log_density, of_bits, calls in zip(
                    image.tolist(), draws.tolist(), log_q[i, seed].tolist(), values.tolist(), nfe[seed].tolist(),
                    strict=True,
                )
            ]  # fmt: skip
    write_tables(folder, "likelihood", {"likelihood": rows, "likelihood_units": single})
