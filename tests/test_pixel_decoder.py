"""The decoder of pixels is a density, loses nothing of pixels of its prior, and knows the edges of a grey level."""

from __future__ import annotations

import math
from itertools import pairwise

import pytest
import torch
from scipy.integrate import quad
from scipy.stats import norm, truncnorm
from torch import Tensor

from difftime.diffusion.score import Score
from difftime.diffusion.sde import VP, standard_noise
from difftime.images.pixel_prior import GREY, OUTSIDE, PixelPrior
from difftime.images.pixels import CENTRED, SCALE, UNIT, Scale
from difftime.measures.image_elbo import Loss, gaussian, image_elbo, over_images
from difftime.measures.pixel_decoder import PixelDecoder
from difftime.support.streams import stream

PRIOR = PixelPrior(black=0.7, white=0.1)
ONE = torch.ones((), dtype=torch.float64)


def density(x: float) -> float:
    """The prior's, from its definition."""
    inside = 0.2 / 2 * (abs(x) <= 1) + 0.7 / GREY * (-1 <= x <= GREY - 1) + 0.1 / GREY * (1 - GREY <= x <= 1)
    return OUTSIDE * norm.pdf(x) + (1 - OUTSIDE) * inside


@pytest.mark.parametrize("x", [-3.0, -0.999, -0.5, 0.3, 0.9999, 1.2])
def test_the_density_of_a_pixel_is_the_prior_s(x: float) -> None:
    assert PRIOR.log_density(torch.tensor([x], dtype=torch.float64)).exp().item() == pytest.approx(
        density(x), rel=1e-12
    )


@pytest.mark.parametrize("s", [1e-3, 0.02, 1.0, 30.0])
@pytest.mark.parametrize("y", [-1.003, -0.995, 0.0, 0.994, 1.5])
def test_the_density_of_a_noisy_pixel_is_the_convolution(s: float, y: float) -> None:
    edges = [-1.0, GREY - 1, 1 - GREY, 1.0]
    total = OUTSIDE * norm.pdf(y, scale=math.sqrt(1 + s * s))
    for low, high in pairwise(edges):
        height = density((low + high) / 2) - OUTSIDE * norm.pdf((low + high) / 2)
        total += height * (norm.cdf(high, y, s) - norm.cdf(low, y, s))
    found = PRIOR.noisy_log_density(torch.tensor([y], dtype=torch.float64), s * ONE).exp().item()
    assert found == pytest.approx(total, rel=1e-7)


def test_the_slope_of_the_noisy_density_is_the_mean_of_the_noise() -> None:
    """E[z | y] = -s d/dy log p_s(y)."""
    y = torch.linspace(-1.01, 1.01, 101, dtype=torch.float64).requires_grad_()
    s = 3e-3 * ONE
    (slope,) = torch.autograd.grad(PRIOR.noisy_log_density(y, s).sum(), y)
    assert torch.allclose(-s * slope, PRIOR.noise(y, ONE, s), atol=1e-8)


def test_far_out_the_noisy_density_is_that_of_the_share_outside() -> None:
    y = torch.tensor([-1e6, 1e6], dtype=torch.float64)
    expected = math.log(OUTSIDE) - 0.5 * 1e12 - 0.5 * math.log(2 * math.pi)
    assert PRIOR.noisy_log_density(y, 1e-6 * ONE).tolist() == pytest.approx([expected] * 2, rel=1e-9)


@pytest.mark.parametrize("scale", [CENTRED, UNIT, Scale.at_centres(-1.0, 1.0)])
@pytest.mark.parametrize("z_hat", [-2.0, 0.0, 0.7])
@pytest.mark.parametrize("place", [0.0, 0.6, 200.0, 255.9])
def test_it_is_a_density_whatever_the_network_says(scale: Scale, z_hat: float, place: float) -> None:
    """∫ p(x_0|x_epsilon) dx_0 = 1 for every x_epsilon and every estimate of its noise."""
    decoder, alpha, sigma = PixelDecoder(PRIOR, scale), 0.999 * ONE, 0.4 * scale.width * ONE
    s = (sigma / alpha).item()
    x_epsilon = alpha * (scale.start + scale.width * place)

    def p(x0: float) -> float:
        x = torch.tensor([[x0]], dtype=torch.float64)
        loss = decoder(x, (x_epsilon - alpha * x) / sigma, torch.tensor([[z_hat]]).double(), alpha, sigma)
        return math.exp(-loss.item()) / math.sqrt(2 * math.pi * s * s)

    edges = [scale.start + scale.width * k for k in (-15, 0, 1, 255, 256, 271)]
    middle = (x_epsilon / alpha).item()
    parts = [quad(p, a, b, points=[middle], limit=400)[0] for a, b in pairwise(edges)]
    assert sum(parts) == pytest.approx(1.0, abs=1e-6)


def test_of_grey_pixels_it_is_the_gaussian_decoder() -> None:
    """Far from black and white the prior is as good as constant over the noise at epsilon."""
    x0, z, z_hat = torch.randn(3, 5, 7, dtype=torch.float64, generator=stream("x"))
    x0 = 0.5 * x0.tanh()
    sigma = 1e-3 * ONE
    own = PixelDecoder(PRIOR, CENTRED)(x0, z, z_hat, ONE, sigma)
    assert torch.allclose(own, gaussian(x0, z, z_hat, ONE, sigma), atol=1e-4)


def test_it_does_not_depend_on_the_scale_of_the_pixels() -> None:
    k = torch.randint(256, (4, 9), dtype=torch.uint8, generator=stream("k"))
    k[:, :4] = 0
    u, z, z_hat = (torch.rand(4, 9, dtype=torch.float64, generator=stream(name)) for name in ("u", "z", "z_hat"))
    losses = []
    for scale in (CENTRED, UNIT, Scale.at_centres(0.0, 1.0)):
        x0 = scale.start + scale.width * (k.double() + u)
        losses.append(PixelDecoder(PRIOR, scale)(x0, z, z_hat, 0.9 * ONE, 0.9 * 0.13 * scale.width * ONE))
    assert torch.allclose(losses[0], losses[1])
    assert torch.allclose(losses[0], losses[2])


def pixels(prior: PixelPrior, n: int, d: int) -> Tensor:
    """Pixels of the prior's own density."""
    u, place, normal = (torch.rand(n, d, dtype=torch.float64, generator=stream(name)) for name in ("u", "place", "n"))
    x0 = torch.where(
        u < prior.black, -1 + GREY * place, torch.where(u < prior.black + prior.white, 1 - GREY * place, 2 * place - 1)
    )
    return torch.where(normal < OUTSIDE, torch.randn(n, d, dtype=torch.float64, generator=stream("outside")), x0)


def exact_score(prior: PixelPrior, sde: VP) -> Score:
    def score(x: Tensor, t: Tensor) -> Tensor:
        alpha, sigma = sde.alpha(t)[..., None], sde.sigma(t)[..., None]
        return -prior.noise(x, alpha, sigma) / sigma

    return score


def measured(score: Score, x0: Tensor, T: float, decoder: Loss, *, seeds: int = 1, batch: int | None = None) -> Tensor:
    """log q(x_0) [seeds, n] under the standard p_noise of VP, at most."""
    n, d = x0.shape
    return image_elbo(
        score, VP(), [standard_noise(VP(), T, (d,))], x0, T, 1e-5, seeds=[str(k) for k in range(seeds)],
        indices=torch.arange(n), pairs=24, end_pairs=2, batch=batch or n, decoder=decoder,
    ).elbo_x0[0]  # fmt: skip


def test_with_the_exact_score_of_independent_pixels_the_bound_is_tight_and_that_of_a_gaussian_decoder_is_not() -> None:
    """log q(x_0) = sum log p_0(x_0): no part of the chain from x_0 to x_T loses anything."""
    d = 16
    x0, decoder = pixels(PRIOR, 1500, d), PixelDecoder(PRIOR, CENTRED)
    truth = PRIOR.log_density(x0).sum(-1)
    lost = [
        truth - measured(exact_score(PRIOR, VP()), x0, 1.0, loss)[0] for loss in (decoder.by_pixels, decoder, gaussian)
    ]
    tight, own, usual = map(over_images, lost)
    kl = d * 5e-5  # at most: of p(x, 1), whose alpha is 0.0066, from the standard p_noise
    assert abs(tight.mean) < 4 * tight.se + kl
    assert tight.se < 0.02 * d
    # 0.8 of the pixels have edges, and each edge costs a Gaussian some 0.4 sigma/width nats
    assert usual.mean > 4 * usual.se + 0.05 * d
    assert 0 < own.mean - tight.mean <= math.log(2)


def dark(lowest: float, highest: float, n: int, d: int) -> tuple[Tensor, Score]:
    """Pixels that are uniform on some levels, and the exact score of them."""
    low, high = -1 + GREY * lowest, -1 + GREY * highest

    def score(x: Tensor, t: Tensor) -> Tensor:
        alpha, sigma = VP().alpha(t)[..., None], VP().sigma(t)[..., None]
        s, y = (sigma / alpha).expand(x.shape).numpy(), (x / alpha).numpy()
        # E[z | y] of a uniform x_0, by the moments of a normal density that is cut off
        mean = truncnorm.mean((low - y) / s, (high - y) / s, y, s)
        return torch.from_numpy((mean - y) / s) / sigma

    return low + (high - low) * torch.rand(n, d, dtype=torch.float64, generator=stream("dark")), score


@pytest.mark.parametrize("highest", [2.0, 4.0])
def test_pixels_that_are_dark_but_not_black_cost_at_most_a_nat_an_image(highest: float) -> None:
    """The prior takes them for black, and so would the decoder without its Gaussian part."""
    x0, score = dark(1.0, highest, 50, 8)
    decoder = PixelDecoder(PRIOR, CENTRED)
    by_pixels, both, usual = (measured(score, x0, 0.05, loss)[0] for loss in (decoder.by_pixels, decoder, gaussian))
    assert by_pixels.mean() < usual.mean() - 1
    assert (both >= usual - math.log(2) - 1e-9).all()


def test_where_all_pixels_are_black_or_white_nothing_fails() -> None:
    """The shares of some of them add up to more than 1 by rounding, which leaves less than nothing for grey."""
    for black in range(1001):
        prior = PixelPrior(black / 1000, (1000 - black) / 1000)
        assert all(height >= 0 for height, *_ in prior.parts)
        assert prior.log_density(torch.tensor([-1.0, 0.0, 1.0])).isfinite().all()


@pytest.mark.parametrize("scale", [CENTRED, UNIT, Scale.at_centres(-1.0, 1.0), Scale.at_centres(0.0, 1.0)])
def test_a_float32_at_the_edge_of_black_or_white_is_black_or_white(scale: Scale) -> None:
    u = torch.tensor([0.0, 2**-24, 1 - 2**-24, 0.5])
    x0 = scale.dequantised(torch.tensor([[0] * 4, [255] * 4], dtype=torch.uint8), u.expand(2, 4)).double()
    decoder, z = PixelDecoder(PRIOR, scale), torch.zeros(2, 4, dtype=torch.float64)
    sigma = 1e-3 * scale.width * SCALE * ONE
    loss = torch.stack([decoder.by_pixels(*(part[:, [k]] for part in (x0, z, z)), ONE, sigma) for k in range(4)])
    assert (loss < 3).all()  # a pixel that is taken for grey loses 5 nats, or 7, more


def test_models_and_batches_do_not_depend_on_each_other() -> None:
    x0, score = pixels(PRIOR, 7, 16), exact_score(PRIOR, VP())
    decoder = PixelDecoder(PRIOR, CENTRED)
    whole = measured(score, x0, 0.5, decoder, seeds=2)
    assert torch.allclose(measured(score, x0, 0.5, decoder, seeds=2, batch=3), whole, rtol=1e-12)
    assert torch.equal(measured(score, x0, 0.5, decoder)[0], whole[0])
    assert not torch.equal(whole[0], whole[1])


def test_a_network_that_fails_loses_much_but_not_an_infinity_of_the_wrong_sign() -> None:
    x0, z = torch.full((1, 3), -0.999).double(), torch.zeros(1, 3).double()
    loss = PixelDecoder(PRIOR, CENTRED)(x0, z, torch.full((1, 3), 1e8).double(), ONE, 1e-3 * ONE)
    assert loss.isfinite().all()
    assert loss.item() > 1e6
    assert PixelDecoder(PRIOR, CENTRED)(x0, z, torch.full((1, 3), math.nan), ONE, 1e-3 * ONE).isnan().all()
