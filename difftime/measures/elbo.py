"""The ELBO taken apart, against the exact score of a Gaussian mixture (section 2 of the paper).

    log q >= ELBO = prior - I + R                     Eq. 4     prior = E log p_noise(x_T)
                  = -entropy - KL - G                 Eq. 11    I = K + G

The integrals run from epsilon to T, so the ELBO bounds the density of x_epsilon under the reverse SDE, and `entropy`
is that of p(x, epsilon). R has a closed form, and so has the prior term of a p_noise with independent coordinates. For
one-dimensional data everything else is a quadrature, in lambda = log(sigma²/alpha²), where the weight g² dt of Eqs. 6
and 7 becomes sigma² d lambda; in more dimensions the expectations over x are estimates with standard errors.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from itertools import pairwise

import torch
from jaxtyping import Float
from torch import Tensor

from difftime.diffusion.mixture import Mixture, gauss_legendre, nodes
from difftime.diffusion.score import Score
from difftime.diffusion.sde import SDE, Gaussian, Noise
from difftime.support.streams import stream

ENDS = 64
"""How many times more random points an expectation at epsilon or T gets than one at each time between them."""


@dataclass(frozen=True)
class Path:
    """What depends on the score, in nats per data point: K of Eq. 7, the gap G and I = K + G, with standard errors.

    Those of K and G are of the same points, so that of I is neither's, nor their hypotenuse.
    """

    K: Tensor
    K_se: Tensor
    gap: Float[Tensor, " seeds"]
    gap_se: Float[Tensor, " seeds"]
    I_se: Float[Tensor, " seeds"]


@dataclass(frozen=True)
class Ends:
    """What depends on p_noise or on nothing, in nats per data point."""

    kl: float
    kl_se: float
    prior: float
    prior_se: float
    entropy: float
    entropy_se: float
    R: float


def time_nodes(sde: SDE, T: float, epsilon: float, n: int) -> tuple[Tensor, Tensor]:
    """Times and weights with ∫ h g²/sigma² dt ≈ sum weight · h(t): Gauss–Legendre in lambda on [epsilon, T]."""
    start, stop = sde.noise_level(torch.tensor([epsilon, T], dtype=torch.float64))
    level, weight = gauss_legendre(start, stop, n)
    return sde.time(level), weight


def path_terms(
    score: Score, p: Mixture, sde: SDE, T: float, epsilon: float, *, seeds: int, time_steps: int, points: int, seed: str
) -> Path:
    """K(T) of Eq. 7 and the gap G(s, T) = ½ ∫ g² E||s - ∇ log p||² dt of each of the `seeds` models in `score`.

    `points` random points are used at each of the `time_steps` times if the data have more than one dimension.
    """
    generator = stream(seed, "elbo points")
    total = torch.zeros(3, seeds, dtype=torch.float64)
    variance = torch.zeros(3, seeds, dtype=torch.float64)
    for t, weight in zip(*time_nodes(sde, T, epsilon, time_steps), strict=True):
        mean, se = _losses(score, p, sde, t, seeds, points, generator)
        total += 0.5 * weight * mean
        variance += (0.5 * weight * se) ** 2
    se = variance.sqrt()
    return Path(K=total[0, 0], K_se=se[0, 0], gap=total[1], gap_se=se[1], I_se=se[2])


def _losses(
    score: Score, p: Mixture, sde: SDE, t: Tensor, seeds: int, points: int, generator: torch.Generator
) -> tuple[Float[Tensor, "three seeds"], Float[Tensor, "three seeds"]]:
    """The integrands of 2 K, 2 G and 2 I in lambda at one time, with standard errors."""
    at = nodes(p.diffused(sde, t.item()), points, generator)
    sigma2 = sde.variance(t)
    exact = p.score(at.x, sde.alpha(t), sigma2)
    with torch.no_grad():
        error = score(at.x.expand(seeds, -1, -1), t) - exact
    # K: E||∇ log p - ∇ log p(x_t|x_0)||² = D/sigma² - E||∇ log p||²
    K = (p.d - sigma2 * exact.square().sum(-1)).expand(seeds, -1)
    gap = sigma2 * error.square().sum(-1)
    return at.expectation(torch.stack([K, gap, K + gap]))


def running_gap(
    score: Score, p: Mixture, sde: SDE, times: Float[Tensor, " times"], T: float, epsilon: float, *,
    seeds: int, time_steps: int, points: int, seed: str,
) -> tuple[Float[Tensor, "seeds times"], Float[Tensor, "seeds times"]]:  # fmt: skip
    """G(s, t) for every t in `times`, which rise, in one pass, and its standard errors.

    G is an integral over time, so a model trained up to T says it of every t up to T. The `time_steps` quadrature nodes
    are shared out among the stretches between the times, by their lengths in lambda. Raises ValueError for a t past T.
    """
    if not epsilon < times[0] <= times[-1] <= T:
        raise ValueError(
            f"The score is known from {epsilon:g} to {T:g}, not at {times[0]:g} to {times[-1]:g}. Ask for times "
            "between, or train the cell with a larger T."
        )
    generator = stream(seed, "running points")
    levels = sde.noise_level(torch.cat([times.new_tensor([epsilon]), times]))
    means, variances = [], []
    for start, stop in pairwise(levels):
        steps = max(2, math.ceil(time_steps * ((stop - start) / (levels[-1] - levels[0])).item()))
        mean, variance = torch.zeros(seeds, dtype=torch.float64), torch.zeros(seeds, dtype=torch.float64)
        for level, weight in zip(*gauss_legendre(start, stop, steps), strict=True):
            value, se = _losses(score, p, sde, sde.time(level), seeds, points, generator)
            mean += 0.5 * weight * value[1]
            variance += (0.5 * weight * se[1]) ** 2
        means.append(mean)
        variances.append(variance)
    return torch.stack(means, -1).cumsum(-1), torch.stack(variances, -1).cumsum(-1).sqrt()


def expected_log_density(p: Mixture, *, points: int, seed: str) -> tuple[float, float]:
    """E log p_data(x) in nats, the ceiling of E log q for every model, and its standard error (0: by quadrature)."""
    at = nodes(p, points * ENDS, stream(seed, "elbo start"))
    mean, se = at.expectation(p.log_prob(at.x))
    return mean.item(), se.item()


def end_terms(p: Mixture, sde: SDE, noise: Noise, T: float, epsilon: float, *, points: int, seed: str) -> Ends:
    """KL[p(x,T) || p_noise] of Eq. 8, the prior term, the entropy of p(x, epsilon), and R_epsilon(T) of Eq. 5."""
    start, end = p.diffused(sde, epsilon), p.diffused(sde, T)
    at_start, at_end = (
        nodes(density, points * ENDS, stream(seed, place))
        for density, place in ((start, "elbo start"), (end, "elbo end"))
    )
    log_noise = noise.log_prob(at_end.x)
    kl, kl_se = at_end.expectation(end.log_prob(at_end.x) - log_noise)
    # the moments of x_T suffice where the coordinates of p_noise are independent
    if isinstance(noise, Gaussian):
        prior, prior_se = noise.expected_log_prob(end.mean, end.variance), torch.zeros(())
    else:
        prior, prior_se = at_end.expectation(log_noise)
    entropy, entropy_se = at_start.expectation(-start.log_prob(at_start.x))
    return Ends(
        kl=kl.item(),
        kl_se=kl_se.item(),
        prior=prior.item(),
        prior_se=prior_se.item(),
        entropy=entropy.item(),
        entropy_se=entropy_se.item(),
        R=p.d * sde.R(T, epsilon),
    )
