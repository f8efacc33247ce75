"""Take the ELBO of one cell apart, for every p_noise and seed, and at every time that its models know."""

from __future__ import annotations

import math
import time
from collections.abc import Sequence
from pathlib import Path

import torch
from torch import Tensor

from difftime.diffusion.p_noise import kl_bracket
from difftime.diffusion.sde import Noise
from difftime.images.pixels import bits_per_dimension
from difftime.measures.elbo import end_terms, expected_log_density, path_terms
from difftime.measures.image_elbo import ImageElbo, image_elbo, over_images
from difftime.study.cell import ImageProblem, MixtureProblem, p_noises
from difftime.study.commands.common import (
    Work,
    dequantised,
    evaluation,
    finite,
    keys,
    log,
    measured_images,
    memory_for,
    open_cell,
    resumed,
    write_tables,
)
from difftime.study.fingerprint import fingerprint
from difftime.study.settings import Cell, ElboSettings
from difftime.support.files import discard
from difftime.support.progress import Progress, Watched
from difftime.tables.schema import Row, filled
from difftime.training.checkpoint import save_resume
from difftime.training.parallel import ALONE, Group

RESUME = "elbo.resume.pt"
LN2 = math.log(2)
END_PAIRS = 2
"""Antithetic pairs of an image's draws of x_epsilon, and of x_T where the prior term has no closed form."""
OF_IMAGE = ("elbo", "prior", "I", "decoder", "elbo_x0")


def run(
    folder: Path, settings: ElboSettings, p_noise: Sequence[str], *, data_dir: Path, group: Group = ALONE
) -> Work | None:
    """Read the trained cell in `folder`; write elbo.parquet, and elbo_units.parquet of images.

    An evaluation of images that was cut goes on where it was. The processes of `group` take whole batches of them:
    their number changes no bit. Returns None in all processes but the first.
    """
    cell, problem = open_cell(folder, data_dir)
    if isinstance(problem, MixtureProblem):
        return _of_density(folder, cell, problem, settings, p_noise)
    return _of_images(folder, cell, problem, settings, p_noise, group)


def _of_density(
    folder: Path, cell: Cell, problem: MixtureProblem, settings: ElboSettings, p_noise: Sequence[str]
) -> Work:
    """The ELBO against the exact score: Eq. 11, as its terms have the smaller error; Eq. 4 is the check."""
    start = time.monotonic()
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
            elbo = -ends.entropy - ends.kl - gap
            elbo_se = (ends.entropy_se**2 + ends.kl_se**2 + gap_se**2) ** 0.5
            eq4 = ends.prior - (path.K + gap) + ends.R
            rows.append(filled("elbo", keys(cell) | _made_with(cell, problem.epsilon) | {
                "seed": seed, "p_noise": name, "elbo": finite(elbo), "elbo_se": finite(elbo_se),
                "kl": ends.kl, "kl_se": ends.kl_se, "gap": finite(gap), "gap_se": finite(gap_se),
                "K": path.K.item(), "K_se": path.K_se.item(), "R": ends.R, "I": finite(path.K + gap),
                "I_se": finite(I_se), "prior": ends.prior, "prior_se": ends.prior_se, "entropy": ends.entropy,
                "entropy_se": ends.entropy_se, "log_p_data": log_p_data, "log_p_data_se": log_p_data_se,
                "residual": finite(eq4 - elbo),
            }))  # fmt: skip
    write_tables(folder, "elbo", {"elbo": rows})
    log.info("ELBO taken apart at %d times: %s", settings.time_steps, folder / "elbo.parquet")
    return Work(time.monotonic() - start, None)


def _made_with(cell: Cell, epsilon: float) -> Row:
    return {"epsilon": epsilon, "weighting": cell.training.weighting, "steps": cell.training.steps}


def _of_images(
    folder: Path, cell: Cell, problem: ImageProblem, settings: ElboSettings, p_noise: Sequence[str], group: Group
) -> Work | None:
    """The ELBO of the test images by Eq. 4, and the bracket of the KL from the training images."""
    noises, d = p_noises(problem, p_noise, folder), problem.images.d
    part = measured_images(problem.images, settings.images)
    terms, seconds = _terms(folder, problem, noises, settings, f"{cell.seed}/{cell.dataset}", part, p_noise, group)
    if not group.first:
        return None
    rows, single = [], []
    for i, (name, noise) in enumerate(zip(p_noise, noises, strict=True)):
        bracket = kl_bracket(*problem.moments, problem.sde, problem.T, noise)
        of_kl = {"kl_low": bracket.lower, "kl_high": bracket.upper} if bracket else {}
        of_kl |= {f"{name}_bpd": nats / (d * LN2) for name, nats in of_kl.items()}
        for seed in range(cell.seeds):
            key = keys(cell) | {"seed": seed, "p_noise": name}
            values = {
                "elbo": terms.elbo_eps[i, seed], "prior": terms.prior[i], "I": terms.I[seed],
                "decoder": terms.residual[seed], "elbo_x0": terms.elbo_x0[i, seed],
            }  # fmt: skip
            means = {quantity: over_images(value) for quantity, value in values.items()}
            estimates = {quantity: finite(estimate.mean) for quantity, estimate in means.items()}
            errors = {f"{quantity}_se": finite(estimate.se) for quantity, estimate in means.items()}
            rows.append(filled("elbo", key | estimates | errors | of_kl | _made_with(cell, problem.epsilon) | {
                "elbo_bpd": finite(bits_per_dimension(means["elbo_x0"].mean, d)),
                "elbo_bpd_se": finite(means["elbo_x0"].se / (d * LN2)), "R": terms.R,
                "units": len(part), "data_digest": problem.images.digest,
            }))  # fmt: skip
            bits = bits_per_dimension(values["elbo_x0"], d)
            single += [
                key | {"unit": image, "elbo_bpd": finite(bits[k])}
                | {quantity: finite(values[quantity][k]) for quantity in OF_IMAGE}
                for k, image in enumerate(part.tolist())
            ]  # fmt: skip
    write_tables(folder, "elbo", {"elbo": rows, "elbo_units": single})
    discard(folder / RESUME)
    log.info("ELBO of %d images taken apart: %s", len(part), folder / "elbo.parquet")
    return Work(seconds, cell.seeds * len(part) / seconds)


def _terms(
    folder: Path, problem: ImageProblem, noises: Sequence[Noise], settings: ElboSettings, streams: str,
    images: Tensor, p_noise: Sequence[str], group: Group,
) -> tuple[ImageElbo, float]:  # fmt: skip
    """The terms of all images and the seconds that they took, saved when a batch of every process is done."""
    identity = evaluation(problem, folder, settings, p_noise, fingerprint("study.commands.elbo"))
    done, seconds = resumed(folder / RESUME, identity)
    group.agree(len(done), folder)
    batches = images.split(settings.batch)
    counts = [len(part) for part in batches]
    progress = Progress(f"elbo {problem.name}", len(images), "image", done=sum(counts[: len(done)]))
    watched = Watched(f"elbo {problem.name}", problem.score)

    def measure(part: Tensor) -> dict[str, Tensor]:
        with memory_for("elbo.batch", settings.batch):
            terms = image_elbo(
                watched, problem.sde, noises, dequantised(problem, streams, 0, part), problem.T, problem.epsilon,
                seeds=problem.seeds, indices=part, pairs=settings.pairs, end_pairs=END_PAIRS, batch=settings.batch,
            )  # fmt: skip
        return {name: getattr(terms, name) for name in ("prior", "I", "residual")}

    start = time.monotonic()
    for measured in group.each(batches[len(done) :], measure):
        seconds += time.monotonic() - start
        done += measured
        if group.first:
            save_resume(folder / RESUME, {"identity": identity, "batches": done, "seconds": seconds})
        progress.advance(sum(counts[: len(done)]) - progress.done)
        start = time.monotonic()
    progress.close()
    joined = {name: torch.cat([batch[name] for batch in done], -1) for name in ("prior", "I", "residual")}
    return ImageElbo(R=problem.images.d * problem.sde.R(problem.T, problem.epsilon), **joined), seconds
