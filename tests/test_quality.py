"""Measures of sample quality, against SciPy and against what they must be for perfect samples."""

import math

import numpy as np
import pytest
import torch
from scipy.stats import wasserstein_distance

from difftime.mixture import Mixture
from difftime.quality import (
    REPRESENTATIVES,
    histogram,
    histogram_edges,
    median_log_prob,
    mode_shares,
    quantiles,
    true_shares,
    wasserstein1,
    wasserstein1_floor,
)
from difftime.streams import stream


def test_quantiles_invert_the_distribution_function(toy: Mixture) -> None:
    u = torch.linspace(0.001, 0.999, 99, dtype=torch.float64)
    assert torch.allclose(toy.cdf(quantiles(toy, u)), u, atol=1e-12)


def test_wasserstein1_agrees_with_scipy_against_a_huge_sample(toy: Mixture) -> None:
    x = 0.4 + toy.sample(500, stream("x"))
    reference = toy.sample(400_000, stream("reference"))
    oracle = wasserstein_distance(x[:, 0].numpy(), reference[:, 0].numpy())
    spread = 4 * wasserstein1_floor(toy, 400_000)
    assert wasserstein1(x[None], toy).item() == pytest.approx(oracle, abs=spread + 1e-3)


def test_a_shift_moves_wasserstein1_by_its_length(toy: Mixture) -> None:
    u = (torch.arange(1000, dtype=torch.float64) + 0.5) / 1000
    perfect = quantiles(toy, u)[None, :, None]
    assert wasserstein1(perfect, toy).item() == pytest.approx(0, abs=1e-12)
    assert wasserstein1(perfect + 0.3, toy).item() == pytest.approx(0.3)


def test_sliced_wasserstein1_of_a_shift_is_the_mean_projection_of_it(correlated: Mixture) -> None:
    n = 20_000
    x = correlated.sample(n, stream("x"))[None]
    shift = torch.tensor([3.0, 4.0]).double()
    expected = 5 * 2 / math.pi  # E|cos| over directions in the plane
    # 64 random directions: the standard deviation of |cos| is 0.31
    assert wasserstein1(x + shift, correlated).item() == pytest.approx(expected, abs=4 * 5 * 0.31 / 8)
    assert wasserstein1(x, correlated).item() < 3 * wasserstein1_floor(correlated, n)


@pytest.mark.parametrize("name", ["toy", "correlated"])
def test_the_floor_is_what_perfect_samples_get(name: str, request: pytest.FixtureRequest) -> None:
    p = request.getfixturevalue(name)
    found = [wasserstein1(p.sample(400, stream("floor", k))[None], p).item() for k in range(30)]
    se = np.std(found, ddof=1) / math.sqrt(len(found))
    # the floor replaces a binomial by a normal: good to a few per cent at n = 400
    assert wasserstein1_floor(p, 400) == pytest.approx(np.mean(found), abs=4 * se + 0.04 * np.mean(found))


def test_samples_that_are_not_finite_have_no_distance_and_no_mode(toy: Mixture) -> None:
    x = toy.sample(100, stream("x")).repeat(2, 1, 1)
    x[1, :10] = torch.nan
    assert wasserstein1(x, toy).isnan().tolist() == [False, True]
    assert mode_shares(x, toy).sum(1).tolist() == pytest.approx([1.0, 0.9])


def test_mode_shares_of_perfect_samples_are_the_true_ones(toy: Mixture, correlated: Mixture) -> None:
    for p in (toy, correlated):
        truth, n = true_shares(p), 50_000
        found = mode_shares(p.sample(n, stream("x"))[None], p)[0]
        assert truth.sum().item() == pytest.approx(1.0, abs=1e-9)
        assert ((found - truth).abs() < 4 * (truth * (1 - truth) * (1 / n + 1 / REPRESENTATIVES)).sqrt()).all()


def test_a_lost_mode_is_seen_by_the_share_and_not_by_the_likelihood(toy: Mixture) -> None:
    """Why Fig. 1 does not stand alone."""
    perfect, lost = toy.sample(5000, stream("x")), 1 + 0.1 * torch.randn(5000, 1, generator=stream("y")).double()
    assert toy.log_prob(lost).median() > toy.log_prob(perfect).median()
    assert mode_shares(lost[None], toy)[0, 0] > 0.98
    assert wasserstein1(lost[None], toy) > 10 * wasserstein1(perfect[None], toy)


def test_half_of_perfect_samples_lie_above_the_median_log_prob(toy: Mixture, correlated: Mixture) -> None:
    for p in (toy, correlated):
        n = 40_000
        above = (p.log_prob(p.sample(n, stream("x"))) > median_log_prob(p)).double().mean().item()
        assert above == pytest.approx(0.5, abs=4 * 0.5 * math.sqrt(1 / n + 1 / REPRESENTATIVES))


def test_a_histogram_counts_every_sample_inside_once(toy: Mixture) -> None:
    edges = histogram_edges(toy, 120)
    x = toy.sample(10_000, stream("x"))[:, 0]
    share = histogram(torch.stack([x, x + 1000]), edges)
    expected = np.histogram(x.numpy(), edges.numpy())[0] / len(x)
    assert share[0].tolist() == pytest.approx(expected.tolist())
    assert share[1].sum() == 0
    assert toy.cdf(edges[-1]) - toy.cdf(edges[0]) > 0.9999
