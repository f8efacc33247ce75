"""The mean ELBO as an interpolated function of T, and how it and the T of its maximum vary with the sample.

`curves` says what is interpolated and why, and makes these from tables. NumPy and SciPy alone, as `best_T` of the
Python face needs no tables.
"""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import Any, Protocol, runtime_checkable

import numpy as np
from scipy import special
from scipy.interpolate import PchipInterpolator

from difftime.tables.statistics import standard_error

FINE = 2001
"""Times on which a curve is searched for its maximum."""
UNCERTAIN = (
    "T_star_low", "T_star_high", "elbo_star_se", "gain_over_1_se", "gain_over_last_se", "plateau_low", "plateau_high",
)  # fmt: skip


@runtime_checkable
class Curve(Protocol):
    """The mean ELBO over T; bits per dimension count with a minus sign, so that the best is the largest."""

    @property
    def fine(self) -> np.ndarray:
        """The times at which it is looked at."""
        ...

    @property
    def places(self) -> np.ndarray:
        """The times between which it is interpolated."""
        ...

    @property
    def trained(self) -> np.ndarray:
        """T of the cells that it is from."""
        ...

    @property
    def left_out(self) -> int:
        """How many more cells there are, without a finite value of every seed and unit."""
        ...

    @property
    def seeds(self) -> int: ...

    @property
    def n(self) -> int:
        """How many seeds, or images of a single seed, are resampled. Of 1 there is no interval."""
        ...

    @property
    def known_se(self) -> float:
        """A standard error that all values share, and no resample shows."""
        ...

    def elbo(self) -> np.ndarray:
        """At the times `fine`."""
        ...

    def resampled(self, resamples: int, seed: int) -> np.ndarray:
        """[resamples, fine], of whole curves: their values are paired over seeds and images."""
        ...

    def se(self, resamples: int, seed: int) -> np.ndarray:
        """The standard error of `elbo`; NaN for a single seed of a known density."""
        ...


def searched(T: np.ndarray) -> np.ndarray:
    """The times between the first and the last T, and these."""
    return np.union1d(np.linspace(T[0], T[-1], FINE), T)


@dataclass(frozen=True)
class DensityCurve:
    """KL [T] and G [seeds, T] of a known density: the ELBO is -entropy - KL - G, Eq. 11."""

    T: np.ndarray
    kl: np.ndarray
    gaps: np.ndarray
    entropy: float
    known_se: float
    shared_se: np.ndarray
    """Standard errors [2, T] of KL and of G from the Monte Carlo points, which all seeds share."""
    fine: np.ndarray
    places: np.ndarray
    trained: np.ndarray
    left_out: int

    @property
    def seeds(self) -> int:
        return len(self.gaps)

    @property
    def n(self) -> int:
        return len(self.gaps)

    def _elbo(self, kl: np.ndarray, gap: np.ndarray) -> np.ndarray:
        # a KL below rounding error says nothing of where the optimum lies, but its logarithm must exist
        logs = [np.log(np.maximum(kl, 1e-15)), np.log(gap)]
        kl_fine, gap_fine = (np.exp(PchipInterpolator(self.T, values, axis=-1)(self.fine)) for values in logs)
        return -self.entropy - kl_fine - gap_fine

    def elbo(self) -> np.ndarray:
        return self._elbo(self.kl, self.gaps.mean(0))

    def resampled(self, resamples: int, seed: int) -> np.ndarray:
        rng = np.random.default_rng(seed)
        n = len(self.gaps)
        gap = self.gaps[rng.integers(n, size=(resamples, n))].mean(1)
        noise = self.shared_se[:, None] * rng.standard_normal((2, *gap.shape))
        kl, gap = (np.maximum(v + e, 1e-3 * v) for v, e in zip((self.kl, gap), noise, strict=True))
        return self._elbo(kl, gap)

    def se(self, resamples: int, seed: int) -> np.ndarray:
        return np.hypot(np.interp(self.fine, self.T, standard_error(self.gaps, 0)), self.known_se)


class ImageCurve(ABC):
    """Bits per dimension of images: seeds and images are resampled, whole images across all T."""

    known_se = 0.0

    @property
    @abstractmethod
    def values(self) -> Sequence[np.ndarray]:
        """[seeds, units, times], of the cells or of the models."""

    @abstractmethod
    def bits(self, means: Sequence[np.ndarray]) -> np.ndarray:
        """[..., fine], from means of `values` [..., times]."""

    @property
    def seeds(self) -> int:
        return self.values[0].shape[0]

    @property
    def n(self) -> int:
        seeds, units, _ = self.values[0].shape
        return seeds if seeds > 1 else units

    def elbo(self) -> np.ndarray:
        return -self.bits([values.mean((0, 1)) for values in self.values])

    def resampled(self, resamples: int, seed: int) -> np.ndarray:
        rng = np.random.default_rng(seed)
        of_seeds, of_units = (
            rng.multinomial(n, np.full(n, 1 / n), size=resamples) / n for n in self.values[0].shape[:2]
        )
        return -self.bits([np.einsum("rs,srt->rt", of_seeds, of_units @ values) for values in self.values])

    def se(self, resamples: int, seed: int) -> np.ndarray:
        return self.resampled(resamples, seed).std(0, ddof=1) * math.sqrt(self.n / max(self.n - 1, 1))


@dataclass(frozen=True)
class TrainedBits(ImageCurve):
    """From trained cells: the middle of the KL's bracket [T], and the values [seeds, units, T]."""

    T: np.ndarray
    kl: np.ndarray
    per_unit: np.ndarray
    left_out: int

    @property
    def values(self) -> Sequence[np.ndarray]:
        return [self.per_unit]

    @property
    def fine(self) -> np.ndarray:
        return searched(self.T)

    @property
    def places(self) -> np.ndarray:
        return self.T

    @property
    def trained(self) -> np.ndarray:
        return self.T

    def bits(self, means: Sequence[np.ndarray]) -> np.ndarray:
        log_kl = np.log(np.maximum(self.kl, 1e-15))
        rest = PchipInterpolator(self.T, means[0] - self.kl, axis=-1)(self.fine)
        return np.exp(PchipInterpolator(self.T, log_kl)(self.fine)) + rest


@dataclass(frozen=True)
class BitsModel:
    """The running bound of one cell in bits per dimension, at the times `t`: [seeds, units, times]."""

    t: np.ndarray
    values: np.ndarray

    @property
    def start(self) -> float:
        return self.t[0]


@dataclass(frozen=True)
class PredictedBits(ImageCurve):
    """From running bounds."""

    models: dict[float, BitsModel]
    fine: np.ndarray
    left_out: int

    @property
    def values(self) -> Sequence[np.ndarray]:
        return [model.values for model in self.models.values()]

    @property
    def trained(self) -> np.ndarray:
        return np.array([*self.models])

    @property
    def places(self) -> np.ndarray:
        return self.trained if len(self.models) > 1 else next(iter(self.models.values())).t

    def bits(self, means: Sequence[np.ndarray]) -> np.ndarray:
        running = {
            T: PchipInterpolator(model.t, mean, axis=-1)
            for (T, model), mean in zip(self.models.items(), means, strict=True)
        }
        first, *_ = T = [*running]
        parts = [running[first](self.fine[self.fine <= first])]
        for low, high in pairwise(T):
            here = self.fine[(low < self.fine) & (self.fine <= high)]
            excess = running[high](low) - running[low](low)
            parts.append(running[high](here) - excess[..., None] * (high - here) / (high - low))
        return np.concatenate(parts, -1)


def at(curves: np.ndarray, fine: np.ndarray, T: float) -> np.ndarray:
    """Curves [n, fine] at T, linear between the times `fine`; NaN where T is not among them."""
    if not fine[0] <= T <= fine[-1]:
        return np.full(len(curves), math.nan)
    above = max(1, int(np.searchsorted(fine, T)))
    share = (T - fine[above - 1]) / (fine[above] - fine[above - 1])
    return (1 - share) * curves[:, above - 1] + share * curves[:, above]


def uncertainty(curve: Curve, settings: Mapping[str, Any]) -> dict[str, float]:
    """How well the sample determines T* and the ELBO there; all null for a single seed of a known density.

    The bootstrap of Efron & Tibshirani (1993), its percentiles widened about T* for the few seeds there are: by
    sqrt(n / (n - 1)), as a resample spreads less than a sample, and by Student's quantile over the normal one. What is
    gained over another T is a difference within each resample: an error that all T share is not in it.
    """
    fine, n, elbo = curve.fine, curve.n, curve.elbo()
    if n == 1:
        return dict.fromkeys(UNCERTAIN, math.nan)
    options = settings["optimum"]
    best, curves = int(elbo.argmax()), curve.resampled(options["resamples"], settings["seed"])
    quantile = 0.5 + 0.5 * options["confidence"]
    few = math.sqrt(n / (n - 1))
    ends = np.percentile(fine[curves.argmax(1)], [100 * (1 - quantile), 100 * quantile])
    wider = few * special.stdtrit(n - 1, quantile) / special.ndtri(quantile)
    low, high = np.clip(fine[best] + wider * (ends - fine[best]), fine[0], fine[-1])
    se = math.hypot(few * curves[:, best].std(ddof=1), curve.known_se)
    plateau = fine[elbo >= elbo[best] - se]
    gains = [few * (curves[:, best] - at(curves, fine, T)).std(ddof=1) for T in (1.0, fine[-1])]
    found = (min(low, fine[best]), max(high, fine[best]), se, *gains, plateau[0], plateau[-1])
    return dict(zip(UNCERTAIN, found, strict=True))
