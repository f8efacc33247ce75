"""The forward diffusion, Eq. 1: dx = f(x, t) dt + g(t) dw, for any diffusion time T.

All families are affine, so p(x_t | x_0) = N(alpha_t x_0, sigma_t² I), and everything the paper integrates over time
becomes simple in lambda = log(sigma_t² / alpha_t²), because d lambda = g²/sigma_t² dt.
T is only the place where a diffusion stops: no coefficient below knows it.
"""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from collections.abc import Callable
from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Tensor


def expand(t: Float[Tensor, "..."], x: Tensor) -> Tensor:
    """Append singleton axes to `t`, whose axes are the leading ones of `x`, so that it multiplies `x`."""
    return t.reshape(t.shape + (1,) * (x.ndim - t.ndim))


class SDE(ABC):
    """An affine diffusion. Times `t` are tensors in the SDE's own unit: 0 = data, T = noise, also in reverse."""

    @abstractmethod
    def alpha(self, t: Tensor) -> Tensor:
        """alpha_t, the factor on x_0 in x_t = alpha_t x_0 + sigma_t z."""

    @abstractmethod
    def variance(self, t: Tensor) -> Tensor:
        """sigma_t², the variance of x_t given x_0, per dimension."""

    @abstractmethod
    def diffusion_squared(self, t: Tensor) -> Tensor:
        """g²(t)."""

    @abstractmethod
    def drift(self, x: Tensor, t: Tensor) -> Tensor:
        """f(x, t); the axes of `t` are the leading axes of `x`."""

    @abstractmethod
    def drift_divergence(self, t: Tensor) -> Tensor:
        """The divergence of f per dimension, which does not depend on x."""

    @abstractmethod
    def noise_level(self, t: Tensor) -> Tensor:
        """lambda(t) = log(sigma_t² / alpha_t²), minus the log signal-to-noise ratio."""

    @abstractmethod
    def time(self, noise_level: Tensor) -> Tensor:
        """The inverse of `noise_level`."""

    def sigma(self, t: Tensor) -> Tensor:
        """sigma_t."""
        return self.variance(t).sqrt()

    def perturb(self, x0: Tensor, t: Tensor, z: Tensor) -> Tensor:
        """x_t = alpha_t x_0 + sigma_t z."""
        return expand(self.alpha(t), x0) * x0 + expand(self.sigma(t), x0) * z

    def R(self, T: float, epsilon: float) -> float:
        """R_epsilon(T), Eq. 5, per dimension in nats: ln(sigma_T / sigma_epsilon), for every affine SDE."""
        times = torch.tensor([epsilon, T], dtype=torch.float64)
        start, stop = self.variance(times).log().tolist()
        return 0.5 * (stop - start)


class Damped(SDE):
    """f = -½ beta(t) x, hence alpha_t = e^{-B(t)/2}, whatever the noise is."""

    @abstractmethod
    def beta(self, t: Tensor) -> Tensor:
        """beta(t)."""

    @abstractmethod
    def beta_integral(self, t: Tensor) -> Tensor:
        """B(t), the integral of beta from 0 to t."""

    @abstractmethod
    def time_of_integral(self, B: Tensor) -> Tensor:
        """The inverse of `beta_integral`."""

    def alpha(self, t: Tensor) -> Tensor:
        return torch.exp(-0.5 * self.beta_integral(t))

    def drift(self, x: Tensor, t: Tensor) -> Tensor:
        return -0.5 * expand(self.beta(t), x) * x

    def drift_divergence(self, t: Tensor) -> Tensor:
        return -0.5 * self.beta(t)


class VariancePreserving(Damped):
    """g² = beta(t), hence alpha_t² + sigma_t² = 1."""

    def variance(self, t: Tensor) -> Tensor:
        # expm1: in float32, 1 - exp(-B) is wrong by up to 1.4 % at t = 1e-5
        return -torch.expm1(-self.beta_integral(t))

    def diffusion_squared(self, t: Tensor) -> Tensor:
        return self.beta(t)

    def noise_level(self, t: Tensor) -> Tensor:
        # log(e^B - 1), written so that a large B does not overflow
        B = self.beta_integral(t)
        return B + torch.log(-torch.expm1(-B))

    def time(self, noise_level: Tensor) -> Tensor:
        return self.time_of_integral(torch.nn.functional.softplus(noise_level, threshold=50.0))


def where_integral_is(B: Tensor, beta: Tensor | float, slope: Tensor | float) -> Tensor:
    """The root t of ½ slope t² + beta t = B, in the form that keeps its digits where B or slope is small."""
    return 2 * B / (beta + (beta**2 + 2 * slope * B) ** 0.5)


@dataclass(frozen=True)
class LinearBeta:
    """beta(t) = beta_min + (beta_max - beta_min) t for every t; past t = 1 it goes on along the same line."""

    beta_min: float = 0.1
    beta_max: float = 20.0

    def __post_init__(self) -> None:
        if not 0 <= self.beta_min <= self.beta_max < math.inf or self.beta_max == 0:
            raise ValueError(f"beta needs 0 <= beta_min <= beta_max, and not 0 throughout, but is {self}.")

    def beta(self, t: Tensor) -> Tensor:
        return self.beta_min + (self.beta_max - self.beta_min) * t

    def beta_integral(self, t: Tensor) -> Tensor:
        return self.beta_min * t + 0.5 * (self.beta_max - self.beta_min) * t * t

    def time_of_integral(self, B: Tensor) -> Tensor:
        return where_integral_is(B, self.beta_min, self.beta_max - self.beta_min)


@dataclass(frozen=True)
class VP(LinearBeta, VariancePreserving):
    """Variance preserving: f = -½ beta(t) x, g² = beta(t) = beta_min + (beta_max - beta_min) t (Song et al., 2021c)."""


@dataclass(frozen=True)
class SubVP(LinearBeta, Damped):
    """Sub-variance preserving: f = -½ beta(t) x, g² = beta(t) (1 - e^{-2 B(t)}) (Song et al., 2021c).

    alpha_t is that of VP, and sigma_t = 1 - e^{-B(t)} is the square of VP's: the noise comes later, and is never more.
    """

    def variance(self, t: Tensor) -> Tensor:
        return torch.expm1(-self.beta_integral(t)) ** 2

    def diffusion_squared(self, t: Tensor) -> Tensor:
        return -self.beta(t) * torch.expm1(-2 * self.beta_integral(t))

    def noise_level(self, t: Tensor) -> Tensor:
        # 2 log(2 sinh(B/2)), written so that a large B does not overflow
        B = self.beta_integral(t)
        return B + 2 * torch.log(-torch.expm1(-B))

    def time(self, noise_level: Tensor) -> Tensor:
        B = 2 * torch.asinh(0.5 * torch.exp(0.5 * noise_level))
        # past 80, B is lambda to the last digit, long before the exponential overflows
        return self.time_of_integral(torch.where(noise_level > 80, noise_level, B))


class VarianceExploding(SDE):
    """f = 0, hence alpha_t = 1."""

    def alpha(self, t: Tensor) -> Tensor:
        return torch.ones_like(t)

    def drift(self, x: Tensor, t: Tensor) -> Tensor:
        return torch.zeros_like(x)

    def drift_divergence(self, t: Tensor) -> Tensor:
        return torch.zeros_like(t)

    def noise_level(self, t: Tensor) -> Tensor:
        return self.variance(t).log()


@dataclass(frozen=True)
class VE(VarianceExploding):
    """Variance exploding: f = 0, g² = d sigma_t²/dt, with sigma_t growing geometrically to sigma_max at t = 1.

    Two conventions are in print. `from_zero=True`: sigma_t² = sigma_min² (r^{2t} - 1), with r = sigma_max / sigma_min,
    which starts at 0. `from_zero=False`: sigma_t² = sigma_min² r^{2t}, which starts at sigma_min²
    (Song et al., 2021c). g is the same in both.
    """

    sigma_min: float = 0.01
    sigma_max: float = 50.0
    from_zero: bool = True

    def __post_init__(self) -> None:
        if not 0 < self.sigma_min < self.sigma_max < math.inf:
            raise ValueError(f"sigma needs 0 < sigma_min < sigma_max, but is {self}.")

    @classmethod
    def exponential(cls, base: float) -> VE:
        """g(t) = base^t, hence sigma_t² = (base^{2t} - 1) / (2 ln base)."""
        if not 1 < base < math.inf:
            raise ValueError(f"The base of g(t) = base^t is above 1, but is {base}.")
        sigma_min = math.sqrt(0.5 / math.log(base))
        return cls(sigma_min=sigma_min, sigma_max=base * sigma_min, from_zero=True)

    @property
    def log_ratio(self) -> float:
        """ln(sigma_max / sigma_min)."""
        return math.log(self.sigma_max / self.sigma_min)

    def variance(self, t: Tensor) -> Tensor:
        exponent = 2 * self.log_ratio * t
        return self.sigma_min**2 * (torch.expm1(exponent) if self.from_zero else torch.exp(exponent))

    def diffusion_squared(self, t: Tensor) -> Tensor:
        return 2 * self.log_ratio * self.sigma_min**2 * torch.exp(2 * self.log_ratio * t)

    def time(self, noise_level: Tensor) -> Tensor:
        scaled = torch.exp(noise_level) / self.sigma_min**2
        return (torch.log1p(scaled) if self.from_zero else torch.log(scaled)) / (2 * self.log_ratio)


DIFFUSIONS: dict[str, Callable[..., SDE]] = {
    "vp": VP,
    "sub-vp": SubVP,
    "ve-exponential": VE.exponential,
    "ve-geometric": VE,
}
"""What makes a diffusion of a formula, by its kind in a study, from the keys that the study's settings of it have."""


class Noise(ABC):
    """p_noise: where the reverse process starts. Its density is on points whose axes are the last of `x`."""

    mean: Tensor
    """Of one data point, and its shape."""

    @property
    @abstractmethod
    def spread(self) -> Tensor:
        """The variance of every coordinate."""

    @abstractmethod
    def log_prob(self, x: Tensor) -> Tensor:
        """log p_noise(x) in nats, summed over the data axes."""

    @abstractmethod
    def sample(self, *batch: int, generator: torch.Generator) -> Tensor:
        """Draws of shape (*batch, *data), on the generator's device."""

    @abstractmethod
    def prior(self, centre: Tensor, variance: Tensor, z: Tensor) -> Tensor:
        """E log p_noise(x) in nats for x ~ N(centre, variance I), `variance` being a number; the shape of the batch.

        In closed form where there is one, else from the standard normal draws `z` [draws, *batch, *data].
        """

    @abstractmethod
    def to(self, device: torch.device | str) -> Noise:
        """The same density, computing on `device`."""


@dataclass(frozen=True)
class Gaussian(Noise):
    """A Gaussian with independent coordinates. `mean` and `variance` have the shape of one data point."""

    mean: Float[Tensor, " *data"]
    variance: Float[Tensor, " *data"]

    @property
    def spread(self) -> Tensor:
        return self.variance

    def log_prob(self, x: Float[Tensor, "*batch"]) -> Tensor:
        terms = (x - self.mean) ** 2 / self.variance + torch.log(2 * math.pi * self.variance)
        return -0.5 * terms.flatten(x.ndim - self.mean.ndim).sum(-1)

    def sample(self, *batch: int, generator: torch.Generator) -> Tensor:
        z = torch.randn(*batch, *self.mean.shape, dtype=self.mean.dtype, generator=generator, device=generator.device)
        return self.mean + self.variance.sqrt() * z

    def expected_log_prob(self, mean: Tensor, variance: Tensor) -> Tensor:
        """E log p_noise(x) in nats for any x with these coordinate-wise moments, summed over the data axes."""
        terms = (variance + (mean - self.mean) ** 2) / self.variance + torch.log(2 * math.pi * self.variance)
        return -0.5 * terms.flatten(mean.ndim - self.mean.ndim).sum(-1)

    def prior(self, centre: Tensor, variance: Tensor, z: Tensor) -> Tensor:
        return self.expected_log_prob(centre, variance)

    def to(self, device: torch.device | str) -> Gaussian:
        return Gaussian(self.mean.to(device), self.variance.to(device))


def standard_noise(sde: SDE, T: float, shape: tuple[int, ...]) -> Gaussian:
    """The usual p_noise: centred on 0, with the variance of x_T given x_0 = 0 for VE of any kind, and 1 for others."""
    variance = torch.ones(shape, dtype=torch.float64)
    if isinstance(sde, VarianceExploding):
        variance = variance * sde.variance(torch.tensor(T, dtype=torch.float64))
    return Gaussian(mean=torch.zeros(shape, dtype=torch.float64), variance=variance)


def matched_noise(sde: SDE, T: float, mean: Tensor, variance: Tensor) -> Gaussian:
    """p_noise with the mean and the variance of p(x, T), from the mean and the variance of the data per coordinate."""
    t = torch.tensor(T, dtype=torch.float64)
    alpha = sde.alpha(t)
    return Gaussian(mean=alpha * mean.double(), variance=alpha**2 * variance.double() + sde.variance(t))
