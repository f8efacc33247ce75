"""Training and evaluating networks on images, against how the reference implementation does both (`reference.py`).

Three tables, all of real digits and all measured interleaved: training steps of the MNIST network of the paper; the
right-hand side of its probability-flow ODE, as a solver calls it; and whole evaluations of bits per dimension. The last
are of a small network that is trained first, because the steps of a solver depend on what it solves. They show what
bfloat16 does to the NFE and to the bits per dimension, where the CPU has instructions for it.
"""

from __future__ import annotations

import statistics
import tempfile
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import TypeVar

import torch
from torch import Tensor

from benchmarks import reference
from difftime.diffusion.score import Hutchinson, rademacher
from difftime.images.pixels import bits_per_dimension
from difftime.measures.likelihood import ode_likelihood
from difftime.study.cell import WEIGHTS, ImageProblem, build, recipe
from difftime.study.commands.common import dequantised, describe
from difftime.study.settings import Cell, read_files, read_study
from difftime.support.streams import stream
from difftime.tables.render import markdown_rows
from difftime.training.checkpoint import save_weights
from difftime.training.nets.images import usable
from difftime.training.train import Trained, train

ROOT = Path(__file__).parent.parent
ROUNDS = 3
T = "1.0"
STEPS, BATCH = 3, 32
"""Of training, a round."""
CALL_IMAGES = 16
"""In the right-hand side at once."""
SMALL_STEPS = 300
"""Of training the network whose bits per dimension are measured."""
IMAGES, TOLERANCE = 8, 1e-5
"""Solved as one system, whose NFE it is."""
MOST_CHANGE = 0.005
"""Of the bits per dimension, for a speed to count."""
R = TypeVar("R")
NAMES = {
    "reference": "reference",
    "float32": "`difftime`, float32",
    "bfloat16": "`difftime`, bfloat16",
}


@dataclass(frozen=True)
class Evaluation:
    """What an evaluation of some images took and what it found."""

    seconds: float
    nfe: int
    bpd: Tensor


def cells() -> tuple[Cell, Cell]:
    """The paper's MNIST network, and the default study's, both on the 5,000 digits that need no download."""
    paper = read_files([ROOT / "config" / "paper.yaml"])
    own = {"time_sampling": "uniform", "optimiser": "adam", "decay": "none", "steps": STEPS, "batch": BATCH}
    training = paper["datasets"]["mnist"]["training"] | own
    nets = {
        "paper": paper["nets"]["ncsnpp-mnist"] | {"compile": False, "training": training},
        # the reference knows no prior of pixels; without it Fourier features make an ODE that 1e-5 does not resolve
        "unet-16": {"training": {"steps": SMALL_STEPS}, "pixel_prior": False, "fourier": []},
    }
    study = read_study(overrides={"nets": nets})
    return study.cell("mnist5k", "vp", "paper", T), study.cell("mnist5k", "vp", "unet-16", T)


def trained(cell: Cell, problem: ImageProblem) -> Trained:
    """As the command `train` does it, without its files."""
    return train(
        problem.score, problem.training(), T=cell.T, epsilon=problem.epsilon, recipe=recipe(cell, 60),
        seeds=problem.seeds, name=cell.name, identity={"cell": problem.digest},
    )  # fmt: skip


def training(cell: Cell) -> tuple[str, dict[str, Tensor]]:
    """The table of training steps, and the network's weights after some of them."""
    plan, bare = cell.training, _network(build(cell))
    problem = build(cell)

    def ours() -> float:
        return trained(cell, problem).seconds

    def theirs() -> float:
        start = time.perf_counter()
        reference.train(
            bare, problem.images.train, T=cell.T, epsilon=problem.epsilon, steps=plan.steps, batch=plan.batch,
            learning_rate=plan.learning_rate, warmup=plan.warmup, clip=plan.clip, ema=plan.ema,
        )  # fmt: skip
        return time.perf_counter() - start

    ways = {"reference": theirs, problem.score.net.precision: ours}
    for way in ways.values():  # PyTorch generates kernels, and Adam imports the compiler, when first met
        way()
    times = interleaved(ways)
    rows = [
        [NAMES[key], f"{per(times[key], plan.steps):.2f}", f"{plan.batch / per(times[key], plan.steps):.1f}", gain]
        for key, gain in gains(times).items()
    ]
    parameters = sum(p.numel() for p in bare.parameters())
    title = f"training the MNIST network ({parameters:,} parameters), batch {plan.batch}"
    return markdown_rows([title, "seconds per step", "images/s", "times as fast (range)"], rows), (
        problem.score.net.state_dict()
    )


def calls(cell: Cell, weights: dict[str, Tensor]) -> str:
    """The table of right-hand sides: whole evaluations, but of so short a diffusion that one step does."""
    ways = evaluations(cell, weights, CALL_IMAGES, T=2 * cell.diffusion.epsilon, tolerance=0.1)
    spent = {key: [one.seconds / one.nfe for one in of_key] for key, of_key in interleaved(ways).items()}
    rows = [
        [NAMES[key], f"{per(spent[key], 1):.2f}", f"{CALL_IMAGES / per(spent[key], 1):.1f}", gain]
        for key, gain in gains(spent).items()
    ]
    title = f"right-hand side of the MNIST network, {CALL_IMAGES} images"
    return markdown_rows([title, "seconds per call", "images/s", "times as fast (range)"], rows)


def whole(cell: Cell) -> str:
    """The table of whole evaluations with the small network, trained here."""
    weights = trained(cell, build(cell)).weights
    done = interleaved(evaluations(cell, weights, IMAGES, T=cell.T, tolerance=TOLERANCE))
    spent = {key: [one.seconds for one in of_key] for key, of_key in done.items()}
    truth, rows = done["reference"][0].bpd, []
    for key, gain in gains(spent).items():
        bpd = done[key][0].bpd
        change = bpd - truth
        moved = "" if key == "reference" else f"{change.mean():+.5f} ({change.abs().max():.5f})"
        nfe, seconds = done[key][0].nfe, per(spent[key], 1)
        verdict = "below" if change.mean().abs() < MOST_CHANGE else "NOT below"
        moved += "" if key == "reference" else f", {verdict} {MOST_CHANGE}"
        row = [NAMES[key], str(nfe), f"{seconds:.1f}", f"{1000 * seconds / nfe:.0f}", f"{IMAGES / seconds:.3f}", gain]
        rows.append([*row, f"{bpd.mean():.4f}", moved])
    title = f"BPD of {IMAGES} images, {cell.net} after {cell.training.steps} steps, rtol = atol = {TOLERANCE:g}"
    columns = ["NFE", "seconds", "ms per call", "images/s", "times as fast (range)", "BPD", "change (largest)"]
    return markdown_rows([title, *columns], rows)


def evaluations(
    cell: Cell, weights: dict[str, Tensor], count: int, *, T: float, tolerance: float
) -> dict[str, Callable[[], Evaluation]]:
    """Ways to evaluate the same `count` test images with the same weights and the same probes, up to time T."""
    precisions = sorted({"float32", usable("bfloat16", torch.device("cpu"))}, reverse=True)
    problems = {precision: _loaded(cell, weights, precision) for precision in precisions}
    problem, bare = problems["float32"], _network(_loaded(cell, weights, "float32"))
    bare.requires_grad_(True)  # the reference does not freeze weights
    # the digits are sorted
    x = dequantised(problem, "benchmark", 0, torch.arange(count) * (len(problem.images.test) // count))
    probe = rademacher(x.shape, stream("benchmark", "Hutchinson's probe"))
    options = {"T": T, "epsilon": problem.epsilon, "rtol": tolerance, "atol": tolerance}

    def theirs() -> Evaluation:
        start = time.perf_counter()
        images = x.unflatten(1, problem.images.shape)
        log_q, nfe = reference.log_likelihood(bare, images, probe.view_as(images), **options)
        return Evaluation(time.perf_counter() - start, nfe, bits_per_dimension(log_q.double(), x.shape[1]))

    def ours(problem: ImageProblem) -> Evaluation:
        start = time.perf_counter()
        solved = ode_likelihood(
            problem.score, problem.sde, [problem.noise("standard")], x[None], **options, max_evaluations=100_000,
            divergence=Hutchinson(probe),
        )  # fmt: skip
        bpd = bits_per_dimension(solved.log_q[0, 0], x.shape[1])
        return Evaluation(time.perf_counter() - start, int(solved.nfe), bpd)

    return {"reference": theirs} | {name: lambda p=p: ours(p) for name, p in problems.items()}


def _loaded(cell: Cell, weights: dict[str, Tensor], precision: str) -> ImageProblem:
    problem = build(cell, precision=precision)
    with tempfile.TemporaryDirectory() as folder:
        save_weights(Path(folder) / WEIGHTS, weights, problem.digest)
        problem.load(Path(folder))
    return problem


def _network(problem: ImageProblem) -> torch.nn.Module:
    """The one network of a cell, on images instead of vectors."""
    (network,) = problem.score.net.models
    return network


def interleaved(ways: dict[str, Callable[[], R]]) -> dict[str, list[R]]:
    """What every way gave in every round."""
    done: dict[str, list[R]] = {key: [] for key in ways}
    for _ in range(ROUNDS):
        for key, way in ways.items():
            done[key].append(way())
    return done


def per(seconds: list[float], count: int) -> float:
    """The median of the rounds, divided by what was done in each."""
    return statistics.median(seconds) / count


def gains(times: dict[str, list[float]]) -> dict[str, str]:
    """How many times as fast as the reference, round by round: the median, with the range."""
    ratios = {
        key: [a / b for a, b in zip(times["reference"], of_key, strict=True)] for key, of_key in times.items()
    }  # fmt: skip
    texts = {key: f"{statistics.median(r):.2f} ({min(r):.2f} to {max(r):.2f})" for key, r in ratios.items()}
    return texts | {"reference": "1"}


def main() -> str:
    """Three Markdown tables: seconds, images per second, and the ratios to the reference with their range."""
    paper, small = cells()
    steps, weights = training(paper)
    parts = [f"On the {describe(torch.device('cpu'))}:\n", steps, calls(paper, weights), whole(small)]
    return "\n".join(parts)


if __name__ == "__main__":
    print(main())
