"""From x_epsilon back to a dequantised image: pixel by pixel by Bayes' formula, from what the network adds to it.

Inside a grey level a dequantised pixel is uniform. Where the level is known, as that of a black background is, x_0 has
edges, which no Gaussian around Tweedie's mean has: at epsilon = 1e-5 and grey levels of 1/128 a Gaussian decoder loses
a sixth of a bit in each such pixel, however good the network is. Zheng et al. (2023) dequantise otherwise, by a normal
density that is cut off. Here the images stay those of uniform dequantisation, and the decoder knows the edges.

With p_0 the density of a pixel (`pixel_prior`), p_s that of x_0 + s z, and s = sigma/alpha,

    p(x_0|x_epsilon) = p_0(x_0) N(x_0; y, s²) / p_s(y),     y = x_epsilon/alpha - s (z_hat - E[z | pixel]).

For y = x_epsilon/alpha that is Bayes' formula, if pixels were independent. y is moved by what the network knows beyond
the pixel itself, from its surroundings. For a p_0 that is constant the decoder is the Gaussian one. It is a density for
every network and every p_0, so the bound holds whatever they are.
"""

from __future__ import annotations

from dataclasses import dataclass

from torch import Tensor

from difftime.images.pixel_prior import PixelPrior
from difftime.images.pixels import LEVELS, SCALE, Scale


@dataclass(frozen=True)
class PixelDecoder:
    """The decoder of images on `scale`, whose pixels have the density `prior`: a `Loss` of `measures.image_elbo`."""

    prior: PixelPrior
    scale: Scale

    def __call__(self, x0: Tensor, z: Tensor, z_hat: Tensor, alpha: Tensor, sigma: Tensor) -> Tensor:
        """-log p(x_0|x_epsilon) - ½ D log(2 pi s²), in nats per image, float64: s w = y - x_0, and

        loss = ½ ||w||² + sum log p_s(y) - log p_0(x_0).
        """
        width = self.scale.width * SCALE
        middle = self.scale.start + self.scale.width * LEVELS / 2
        pixel, s = (x0.double() - middle) / width, (sigma / alpha / width).double()
        w = z - z_hat + self.prior.noise(pixel + s * z, s.new_ones(()), s)
        log_ratio = self.prior.noisy_log_density(pixel + s * w, s) - self.prior.log_density(pixel)
        return (0.5 * w.square() + log_ratio).sum(-1)
