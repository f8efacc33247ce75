"""Images drawn from the reverse SDE of one cell, and how far they are from the test images."""

from __future__ import annotations

import math
from collections.abc import Sequence
from pathlib import Path

import torch
from jaxtyping import Float, UInt8
from torch import Tensor

from difftime.images.pixels import SCALE
from difftime.measures.quality import DIRECTIONS, perfect_sliced_wasserstein1, projections, sliced_wasserstein1
from difftime.measures.samplers import reverse_sde
from difftime.study.cell import p_noises
from difftime.study.commands.common import finite, keys, log, memory_for, open_images
from difftime.study.settings import ImageSampleSettings
from difftime.support.progress import Watched
from difftime.support.streams import stream
from difftime.tables.schema import Row, write_rows


def _distance(pixels: UInt8[Tensor, "n C H W"], whole: bool, test: Float[Tensor, "m directions"], seed: str) -> Row:
    """The distance of images to the test images, null unless all their values were finite."""
    found = (math.nan, math.nan)
    if whole:
        found = sliced_wasserstein1(projections(pixels), test, stream(seed, "resampled images"))
    return {"wasserstein1": finite(found[0]), "wasserstein1_se": finite(found[1]) if len(pixels) > 1 else None}


def run(folder: Path, settings: ImageSampleSettings, p_noise: Sequence[str], *, data_dir: Path) -> None:
    """Read the trained cell in `folder`; write image_samples.parquet and image_quality.parquet."""
    cell, problem = open_images(folder, data_dir)
    steps, place = math.ceil(settings.steps_per_unit_time * problem.T), problem.device
    channels, size, _ = problem.images.shape
    test = projections(problem.images.test)
    floor, floor_se = perfect_sliced_wasserstein1(problem.images.train, test, settings.images)
    measured = {
        "images": settings.images, "steps": steps, "test_images": len(test), "directions": DIRECTIONS,
        "wasserstein1_floor": finite(floor), "wasserstein1_floor_se": finite(floor_se),
        "data_digest": problem.images.digest,
    }  # fmt: skip
    rows, quality = [], []
    for name, noise in zip(p_noise, p_noises(problem, p_noise, folder), strict=True):
        x = torch.stack([noise.sample(settings.images, generator=stream(seed, "x_T")) for seed in problem.seeds])
        generators = [stream(seed, "reverse SDE", device=place) for seed in problem.seeds]
        with memory_for("image_samples.images", settings.images):
            drawn = reverse_sde(
                Watched(f"image_samples {problem.name}", problem.score), problem.sde, x.float().to(place),
                problem.T, problem.epsilon, steps=steps, generators=generators,
            )  # fmt: skip
        unknown = (~drawn.isfinite()).sum(-1).cpu()
        if unknown.any():
            log.warning(
                "WARNING: %s, %s p_noise: %d of %d images have values that are not finite, drawn black. More steps, "
                "or another training, may help.", cell.name, name, (unknown > 0).sum(), unknown.numel(),
            )  # fmt: skip
        # what lies beyond the grey levels becomes the nearest one
        black = torch.where(drawn.isfinite(), drawn, -1.0)
        pixels = ((black + 1) * SCALE).clamp(0, 255).to(torch.uint8).cpu().unflatten(-1, problem.images.shape)
        rows += [
            keys(cell) | {
                "seed": seed, "p_noise": name, "image": k, "steps": steps, "channels": channels, "size": size,
                "not_finite": unknown[seed, k].item(), "pixels": image.numpy().tobytes(),
            }
            for seed, images in enumerate(pixels)
            for k, image in enumerate(images)
        ]  # fmt: skip
        quality += [
            keys(cell) | {"seed": seed, "p_noise": name, "not_finite": int((unknown[seed] > 0).sum())} | measured
            | _distance(images, not unknown[seed].any(), test, problem.seeds[seed])
            for seed, images in enumerate(pixels)
        ]  # fmt: skip
    write_rows(folder / "image_quality.parquet", "image_quality", quality)
    write_rows(folder / "image_samples.parquet", "image_samples", rows)
    log.info("%d images drawn in %d steps: %s", settings.images, steps, folder / "image_samples.parquet")
