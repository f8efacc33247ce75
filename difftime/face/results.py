"""The results of the functions: named tuples of estimates, with values per point, their mean and its standard error."""

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
    """The pixels of the points. Raises NotPixels if the points are no pixels."""
    if points.pixels is None:
        raise NotPixels(
            "Bits per dimension are those of a code for 8-bit pixels, and these data are floating-point numbers: "
            "nobody can tell from them how they were scaled, or whether they were dequantised. Pass the pixels "
            "themselves, as a uint8 tensor (or dt.Pixels, for a model that does not see them on [-1, 1])."
        )
    return points.pixels


def bits_per_unit(pixels: Pixels, log_density: Tensor, d: int) -> Tensor:
    """-log q / (D ln 2) + log2(256 / range); `bits_per_dimension` is this for a range of 2."""
    return bits_per_dimension(log_density + d * math.log(pixels.width / 2), d)


class Elbo(NamedTuple):
    r"""The evidence lower bound of Eq. 4 and its terms, in nats per point.

    .. math::
        \log q(x_\varepsilon) \ge \underbrace{\mathrm{prior} - I + R}_{\mathrm{elbo}}, \qquad
        \log q(x_0) \ge \mathrm{elbo} + \mathrm{decoder}

    Attributes:
        elbo: a lower bound on the mean of log q(x_epsilon) over the x_epsilon of a point, for the reverse SDE.
        prior: E log p_noise(x_T).
        I: the weighted score error of Eq. 6.
        R: Eq. 5, the same closed form for every point.
        decoder: the term from x_epsilon to the point, of a Gaussian around Tweedie's mean or of a decoder of pixels.
        elbo_x0: elbo + decoder, a lower bound on log q(x_0) of the points themselves.
        points: the data that were measured.
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
        """An upper bound on the bits per dimension of 8-bit data, from `elbo_x0`. Raises NotPixels for other data."""
        return bits(self.elbo_x0, self.points)

    def __repr__(self) -> str:
        terms = ", ".join(f"{name}={getattr(self, name)!r}" for name in self._fields[:-1])
        return f"Elbo({terms})"


class Likelihood(NamedTuple):
    """The likelihood under the probability-flow ODE and the number of function evaluations.

    The ELBO bounds the likelihood of the reverse SDE. With a learned score the ODE is another model, so `log_q` may lie
    on either side of the ELBO.

    Attributes:
        log_q: log density in nats of every point; NaN where the solver failed.
        nfe: calls of the right-hand side by the solver, mean over the batches.
        nfe_of_batches: the calls of each batch. The NFE is that of a batch, as its points are solved as one system.
        batch: points in a batch; the last batch may have fewer.
        divergence: "exact", or "hutchinson", an unbiased estimate. With "hutchinson" `log_q` is an estimate, too.
        points: the data that were measured.
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
