"""From pixels to densities: nothing is lost, and the bracket holds."""

from __future__ import annotations

import math
from itertools import pairwise

import numpy as np
import pytest
import torch
from torch import Tensor
from torch.distributions import MultivariateNormal, Normal, kl_divergence

from difftime.diffusion.mixture import Mixture, nodes
from difftime.diffusion.p_noise import kl_bracket
from difftime.diffusion.sde import SDE, VE, VP, Gaussian, matched_noise, standard_noise
from difftime.images.pixels import bits_per_dimension, flip, marginals, mean_variance, moments, scaled
from difftime.images.readers.mnist5k import read as mnist5k


def pixels(*shape: int, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).integers(0, 256, shape, dtype=np.uint8)


LEVELS = torch.arange(256, dtype=torch.uint8)


def test_a_pixel_is_spread_over_its_own_cell() -> None:
    lowest, highest = scaled(LEVELS, torch.zeros(256)), scaled(LEVELS, torch.full((256,), 1 - 2**-10))
    assert lowest.dtype == torch.float32
    assert torch.equal(lowest, LEVELS.double().div(128).sub(1).float())
    assert (highest < lowest + 1 / 128).all()
    assert (lowest[0].item(), highest[-1].item()) == (-1, pytest.approx(1, abs=1e-5))


def test_the_pixel_comes_back_from_its_dequantised_value() -> None:
    u = torch.rand(256, generator=torch.Generator().manual_seed(0)) * (1 - 2**-15)
    assert torch.equal(((scaled(LEVELS, u) + 1) * 128).floor().to(torch.uint8), LEVELS)


def test_scaled_values_stay_in_range_for_every_u_below_1() -> None:
    assert scaled(LEVELS, torch.full((256,), 1 - 2**-24)).max().item() <= 1


def test_only_images_whose_bit_is_set_are_mirrored_left_to_right() -> None:
    x = torch.arange(2 * 3 * 2 * 4).reshape(2, 3, 2, 4).float()
    flipped = flip(x, torch.tensor([False, True]))
    assert torch.equal(flipped[0], x[0])
    assert torch.equal(flipped[1, :, :, 0], x[1, :, :, 3])


@pytest.mark.parametrize("d", [1, 784, 3072])
def test_the_uniform_density_costs_8_bits(d: int) -> None:
    assert bits_per_dimension(-d * math.log(2), d) == pytest.approx(8, abs=1e-12)


@pytest.mark.parametrize("d", [1, 784, 3072])
def test_a_density_within_one_cell_costs_nothing(d: int) -> None:
    assert bits_per_dimension(d * math.log(128), d) == pytest.approx(0, abs=1e-12)


def test_the_bits_bound_the_code_length_of_the_pixels() -> None:
    """E -log2 p(x) + 7 >= -log2 P(k), with P(k) the mass of the cell, and equal where p is flat in it."""
    p = Normal(torch.tensor(0.1).double(), torch.tensor(0.02).double())
    k = torch.arange(132, 150, dtype=torch.uint8)
    edges = k.double() / 128 - 1
    u = (torch.arange(1000).double() + 0.5) / 1000
    bits = bits_per_dimension(p.log_prob(edges[:, None] + u / 128), 1).mean(1)
    mass = p.cdf(edges + 1 / 128) - p.cdf(edges)
    assert (bits >= -mass.log2() - 1e-6).all()
    flat = (edges - 0.1).abs().argmin()
    assert (bits[flat] + mass[flat].log2()).item() == pytest.approx(0, abs=0.02)


# Moments


def uint8(*shape: int, seed: int = 0) -> Tensor:
    return torch.from_numpy(pixels(*shape, seed=seed))


def test_moments_are_those_of_dequantised_samples() -> None:
    k = uint8(30, 1, 2, 2) // 64 * 3
    draws = 4000
    u = torch.rand(draws, *k.shape, generator=torch.Generator().manual_seed(0))
    x = scaled(k.expand(draws, -1, -1, -1, -1), u).double().reshape(draws, 30, 4)
    found = moments(k)
    spread = x - found.mean
    products = torch.einsum("ani,anj->aij", spread, spread) / 30
    error = products.std(0) / math.sqrt(draws)
    assert ((x.mean(1).mean(0) - found.mean).abs() < 4.5 * x.mean(1).std(0) / math.sqrt(draws)).all()
    assert ((products.mean(0) - found.covariance).abs() < 4.5 * error).all()


def test_the_mean_variance_is_that_of_the_moments() -> None:
    k = uint8(100, 3, 4, 4)
    assert mean_variance(k, block=7) == pytest.approx(moments(k).covariance.diagonal().mean().item(), rel=1e-12)


def test_moments_do_not_depend_on_the_block_to_the_bit() -> None:
    k = uint8(100, 3, 4, 4)
    for block in (1, 7, 100, 1000):
        assert torch.equal(moments(k, block).covariance, moments(k).covariance)
        assert torch.equal(moments(k, block).mean, moments(k).mean)


def test_a_constant_pixel_has_the_variance_of_its_cell_alone() -> None:
    k = uint8(1001, 1, 1, 2)
    k[..., 0] = 253
    mean, covariance = moments(k)
    assert mean[0].item() == (253.5 / 128) - 1
    assert covariance[0].tolist() == [1 / 12 / 128**2, 0]


def test_moments_agree_with_numpy() -> None:
    k = pixels(500, 1, 3, 3)
    mean, covariance = moments(torch.from_numpy(k))
    x = (k.reshape(500, 9) + 0.5) / 128 - 1
    assert np.allclose(mean, x.mean(0), atol=1e-14)
    assert np.allclose(covariance, np.cov(x.T, bias=True) + np.eye(9) / 12 / 128**2, atol=1e-14)


# The bracket


def test_the_kl_of_a_mixture_lies_within_the_bracket(sde: SDE, toy: Mixture) -> None:
    for T in (0.05, 0.2, 0.6, 1.0):
        p = toy.diffused(sde, T)
        at = nodes(p, 0, torch.Generator())
        for noise in (standard_noise(sde, T, (1,)), matched_noise(sde, T, toy.mean, toy.variance)):
            kl, _ = at.expectation(p.log_prob(at.x) - noise.log_prob(at.x))
            lower, upper = kl_bracket(toy.mean, toy.covariance, sde, T, noise)
            assert lower - 1e-9 <= kl.item() <= upper + 1e-9
            assert upper > 0


def covariance(d: int) -> Tensor:
    root = torch.randn(d, d, dtype=torch.float64, generator=torch.Generator().manual_seed(3))
    return 0.1 * root @ root.mT


def test_the_lower_end_is_exact_for_gaussian_data(sde: SDE) -> None:
    mean, C = torch.linspace(-1, 1, 6).double(), covariance(6)
    for T in (0.1, 0.5, 1.0):
        t = torch.tensor(T, dtype=torch.float64)
        x_T = MultivariateNormal(sde.alpha(t) * mean, sde.alpha(t) ** 2 * C + sde.variance(t) * torch.eye(6).double())
        noise = Gaussian(torch.full((1, 2, 3), 0.2).double(), torch.linspace(0.5, 2, 6).double().reshape(1, 2, 3))
        oracle = MultivariateNormal(noise.mean.flatten(), torch.diag(noise.variance.flatten()))
        assert kl_bracket(mean, C, sde, T, noise).lower == pytest.approx(kl_divergence(x_T, oracle).item(), rel=1e-9)


def test_the_upper_end_is_the_mean_kl_from_the_data_points(sde: SDE) -> None:
    x0 = torch.randn(50, 4, dtype=torch.float64, generator=torch.Generator().manual_seed(4)) * 0.3
    C = torch.cov(x0.mT, correction=0)
    for T in (0.1, 0.5, 1.0):
        t = torch.tensor(T, dtype=torch.float64)
        noise = Gaussian(torch.linspace(0, 1, 4).double(), torch.linspace(0.5, 2, 4).double())
        kernel = Normal(sde.alpha(t) * x0, sde.sigma(t).expand(50, 4))
        each = kl_divergence(kernel, Normal(noise.mean, noise.variance.sqrt())).sum(1)
        assert kl_bracket(x0.mean(0), C, sde, T, noise).upper == pytest.approx(each.mean().item(), rel=1e-9)


def test_the_bracket_closes_for_a_single_data_point(sde: SDE) -> None:
    mean, C = torch.linspace(-1, 1, 6).double(), torch.zeros(6, 6).double()
    for T in (0.1, 0.5, 1.0):
        lower, upper = kl_bracket(mean, C, sde, T, standard_noise(sde, T, (6,)))
        assert 0 < lower == upper


@pytest.mark.parametrize("sde", [VP(), VE.exponential(25.0)])
def test_both_ends_fall_with_T(sde: SDE) -> None:
    data = mnist5k()
    m = moments(data.train[::8])
    times = [0.05, 0.1, 0.2, 0.4, 0.6, 0.8, 1.0, 1.5, 2.0]
    brackets = [kl_bracket(*m, sde, T, standard_noise(sde, T, data.shape)) for T in times]
    for earlier, later in pairwise(brackets):
        assert later.lower < earlier.lower
        assert later.upper < earlier.upper
        assert 0 <= later.lower <= later.upper


def test_5000_images_have_the_bracket_of_all_of_mnist() -> None:
    """Bits per dimension of the 60,000 images, each moment that of dequantised data on [-1, 1]; VP, p_noise N(0, I)."""
    known = {0.2: (0.6035, 0.7359), 0.4: (0.1138, 0.1454), 0.6: (0.0128, 0.0176), 0.8: (0.00075, 0.00105)}
    data = mnist5k()
    m = moments(data.train)
    for T, bracket in known.items():
        found = kl_bracket(*m, VP(), T, standard_noise(VP(), T, data.shape))
        assert [nats / (data.d * math.log(2)) for nats in found] == pytest.approx(bracket, rel=0.01)


@pytest.mark.parametrize("n", [3, 1000])
def test_the_marginals_are_the_diagonal_of_the_moments_to_the_bit(n: int) -> None:
    images = torch.from_numpy(pixels(n, 3, 5, 4))
    images[:, 0, 0] = 200  # constant
    mean, covariance = moments(images)
    for block in (7, 2048):
        found = marginals(images, block)
        assert torch.equal(found.mean, mean)
        assert torch.equal(found.variance, covariance.diagonal())
