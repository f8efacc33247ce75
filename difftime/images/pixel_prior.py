"""What a noisy pixel says of its noise by itself, without its neighbours: where a network on images may start from.

A pixel is black, white, or anything in between:

    p(x_0) = w_0 U[-1, -1 + h] + w_1 U[1 - h, 1] + w_2 U[-1, 1],     h = 1/128, a grey level of dequantised images.

Under it p(x, t) is known, so the estimate of the noise is too: E[z | x_t] = -sigma_t d/dx log p(x, t). At little noise,
where most bits of digits are, it is nearly all that a network has to return. Of a part in a thousand p(x_0) is N(0, 1),
which leads back what an SDE or ODE solver takes far out of the range.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Tensor

from difftime.images.mapped import Images, blocks
from difftime.images.pixels import LEVELS, SCALE

GREY = 1 / SCALE
"""The width of a grey level."""
OUTSIDE = 1e-3
"""The share of N(0, 1)."""
ROUNDING = 2**-22
"""Of dequantised pixels, float32 of about 1 on any scale: 1/32,000 of a grey level."""
UNDERFLOW = 30
"""Diffused standard deviations of N(0, 1) beyond which no density is computed: a pixel there is taken for its own."""


def _normal_density(u: Tensor) -> Tensor:
    return torch.exp(-0.5 * u * u) / math.sqrt(2 * math.pi)


def _normal_mass(a: Tensor, b: Tensor) -> Tensor:
    """P(a < N(0, 1) < b), with its digits in both tails, which `torch.special.ndtr` has not."""
    mirrored = a > 0
    near, far = torch.where(mirrored, a, -b), torch.where(mirrored, b, -a)
    return 0.5 * (torch.special.erfc(near / math.sqrt(2)) - torch.special.erfc(far / math.sqrt(2)))


def _with_outside(density: Tensor, y: Tensor, spread: Tensor) -> Tensor:
    """log of the density and that of the share outside, which must not underflow: far out it is all there is."""
    u = y / spread
    outside = math.log(OUTSIDE / math.sqrt(2 * math.pi)) - 0.5 * u * u - spread.log()
    return torch.logaddexp(density.log(), outside)


@dataclass(frozen=True)
class PixelPrior:
    """`black` and `white`: the shares of pixels of the lowest and of the highest level."""

    black: float
    white: float

    @classmethod
    def of(cls, images: Images) -> PixelPrior:
        """From all pixels of all images."""
        counts = [
            [torch.count_nonzero(part == level).item() for level in (0, LEVELS - 1)] for part in blocks(images, 1024)
        ]
        return cls(*(sum(level) / math.prod(images.shape) for level in zip(*counts, strict=True)))

    @property
    def parts(self) -> tuple[tuple[float, float, float], ...]:
        """The density, and where it begins and ends, of black, of white and of any level."""
        grey = max(0.0, 1 - self.black - self.white)  # where all are black or white, rounding may leave less than 0
        places = ((self.black, -1.0, GREY - 1), (self.white, 1 - GREY, 1.0), (grey, -1.0, 1.0))
        return tuple(((1 - OUTSIDE) * share / (high - low), low, high) for share, low, high in places)

    def log_density(self, x0: Float[Tensor, "*points d"]) -> Float[Tensor, "*points d"]:
        """log p(x_0), pixel by pixel, in float64; what is outside of an edge by rounding is at the edge."""
        x0 = x0.double()
        inside = [
            height * ((low - ROUNDING <= x0) & (x0 <= high + ROUNDING)).double() for height, low, high in self.parts
        ]
        return _with_outside(sum(inside, torch.zeros(())), x0, x0.new_ones(()))

    def noisy_log_density(self, y: Float[Tensor, "*points d"], s: Tensor) -> Float[Tensor, "*points d"]:
        """log of the density of x_0 + s z, z ~ N(0, 1) and s > 0, pixel by pixel, in float64."""
        y = y.double()
        inside = [height * _normal_mass((low - y) / s, (high - y) / s) for height, low, high in self.parts]
        return _with_outside(sum(inside, torch.zeros(())), y, (1 + s * s).sqrt())

    def noise(self, x: Float[Tensor, "*points d"], alpha: Tensor, sigma: Tensor) -> Float[Tensor, "*points d"]:
        """E[z | x_t], pixel by pixel, in float64: a level takes differences of nearly equal numbers.

        `alpha` and `sigma` multiply x.
        """
        position, s = x.double() / alpha, sigma / alpha
        spread = (1 + s * s).sqrt()
        far = position.abs() > UNDERFLOW * spread
        y = torch.where(far, 0.0, position)  # not the far ones: the gradient of 0/0 would spoil theirs
        density = OUTSIDE * _normal_density(y / spread) / spread
        fall = density * s * y / spread**2  # -s d/dy of the density
        for height, low, high in self.parts:
            a, b = (low - y) / s, (high - y) / s
            density = density + height * _normal_mass(a, b)
            fall = fall + height * (_normal_density(b) - _normal_density(a))
        return torch.where(far, s * position / spread**2, fall / density)
