"""The ELBO taken apart, against the exact score of a Gaussian mixture (section 2 of the paper).

    log q >= ELBO = prior - I + R                     Eq. 4     prior = E log p_noise(x_T)
                  = -entropy - KL - G                 Eq. 11    I = K + G

The integrals run from epsilon to T, so the ELBO bounds the density of x_epsilon under the reverse SDE, and `entropy`
is that of p(x, epsilon). R has a closed form, and so has the prior term of a p_noise with independent coordinates. For
one-dimensional data everything else is a quadrature, in lambda = log(sigma²/alpha²), where the weight g² dt of Eqs. 6
and 7 becomes sigma² d lambda; in more dimensions the expectations over x are estimates with standard errors.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

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


@dataclass(frozen=True)
class Integrands:
    """The integrands of K, G and I in lambda, for each model, at the nodes of a quadrature on [epsilon, T], in nats."""

    weight: Float[Tensor, " n"]
    mean: Float[Tensor, "three seeds n"]
    se: Float[Tensor, "three seeds n"]
    """Of the Monte Carlo points, which all models share; 0 by quadrature."""

    @property
    def path(self) -> Path:
        """The integrals up to T."""
        # one by one, as the order of a sum is in its last digit
        total = sum((self.weight * self.mean).unbind(-1), start=torch.zeros(()))
        se = sum((self.weight * self.se).square().unbind(-1), start=torch.zeros(())).sqrt()
        return Path(K=total[0, 0], K_se=se[0, 0], gap=total[1], gap_se=se[1], I_se=se[2])


def integrands(
    score: Score, p: Mixture, sde: SDE, T: float, epsilon: float, *, seeds: int, time_steps: int, points: int, seed: str
) -> Integrands:
    """What the integrals of K(T) of Eq. 7 and of the gap are made of, at `time_steps` times.

    `points` random points are used at each of the times if the data have more than one dimension.
    """
    generator = stream(seed, "elbo points")
    times, weight = time_nodes(sde, T, epsilon, time_steps)
    found = [_losses(score, p, sde, t, seeds, points, generator) for t in times]
    mean, se = (torch.stack(values, -1) for values in zip(*found, strict=True))
    return Integrands(0.5 * weight, mean, se)


def path_terms(
    score: Score, p: Mixture, sde: SDE, T: float, epsilon: float, *, seeds: int, time_steps: int, points: int, seed: str
) -> Path:
    """K(T) of Eq. 7 and the gap G(s, T) = ½ ∫ g² E||s - ∇ log p||² dt of each of the `seeds` models in `score`."""
    return integrands(score, p, sde, T, epsilon, seeds=seeds, time_steps=time_steps, points=points, seed=seed).path


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


def expected_log_density(p: Mixture, *, points: int, seed: str) -> tuple[float, float]:
    """E log p_data(x) in nats, the ceiling of E log q for every model, and its standard error (0: by quadrature)."""
    at = nodes(p, points * ENDS, stream(seed, "elbo start"))
    mean, se = at.expectation(p.log_prob(at.x))
    return mean.item(), se.item()


def entropy_term(p: Mixture, sde: SDE, epsilon: float, *, points: int, seed: str) -> tuple[float, float]:
    """The entropy of p(x, epsilon) in nats, and its standard error (0: by quadrature)."""
    start = p.diffused(sde, epsilon)
    at = nodes(start, points * ENDS, stream(seed, "elbo start"))
    mean, se = at.expectation(-start.log_prob(at.x))
    return mean.item(), se.item()


def noise_terms(
    p: Mixture, sde: SDE, noises: Sequence[Noise], T: float, *, points: int, seed: str
) -> list[tuple[float, float, float, float]]:
    """KL[p(x,T) || p_noise] of Eq. 8 and the prior term, each with its standard error, for every p_noise."""
    end = p.diffused(sde, T)
    at = nodes(end, points * ENDS, stream(seed, "elbo end"))
    log_p, found = end.log_prob(at.x), []
    for noise in noises:
        log_noise = noise.log_prob(at.x)
        kl, kl_se = at.expectation(log_p - log_noise)
        # the moments of x_T suffice where the coordinates of p_noise are independent
        if isinstance(noise, Gaussian):
            prior, prior_se = noise.expected_log_prob(end.mean, end.variance), torch.zeros(())
        else:
            prior, prior_se = at.expectation(log_noise)
        found.append((kl.item(), kl_se.item(), prior.item(), prior_se.item()))
    return found


def end_terms(p: Mixture, sde: SDE, noise: Noise, T: float, epsilon: float, *, points: int, seed: str) -> Ends:
    """KL[p(x,T) || p_noise] of Eq. 8, the prior term, the entropy of p(x, epsilon), and R_epsilon(T) of Eq. 5."""
    ((kl, kl_se, prior, prior_se),) = noise_terms(p, sde, [noise], T, points=points, seed=seed)
    entropy, entropy_se = entropy_term(p, sde, epsilon, points=points, seed=seed)
    return Ends(kl, kl_se, prior, prior_se, entropy, entropy_se, p.d * sde.R(T, epsilon))
