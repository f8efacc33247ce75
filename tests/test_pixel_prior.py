"""The noise that a pixel by itself tells of is exact for its prior, and leads back from anywhere."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from scipy.integrate import quad
from scipy.stats import norm
from torch import Tensor

from difftime.diffusion.score import NetScore
from difftime.diffusion.sde import SDE
from difftime.images.pixel_prior import GREY, OUTSIDE, PixelPrior
from difftime.support.streams import stream

PRIOR = PixelPrior(black=0.7, white=0.1)


def integrated(x: float, alpha: float, sigma: float) -> float:
    """E[z | x_t] by quadrature over x_0, from nothing but the prior's density."""
    parts = [(0.7, -1.0, GREY - 1), (0.1, 1 - GREY, 1.0), (0.2, -1.0, 1.0)]
    y, s = x / alpha, sigma / alpha
    moments = []
    for power in (0, 1):
        total = 0.0
        for share, low, high in parts:
            a, b = max(low, y - 12 * s), min(high, y + 12 * s)
            if a < b:
                value = quad(lambda u, k=power: ((y - u) / s) ** k * norm.pdf((y - u) / s) / s, a, b, epsabs=1e-13)[0]
                total += (1 - OUTSIDE) * share / (high - low) * value
        spread = np.sqrt(1 + s**2)
        total += OUTSIDE * norm.pdf(y / spread) / spread * (s * y / spread**2 if power else 1)
        moments.append(total)
    return moments[1] / moments[0]


@pytest.mark.parametrize("sigma", [1e-3, 5e-3, 0.05, 0.5, 0.99])
def test_it_is_the_mean_of_the_noise_given_the_pixel(sigma: float) -> None:
    alpha = (1 - sigma**2) ** 0.5
    x = alpha * torch.tensor([-1.0, -0.995, -0.9, 0.0, 0.3, 0.994, 1.0], dtype=torch.float64)
    x = torch.cat([x, x + 2 * sigma, x - 2 * sigma])
    found = PRIOR.noise(x, torch.tensor(alpha, dtype=torch.float64), torch.tensor(sigma, dtype=torch.float64))
    expected = [integrated(value, alpha, sigma) for value in x.tolist()]
    assert found.numpy() == pytest.approx(expected, rel=1e-7, abs=1e-7)


def by_logarithms(x: float, alpha: float, sigma: float) -> float:
    """E[z | x_t] at much noise, by Gauss-Legendre nodes over x_0 and the logarithms of their weights."""
    nodes, weights = np.polynomial.legendre.leggauss(40)
    y, s = x / alpha, sigma / alpha
    spread = np.sqrt(1 + s**2)
    logs, noise = [np.log(OUTSIDE) + norm.logpdf(y / spread) - np.log(spread)], [s * y / spread**2]
    for share, low, high in [(0.7, -1.0, GREY - 1), (0.1, 1 - GREY, 1.0), (0.2, -1.0, 1.0)]:
        z = (y - ((high - low) * nodes + high + low) / 2) / s
        logs += list(np.log((1 - OUTSIDE) * share * weights / 2 / s) + norm.logpdf(z))
        noise += list(z)
    return np.average(noise, weights=np.exp(np.array(logs) - np.max(logs)))


@pytest.mark.parametrize("sign", [-1, 1])
def test_it_has_its_digits_in_both_tails(sign: int) -> None:
    """Near T = 1 the levels are narrow beside the noise, and their shares differences of nearly equal numbers."""
    alpha = 0.0066
    sigma = (1 - alpha**2) ** 0.5
    x = sign * torch.tensor([1.0, 5.0, 6.0, 7.0, 8.0, 9.0, 12.0, 25.0], dtype=torch.float64)
    found = PRIOR.noise(x, torch.tensor(alpha, dtype=torch.float64), torch.tensor(sigma, dtype=torch.float64))
    assert found.numpy() == pytest.approx([by_logarithms(value, alpha, sigma) for value in x.tolist()], rel=1e-8)


@pytest.mark.parametrize("x", [29.99, 30.01, 80.0])
def test_where_every_density_underflows_it_is_that_of_the_wide_part(x: float) -> None:
    position = torch.tensor([x, -x], dtype=torch.float64, requires_grad=True)
    noise = PRIOR.noise(position, torch.tensor(0.0066), torch.tensor(0.99998))
    (slope,) = torch.autograd.grad(noise.sum(), position)
    assert noise.tolist() == pytest.approx([x, -x], rel=1e-2)
    assert slope.tolist() == pytest.approx([1, 1], rel=1e-2)


def test_it_is_finite_far_out_and_leads_back() -> None:
    """Also where the shares of all levels underflow, and with its slope."""
    x = torch.tensor([-30.0, -3.0, 3.0, 30.0], dtype=torch.float64, requires_grad=True)
    noise = PRIOR.noise(x, torch.tensor(1.0), torch.tensor(1e-3))
    (slope,) = torch.autograd.grad(noise.sum(), x)
    assert (noise.sign() == x.sign()).all()
    assert noise.isfinite().all()
    assert slope.isfinite().all()


def test_a_new_network_gives_the_score_of_the_prior(sde: SDE) -> None:
    """For an output of 0: s(x, t) = d/dx log p(x, t)."""

    class Nothing(torch.nn.Module):
        def forward(self, x: Tensor, t: Tensor) -> Tensor:
            return torch.zeros_like(x)

    score = NetScore(Nothing(), sde, "noise", scale_input=False, data_variance=1.0, prior=PRIOR)
    t = torch.tensor([0.01, 0.3, 1.0], dtype=torch.float64)
    x = torch.randn(1, 3, 5, dtype=torch.float64, generator=stream("x"))
    s = score(x, t.expand(1, 3))
    for k, (alpha, sigma) in enumerate(zip(sde.alpha(t).tolist(), sde.sigma(t).tolist(), strict=True)):
        expected = [-integrated(value, alpha, sigma) / sigma for value in x[0, k].tolist()]
        assert s[0, k].numpy() == pytest.approx(expected, rel=1e-6, abs=1e-7)


def test_the_network_is_asked_for_what_the_prior_leaves(sde: SDE) -> None:
    """The squared error of its output is that of the noise."""
    net = torch.nn.Module()
    net.forward = lambda x, t: torch.sin(x) * t[..., None]
    score = NetScore(net, sde, "noise", scale_input=False, data_variance=1.0, prior=PRIOR)
    x0, z = torch.rand(2, 3, 5, 2, dtype=torch.float64, generator=stream("x"))
    t = torch.rand(3, 5, dtype=torch.float64, generator=stream("t")) + 0.01
    x = sde.perturb(x0, t, z)
    target, factor = score.regression(x, z, t)
    error = net.forward(x.float(), t.float()) - target
    z_hat = -sde.sigma(t)[..., None] * score(x, t)
    assert torch.allclose(factor * error.square().sum(-1), (z_hat - z).square().sum(-1), rtol=1e-5)


def test_the_shares_are_those_of_the_images() -> None:
    images = torch.tensor([0, 0, 0, 255, 1, 254, 7, 9], dtype=torch.uint8).view(2, 1, 2, 2)
    assert PixelPrior.of(images) == PixelPrior(black=3 / 8, white=1 / 8)


@pytest.mark.parametrize("level", [0, 9, 255])
def test_images_of_one_level_have_a_finite_estimate(level: int) -> None:
    prior = PixelPrior.of(torch.full((2, 1, 2, 2), level, dtype=torch.uint8))
    x = torch.linspace(-2, 2, 9, dtype=torch.float64)
    assert prior.noise(x, torch.tensor(1.0), torch.tensor(1e-3)).isfinite().all()
