"""Data as the user has them, and as the modules below need them: flat points in float64, with their moments."""

from __future__ import annotations

import math
import warnings
from dataclasses import dataclass
from numbers import Integral
from typing import Any, NamedTuple

import torch
from torch import Tensor

from difftime.diffusion.mixture import Mixture
from difftime.diffusion.p_noise import shrunk
from difftime.images.pixels import LEVELS, Moments, Scale, moments, scaled
from difftime.measures.image_elbo import Loss, gaussian
from difftime.measures.pixel_decoder import PixelDecoder
from difftime.support.streams import stream

LOOKED_AT = 1 << 16
"""Numbers that are looked at: if they have few distinct values, they are pixels that were not dequantised."""


def check_counts(**counts: Any) -> None:
    """Raises ValueError for a count that is not a whole number from 1 on."""
    for name, count in counts.items():
        if isinstance(count, bool) or not isinstance(count, Integral) or count < 1:
            raise ValueError(f"{name} is a whole number from 1 on, but is {count!r}.")


@dataclass(frozen=True)
class Pixels:
    """8-bit data and the interval on which a model takes them: the grey level k becomes low + (high - low)(k + u)/256.

    u ~ U(0, 1) is uniform dequantisation: it gives x a density, which pixels themselves do not have.

    Args:
        levels: uint8, `[n, *shape]`: a tensor or an array.
        low: the lower end of grey level 0, by default -1.
        high: the upper end of grey level 255, by default 1. For a model that was trained on k/255 · 2 - 1 give
            low = -1 - 1/255 and high = 1 + 1/255: then the middle of each level is at the value of the training.

    Raises:
        TypeError: if the levels are not uint8.
        ValueError: if there are no levels, or low is not below high.
    """

    levels: Any
    low: float = -1.0
    high: float = 1.0

    def __post_init__(self) -> None:
        levels = torch.as_tensor(self.levels)
        if levels.dtype != torch.uint8:
            raise TypeError(f"Pixels are uint8, 0 to 255, but these are {levels.dtype}. Pass them as they were stored.")
        if levels.ndim < 2 or not levels.numel():
            raise ValueError(f"Pixels have the shape [n, *shape], but these have {list(levels.shape)}.")
        if not -math.inf < self.low < self.high < math.inf:
            raise ValueError(f"Pixels need low < high, but low = {self.low} and high = {self.high}.")
        object.__setattr__(self, "levels", levels.cpu())

    @property
    def width(self) -> float:
        """high - low, the range of all 256 levels."""
        return self.high - self.low

    def dequantised(self, generator: torch.Generator) -> Tensor:
        """x in float64, of the shape of the levels, with fresh u."""
        u = torch.rand(self.levels.shape, generator=generator)
        return self._from_unit(scaled(self.levels, u).double())

    def moments(self) -> Moments:
        """Mean and covariance over the data and over u, in closed form."""
        mean, covariance = moments(self.levels.reshape(len(self.levels), 1, 1, -1))
        return Moments(self._from_unit(mean), covariance * (self.width / 2) ** 2)

    def _from_unit(self, x: Tensor) -> Tensor:
        """From [-1, 1] to the model's interval."""
        return self.low + (x + 1) * (self.width / 2)


class Points(NamedTuple):
    """Data, flat: `x` is float64 `[n, d]` on the CPU; `shape` is that of one point; `pixels` if they are 8-bit data."""

    x: Tensor
    shape: tuple[int, ...]
    pixels: Pixels | None

    @property
    def d(self) -> int:
        """Numbers in a point."""
        return self.x.shape[1]

    def __repr__(self) -> str:
        return f"{len(self.x)} points of shape {list(self.shape)}"


def points(data: Any, seed: int, name: str = "dequantisation") -> Points:
    """Data as points: floating-point numbers as they are, uint8 dequantised by the stream of `seed` and `name`.

    Raises:
        TypeError: for integers that are not 8-bit data, and for complex numbers.
        ValueError: for data without points, for points without an axis, or for data that are not finite.
    """
    if isinstance(data, Mixture):
        raise TypeError("Points are needed here, and a Mixture is a density. Draw some: p.sample(n, generator).")
    pixels = as_pixels(data)
    if pixels is not None:
        x = pixels.dequantised(stream(seed, name))
    else:
        x = torch.as_tensor(data).detach()
        check_points(x)
        x = x.cpu().double()
    return Points(x.flatten(1), tuple(x.shape[1:]), pixels)


def as_pixels(data: Any) -> Pixels | None:
    """8-bit data as `Pixels`; None for any other data."""
    if isinstance(data, Pixels):
        return data
    data = torch.as_tensor(data)
    return Pixels(data) if data.dtype == torch.uint8 else None


def check_points(x: Tensor) -> None:
    """Raises as `points` does; warns of pixels that became floating-point numbers without dequantisation."""
    if not x.is_floating_point():
        raise TypeError(
            f"Data are floating-point numbers, or uint8 pixels, but these are {x.dtype}. For 8-bit data use "
            "data.to(torch.uint8), else data.double()."
        )
    if x.ndim < 2 or not x.numel():
        raise ValueError(
            f"Data have the shape [n, *shape], at least one axis for one point, but these have {list(x.shape)}. For "
            "numbers use data[:, None]."
        )
    if not x.isfinite().all():
        raise ValueError(f"{(~x.isfinite()).sum().item()} of the data's numbers are not finite. Leave them out.")
    looked_at = x.flatten()[:LOOKED_AT]
    distinct = len(looked_at.unique())
    if len(looked_at) >= 8 * LEVELS and distinct <= LEVELS:
        warnings.warn(
            f"The data's first {len(looked_at)} numbers have only {distinct} distinct values. If they are 8-bit "
            "pixels, they have no density: pass them as uint8, and they are dequantised.",
            stacklevel=4,
        )


def decoder(x: Points, data: Any) -> Loss:
    """The decoder of `elbo_x0`: that of pixels, by the shares of black and white in `data`, else the Gaussian one.

    Raises ValueError for training data of another shape.
    """
    pixels = None if data is None or isinstance(data, Mixture) else as_pixels(data)
    if x.pixels is None or pixels is None:
        return gaussian
    if (shape := tuple(pixels.levels.shape[1:])) != x.shape:
        raise ValueError(f"Training data have the shape of the data, {list(x.shape)} a point, but these {list(shape)}.")
    return PixelDecoder.of(pixels.levels, Scale.between(float(x.pixels.low), float(x.pixels.high)))


COLUMNS = 64
"""Coordinates whose moments are taken together where only the diagonal of the covariance is wanted."""


class Known(NamedTuple):
    """What a p_noise is fitted to: a density, pixels, or points `[n, d]`."""

    source: Mixture | Pixels | Tensor
    shape: tuple[int, ...]

    @property
    def n(self) -> int:
        """How many points there are."""
        return len(self._rows)

    @property
    def _rows(self) -> Tensor:
        if isinstance(self.source, Mixture):
            raise TypeError("A Mixture has no points of its own. Draw some: p.sample(n, generator).")
        return self.source.levels if isinstance(self.source, Pixels) else self.source

    def marginals(self) -> tuple[Tensor, Tensor]:
        """Mean and variance of every coordinate, `[d]`."""
        if isinstance(self.source, Mixture):
            return self.source.mean, self.source.variance
        if isinstance(self.source, Pixels):
            parts = [
                Pixels(part, self.source.low, self.source.high).moments()
                for part in self._rows.flatten(1).split(COLUMNS, 1)
            ]
            return torch.cat([part.mean for part in parts]), torch.cat([part.covariance.diagonal() for part in parts])
        return self.source.mean(0), self.source.var(0, correction=0)

    def moments(self) -> Moments:
        """Mean `[d]` and covariance `[d, d]`."""
        if isinstance(self.source, Mixture):
            return Moments(self.source.mean, self.source.covariance)
        if isinstance(self.source, Pixels):
            return self.source.moments()
        return Moments(self.source.mean(0), torch.cov(self.source.mT, correction=0).reshape(2 * self.source.shape[1:]))

    def regular(self) -> Moments:
        """The moments; with too few points the covariance is shrunk, which makes it regular."""
        mean, covariance = self.moments()
        return Moments(mean, covariance if isinstance(self.source, Mixture) else shrunk(covariance, self.n))

    def points(self, index: Tensor, generator: torch.Generator) -> Tensor:
        """These points, float64 `[n, d]`; pixels are dequantised afresh."""
        part = self._rows[index]
        if isinstance(self.source, Pixels):
            return Pixels(part, self.source.low, self.source.high).dequantised(generator).flatten(1)
        return part


def known(data: Any) -> Known:
    """What a p_noise can be fitted to: the density itself for a Mixture, else the points. Raises as `points` does."""
    if isinstance(data, Mixture):
        return Known(data, (data.d,))
    pixels = as_pixels(data)
    if pixels is not None:
        return Known(pixels, tuple(pixels.levels.shape[1:]))
    x = points(data, 0)
    return Known(x.x, x.shape)
