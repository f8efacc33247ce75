"""What the functions return: named tuples of estimates, each with its values per point, its mean and standard error."""

from __future__ import annotations

import math
from typing import NamedTuple

from torch import Tensor

from difftime.face.data import Pixels, Points
from difftime.images.pixels import bits_per_dimension
from difftime.measures.image_elbo import over_images


class Estimate(NamedTuple):
    """A quantity of the data: one value per point, their mean, and the standard error of that mean.

    The standard error is over the points, and contains the Monte Carlo error of each value. It is NaN for one point.
    """

    values: Tensor
    mean: float
    se: float

    @classmethod
    def of(cls, values: Tensor) -> Estimate:
        mean, se = over_images(values.double())
        return cls(values, mean.item(), se.item())

    def __repr__(self) -> str:
        return f"{self.mean:.4f} ± {self.se:.4f}"


class NotPixels(ValueError):
    """Bits per dimension were asked of data that are not 8-bit pixels."""


def bits(log_density: Estimate, points: Points) -> Estimate:
    """Bits per dimension, from nats per point. Raises NotPixels for data that were not dequantised by this package."""
    return Estimate.of(bits_per_unit(refuse_bits(points), log_density.values, points.d))


def refuse_bits(points: Points) -> Pixels:
    """The pixels that the points are; NotPixels if they are none."""
    if points.pixels is None:
        raise NotPixels(
            "Bits per dimension are those of a code for 8-bit pixels, and these data are floating-point numbers: "
            "nobody can tell from them how they were scaled, or whether they were dequantised. Pass the pixels "
            "themselves, as a uint8 tensor (or dt.Pixels, for a model that does not see them on [-1, 1])."
        )
    return points.pixels


def bits_per_unit(pixels: Pixels, log_density: Tensor, d: int) -> Tensor:
    """-log q / (D ln 2) + log2(256 / range); `bits_per_dimension` has it for a range of 2."""
    return bits_per_dimension(log_density + d * math.log(pixels.width / 2), d)


class Elbo(NamedTuple):
    r"""The evidence lower bound of Eq. 4 and its terms, in nats per point.

    .. math::
        \log q(x_\varepsilon) \ge \underbrace{\mathrm{prior} - I + R}_{\mathrm{elbo}}, \qquad
        \log q(x_0) \ge \mathrm{elbo} + \mathrm{decoder}

    Attributes:
        elbo: bounds the mean of log q(x_epsilon) of the reverse SDE over the x_epsilon of a point.
        prior: E log p_noise(x_T).
        I: the weighted score error of Eq. 6.
        R: Eq. 5, the same closed form for every point.
        decoder: what leads from x_epsilon back to the point itself: that of a Gaussian decoder with Tweedie's mean.
        elbo_x0: elbo + decoder; bounds log q(x_0) of the points themselves.
        points: what was measured.
    """

    elbo: Estimate
    prior: Estimate
    I: Estimate  # noqa: E741
    R: Estimate
    decoder: Estimate
    elbo_x0: Estimate
    points: Points

    @property
    def bpd(self) -> Estimate:
        """An upper bound on the bits per dimension of the 8-bit data, from `elbo_x0`. Raises NotPixels otherwise."""
        return bits(self.elbo_x0, self.points)

    def __repr__(self) -> str:
        terms = ", ".join(f"{name}={getattr(self, name)!r}" for name in self._fields[:-1])
        return f"Elbo({terms})"


class Likelihood(NamedTuple):
    """The likelihood under the probability-flow ODE and what it cost.

    With a learned score the ODE is another model than the reverse SDE, which the ELBO bounds: `log_q` may lie on either
    side of the ELBO.

    Attributes:
        log_q: log density in nats of every point; NaN where the solver failed.
        nfe: right-hand-side calls of the solver, mean over the batches.
        nfe_of_batches: the calls of each batch. NFE belongs to the batch, as its points are solved as one system.
        batch: points in a batch; the last one may have fewer.
        divergence: "exact", or "hutchinson": an unbiased estimate, which makes `log_q` one.
        points: what was measured.
    """

    log_q: Estimate
    nfe: float
    nfe_of_batches: list[int]
    batch: int
    divergence: str
    points: Points

    @property
    def bpd(self) -> Estimate:
        """Bits per dimension of the 8-bit data. Raises NotPixels for any other data."""
        return bits(self.log_q, self.points)

    def __repr__(self) -> str:
        return f"Likelihood(log_q={self.log_q!r}, nfe={self.nfe:g}, batch={self.batch}, divergence={self.divergence!r})"
