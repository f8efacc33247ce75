"""The likelihood of data under the probability-flow ODE, dx = [f - ½ g² s] dt, and its cost in function evaluations.

With the exact score the ODE has the marginals of the reverse SDE (Eq. 2). With a learned score it is another model:
its likelihood is not bounded by the ELBO and may lie on either side of it. `density.py` has the reverse SDE's own.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from jaxtyping import Float, Int
from torch import Tensor

from difftime.diffusion.score import Divergence, Score, divergence
from difftime.diffusion.sde import SDE, Noise
from difftime.measures.rk45 import solve


@dataclass(frozen=True)
class OdeLikelihood:
    """log q_ODE(x_epsilon) in nats of each point, for each p_noise and seed; NaN where the solver failed."""

    log_q: Float[Tensor, "noises seeds points"]
    nfe: Int[Tensor, " seeds"]
    accepted: Int[Tensor, " seeds"]
    rejected: Int[Tensor, " seeds"]


def ode_likelihood(
    score: Score,
    sde: SDE,
    noises: Sequence[Noise],
    x: Float[Tensor, "seeds points d"],
    T: float,
    epsilon: float,
    *,
    rtol: float,
    atol: float,
    max_evaluations: int,
    divergence: Divergence = divergence,
) -> OdeLikelihood:
    """Carry `x` from epsilon to T with RK45, all points of a seed as one system, on the device of `x`.

    log q(x_epsilon) = log p_noise(x_T) + ∫ div [f - ½ g² s] dt. NFE belongs to the batch of points: a larger batch
    may take more steps. The divergence is exact by default; for images it is `Hutchinson` with one probe per point.
    """
    seeds, points, d = x.shape

    def velocity(t: Tensor, y: Tensor) -> Tensor:
        position = y.view(seeds, points, d + 1)[..., :d]
        s, div = divergence(score, position, t)
        half_g2 = 0.5 * sde.diffusion_squared(t)
        dx = sde.drift(position, t) - half_g2[:, None, None] * s
        dlog = d * sde.drift_divergence(t)[:, None] - half_g2[:, None] * div
        return torch.cat([dx, dlog.unsqueeze(-1)], -1).flatten(1)

    y0 = torch.cat([x.double(), x.new_zeros(seeds, points, 1, dtype=torch.float64)], -1).flatten(1)
    solution = solve(velocity, y0, epsilon, T, rtol=rtol, atol=atol, max_evaluations=max_evaluations)
    y = solution.y.view(seeds, points, d + 1)
    log_q = torch.stack([noise.to(x.device).log_prob(y[..., :d]) + y[..., d] for noise in noises])
    return OdeLikelihood(log_q, solution.nfe, solution.accepted, solution.rejected)
