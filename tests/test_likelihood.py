"""The probability-flow ODE: exact where the density is known, and its cost as SciPy counts it."""

import math

import numpy as np
import pytest
import torch
from scipy.integrate import solve_ivp

from difftime.diffusion.mixture import Mixture
from difftime.diffusion.score import ExactScore, Hutchinson, rademacher
from difftime.diffusion.sde import SDE, Gaussian, matched_noise, standard_noise
from difftime.measures.elbo import end_terms
from difftime.measures.likelihood import ode_likelihood
from difftime.support.streams import stream

EPSILON = 1e-5
SOLVER = {"rtol": 1e-5, "atol": 1e-5, "max_evaluations": 10_000}


@pytest.mark.parametrize("T", [0.2, 1.0, 2.0])
def test_gaussian_data_with_the_exact_score_have_their_exact_likelihood(sde: SDE, T: float) -> None:
    p = Mixture.from_covariances([1.0], [[0.5, -1.0]], [[[0.3, 0.0], [0.0, 0.6]]])
    end, start = p.diffused(sde, T), p.diffused(sde, EPSILON)
    x = start.sample(40, stream("x"))[None]
    found = ode_likelihood(
        ExactScore(p, sde), sde, [Gaussian(end.mean, end.variance)], x, T, EPSILON,
        rtol=1e-8, atol=1e-8, max_evaluations=10_000,
    )  # fmt: skip
    assert torch.allclose(found.log_q[0, 0], start.log_prob(x[0]), atol=1e-5)


def images(name: str) -> Mixture:
    """Gaussian images of 16 pixels, with correlations and with variances from 0.3 down to 0.003."""
    rotation, _ = torch.linalg.qr(torch.randn(16, 16, dtype=torch.float64, generator=stream(name)))
    covariance = rotation * (0.3 * torch.logspace(0, -2, 16, dtype=torch.float64)) @ rotation.mT
    return Mixture.from_covariances([1.0], [[-0.3] * 16], [(0.5 * (covariance + covariance.mT)).tolist()])


@pytest.mark.parametrize("T", [0.4, 1.5])
def test_images_with_the_exact_score_have_the_likelihood_of_the_flow(sde: SDE, T: float) -> None:
    """The flow of a Gaussian stretches each principal axis by the ratio of its standard deviations."""
    p = images("p")
    end, start = p.diffused(sde, T), p.diffused(sde, EPSILON)
    x, axes = start.sample(10, stream("x")), p.axes[0]
    stretch = (end.variances / start.variances).sqrt()[0]
    x_T = end.mean + ((x - start.mean) @ axes * stretch) @ axes.mT
    noises = [standard_noise(sde, T, (16,)), matched_noise(sde, T, p.mean, p.variance)]
    found = ode_likelihood(
        ExactScore(p, sde), sde, noises, x[None], T, EPSILON, rtol=1e-8, atol=1e-8, max_evaluations=10_000
    )
    for noise, log_q in zip(noises, found.log_q[:, 0], strict=True):
        assert torch.allclose(log_q, noise.log_prob(x_T) + stretch.log().sum(), atol=1e-4)


def test_one_probe_per_image_gives_the_likelihood_without_bias(sde: SDE) -> None:
    p, T = images("p"), 0.7
    x = p.diffused(sde, EPSILON).sample(400, stream("x"))[None]
    score, noise = ExactScore(p, sde), [standard_noise(sde, T, (16,))]
    exact = ode_likelihood(score, sde, noise, x, T, EPSILON, **SOLVER)
    probe = Hutchinson(rademacher(x.shape, stream("probe")))
    found = ode_likelihood(score, sde, noise, x, T, EPSILON, **SOLVER, divergence=probe)
    error = (found.log_q - exact.log_q)[0, 0]
    assert error.std() > 0.1
    assert abs(error.mean().item()) < 4 * error.std().item() / math.sqrt(error.numel())


@pytest.mark.parametrize("rtol", [1e-3, 1e-5])
def test_with_a_probe_too_the_number_of_function_evaluations_is_scipys(sde: SDE, rtol: float) -> None:
    p, T, n = images("p"), 0.8, 6
    x = p.diffused(sde, EPSILON).sample(n, stream("x"))
    score, probe = ExactScore(p, sde), rademacher((n, 16), stream("probe"))

    def velocity(t: float, y: np.ndarray) -> np.ndarray:
        time = torch.tensor(t, dtype=torch.float64)
        position = torch.from_numpy(y).reshape(n, 17)[:, :16].requires_grad_()
        s = score(position[None], time)[0]
        (product,) = torch.autograd.grad(s, position, probe.double())
        half_g2 = 0.5 * sde.diffusion_squared(time)
        dx = sde.drift(position, time) - half_g2 * s
        dlog = 16 * sde.drift_divergence(time) - half_g2 * (product * probe).sum(1, keepdim=True)
        return torch.cat([dx, dlog], 1).detach().numpy().ravel()

    y0 = torch.cat([x, x.new_zeros(n, 1)], 1).numpy().ravel()
    oracle = solve_ivp(velocity, (EPSILON, T), y0, method="RK45", rtol=rtol, atol=rtol)
    noise = standard_noise(sde, T, (16,))
    found = ode_likelihood(
        score, sde, [noise], x[None], T, EPSILON,
        rtol=rtol, atol=rtol, max_evaluations=10_000, divergence=Hutchinson(probe[None]),
    )  # fmt: skip
    assert found.nfe.item() == oracle.nfev
    end = torch.from_numpy(oracle.y[:, -1]).reshape(n, 17)
    assert torch.allclose(found.log_q[0, 0], noise.log_prob(end[:, :16]) + end[:, 16], rtol=1e-6)


@pytest.mark.parametrize("T", [0.3, 1.0])
def test_with_the_exact_score_the_ode_loses_the_kl(toy: Mixture, sde: SDE, T: float) -> None:
    """E log p_eps - E log q_ODE = KL[p(x,T) || p_noise]: the ODE carries p(x,T) back without forgetting anything."""
    start = toy.diffused(sde, EPSILON)
    x = start.sample(4000, stream("x"))[None]
    noises = [standard_noise(sde, T, (1,)), matched_noise(sde, T, toy.mean, toy.variance)]
    found = ode_likelihood(ExactScore(toy, sde), sde, noises, x, T, EPSILON, **SOLVER)
    for noise, log_q in zip(noises, found.log_q[:, 0], strict=True):
        loss = start.log_prob(x[0]) - log_q
        kl = end_terms(toy, sde, noise, T, EPSILON, points=1, seed="test").kl
        assert abs(loss.mean().item() - kl) < 4 * loss.std().item() / math.sqrt(len(loss)) + 1e-3


def test_the_number_of_function_evaluations_is_scipys(toy: Mixture, sde: SDE) -> None:
    p, T = toy, 0.8
    x = p.diffused(sde, EPSILON).sample(30, stream("x"))
    score = ExactScore(p, sde)

    def velocity(t: float, y: np.ndarray) -> np.ndarray:
        time = torch.tensor(t, dtype=torch.float64)
        position = torch.from_numpy(y).reshape(30, 2)[:, :1].requires_grad_()
        s = score(position[None], time)[0]
        (slope,) = torch.autograd.grad(s.sum(), position)
        half_g2 = 0.5 * sde.diffusion_squared(time)
        dx = sde.drift(position, time) - half_g2 * s
        dlog = sde.drift_divergence(time) - half_g2 * slope
        return torch.cat([dx, dlog], 1).detach().numpy().ravel()

    y0 = torch.cat([x, torch.zeros_like(x)], 1).numpy().ravel()
    oracle = solve_ivp(velocity, (EPSILON, T), y0, method="RK45", rtol=1e-5, atol=1e-5)
    found = ode_likelihood(score, sde, [standard_noise(sde, T, (1,))], x[None], T, EPSILON, **SOLVER)
    assert found.nfe.item() == oracle.nfev
    assert found.nfe.item() == 2 + 6 * (found.accepted + found.rejected).item()


def test_a_score_that_blows_up_gives_nan_and_leaves_the_other_seed_alone(toy: Mixture, sde: SDE) -> None:
    exact = ExactScore(toy, sde)

    def score(x, t):
        return torch.stack([exact(x[:1], t[:1])[0], x[1] * torch.inf])

    x = toy.sample(20, stream("x")).expand(2, -1, -1)
    noise = [standard_noise(sde, 0.5, (1,))]
    found = ode_likelihood(score, sde, noise, x, 0.5, EPSILON, **SOLVER)
    alone = ode_likelihood(exact, sde, noise, x[:1], 0.5, EPSILON, **SOLVER)
    assert found.log_q[0, 1].isnan().all()
    assert torch.allclose(found.log_q[0, 0], alone.log_q[0, 0])
    assert found.nfe[0] == alone.nfe[0]
