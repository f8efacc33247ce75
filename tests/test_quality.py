"""Measures of sample quality, against SciPy and against what they must be for perfect samples."""

import math

import numpy as np
import pytest
import torch
from scipy.stats import wasserstein_distance

from difftime.diffusion.mixture import Mixture
from difftime.images.pixels import SCALE
from difftime.measures.quality import (
    DIRECTIONS,
    REPRESENTATIVES,
    compared,
    histogram,
    histogram_edges,
    median_log_prob,
    mode_shares,
    perfect_sliced_wasserstein1,
    projections,
    quantiles,
    sliced_wasserstein1,
    true_shares,
    wasserstein1,
    wasserstein1_floor,
)
from difftime.support.streams import stream
from difftime.tables.schema import TABLES


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


def grey_images(n: int, name: str, shape: tuple[int, ...] = (1, 6, 6), low: int = 0, high: int = 200) -> torch.Tensor:
    return torch.randint(low, high, (n, *shape), generator=stream(name)).to(torch.uint8)


def distance(x: torch.Tensor, y: torch.Tensor) -> tuple[float, float]:
    return sliced_wasserstein1(projections(x), projections(y), stream("resampled"))


@pytest.mark.parametrize(("n", "m"), [(40, 40), (24, 60), (7, 50), (1, 3)])
def test_the_distance_of_two_samples_is_scipys_in_every_direction(n: int, m: int) -> None:
    x, y = projections(grey_images(n, "x")), projections(grey_images(m, "y", high=256))
    assert x.shape == (n, DIRECTIONS)
    oracle = np.mean([wasserstein_distance(a, b) for a, b in zip(x.mT.numpy(), y.mT.numpy(), strict=True)])
    assert sliced_wasserstein1(x, y, stream("resampled"))[0] == pytest.approx(oracle, rel=1e-12)


def test_equal_images_are_at_distance_zero_also_if_one_set_has_them_twice_or_in_another_order() -> None:
    x = grey_images(30, "x")
    for y in (x, x.flip(0), torch.cat([x, x])):
        assert distance(x, y)[0] == pytest.approx(0, abs=1e-14)
    assert distance(x, x + 1)[0] > 0


def test_brighter_images_are_as_far_as_the_shift_projects_on_the_directions() -> None:
    """W1 of a shift v is |<v, theta>|; over all directions of d dimensions its mean is |v| Gamma(d/2) / ..., a law."""
    x, d, levels = grey_images(50, "x"), 36, 32
    shift = torch.full((1, 1, 6, 6), 128 + levels, dtype=torch.uint8)
    along = (projections(shift) - projections(torch.full_like(shift, 128)))[0].abs().mean().item()
    assert distance(x + levels, x)[0] == pytest.approx(along, rel=1e-12)
    length = levels / SCALE * math.sqrt(d)
    mean = length * math.exp(math.lgamma(d / 2) - math.lgamma((d + 1) / 2)) / math.sqrt(math.pi)
    spread = math.sqrt(length**2 / d - mean**2)
    assert along == pytest.approx(mean, abs=4 * spread / math.sqrt(DIRECTIONS))


def test_projections_do_not_depend_on_how_many_are_held_at_once() -> None:
    x = grey_images(10, "x", (3, 4, 4))
    assert torch.allclose(projections(x, block=3), projections(x), atol=1e-14)


def test_the_error_of_a_distance_is_the_scatter_of_new_samples() -> None:
    """Far from the floor it is right; for perfect samples it may be too large, by 1 / sqrt(1 - 2 / pi) = 1.66."""
    y = grey_images(400, "y")
    for high, most in ((120, 1.25), (200, 1.9)):
        found = [distance(grey_images(60, f"x{k}", high=high), y) for k in range(60)]
        values, errors = np.array(found).T
        # the scatter of 60 values is known to 9 %
        assert 0.75 < errors.mean() / values.std(ddof=1) < most


def test_the_floor_of_images_is_what_perfect_samples_have_and_falls_with_their_number() -> None:
    train, test = grey_images(1600, "train"), projections(grey_images(500, "test"))
    floors = {n: perfect_sliced_wasserstein1(train, test, n) for n in (25, 100)}
    for n, (floor, se) in floors.items():
        fresh = [sliced_wasserstein1(projections(grey_images(n, f"x{k}")), test, stream("r"))[0] for k in range(20)]
        spread = math.hypot(se, np.std(fresh, ddof=1) / math.sqrt(len(fresh)))
        assert floor == pytest.approx(np.mean(fresh), abs=4 * spread)
    # as sqrt(1/n + 1/m), for normal projections
    ratio = math.sqrt((1 / 25 + 1 / 500) / (1 / 100 + 1 / 500))
    assert floors[25][0] / floors[100][0] == pytest.approx(ratio, rel=0.06)


def test_too_few_training_images_have_no_floor_and_a_single_set_no_error() -> None:
    train, test = grey_images(10, "train"), projections(grey_images(9, "test"))
    assert all(map(math.isnan, perfect_sliced_wasserstein1(train, test, 11)))
    floor, se = perfect_sliced_wasserstein1(train, test, 10)
    assert floor > 0
    assert math.isnan(se)


def test_samples_are_compared_seed_by_seed_by_the_columns_of_their_table(toy: Mixture) -> None:
    x = toy.sample(200, stream("x")).reshape(2, 100, 1)
    x[1, 0] = math.nan
    shares, truth = mode_shares(x, toy), true_shares(toy)
    whole, broken = compared(x, toy, shares, truth)
    assert compared(x[:1], toy, shares[:1], truth) == [whole]
    assert whole.keys() <= {column.name for column in TABLES["samples"]}
    assert all(math.isfinite(value) for value in whole.values())
    assert (whole["finite"], broken["finite"]) == (1.0, 0.99)
    assert math.isnan(broken["wasserstein1"])
    assert whole["share_first"] == pytest.approx(truth[0].item(), abs=4 * math.sqrt(0.3 * 0.7 / 100))
