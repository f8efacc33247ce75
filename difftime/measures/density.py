"""The density of the reverse SDE, Eq. 2, in one dimension: what the ELBO of Eqs. 4 and 11 bounds from below.

The reverse SDE starts at T from p_noise and runs down to epsilon,

    dx = (-f + g² s) dtau + g dw,    tau = T - t,

and for a learned score s its density q is known only through the Fokker–Planck equation. We solve that in

    y = (x - alpha_t m) / scale_t,    scale_t² = alpha_t² v + sigma_t²,

m and v being the mean and the variance of the data, and by the clock u with sinh(u/2) = sigma_t / (alpha_t sqrt(v)),
that is, du = (sigma_t / scale_t) d lambda. Then f drops out, for every affine SDE, and nothing is large at any T:

    -dq/du = -d/dy[(sigma_t s + ½ tanh(u/2) y) q] + ½ tanh(u/2) d²q/dy²,

where sigma_t s is minus the output of a network that predicts the noise.

One solve takes exponentially fitted finite volumes (Scharfetter and Gummel, 1969; Chang and Cooper, 1970), of second
order in the cell, and implicit Euler, of first order in the step. Both keep q positive, and its tails accurate to many
digits, at any size; no step of second order does (Bolley and Crouzeix, 1978). So the accuracy comes from elsewhere:
four solves, with cells divided by 1, 2, 3, 4 and steps by 1, 4, 9, 16, are extrapolated (Richardson) on log q, which
stays finite. What the finest of them still changed is the estimate of the numerical error.

The ends of the grid absorb. Hence q is never too large because the grid is finite: where a network throws probability
away, the result is a lower bound of the density, and ELBO <= E log q <= E log p_data may be tested with it.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
import torch
from jaxtyping import Float
from scipy.linalg.lapack import dgtsv
from torch import Tensor

from difftime.diffusion.sde import SDE, Noise

Score = Callable[[Tensor, Tensor], Tensor]

REFINEMENTS = (1, 2, 3, 4)  # cells per output cell; the steps go with the square, so that one number orders the error
CLOCK_OFFSET = 0.3  # steps are uniform in log(1 + u / CLOCK_OFFSET): longer where the process forgets
CORE = 3.0  # |y| up to which the cells are nearly equal; farther out they grow like |y|
NOISE_REACH = 8.0  # standard deviations of p_noise that the grid must hold
FLOOR = 1e-280  # smallest probability of a cell: below it arithmetic is slow, then zero
LARGEST_DRIFT = 1e6  # |dy/du| above which a score has diverged; that of an exact score is of order 10
MASS_TOLERANCE = 1e-4  # how far the mass of p_epsilon on the grid may be from 1


@dataclass(frozen=True)
class Density:
    """The reverse SDE's density at time epsilon. For a seed whose score diverged, the last three fields are NaN.

    `error` is what the finest solve changed in `log_q`. Above 1e-5 nats it was never below the true error in any case
    tried, and often a hundred times as large. It knows nothing of `boundary_mass`, the probability that left through
    the ends of the grid. Up to 1e-4 that is of no consequence. Above, q is a lower bound, and E log q is to be believed
    only if it does not move with `reach`. Usually it does not, as what a network throws out seldom comes back: small
    networks trained on VE up to T = 2 lost a quarter without a change in the fifth digit.
    """

    x: Float[Tensor, " n"]
    weights: Float[Tensor, " n"]  # the integral over x is sum(weights * values); spectrally accurate for smooth values
    log_q: Float[Tensor, "noises seeds n"]  # nats
    error: Float[Tensor, "noises seeds n"]  # nats, >= 0
    boundary_mass: Float[Tensor, "noises seeds"]


class Expectation(NamedTuple):
    """E log q under p_epsilon in nats and its numerical error, per p_noise and seed."""

    value: Float[Tensor, "noises seeds"]
    error: Float[Tensor, "noises seeds"]


@dataclass(frozen=True)
class Grid:
    """Nodes equidistant in xi, y = CORE sinh(xi / CORE), strictly between two ends where q = 0."""

    nodes: Float[np.ndarray, " n"]
    volumes: Float[np.ndarray, " n"]  # dy of a node's cell
    faces: Float[np.ndarray, " n+1"]
    gaps: Float[np.ndarray, " n+1"]  # dy between the nodes (or the end) on either side of a face

    @classmethod
    def between(cls, low: float, high: float, cells: int) -> Grid:
        """`cells` - 1 nodes; r * `cells` has them among its own, at r - 1, 2 r - 1, ..."""
        xi = np.linspace(CORE * math.asinh(low / CORE), CORE * math.asinh(high / CORE), 2 * cells + 1)
        y = CORE * np.sinh(xi / CORE)
        # dy/dxi, not the distance of the faces: so sums over nodes are the trapezoidal rule in xi
        volumes = (xi[2] - xi[0]) * np.cosh(xi[2:-1:2] / CORE)
        return cls(nodes=y[2:-1:2], volumes=volumes, faces=y[1::2], gaps=np.diff(y[::2]))


@dataclass(frozen=True)
class Clock:
    """The times of one solve, from T down to epsilon, and the moving coordinate there."""

    t: Float[Tensor, " times"]
    u: Float[np.ndarray, " times"]
    sigma: Float[np.ndarray, " times"]
    centre: Float[np.ndarray, " times"]  # alpha_t m
    scale: Float[np.ndarray, " times"]  # x = centre + scale y

    @classmethod
    def between(cls, sde: SDE, T: float, epsilon: float, data_mean: float, data_variance: float, steps: int) -> Clock:
        """`steps` + 1 times, uniform in log(1 + u / CLOCK_OFFSET)."""
        ends = torch.tensor([T, epsilon], dtype=torch.float64)
        log_v = math.log(data_variance)
        first, last = 2 * np.arcsinh(np.exp(0.5 * (sde.noise_level(ends).numpy() - log_v)))
        stretched = np.linspace(math.log1p(first / CLOCK_OFFSET), math.log1p(last / CLOCK_OFFSET), steps + 1)
        u = CLOCK_OFFSET * np.expm1(stretched)
        # log v + 2 log sinh(u/2), written so that a large u does not overflow
        t = sde.time(torch.from_numpy(log_v + u + 2 * np.log(-np.expm1(-u)) - math.log(4)))
        t[0], t[-1] = ends  # networks are not to be asked below epsilon, not even by a rounding error
        alpha, variance = sde.alpha(t).numpy(), sde.variance(t).numpy()
        scale = np.sqrt(alpha**2 * data_variance + variance)
        return cls(t=t, u=u, sigma=np.sqrt(variance), centre=alpha * data_mean, scale=scale)


def reverse_sde_density(
    sde: SDE,
    score: Score,
    noises: Sequence[Noise],
    T: float,
    epsilon: float,
    *,
    data_mean: float,
    data_variance: float,
    seeds: int,
    cells: int = 256,
    steps: int = 32,
    reach: float = 10.0,
) -> Density:
    """log q of x_epsilon under the reverse SDE, Eq. 2, from each p_noise and with each seed's score.

    `score(x, t)` takes x of shape (seeds, points, 1) and a scalar t, both float64, and returns the shape of x; it may
    compute in float32. `cells` - 1 is the number of nodes returned, `steps` the number of time steps of the coarsest of
    four solves; the finest has 4 `cells` and 16 `steps`, and all together cost 100 `cells` `steps` points per seed.
    `reach` is the half width of the grid in standard deviations of the data; it is widened where p_noise needs it.

    With the defaults E log q is good to 1e-5 nats, and its estimated error is 1e-4 at most, if the data's modes are not
    narrower than a tenth of their standard deviation and E log q is above -5 or so; at -25 the error is 1e-2 and its
    estimate 1e-1. The estimate falls with the third power of `steps`. Where q is below about e^-600 it is not resolved,
    and `error` says so.

    Raises ValueError if the settings are out of range, if p_noise is narrower than a cell, or if the score has another
    shape than x.
    """
    check_settings(T, epsilon, data_variance, cells, steps)
    clocks = {r: Clock.between(sde, T, epsilon, data_mean, data_variance, steps * r**2) for r in REFINEMENTS}
    low, high = domain(noises, clocks[1], reach)
    grids = {r: Grid.between(low, high, cells * r) for r in REFINEMENTS}
    check_noises_are_resolved(noises, clocks[1], grids[1])
    masses = {r: solve(score, noises, grids[r], clocks[r], seeds) for r in REFINEMENTS}
    log_q, error = extrapolate_log({r: masses[r][..., r - 1 :: r] / grids[r].volumes[r - 1 :: r] for r in REFINEMENTS})
    centre, scale = clocks[1].centre[-1], clocks[1].scale[-1]
    return Density(
        x=torch.from_numpy(centre + scale * grids[1].nodes),
        weights=torch.from_numpy(scale * grids[1].volumes),
        log_q=torch.from_numpy(log_q - math.log(scale)),
        error=torch.from_numpy(error),
        # an extrapolated probability may lie outside [0, 1] by its error
        boundary_mass=torch.from_numpy(richardson({r: 1 - masses[r].sum(axis=-1) for r in masses}).clip(0.0, 1.0)),
    )


def expected_log_q(density: Density, log_p: Tensor | Callable[[Tensor], Tensor]) -> Expectation:
    """E log q in nats under p_epsilon, whose log density is `log_p`: a function of `density.x`, or its values there.

    The error adds that of log q, without letting its signs cancel, and that of the quadrature, from every second node.
    Raises ValueError if p_epsilon does not lie on the grid or is too narrow for it.
    """
    log_p = log_p(density.x) if callable(log_p) else log_p
    measure = log_p.exp() * density.weights
    if not abs(measure.sum() - 1) < MASS_TOLERANCE:
        low, high = density.x[[0, -1]].tolist()
        raise ValueError(
            f"p_epsilon has the mass {measure.sum():.6f} on {len(measure)} nodes from {low:.3g} to {high:.3g}, instead "
            f"of 1. If it is wider than that, raise `reach`; if it has modes as narrow as "
            f"{density.weights.min():.1g}, raise `cells`; if `log_p` is not normalised, normalise it."
        )
    terms = measure * density.log_q
    value = terms.sum(-1)
    quadrature = (2 * terms[..., 1::2].sum(-1) - value).abs() / 3  # an upper bound for every order from the second on
    return Expectation(value=value, error=(measure * density.error).sum(-1) + quadrature)


def check_settings(T: float, epsilon: float, data_variance: float, cells: int, steps: int) -> None:
    """Raises ValueError for times, a variance or sizes that make no sense."""
    if not 0 < epsilon < T < math.inf:
        raise ValueError(f"The reverse SDE runs from T down to epsilon > 0, but T = {T} and epsilon = {epsilon}.")
    if not 0 < data_variance < math.inf:
        raise ValueError(f"The grid is scaled by the data's variance, which must be positive; it is {data_variance}.")
    if cells < 16 or steps < 2:
        raise ValueError(f"At least 16 cells and 2 steps are needed; asked for were {cells} and {steps}.")


def noise_in_y(noise: Noise, clock: Clock) -> tuple[float, float]:
    """Mean and standard deviation of p_noise in the coordinate y at time T."""
    return (noise.mean.item() - clock.centre[0]) / clock.scale[0], math.sqrt(noise.spread.item()) / clock.scale[0]


def domain(noises: Sequence[Noise], clock: Clock, reach: float) -> tuple[float, float]:
    """The ends of the grid in y, at `reach` or where p_noise ends."""
    moments = [noise_in_y(noise, clock) for noise in noises]
    low = min(mean - NOISE_REACH * deviation for mean, deviation in moments)
    high = max(mean + NOISE_REACH * deviation for mean, deviation in moments)
    return min(-reach, low), max(reach, high)


def check_noises_are_resolved(noises: Sequence[Noise], clock: Clock, grid: Grid) -> None:
    """Raises ValueError if a p_noise is narrower than one cell of the coarsest grid."""
    for noise in noises:
        mean, deviation = noise_in_y(noise, clock)
        width = np.interp(mean, grid.nodes, grid.volumes)
        if deviation < width:
            raise ValueError(
                f"p_noise is {deviation:.2g} wide where the grid's cells are {width:.2g} wide (standard deviations of "
                f"x_T); raise `cells` from {len(grid.nodes) + 1} to {math.ceil(width / deviation * len(grid.faces))} "
                f"or more."
            )


def solve(
    score: Score, noises: Sequence[Noise], grid: Grid, clock: Clock, seeds: int
) -> Float[np.ndarray, "noises seeds n"]:
    """Probabilities of the cells at epsilon by one solve; NaN for seeds whose score was not finite, or diverged.

    The implicit step evaluates the score at its end, so never at T itself.
    """
    mass = np.tile(initial_mass(noises, grid, clock), (seeds, 1))
    diverged = np.zeros(seeds, dtype=bool)
    for k in range(1, len(clock.u)):
        step, diffusion = clock.u[k - 1] - clock.u[k], 0.5 * math.tanh(0.5 * clock.u[k])
        pull = scaled_score(score, clock.centre[k] + clock.scale[k] * grid.faces, clock.t[k], clock.sigma[k], seeds)
        diverged |= ~(np.abs(pull) < LARGEST_DRIFT).all(axis=1)  # the negation catches NaN
        pull[diverged] = 0.0  # the seeds share one linear system: they must not infect each other
        up, down = transfer_rates(pull + diffusion * grid.faces, diffusion, grid)
        mass = implicit_euler(mass, step * up, step * down)
    mass = mass.reshape(seeds, len(grid.nodes), len(noises)).transpose(2, 0, 1)
    mass[:, diverged] = np.nan
    return mass


def initial_mass(noises: Sequence[Noise], grid: Grid, clock: Clock) -> Float[np.ndarray, "n noises"]:
    """Probabilities of the cells under each p_noise."""
    x = torch.from_numpy(clock.centre[0] + clock.scale[0] * grid.nodes)[:, None]
    log_q = torch.stack([noise.log_prob(x) for noise in noises], dim=-1).numpy()
    return np.maximum(np.exp(log_q) * clock.scale[0] * grid.volumes[:, None], FLOOR)


def scaled_score(
    score: Score, x: Float[np.ndarray, " n"], t: Tensor, sigma: float, seeds: int
) -> Float[np.ndarray, "seeds n"]:
    """sigma_t s(x, t). Raises ValueError if the score does not return one value per point and seed."""
    points = torch.from_numpy(x)[None, :, None].expand(seeds, -1, 1)
    with torch.no_grad():
        s = score(points, t)
    if s.shape != points.shape:
        raise ValueError(
            f"The score of {tuple(points.shape)} points came back with shape {tuple(s.shape)}. It must return one "
            f"value per point and seed: is `seeds` = {seeds} the number of models in it?"
        )
    return (s[..., 0].double() * float(sigma)).numpy()


def transfer_rates(
    drift: Float[np.ndarray, "seeds faces"], diffusion: float, grid: Grid
) -> tuple[Float[np.ndarray, "seeds n"], Float[np.ndarray, "seeds n"]]:
    """Rates at which probability leaves each cell for the next one up and down, per unit of u.

    `drift` is dy/du at the faces. Exponential fitting (Scharfetter and Gummel, 1969), with Bernoulli's function
    B(p) = p / (e^p - 1): exact where the flux, the drift and the diffusion are constant between two nodes.
    """
    peclet = drift * (grid.gaps / diffusion)
    size = np.clip(np.abs(peclet), 1e-12, 500.0)  # B(0) = 1 without 0/0, B(500) = 0 without overflow
    bernoulli = size / np.expm1(size)
    per_face = diffusion / grid.gaps
    up = (bernoulli + np.maximum(peclet, 0.0)) * per_face  # B(-p) = B(p) + p
    down = (bernoulli + np.maximum(-peclet, 0.0)) * per_face
    return up[:, 1:] / grid.volumes, down[:, :-1] / grid.volumes


def implicit_euler(
    mass: Float[np.ndarray, "rows noises"], up: Float[np.ndarray, "seeds n"], down: Float[np.ndarray, "seeds n"]
) -> Float[np.ndarray, "rows noises"]:
    """One implicit step of all seeds and p_noises; `up` and `down` are rates times the step.

    The matrix's columns add up to 1, or to more at the absorbing ends, and only its diagonal is positive. So the result
    is positive, mass is lost only at the ends, and LAPACK never pivots: relative accuracy holds in the tails.
    """
    diagonal = 1 + up + down
    up[:, -1] = down[:, 0] = 0.0  # what crosses the end of one seed's grid does not enter its neighbour's
    mass = dgtsv(-up.ravel()[:-1], diagonal.ravel(), -down.ravel()[1:], mass)[3]
    return np.maximum(mass, FLOOR, out=mass)


def extrapolate_log(
    solutions: dict[int, Float[np.ndarray, "noises seeds n"]],
) -> tuple[Float[np.ndarray, "noises seeds n"], Float[np.ndarray, "noises seeds n"]]:
    """Log densities per unit of y in the limit of infinite refinement, and their errors, from positive `solutions`.

    The error is what the finest solve changed; where the floor was touched, it is as large as the value.
    """
    logs = {r: np.log(q) for r, q in solutions.items()}
    best = richardson(logs)
    error = np.abs(best - richardson({r: logs[r] for r in sorted(logs)[:-1]}))
    floored = np.any([q < 1e10 * FLOOR for q in solutions.values()], axis=0)
    return best, np.where(floored, np.abs(best), error)


def richardson(values: dict[int, np.ndarray]) -> np.ndarray:
    """The limit of `values` by refinement r, polynomials in the step 1 / r²: Lagrange's interpolation, taken at 0."""
    steps = {r: r**-2 for r in values}
    weights = {r: math.prod(h / (h - steps[r]) for q, h in steps.items() if q != r) for r in values}
    return np.sum([weights[r] * values[r] for r in values], axis=0)
