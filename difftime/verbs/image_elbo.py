"""The ELBO of the test images of one cell, term by term, and the bracket of the KL from the training images."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import fields, replace
from pathlib import Path

import torch
from torch import Tensor

from difftime.config import ImageElboSettings
from difftime.image_elbo import ImageElbo, image_elbo, over_images
from difftime.parallel import ALONE, Group
from difftime.pixels import bits_per_dimension, kl_bracket
from difftime.progress import Watched
from difftime.schemas import write_rows
from difftime.verbs.common import dequantised, finite, keys, log, measured_images, memory_for, open_images

LN2 = math.log(2)
PER_IMAGE = ("elbo", "elbo_epsilon", "I", "prior", "residual")


def _joined(parts: Sequence[ImageElbo]) -> ImageElbo:
    """The terms of batches of images, one after another."""
    per_image = [field.name for field in fields(ImageElbo) if field.name != "R"]
    return replace(parts[0], **{name: torch.cat([getattr(part, name) for part in parts], -1) for name in per_image})


def run(
    folder: Path, settings: ImageElboSettings, p_noise: Sequence[str], *, data_dir: Path, group: Group = ALONE
) -> None:
    """Read the trained cell in `folder`; write image_elbo.parquet and image_elbo_images.parquet.

    The processes of `group` take whole batches: their number changes no bit.
    """
    cell, problem = open_images(folder, data_dir)
    noises, d = [problem.noise(name) for name in p_noise], problem.images.d
    part = measured_images(problem.images, settings.images)
    x0 = dequantised(problem, f"{cell.seed}/{cell.dataset}", 0, part)
    score = Watched(f"image_elbo {problem.name}", problem.score)

    def measure(batch: Tensor) -> ImageElbo:
        with memory_for("image_elbo.batch", settings.batch):
            return image_elbo(
                score, problem.sde, noises, x0[batch], problem.T, problem.epsilon, seeds=problem.seeds,
                indices=part[batch], pairs=settings.pairs, end_pairs=2, batch=settings.batch, device=problem.device,
            )  # fmt: skip

    batches = torch.arange(len(part)).split(settings.batch)
    terms = _joined([one for several in group.each(batches, measure) for one in several])
    if not group.first:
        return
    rows, single = [], []
    for i, (name, noise) in enumerate(zip(p_noise, noises, strict=True)):
        low, high = kl_bracket(*problem.moments, problem.sde, problem.T, noise)
        for seed in range(cell.seeds):
            key = keys(cell) | {"seed": seed, "p_noise": name}
            values = {
                "elbo": terms.elbo_x0[i, seed], "elbo_epsilon": terms.elbo_eps[i, seed], "I": terms.I[seed],
                "prior": terms.prior[i], "residual": terms.residual[seed],
            }  # fmt: skip
            means = {quantity: over_images(value) for quantity, value in values.items()}
            rows.append(key | {quantity: finite(estimate.mean) for quantity, estimate in means.items()} | {
                "elbo_bpd": finite(bits_per_dimension(means["elbo"].mean, d)),
                "elbo_bpd_se": finite(means["elbo"].se / (d * LN2)),
                "elbo_se": finite(means["elbo"].se), "I_se": finite(means["I"].se),
                "residual_se": finite(means["residual"].se), "R": terms.R,
                "kl_low": low, "kl_high": high,
                "kl_low_bpd": low / (d * LN2), "kl_high_bpd": high / (d * LN2),
                "images": len(part), "pairs": settings.pairs, "epsilon": problem.epsilon,
                "data_digest": problem.images.digest,
            })  # fmt: skip
            single += [
                key | {"image": image} | {quantity: finite(values[quantity][k]) for quantity in PER_IMAGE}
                for k, image in enumerate(part.tolist())
            ]  # fmt: skip
    write_rows(folder / "image_elbo_images.parquet", "image_elbo_images", single)
    write_rows(folder / "image_elbo.parquet", "image_elbo", rows)
    log.info("ELBO of %d images taken apart: %s", len(part), folder / "image_elbo.parquet")
