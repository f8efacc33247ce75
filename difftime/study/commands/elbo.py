"""Take the ELBO of one cell apart, for every p_noise and seed, and at every time that its models know."""

from __future__ import annotations

import math
import time
from collections.abc import Sequence
from pathlib import Path

import torch
from jaxtyping import Float, Int
from torch import Tensor

from difftime.diffusion.p_noise import MixtureNoise, check_memory
from difftime.diffusion.sde import Noise
from difftime.measures.curve import DensityCurve, ImageCurve, NoisesAt, density_curve, image_curve, noises_at
from difftime.measures.elbo import Integrands, end_terms, expected_log_density, integrands
from difftime.measures.image_elbo import ImageElbo, image_elbo, over_images
from difftime.measures.levels import boundaries, density_levels, image_levels
from difftime.study.cell import ImageProblem, MixtureProblem, Problem, p_noises
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
from difftime.study.settings import BadSettings, Cell, ImageElboSettings, MixtureElboSettings
from difftime.support.files import discard
from difftime.support.progress import Progress, Watched
from difftime.tables.schema import Row, filled
from difftime.training.checkpoint import save_resume
from difftime.training.parallel import ALONE, Group

RESUME = "elbo.resume.pt"
LN2 = math.log(2)
END_PAIRS = 2
"""Antithetic pairs of an image's draws of x_epsilon, and of x_T where the prior term has no closed form."""
SAVED = ("prior", "I", "residual", "errors")
"""The terms of images, batch by batch."""
OF_IMAGE = ("elbo", "prior", "I", "decoder", "elbo_x0")


def run(
    folder: Path,
    settings: MixtureElboSettings | ImageElboSettings,
    p_noise: Sequence[str],
    *,
    data_dir: Path,
    group: Group = ALONE,
) -> Work | None:
    """Read the trained cell in `folder`; write elbo.parquet, and elbo_units.parquet of images.

    An evaluation of images that was cut goes on where it was. The processes of `group` take whole batches of them:
    their number changes no bit. Returns None in all processes but the first.
    """
    cell, problem = open_cell(folder, data_dir)
    if isinstance(problem, MixtureProblem):
        assert isinstance(settings, MixtureElboSettings)
        return _of_density(folder, cell, problem, settings, p_noise)
    assert isinstance(settings, ImageElboSettings)
    return _of_images(folder, cell, problem, settings, p_noise, group)


def _of_density(
    folder: Path, cell: Cell, problem: MixtureProblem, settings: MixtureElboSettings, p_noise: Sequence[str]
) -> Work:
    """The ELBO against the exact score: Eq. 11, as its terms have the smaller error; Eq. 4 is the check."""
    start = time.monotonic()
    p, sde, T, epsilon = problem.density, problem.sde, problem.T, problem.epsilon
    streams = f"{cell.seed}/{cell.dataset}"
    log_p_data, log_p_data_se = expected_log_density(p, points=settings.points, seed=streams)
    found = integrands(
        problem.score, p, sde, T, epsilon,
        seeds=cell.seeds, time_steps=settings.time_steps, points=settings.points, seed=streams,
    )  # fmt: skip
    path, noises = found.path, p_noises(problem, p_noise, folder)
    names, at = _noises_at(problem, p_noise, noises)
    curve = density_curve(
        found, p, sde, at, _times(cell, problem, settings), T, epsilon, points=settings.points, seed=streams
    )
    rows = []
    for name, noise in zip(p_noise, noises, strict=True):
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
    tables = {
        "elbo": rows, "curve": _density_curve_rows(cell, problem, names, curve, log_p_data),
        "levels": _density_levels_rows(cell, problem, found),
    }  # fmt: skip
    write_tables(folder, "elbo", tables)
    log.info("ELBO taken apart at %d times: %s", settings.time_steps, folder / "elbo.parquet")
    return Work(time.monotonic() - start, None)


def _times(cell: Cell, problem: Problem, settings: MixtureElboSettings | ImageElboSettings) -> Float[Tensor, " times"]:
    """The times of the running ELBO, up to the T of the cell. Raises BadSettings if epsilon is not before them."""
    times = problem.T * (torch.arange(1, settings.times + 1, dtype=torch.float64) / settings.times)
    if times[0] <= problem.epsilon:
        raise BadSettings(
            f"{cell.name} is asked for the ELBO at {times[0]:g}, not above epsilon, {problem.epsilon:g}: "
            "lower elbo.times."
        )
    return times


def _noises_at(problem: Problem, names: Sequence[str], noises: Sequence[Noise]) -> tuple[list[str], NoisesAt]:
    """The p_noises that are known at every time, by their names: all but those that were fitted to x_T."""
    known = [name for name in names if name != "flow"]
    mean, variance = problem.marginals()
    covariance = problem.known_moments().covariance if "full" in known else None
    mixture = next((noise for noise in noises if isinstance(noise, MixtureNoise)), None)
    return known, noises_at(known, problem.sde, mean, variance, covariance, mixture)


def _density_curve_rows(
    cell: Cell, problem: MixtureProblem, names: Sequence[str], curve: DensityCurve, log_p_data: float
) -> list[Row]:
    return [
        filled("curve", keys(cell) | {
            "seed": seed, "p_noise": name, "t": t, "elbo": finite(curve.elbo[i, seed, k]),
            "elbo_se": finite(curve.elbo_se[i, seed, k]), "prior": curve.prior[i, k].item(),
            "I": finite(curve.I[seed, k]), "I_se": finite(curve.I_se[seed, k]), "R": curve.R[k].item(),
            "kl": finite(curve.kl[i, k]), "gap": finite(curve.gap[seed, k].clamp(min=0)), "log_p_data": log_p_data,
            "epsilon": problem.epsilon, "weighting": weighting(cell),
        })
        for i, name in enumerate(names)
        for seed in range(cell.seeds)
        for k, t in enumerate(curve.t.tolist())
    ]  # fmt: skip


def _density_levels_rows(cell: Cell, problem: MixtureProblem, found: Integrands) -> list[Row]:
    level = boundaries(problem.sde, problem.T, problem.epsilon)
    known = density_levels(found, level, problem.density.d)
    return [
        _level_key(cell, problem, seed, level, k) | {
            "error": finite(known.error[seed, k]), "error_se": finite(known.error_se[seed, k]),
            "excess": finite(known.excess[seed, k]), "excess_se": finite(known.excess_se[seed, k]),
        }
        for seed in range(cell.seeds)
        for k in range(len(level) - 1)
    ]  # fmt: skip


def _image_levels_rows(cell: Cell, problem: ImageProblem, terms: ImageElbo, images: Int[Tensor, " n"]) -> list[Row]:
    level = boundaries(problem.sde, problem.T, problem.epsilon)
    found = over_images(image_levels(
        terms, problem.sde, level, problem.T, problem.epsilon, problem.images.d, seeds=problem.seeds, indices=images
    ))  # fmt: skip
    return [
        filled("levels", _level_key(cell, problem, seed, level, k) | {
            "error": finite(found.mean[seed, k]), "error_se": finite(found.se[seed, k]), "units": len(images),
        })
        for seed in range(cell.seeds)
        for k in range(len(level) - 1)
    ]  # fmt: skip


def _level_key(cell: Cell, problem: Problem, seed: int, level: Float[Tensor, " boundaries"], k: int) -> Row:
    low, high = level[k : k + 2].tolist()
    return keys(cell) | {
        "seed": seed, "low": low, "high": high, "units": None, "epsilon": problem.epsilon, "weighting": weighting(cell),
    }  # fmt: skip


def _image_curve_rows(
    cell: Cell, problem: ImageProblem, names: Sequence[str], curve: ImageCurve, images: Sequence[int]
) -> tuple[list[Row], list[Row]]:
    """The rows of the tables curve and curve_units."""
    rows, single = [], []
    for i, name in enumerate(names):
        for seed in range(cell.seeds):
            for k, t in enumerate(curve.t.tolist()):
                key = keys(cell) | {"seed": seed, "p_noise": name, "t": t}
                nats, bits = curve.elbo_eps[i, seed, k], bits_of(problem, curve.elbo_x0[i, seed, k])
                elbo, of_bits, of_I = over_images(nats), over_images(bits), over_images(curve.I[seed, k])
                rows.append(filled("curve", key | {
                    "elbo": finite(elbo.mean), "elbo_se": finite(elbo.se), "prior": curve.prior[i, k].mean().item(),
                    "I": finite(of_I.mean), "I_se": finite(of_I.se), "R": curve.R[k].item(),
                    "elbo_bpd": finite(of_bits.mean), "elbo_bpd_se": finite(of_bits.se),
                    "epsilon": problem.epsilon, "weighting": weighting(cell),
                }))  # fmt: skip
                single += [
                    key | {"unit": image, "elbo": finite(own), "elbo_bpd": finite(own_bits)}
                    for image, own, own_bits in zip(images, nats.tolist(), bits.tolist(), strict=True)
                ]
    return rows, single


def weighting(cell: Cell) -> str | None:
    """The weight in the loss of Eq. 3; null for a network that was not trained here."""
    return cell.training.weighting if cell.training else None


def _made_with(cell: Cell, epsilon: float) -> Row:
    return {"epsilon": epsilon, "weighting": weighting(cell), "steps": cell.training and cell.training.steps}


def _of_images(
    folder: Path, cell: Cell, problem: ImageProblem, settings: ImageElboSettings, p_noise: Sequence[str], group: Group
) -> Work | None:
    """The ELBO of the test images by Eq. 4, and the bracket of the KL from the training images."""
    noises, d = p_noises(problem, p_noise, folder), problem.images.d
    if "full" in p_noise:  # its bracket comes when all else is done
        check_memory("full", d, 0)
    part = measured_images(problem.images, settings.images)
    streams = f"{cell.seed}/{cell.dataset}"
    terms, seconds = _terms(folder, problem, noises, settings, streams, part, p_noise, group)
    if not group.first:
        return None
    names, at = _noises_at(problem, p_noise, noises)
    x0, times = dequantised(problem, streams, 0, part).cpu(), _times(cell, problem, settings)
    curve = image_curve(
        terms, problem.sde, at, times, x0, problem.T, problem.epsilon,
        seeds=problem.seeds, indices=part, end_pairs=END_PAIRS, batch=settings.batch,
    )  # fmt: skip
    of_curve, curve_units = _image_curve_rows(cell, problem, names, curve, part.tolist())
    rows, single = [], []
    for i, (name, noise) in enumerate(zip(p_noise, noises, strict=True)):
        bracket = problem.bracket(noise)
        nats = {"kl_low": bracket.lower, "kl_high": bracket.upper} if bracket else {}
        bits = {f"{name}_bpd": value / (d * LN2) for name, value in nats.items()}
        of_kl = {name: finite(value) for name, value in (nats | bits).items()}
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
                "elbo_bpd": finite(bits_of(problem, means["elbo_x0"].mean)),
                "elbo_bpd_se": finite(means["elbo_x0"].se / (d * LN2)), "R": terms.R,
                "units": len(part), "data_digest": problem.images.digest,
            }))  # fmt: skip
            per_image = bits_of(problem, values["elbo_x0"])
            single += [
                key | {"unit": image, "elbo_bpd": finite(per_image[k])}
                | {quantity: finite(values[quantity][k]) for quantity in OF_IMAGE}
                for k, image in enumerate(part.tolist())
            ]  # fmt: skip
    tables = {
        "elbo": rows, "elbo_units": single, "curve": of_curve, "curve_units": curve_units,
        "levels": _image_levels_rows(cell, problem, terms, part),
    }  # fmt: skip
    write_tables(folder, "elbo", tables)
    discard(folder / RESUME)
    log.info("ELBO of %d images taken apart: %s", len(part), folder / "elbo.parquet")
    return Work(seconds, cell.seeds * len(part) / seconds)


def _terms(
    folder: Path, problem: ImageProblem, noises: Sequence[Noise], settings: ImageElboSettings, streams: str,
    images: Tensor, p_noise: Sequence[str], group: Group,
) -> tuple[ImageElbo, float]:  # fmt: skip
    """The terms of all images and the seconds that they took, saved when a batch of every process is done."""
    identity = evaluation(problem, folder, settings, p_noise, fingerprint("study.commands.elbo"))
    done, seconds = resumed(folder / RESUME, identity)
    group.agree(len(done), folder)
    batches = images.split(settings.batch)
    counts = [len(part) for part in batches]
    progress = Progress(f"elbo {problem.name}", len(images), "image", done=sum(counts[: len(done)]))
    decoder = problem.decoder  # which looks at all training images
    watched = Watched(f"elbo {problem.name}", problem.score)

    def measure(part: Tensor) -> dict[str, Tensor]:
        with memory_for("elbo.batch", settings.batch):
            terms = image_elbo(
                watched, problem.sde, noises, dequantised(problem, streams, 0, part), problem.T, problem.epsilon,
                seeds=problem.seeds, indices=part, pairs=settings.pairs, end_pairs=END_PAIRS, batch=settings.batch,
                decoder=decoder,
            )  # fmt: skip
        return {name: getattr(terms, name) for name in SAVED}

    start = time.monotonic()
    for measured in group.each(batches[len(done) :], measure):
        seconds += time.monotonic() - start
        done += measured
        if group.first:
            save_resume(folder / RESUME, {"identity": identity, "batches": done, "seconds": seconds})
        progress.advance(sum(counts[: len(done)]) - progress.done)
        start = time.monotonic()
    progress.close()
    joined = {name: torch.cat([batch[name] for batch in done], -1) for name in SAVED}
    return ImageElbo(R=problem.images.d * problem.sde.R(problem.T, problem.epsilon), **joined), seconds
