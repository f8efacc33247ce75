"""Gaussian mixtures under an affine SDE: p(x, t) is again a mixture, so its density and score are known exactly.

This is the oracle of the toy study: every term of the ELBO can be computed against it. All tensors are float64.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import torch
from jaxtyping import Float, Int
from torch import Tensor

from difftime.diffusion.sde import SDE, expand


@dataclass(frozen=True)
class Mixture:
    """sum_k w_k N(mu_k, U_k diag(v_k) U_kᵀ). A diffusion scales mu and shifts v; it leaves the axes U alone."""

    weights: Float[Tensor, " components"]
    means: Float[Tensor, "components d"]
    variances: Float[Tensor, "components d"]
    axes: Float[Tensor, "components d d"]

    @classmethod
    def from_covariances(cls, weights: Sequence, means: Sequence, covariances: Sequence) -> Mixture:
        """From nested sequences: weights [K], means [K][d], covariances [K][d][d].

        Raises ValueError if a covariance is not symmetric and positive definite, or the weights are not positive with
        the sum 1.
        """
        covariance = torch.tensor(covariances, dtype=torch.float64)
        weight, mean = (torch.tensor(values, dtype=torch.float64) for values in (weights, means))
        if mean.ndim != 2 or covariance.shape != (*mean.shape, mean.shape[1]) or weight.shape != mean.shape[:1]:
            raise ValueError(
                "A mixture has weights [K], means [K, d] and covariances [K, d, d], but these are "
                f"{list(weight.shape)}, {list(mean.shape)} and {list(covariance.shape)}."
            )
        if not (weight > 0).all() or not math.isclose(weight.sum().item(), 1, abs_tol=1e-6):
            raise ValueError(f"The weights of a mixture are positive and sum to 1, but are {weight.tolist()}.")
        if not torch.allclose(covariance, covariance.mT):
            raise ValueError("A covariance of the mixture is not symmetric: every matrix must equal its transpose.")
        variances, axes = torch.linalg.eigh(covariance)
        if variances.min() <= 0:
            raise ValueError(
                f"A covariance of the mixture has the eigenvalue {variances.min():.3g}: all must be positive."
            )
        return cls(weight, mean, variances, axes)

    @classmethod
    def from_stds(cls, weights: Sequence, means: Sequence, stds: Sequence) -> Mixture:
        """From nested sequences, without correlations: weights [K], means [K][d], stds [K][1 or d].

        A single standard deviation holds for all d coordinates. Raises ValueError as `from_covariances` does.
        """
        d = len(means[0])
        wide = [[*std] * d if len(std) == 1 else std for std in stds]
        # squared by Python, as every trained cell's density is: a tensor's square may differ in the last bit
        diagonals = [[[std[i] ** 2 if i == j else 0.0 for j in range(d)] for i in range(d)] for std in wide]
        return cls.from_covariances(weights, means, diagonals)

    @property
    def d(self) -> int:
        """The number of dimensions, D in the paper's formulas."""
        return self.means.shape[1]

    @property
    def mean(self) -> Float[Tensor, " d"]:
        return self.weights @ self.means

    @property
    def covariance(self) -> Float[Tensor, "d d"]:
        within = torch.einsum("k,kij,kj,klj->il", self.weights, self.axes, self.variances, self.axes)
        centred = self.means - self.mean
        return within + torch.einsum("k,ki,kj->ij", self.weights, centred, centred)

    @property
    def variance(self) -> Float[Tensor, " d"]:
        """The variance of each coordinate."""
        return self.covariance.diagonal()

    def diffused(self, sde: SDE, t: float) -> Mixture:
        """p(x, t): the mixture after the forward SDE has run for the time `t`."""
        time = torch.tensor(t, dtype=torch.float64)
        alpha = sde.alpha(time)
        return Mixture(self.weights, alpha * self.means, alpha**2 * self.variances + sde.variance(time), self.axes)

    def _components(self, x: Tensor, alpha: Tensor, noise: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """log(w_k N_k(x)), and each component's coordinates of x and its variances, along its own axes."""
        if x.shape[-1:] != self.means.shape[1:]:
            raise ValueError(f"The mixture is of {self.d} dimensions, the last axis of x {list(x.shape)} is not.")
        offset = x.unsqueeze(-2) - expand(alpha, x).unsqueeze(-1) * self.means
        coordinates = torch.einsum("...kd,kde->...ke", offset, self.axes)
        variances = expand(alpha**2, x).unsqueeze(-1) * self.variances + expand(noise, x).unsqueeze(-1)
        log_normal = -0.5 * (coordinates**2 / variances + torch.log(2 * math.pi * variances)).sum(-1)
        return self.weights.log() + log_normal, coordinates, variances

    def log_prob(self, x: Float[Tensor, "*batch d"]) -> Float[Tensor, "*batch"]:
        """log density in nats."""
        return self._components(x, x.new_ones(()), x.new_zeros(()))[0].logsumexp(-1)

    def score(
        self, x: Float[Tensor, "*batch d"], alpha: Float[Tensor, "..."], noise: Float[Tensor, "..."]
    ) -> Float[Tensor, "*batch d"]:
        """The gradient of log p(x, t) in x; `alpha` = alpha_t and `noise` = sigma_t² have axes that lead those of x."""
        log_joint, coordinates, variances = self._components(x, alpha, noise)
        responsibility = log_joint.softmax(-1).unsqueeze(-1)
        return -torch.einsum("...ke,kde->...d", responsibility * coordinates / variances, self.axes)

    def responsible(self, x: Float[Tensor, "*batch d"]) -> Int[Tensor, "*batch"]:
        """The component that most probably produced each point."""
        return self._components(x, x.new_ones(()), x.new_zeros(()))[0].argmax(-1)

    def sample(self, n: int, generator: torch.Generator) -> Float[Tensor, "n d"]:
        label = torch.multinomial(self.weights, n, replacement=True, generator=generator)
        z = torch.randn(n, self.d, dtype=torch.float64, generator=generator)
        return self.means[label] + torch.einsum("nde,ne->nd", self.axes[label], z * self.variances[label].sqrt())

    def projected(self, direction: Float[Tensor, " d"]) -> Mixture:
        """The one-dimensional mixture of direction · x."""
        along = torch.einsum("d,kde->ke", direction, self.axes)
        return Mixture(
            self.weights,
            (self.means @ direction).unsqueeze(-1),
            (along**2 * self.variances).sum(-1, keepdim=True),
            torch.ones(len(self.weights), 1, 1, dtype=torch.float64),
        )

    def cdf(self, x: Float[Tensor, "*batch"]) -> Float[Tensor, "*batch"]:
        """P(X <= x), for d = 1."""
        return torch.special.ndtr((x.unsqueeze(-1) - self.means[:, 0]) / self.variances[:, 0].sqrt()) @ self.weights


@dataclass(frozen=True)
class Nodes:
    """Points and weights with E_p f(x) ≈ sum_i weight_i f(x_i). `exact`: by quadrature, else by Monte Carlo."""

    x: Float[Tensor, "n d"]
    weight: Float[Tensor, " n"]
    exact: bool

    def expectation(self, values: Float[Tensor, "*batch n"]) -> tuple[Tensor, Tensor]:
        """E f and its standard error over the last axis; the standard error of a quadrature is 0."""
        mean = values @ self.weight
        if self.exact:
            return mean, torch.zeros_like(mean)
        return mean, values.std(-1) / math.sqrt(len(self.weight))


def nodes(p: Mixture, points: int, generator: torch.Generator) -> Nodes:
    """Where to evaluate an expectation under `p`: by quadrature for d = 1, else by `points` random draws.

    The quadrature is Gauss–Legendre between the places that lie a whole number (up to 10) of standard deviations from
    a component's mean, so components of very different widths are all resolved.
    """
    if p.d > 1:
        return Nodes(p.sample(points, generator), torch.full((points,), 1 / points, dtype=torch.float64), exact=False)
    steps = torch.arange(-10, 11, dtype=torch.float64)
    edges = (p.means + p.variances.sqrt() * steps).flatten().unique()
    x, dx = gauss_legendre(edges[:-1], edges[1:], 12)
    x, dx = x.flatten(), dx.flatten()
    return Nodes(x[:, None], dx * p.log_prob(x[:, None]).exp(), exact=True)


def gauss_legendre(start: Tensor, stop: Tensor, n: int) -> tuple[Tensor, Tensor]:
    """Gauss–Legendre nodes and weights on [start, stop], for each interval, along a new last axis of length `n`."""
    # Golub–Welsch (1969): the nodes are the eigenvalues of the Legendre recurrence's symmetric tridiagonal matrix
    k = torch.arange(1, n, dtype=torch.float64)
    off_diagonal = k / torch.sqrt(4 * k * k - 1)
    node, vector = torch.linalg.eigh(torch.diag(off_diagonal, 1) + torch.diag(off_diagonal, -1))
    half = (stop - start).unsqueeze(-1) / 2
    return start.unsqueeze(-1) + half * (1 + node), half * 2 * vector[0] ** 2
