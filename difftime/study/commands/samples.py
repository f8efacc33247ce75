"""Draw samples from one cell's models, and compare them with the density of the data, or with the test images."""

from __future__ import annotations

import itertools
import math
import time
from collections.abc import Sequence
from pathlib import Path

import torch
from jaxtyping import Float, UInt8
from torch import Tensor

from difftime.diffusion.sde import Noise
from difftime.measures.few_steps import within
from difftime.measures.quality import (
    compared,
    histogram,
    histogram_edges,
    mode_shares,
    perfect_sliced_wasserstein1,
    projections,
    sliced_wasserstein1,
    true_shares,
    wasserstein1,
    wasserstein1_floor,
)
from difftime.measures.samplers import reverse_ode, reverse_sde
from difftime.study.cell import ImageProblem, MixtureProblem, p_noises
from difftime.study.commands.common import Work, finite, keys, log, memory_for, write_tables
from difftime.study.opening import open_cell
from difftime.study.settings import Cell, ImageSampleSettings, MixtureSampleSettings
from difftime.support.progress import Watched
from difftime.support.streams import stream
from difftime.tables.schema import Row, filled


def run(
    folder: Path, settings: MixtureSampleSettings | ImageSampleSettings, p_noise: Sequence[str], *, data_dir: Path
) -> Work:
    """Read the trained cell in `folder`; write samples, few_steps, and modes and histogram or images.parquet."""
    cell, problem = open_cell(folder, data_dir)
    start = time.monotonic()
    if isinstance(problem, MixtureProblem):
        assert isinstance(settings, MixtureSampleSettings)
        _of_density(folder, cell, problem, settings, p_noise)
    else:
        assert isinstance(settings, ImageSampleSettings)
        _of_images(folder, cell, problem, settings, p_noise)
    return Work(time.monotonic() - start, None)


def _of_density(
    folder: Path, cell: Cell, problem: MixtureProblem, settings: MixtureSampleSettings, p_noise: Sequence[str]
) -> None:
    noises = dict(zip(p_noise, p_noises(problem, p_noise, folder), strict=True))
    parts = [
        _compared(cell, problem, name, noise, sampler, settings)
        for name, noise in noises.items()
        for sampler in ("sde", "ode")
    ]
    rows = {table: [row for part in parts for row in part[table]] for table in parts[0]}
    few = [row for name, noise in noises.items() for row in _few_of_density(cell, problem, name, noise, settings)]
    write_tables(folder, "samples", rows | {"few_steps": few})
    log.info("%d samples per seed, sampler and p_noise: %s", settings.points, folder / "samples.parquet")


def _compared(
    cell: Cell, problem: MixtureProblem, name: str, noise: Noise, sampler: str, settings: MixtureSampleSettings
) -> dict[str, list[Row]]:
    """The rows of the three tables for one p_noise and sampler."""
    x, nfe = _draw(problem, noise, sampler, settings)
    kind = {"p_noise": name, "sampler": sampler}
    shares, truth = mode_shares(x, problem.density), true_shares(problem.density)
    rows = _sample_rows(x, nfe, sampler, problem, shares, truth)
    modes, bins = _mode_rows(settings.points, shares, truth), _histogram_rows(x, problem, settings.bins)
    of_seed = [keys(cell) | {"seed": seed} | kind for seed in range(cell.seeds)]
    return {
        "samples": [filled("samples", k | row) for k, row in zip(of_seed, rows, strict=True)],
        "modes": [k | row for k, of_modes in zip(of_seed, modes, strict=True) for row in of_modes],
        "histogram": [k | row for k, of_bins in zip(of_seed, bins, strict=True) for row in of_bins],
    }


def _starts(problem: MixtureProblem | ImageProblem, noise: Noise, n: int) -> Float[Tensor, "seeds n d"]:
    """x_T in float64; the random numbers behind it are the same in all cells."""
    return torch.stack([noise.sample(n, generator=stream(seed, "x_T")) for seed in problem.seeds])


def _draw(
    problem: MixtureProblem, noise: Noise, sampler: str, settings: MixtureSampleSettings
) -> tuple[Tensor, Tensor]:
    """Samples [seeds, points, d] in float64, and each seed's number of score evaluations."""
    x = _starts(problem, noise, settings.points)
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


def _sample_rows(
    x: Tensor, nfe: Tensor, sampler: str, problem: MixtureProblem, shares: Tensor, truth: Tensor
) -> list[Row]:
    return [
        {"units": x.shape[1], "nfe": calls, "steps": calls if sampler == "sde" else (calls - 2) // 6}
        | {column: finite(value) for column, value in found.items()}
        for calls, found in zip(nfe.tolist(), compared(x, problem.density, shares, truth), strict=True)
    ]


def _few_of_density(
    cell: Cell, problem: MixtureProblem, name: str, noise: Noise, settings: MixtureSampleSettings
) -> list[Row]:
    """The rows of few_steps for one p_noise."""
    x, p = _starts(problem, noise, settings.points), problem.density
    drawn = {
        (sampler, budget): _in_few_steps(problem, x, sampler, budget)
        for sampler, budget in itertools.product(settings.samplers, settings.evaluations)
    }
    # at once, as the quantiles of p_data are what takes time
    distances = wasserstein1(torch.cat([ends for ends, _ in drawn.values()]), p).unflatten(0, (len(drawn), -1))
    floor = wasserstein1_floor(p, settings.points)
    rows = []
    for ((sampler, budget), (ends, nfe)), distance in zip(drawn.items(), distances, strict=True):
        kind = {"p_noise": name, "sampler": sampler, "evaluations": budget}
        found = {"nfe": nfe, "units": settings.points, "wasserstein1_floor": floor}
        rows += [
            filled("few_steps", keys(cell) | {"seed": seed} | kind | found | {
                "finite": ends[seed].isfinite().all(-1).double().mean().item(), "wasserstein1": finite(distance[seed])
            })
            for seed in range(len(ends))
        ]  # fmt: skip
    return rows


def _in_few_steps(problem: MixtureProblem | ImageProblem, x: Tensor, sampler: str, budget: int) -> tuple[Tensor, int]:
    """Samples and the evaluations they took. In float64: x/alpha at large T is long, and the last step short."""
    generators = [stream(seed, "reverse SDE", device=x.device) for seed in problem.seeds]
    score = Watched(f"{problem.name}, {sampler}", problem.score)
    return within(budget, sampler, score, problem.sde, x, problem.T, problem.epsilon, generators)


def _mode_rows(points: int, shares: Tensor, truth: Tensor) -> list[list[Row]]:
    return [
        [
            {"mode": k, "share": s, "share_se": math.sqrt(s * (1 - s) / points), "share_p_data": truth[k].item()}
            for k, s in enumerate(row)
        ]
        for row in shares.tolist()
    ]


def _histogram_rows(x: Tensor, problem: MixtureProblem, bins: int) -> list[list[Row]]:
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


def _of_images(
    folder: Path, cell: Cell, problem: ImageProblem, settings: ImageSampleSettings, p_noise: Sequence[str]
) -> None:
    steps = math.ceil(settings.steps_per_unit_time * problem.T)
    channels, size, _ = problem.images.shape
    test = projections(problem.images.test)
    floor, floor_se = perfect_sliced_wasserstein1(problem.images.train, test, settings.images)
    measured = {
        "units": settings.images, "data_digest": problem.images.digest,
        "wasserstein1_floor": finite(floor), "wasserstein1_floor_se": finite(floor_se),
    }  # fmt: skip
    of_sde = measured | {"sampler": "sde", "steps": steps, "nfe": steps}
    rows, quality, few = [], [], []
    for name, noise in zip(p_noise, p_noises(problem, p_noise, folder), strict=True):
        pixels, unknown = _drawn(problem, noise, settings, steps)
        if unknown.any():
            log.warning(
                "WARNING: %s, %s p_noise: %d of %d images have values that are not finite, drawn black. More steps, "
                "or another training, may help.", cell.name, name, (unknown > 0).sum(), unknown.numel(),
            )  # fmt: skip
        for seed, images in enumerate(pixels):
            key = keys(cell) | {"seed": seed, "p_noise": name}
            rows += [
                key | {
                    "image": k, "steps": steps, "channels": channels, "size": size,
                    "not_finite": unknown[seed, k].item(), "pixels": image.numpy().tobytes(),
                }
                for k, image in enumerate(images)
            ]  # fmt: skip
            whole = unknown[seed] == 0
            distance = _distance(images, bool(whole.all()), test, problem.seeds[seed])
            quality.append(filled("samples", key | of_sde | distance | {"finite": whole.double().mean().item()}))
        common = keys(cell) | {"p_noise": name} | measured
        few += [filled("few_steps", common | row) for row in _few_of_images(problem, noise, settings, test)]
    write_tables(folder, "samples", {"samples": quality, "few_steps": few, "images": rows})
    log.info("%d images drawn in %d steps: %s", settings.images, steps, folder / "images.parquet")


def _drawn(
    problem: ImageProblem, noise: Noise, settings: ImageSampleSettings, steps: int
) -> tuple[UInt8[Tensor, "seeds n C H W"], Tensor]:
    """Images of 8 bits, and how many values of each were not finite."""
    x = _starts(problem, noise, settings.images)
    generators = [stream(seed, "reverse SDE", device=problem.device) for seed in problem.seeds]
    with memory_for("samples.images", settings.images):
        drawn = reverse_sde(
            Watched(f"samples {problem.name}", problem.score), problem.sde, x.float().to(problem.device),
            problem.T, problem.epsilon, steps=steps, generators=generators,
        )  # fmt: skip
    return _pixels(drawn, problem)


def _pixels(drawn: Tensor, problem: ImageProblem) -> tuple[UInt8[Tensor, "seeds n C H W"], Tensor]:
    """What lies beyond the grey levels becomes the nearest one, and what is not finite black; how many these are."""
    black = torch.where(drawn.isfinite(), drawn, problem.scale.start)
    pixels = problem.scale.levels(black).cpu().unflatten(-1, problem.images.shape)
    return pixels, (~drawn.isfinite()).sum(-1).cpu()


def _few_of_images(
    problem: ImageProblem, noise: Noise, settings: ImageSampleSettings, test: Float[Tensor, "m directions"]
) -> list[Row]:
    """What few_steps says of one p_noise, besides what all of its rows say."""
    x = _starts(problem, noise, settings.images).to(problem.device)
    rows = []
    for sampler, budget in itertools.product(settings.samplers, settings.evaluations):
        with memory_for("samples.images", settings.images):
            ends, nfe = _in_few_steps(problem, x, sampler, budget)
        pixels, unknown = _pixels(ends, problem)
        for seed, images in enumerate(pixels):
            whole = unknown[seed] == 0
            row = {"seed": seed, "sampler": sampler, "evaluations": budget, "nfe": nfe}
            distance = _distance(images, bool(whole.all()), test, problem.seeds[seed])
            rows.append(row | distance | {"finite": whole.double().mean().item()})
    return rows


def _distance(pixels: UInt8[Tensor, "n C H W"], whole: bool, test: Float[Tensor, "m directions"], seed: str) -> Row:
    """The distance of images to the test images, null unless all their values were finite."""
    found = (math.nan, math.nan)
    if whole:
        found = sliced_wasserstein1(projections(pixels), test, stream(seed, "resampled images"))
    return {"wasserstein1": finite(found[0]), "wasserstein1_se": finite(found[1]) if len(pixels) > 1 else None}
