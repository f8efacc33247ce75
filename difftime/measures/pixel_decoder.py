"""From x_epsilon back to a dequantised image, by a density that knows where black and white end.

Inside a grey level a dequantised pixel is uniform. Where the level is known, as that of a black background is, x_0 has
edges, and a Gaussian around Tweedie's mean has none: at epsilon = 1e-5, and grey levels 1/128 wide, it loses a sixth of
a bit in each such pixel, however good the network is. Others decode grey levels, not dequantised pixels (Ho et al.,
2020; Kingma et al., 2021), or dequantise by a normal density that is cut off (Zheng et al., 2023). Here the images stay
those of uniform dequantisation.

With p_0 the density of a pixel (`pixel_prior`), p_s that of x_0 + s z, and s = sigma/alpha,

    p(x_0|x_epsilon) = p_0(x_0) N(x_0; y, s²) / p_s(y),     y = x_epsilon/alpha - s (z_hat - E[z | pixel]).

For y = x_epsilon/alpha that is Bayes' formula, if pixels were independent. y is moved by what the network knows beyond
the pixel itself, from its surroundings. For a p_0 that is constant it is the Gaussian.

Where a pixel is dark but not black, p_0 takes it for black and loses. So the decoder is the mean of this density of the
image and of the Gaussian one. It is behind the better of the two by at most log 2 nats per image. It is a density for
every network and every p_0, so the bound holds whatever they are.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from torch import Tensor

from difftime.images.mapped import Images
from difftime.images.pixel_prior import PixelPrior
from difftime.images.pixels import LEVELS, SCALE, Scale
from difftime.measures.image_elbo import gaussian


@dataclass(frozen=True)
class PixelDecoder:
    """The decoder of images on `scale`, whose pixels have the density `prior`: a `Loss` of `measures.image_elbo`."""

    prior: PixelPrior
    scale: Scale

    @classmethod
    def of(cls, images: Images, scale: Scale) -> PixelDecoder:
        """By the shares of black and white pixels of training images."""
        return cls(PixelPrior.of(images), scale)

    def __call__(self, x0: Tensor, z: Tensor, z_hat: Tensor, alpha: Tensor, sigma: Tensor) -> Tensor:
        """-log p(x_0|x_epsilon) - ½ D log(2 pi s²), in nats per image, float64."""
        own, usual = self.by_pixels(x0, z, z_hat, alpha, sigma), gaussian(x0, z, z_hat, alpha, sigma).double()
        return math.log(2) - torch.logaddexp(-own, -usual)

    def by_pixels(self, x0: Tensor, z: Tensor, z_hat: Tensor, alpha: Tensor, sigma: Tensor) -> Tensor:
        """The same of the first of the two densities. With s w = y - x_0 it is

        ½ ||w||² + sum log p_s(y) - log p_0(x_0).
        """
        width = self.scale.width * SCALE
        middle = self.scale.start + self.scale.width * LEVELS / 2
        pixel, s = (x0.double() - middle) / width, (sigma / alpha / width).double()
        w = z - z_hat + self.prior.noise(pixel + s * z, s.new_ones(()), s)
        log_ratio = self.prior.noisy_log_density(pixel + s * w, s) - self.prior.log_density(pixel)
        return (0.5 * w.square() + log_ratio).sum(-1)
