"""The samplers: where they end with the exact score, and how fast Euler–Maruyama converges."""

import math

import numpy as np
import pytest
import torch

from difftime.diffusion.mixture import Mixture
from difftime.diffusion.score import ExactScore
from difftime.diffusion.sde import SDE, VP, standard_noise
from difftime.measures.likelihood import ode_likelihood
from difftime.measures.quality import wasserstein1, wasserstein1_floor
from difftime.measures.samplers import reverse_ode, reverse_sde
from difftime.support.streams import stream

EPSILON = 1e-5


def test_euler_maruyama_has_weak_order_one() -> None:
    """Gaussian data, VP: the error of the variance falls like 1/steps, and the sampler makes that error."""
    sde, T, variance = VP(), 1.0, 0.25
    p = Mixture.from_covariances([1.0], [[0.0]], [[[variance]]])
    exact = p.diffused(sde, EPSILON).variance.item()

    errors, counts = [], [50, 100, 200, 400, 800]
    for steps in counts:
        # for a linear score a step is x -> a x + sqrt(g2 h) z, so the variance follows exactly
        h = (T - EPSILON) / steps
        v = p.diffused(sde, T).variance.item()
        for k in range(steps):
            t = torch.tensor(T - k * h, dtype=torch.float64)
            g2 = sde.diffusion_squared(t).item()
            slope = -1 / p.diffused(sde, t.item()).variance.item()
            a = 1 + h * (g2 * slope + 0.5 * g2)
            v = a * a * v + g2 * h
        errors.append(abs(v - exact))
    slope = np.polyfit(np.log(counts), np.log(errors), 1)[0]
    assert slope == pytest.approx(-1.0, abs=0.1)
    n = 100_000
    x = p.diffused(sde, T).sample(n, stream("x_T"))[None]
    drawn = reverse_sde(ExactScore(p, sde), sde, x, T, EPSILON, steps=50, generators=[stream("noise")])
    assert abs(drawn.var().item() - exact) == pytest.approx(errors[0], abs=4 * exact * math.sqrt(2 / n))


@pytest.mark.parametrize("kind", ["sde", "ode"])
def test_the_exact_score_and_a_large_T_give_samples_of_p_data(toy: Mixture, kind: str) -> None:
    sde, n = VP(), 5000
    x = standard_noise(sde, 1.0, (1,)).sample(1, n, generator=stream("x_T"))
    score = ExactScore(toy, sde)
    if kind == "sde":
        drawn = reverse_sde(score, sde, x, 1.0, EPSILON, steps=1000, generators=[stream("noise")])
    else:
        drawn, _ = reverse_ode(score, sde, x, 1.0, EPSILON, rtol=1e-6, atol=1e-6, max_evaluations=10_000)
    assert wasserstein1(drawn, toy).item() < 4 * wasserstein1_floor(toy, n)


def test_the_ode_sampler_inverts_the_flow(sde: SDE) -> None:
    # modes so broad that the flow is smooth over 2 h
    p = Mixture.from_covariances([0.4, 0.6], [[-1.0], [1.0]], [[[0.4]], [[0.6]]])
    score = ExactScore(p, sde)
    x = standard_noise(sde, 0.7, (1,)).sample(1, 20, generator=stream("x_T"))
    back, _ = reverse_ode(score, sde, x, 0.7, EPSILON, rtol=1e-8, atol=1e-8, max_evaluations=10_000)
    marker = standard_noise(sde, 0.7, (1,))
    there = ode_likelihood(score, sde, [marker], back, 0.7, EPSILON, rtol=1e-8, atol=1e-8, max_evaluations=10_000)
    # change of variables: log q(x_eps) = log p_noise(x_T) + log |dx_T / dx_eps|
    h = 1e-4
    above, _ = reverse_ode(score, sde, x + h, 0.7, EPSILON, rtol=1e-10, atol=1e-10, max_evaluations=100_000)
    below, _ = reverse_ode(score, sde, x - h, 0.7, EPSILON, rtol=1e-10, atol=1e-10, max_evaluations=100_000)
    expected = marker.log_prob(x) - ((above - below) / (2 * h)).abs().log()[..., 0]
    assert torch.allclose(there.log_q[0], expected, atol=1e-3)


def test_a_seeds_samples_depend_on_its_own_noise_only(toy: Mixture) -> None:
    sde = VP()
    x = torch.randn(2, 30, 1, dtype=torch.float64, generator=stream("x"))
    score = ExactScore(toy, sde)
    both = reverse_sde(score, sde, x, 0.5, EPSILON, steps=60, generators=[stream("a"), stream("b")])
    second = reverse_sde(score, sde, x[1:], 0.5, EPSILON, steps=60, generators=[stream("b")])
    assert torch.allclose(both[1:], second)
