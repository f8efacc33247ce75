"""Eq. 1: the transition kernels solve their moment equations, for every SDE and far past t = 1."""

import math

import pytest
import torch
from scipy.integrate import quad, solve_ivp

from difftime.diffusion.sde import SDE, VE, VP, Gaussian, SubVP, VarianceExploding, matched_noise, standard_noise


def at(t: float) -> torch.Tensor:
    return torch.tensor(t, dtype=torch.float64)


@pytest.mark.parametrize("T", [0.05, 0.6, 1.0, 2.0])
def test_alpha_and_variance_solve_the_moment_equations(sde: SDE, T: float) -> None:
    """d alpha/dt = a alpha and d sigma²/dt = 2 a sigma² + g², where the drift is a(t) x (Särkkä & Solin, 2019)."""

    def velocity(t: float, y: list[float]) -> list[float]:
        a = sde.drift(torch.ones(1, dtype=torch.float64), at(t)).item()
        return [a * y[0], 2 * a * y[1] + sde.diffusion_squared(at(t)).item()]

    initial = [sde.alpha(at(0.0)).item(), sde.variance(at(0.0)).item()]
    solution = solve_ivp(velocity, (0, T), initial, rtol=1e-11, atol=1e-13)
    assert sde.alpha(at(T)).item() == pytest.approx(solution.y[0, -1], rel=1e-8)
    assert sde.variance(at(T)).item() == pytest.approx(solution.y[1, -1], rel=1e-8)


def test_the_process_starts_at_the_data(sde: SDE) -> None:
    assert sde.alpha(at(0.0)) == 1
    start = sde.sigma_min**2 if isinstance(sde, VE) and not sde.from_zero else 0.0
    assert sde.variance(at(0.0)).item() == pytest.approx(start)


def test_the_drifts_divergence_is_its_slope(sde: SDE) -> None:
    x, t = torch.tensor([0.7, 1.7], dtype=torch.float64), at(1.3)
    drift = sde.drift(x, t)
    assert sde.drift_divergence(t).item() == pytest.approx((drift[1] - drift[0]).item())


def test_noise_level_is_the_log_of_noise_over_signal_and_time_its_inverse(sde: SDE) -> None:
    t = torch.logspace(-6, math.log10(2), 200, dtype=torch.float64)
    assert torch.allclose(sde.noise_level(t), (sde.variance(t) / sde.alpha(t) ** 2).log(), rtol=1e-9)
    assert torch.allclose(sde.time(sde.noise_level(t)), t, rtol=1e-9)


def test_noise_level_grows_by_g2_over_variance(sde: SDE) -> None:
    """d lambda = g²/sigma² dt, on which every integral of elbo.py rests."""
    t = torch.tensor([1e-4, 0.1, 0.6, 1.0, 1.9], dtype=torch.float64, requires_grad=True)
    (slope,) = torch.autograd.grad(sde.noise_level(t).sum(), t)
    assert torch.allclose(slope, (sde.diffusion_squared(t) / sde.variance(t)).detach(), rtol=1e-9)


def test_the_noise_level_stays_finite_where_exp_overflows() -> None:
    assert VP().noise_level(at(20.0)).isfinite()
    assert VP().noise_level(VP().time(at(2000.0))).item() == pytest.approx(2000.0)


@pytest.mark.parametrize("T", [0.2, 1.0, 2.0])
def test_R_equals_the_integral_of_Eq_5(sde: SDE, T: float) -> None:
    """½ ∫ E[g² ||∇ log p||² - 2 f·∇ log p] dt per dimension, with ∇ log p(x_t|x_0) = -z/sigma_t."""
    epsilon = 1e-3

    def integrand(t: float) -> float:
        a = sde.drift(torch.ones(1, dtype=torch.float64), at(t)).item()
        return 0.5 * (sde.diffusion_squared(at(t)) / sde.variance(at(t))).item() + a

    bends = [k / 200 for k in range(1, round(200 * T))]
    value, error = quad(integrand, epsilon, T, epsabs=1e-10, epsrel=1e-10, limit=500, points=bends)
    assert sde.R(T, epsilon) == pytest.approx(value, abs=max(10 * error, 1e-8))


def test_beta_goes_on_along_the_same_line_past_1() -> None:
    vp = VP(0.1, 20.0)
    assert vp.beta(at(2.0)).item() == pytest.approx(0.1 + 2 * 19.9)
    assert vp.beta_integral(at(2.0)).item() == pytest.approx(0.1 * 2 + 0.5 * 19.9 * 4)


def test_the_variance_keeps_its_digits_in_float32_near_0() -> None:
    t = torch.tensor(1e-5)
    exact = -math.expm1(-(0.1 * 1e-5 + 0.5 * 19.9 * 1e-10))
    assert VP().variance(t).item() == pytest.approx(exact, rel=1e-6)
    assert (1 - torch.exp(-VP().beta_integral(t))).item() != pytest.approx(exact, rel=1e-3)


def test_the_standard_deviation_of_sub_vp_is_the_variance_of_vp() -> None:
    t = torch.logspace(-5, math.log10(2), 50, dtype=torch.float64)
    assert torch.allclose(SubVP().sigma(t), VP().variance(t), rtol=1e-12)
    assert torch.equal(SubVP().alpha(t), VP().alpha(t))


def test_the_time_of_sub_vp_stays_finite_where_exp_overflows() -> None:
    levels = torch.tensor([79.9, 80.1, 100.0])
    assert torch.allclose(SubVP().noise_level(SubVP().time(levels)), levels)
    assert SubVP().noise_level(SubVP().time(at(2000.0))).item() == pytest.approx(2000.0)


def test_the_exponential_ve_has_g_equal_to_base_to_the_t() -> None:
    ve = VE.exponential(25.0)
    assert ve.diffusion_squared(at(0.7)).sqrt().item() == pytest.approx(25.0**0.7)
    assert ve.variance(at(0.7)).item() == pytest.approx((25.0**1.4 - 1) / (2 * math.log(25.0)))


def test_matched_noise_has_the_moments_of_diffused_data(sde: SDE) -> None:
    generator = torch.Generator().manual_seed(0)
    x0 = 2.0 + 0.5 * torch.randn(200_000, 1, dtype=torch.float64, generator=generator)
    z = torch.randn(x0.shape, dtype=torch.float64, generator=generator)
    T = 0.3
    x = sde.perturb(x0, at(T).expand(len(x0)), z)
    noise = matched_noise(sde, T, torch.tensor([2.0]), torch.tensor([0.25]))
    assert abs(x.mean() - noise.mean).item() < 4 * (noise.variance / len(x)).sqrt().item()
    assert abs(x.var() / noise.variance - 1).item() < 4 * math.sqrt(2 / len(x))


def test_standard_noise_is_the_kernel_from_the_origin_without_a_drift_and_unit_for_all_others(sde: SDE) -> None:
    noise = standard_noise(sde, 0.7, (3,))
    expected = sde.variance(at(0.7)).item() if isinstance(sde, VarianceExploding) else 1.0
    assert noise.variance.tolist() == pytest.approx([expected] * 3)
    assert noise.mean.tolist() == [0, 0, 0]


def test_a_gaussian_agrees_with_torch_distributions() -> None:
    mean, variance = torch.tensor([1.0, -2.0]).double(), torch.tensor([0.5, 4.0]).double()
    noise, oracle = Gaussian(mean, variance), torch.distributions.Normal(mean, variance.sqrt())
    x = noise.sample(5, 1000, generator=torch.Generator().manual_seed(1))
    assert x.shape == (5, 1000, 2)
    assert torch.allclose(noise.log_prob(x), oracle.log_prob(x).sum(-1))
    assert ((x - mean).mean((0, 1)).abs() < 4 * (variance / 5000).sqrt()).all()


def test_the_expected_log_prob_of_a_gaussian_needs_only_moments() -> None:
    noise = Gaussian(torch.tensor([0.3]).double(), torch.tensor([2.0]).double())
    x = torch.tensor([[-1.0], [0.5], [4.0]]).double()
    expected = noise.log_prob(x).mean()
    assert torch.allclose(noise.expected_log_prob(x.mean(0), x.var(0, correction=0)), expected)


def test_the_expected_log_prob_of_a_batch_has_a_value_for_each_point() -> None:
    noise = Gaussian(torch.zeros(2, 3).double(), torch.full((2, 3), 2.0).double())
    means = torch.randn(4, 2, 3, dtype=torch.float64)
    together = noise.expected_log_prob(means, at(0.5))
    assert torch.allclose(together, torch.stack([noise.expected_log_prob(mean, at(0.5)) for mean in means]))
