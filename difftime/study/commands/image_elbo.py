"""The ELBO of the test images of one cell, term by term, and the bracket of the KL from the training images."""

from __future__ import annotations

import math
import time
from collections.abc import Sequence
from pathlib import Path

import torch
from torch import Tensor

from difftime.diffusion.p_noise import check_memory
from difftime.diffusion.sde import Noise
from difftime.images.pixels import bits_per_dimension
from difftime.measures.image_elbo import ImageElbo, image_elbo, over_images
from difftime.study.cell import ImageProblem, p_noises
from difftime.study.commands.common import (
    dequantised,
    evaluation,
    finite,
    keys,
    log,
    measured_images,
    memory_for,
    open_images,
    resumed,
)
from difftime.study.fingerprint import fingerprint
from difftime.study.settings import ImageElboSettings
from difftime.support.files import discard
from difftime.support.progress import Progress, Watched
from difftime.tables.schema import write_rows
from difftime.training.checkpoint import save_resume
from difftime.training.parallel import ALONE, Group

RESUME = "image_elbo.resume.pt"
LN2 = math.log(2)
PER_IMAGE = ("elbo", "elbo_epsilon", "I", "prior", "residual")


def _terms(
    folder: Path, problem: ImageProblem, noises: Sequence[Noise], settings: ImageElboSettings, streams: str,
    images: Tensor, p_noise: Sequence[str], group: Group,
) -> ImageElbo:  # fmt: skip
    """The terms of all images, batch by batch, saved when a batch of every process is done."""
    identity = evaluation(problem, folder, settings, p_noise, fingerprint("study.commands.image_elbo"))
    done, seconds = resumed(folder / RESUME, identity)
    group.agree(len(done), folder)
    batches = images.split(settings.batch)
    counts = [len(part) for part in batches]
    progress = Progress(f"image_elbo {problem.name}", len(images), "image", done=sum(counts[: len(done)]))
    watched = Watched(f"image_elbo {problem.name}", problem.score)

    def measure(part: Tensor) -> dict[str, Tensor]:
        with memory_for("image_elbo.batch", settings.batch):
            terms = image_elbo(
                watched, problem.sde, noises, dequantised(problem, streams, 0, part), problem.T, problem.epsilon,
                seeds=problem.seeds, indices=part, pairs=settings.pairs, end_pairs=2, batch=settings.batch,
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
    return ImageElbo(R=problem.images.d * problem.sde.R(problem.T, problem.epsilon), **joined)


def run(
    folder: Path, settings: ImageElboSettings, p_noise: Sequence[str], *, data_dir: Path, group: Group = ALONE
) -> None:
    """Read the trained cell in `folder`; write image_elbo.parquet and image_elbo_images.parquet.

    A cut run goes on where it was. The processes of `group` take whole batches: their number changes no bit.
    """
    cell, problem = open_images(folder, data_dir)
    noises, d = p_noises(problem, p_noise, folder), problem.images.d
    if "full" in p_noise:  # its bracket comes when all else is done
        check_memory("full", d, 0)
    part = measured_images(problem.images, settings.images)
    terms = _terms(folder, problem, noises, settings, f"{cell.seed}/{cell.dataset}", part, p_noise, group)
    if not group.first:
        return
    rows, single = [], []
    for i, (name, noise) in enumerate(zip(p_noise, noises, strict=True)):
        bracket = problem.bracket(noise)
        for seed in range(cell.seeds):
            key = keys(cell) | {"seed": seed, "p_noise": name}
            values = {
                "elbo": terms.elbo_x0[i, seed], "elbo_epsilon": terms.elbo_eps[i, seed], "I": terms.I[seed],
                "prior": terms.prior[i], "residual": terms.residual[seed],
            }  # fmt: skip
            means = {quantity: over_images(value) for quantity, value in values.items()}
            estimates = {quantity: finite(estimate.mean) for quantity, estimate in means.items()}
            errors = {f"{quantity}_se": finite(estimate.se) for quantity, estimate in means.items()}
            rows.append(key | estimates | errors | {
                "elbo_bpd": finite(bits_per_dimension(means["elbo"].mean, d)),
                "elbo_bpd_se": finite(means["elbo"].se / (d * LN2)),
                "R": terms.R,
                "kl_low": bracket and finite(bracket.lower), "kl_high": bracket and bracket.upper,
                "kl_low_bpd": bracket and finite(bracket.lower / (d * LN2)),
                "kl_high_bpd": bracket and bracket.upper / (d * LN2),
                "images": len(part), "pairs": settings.pairs, "epsilon": problem.epsilon,
                "data_digest": problem.images.digest,
            })  # fmt: skip
            single += [
                key | {"image": image} | {quantity: finite(values[quantity][k]) for quantity in PER_IMAGE}
                for k, image in enumerate(part.tolist())
            ]  # fmt: skip
    write_rows(folder / "image_elbo_images.parquet", "image_elbo_images", single)
    write_rows(folder / "image_elbo.parquet", "image_elbo", rows)
    discard(folder / RESUME)
    log.info("ELBO of %d images taken apart: %s", len(part), folder / "image_elbo.parquet")
