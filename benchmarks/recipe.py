"""What each part of the training of images is worth: bits per dimension after equal core-seconds.

    python -m benchmarks.recipe                               digits: the default study, first table of docs/training.md
    python -m benchmarks.recipe "batch 8"                     one of its rows, beside the study's own
    python -m benchmarks.recipe --mnist                       config/mnist.yaml
    python -m benchmarks.recipe --photographs                 config/cifar10.yaml, first table of its photographs
    python -m benchmarks.recipe --photographs --npz part.npz  the same on other photographs (arrays `train` and `test`)

Every row trains a cell with VP, T = 0.6 with some settings changed, for as many steps as cost as much processor time as
the first row's; the cost of a step is measured for both in turns, as other work on a machine slows them alike. Then the
ELBO of the same random held-out images, with the same noise, is compared image by image.
"""

from __future__ import annotations

import argparse
import math
import time
from dataclasses import dataclass
from pathlib import Path
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

CONFIG = Path(__file__).parent.parent / "config"
OWN = "the study's own"
Changes = tuple[dict[str, Any], dict[str, Any]]
"""What differs in training, and in the network."""
ADAM = {"optimiser": "adam", "learning_rate": 1e-2}
DIGITS: dict[str, Changes] = {
    "Adam, rate 1e-2": (ADAM, {}),
    "without the prior of single pixels": ({}, {"pixel_prior": False}),
    "without Fourier features": ({}, {"fourier": []}),
    "without attention": ({}, {"bottleneck_attention": False}),
    "one level, without attention": ({}, {"multipliers": [1], "bottleneck_attention": False}),
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
MNIST: dict[str, Changes] = {
    "with attention": ({}, {"bottleneck_attention": True}),
    "one level": ({}, {"multipliers": [1]}),
    "three levels, multipliers 1, 1, 1": ({}, {"multipliers": [1, 1, 1]}),
    "width 32": ({}, {"width": 32}),
    "width 32, multipliers 1, 2": ({}, {"width": 32, "multipliers": [1, 2]}),
    "width 32, multipliers 1, 2, with attention": (
        {}, {"width": 32, "multipliers": [1, 2], "bottleneck_attention": True},
    ),
}  # fmt: skip
UNET = {"width": 32, "multipliers": [1, 2], "bottleneck_attention": True}
"""What the rows of photographs call a U-Net."""
PHOTOGRAPHS: dict[str, Changes] = {
    "with attention": ({}, {"bottleneck_attention": True}),
    "two blocks": ({}, {"blocks": 2}),
    "two levels, multipliers 1, 1": ({}, {"multipliers": [1, 1]}),
    "two levels, multipliers 1, 1, with attention": ({}, {"multipliers": [1, 1], "bottleneck_attention": True}),
    "two levels, multipliers 1, 2, with attention": ({}, UNET | {"width": 64}),
    "the same, batch 8": ({"batch": 8}, UNET | {"width": 64}),
    "U-Net": ({}, UNET),
    "U-Net, one level": ({}, UNET | {"multipliers": [1]}),
    "U-Net, multipliers 1, 1": ({}, UNET | {"multipliers": [1, 1]}),
    "U-Net, multipliers 1, 2, 2": ({}, UNET | {"multipliers": [1, 2, 2]}),
    "U-Net, two blocks a level": ({}, UNET | {"blocks": 2}),
    "U-Net, Fourier features 5, 6": ({}, UNET | {"fourier": [5, 6]}),
    "U-Net, the prior of single pixels": ({}, UNET | {"pixel_prior": True}),
    "U-Net, rate 2e-2": ({"learning_rate": 2e-2}, UNET),
    "U-Net, rate 5e-3": ({"learning_rate": 5e-3}, UNET),
    "U-Net, Adam, rate 2e-3": ({"optimiser": "adam", "learning_rate": 2e-3}, UNET),
}


@dataclass(frozen=True)
class Comparison:
    """Rows beside a cell of a study, which itself differs from it in `own`; measured on so many images and pairs."""

    file: Path | None
    dataset: str
    network: str
    own: Changes
    rows: dict[str, Changes]
    images: int
    pairs: int
    data_dir: Path
    path: Path | None = None

    def cell(self, row: Changes) -> Cell:
        training, network = (of_own | of_row for of_own, of_row in zip(self.own, row, strict=True))
        data = {} if self.path is None else {"kind": "npz", "path": str(self.path.resolve())}
        changes = {"datasets": {self.dataset: data}, "nets": {self.network: network | {"training": training}}}
        study = read_study([self.file] if self.file else [], overrides=changes)
        return study.cell(self.dataset, "vp", self.network, "0.6")


@dataclass(frozen=True)
class Result:
    steps: int
    seconds: float
    bpd: Tensor


def trained(own: Cell, steps: int, data_dir: Path) -> tuple[ImageProblem, Trained, float]:
    """The trained network of a cell after `steps`, and the seconds of the processor."""
    own = own.model_copy(update={"training": own.training.model_copy(update={"steps": steps})})
    problem = build(own, data_dir=data_dir)
    start = time.process_time()
    result = train(
        problem.score, problem.training(), T=own.T, epsilon=problem.epsilon, recipe=recipe(own, 60),
        seeds=problem.seeds, name=own.name, identity={"cell": problem.digest},
    )  # fmt: skip
    return problem, result, time.process_time() - start


def costs(one: Cell, other: Cell, data_dir: Path, rounds: int = 3, steps: int = 20) -> tuple[float, float]:
    """Seconds of the processor per step of two cells: the least of some rounds, in turns."""
    found = [[trained(own, steps, data_dir)[2] / steps for own in (one, other)] for _ in range(rounds)]
    return min(first for first, _ in found), min(second for _, second in found)


def measured(own: Cell, steps: int, of: Comparison) -> Result:
    _, result, seconds = trained(own, steps, of.data_dir)
    problem = build(own, data_dir=of.data_dir, precision="float32")
    problem.score.net.load_state_dict(result.weights)
    problem.score.net.requires_grad_(False)
    problem.score.net.eval()
    part = measured_images(problem.images, of.images)
    noise = standard_noise(problem.sde, problem.T, (problem.d,))
    elbo = image_elbo(
        problem.score, problem.sde, [noise], dequantised(problem, "benchmark", 0, part), problem.T, problem.epsilon,
        seeds=["benchmark"], indices=part, pairs=of.pairs, end_pairs=1, batch=64,
    )  # fmt: skip
    return Result(steps, seconds, bits_per_dimension(elbo.elbo_x0[0, 0], problem.d))


def row(name: str, result: Result, own: Result) -> list[str]:
    (mean, se), (change, change_se) = over_images(result.bpd), over_images(result.bpd - own.bpd)
    difference = "" if name == OWN else f"{change:+.3f} ± {change_se:.3f}"
    return [name, str(result.steps), f"{result.seconds:.0f}", f"{mean:.3f} ± {se:.3f}", difference]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("rows", nargs="*", help="names of rows; none: all")
    other_data = parser.add_mutually_exclusive_group()
    other_data.add_argument("--mnist", action="store_true", help="all of MNIST in place of the default study's digits")
    other_data.add_argument("--photographs", action="store_true", help="CIFAR-10 in place of them")
    parser.add_argument("--npz", type=Path, help="photographs in place of CIFAR-10's")
    parser.add_argument("--data-dir", type=Path, default=Path("data"), help="where downloaded data sets are, or go")
    asked = parser.parse_args()
    if asked.npz and not asked.photographs:
        parser.error("--npz is for --photographs")
    short = {"steps": 600, "warmup": 50, "ema": 0.99}
    if asked.photographs:
        of = Comparison(
            CONFIG / "cifar10.yaml", "cifar10", "ncsnpp-64", (short, {}), PHOTOGRAPHS, images=96, pairs=2,
            data_dir=asked.data_dir, path=asked.npz,
        )  # fmt: skip
    elif asked.mnist:
        of = Comparison(
            CONFIG / "mnist.yaml", "mnist", "unet-48", (short, {}), MNIST, images=128, pairs=4, data_dir=asked.data_dir
        )
    else:
        of = Comparison(None, "mnist5k", "unet-16", ({}, {}), DIGITS, images=256, pairs=4, data_dir=asked.data_dir)
    if unknown := set(asked.rows) - set(of.rows):
        missing, there = (", ".join(map(repr, names)) for names in (sorted(unknown), of.rows))
        parser.error(f"there is no row {missing}; there are {there}")
    torch.set_num_threads(1)
    own = of.cell(({}, {}))
    base = measured(own, own.training.steps, of)
    rows = [row(OWN, base, base)]
    for name in asked.rows or of.rows:
        other = of.cell(of.rows[name])
        of_own, of_other = costs(own, other, of.data_dir)
        steps = math.floor(own.training.steps * of_own / of_other)
        rows.append(row(name, measured(other, steps, of), base))
    print(markdown_rows(["training", "steps", "core-seconds", "BPD (ELBO)", "difference, paired"], rows), end="")


if __name__ == "__main__":
    main()
