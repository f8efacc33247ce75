"""Samples: the reverse SDE of Eq. 2 by Euler–Maruyama, and the reverse probability-flow ODE by RK45."""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
from jaxtyping import Float, Int
from torch import Tensor

from difftime.diffusion.score import Score
from difftime.diffusion.sde import SDE
from difftime.measures.rk45 import solve

CHUNK = 50
"""Steps whose noise is drawn together."""


def reverse_sde(
    score: Score,
    sde: SDE,
    x: Float[Tensor, "seeds points d"],
    T: float,
    epsilon: float,
    *,
    steps: int,
    generators: Sequence[torch.Generator],
) -> Float[Tensor, "seeds points d"]:
    """Carry `x` from T to epsilon in `steps` equal steps of time; each seed has its own noise.

    Euler–Maruyama: x <- x + [-f + g² s] h + g sqrt(h) z, of weak order 1.
    """
    h = (T - epsilon) / steps
    for first in range(0, steps, CHUNK):
        shape = (min(CHUNK, steps - first), *x.shape[1:])
        noise = torch.stack([torch.randn(shape, dtype=x.dtype, device=g.device, generator=g) for g in generators], 1)
        for k, z in enumerate(noise):
            t = torch.tensor(T - (first + k) * h, dtype=torch.float64)
            g2 = sde.diffusion_squared(t).item()
            with torch.no_grad():
                x = x + (g2 * score(x, t) - sde.drift(x, t.to(x.dtype))) * h + math.sqrt(g2 * h) * z
    return x


def reverse_ode(
    score: Score,
    sde: SDE,
    x: Float[Tensor, "seeds points d"],
    T: float,
    epsilon: float,
    *,
    rtol: float,
    atol: float,
    max_evaluations: int,
) -> tuple[Float[Tensor, "seeds points d"], Int[Tensor, " seeds"]]:
    """Carry `x` from T to epsilon along dx = [f - ½ g² s] dt; also the number of function evaluations per seed."""

    def velocity(t: Tensor, y: Tensor) -> Tensor:
        position = y.view(x.shape)
        with torch.no_grad():
            half_g2 = 0.5 * sde.diffusion_squared(t)[:, None, None]
            return (sde.drift(position, t) - half_g2 * score(position, t)).flatten(1)

    solution = solve(velocity, x.double().flatten(1), T, epsilon, rtol=rtol, atol=atol, max_evaluations=max_evaluations)
    return solution.y.view(x.shape), solution.nfe
