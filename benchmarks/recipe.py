"""What each part of the default study's training of images is worth: bits per dimension after equal core-seconds.

    python -m benchmarks.recipe                all rows of docs/training.md
    python -m benchmarks.recipe "batch 8"      one of them, beside the study's own

Every row trains the cell mnist5k, VP, T = 0.6 of `config.yaml` with some settings changed, for as many steps as cost
as much processor time as the study's own; the cost of a step is measured for both in turns, as other work on a machine
slows them alike. Then the ELBO of the same random held-out digits, with the same noise, is compared image by image.
"""

from __future__ import annotations

import math
import sys
import time
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from difftime.diffusion.sde import standard_noise
from difftime.images.pixels import bits_per_dimension
from difftime.measures.image_elbo import image_elbo, over_images
from difftime.study.cell import ImageProblem, build, recipe
from difftime.study.commands.common import dequantised, measured_images
from difftime.study.settings import Cell, read_study
from difftime.tables.render import markdown_rows
from difftime.training.train import Trained, train

IMAGES, PAIRS = 256, 4
OWN = "the default study"
ADAM = {"optimiser": "adam", "learning_rate": 1e-2}
ROWS: dict[str, tuple[dict[str, Any], dict[str, Any]]] = {
    OWN: ({}, {}),
    "Adam, rate 1e-2": (ADAM, {}),
    "without the prior of single pixels": ({}, {"pixel_prior": False}),
    "without Fourier features": ({}, {"fourier": []}),
    "Fourier features 3, 4, 5": ({}, {"fourier": [3, 4, 5]}),
    "cosine decay from 3e-2": ({"decay": "cosine", "learning_rate": 3e-2}, {}),
    "rate 2.8e-2": ({"learning_rate": 2.8e-2}, {}),
    "rate 7e-3": ({"learning_rate": 7e-3}, {}),
    "clip 1": ({"clip": 1.0}, {}),
    "batch 8": ({"batch": 8}, {}),
    "batch 4": ({"batch": 4}, {}),
    "width 24": ({}, {"width": 24}),
    "width 32": ({}, {"width": 32}),
    "three levels": ({}, {"multipliers": [1, 2, 2]}),
    "average over 50 steps": ({"ema": 0.98}, {}),
    "all of it left out: Adam, rate 3e-3, batch 32": (
        {"optimiser": "adam", "learning_rate": 3e-3, "batch": 32, "clip": 1.0},
        {"pixel_prior": False, "fourier": []},
    ),
}
"""What differs in training, and in the network."""


@dataclass(frozen=True)
class Result:
    steps: int
    seconds: float
    bpd: Tensor


def cell(training: dict[str, Any], network: dict[str, Any]) -> Cell:
    changes = {"datasets": {"mnist5k": {"training": training}}, "nets": {"unet-16": network}}
    return read_study(overrides=changes).cell("mnist5k", "vp", "unet-16", "0.6")


def trained(own: Cell, steps: int) -> tuple[ImageProblem, Trained, float]:
    """The trained network of a cell after `steps`, and the seconds of the processor."""
    own = own.model_copy(update={"training": own.training.model_copy(update={"steps": steps})})
    problem = build(own)
    start = time.process_time()
    result = train(
        problem.score, problem.training(), T=own.T, epsilon=problem.epsilon, recipe=recipe(own, 60),
        seeds=problem.seeds, name=own.name, identity={"cell": problem.digest},
    )  # fmt: skip
    return problem, result, time.process_time() - start


def costs(one: Cell, other: Cell, rounds: int = 3, steps: int = 20) -> tuple[float, float]:
    """Seconds of the processor per step of two cells: the least of some rounds, in turns."""
    found = [[trained(own, steps)[2] / steps for own in (one, other)] for _ in range(rounds)]
    return min(first for first, _ in found), min(second for _, second in found)


def measured(own: Cell, steps: int) -> Result:
    problem, result, seconds = trained(own, steps)
    problem.score.net.load_state_dict(result.weights)
    problem.score.net.requires_grad_(False)
    problem.score.net.eval()
    problem.score.net.precision = "float32"
    part = measured_images(problem.images, IMAGES)
    noise = standard_noise(problem.sde, problem.T, (problem.d,))
    elbo = image_elbo(
        problem.score, problem.sde, [noise], dequantised(problem, "benchmark", 0, part), problem.T, problem.epsilon,
        seeds=["benchmark"], indices=part, pairs=PAIRS, end_pairs=1, batch=64,
    )  # fmt: skip
    return Result(steps, seconds, bits_per_dimension(elbo.elbo_x0[0, 0], problem.d))


def row(name: str, result: Result, own: Result) -> list[str]:
    (mean, se), (change, change_se) = over_images(result.bpd), over_images(result.bpd - own.bpd)
    difference = "" if name == OWN else f"{change:+.3f} ± {change_se:.3f}"
    return [name, str(result.steps), f"{result.seconds:.0f}", f"{mean:.3f} ± {se:.3f}", difference]


def main(wanted: list[str]) -> None:
    torch.set_num_threads(1)
    own = cell(*ROWS[OWN])
    base = measured(own, own.training.steps)
    rows = [row(OWN, base, base)]
    for name in wanted or [name for name in ROWS if name != OWN]:
        other = cell(*ROWS[name])
        of_own, of_other = costs(own, other)
        rows.append(row(name, measured(other, math.floor(own.training.steps * of_own / of_other)), base))
    print(markdown_rows(["training", "steps", "core-seconds", "BPD (ELBO)", "difference, paired"], rows), end="")


if __name__ == "__main__":
    main(sys.argv[1:])
