"""Bits per dimension and NFE of the test images of one cell, under the probability-flow ODE."""

from __future__ import annotations

import time
from collections.abc import Sequence
from pathlib import Path

import torch
from jaxtyping import Float, Int
from torch import Tensor

from difftime.diffusion.score import Hutchinson, rademacher
from difftime.diffusion.sde import Noise
from difftime.images.pixels import bits_per_dimension
from difftime.measures.image_elbo import over_images
from difftime.measures.likelihood import ode_likelihood
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
from difftime.study.settings import BpdSettings
from difftime.support.files import discard
from difftime.support.progress import Progress, Watched
from difftime.support.streams import stream
from difftime.tables.schema import write_rows
from difftime.training.checkpoint import save_resume
from difftime.training.parallel import ALONE, Group

RESUME = "bpd.resume.pt"


def _batches(images: Int[Tensor, " n"], settings: BpdSettings) -> list[tuple[int, Int[Tensor, " batch"]]]:
    """Every image once per draw, the last batch as long as it happens to be: the draw, and indices."""
    return [(draw, part) for draw in range(settings.draws) for part in images.split(settings.batch)]


def _solve(
    problem: ImageProblem, noises: Sequence[Noise], settings: BpdSettings, streams: str, draw: int, part: Tensor
) -> dict[str, Tensor]:
    """log q of a batch of images [noises, seeds, batch] in nats, and what the solver did, per seed."""
    x = dequantised(problem, streams, draw, part)
    signs = [rademacher((problem.images.d,), stream(streams, "Hutchinson's probe", draw, i)) for i in part.tolist()]
    solved = ode_likelihood(
        Watched(f"bpd {problem.name}", problem.score), problem.sde, noises, x.expand(len(problem.seeds), -1, -1),
        problem.T, problem.epsilon,
        rtol=settings.rtol, atol=settings.atol, max_evaluations=settings.max_evaluations,
        divergence=Hutchinson(torch.stack(signs).to(x.device)),
    )  # fmt: skip
    return {name: getattr(solved, name).cpu() for name in ("log_q", "nfe", "accepted", "rejected")}


def run(folder: Path, settings: BpdSettings, p_noise: Sequence[str], *, data_dir: Path, group: Group = ALONE) -> None:
    """Read the trained cell in `folder`; write bpd.parquet and bpd_images.parquet. A cut run goes on where it was.

    The processes of `group` solve whole batches, to which the NFE belongs: their number changes no bit.
    """
    cell, problem = open_images(folder, data_dir)
    streams, noises = f"{cell.seed}/{cell.dataset}", p_noises(problem, p_noise, folder)
    batches = _batches(measured_images(problem.images, settings.images), settings)
    identity = evaluation(problem, folder, settings, p_noise, fingerprint("study.commands.bpd"))
    done, seconds = resumed(folder / RESUME, identity)
    counts = [len(part) for _, part in batches]
    progress = Progress(f"bpd {cell.name}", sum(counts), "image", done=sum(counts[: len(done)]))
    group.agree(len(done), folder)

    def solve(batch: tuple[int, Tensor]) -> dict[str, Tensor]:
        with memory_for("bpd.batch", settings.batch):
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
        return
    _write(folder, cell, problem, settings, p_noise, batches, done, cell.seeds * sum(counts) / seconds)
    discard(folder / RESUME)
    log.info("Bits per dimension of %d images: %s", sum(counts) // settings.draws, folder / "bpd.parquet")


def _write(folder, cell, problem, settings, p_noise, batches, done, images_per_second) -> None:
    d = problem.images.d
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
            values = bits_per_dimension(log_q[i, seed], d)
            good = values.isfinite()
            if not good.all():
                log.warning(
                    "WARNING: %s, seed %d, %s p_noise: %d of %d values are not finite and in no mean.",
                    cell.name, seed, name, (~good).sum(), len(good),
                )  # fmt: skip
            mean, se = over_images(values[good], image[good]) if good.any() else (torch.nan, torch.nan)
            rows.append(key | {
                "bpd": finite(mean), "bpd_se": finite(se), "log_q_ode": finite(log_q[i, seed, good].mean()),
                "images": len(image.unique()), "draws": settings.draws, "failed": int((~good).sum()),
                "batch": settings.batch, "nfe": counts["nfe"][seed].mean().item(),
                "nfe_sd": finite(counts["nfe"][seed].std()) if len(done) > 1 else None,
                "accepted": counts["accepted"][seed].mean().item(),
                "rejected": counts["rejected"][seed].mean().item(), "rtol": settings.rtol, "atol": settings.atol,
                "epsilon": problem.epsilon, "data_digest": problem.images.digest,
                "images_per_second": images_per_second,
            })  # fmt: skip
            single += [
                key | {
                    "image": k, "draw": j, "log_q_ode": finite(nats), "bpd": finite(bits), "nfe": calls,
                }
                for k, j, nats, bits, calls in zip(
                    image.tolist(), draws.tolist(), log_q[i, seed].tolist(), values.tolist(), nfe[seed].tolist(),
                    strict=True,
                )
            ]  # fmt: skip
    write_rows(folder / "bpd_images.parquet", "bpd_images", single)
    write_rows(folder / "bpd.parquet", "bpd", rows)
