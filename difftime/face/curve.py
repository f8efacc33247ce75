"""ELBO(T) of one model for every T up to its own, from one pass over the data, and the T to choose."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Tensor

from difftime.diffusion.p_noise import MixtureNoise
from difftime.face.data import Known, Points, check_counts, decoder, known, points
from difftime.face.noise import Kind, check_kind, p_noise
from difftime.face.results import Estimate, bits_per_unit, refuse_bits
from difftime.face.score import Flat, Score
from difftime.measures.curve import NoisesAt, noises_at, running_elbo
from difftime.optimum.choice import choose
from difftime.optimum.interpolated import BitsModel, PredictedBits, searched, uncertainty
from difftime.tables.statistics import Paired


class Curve(NamedTuple):
    """The ELBO of a model as a function of the diffusion time T, for T up to the model's own.

    The values of one point at all T come from the same evaluations of the score, so they are paired: the standard
    errors of differences between two T are much smaller than those of the values.

    Attributes:
        T: the times `[times]`, in rising order.
        elbo: values `[n, times]` in nats per point.
        decoder: the term from x_epsilon to the points themselves, `[n]`, in nats per point; the same at every T.
        p_noise: the kind of p_noise.
        score: the score that was measured.
        points: the data that were measured.
    """

    T: Tensor
    elbo: Tensor
    decoder: Tensor
    p_noise: str
    score: Score
    points: Points

    @property
    def mean(self) -> Tensor:
        """The mean ELBO in nats, `[times]`."""
        return self.elbo.mean(0)

    @property
    def se(self) -> Tensor:
        """Standard error of `mean`, `[times]`."""
        return self.elbo.std(0) / math.sqrt(len(self.elbo))

    @property
    def noise_level(self) -> Tensor:
        """lambda = log(sigma_T² / alpha_T²), the clock that all schedules share, `[times]`."""
        return self.score.sde.noise_level(self.T)

    @property
    def bpd(self) -> Tensor:
        """The bound on the bits per dimension of 8-bit data, `[n, times]`. Raises NotPixels for any other data."""
        pixels = refuse_bits(self.points)
        return bits_per_unit(pixels, self.elbo + self.decoder[:, None], self.points.d)

    def at(self, T: float) -> Estimate:
        """The ELBO at the time of the curve that is nearest to T. Raises ValueError for T outside the curve."""
        first, last = float(self.T[0]), float(self.T[-1])
        if not first * (1 - 1e-9) <= T <= last * (1 + 1e-9):
            raise ValueError(f"The curve has times from {first:g} to {last:g}, not {T:g}.")
        return Estimate.of(self.elbo[:, int((self.T - T).abs().argmin())])

    def __repr__(self) -> str:
        return f"Curve({len(self.T)} times up to {self.T[-1]:g}, {self.p_noise} p_noise, {self.points})"


def elbo_curve(
    score: Score,
    x: Any,
    p_noise: Kind = "standard",
    data: Any = None,
    *,
    times: int | Sequence[float] = 50,
    pairs: int = 16,
    batch: int = 256,
    seed: int = 0,
    **options: Any,
) -> Curve:
    """The ELBO at every T up to the score's own, in one pass over held-out data.

    I and R are running integrals over time, so one trained model has them for every shorter T. p_noise is made for each
    T. This is the curve of the model at hand: a model that was trained for a shorter T might be better there.

    Args:
        score: the score.
        x: held-out data: floating-point `[n, *shape]`, uint8 pixels, or `Pixels`.
        p_noise: `"standard"`, `"matched"`, `"full"` or `"mixture"`; a flow has no curve, because it is fitted to one T.
        data: what the p_noise is fitted to: training data, or a `Mixture`. They also make the decoder, as in `elbo`:
            give them for the standard p_noise too, if its bits are to be compared with those of another.
        times: the number of times, equally far apart, or the times themselves in rising order.
        pairs, batch, seed: as in `elbo`. The network is evaluated as often as in one `elbo`.
        options: the options of `p_noise`.

    Returns:
        `Curve`: `T`, `elbo` per point and time, `mean`, `se`, `bpd`.

    Raises:
        ValueError: for a kind of p_noise that is unknown or has no curve, for times outside the score's, or for missing
            data.

    Example:
        >>> import difftime as dt, torch
        >>> p = dt.Mixture.from_covariances([1.0], [[0.0]], [[[4.0]]])
        >>> x = p.sample(200, torch.Generator().manual_seed(0))
        >>> dt.elbo_curve(dt.Score.exact(p, dt.VP()), x, p_noise="full", data=p, times=4)
        Curve(4 times up to 1, full p_noise, 200 points of shape [1])
    """
    check_counts(pairs=pairs, batch=batch)
    flat, T = points(x, seed), score.T
    at = _times(times, score)
    noises = _noises(p_noise, score, T, flat.shape, None if data is None else known(data), data, seed, options)
    with score.measuring():
        found = running_elbo(
            Flat(score, flat.shape), score.sde, noises, at, flat.x, T, score.epsilon, seeds=[str(seed)],
            indices=torch.arange(len(flat.x)), pairs=pairs, end_pairs=2, batch=batch, decoder=decoder(flat, data),
            device=score.device,
        )  # fmt: skip
    return Curve(at, found.elbo_eps[0, 0].mT.contiguous(), found.residual[0], p_noise, score, flat)


def _times(times: int | Sequence[float], score: Score) -> Tensor:
    if isinstance(times, int | np.integer):
        check_counts(times=times)
        return score.T * torch.arange(1, int(times) + 1, dtype=torch.float64) / int(times)
    for T in times:
        score.time(T)
    at = torch.as_tensor(times, dtype=torch.float64)
    if not len(at) or (at.diff() <= 0).any():
        raise ValueError(f"The times of a curve are in rising order, at least one, but these are {at.tolist()}.")
    return at


def _noises(
    kind: Kind,
    score: Score,
    T: float,
    shape: tuple[int, ...],
    of: Known | None,
    data: Any,
    seed: int,
    options: dict[str, Any],
) -> NoisesAt:
    check_kind(kind)
    if kind == "flow":
        raise ValueError("A flow is fitted to one T, so it has no curve. Use standard, matched, full or mixture.")
    if kind == "standard":
        zero = torch.zeros(math.prod(shape), dtype=torch.float64)
        return noises_at([kind], score.sde, zero, zero)
    start = p_noise(kind, score.sde, T, data, seed=seed, **options)
    if of is None or of.shape != shape:
        raise ValueError(f"The p_noise was fitted to points of shape {list(start.shape)}, not {list(shape)}.")
    mixture = start.density if isinstance(start.density, MixtureNoise) else None
    covariance = of.regular().covariance if kind == "full" else None
    return noises_at([kind], score.sde, *of.marginals(), covariance, mixture)


class BestT(NamedTuple):
    """The T of the best ELBO, and the smallest T whose ELBO is behind the best one by little.

    Attributes:
        T: the time with the best mean ELBO.
        low, high: the interval of `T`: a bootstrap over points. NaN for one point. It does not contain the error of
            `spacing`.
        spacing: the distance between the times of the curve near `T`.
        confidence: the confidence level of the interval.
        value, value_se: the ELBO at `T` and its standard error, in `unit`.
        cheapest: the smallest time of the curve whose difference from the best one, with two paired standard errors
            added, is at most `loss`.
        behind, behind_se: the difference of `cheapest` from the best one, and its paired standard error.
        loss: the loss that was allowed.
        unit: "nats" per point (a larger value is better) or "bits per dimension" (a smaller value is better).
        interior: whether `T` lies inside the curve. If not, the best T may lie outside the curve.
    """

    T: float
    low: float
    high: float
    spacing: float
    confidence: float
    value: float
    value_se: float
    cheapest: float
    behind: float
    behind_se: float
    loss: float
    unit: str
    interior: bool

    def __repr__(self) -> str:
        place = f"times {self.spacing:.2g} apart" if self.interior else "the edge of the curve"
        return (
            f"T* = {self.T:.2f} [{self.low:.2f}, {self.high:.2f}] ({place}), {self.value:.4f} ± {self.value_se:.4f} "
            f"{self.unit}; within {self.loss:g} from T = {self.cheapest:.2f}: {self.behind:.4f} ± {self.behind_se:.4f} "
            "behind"
        )


def best_T(curve: Curve, loss: float = 0.01, *, confidence: float = 0.95, resamples: int = 1000) -> BestT:
    """Where to start the reverse process: the best T, and the smallest T that loses at most `loss`.

    Two paired standard errors are added to a loss before it is compared with `loss`.

    Args:
        curve: what `elbo_curve` returned, at three times or more.
        loss: the allowed loss, in bits per dimension for 8-bit data, in nats per point for any other data.
        confidence: the confidence level of the interval of T*.
        resamples: the number of resamples of the bootstrap.

    Raises:
        ValueError: for a curve of fewer than three times, for values that are not finite, or for a negative loss.

    Example:
        >>> import difftime as dt, torch
        >>> p = dt.Mixture.from_covariances([1.0], [[3.0]], [[[0.25]]])
        >>> x = p.sample(200, torch.Generator().manual_seed(0))
        >>> best = dt.best_T(dt.elbo_curve(dt.Score.exact(p, dt.VP()), x), loss=0.1)
        >>> best.cheapest <= best.T, best.unit
        (True, 'nats')
    """
    losses = (-curve.elbo if curve.points.pixels is None else curve.bpd).numpy()
    sign = -1.0 if curve.points.pixels is None else 1.0
    t = curve.T.numpy()
    if len(t) < 3 or not torch.as_tensor(losses).isfinite().all():
        raise ValueError("T* needs a curve of three times or more, all of whose values are finite.")
    check_counts(resamples=resamples)
    if not 0 < confidence < 1:
        raise ValueError(f"The confidence lies between 0 and 1, but is {confidence}.")
    if not 0 <= loss < math.inf:
        raise ValueError(f"The loss that is allowed is a number from 0 on, but is {loss}.")
    fit = PredictedBits({float(t[-1]): BitsModel(t, losses[None])}, searched(t), 0)
    mean, at = fit.elbo(), fit.fine
    best = int(mean.argmax())
    found = uncertainty(fit, {"optimum": {"resamples": resamples, "confidence": confidence}, "seed": 0})
    paired = Paired(-losses.T[:, None], torch.zeros(len(t)).numpy())
    chosen = choose(paired, t, torch.arange(len(t)).numpy(), loss)
    assert chosen is not None  # all values are finite
    place, _, behind, behind_se, _ = chosen
    return BestT(
        T=float(at[best]), low=float(found["T_star_low"]), high=float(found["T_star_high"]),
        spacing=float(curve.T.diff()[max(int((curve.T - at[best]).abs().argmin()) - 1, 0)]), confidence=confidence,
        value=sign * -float(mean[best]), value_se=float(found["elbo_star_se"]), cheapest=float(t[place]),
        behind=behind, behind_se=behind_se, loss=loss, unit="nats" if sign < 0 else "bits per dimension",
        interior=0 < best < len(at) - 1,
    )  # fmt: skip
