"""The reverse SDE's density: Gaussian cases against their moment equations, then what Eqs. 4-11 say about any score."""

import math
import warnings
from collections.abc import Callable
from dataclasses import dataclass
from itertools import pairwise

import numpy as np
import pytest
import torch
from scipy.integrate import solve_ivp

from difftime.diffusion.sde import SDE, VE, VP, Gaussian, matched_noise, standard_noise
from difftime.measures.density import (
    REFINEMENTS,
    Clock,
    Density,
    Grid,
    domain,
    expected_log_q,
    reverse_sde_density,
    richardson,
    solve,
)

EPSILON = 1e-5
VE25 = VE.exponential(25.0)
Field = Callable[[torch.Tensor, torch.Tensor], torch.Tensor]


def at(t: float) -> torch.Tensor:
    return torch.tensor(t, dtype=torch.float64)


def normal(mean: float, deviation: float) -> Gaussian:
    return Gaussian(mean=torch.tensor([mean], dtype=torch.float64), variance=torch.tensor([deviation**2]).double())


@dataclass(frozen=True)
class Data:
    """A one-dimensional Gaussian mixture under an SDE, in closed form."""

    weights: tuple[float, ...]
    means: tuple[float, ...]
    deviations: tuple[float, ...]

    @property
    def mean(self) -> float:
        return float(np.dot(self.weights, self.means))

    @property
    def variance(self) -> float:
        second = np.square(self.means) + np.square(self.deviations)
        return float(np.dot(self.weights, second)) - self.mean**2

    @property
    def moments(self) -> dict[str, float]:
        return {"data_mean": self.mean, "data_variance": self.variance}

    def terms(self, sde: SDE, x: torch.Tensor, t: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        """log(w_k N_k(x)) and its slope, one column per component."""
        weights, means, deviations = torch.tensor([self.weights, self.means, self.deviations], dtype=torch.float64)
        variances = sde.alpha(t) ** 2 * deviations**2 + sde.variance(t)
        offset = x[..., None] - sde.alpha(t) * means
        log_normal = -0.5 * (offset**2 / variances + torch.log(2 * math.pi * variances))
        return weights.log() + log_normal, -offset / variances

    def log_prob(self, sde: SDE, t: float) -> Callable[[torch.Tensor], torch.Tensor]:
        return lambda x: self.terms(sde, x, at(t))[0].logsumexp(-1)

    def score(self, sde: SDE) -> Field:
        def exact(x: torch.Tensor, t: torch.Tensor) -> torch.Tensor:
            joint, slope = self.terms(sde, x, t)
            return (joint.softmax(-1) * slope).sum(-1)

        return exact

    def matched(self, sde: SDE, T: float) -> Gaussian:
        mean, variance = torch.tensor([[self.mean], [self.variance]], dtype=torch.float64)
        return matched_noise(sde, T, mean, variance)

    def density(self, sde: SDE, score: Field, noises: list[Gaussian], T: float, seeds: int = 1, **sizes) -> Density:
        return reverse_sde_density(sde, score, noises, T, EPSILON, **self.moments, seeds=seeds, **sizes)

    def entropy_term(self, sde: SDE, density: Density) -> float:
        """E log p_epsilon in nats."""
        log_p = self.log_prob(sde, EPSILON)(density.x)
        return (log_p.exp() * log_p * density.weights).sum().item()


TOY = Data((0.3, 0.7), (1.0, 3.0), (0.1, 0.5))
BELL = Data((1.0,), (2.4,), (0.7,))


def reversed_gaussians(sde: SDE, data: Data, noises: list[Gaussian], T: float) -> list[Gaussian]:
    """Eq. 2 at epsilon with the exact score of one Gaussian, which is linear in x: the moments obey linear ODEs."""

    def velocity(t: float, moments: np.ndarray) -> np.ndarray:
        a, g2 = sde.drift_divergence(at(t)).item(), sde.diffusion_squared(at(t)).item()
        alpha, variance = sde.alpha(at(t)).item(), sde.variance(at(t)).item()
        pull = g2 / (alpha**2 * data.variance + variance)
        means, variances = moments.reshape(2, -1)
        return np.concatenate([a * means + pull * (means - alpha * data.mean), 2 * (a + pull) * variances - g2])

    start = [noise.mean.item() for noise in noises] + [noise.variance.item() for noise in noises]
    solution = solve_ivp(velocity, (T, EPSILON), start, method="DOP853", rtol=1e-10, atol=1e-12)
    means, variances = solution.y[:, -1].reshape(2, -1)
    return [normal(mean, math.sqrt(variance)) for mean, variance in zip(means, variances, strict=True)]


def noises_of(sde: SDE, T: float) -> list[Gaussian]:
    """The standard p_noise, the right one, and one that is wrong in mean and variance."""
    right = BELL.matched(sde, T)
    deviation = right.variance.sqrt().item()
    return [standard_noise(sde, T, (1,)), right, normal(right.mean.item() + deviation, 0.6 * deviation)]


@pytest.mark.parametrize("T", [0.3, 2.0])
def test_from_a_gaussian_a_linear_score_leads_to_the_gaussian_of_the_moment_equations(sde: SDE, T: float) -> None:
    noises = noises_of(sde, T)
    density = BELL.density(sde, BELL.score(sde), noises, T, cells=160, steps=24)
    for exact, log_q, error in zip(
        reversed_gaussians(sde, BELL, noises, T), density.log_q[:, 0], density.error[:, 0], strict=True
    ):
        log_exact = exact.log_prob(density.x[:, None])
        weight = log_exact.exp() * density.weights
        true_error = (weight * (log_q - log_exact).abs()).sum()
        assert true_error < 1e-6
        # The estimate is the change by the finest solve, so about the error that the three coarser ones leave. The
        # fourth divides it by 16 where the theory of extrapolation holds; 2 is asked for. 5e-8: the ODE's tolerance.
        assert true_error < 0.5 * (weight * error).sum() + 5e-8


def test_the_estimated_error_covers_the_true_one_where_p_noise_misses_the_data() -> None:
    """VE with T = 0.05: p_noise is N(0, 0.24²), the data lie ten standard deviations away, and log q near -50."""
    noise = standard_noise(VE25, 0.05, (1,))
    density = BELL.density(VE25, BELL.score(VE25), [noise], 0.05)
    (exact,) = reversed_gaussians(VE25, BELL, [noise], 0.05)
    weight = normal(BELL.mean, BELL.deviations[0]).log_prob(density.x[:, None]).exp() * density.weights
    value, error = expected_log_q(density, BELL.log_prob(VE25, EPSILON))
    true_error = (value.item() - (weight * exact.log_prob(density.x[:, None])).sum()).abs()
    assert 1e-6 < true_error < error.item() < 0.05 * abs(value.item())


def test_the_estimated_error_covers_the_true_one_before_the_extrapolation_converges() -> None:
    """The same place with two modes, where log q has a kink that wanders: E log q is -26.6, the error percents."""
    noise, log_p = standard_noise(VE25, 0.05, (1,)), TOY.log_prob(VE25, EPSILON)
    coarse, fine = (
        expected_log_q(TOY.density(VE25, TOY.score(VE25), [noise], 0.05, steps=steps), log_p) for steps in (8, 64)
    )
    assert fine.error.item() < 0.2 * coarse.error.item()
    assert 0.01 < (coarse.value - fine.value).abs().item() < coarse.error.item()


@pytest.mark.parametrize("sde", [VP(), VE25], ids=["vp", "ve"])
@pytest.mark.parametrize("T", [1.0, 2.0])
def test_the_exact_score_from_the_right_noise_returns_the_data(sde: SDE, T: float) -> None:
    """p(x, T) is Gaussian up to 1e-6 here, so q = p_epsilon wherever p_epsilon has weight."""
    density = TOY.density(sde, TOY.score(sde), [TOY.matched(sde, T)], T)
    log_p = TOY.log_prob(sde, EPSILON)(density.x)
    likely = log_p > -4
    assert (density.log_q[0, 0] - log_p)[likely].abs().max() < 3e-4
    assert expected_log_q(density, log_p).value.item() == pytest.approx(TOY.entropy_term(sde, density), abs=1e-5)


def test_the_reverse_sde_forgets_most_of_a_wrong_start() -> None:
    """VP with T = 0.5: of KL[p(x, T) || N(0, 1)] = 0.227711 nats only 0.018541 arrive at the data."""
    density = TOY.density(VP(), TOY.score(VP()), [standard_noise(VP(), 0.5, (1,))], 0.5)
    value, error = expected_log_q(density, TOY.log_prob(VP(), EPSILON))
    assert TOY.entropy_term(VP(), density) - value.item() == pytest.approx(0.018541, abs=2e-6)
    assert error.item() < 1e-4


@dataclass(frozen=True)
class Solves:
    """log q minus its exact value by each single solve, on common nodes, and weights that take its mean under q."""

    offsets: dict[int, np.ndarray]
    weight: np.ndarray

    def error(self, last: int) -> float:
        """Mean absolute error of the extrapolation of the `last` finest solves, in nats."""
        return float(self.weight @ np.abs(richardson({r: self.offsets[r] for r in REFINEMENTS[-last:]})))


def single_solves(cells: int, steps: int) -> Solves:
    """VP to T = 0.5 from a p_noise that is wrong in mean and variance."""
    T, noise, offsets = 0.5, normal(1.0, 1.2), {}
    (exact,) = reversed_gaussians(VP(), BELL, [noise], T)
    for r in REFINEMENTS:
        clock = Clock.between(VP(), T, EPSILON, BELL.mean, BELL.variance, steps * r * r)
        grid = Grid.between(*domain([noise], clock, 10.0), cells * r)
        dx = clock.scale[-1] * grid.volumes
        x = torch.from_numpy(clock.centre[-1] + clock.scale[-1] * grid.nodes)
        log_exact = exact.log_prob(x[:, None]).numpy()
        log_q = np.log(solve(BELL.score(VP()), [noise], grid, clock, 1)[0, 0] / dx)
        offsets[r] = (log_q - log_exact)[r - 1 :: r]
        weight = (np.exp(log_exact) * dx * r)[r - 1 :: r]
    return Solves(offsets, weight)


def test_one_solve_is_of_first_order_in_the_step_and_of_second_in_the_cell() -> None:
    """The steps go with the square of the cells, so one regression sees both."""
    solves = single_solves(cells=96, steps=16)
    errors = [solves.weight @ np.abs(solves.offsets[r]) for r in REFINEMENTS]
    order = np.polyfit(-2 * np.log(REFINEMENTS), np.log(errors), 1)[0]
    assert order == pytest.approx(1.0, rel=0.05)


def test_n_solves_are_extrapolated_to_order_n() -> None:
    """Observed 0.98, 1.96, 2.8, 3.3: the higher the order, the later a regression sees all of it."""
    sizes = (1.0, 1.5, 2.0)
    studies = [single_solves(cells=int(64 * size), steps=int(8 * size**2)) for size in sizes]
    for n in (1, 2, 3, 4):
        errors = [solves.error(last=n) for solves in studies]
        assert np.polyfit(-2 * np.log(sizes), np.log(errors), 1)[0] == pytest.approx(n, rel=0.2)


def wild(x: torch.Tensor, t: torch.Tensor) -> torch.Tensor:
    """Two scores that are wrong everywhere: one rough, one that throws everything out."""
    rough = TOY.score(VP())(x[:1], t) + 20 * torch.sin(40 * x[:1])
    return torch.cat([rough, 30 * x[1:].sign()])


def test_log_q_is_finite_whatever_the_score() -> None:
    density = TOY.density(VP(), wild, noises_of(VP(), 0.5), 0.5, seeds=2, cells=96, steps=8)
    assert density.log_q.isfinite().all()
    assert density.error.isfinite().all()


@pytest.mark.parametrize("sde", [VP(), VE25], ids=["vp", "ve"])
@pytest.mark.parametrize("T", [0.05, 0.5, 2.0])
def test_mass_is_conserved(sde: SDE, T: float) -> None:
    """By a solve to rounding, 1e-15 a step; by extrapolation to the error of log q."""
    noises = [standard_noise(sde, T, (1,)), TOY.matched(sde, T)]
    density = TOY.density(sde, TOY.score(sde), noises, T, cells=192, steps=12)
    assert density.boundary_mass.max() < 1e-10
    assert (((density.log_q.exp() * density.weights).sum(-1) - 1).abs() < 1e-3).all()
    clock = Clock.between(sde, T, EPSILON, **TOY.moments, steps=50)
    masses = solve(TOY.score(sde), noises, Grid.between(*domain(noises, clock, 10.0), 400), clock, 1)
    assert np.abs(masses.sum(-1) - 1).max() < 1e-10


def test_probability_that_is_thrown_out_is_reported() -> None:
    density = TOY.density(VP(), wild, [standard_noise(VP(), 0.5, (1,))], 0.5, seeds=2, cells=96, steps=8)
    kept, thrown = density.boundary_mass[0].tolist()
    assert kept < 1e-4
    assert thrown > 0.5


@pytest.mark.parametrize("push", [0.5, 2.0, 20.0])
def test_what_is_thrown_out_is_a_probability_also_where_all_of_it_goes(push: float) -> None:
    density = TOY.density(VE25, lambda x, t: push * x.sign(), [standard_noise(VE25, 2.0, (1,))], 2.0, cells=64, steps=8)
    assert 0.999 < density.boundary_mass.item() <= 1


def test_what_is_thrown_out_does_not_come_back_from_a_wider_grid() -> None:
    """The ends absorb: a wall would push back what arrives, and E log q would depend on where it stands."""

    def leaky(x: torch.Tensor, t: torch.Tensor) -> torch.Tensor:
        return TOY.score(VE25)(x, t) * torch.tanh((200.0 - x) / 20.0)

    log_p, results = TOY.log_prob(VE25, EPSILON), []
    for reach, cells in ((8.0, 256), (16.0, 320)):
        density = TOY.density(VE25, leaky, [standard_noise(VE25, 2.0, (1,))], 2.0, cells=cells, steps=12, reach=reach)
        assert density.boundary_mass.item() > 0.2
        results.append(expected_log_q(density, log_p).value.item())
    assert results[0] == pytest.approx(results[1], abs=1e-3)
    assert results[0] < TOY.entropy_term(VE25, density) - 0.2


def perturbed(sde: SDE, sizes: torch.Tensor) -> tuple[Field, Field]:
    """The exact score with a smooth error of the given size per seed, as of a noise prediction; and that error."""

    def wrong(x: torch.Tensor, t: torch.Tensor) -> torch.Tensor:
        scale = torch.sqrt(sde.alpha(t) ** 2 * TOY.variance + sde.variance(t))
        return sizes[:, None, None] * torch.sin(3 * x / scale + 2 * t) / sde.variance(t).sqrt()

    return lambda x, t: TOY.score(sde)(x, t) + wrong(x, t), wrong


def gap(sde: SDE, wrong: Field, T: float) -> torch.Tensor:
    """G of Eq. 8 per seed in nats: ½ ∫ E |s - grad log p|² sigma_t² d lambda, by quadrature in x and lambda."""
    ends = sde.noise_level(torch.tensor([EPSILON, T], dtype=torch.float64)).tolist()
    node, weight = np.polynomial.legendre.leggauss(160)
    half = (ends[1] - ends[0]) / 2
    rates = []
    for noise_level in ends[0] + half * (1 + node):
        t = sde.time(at(noise_level))
        scale = torch.sqrt(sde.alpha(t) ** 2 * TOY.variance + sde.variance(t)).item()
        x = sde.alpha(t) * TOY.mean + scale * torch.linspace(-7, 7, 1401, dtype=torch.float64)
        p = TOY.log_prob(sde, t.item())(x).exp() * 0.01 * scale
        rates.append((wrong(x[None, :, None], t)[..., 0] ** 2 * p).sum(-1) * sde.variance(t))
    return 0.5 * half * torch.tensor(weight) @ torch.stack(rates)


def divergence_from_noise(sde: SDE, noise: Gaussian, T: float) -> float:
    """KL[p(x, T) || p_noise] in nats."""
    alpha, sigma = sde.alpha(at(T)).item(), sde.sigma(at(T)).item()
    x = alpha * TOY.mean + math.hypot(sigma, alpha) * torch.linspace(-9, 9, 4001, dtype=torch.float64)
    log_p = TOY.log_prob(sde, T)(x)
    return torch.trapezoid(log_p.exp() * (log_p - noise.log_prob(x[:, None])), x).item()


@pytest.mark.parametrize("sde", [VP(), VE25], ids=["vp", "ve"])
@pytest.mark.parametrize("T", [0.2, 0.5, 1.0])
def test_the_elbo_bounds_log_q_and_log_q_log_p(sde: SDE, T: float) -> None:
    """Eqs. 9 and 11: E log p - KL - G <= E log q <= E log p, for each p_noise and each size of the score's error."""
    noises = [standard_noise(sde, T, (1,)), TOY.matched(sde, T)]
    score, wrong = perturbed(sde, torch.tensor([0.0, 0.1, 0.4], dtype=torch.float64))
    density = TOY.density(sde, score, noises, T, seeds=3, cells=192, steps=16)
    value, error = expected_log_q(density, TOY.log_prob(sde, EPSILON))
    entropy, G = TOY.entropy_term(sde, density), gap(sde, wrong, T)
    for noise, log_q, numerical in zip(noises, value, error, strict=True):
        elbo = entropy - divergence_from_noise(sde, noise, T) - G
        assert (elbo <= log_q + numerical).all()
        assert (log_q <= entropy + numerical).all()
    # neither side is empty: the wrong score costs much more than the numerical error, and less than the bound allows
    assert (value[:, 2] < entropy - 100 * error[:, 2]).all()


def test_twice_the_scores_error_costs_four_times_the_nats_and_less_than_the_gap() -> None:
    """With p_noise = p(x, T) up to 1e-6, KL[p || q] <= G, and both are of second order in the error of the score."""
    sizes = torch.tensor([0.1, 0.2], dtype=torch.float64)
    score, wrong = perturbed(VP(), sizes)
    density = TOY.density(VP(), score, [TOY.matched(VP(), 1.0)], 1.0, seeds=2, cells=192, steps=24)
    loss = TOY.entropy_term(VP(), density) - expected_log_q(density, TOY.log_prob(VP(), EPSILON)).value[0]
    assert (loss < gap(VP(), wrong, 1.0)).all()
    assert (loss[1] / loss[0]).item() == pytest.approx(4.0, rel=0.1)


def test_simulated_paths_of_eq_2_have_this_density() -> None:
    """Euler-Maruyama in t, which knows nothing of y and u: 20,000 paths of a wrong score, compared by their CDF."""
    sde, T, n = VP(), 0.6, 20_000
    score, _ = perturbed(sde, torch.tensor([0.5], dtype=torch.float64))
    density = TOY.density(sde, score, [standard_noise(sde, T, (1,))], T, cells=192, steps=12)
    generator = torch.Generator().manual_seed(0)
    x = standard_noise(sde, T, (1,)).sample(1, n, generator=generator)
    times = EPSILON + (T - EPSILON) * torch.linspace(1, 0, 401, dtype=torch.float64) ** 2
    for t, following in pairwise(times):
        dt, g2 = t - following, sde.diffusion_squared(t)
        velocity = -sde.drift(x, t[None]) + g2 * score(x, t)
        x = x + velocity * dt + torch.sqrt(g2 * dt) * torch.randn(1, n, 1, generator=generator, dtype=torch.float64)
    cumulative = (density.log_q[0, 0].exp() * density.weights).cumsum(0)
    edges = density.x + 0.5 * density.weights  # a node's cell ends here, up to O(cell³)
    for place in (0.9, 1.0, 1.1, 1.6, 2.4, 3.0, 3.5):
        expected = np.interp(place, edges, cumulative)
        standard_error = math.sqrt(expected * (1 - expected) / n)
        # 0.003: the paths' own discretisation, which halves with the steps, and linear interpolation of the CDF
        assert (x < place).double().mean().item() == pytest.approx(expected, abs=4 * standard_error + 0.003)


def test_a_seed_that_diverges_is_nan_and_leaves_the_others_alone() -> None:
    def broken(x: torch.Tensor, t: torch.Tensor) -> torch.Tensor:
        s = TOY.score(VP())(x, t)
        s[1] = torch.where(t < 0.1, math.nan, s[1])
        s[2, 3] = math.inf
        s[3] = -1e30 * x[3]
        return s

    noises = [standard_noise(VP(), 0.5, (1,)), TOY.matched(VP(), 0.5)]
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        density = TOY.density(VP(), broken, noises, 0.5, seeds=5, cells=96, steps=8)
        expected = expected_log_q(density, TOY.log_prob(VP(), EPSILON))
    alone = TOY.density(VP(), TOY.score(VP()), noises, 0.5, cells=96, steps=8)
    for values in (density.log_q, density.error, density.boundary_mass[..., None], expected.value[..., None]):
        assert values[:, 1:4].isnan().all()
        assert values[:, [0, 4]].isfinite().all()
    assert torch.equal(density.log_q[:, [0, 4]], alone.log_q.expand(-1, 2, -1))


def test_a_density_does_not_depend_on_the_other_noises_and_seeds() -> None:
    """On one grid; the widest p_noise decides on it, so it stays in the list."""
    noises = [normal(0.0, 1.0), normal(0.5, 0.8)]
    score, _ = perturbed(VP(), torch.tensor([0.3, 0.0], dtype=torch.float64))
    both = TOY.density(VP(), score, noises, 0.5, seeds=2, cells=96, steps=8)
    one = TOY.density(VP(), lambda x, t: score(x, t)[:1], noises[:1], 0.5, cells=96, steps=8)
    assert torch.equal(both.x, one.x)
    assert torch.allclose(both.log_q[:1, :1], one.log_q, rtol=1e-10)


def test_float32_scores_are_good_enough() -> None:
    def single(x: torch.Tensor, t: torch.Tensor) -> torch.Tensor:
        return TOY.score(VP())(x, t).float()

    noise, log_p = [standard_noise(VP(), 0.5, (1,))], TOY.log_prob(VP(), EPSILON)
    densities = [TOY.density(VP(), score, noise, 0.5, cells=160, steps=12) for score in (single, TOY.score(VP()))]
    values = [expected_log_q(density, log_p).value for density in densities]
    assert values[0].item() == pytest.approx(values[1].item(), abs=1e-6)


def test_what_lies_below_the_floor_admits_it() -> None:
    """VE with T = 1e-4 from N(0, 0.06²), and data 40 of its standard deviations away: log q is near -800."""
    density = BELL.density(VE25, BELL.score(VE25), [normal(0.0, 0.06)], 1e-4, steps=4)
    value, error = expected_log_q(density, BELL.log_prob(VE25, EPSILON))
    assert value.item() < -400
    assert error.item() > 0.5 * abs(value.item())


def test_the_error_of_the_quadrature_is_counted() -> None:
    """E |x - m| = 0.7 sqrt(2 / pi) under N(m, 0.7²): the kink costs the trapezoidal rule 1e-2 at this spacing."""
    x = torch.linspace(-3.0, 8.0, 31, dtype=torch.float64)
    weights = torch.full_like(x, 11 / 30)
    kink, zero = -(x - BELL.mean).abs().expand(1, 1, -1), torch.zeros(1, 1, dtype=torch.float64)
    density = Density(x=x, weights=weights, log_q=kink, error=torch.zeros_like(kink), boundary_mass=zero)
    value, error = expected_log_q(density, normal(BELL.mean, 0.7).log_prob(x[:, None]))
    assert 1e-4 < abs(value.item() + 0.7 * math.sqrt(2 / math.pi)) < error.item() < 0.1


def test_the_score_is_asked_for_between_epsilon_and_T_only() -> None:
    """Networks are not trained below epsilon, not even by a rounding error."""
    times = set()

    def remember(x: torch.Tensor, t: torch.Tensor) -> torch.Tensor:
        times.add(t.item())
        return BELL.score(VP())(x, t)

    BELL.density(VP(), remember, noises_of(VP(), 0.7), 0.7, cells=32, steps=4)
    assert min(times) == EPSILON
    assert max(times) < 0.7


def test_expectations_take_a_function_or_its_values() -> None:
    density = TOY.density(VP(), TOY.score(VP()), [standard_noise(VP(), 0.5, (1,))], 0.5, cells=192, steps=8)
    log_p = TOY.log_prob(VP(), EPSILON)
    assert torch.equal(expected_log_q(density, log_p).value, expected_log_q(density, log_p(density.x)).value)


def test_data_that_the_grid_does_not_hold_are_refused() -> None:
    density = BELL.density(VP(), BELL.score(VP()), [standard_noise(VP(), 0.5, (1,))], 0.5, cells=96, steps=4)
    with pytest.raises(ValueError, match="raise `reach`"):
        expected_log_q(density, lambda x: normal(40.0, 1.0).log_prob(x[:, None]))
    with pytest.raises(ValueError, match="raise `cells`"):
        expected_log_q(density, lambda x: normal(2.4, 0.004).log_prob(x[:, None]))


def test_a_noise_narrower_than_a_cell_is_refused_with_a_size_that_works() -> None:
    noise = [normal(0.0, 0.02)]
    with pytest.raises(ValueError, match=r"from 64 to (\d+)") as refusal:
        BELL.density(VP(), BELL.score(VP()), noise, 0.5, cells=64, steps=2)
    enough = int(str(refusal.value).split(" to ")[1].split()[0])
    assert BELL.density(VP(), BELL.score(VP()), noise, 0.5, cells=enough, steps=2).log_q.isfinite().all()


@pytest.mark.parametrize(
    ("change", "message"),
    [({"T": 1e-6}, "runs from T down"), ({"cells": 4}, "16 cells"), ({"steps": 1}, "2 steps")],
)
def test_senseless_settings_are_refused(change: dict, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        BELL.density(**{"sde": VP(), "score": BELL.score(VP()), "noises": noises_of(VP(), 0.5), "T": 0.5, **change})


def test_a_score_of_another_number_of_seeds_is_refused() -> None:
    with pytest.raises(ValueError, match="number of models"):
        BELL.density(VP(), lambda x, t: x[:1], noises_of(VP(), 0.5), 0.5, seeds=3)
