"""The ELBO per image, held against Gaussian images of 16 pixels, for which every term has a closed form."""

from __future__ import annotations

import math

import pytest
import torch
from torch import Tensor, nn
from torch.distributions import MultivariateNormal, kl_divergence

from difftime.diffusion.mixture import Mixture
from difftime.diffusion.score import ExactScore, NetScore
from difftime.diffusion.sde import SDE, VP, Gaussian, matched_noise, standard_noise
from difftime.measures.elbo import time_nodes
from difftime.measures.image_elbo import ImageElbo, image_elbo, opposite, over_images, path_times
from difftime.support.streams import stream

D, EPSILON = 16, 1e-5
TERMS = ("prior", "I", "residual", "errors")
COST = {"pairs": 4, "end_pairs": 2, "batch": 500}


def gaussian(name: str, *, correlated: bool = True) -> Mixture:
    """Variances from 0.3 down to 0.003 along random axes, or along the coordinates."""
    rotation, _ = torch.linalg.qr(torch.randn(D, D, dtype=torch.float64, generator=stream(name, "axes")))
    axes = rotation if correlated else torch.eye(D, dtype=torch.float64)
    covariance = axes * (0.3 * torch.logspace(0, -2, D, dtype=torch.float64)) @ axes.mT
    mean = 0.3 * torch.randn(D, dtype=torch.float64, generator=stream(name, "mean"))
    return Mixture.from_covariances([1.0], [mean.tolist()], [(0.5 * (covariance + covariance.mT)).tolist()])


def normal(p: Mixture) -> MultivariateNormal:
    # its check of the covariance's symmetry has an absolute tolerance, which variances of 1e10 miss by rounding
    return MultivariateNormal(p.mean, p.covariance, validate_args=False)


def exact_noise(p: Mixture, sde: SDE, T: float) -> Gaussian:
    """p(x, T) itself, for data with independent coordinates."""
    end = p.diffused(sde, T)
    return Gaussian(end.mean, end.variance)


def elbo(score, sde: SDE, noises: list[Gaussian], x0: Tensor, T: float, epsilon: float = EPSILON, **options):
    options = {"seeds": ["model"], "indices": torch.arange(len(x0)), **COST, **options}
    return image_elbo(score, sde, noises, x0, T, epsilon, **options)


def close(values: Tensor, expected: float, slack: float = 0.0) -> bool:
    """Whether the mean over images is the expected one, within 4 standard errors and `slack`."""
    mean, se = over_images(values)
    return abs(mean.item() - expected) < 4 * se.item() + slack


@pytest.mark.parametrize("T", [0.3, 1.0, 2.0])
def test_with_the_exact_score_and_p_noise_the_elbo_is_the_expected_log_density_of_each_image(sde: SDE, T: float):
    p = gaussian("p", correlated=False)
    x0, start = p.sample(400, stream("x")), p.diffused(sde, EPSILON)
    found = elbo(ExactScore(p, sde), sde, [exact_noise(p, sde, T)], x0, T)
    at = torch.tensor(EPSILON, dtype=torch.float64)
    from_x0 = Gaussian(start.mean, start.variance).expected_log_prob(sde.alpha(at) * x0, sde.variance(at))
    assert close(found.elbo_eps[0, 0] - from_x0, 0.0)  # the average over x_0 adds nothing to its error
    assert close(found.elbo_eps[0, 0], -normal(start).entropy().item())


@pytest.mark.parametrize("T", [0.3, 1.0, 2.0])
def test_another_p_noise_costs_its_kl(sde: SDE, T: float) -> None:
    p = gaussian("p")
    start, end = normal(p.diffused(sde, EPSILON)), normal(p.diffused(sde, T))
    noises = [standard_noise(sde, T, (D,)), matched_noise(sde, T, p.mean, p.variance)]
    found = elbo(ExactScore(p, sde), sde, noises, p.sample(800, stream("x")), T)
    for noise, values in zip(noises, found.elbo_eps[:, 0], strict=True):
        kl = kl_divergence(end, MultivariateNormal(noise.mean, noise.variance.diag()))
        assert close(values, (-start.entropy() - kl).item())


@pytest.mark.parametrize("T", [0.3, 2.0])
def test_a_wrong_score_costs_its_gap(sde: SDE, T: float) -> None:
    """G = ½ ∫ g² E||s - ∇ log p||² dt, here for the score of another Gaussian."""
    p, other = gaussian("p"), gaussian("other")
    G = 0.0
    for t, weight in zip(*time_nodes(sde, T, EPSILON, 64), strict=True):
        true, wrong = normal(p.diffused(sde, t.item())), normal(other.diffused(sde, t.item()))
        turn = wrong.precision_matrix - true.precision_matrix
        shift = wrong.precision_matrix @ (wrong.mean - true.mean)
        error = (turn @ true.covariance_matrix @ turn).trace() + shift.square().sum()
        G += 0.5 * (weight * sde.variance(t) * error).item()
    x0, noise = p.sample(1000, stream("x")), [standard_noise(sde, T, (D,))]
    right, wrong = (elbo(ExactScore(q, sde), sde, noise, x0, T).elbo_eps[0, 0] for q in (p, other))
    assert close(right - wrong, G)
    assert G > 1


@pytest.mark.parametrize(("noise_at_epsilon", "most"), [(None, 0.3), (0.02, 30.0)])
def test_the_bound_on_the_data_falls_short_by_what_the_decoder_loses(sde: SDE, noise_at_epsilon, most) -> None:
    p, T = gaussian("p", correlated=False), 1.0
    epsilon = EPSILON if noise_at_epsilon is None else sde.time(torch.tensor(noise_at_epsilon).double().log()).item()
    ratio = sde.noise_level(torch.tensor(epsilon, dtype=torch.float64)).exp() / p.variance
    loss = 0.5 * (ratio.log1p() - ratio / (1 + ratio)).sum().item()
    x0 = p.sample(1000, stream("x"))
    found = elbo(ExactScore(p, sde), sde, [exact_noise(p, sde, T)], x0, T, epsilon)
    assert close(p.log_prob(x0) - found.elbo_x0[0, 0], loss)
    assert close(found.elbo_x0[0, 0], -normal(p).entropy().item() - loss)
    assert 0 <= loss < most
    assert noise_at_epsilon is None or loss > 1  # else only the absence of a loss was tested


class Zero(nn.Module):
    def forward(self, x: Tensor, t: Tensor) -> Tensor:
        return torch.zeros_like(x)


@pytest.mark.parametrize("T", [0.5, 1.5])
def test_a_network_that_never_sees_noise_is_wrong_by_all_of_it(sde: SDE, T: float) -> None:
    """z_hat = 0: I = ½ D (lambda_T - lambda_epsilon), and the decoder only knows the scale alpha."""
    score = NetScore(Zero(), sde, "noise", scale_input=False, data_variance=1.0)
    x0 = gaussian("p").sample(50, stream("x")).float()
    found = elbo(score, sde, [standard_noise(sde, T, (D,))], x0, T)
    start, stop = sde.noise_level(torch.tensor([EPSILON, T], dtype=torch.float64)).tolist()
    log_alpha = sde.alpha(torch.tensor(EPSILON, dtype=torch.float64)).log().item()
    assert close(found.I[0], 0.5 * D * (stop - start))
    assert close(found.residual[0], D * log_alpha)
    assert pytest.approx(D * sde.R(T, EPSILON)) == found.R


@pytest.mark.parametrize(("pairs", "least"), [(8, 0.8), (1, 0.7)])
def test_the_standard_error_is_the_scatter_between_repetitions(pairs: int, least: float) -> None:
    """With a single pair the images' times, which fill each other's gaps, make the mean better than their scatter."""
    sde, p, T = VP(), gaussian("p"), 0.5
    runs, images = 100, 30
    x0 = p.sample(runs * images, stream("x"))
    found = elbo(ExactScore(p, sde), sde, [standard_noise(sde, T, (D,))], x0, T, pairs=pairs, batch=len(x0))
    for values in (found.elbo_eps[0, 0], found.elbo_x0[0, 0]):
        mean, se = over_images(values.view(runs, images))
        assert least < mean.std() / se.square().mean().sqrt() < 1.2  # the scatter of 100 runs is known to 7 %


def plain(score, sde: SDE, x0: Tensor, T: float, *, evaluations: int, repetitions: int) -> Tensor:
    """I of each image with independent times and independent noise, [repetitions, n]."""
    start, stop = sde.noise_level(torch.tensor([EPSILON, T], dtype=torch.float64)).tolist()
    generator = stream("plain")
    x0 = x0.expand(repetitions, -1, -1)
    total = torch.zeros(x0.shape[:2], dtype=torch.float64)
    for _ in range(evaluations):
        place = torch.rand(total.shape, dtype=torch.float64, generator=generator)
        t = sde.time(start + (stop - start) * place)
        z = torch.randn(x0.shape, dtype=torch.float64, generator=generator)
        total += (sde.sigma(t)[..., None] * score(sde.perturb(x0, t, z), t) + z).square().sum(-1)
    return 0.5 * (stop - start) * total / evaluations


def test_the_scheme_needs_a_fifteenth_of_plain_monte_carlo_s_evaluations(sde: SDE) -> None:
    p, T, repetitions = gaussian("p"), 1.0, 100
    x0, score = p.sample(16, stream("x")), ExactScore(p, sde)
    seeds = [f"repetition {i}" for i in range(repetitions)]
    ours = elbo(score, sde, [standard_noise(sde, T, (D,))], x0, T, seeds=seeds, pairs=8).I
    theirs = plain(score, sde, x0, T, evaluations=16, repetitions=repetitions)
    assert theirs.var(0).mean() > 15 * ours.var(0).mean()
    assert theirs.mean(1).var() > 15 * ours.mean(1).var()
    difference = ours.mean(1).mean() - theirs.mean(1).mean()
    assert abs(difference) < 4 * (theirs.mean(1).var() / repetitions).sqrt() * 1.1


@pytest.mark.parametrize("d", [1, 2, 16, 3072])
def test_the_opposite_noise_is_as_normal_as_the_noise(d: int) -> None:
    n = 200_000 // d
    z = torch.randn(n, d, dtype=torch.float64, generator=stream("z"))
    other = opposite(z)
    for power, moment in ((1, 0.0), (2, 1.0), (3, 0.0), (4, 3.0)):
        sd = math.sqrt({1: 1, 2: 2, 3: 15, 4: 96}[power] / (n * d))
        assert abs(other.pow(power).mean().item() - moment) < 4 * sd
    assert torch.nn.functional.cosine_similarity(z, other).allclose(torch.tensor(-1.0).double())
    assert torch.allclose(opposite(other), z, rtol=1e-6)
    square, mirrored = z.square().sum(-1), other.square().sum(-1)
    assert torch.equal(square.argsort(), mirrored.argsort(descending=True))
    if d >= 16:
        assert (0.5 * (square + mirrored)).std() < 0.4 * square.std()


@pytest.mark.parametrize("T", [0.4, 1.0, 2.5])
def test_every_image_has_two_mirrored_times_in_each_of_equal_cells_of_lambda(sde: SDE, T: float) -> None:
    n, pairs = 100, 8
    times = path_times(sde, T, EPSILON, ["a", "b"], torch.arange(n), pairs)
    start, stop = sde.noise_level(torch.tensor([EPSILON, T], dtype=torch.float64)).tolist()
    place = (sde.noise_level(times) - start) / (stop - start) * pairs
    first, second = (place.view(2, n, pairs, 2) - torch.arange(pairs)[:, None]).unbind(-1)
    assert torch.allclose(first, first[..., :1].expand_as(first), atol=1e-6)
    assert torch.allclose(first + second, torch.ones_like(first), atol=1e-6)
    assert ((first > -1e-6) & (first < 1 + 1e-6)).all()
    # together the images leave no gap twice as wide as that of a regular grid
    assert first[..., 0].sort(-1).values.diff().max() < 2 / n


def test_what_is_linear_in_lambda_is_integrated_without_error(sde: SDE) -> None:
    start, stop = sde.noise_level(torch.tensor([EPSILON, 1.5], dtype=torch.float64)).tolist()
    level = sde.noise_level(path_times(sde, 1.5, EPSILON, ["a"], torch.arange(20), 3))
    assert torch.allclose(level.mean(-1), torch.tensor(0.5 * (start + stop), dtype=torch.float64), atol=1e-8)


def diagonal(sde: SDE):
    """The score of independent coordinates, in operations that know of one number at a time."""
    p = gaussian("p", correlated=False)

    def score(x: Tensor, t: Tensor) -> Tensor:
        alpha, variance = sde.alpha(t)[..., None], sde.variance(t)[..., None]
        return -(x - alpha * p.mean) / (alpha**2 * p.variance + variance)

    return p, score


def same(a: ImageElbo, b: ImageElbo) -> bool:
    return a.R == b.R and all(torch.equal(getattr(a, k), getattr(b, k)) for k in TERMS)


def rows(found: ImageElbo, chosen: Tensor | slice, seeds: slice = slice(None)) -> ImageElbo:
    own = {name: getattr(found, name)[seeds][..., chosen] for name in ("I", "residual", "errors")}
    return ImageElbo(prior=found.prior[:, chosen], R=found.R, **own)


def test_the_result_of_an_image_does_not_depend_on_its_company(sde: SDE) -> None:
    p, score = diagonal(sde)
    x0, noise = p.sample(23, stream("x")), [standard_noise(sde, 1.0, (D,))]
    whole = elbo(score, sde, noise, x0, 1.0)
    for batch in (1, 2, 5, 22):
        assert same(elbo(score, sde, noise, x0, 1.0, batch=batch), whole)
    order = torch.randperm(23, generator=stream("order"))
    assert same(elbo(score, sde, noise, x0[order], 1.0, indices=order, batch=4), rows(whole, order))
    rest = slice(10, None)
    assert same(elbo(score, sde, noise, x0[rest], 1.0, indices=torch.arange(23)[rest]), rows(whole, rest))


def test_a_model_s_result_does_not_depend_on_the_models_beside_it(sde: SDE) -> None:
    p, score = diagonal(sde)
    x0, noise = p.sample(5, stream("x")), [standard_noise(sde, 1.0, (D,))]
    both = elbo(score, sde, noise, x0, 1.0, seeds=["a", "b"])
    assert same(elbo(score, sde, noise, x0, 1.0, seeds=["b"]), rows(both, slice(None), slice(1, 2)))
    assert not torch.equal(both.I[0], both.I[1])


def test_the_noise_of_the_residual_depends_neither_on_T_nor_on_the_pairs(sde: SDE) -> None:
    p, score = diagonal(sde)
    x0, noise = p.sample(5, stream("x")), [standard_noise(sde, 1.0, (D,))]
    one, other = (elbo(score, sde, noise, x0, T, pairs=pairs) for T, pairs in ((0.5, 3), (1.0, 4)))
    assert torch.equal(one.residual, other.residual)


def test_the_network_sees_no_more_images_at_once_than_it_should() -> None:
    p, exact = diagonal(VP())
    sizes = []

    def score(x: Tensor, t: Tensor) -> Tensor:
        assert not torch.is_grad_enabled()
        assert t.shape == x.shape[:2]
        sizes.append(x.shape[1])
        return exact(x, t)

    elbo(score, VP(), [standard_noise(VP(), 1.0, (D,))], p.sample(7, stream("x")), 1.0, pairs=3, end_pairs=1, batch=4)
    assert sizes == [4] * 8 + [3] * 8


def test_a_score_that_fails_for_one_image_fails_for_that_one_alone() -> None:
    p, exact = diagonal(VP())
    x0 = p.sample(3, stream("x"))
    noise = [standard_noise(VP(), 1.0, (D,))]

    def score(x: Tensor, t: Tensor) -> Tensor:
        return torch.where(torch.arange(3)[:, None] == 1, torch.nan, exact(x, t))

    found = elbo(score, VP(), noise, x0, 1.0).elbo_x0[0, 0]
    assert found.isnan().tolist() == [False, True, False]


def test_the_standard_error_counts_images_and_not_values() -> None:
    values = torch.randn(2, 50, dtype=torch.float64, generator=stream("values"))
    single = over_images(values)
    assert torch.allclose(single.se, values.std(-1) / math.sqrt(50))
    image = torch.arange(50).repeat_interleave(3)
    thrice = over_images(values.repeat_interleave(3, -1), image + 1000)
    assert torch.allclose(thrice.mean, single.mean)
    assert torch.allclose(thrice.se, single.se)
    assert over_images(values[0, :1]).se.isnan()
