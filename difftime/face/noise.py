"""p_noise, the density from which the reverse process starts, and its KL divergence."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Literal, get_args

import torch
from torch import Tensor

from difftime.diffusion.mixture import Mixture
from difftime.diffusion.p_noise import (
    Bracket,
    FullGaussian,
    MixtureNoise,
    diffuse,
    diffused_moments,
    fit_flow,
    fit_mixture,
)
from difftime.diffusion.p_noise import kl_bracket as bracket
from difftime.diffusion.sde import SDE, Noise, matched_noise, standard_noise
from difftime.face.data import Known, check_counts, known
from difftime.support.streams import stream

Kind = Literal["standard", "matched", "full", "mixture", "flow"]
OPTIONS: dict[str, dict[str, Any]] = {
    "mixture": {"components": 4, "iterations": 500},
    "flow": {"transforms": 3, "width": 64, "steps": 1000, "batch": 256, "learning_rate": 1e-3, "held_out": 0.1},
}
"""The options of the kinds that have some, with their defaults."""


@dataclass(frozen=True)
class PNoise:
    """A density from which the reverse process can start at T, made by `p_noise` for one SDE and one T."""

    kind: str
    sde: SDE
    T: float
    shape: tuple[int, ...]
    density: Noise

    def log_prob(self, x: Tensor) -> Tensor:
        """log p_noise in nats of points `[n, *shape]`: `[n]`, float64."""
        if tuple(x.shape[1:]) != self.shape:
            raise ValueError(f"This p_noise is of points [n, {', '.join(map(str, self.shape))}], not {list(x.shape)}.")
        return self.density.log_prob(x.double().flatten(1))

    def sample(self, n: int, *, seed: int = 0) -> Tensor:
        """`[n, *shape]`, float64."""
        drawn = self.density.sample(n, generator=stream(seed, "x_T")).double()
        return drawn.unflatten(-1, self.shape)

    def __repr__(self) -> str:
        return f"PNoise({self.kind!r}, {self.sde}, T={self.T:g}, shape={list(self.shape)})"


def p_noise(
    kind: Kind,
    sde: SDE,
    T: float,
    data: Any = None,
    *,
    shape: Sequence[int] | None = None,
    seed: int = 0,
    **options: Any,
) -> PNoise:
    """A density from which the reverse process starts at T (Eq. 8).

    The score does not depend on p_noise, so one trained network can be used with every p_noise. A p_noise is fitted to
    `data`: give training data, never the data that are measured.

    Args:
        kind: `"standard"`: N(0, I), for VE N(0, sigma_T² I). `"matched"`: independent coordinates with the mean and
            variance of x_T. `"full"`: the Gaussian with the mean and covariance of x_T. `"mixture"`: Gaussians fitted
            to the data by expectation maximisation and diffused to T. `"flow"`: a neural spline flow fitted to x_T.
        sde: the forward diffusion, the score's own.
        T: the diffusion time, positive.
        data: floating-point `[n, *shape]`, uint8 pixels, or a `Mixture`, whose moments and density are known exactly.
        shape: the shape of one point, for `"standard"` without data.
        seed: the seed of the random numbers of the fit.
        options: for `"mixture"` components, iterations; for `"flow"` transforms, width, steps, batch, learning_rate,
            held_out.

    Raises:
        ValueError: for an unknown kind or option, for a T that is not positive, or if a kind needs data and gets none.
        BadNoise: if the data do not suffice for the fit.

    Example:
        >>> import difftime as dt, torch
        >>> train = torch.randn(1000, 2, generator=torch.Generator().manual_seed(0))
        >>> dt.p_noise("full", dt.VP(), T=0.5, data=train)
        PNoise('full', VP(beta_min=0.1, beta_max=20.0), T=0.5, shape=[2])
    """
    check_kind(kind)
    if not 0 < T < math.inf:
        raise ValueError(f"T is a positive number, but is {T}.")
    of = None if data is None else known(data)
    return PNoise(kind, sde, float(T), *_fitted(kind, sde, float(T), of, shape, seed, options))


def check_kind(kind: object) -> None:
    """Raises ValueError for an unknown kind of p_noise."""
    if kind not in get_args(Kind):
        raise ValueError(f"There is no p_noise {kind!r}. The kinds are {', '.join(get_args(Kind))}.")


def shape_of(shape: Any) -> tuple[int, ...]:
    """The shape of one point. Raises ValueError if it has no axis, or an axis that is no whole number from 1 on."""
    if not isinstance(shape, Sequence) or not shape:
        raise ValueError(f"The shape of a point is a tuple such as (1, 28, 28), or (1,) for numbers, not {shape!r}.")
    check_counts(**{f"Axis {i} of the shape": size for i, size in enumerate(shape)})
    return tuple(shape)


def _fitted(
    kind: Kind, sde: SDE, T: float, data: Known | None, shape: Sequence[int] | None, seed: int, options: dict[str, Any]
) -> tuple[tuple[int, ...], Noise]:
    """The shape of a point, and the density of flat points."""
    allowed = OPTIONS.get(kind, {})
    if unknown := options.keys() - allowed.keys():
        known_ones = f"it has {', '.join(allowed)}" if allowed else "it has none"
        raise ValueError(f"The p_noise {kind!r} has no option {', '.join(sorted(unknown))}: {known_ones}.")
    if options and data is not None and isinstance(data.source, Mixture):
        raise ValueError(
            f"The p_noise {kind!r} of a Mixture is exact. {', '.join(options)} are for one that is fitted."
        )
    options = allowed | options
    check_counts(**{name: value for name, value in options.items() if isinstance(allowed[name], int)})
    if kind == "standard":
        if data is not None and shape is None:
            form = data.shape
        elif data is None and shape is not None:
            form = shape_of(shape)
        else:
            raise ValueError("The standard p_noise needs the shape of a point: give either data or shape=(...).")
        return form, standard_noise(sde, T, (math.prod(form),))
    if data is None or shape is not None:
        raise ValueError(f"The p_noise {kind!r} is fitted: it needs data=..., the training data, and no shape.")
    return data.shape, _fit(kind, sde, T, data, f"{seed}/p_noise", options)


def _fit(kind: Kind, sde: SDE, T: float, data: Known, seed: str, options: dict[str, Any]) -> Noise:
    if kind == "matched":
        return matched_noise(sde, T, *data.marginals())
    p = data.source if isinstance(data.source, Mixture) else None
    if kind == "mixture":
        if p is not None:
            return MixtureNoise.of(p.diffused(sde, T), p)
        x0 = data.points(torch.arange(data.n), stream(seed, "data"))
        return fit_mixture(x0, sde, T, **options, seed=seed)
    gaussian = FullGaussian.of(*diffused_moments(sde, T, *data.regular()))
    if kind == "full":
        return gaussian
    if p is not None:
        raise ValueError("A flow is fitted to points. Draw some from the Mixture: p.sample(n, generator).")

    def draw(index: Tensor, generator: torch.Generator) -> Tensor:
        return diffuse(data.points(index, generator), sde, T, generator)

    return fit_flow(draw, gaussian, data.n, **options, seed=seed)


def kl_bracket(start: PNoise, data: Any) -> Bracket:
    """A lower and an upper bound on KL[p(x, T) ‖ p_noise], the loss of the ELBO with a perfect score (Eq. 11).

    Both bounds are closed forms in the mean and covariance of the data, in nats per point. p(x, 0) is the empirical
    distribution of the data, for pixels with their dequantisation. Divide by D ln 2 for bits per dimension.

    Args:
        start: a `"standard"`, `"matched"` or `"full"` p_noise.
        data: floating-point `[n, *shape]`, uint8 pixels, or a `Mixture`.

    Returns:
        `lower`: the KL of the Gaussian with the moments of x_T, exact for Gaussian data.
        `upper`: E KL[q(x_T | x_0) ‖ p_noise], exact for a single data point.

    Raises:
        ValueError: for a mixture or a flow, whose KL has no such bracket, and for data of another shape.

    Example:
        >>> import difftime as dt
        >>> p = dt.Mixture.from_covariances([1.0], [[0.0]], [[[4.0]]])
        >>> low, high = dt.kl_bracket(dt.p_noise("standard", dt.VP(), T=0.5, shape=(1,)), p)
        >>> f"{low:.4f} to {high:.4f}"
        '0.0122 to 0.1598'
    """
    of = known(data)
    if of.shape != start.shape:
        raise ValueError(f"The data have points of shape {list(of.shape)}, p_noise {list(start.shape)}.")
    found = bracket(*of.moments(), start.sde, start.T, start.density)
    if found is None:
        raise ValueError(f"The KL of a {start.kind} has no bracket in closed form: it is for Gaussian p_noises.")
    return found
