"""The oracle itself, against SciPy and against its own derivatives."""

import math

import numpy as np
import pytest
import torch
from scipy.integrate import dblquad
from scipy.stats import multivariate_normal, norm

from difftime.diffusion.mixture import Mixture, gauss_legendre, nodes
from difftime.diffusion.score import ExactScore
from difftime.diffusion.sde import SDE
from difftime.support.streams import stream


def test_standard_deviations_are_the_roots_of_variances_without_correlations() -> None:
    """Also to the bit: weights of a study stay valid however its data are written."""
    weights, means, stds = [0.3, 0.7], [[0.0, 1.0], [2.0, 3.0]], [[2.0], [0.1, 3.0]]
    ours = Mixture.from_stds(weights, means, stds)
    same = Mixture.from_covariances(weights, means, [[[4.0, 0.0], [0.0, 4.0]], [[0.1**2, 0.0], [0.0, 9.0]]])
    for name in ("weights", "means", "variances", "axes"):
        assert torch.equal(getattr(ours, name), getattr(same, name))
    x = torch.tensor([[0.5, -1.0]], dtype=torch.float64)
    parts = [(0.3, norm(0, 2).pdf(0.5) * norm(1, 2).pdf(-1)), (0.7, norm(2, 0.1).pdf(0.5) * norm(3, 3).pdf(-1))]
    assert ours.log_prob(x).exp().item() == pytest.approx(sum(w * p for w, p in parts), rel=1e-12)


def test_a_standard_deviation_of_zero_is_refused() -> None:
    with pytest.raises(ValueError, match="eigenvalue 0"):
        Mixture.from_stds([1.0], [[0.0]], [[0.0]])


def test_log_prob_agrees_with_scipy(toy: Mixture, correlated: Mixture) -> None:
    x = torch.linspace(-1, 5, 50, dtype=torch.float64)
    oracle = 0.3 * norm(1, 0.1).pdf(x) + 0.7 * norm(3, 0.5).pdf(x)
    assert toy.log_prob(x[:, None]).exp().tolist() == pytest.approx(oracle, rel=1e-12)
    points = correlated.sample(50, stream("test"))
    parts = zip([0.4, 0.6], [[-1, 0.5], [1, 1]], [[[0.2, 0.1], [0.1, 0.3]], [[0.5, -0.2], [-0.2, 0.3]]], strict=True)
    oracle = sum(w * multivariate_normal(m, c).pdf(points.numpy()) for w, m, c in parts)
    assert correlated.log_prob(points).exp().tolist() == pytest.approx(oracle, rel=1e-12)


@pytest.mark.parametrize("t", [0.0, 1e-5, 0.5, 2.0])
def test_every_density_integrates_to_one(toy: Mixture, sde: SDE, t: float) -> None:
    at = nodes(toy.diffused(sde, t), 0, torch.Generator())
    assert at.weight.sum().item() == pytest.approx(1.0, abs=1e-12)


def test_a_density_in_two_dimensions_integrates_to_one(correlated: Mixture) -> None:
    def density(y: float, x: float) -> float:
        return correlated.log_prob(torch.tensor([x, y]).double()).exp().item()

    assert dblquad(density, -5, 5, -4, 5, epsabs=1e-6)[0] == pytest.approx(1.0, abs=1e-5)


def test_diffusing_convolves_with_the_kernel(toy: Mixture, sde: SDE) -> None:
    t = torch.tensor(0.2, dtype=torch.float64)
    alpha, sigma = sde.alpha(t).item(), sde.sigma(t).item()
    x0 = np.linspace(-2, 8, 200_001)
    density = 0.3 * norm(1, 0.1).pdf(x0) + 0.7 * norm(3, 0.5).pdf(x0)
    for x in (0.5, 1.0, 2.5):
        convolution = np.trapezoid(density * norm.pdf(x, alpha * x0, sigma), x0)
        ours = toy.diffused(sde, 0.2).log_prob(torch.tensor([x]).double()).exp().item()
        assert ours == pytest.approx(convolution, rel=1e-8)


@pytest.mark.parametrize("t", [1e-5, 0.3, 1.0, 2.0])
def test_the_score_is_the_gradient_of_log_p(toy: Mixture, correlated: Mixture, sde: SDE, t: float) -> None:
    for p in (toy, correlated):
        x = p.diffused(sde, t).sample(40, stream("test")).requires_grad_()
        (gradient,) = torch.autograd.grad(p.diffused(sde, t).log_prob(x).sum(), x)
        score = ExactScore(p, sde)(x.detach()[None], torch.tensor(t, dtype=torch.float64))[0]
        assert torch.allclose(score, gradient, rtol=1e-8, atol=1e-8)


def test_a_score_takes_one_time_or_one_per_seed_or_one_per_point(correlated: Mixture, sde: SDE) -> None:
    score = ExactScore(correlated, sde)
    x = correlated.sample(6, stream("test")).reshape(2, 3, 2)
    t = torch.tensor([0.2, 0.9]).double()
    one_by_one = torch.stack([score(x[k][None], t[k])[0] for k in range(2)])
    assert torch.allclose(score(x, t), one_by_one)
    assert torch.allclose(score(x, t[:, None].expand(2, 3)), one_by_one)


def test_moments_agree_with_a_large_sample(correlated: Mixture) -> None:
    n = 400_000
    x = correlated.sample(n, stream("test"))
    assert ((x.mean(0) - correlated.mean).abs() < 4 * (correlated.variance / n).sqrt()).all()
    centred = x - correlated.mean
    for i, j in ((0, 0), (0, 1), (1, 1)):
        product = centred[:, i] * centred[:, j]
        assert abs(product.mean() - correlated.covariance[i, j]) < 4 * product.std() / math.sqrt(n)


def test_quadrature_gives_the_entropy_that_a_dense_grid_gives(toy: Mixture) -> None:
    """E log p_data of the paper's toy is -0.85196 nats."""
    at = nodes(toy, 0, torch.Generator())
    mean, se = at.expectation(toy.log_prob(at.x))
    x = np.linspace(-3, 9, 500_001)
    p = 0.3 * norm(1, 0.1).pdf(x) + 0.7 * norm(3, 0.5).pdf(x)
    assert mean.item() == pytest.approx(np.trapezoid(p * np.log(p), x), abs=1e-12)
    assert mean.item() == pytest.approx(-0.85196, abs=5e-6)
    assert se == 0


def test_monte_carlo_nodes_state_their_error(correlated: Mixture) -> None:
    deviations = []
    for seed in range(200):
        at = nodes(correlated, 400, stream("coverage", seed))
        mean, se = at.expectation(at.x[:, 0])
        deviations.append(((mean - correlated.mean[0]) / se).item())
    assert torch.tensor(deviations).std().item() == pytest.approx(1.0, abs=4 / math.sqrt(2 * 200))


def test_gauss_legendre_is_exact_for_polynomials_of_degree_2n_minus_1() -> None:
    x, w = gauss_legendre(torch.tensor(-1.0).double(), torch.tensor(3.0).double(), 5)
    for degree in range(10):
        assert (w @ x**degree).item() == pytest.approx((3 ** (degree + 1) - (-1) ** (degree + 1)) / (degree + 1))
    assert (w @ x**10).item() != pytest.approx((3**11 + 1) / 11, rel=1e-9)


def test_a_projection_has_the_projected_samples_distribution(correlated: Mixture) -> None:
    direction = torch.tensor([0.6, 0.8]).double()
    line = correlated.projected(direction)
    n = 20_000
    x = (correlated.sample(n, stream("test")) @ direction).sort().values
    gap = (line.cdf(x) - (torch.arange(n).double() + 0.5) / n).abs().max().item()
    assert gap < 1.95 / math.sqrt(n)  # Kolmogorov's 0.1 % point


def test_a_covariance_that_is_not_positive_definite_is_refused() -> None:
    with pytest.raises(ValueError, match="eigenvalue"):
        Mixture.from_covariances([1.0], [[0.0, 0.0]], [[[1.0, 2.0], [2.0, 1.0]]])
    with pytest.raises(ValueError, match="symmetric"):
        Mixture.from_covariances([1.0], [[0.0, 0.0]], [[[1.0, 0.2], [0.0, 1.0]]])
