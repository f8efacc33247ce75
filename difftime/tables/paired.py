"""Means over seeds and units, their standard errors, and those of differences between paired values.

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
import pandas as pd
from scipy import stats

from difftime.tables.parquet import CURVE, BadTable

CHOICE = [*CURVE, "T"]
"""The columns that name a cell and its p_noise."""
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
    return stats.t.ppf(stats.norm.cdf(ERRORS), n - 1) / ERRORS


def cube(frame: pd.DataFrame, value: str, along: str) -> tuple[np.ndarray, np.ndarray]:
    """Where `along` is, and the values [seeds, units, along] of a table with a row per seed and unit; NaN for none."""
    wide = frame.groupby(["seed", "unit", along])[value].first().unstack(along).sort_index()
    every = pd.MultiIndex.from_product([wide.index.unique("seed"), wide.index.unique("unit")])
    shape = (*every.levshape, wide.shape[1])
    return wide.columns.to_numpy(float), wide.reindex(every).to_numpy(float).reshape(shape)


@dataclass(frozen=True)
class Paired:
    """One quality of several choices at the same seeds and units: the larger, the better; NaN where it is not known.

    `known` is the standard error that neither seeds nor units show, and NaN where nothing shows any.
    """

    values: np.ndarray
    """[choices, seeds, units]"""
    known: np.ndarray
    """[choices]"""

    @classmethod
    def of(cls, frame: pd.DataFrame, choices: pd.MultiIndex) -> Paired:
        """From the columns value, unit and known beside the keys and the seed; the mean of several draws of a unit."""
        # a mean would pass over a null, and does not pass over infinity
        filled = frame.assign(value=frame.value.fillna(np.inf))
        wide = filled.groupby([*CHOICE, "seed", "unit"]).value.mean().unstack(["seed", "unit"]).sort_index(axis=1)
        every = pd.MultiIndex.from_product([wide.columns.unique("seed"), wide.columns.unique("unit")])
        values = wide.replace(np.inf, np.nan).reindex(index=choices, columns=every).to_numpy(float)
        known = frame.groupby(CHOICE).known.mean().reindex(choices).to_numpy(float)
        return cls(values.reshape(len(choices), *every.levshape), known)

    @property
    def mean(self) -> np.ndarray:
        """[choices]"""
        return self.values.mean((1, 2))

    @property
    def se(self) -> np.ndarray:
        """The standard error of `mean`: over seeds, over units, and what is known beside them."""
        return np.sqrt(_variance(self.values) + self.known**2)

    def behind(self, best: int) -> tuple[np.ndarray, np.ndarray]:
        """How far every choice is behind one of them, and the paired standard error of that, widened for few.

        Both are 0 for that one itself.
        """
        paired = np.sqrt(_variance(self.values[best] - self.values, wider) + self.known**2 + self.known[best] ** 2)
        paired[best] = 0
        return self.mean[best] - self.mean, paired


def _variance(values: np.ndarray, factor: Callable[[int], float] = lambda n: 1.0) -> np.ndarray:
    """Of the mean of [choices, seeds, units], as far as seeds and units show it."""
    total = np.zeros(len(values))
    for part in (values.mean(2), values.mean(1)):
        if (n := part.shape[1]) > 1:
            total += (factor(n) * standard_error(part, 1)) ** 2
    return total


def difference(value: pd.Series | None, reference: pd.Series | None) -> Estimate:
    """One choice less another, by seed and unit, with its paired standard error over both; NaN where one is not known.

    Units and seeds that are not finite in either are left out of both.
    """
    if value is None or reference is None:
        return Estimate(math.nan, math.nan)
    # two infinite values differ by NaN
    with np.errstate(invalid="ignore"):
        wide = (value - reference).replace([np.inf, -np.inf], np.nan).unstack("unit")
    known = wide.dropna(axis=1).to_numpy(float)
    if not known.size:
        return Estimate(math.nan, math.nan)
    variance = _variance(known[None])[0]
    single = known.shape == (1, 1)
    return Estimate(float(known.mean()), math.nan if single else math.sqrt(variance))


def one_set_of_images(*measured: pd.DataFrame) -> None:
    """Raise BadTable if cells of a data set were measured on different images."""
    known = pd.concat([frame.loc[frame.data_digest.notna(), ["dataset", "data_digest"]] for frame in measured])
    if known.data_digest.nunique() > 1:
        raise BadTable(
            f"The images of {known.dataset.iloc[0]} changed between the measurements: their tables hold several "
            "data_digest. Delete the cells of that data set and run again."
        )
