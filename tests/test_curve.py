"""The running ELBO: at T the ELBO itself, before it what closed forms and fresh estimates say."""

from __future__ import annotations

import math

import pytest
import torch
from torch import Tensor

from difftime.diffusion.mixture import Mixture, gauss_legendre
from difftime.diffusion.p_noise import MixtureNoise
from difftime.diffusion.score import ExactScore
from difftime.diffusion.sde import SDE, VP, standard_noise
from difftime.measures.curve import (
    DensityCurve,
    ImageCurve,
    density_curve,
    image_curve,
    noises_at,
    running_elbo,
    running_weights,
)
from difftime.measures.elbo import end_terms, integrands, path_terms
from difftime.measures.image_elbo import ImageElbo, image_elbo, over_images
from difftime.support.streams import stream

D, EPSILON = 16, 1e-5
COST = {"end_pairs": 2, "batch": 500}


def times(*values: float) -> Tensor:
    return torch.tensor(values, dtype=torch.float64)


# Known densities


def wrong(sde: SDE, p: Mixture):
    """A score that is wrong everywhere, of three seeds."""
    return lambda x, t: ExactScore(p, sde)(x, t) * torch.tensor([0.9, 1.05, 1.2]).double()[:, None, None]


def of_density(score, p: Mixture, sde: SDE, t: Tensor, T: float, **options) -> DensityCurve:
    place = {"points": 2, "seed": "0"} | options
    steps = place.pop("time_steps", 160)
    found = integrands(score, p, sde, T, EPSILON, seeds=3, time_steps=steps, **place)
    noises = noises_at(["standard", "matched"], sde, p.mean, p.variance)
    return density_curve(found, p, sde, noises, t, T, EPSILON, **place)


def test_at_every_time_it_is_the_elbo_of_a_quadrature_up_to_there(sde: SDE, toy: Mixture) -> None:
    score, t = wrong(sde, toy), torch.linspace(0.05, 0.8, 16, dtype=torch.float64)
    found = of_density(score, toy, sde, t, 0.8)
    for k in (0, 7, 15):
        T = t[k].item()
        whole = path_terms(score, toy, sde, T, EPSILON, seeds=3, time_steps=160, points=2, seed="0")
        ends = end_terms(toy, sde, standard_noise(sde, T, (1,)), T, EPSILON, points=2, seed="0")
        assert torch.allclose(found.gap[:, k], whole.gap, rtol=1e-5)
        assert torch.allclose(found.I[:, k], whole.K + whole.gap, rtol=1e-6)
        assert (found.kl[0, k].item(), found.prior[0, k].item(), found.R[k].item()) == (ends.kl, ends.prior, ends.R)
        assert torch.allclose(found.elbo[0, :, k], -ends.entropy - ends.kl - whole.gap, atol=1e-6)
    assert (found.elbo_se == 0).all()


@pytest.mark.parametrize("T", [0.1, 0.42, 0.81, 1.62, 2.0])
def test_at_T_it_is_the_elbo_to_rounding(T: float, sde: SDE, toy: Mixture) -> None:
    found = of_density(wrong(sde, toy), toy, sde, times(T / 2, T), T)
    whole = path_terms(wrong(sde, toy), toy, sde, T, EPSILON, seeds=3, time_steps=160, points=2, seed="0")
    ends = end_terms(toy, sde, standard_noise(sde, T, (1,)), T, EPSILON, points=2, seed="0")
    assert torch.allclose(found.elbo[0, :, -1], -ends.entropy - ends.kl - whole.gap, rtol=1e-13)


def test_eq_4_and_eq_11_give_the_same_running_elbo(sde: SDE, toy: Mixture) -> None:
    found = of_density(wrong(sde, toy), toy, sde, times(0.1, 0.3, 0.7, 1.0), 1.0)
    eq4 = found.prior[:, None] - found.I + found.R
    assert torch.allclose(eq4, found.elbo, atol=1e-6)


def test_in_two_dimensions_it_agrees_within_the_errors_of_its_points(correlated: Mixture) -> None:
    sde, t = VP(), times(0.1, 0.25, 0.5)
    place = {"time_steps": 60, "points": 400}
    found = of_density(wrong(sde, correlated), correlated, sde, t, 0.5, **place)
    other = of_density(wrong(sde, correlated), correlated, sde, t, 0.5, **place, seed="1")
    error = (found.gap_se**2 + other.gap_se**2).sqrt()
    assert ((found.gap - other.gap).abs() < 4 * error).all()
    assert (error > 0).all()
    whole = path_terms(wrong(sde, correlated), correlated, sde, 0.5, EPSILON, seeds=3, **place, seed="0")
    assert torch.allclose(found.gap[:, -1], whole.gap, rtol=1e-12)
    assert torch.allclose(found.gap_se[:, -1], whole.gap_se, rtol=1e-12)


def test_an_exact_score_has_no_gap_at_any_time(sde: SDE, toy: Mixture) -> None:
    found = of_density(ExactScore(toy, sde), toy, sde, times(0.1, 0.5, 1.0), 1.0, time_steps=20)
    assert found.gap.abs().max() < 1e-9


@pytest.mark.parametrize("n", [1, 2, 5, 160])
def test_running_weights_integrate_polynomials_from_the_beginning_to_any_place(n: int) -> None:
    place = times(-1, -0.3, 0.2, 0.9, 1)
    node, weight = gauss_legendre(times(-1)[0], times(1)[0], n)
    found = running_weights(n, place)
    for power in range(min(n, 12)):
        exact = (place ** (power + 1) - (-1) ** (power + 1)) / (power + 1)
        assert torch.allclose(found @ node**power, exact, atol=1e-12)
    assert torch.allclose(found[-1], weight, rtol=1e-12)


@pytest.mark.parametrize("t", [[0.5, 1.2], [1e-6, 0.5], [0.5, 0.4], [0.5, 0.5]])
def test_times_that_the_model_does_not_know_or_that_do_not_rise_are_refused(t: list[float], toy: Mixture) -> None:
    with pytest.raises(ValueError, match="known from 1e-05 to 1, not at"):
        of_density(ExactScore(toy, VP()), toy, VP(), times(*t), 1.0, time_steps=3)
    p = gaussian("p")
    with pytest.raises(ValueError, match="known from 1e-05 to 1, not at"):
        curve(ExactScore(p, VP()), p, VP(), times(*t), p.sample(2, stream("x")), 1.0)


# Images


def gaussian(name: str) -> Mixture:
    """Independent coordinates with variances from 0.3 down to 0.003."""
    mean = 0.3 * torch.randn(D, dtype=torch.float64, generator=stream(name, "mean"))
    covariance = (0.3 * torch.logspace(0, -2, D, dtype=torch.float64)).diag()
    return Mixture.from_covariances([1.0], [mean.tolist()], [covariance.tolist()])


def spoiled(p: Mixture, sde: SDE, factor: float = 1.3):
    """A score whose estimate of the noise is too large by a factor: its gap has a closed form."""
    return lambda x, t: factor * ExactScore(p, sde)(x, t)


def curve(score, p: Mixture, sde: SDE, t: Tensor, x0: Tensor, T: float, **options) -> ImageCurve:
    names = options.pop("names", ["standard", "full"])
    options = {"seeds": ["model"], "indices": torch.arange(len(x0)), "pairs": 4, **COST, **options}
    noises = noises_at(names, sde, p.mean, p.variance, p.covariance, options.pop("mixture", None))
    return running_elbo(score, sde, noises, t, x0, T, EPSILON, **options)


def close(values: Tensor, expected: float) -> bool:
    mean, se = over_images(values)
    return abs(mean.item() - expected) < 4 * se.item()


T_S = times(0.07, 0.2, 0.35, 0.5, 0.8, 1.0)


def test_with_the_exact_score_it_is_minus_entropy_minus_the_kl_of_each_time(sde: SDE) -> None:
    p = gaussian("p")
    found = curve(ExactScore(p, sde), p, sde, T_S, p.sample(800, stream("x")), 1.0).elbo_eps[:, 0]
    start = p.diffused(sde, EPSILON)
    entropy = 0.5 * (start.variance.log() + math.log(2 * math.pi * math.e)).sum().item()
    for k, t in enumerate(T_S.tolist()):
        end, noise = p.diffused(sde, t), standard_noise(sde, t, (D,))
        ratio = end.variance / noise.variance
        kl = 0.5 * (ratio - ratio.log() - 1 + end.mean**2 / noise.variance).sum().item()
        assert close(found[0, k], -entropy - kl)
        assert close(found[1, k], -entropy)


def test_a_wrong_score_costs_its_gap_up_to_each_time(sde: SDE) -> None:
    """E||s - ∇ log p||² = (factor - 1)² E||∇ log p||², so G(t) = ½ (factor - 1)² ∫ sigma² sum_i 1/v_i d lambda."""
    p, x0 = gaussian("p"), gaussian("p").sample(800, stream("x"))
    right, other = (curve(score, p, sde, T_S, x0, 1.0) for score in (ExactScore(p, sde), spoiled(p, sde)))
    start, *levels = sde.noise_level(torch.cat([times(EPSILON), T_S])).tolist()
    for k, stop in enumerate(levels):
        level = torch.linspace(start, stop, 4001, dtype=torch.float64)
        t = sde.time(level)
        sigma2 = sde.variance(t)[:, None]
        inverse = (sigma2 / (sde.alpha(t)[:, None] ** 2 * p.variance + sigma2)).sum(-1)
        gap = 0.5 * 0.3**2 * torch.trapezoid(inverse, level).item()
        assert close((other.I - right.I)[0, k], gap)


@pytest.mark.parametrize("T", [0.3, 1.0, 2.0])
def test_at_T_the_terms_are_those_of_the_elbo_to_rounding(T: float, sde: SDE) -> None:
    p, x0 = gaussian("p"), gaussian("p").sample(20, stream("x"))
    found = curve(spoiled(p, sde), p, sde, times(T / 3, T), x0, T, seeds=["a", "b"])
    noises = noises_at(["standard", "full"], sde, p.mean, p.variance, p.covariance)(T)
    whole = image_elbo(
        spoiled(p, sde), sde, noises, x0, T, EPSILON, seeds=["a", "b"], indices=torch.arange(20), pairs=4, **COST
    )
    assert torch.allclose(found.elbo_eps[:, :, -1], whole.elbo_eps, rtol=1e-12)
    assert torch.allclose(found.elbo_x0[:, :, -1], whole.elbo_x0, rtol=1e-12)


@pytest.mark.parametrize("pairs", [2, 4, 8])
def test_it_agrees_with_a_fresh_estimate_of_each_time_paired_over_images(pairs: int, sde: SDE) -> None:
    """The model of T = 1 used for t, against `image_elbo` at t with other random numbers."""
    p, x0 = gaussian("p"), gaussian("p").sample(600, stream("x"))
    found = curve(spoiled(p, sde), p, sde, T_S, x0, 1.0, pairs=pairs).elbo_eps[0, 0]
    for k, t in enumerate(T_S.tolist()):
        fresh = image_elbo(
            spoiled(p, sde), sde, [standard_noise(sde, t, (D,))], x0, t, EPSILON,
            seeds=["other"], indices=torch.arange(600), pairs=8, **COST,
        )  # fmt: skip
        assert close(found[k] - fresh.elbo_eps[0, 0], 0.0)


def test_between_the_cells_boundaries_what_the_line_explains_makes_no_error(sde: SDE) -> None:
    """Repetitions scatter as their standard error says, and less than were every evaluation counted where it is."""
    p, n, t, T = gaussian("p"), 40, times(0.2, 0.5), 1.0
    x0, seeds = p.sample(n, stream("x")), [f"repetition {k}" for k in range(60)]
    found = curve(ExactScore(p, sde), p, sde, t, x0, T, seeds=seeds, pairs=3)
    mean, se = over_images(found.I)
    ratio = mean.std(0) / se.square().mean(0).sqrt()
    assert (ratio < 1.25).all()


def test_a_single_image_has_a_curve() -> None:
    p = gaussian("p")
    one = curve(ExactScore(p, VP()), p, VP(), T_S, p.sample(1, stream("x")), 1.0)
    assert one.elbo_x0.isfinite().all()


def test_the_parts_of_a_batch_change_no_bit() -> None:
    p, x0 = gaussian("p"), gaussian("p").sample(23, stream("x"))
    noises = noises_at(["standard"], VP(), p.mean, p.variance)
    options = {"seeds": ["a"], "indices": torch.arange(23), "end_pairs": 2}
    found = image_elbo(ExactScore(p, VP()), VP(), noises(1.0), x0, 1.0, EPSILON, pairs=3, batch=23, **options)
    whole, parts = (image_curve(found, VP(), noises, T_S, x0, 1.0, EPSILON, batch=b, **options) for b in (23, 5))
    assert torch.equal(whole.elbo_x0, parts.elbo_x0)


def test_a_score_that_fails_for_one_image_fails_for_that_one_alone() -> None:
    p, x0 = gaussian("p"), gaussian("p").sample(3, stream("x"))

    def score(x: Tensor, t: Tensor) -> Tensor:
        return torch.where(torch.arange(3)[:, None] == 1, torch.nan, ExactScore(p, VP())(x, t))

    found = curve(score, p, VP(), times(0.3, 1.0), x0, 1.0).elbo_x0[0, 0]
    assert found.isnan().tolist() == [[False, True, False]] * 2


def test_a_mixture_of_another_time_is_the_same_fit_diffused_to_there() -> None:
    p, x0 = gaussian("p"), gaussian("p").sample(300, stream("x"))
    fitted = MixtureNoise.of(p.diffused(VP(), 2.0), p)
    found = curve(ExactScore(p, VP()), p, VP(), T_S, x0, 1.0, names=["mixture", "full"], mixture=fitted)
    assert torch.allclose(found.prior[0], found.prior[1], rtol=1e-9)


def test_a_p_noise_that_is_known_at_one_T_alone_has_no_curve() -> None:
    p = gaussian("p")
    for name in ("flow", "full", "mixture"):
        with pytest.raises(ValueError, match=f"p_noise {name} is known at one T alone"):
            noises_at(["standard", name], VP(), p.mean, p.variance)


@pytest.mark.parametrize("names", [[], ["standard"]])
def test_without_a_p_noise_of_every_time_the_other_terms_are_the_same(names: list[str], toy: Mixture) -> None:
    """As of a study whose only p_noise is a flow."""
    sde, t = VP(), times(0.1, 0.5)
    noises = noises_at(names, sde, toy.mean, toy.variance)
    found = integrands(wrong(sde, toy), toy, sde, 0.5, EPSILON, seeds=3, time_steps=20, points=2, seed="0")
    known = density_curve(found, toy, sde, noises, t, 0.5, EPSILON, points=2, seed="0")
    assert known.elbo.shape == (len(names), 3, 2)
    assert torch.equal(known.gap, of_density(wrong(sde, toy), toy, sde, t, 0.5, time_steps=20).gap)
    x0, options = toy.sample(3, stream("x")), {"seeds": ["model"], "indices": torch.arange(3), **COST}
    start = standard_noise(sde, 0.5, (1,))
    of_images = image_elbo(spoiled(toy, sde), sde, [start], x0, 0.5, EPSILON, pairs=4, **options)
    assert image_curve(of_images, sde, noises, t, x0, 0.5, EPSILON, **options).elbo_x0.shape == (len(names), 1, 2, 3)


def test_the_running_elbo_needs_a_score_and_an_sde_alone() -> None:
    """A foreign model: a plain function on points [seeds, n, d]; nothing of a study."""
    sde = VP()

    def score(x: Tensor, t: Tensor) -> Tensor:
        alpha, variance = sde.alpha(t)[..., None], sde.variance(t)[..., None]
        return -(x - alpha) / (alpha**2 * 0.04 + variance)

    mean, variance = torch.ones(3).double(), torch.full((3,), 0.04).double()
    x0 = 1 + 0.2 * torch.randn(500, 3, dtype=torch.float64, generator=stream("x"))
    found = running_elbo(
        score, sde, noises_at(["matched"], sde, mean, variance), T_S, x0, 1.0, EPSILON,
        seeds=["foreign"], indices=torch.arange(500), pairs=8, **COST,
    )  # fmt: skip
    at_epsilon = 0.04 * sde.alpha(times(EPSILON)) ** 2 + sde.variance(times(EPSILON))
    entropy = 1.5 * (at_epsilon.log() + math.log(2 * math.pi * math.e)).item()
    assert all(close(found.elbo_eps[0, 0, k], -entropy) for k in range(len(T_S)))


def test_the_evaluations_of_an_image_are_kept_with_its_integral() -> None:
    p, x0 = gaussian("p"), gaussian("p").sample(5, stream("x"))
    found: ImageElbo = image_elbo(
        ExactScore(p, VP()), VP(), [standard_noise(VP(), 1.0, (D,))], x0, 1.0, EPSILON,
        seeds=["a"], indices=torch.arange(5), pairs=3, **COST,
    )  # fmt: skip
    start, stop = VP().noise_level(times(EPSILON, 1.0)).tolist()
    assert found.errors.shape == (1, 6, 5)
    assert torch.allclose(found.I, 0.5 * (stop - start) * found.errors.mean(1))
