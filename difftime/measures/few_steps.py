"""Samples in few steps: solvers of the reverse probability-flow ODE that know its linear part.

With y = x/alpha, zeta = sigma/alpha = e^{lambda/2} and the score's estimate of the noise, z_hat = -sigma s(x, t), the
ODE dx = [f - ½ g² s] dt is

    dy = z_hat d zeta,   or, with the estimate of the data D = y - zeta z_hat,   d(y/zeta) = -D/zeta² d zeta,

whatever the schedule. DDIM and Heun's method step in the first form, DPM-Solver++ in the second. Each takes `x` at
times[0] along `times`, which fall, and returns it at times[-1]; `score` sees scalar times.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from itertools import pairwise

import torch
from jaxtyping import Float
from torch import Tensor

from difftime.diffusion.score import Score
from difftime.diffusion.sde import SDE
from difftime.measures.samplers import reverse_sde

FewSteps = Callable[[Score, SDE, Tensor, Tensor], Tensor]


def level_times(sde: SDE, T: float, epsilon: float, steps: int) -> Float[Tensor, " times"]:
    """The ends of `steps` steps from T down to epsilon that are equal in lambda."""
    start, stop = sde.noise_level(torch.tensor([T, epsilon], dtype=torch.float64))
    times = sde.time(torch.lerp(start, stop, torch.linspace(0, 1, steps + 1, dtype=torch.float64)))
    times[0], times[-1] = T, epsilon
    return times


def ratios(sde: SDE, times: Float[Tensor, " times"]) -> list[float]:
    """zeta at each of the times. Raises ValueError if they do not fall, or if there are fewer than two."""
    if len(times) < 2 or not (times.diff() < 0).all():
        raise ValueError(f"A sampler's times must fall from T to epsilon, and be two or more; found {times.tolist()}.")
    return (0.5 * sde.noise_level(times.double())).exp().tolist()


def noise_estimate(score: Score, sde: SDE, y: Tensor, t: Tensor) -> Tensor:
    """z_hat at x = alpha_t y."""
    return -sde.sigma(t).to(y) * score(sde.alpha(t).to(y) * y, t)


@torch.no_grad()
def ddim(score: Score, sde: SDE, x: Tensor, times: Float[Tensor, " times"]) -> Tensor:
    """DDIM without noise (Song et al., 2021a): Euler's method in zeta, of order 1, an evaluation a step."""
    y = x / sde.alpha(times[0]).to(x)
    for t, (here, there) in zip(times[:-1], pairwise(ratios(sde, times)), strict=True):
        y = y + (there - here) * noise_estimate(score, sde, y, t)
    return sde.alpha(times[-1]).to(x) * y


@torch.no_grad()
def heun(score: Score, sde: SDE, x: Tensor, times: Float[Tensor, " times"]) -> Tensor:
    """Heun's method in zeta (Karras et al., 2022, Algorithm 1), of order 2, two evaluations a step."""
    y = x / sde.alpha(times[0]).to(x)
    for (t, t_next), (here, there) in zip(pairwise(times), pairwise(ratios(sde, times)), strict=True):
        slope = noise_estimate(score, sde, y, t)
        guess = y + (there - here) * slope
        y = y + (there - here) * 0.5 * (slope + noise_estimate(score, sde, guess, t_next))
    return sde.alpha(times[-1]).to(x) * y


@torch.no_grad()
def dpm_solver_2m(score: Score, sde: SDE, x: Tensor, times: Float[Tensor, " times"]) -> Tensor:
    """DPM-Solver++(2M) (Lu et al., 2022, Algorithm 2), of order 2, an evaluation a step.

    D is extrapolated to the middle of a step, in lambda, from its values here and one step before; the first step,
    which has none before, is DDIM's.
    """
    y, zeta = x / sde.alpha(times[0]).to(x), ratios(sde, times)
    levels = sde.noise_level(times.double()).tolist()
    before = None
    for k, t in enumerate(times[:-1]):
        D = middle = y - zeta[k] * noise_estimate(score, sde, y, t)
        if before is not None:
            middle = D + (D - before) * (levels[k + 1] - levels[k]) / (levels[k] - levels[k - 1]) / 2
        shrink = zeta[k + 1] / zeta[k]
        y, before = shrink * y + (1 - shrink) * middle, D
    return sde.alpha(times[-1]).to(x) * y


SOLVERS: dict[str, tuple[FewSteps, int]] = {"ddim": (ddim, 1), "heun": (heun, 2), "dpm_solver_2m": (dpm_solver_2m, 1)}
"""By name, with its evaluations a step."""


def within(
    budget: int,
    sampler: str,
    score: Score,
    sde: SDE,
    x: Float[Tensor, "seeds points d"],
    T: float,
    epsilon: float,
    generators: Sequence[torch.Generator],
) -> tuple[Float[Tensor, "seeds points d"], int]:
    """Carry `x` from T to epsilon in at most `budget` evaluations of the score, and count them.

    `sampler` is one of SOLVERS, in equal steps of lambda, or "sde": Euler–Maruyama in equal steps of time, whose noise
    the generators draw.
    """
    calls = 0

    def counted(x: Tensor, t: Tensor) -> Tensor:
        nonlocal calls
        calls += 1
        return score(x, t)

    if sampler == "sde":
        return reverse_sde(counted, sde, x, T, epsilon, steps=budget, generators=generators), calls
    solve, each = SOLVERS[sampler]
    return solve(counted, sde, x, level_times(sde, T, epsilon, budget // each)), calls
