"""Images drawn from the reverse SDE of one cell."""

from __future__ import annotations

import math
from collections.abc import Sequence
from pathlib import Path

import torch

from difftime.cell import p_noises
from difftime.config import ImageSampleSettings
from difftime.pixels import SCALE
from difftime.progress import Watched
from difftime.sample import reverse_sde
from difftime.schemas import write_rows
from difftime.streams import stream
from difftime.verbs.common import keys, log, memory_for, open_images


def run(folder: Path, settings: ImageSampleSettings, p_noise: Sequence[str], *, data_dir: Path) -> None:
    """Read the trained cell in `folder`; write image_samples.parquet."""
    cell, problem = open_images(folder, data_dir)
    steps, place = math.ceil(settings.steps_per_unit_time * problem.T), problem.device
    channels, size, _ = problem.images.shape
    rows = []
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
        pixels = ((black + 1) * SCALE).clamp(0, 255).to(torch.uint8).cpu()
        rows += [
            keys(cell) | {
                "seed": seed, "p_noise": name, "image": k, "steps": steps, "channels": channels, "size": size,
                "not_finite": unknown[seed, k].item(), "pixels": image.numpy().tobytes(),
            }
            for seed, images in enumerate(pixels)
            for k, image in enumerate(images)
        ]  # fmt: skip
    write_rows(folder / "image_samples.parquet", "image_samples", rows)
    log.info("%d images drawn in %d steps: %s", settings.images, steps, folder / "image_samples.parquet")
