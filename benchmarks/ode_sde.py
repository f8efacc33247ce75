"""Why the bits of the probability-flow ODE and those of the reverse SDE differ: level by level, for a cell of images.

    python -m benchmarks.ode_sde results/cells/dataset=mnist5k/sde=vp/net=unet-16/T=0.4 --data-dir data --images 32

With z_hat = -sigma s, and by Stein's identity E[z · s] = sigma E[div s], the two integrands over lambda differ at the
same x_t by

    log q_ODE - ELBO = ½ ∫ E[z_hat · (z_hat - z)] d lambda.

The exact z_hat = E[z | x_t] makes that 0. An error of z_hat that has nothing to do with z_hat itself costs the SDE its
square, the gap, and costs the ODE nothing. Further parts of the difference: the ODE's x_t are not those of p(x, t), and
the table's BPD takes x_0 for x_epsilon, where the bound of the SDE adds noise and a decoder. At a tenth of
epsilon x_0 and x_epsilon differ less: there the network may see times that it was not trained at.
"""

from __future__ import annotations

import argparse
from itertools import pairwise
from pathlib import Path

import torch
from torch import Tensor

from difftime.diffusion.score import Hutchinson, rademacher
from difftime.diffusion.sde import Gaussian, expand, standard_noise
from difftime.measures.image_elbo import gaussian, image_elbo, over_images
from difftime.measures.levels import boundaries
from difftime.measures.likelihood import ode_likelihood
from difftime.study.cell import ImageProblem
from difftime.study.commands.common import dequantised, measured_images
from difftime.study.opening import open_cell
from difftime.support.streams import stream
from difftime.tables.render import markdown_rows, plus_minus


def calibration(problem: ImageProblem, x0: Tensor, level: Tensor, pairs: int, generator: torch.Generator) -> Tensor:
    """½ ∫ z_hat · (z_hat - z) d lambda of every image over every interval of `level`, in nats, [intervals, n]."""
    found = []
    for low, high in pairwise(level):
        total = torch.zeros(len(x0), dtype=torch.float64)
        for pair in range(pairs):
            share = (pair + torch.rand(len(x0), generator=generator, dtype=torch.float64)) / pairs
            t = problem.sde.time(low + (high - low) * share)
            z = torch.randn(x0.shape, generator=generator, dtype=torch.float64)
            for noise in (z, -z):
                x = problem.sde.perturb(x0, t, noise)
                z_hat = -expand(problem.sde.sigma(t), x) * problem.score(x[None], t[None])[0]
                total += (z_hat * (z_hat - noise)).sum(-1)
        found.append(0.5 * (high - low) * total / (2 * pairs))
    return torch.stack(found)


def solved(problem: ImageProblem, noise: Gaussian, x: Tensor, part: Tensor, epsilon: float) -> Tensor:
    """log q_ODE(x_epsilon = x) of every image in nats, solved as one system."""
    signs = [rademacher((problem.d,), stream("the ODE's probe", i)) for i in part.tolist()]
    return ode_likelihood(
        problem.score, problem.sde, [noise], x[None], problem.T, epsilon, rtol=1e-5, atol=1e-5,
        max_evaluations=100_000, divergence=Hutchinson(torch.stack(signs)),
    ).log_q[0, 0]  # fmt: skip


@torch.no_grad()
def main(folder: Path, data_dir: Path, images: int, batch: int, pairs: int) -> str:
    """Two Markdown tables, in bits per dimension."""
    cell, problem = open_cell(folder, data_dir)
    if not isinstance(problem, ImageProblem):
        raise SystemExit(f"{folder} is no cell of images.")
    part = measured_images(problem.images, images)
    x0 = dequantised(problem, f"{cell.seed}/{cell.dataset}", 0, part).double()
    level = boundaries(problem.sde, problem.T, problem.epsilon)
    noise = standard_noise(problem.sde, problem.T, (problem.d,))
    bound, of_gaussian = (
        image_elbo(
            problem.score, problem.sde, [noise], x0, problem.T, problem.epsilon, seeds=problem.seeds[:1], indices=part,
            pairs=evaluations, end_pairs=4, batch=batch, decoder=decoder,
        )
        for decoder, evaluations in ((problem.decoder, 8), (gaussian, 1))
    )  # fmt: skip
    end = torch.tensor(problem.epsilon, dtype=torch.float64)
    z = torch.randn(x0.shape, generator=stream("x_epsilon", images), dtype=torch.float64)
    noisy = problem.sde.perturb(x0, end, z)
    chunks = torch.arange(images).split(batch)
    at_x0, at_epsilon, at_earlier = (
        torch.cat([solved(problem, noise, x[chunk], part[chunk], epsilon) for chunk in chunks])
        for x, epsilon in ((x0, problem.epsilon), (noisy, problem.epsilon), (x0, problem.epsilon / 10))
    )
    decoded = at_epsilon + bound.residual[0]
    generator = stream("where the ODE and the SDE differ", images)
    parts = torch.cat([calibration(problem, x0[chunk], level, pairs, generator) for chunk in chunks], 1)

    def bits(nats: Tensor) -> Tensor:
        return problem.scale.bits_per_dimension(nats, problem.d)

    def said(of_images: Tensor) -> str:
        mean, se = over_images(of_images)
        return plus_minus(mean.item(), se.item(), 4)

    sde, ode, as_tabled, earlier = bits(bound.elbo_x0[0, 0]), bits(decoded), bits(at_x0), bits(at_earlier)
    by_gaussian = bits(bound.elbo_eps[0, 0] + of_gaussian.residual[0])
    of_parts = bits(parts) - bits(torch.zeros_like(parts))
    rows = [
        ["bound of the SDE, x_0 by a Gaussian decoder", said(by_gaussian), ""],
        ["bound of the SDE, x_0 by the decoder of pixels", said(sde), said(sde - by_gaussian)],
        ["ODE, x_0 by the decoder of pixels", said(ode), said(ode - sde)],
        ["ODE, x_0 taken for x_epsilon (the table's BPD)", said(as_tabled), said(as_tabled - ode)],
        ["the same at a tenth of epsilon", said(earlier), said(earlier - as_tabled)],
    ]
    of_levels = [
        [f"{low:.1f} to {high:.1f}", said(own)] for (low, high), own in zip(pairwise(level), of_parts, strict=True)
    ]
    of_levels += [
        ["**sum**", said(of_parts.sum(0))],
        ["the rest: x_t of the ODE is not of p(x, t)", said(ode - sde - of_parts.sum(0))],
    ]
    first = markdown_rows(["model", "bits per dimension", "less the line above"], rows)
    second = markdown_rows(["lambda", "ODE less SDE at the same x_t (bpd)"], of_levels)
    return f"{cell.name}, {images} test images, paired\n\n{first}\n{second}"


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("folder", type=Path, help="of a trained cell")
    parser.add_argument("--data-dir", type=Path, default=Path("data"), help="where downloaded images are")
    parser.add_argument("--images", type=int, default=32, help="how many test images")
    parser.add_argument("--batch", type=int, default=32, help="how many are solved as one system")
    parser.add_argument("--pairs", type=int, default=2, help="pairs of noise per image and interval")
    print(main(**vars(parser.parse_args())))
