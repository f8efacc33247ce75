"""A check of the bits of a model: the code that measures a model is run on a case whose bits are known.

The case has the model's shape, scale, SDE, epsilon and T, and images whose grey levels come from a Gaussian with
independent pixels. The exact score takes the place of the network, and the exact p(x, T) takes the place of p_noise.
Then the bits of an image are known in grey levels, without a scale, a dequantisation or an offset:

    truth = -E log2 N(k + u; m, v) + what the decoder at epsilon loses,    u ~ U(0, 1).

With r = sigma²/(alpha² v) at epsilon and q = (k + u - m)²/v, the decoder loses ½ log(1 + r) - ½ (q r² + r)/(1 + r)²
nats in each pixel, which averages to the loss that `image_elbo` states.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass

import torch
from jaxtyping import Float, UInt8
from torch import Tensor

from difftime.diffusion.score import Score
from difftime.diffusion.sde import Noise, expand, matched_noise
from difftime.images.pixel_prior import PixelPrior
from difftime.images.pixels import LEVELS
from difftime.measures.image_elbo import image_elbo, over_images
from difftime.measures.pixel_decoder import PixelDecoder
from difftime.models.foreign import ForeignModel, NoiseScore
from difftime.support.streams import stream

Measure = Callable[[ForeignModel, Score, Noise, Tensor, str], Tensor]
"""(model, score, p_noise, images, seed) to bits per dimension of each image."""

NARROWEST, WIDEST = 0.7, 20.0
"""Standard deviations of the pixels in grey levels. The narrowest is below one level, so that errors of the
dequantisation show."""


@dataclass(frozen=True)
class Check:
    """The estimate, the truth and the error in bits per dimension, and the standard error of `error` over images."""

    estimate: float
    truth: float
    error: float
    error_se: float
    images: int

    @property
    def passed(self) -> bool:
        """Whether the error is within 3 standard errors."""
        return abs(self.error) <= 3 * self.error_se


def measured_bits(model: ForeignModel, score: Score, noise: Noise, images: UInt8[Tensor, "n d"], seed: str) -> Tensor:
    """Bits per dimension of each image, as a model is measured: dequantised, ELBO with the decoder at epsilon.

    No pixel is taken for black or white beforehand: then the loss of the decoder is known in closed form.
    """
    x0 = model.scale.dequantised(images, torch.rand(images.shape, generator=stream(seed, "dequantisation")))
    elbo = image_elbo(
        score, model.sde, [noise], x0, model.T, model.epsilon, seeds=[seed], indices=torch.arange(len(x0)), pairs=32,
        end_pairs=2, batch=64, decoder=PixelDecoder(PixelPrior(0.0, 0.0), model.scale),
    )  # fmt: skip
    return model.scale.bits_per_dimension(elbo.elbo_x0[0, 0], model.d)


def check_model(
    model: ForeignModel, *, images: int = 256, seed: str = "check", measure: Measure = measured_bits
) -> Check:
    """Measure Gaussian images with their exact score on the model's clock and scale, and compare with the truth."""
    spread = torch.logspace(math.log10(NARROWEST), math.log10(WIDEST), model.d, dtype=torch.float64)
    spread = spread[torch.randperm(model.d, generator=stream(seed, "order"))]
    mean = 100 + 50 * torch.rand(model.d, dtype=torch.float64, generator=stream(seed, "mean"))
    z = torch.randn(images, model.d, dtype=torch.float64, generator=stream(seed, "images"))
    levels = (mean + spread * z).floor().clamp(0, LEVELS - 1).to(torch.uint8)

    centre = model.scale.start + model.scale.width * mean
    variance = (model.scale.width * spread) ** 2
    noise = matched_noise(model.sde, model.T, centre, variance)
    found = measure(model, exact_score(model, centre, variance), noise, levels, seed)
    truth = true_bits(model, levels, mean, spread)
    error, se = over_images(found - truth)
    return Check(found.mean().item(), truth.mean().item(), error.item(), se.item(), images)


def exact_score(model: ForeignModel, centre: Float[Tensor, " d"], variance: Float[Tensor, " d"]) -> NoiseScore:
    """The score of N(centre, diag variance), through the same code as the score of the model."""
    shape = (1, *model.shape)
    centre, variance = centre.reshape(shape), variance.reshape(shape)

    def noise(x: Tensor, t: Tensor) -> Tensor:
        alpha, sigma = expand(model.sde.alpha(t), x), expand(model.sde.sigma(t), x)
        return (sigma * (x - alpha * centre) / (alpha**2 * variance + sigma**2)).to(x.dtype)

    return NoiseScore(noise, model.sde, model.shape)


def true_bits(
    model: ForeignModel, levels: UInt8[Tensor, "n d"], mean: Float[Tensor, " d"], spread: Float[Tensor, " d"]
) -> Float[Tensor, " n"]:
    """Bits per dimension of each image under the Gaussian, in grey levels, with the decoder's loss at epsilon."""
    ratio2 = model.sde.noise_level(torch.tensor(model.epsilon, dtype=torch.float64)).exp()
    r = ratio2 / (model.scale.width * spread) ** 2
    q = ((levels.double() + 0.5 - mean) ** 2 + 1 / 12) / spread**2
    nats = 0.5 * (torch.log(2 * math.pi * spread**2) + q)
    loss = 0.5 * (torch.log1p(r) - (q * r**2 + r) / (1 + r) ** 2)
    return (nats + loss).mean(-1) / math.log(2)
