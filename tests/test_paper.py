"""One test per numbered statement of the paper, on its toy example."""

import math

import numpy as np
import pytest
import torch

from difftime.diffusion.mixture import Mixture, nodes
from difftime.diffusion.p_noise import FullGaussian
from difftime.diffusion.score import ExactScore
from difftime.diffusion.sde import SDE, VE, VP, matched_noise, standard_noise
from difftime.measures.elbo import end_terms, expected_log_density, path_terms
from difftime.support.streams import stream

EPSILON = 1e-5
PAPER = {"vp": VP(), "ve": VE.exponential(25.0)}
STEPS = {"time_steps": 160, "points": 2000, "seed": "test"}


def wrong_score(p: Mixture, sde: SDE):
    """The exact score of another mixture: a smooth, imperfect score."""
    other = Mixture.from_covariances([0.4, 0.6], [[1.2], [2.8]], [[[0.02]], [[0.3]]])
    return ExactScore(other, sde)


def monte_carlo_I(score, p: Mixture, sde: SDE, T: float, n: int) -> tuple[float, float]:
    """Eq. 6 as it stands, by plain Monte Carlo over (t, x_0, z), with lambda uniform; and its standard error."""
    generator = stream("I")
    start, stop = sde.noise_level(torch.tensor([EPSILON, T], dtype=torch.float64))
    t = sde.time(start + (stop - start) * torch.rand(n, dtype=torch.float64, generator=generator))
    x0 = p.sample(n, generator)
    z = torch.randn(n, p.d, dtype=torch.float64, generator=generator)
    x = sde.perturb(x0, t, z)
    error = score(x[None], t[None])[0] + z / sde.sigma(t)[:, None]
    values = 0.5 * (stop - start) * sde.variance(t) * error.square().sum(-1)
    return values.mean().item(), values.std().item() / n**0.5


@pytest.mark.parametrize(
    ("T", "kl"),
    [(0.2, "1.9200"), (0.4, "0.56331"), (0.5, "0.22771"), (0.6, "0.075456"), (0.8, "0.0045610"), (1.0, "1.2437e-4")],
)
def test_the_kl_of_vp_with_the_standard_p_noise(toy: Mixture, T: float, kl: str) -> None:
    vp = PAPER["vp"]
    ends = end_terms(toy, vp, standard_noise(vp, T, (1,)), T, EPSILON, points=1, seed="test")
    half_of_the_fifth_digit = 0.5 * 10 ** (math.floor(math.log10(float(kl))) - 4)
    assert ends.kl == pytest.approx(float(kl), abs=half_of_the_fifth_digit)
    assert ends.kl_se == 0


def test_the_entropy_of_p_data(toy: Mixture) -> None:
    mean, se = expected_log_density(toy, points=1, seed="test")
    assert se == 0
    assert mean == pytest.approx(-0.85196, abs=5e-6)


@pytest.mark.parametrize("sde", PAPER.values(), ids=PAPER.keys())
@pytest.mark.parametrize("T", [0.2, 0.6, 1.0, 2.0])
def test_proposition_1_holds_with_the_cut_at_epsilon(toy: Mixture, sde: SDE, T: float) -> None:
    """E log p(x_T,T) - K_eps + R_eps = E log p(x_eps, eps)."""
    path = path_terms(ExactScore(toy, sde), toy, sde, T, EPSILON, seeds=1, **STEPS)
    end, start = toy.diffused(sde, T), toy.diffused(sde, EPSILON)
    at_end, at_start = (nodes(p, 0, torch.Generator()) for p in (end, start))
    left = at_end.expectation(end.log_prob(at_end.x))[0] - path.K + sde.R(T, EPSILON)
    assert left.item() == pytest.approx(at_start.expectation(start.log_prob(at_start.x))[0].item(), abs=1e-6)


@pytest.mark.parametrize("sde", PAPER.values(), ids=PAPER.keys())
@pytest.mark.parametrize("T", [0.2, 0.6, 1.0, 2.0])
def test_eq_4_and_eq_11_give_the_same_elbo(toy: Mixture, sde: SDE, T: float) -> None:
    path = path_terms(wrong_score(toy, sde), toy, sde, T, EPSILON, seeds=1, **STEPS)
    ends = end_terms(toy, sde, standard_noise(sde, T, (1,)), T, EPSILON, points=1, seed="test")
    eq4 = ends.prior - (path.K + path.gap[0]).item() + ends.R
    eq11 = -ends.entropy - ends.kl - path.gap[0].item()
    assert path.gap[0] > 0.01
    assert eq4 == pytest.approx(eq11, abs=1e-6)


@pytest.mark.parametrize("sde", PAPER.values(), ids=PAPER.keys())
def test_with_the_exact_score_the_elbo_is_minus_entropy_minus_kl(toy: Mixture, sde: SDE) -> None:
    path = path_terms(ExactScore(toy, sde), toy, sde, 0.6, EPSILON, seeds=2, **STEPS)
    assert path.gap.tolist() == pytest.approx([0, 0], abs=1e-12)
    ends = end_terms(toy, sde, standard_noise(sde, 0.6, (1,)), 0.6, EPSILON, points=1, seed="test")
    assert ends.prior - path.K.item() + ends.R == pytest.approx(-ends.entropy - ends.kl, abs=1e-6)


@pytest.mark.parametrize("sde", PAPER.values(), ids=PAPER.keys())
@pytest.mark.parametrize("T", [0.3, 1.0])
def test_eq_7_I_is_K_plus_a_gap_that_is_positive(toy: Mixture, sde: SDE, T: float) -> None:
    """I by plain Monte Carlo of Eq. 6 agrees with K + G by quadrature."""
    for score in (ExactScore(toy, sde), wrong_score(toy, sde)):
        path = path_terms(score, toy, sde, T, EPSILON, seeds=1, **STEPS)
        estimate, se = monte_carlo_I(score, toy, sde, T, 200_000)
        assert abs(estimate - (path.K + path.gap[0]).item()) < 4 * se
        assert path.gap[0] >= 0


@pytest.mark.parametrize("sde", PAPER.values(), ids=PAPER.keys())
def test_eq_8_the_prior_term_is_the_entropy_of_x_T_plus_kl(toy: Mixture, sde: SDE) -> None:
    for noise in (standard_noise(sde, 0.4, (1,)), matched_noise(sde, 0.4, toy.mean, toy.variance)):
        ends = end_terms(toy, sde, noise, 0.4, EPSILON, points=1, seed="test")
        end = toy.diffused(sde, 0.4)
        at = nodes(end, 0, torch.Generator())
        assert ends.prior == pytest.approx(at.expectation(end.log_prob(at.x))[0].item() - ends.kl, abs=1e-9)


@pytest.mark.parametrize("sde", PAPER.values(), ids=PAPER.keys())
def test_kl_falls_and_the_gap_of_a_fixed_score_rises_with_T(toy: Mixture, sde: SDE) -> None:
    times = [0.1, 0.3, 0.6, 1.0, 1.5, 2.0]
    score = wrong_score(toy, sde)
    gaps = [path_terms(score, toy, sde, T, EPSILON, seeds=1, **STEPS).gap.item() for T in times]
    kls = [end_terms(toy, sde, standard_noise(sde, T, (1,)), T, EPSILON, points=1, seed="test").kl for T in times]
    assert gaps == sorted(gaps)
    assert kls == sorted(kls, reverse=True)


@pytest.mark.parametrize("sde", PAPER.values(), ids=PAPER.keys())
@pytest.mark.parametrize("T", [0.1, 0.4, 1.0])
def test_no_gaussian_p_noise_has_a_smaller_kl_than_the_matched_one(toy: Mixture, sde: SDE, T: float) -> None:
    matched = matched_noise(sde, T, toy.mean, toy.variance)
    best = end_terms(toy, sde, matched, T, EPSILON, points=1, seed="test").kl
    for shift, scale in ((0.0, 1.05), (0.0, 0.95), (0.1, 1.0), (-0.1, 1.0)):
        other = type(matched)(matched.mean + shift, matched.variance * scale)
        assert end_terms(toy, sde, other, T, EPSILON, points=1, seed="test").kl > best
    assert end_terms(toy, sde, standard_noise(sde, T, (1,)), T, EPSILON, points=1, seed="test").kl > best


@pytest.mark.parametrize("sde", PAPER.values(), ids=PAPER.keys())
def test_in_two_dimensions_the_decomposition_agrees_within_its_errors(correlated: Mixture, sde: SDE) -> None:
    other = Mixture.from_covariances([0.5, 0.5], [[-1.0, 0.5], [0.8, 1.0]], 2 * [[[0.3, 0.0], [0.0, 0.3]]])
    path = path_terms(
        ExactScore(other, sde), correlated, sde, 0.5, EPSILON, seeds=1, time_steps=100, points=500, seed="test"
    )
    ends = end_terms(correlated, sde, standard_noise(sde, 0.5, (2,)), 0.5, EPSILON, points=500, seed="test")
    eq4 = ends.prior - (path.K + path.gap[0]).item() + ends.R
    eq11 = -ends.entropy - ends.kl - path.gap[0].item()
    se = (path.K_se**2 + ends.kl_se**2 + ends.entropy_se**2).sqrt().item()
    assert 0 < se < 0.1
    assert abs(eq4 - eq11) < 4 * se


def test_in_two_dimensions_every_estimate_scatters_as_its_standard_error_says(correlated: Mixture) -> None:
    other = Mixture.from_covariances([0.5, 0.5], [[-1.0, 0.5], [0.8, 1.0]], 2 * [[[0.3, 0.0], [0.0, 0.3]]])
    noise, found, errors = FullGaussian.of(*(torch.zeros(2), 2 * torch.eye(2))), [], []
    for k in range(40):
        place = {"points": 50, "seed": f"test {k}"}
        path = path_terms(ExactScore(other, VP()), correlated, VP(), 0.5, 1e-3, seeds=1, time_steps=10, **place)
        ends = end_terms(correlated, VP(), noise, 0.5, 1e-3, **place)
        mean, se = expected_log_density(correlated, **place)
        found.append([(path.K + path.gap[0]).item(), ends.prior, mean])
        errors.append([path.I_se.item(), ends.prior_se, se])
    ratio = np.std(found, axis=0, ddof=1) / np.mean(errors, axis=0)
    assert ((ratio > 0.6) & (ratio < 1.5)).all()  # of 40: five standard deviations
