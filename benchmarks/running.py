"""Does one pass over a model say its ELBO at every T below its own? The running ELBO beside a fresh evaluation.

    python -m benchmarks.running results/cells/dataset=mnist5k/sde=vp/net=unet-16/T=1 [--images 64] [--pairs 8]

The weights stay the same; the fresh evaluation ends the diffusion at t and draws other times and noise. Differences
are paired over the test images.
"""

from __future__ import annotations

import argparse
from pathlib import Path

import torch

from difftime.images.pixels import bits_per_dimension
from difftime.measures.curve import noises_at, running_elbo
from difftime.measures.image_elbo import image_elbo, over_images
from difftime.study.commands.common import dequantised, measured_images
from difftime.study.opening import open_cell
from difftime.tables.render import markdown_rows, plus_minus

TIMES = (0.2, 0.4, 0.6, 0.8)
END_PAIRS = 2


def main(folder: Path, images: int, pairs: int, batch: int, data_dir: Path) -> str:
    """A row per time: the ELBO in bits per dimension of both, and their paired difference."""
    cell, problem = open_cell(folder, data_dir)
    part = measured_images(problem.images, images)
    x0 = dequantised(problem, f"{cell.seed}/{cell.dataset}", 0, part)
    noises = noises_at(["standard"], problem.sde, *problem.marginals())
    how = {"indices": part, "pairs": pairs, "end_pairs": END_PAIRS, "batch": batch}
    times = torch.tensor([t for t in TIMES if t < problem.T], dtype=torch.float64)
    running = running_elbo(
        problem.score, problem.sde, noises, times, x0, problem.T, problem.epsilon, seeds=problem.seeds, **how
    )
    rows = []
    for k, t in enumerate(times.tolist()):
        fresh = image_elbo(
            problem.score, problem.sde, noises(t), x0, t, problem.epsilon,
            seeds=[f"{seed}/fresh" for seed in problem.seeds], **how,
        )  # fmt: skip
        # the residual at epsilon is of the score alone, not of t
        both = [
            bits_per_dimension(one[0, 0], problem.images.d)
            for one in (running.elbo_x0[:, :, k], fresh.elbo_eps + running.residual)
        ]
        means = [over_images(one) for one in (*both, both[0] - both[1])]
        texts = [plus_minus(one.mean.item(), one.se.item(), 4) for one in means]
        rows.append([f"{t:g}", *texts, f"{(means[2].mean / means[2].se).item():+.2f}"])
    header = ["t", "running ELBO (bpd)", "fresh ELBO (bpd)", "difference, paired", "in standard errors"]
    return f"{cell.name}, {images} test images, {pairs} pairs:\n\n{markdown_rows(header, rows)}"


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("cell", type=Path)
    parser.add_argument("--images", type=int, default=64)
    parser.add_argument("--pairs", type=int, default=8)
    parser.add_argument("--batch", type=int, default=64)
    parser.add_argument("--data-dir", type=Path, default=Path("data"))
    given = parser.parse_args()
    print(main(given.cell, given.images, given.pairs, given.batch, given.data_dir))
