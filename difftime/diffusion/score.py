"""The score s(x, t): a network's, or the exact one, behind one interface.

A score takes x of shape (seeds, batch, d) and times t whose axes lead those of x (a scalar, one per seed, or one per
point), and returns the shape of x in the type of x.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Literal, Protocol, runtime_checkable

import torch
from jaxtyping import Float
from torch import Tensor, nn

from difftime.diffusion.mixture import Mixture
from difftime.diffusion.sde import SDE, expand

Score = Callable[[Tensor, Tensor], Tensor]
Predicts = Literal["noise", "v", "x0", "score"]
"""What a network may predict of x_t = alpha_t x_0 + sigma_t z: z, v = alpha_t z - sigma_t x_0, x_0 or -z/sigma_t."""
Divergence = Callable[[Score, Tensor, Tensor], tuple[Tensor, Tensor]]
"""(score, x, t) to s(x, t) and its divergence per point."""


@runtime_checkable
class Prior(Protocol):
    """What is known of the noise before a network has learned anything."""

    def noise(self, x: Tensor, alpha: Tensor, sigma: Tensor) -> Tensor:
        """An estimate of z from x = alpha x_0 + sigma z, in float64."""
        ...


def score_from(output: Tensor, x: Tensor, t: Tensor, sde: SDE, predicts: Predicts) -> Tensor:
    """s(x, t) from what a network predicts at x_t = x; the axes of `t` are the leading ones of `x`."""
    if predicts == "score":
        return output
    sigma = expand(sde.sigma(t), x)
    if predicts == "noise":
        return -output / sigma
    alpha = expand(sde.alpha(t), x)
    if predicts == "x0":
        return (alpha * output - x) / sigma**2
    # z = (alpha v + sigma x) / (alpha² + sigma²), whether or not that is 1
    return -(alpha * output / sigma + x) / (alpha**2 + sigma**2)


@dataclass(frozen=True)
class NetScore:
    """s(x, t) = -net(c x, t) / sigma_t if the network predicts the noise z, or net(c x, t) if it predicts the score.

    With a `prior` the network predicts what the prior's estimate of z leaves. c is 1, or, for `scale_input`,
    1 / sqrt(alpha_t² v + sigma_t²) with v the data's mean variance per coordinate.
    The network computes in float32 whatever the type of x.
    """

    net: nn.Module
    sde: SDE
    predicts: Literal["noise", "score"]
    scale_input: bool
    data_variance: float
    prior: Prior | None = None

    def __call__(self, x: Tensor, t: Tensor) -> Tensor:
        t = t.to(x).reshape(t.shape + (1,) * (x.ndim - 1 - t.ndim)).expand(x.shape[:-1])
        output = self.net(self.inputs(x, t).float(), t.float()).to(x.dtype)
        if self.predicts == "noise":
            output = output + self.known(x, t).to(x.dtype)
        return score_from(output, x, t, self.sde, self.predicts)

    def inputs(self, x: Tensor, t: Tensor) -> Tensor:
        """c x, what the network sees of x; t has a value per point."""
        if not self.scale_input:
            return x
        return x / expand((self.sde.alpha(t) ** 2 * self.data_variance + self.sde.variance(t)).sqrt(), x)

    def known(self, x: Tensor, t: Tensor) -> Tensor:
        """What is known of the noise without a network; t has a value per point."""
        if self.prior is None:
            return torch.zeros_like(x)
        t = t.double()
        return self.prior.noise(x, expand(self.sde.alpha(t), x), expand(self.sde.sigma(t), x))

    def regression(self, x: Tensor, z: Tensor, t: Tensor) -> tuple[Tensor, Tensor]:
        """What the network should output for x = alpha_t x_0 + sigma_t z, and a factor per point.

        The factor times the network's squared error is the squared error of the noise, ||z_hat - z||².
        """
        if self.predicts == "noise":
            return z - self.known(x, t), torch.ones_like(t)
        sigma = self.sde.sigma(t)
        return -z / expand(sigma, z), sigma**2


@dataclass(frozen=True)
class ExactScore:
    """The gradient of log p(x, t), for data from a Gaussian mixture."""

    mixture: Mixture
    sde: SDE

    def __call__(self, x: Tensor, t: Tensor) -> Tensor:
        t = t.double()
        return self.mixture.score(x.double(), self.sde.alpha(t), self.sde.variance(t)).to(x.dtype)


def _differentiable(s: Tensor) -> Tensor:
    """Refuse a score that autograd knows no derivative of."""
    if not s.requires_grad:
        raise ValueError(
            "The divergence of the score is needed, but autograd sees no dependence on x: compute the network without "
            "torch.no_grad(), detach() or NumPy."
        )
    return s


def divergence(score: Score, x: Tensor, t: Tensor) -> tuple[Tensor, Tensor]:
    """s(x, t) and its exact divergence over the last axis, by one vector–Jacobian product per coordinate."""
    with torch.enable_grad():
        x = x.detach().requires_grad_()
        s = _differentiable(score(x, t))
        columns = [
            torch.autograd.grad(s[..., i].sum(), x, retain_graph=i + 1 < x.shape[-1])[0][..., i]
            for i in range(x.shape[-1])
        ]
    return s.detach(), torch.stack(columns).sum(0)


@dataclass(frozen=True)
class Hutchinson:
    """An unbiased estimate of the divergence, probe · J · probe per point, at the price of one vector–Jacobian product.

    The probe's coordinates have mean 0 and covariance I. It stays the same at every call: with a fresh one each time,
    the right-hand side of an ODE would be noise, which its step control takes for error.
    """

    probe: Float[Tensor, "*#points d"]

    def __call__(self, score: Score, x: Tensor, t: Tensor) -> tuple[Tensor, Tensor]:
        """s(x, t) and the estimate, in the type of x; `probe` is on the device of x."""
        with torch.enable_grad():
            x = x.detach().requires_grad_()
            s = _differentiable(score(x, t))
        (product,) = torch.autograd.grad(s, x, self.probe.to(s.dtype).expand_as(s))
        return s.detach(), (product * self.probe).sum(-1)


def rademacher(shape: Sequence[int], generator: torch.Generator) -> Tensor:
    """Fair signs, +1 or -1 in float32, on the generator's device.

    Among probes with independent coordinates they give Hutchinson's estimate the least variance.
    """
    return torch.empty(shape, device=generator.device).bernoulli_(generator=generator).mul_(2).sub_(1)
