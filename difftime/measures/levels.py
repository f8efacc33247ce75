"""How well a model knows the score at each level of noise, lambda = log(sigma²/alpha²).

    error  = E||sigma s + z||² / d               excess = E||sigma (s - ∇ log p)||² / d

are means over intervals of lambda. A score that knows nothing, s = 0, has the error 1. The exact score has the error
less the excess. I of Eq. 6 is d/2 times the integral of the error over lambda, and the gap that of the excess. So the
means are differences of the running integrals of `curve`, and need no evaluation of the score.

Neighbouring intervals meet at whole multiples of WIDTH, whatever the SDE and T are: models of different T can be
compared level by level. What the ends, epsilon and T, leave of an interval belongs to its neighbour if it is short.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import torch
from jaxtyping import Float, Int
from torch import Tensor

from difftime.diffusion.sde import SDE
from difftime.measures.curve import running_I, running_weights
from difftime.measures.elbo import Integrands
from difftime.measures.image_elbo import ImageElbo

WIDTH = 2.0
"""Of an interval of lambda; at epsilon and T from half of it to one and a half."""


@dataclass(frozen=True)
class DensityLevels:
    """Error and excess of each model against a known density, with the standard errors of its points."""

    error: Float[Tensor, "seeds intervals"]
    error_se: Float[Tensor, "seeds intervals"]
    excess: Float[Tensor, "seeds intervals"]
    excess_se: Float[Tensor, "seeds intervals"]


def boundaries(sde: SDE, T: float, epsilon: float) -> Float[Tensor, " boundaries"]:
    """Lambda where the intervals meet, and at epsilon and T."""
    start, stop = sde.noise_level(torch.tensor([epsilon, T], dtype=torch.float64)).tolist()
    first, last = math.ceil(start / WIDTH + 0.5), math.floor(stop / WIDTH - 0.5)
    return torch.tensor([start, *(WIDTH * k for k in range(first, last + 1)), stop], dtype=torch.float64)


def density_levels(found: Integrands, level: Float[Tensor, " boundaries"], d: int) -> DensityLevels:
    """Of the integrands from the first level to the last."""
    share = running_weights(found.weight.shape[-1], 2 * (level - level[0]) / (level[-1] - level[0]) - 1).diff(dim=0)
    # the integrands have no factor 1/2, and the weights are those of [-1, 1]
    weight = share * (level[-1] - level[0]) / (2 * d * level.diff()[:, None])
    mean, se = found.mean @ weight.mT, (found.se.square() @ weight.square().mT).sqrt()
    return DensityLevels(error=mean[2], error_se=se[2], excess=mean[1], excess_se=se[1])


def image_levels(
    found: ImageElbo, sde: SDE, level: Float[Tensor, " boundaries"], T: float, epsilon: float, d: int,
    *, seeds: Sequence[str], indices: Int[Tensor, " n"],
) -> Float[Tensor, "seeds intervals n"]:  # fmt: skip
    """The error of each image whose ELBO was `found`, from the arguments that it was found with."""
    times = torch.cat([sde.time(level[1:-1]), level.new_tensor([T])])
    I = running_I(found, sde, times, T, epsilon, seeds=seeds, indices=indices)  # noqa: E741
    return 2 * I.diff(dim=1, prepend=torch.zeros_like(I[:, :1])) / (d * level.diff()[:, None])
