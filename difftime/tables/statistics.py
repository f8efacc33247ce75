"""Means over seeds and units, their standard errors, and those of differences between paired values. NumPy alone.

A unit is a test image; a known density has one. Seeds share their random numbers across cells, and all cells of a data
set are measured on the same images: the standard error of a difference is that of the differences, which can be a
hundred times smaller than that of either value.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
from scipy import special

ERRORS = 2.0
"""Standard errors that make a difference sure: 0.95 of a normal's differences are smaller, either way."""


class Estimate(NamedTuple):
    """A mean and its standard error."""

    mean: float
    se: float


def standard_error(values: np.ndarray, axis: int = -1) -> np.ndarray:
    """Of the mean along an axis; NaN for a single value."""
    n = values.shape[axis]
    if n < 2:
        return np.full(np.delete(values.shape, axis), math.nan)
    return np.asarray(values.std(axis, ddof=1) / math.sqrt(n))


def over_seeds(values: Iterable[float], shared: float = 0.0) -> Estimate:
    """Of the finite values, one per seed. `shared` is a standard error that all of them have in common.

    The standard error of a single seed is `shared` where that is not 0, and NaN where nothing tells any.
    """
    finite = np.array([value for value in values if math.isfinite(value)], float)
    if not len(finite):
        return Estimate(math.nan, math.nan)
    between = float(standard_error(finite))
    if len(finite) == 1:
        between = 0.0 if shared > 0 else math.nan
    return Estimate(float(finite.mean()), math.hypot(between, shared))


def wider(n: int) -> float:
    """By how much the standard error of n values is widened where ERRORS of them are to be sure.

    Student's quantile over the normal one, as the spread of a few values is itself uncertain.
    """
    return special.stdtrit(n - 1, special.ndtr(ERRORS)) / ERRORS


@dataclass(frozen=True)
class Paired:
    """One quality of several choices at the same seeds and units: the larger, the better; NaN where it is not known.

    `known` is the standard error that neither seeds nor units show, and NaN where nothing shows any.
    """

    values: np.ndarray
    """[choices, seeds, units]"""
    known: np.ndarray
    """[choices]"""

    @property
    def mean(self) -> np.ndarray:
        """[choices]"""
        return self.values.mean((1, 2))

    @property
    def se(self) -> np.ndarray:
        """The standard error of `mean`: over seeds, over units, and what is known beside them."""
        return np.sqrt(variance(self.values) + self.known**2)

    def behind(self, best: int) -> tuple[np.ndarray, np.ndarray]:
        """How far every choice is behind one of them, and the paired standard error of that, widened for few.

        Both are 0 for that one itself.
        """
        paired = np.sqrt(variance(self.values[best] - self.values, wider) + self.known**2 + self.known[best] ** 2)
        paired[best] = 0
        return self.mean[best] - self.mean, paired


def variance(values: np.ndarray, factor: Callable[[int], float] = lambda n: 1.0) -> np.ndarray:
    """Of the mean of [choices, seeds, units], as far as seeds and units show it."""
    total = np.zeros(len(values))
    for part in (values.mean(2), values.mean(1)):
        if (n := part.shape[1]) > 1:
            total += (factor(n) * standard_error(part, 1)) ** 2
    return total
