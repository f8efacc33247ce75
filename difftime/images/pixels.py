"""From 8-bit pixels to densities on [-1, 1]^D, or on another scale, and what the data's moments alone say about T."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any, NamedTuple

import torch
from jaxtyping import Bool, Float, Shaped, UInt8
from torch import Tensor

from difftime.images.mapped import Images, blocks

LEVELS = 256
SCALE = LEVELS / 2
"""Grey levels per unit of the scaled data: [0, 256] becomes [-1, 1]."""


def scaled(k: UInt8[Tensor, "*batch"], u: Float[Tensor, "*batch"]) -> Float[Tensor, "*batch"]:
    """Uniform dequantisation to [-1, 1]: x = (k + u) / 128 - 1, with u ~ U(0, 1); float32.

    The grid has 256 cells, each 1/128 wide, and x has a density; that of the pixels k themselves would be infinite.
    """
    return (k.float() + u) / SCALE - 1


def flip(x: Shaped[Tensor, "n C H W"], bits: Bool[Tensor, " n"]) -> Shaped[Tensor, "n C H W"]:
    """Mirror left and right the images whose bit is set."""
    return torch.where(bits[:, None, None, None], x.flip(-1), x)


def bits_per_dimension(log_p: Any, d: int) -> Any:
    """Bits per dimension of 8-bit images, from log p(x) in nats of their scaled, dequantised x: -log p / (D ln 2) + 7.

    It bounds the bits per dimension of a code for the pixels from above, by Jensen's inequality. 7 = log2(128): p is
    a density per unit of [-1, 1], and a cell has 1/128 of it. For x that was not dequantised it has no meaning.
    `log_p`: a number or a tensor.
    """
    return -log_p / (d * math.log(2)) + math.log2(SCALE)


class Moments(NamedTuple):
    """The mean [d] and the covariance [d, d] of scaled, dequantised images, float64."""

    mean: Float[Tensor, " d"]
    covariance: Float[Tensor, "d d"]


def moments(images: Images, block: int = 2048) -> Moments:
    """The moments of x = (k + u) / 128 - 1 over the images k (each with weight 1/n) and over u, without sampling.

    u adds 1/256 to the means and (1/128)²/12 to the variances. Sums of integers in float64 are exact up to 370,000
    images, so constant pixels have covariance 0 with all others, and the result does not depend on `block`, the number
    of images, at most, that are held in float64 at once.
    """
    n, d = len(images), images[0].numel()
    total = torch.zeros(d, dtype=torch.float64, device=images.device)
    square = torch.zeros(d, d, dtype=torch.float64, device=images.device)
    for part in blocks(images, block):
        k = part.flatten(1).double()
        total += k.sum(0)
        square.addmm_(k.mT, k)
    covariance = square.mul_(n).addr_(total, total, alpha=-1).div_((n * SCALE) ** 2)
    covariance.diagonal().add_(1 / (12 * SCALE**2))
    return Moments((total / n + 0.5) / SCALE - 1, covariance)


class Marginals(NamedTuple):
    """The mean and the variance [d] of each coordinate of scaled, dequantised images, float64."""

    mean: Float[Tensor, " d"]
    variance: Float[Tensor, " d"]


def marginals(images: Images, block: int = 2048) -> Marginals:
    """The mean and the diagonal of `moments`, to the bit, without a covariance."""
    n, d = len(images), images[0].numel()
    total, square = torch.zeros(2, d, dtype=torch.float64, device=images.device)
    for part in blocks(images, block):
        k = part.flatten(1).double()
        total += k.sum(0)
        square += k.square_().sum(0)
    variance = (square * n - total * total) / (n * SCALE) ** 2 + 1 / (12 * SCALE**2)
    return Marginals((total / n + 0.5) / SCALE - 1, variance)


def mean_variance(images: Images, block: int = 2048) -> float:
    """The mean over pixels of the variance of x over the images and over u: that of `moments`, without a covariance."""
    n, totals, squares = len(images), [], []
    for part in blocks(images, block):
        totals.append(part.flatten(1).sum(0, dtype=torch.float64))
        squares.append(part.flatten(1).double().square_().sum(0))
    total, square = torch.stack(totals).sum(0), torch.stack(squares).sum(0)
    return ((square * n - total**2).mean().item() / n**2 + 1 / 12) / SCALE**2


@dataclass(frozen=True)
class Scale:
    """How grey levels k and u ~ U(0, 1) become what a model takes for data: x = start + width (k + u)."""

    start: float
    width: float

    @classmethod
    def between(cls, low: float, high: float) -> Scale:
        """[0, 256] becomes [low, high], as in all of difftime and in score_sde_pytorch's likelihood."""
        return cls(low, (high - low) / LEVELS)

    @classmethod
    def at_centres(cls, low: float, high: float) -> Scale:
        """The centres of the cells of 0 and 255 become `low` and `high`, where torchvision's `ToTensor` puts them."""
        width = (high - low) / (LEVELS - 1)
        return cls(low - width / 2, width)

    def dequantised(self, k: UInt8[Tensor, "*batch"], u: Float[Tensor, "*batch"]) -> Float[Tensor, "*batch"]:
        """Uniform dequantisation, float32."""
        return self.start + self.width * (k.float() + u)

    def levels(self, x: Tensor) -> Tensor:
        """The grey level whose cell x lies in, from 0 to 255, uint8."""
        return ((x - self.start) / self.width).floor().clamp(0, LEVELS - 1).to(torch.uint8)

    @property
    def offset_bits(self) -> float:
        """log2 of the cells per unit of x: 7 for data in [-1, 1], 8 for data in [0, 1]."""
        return -math.log2(self.width)

    def bits_per_dimension(self, log_p: Any, d: int) -> Any:
        """Bits per dimension of 8-bit images, from log p(x) in nats of their dequantised x; a number or a tensor."""
        return -log_p / (d * math.log(2)) + self.offset_bits

    def moments(self, of_pixels: Moments) -> Moments:
        """The moments of x, from those on [-1, 1] of `moments`; on [-1, 1] the same to the bit."""
        factor = self.width * SCALE
        return Moments((self.start + factor) + factor * of_pixels.mean, factor**2 * of_pixels.covariance)

    def marginals(self, of_pixels: Marginals) -> Marginals:
        """The same of each coordinate, from those on [-1, 1] of `marginals`."""
        factor = self.width * SCALE
        return Marginals((self.start + factor) + factor * of_pixels.mean, factor**2 * of_pixels.variance)


CENTRED, UNIT = Scale.between(-1.0, 1.0), Scale.between(0.0, 1.0)
