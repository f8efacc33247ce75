"""Values paired over seeds and units, from tables; `statistics` has what is computed of them."""

from __future__ import annotations

import math

import numpy as np
import pandas as pd

from difftime.tables.parquet import CURVE, BadTable
from difftime.tables.statistics import Estimate, Paired, variance

CHOICE = [*CURVE, "T"]
"""The columns that name a cell and its p_noise."""


def cube(frame: pd.DataFrame, value: str, along: str) -> tuple[np.ndarray, np.ndarray]:
    """Where `along` is, and the values [seeds, units, along] of a table with a row per seed and unit; NaN for none."""
    wide = frame.groupby(["seed", "unit", along])[value].first().unstack(along).sort_index()
    every = pd.MultiIndex.from_product([wide.index.unique("seed"), wide.index.unique("unit")])
    shape = (*every.levshape, wide.shape[1])
    return wide.columns.to_numpy(float), wide.reindex(every).to_numpy(float).reshape(shape)


def by_choice(frame: pd.DataFrame, choices: pd.MultiIndex) -> Paired:
    """From the columns value, unit and known beside the keys and the seed; the mean of several draws of a unit."""
    # a mean would pass over a null, and does not pass over infinity
    filled = frame.assign(value=frame.value.fillna(np.inf))
    wide = filled.groupby([*CHOICE, "seed", "unit"]).value.mean().unstack(["seed", "unit"]).sort_index(axis=1)
    every = pd.MultiIndex.from_product([wide.columns.unique("seed"), wide.columns.unique("unit")])
    values = wide.replace(np.inf, np.nan).reindex(index=choices, columns=every).to_numpy(float)
    known = frame.groupby(CHOICE).known.mean().reindex(choices).to_numpy(float)
    return Paired(values.reshape(len(choices), *every.levshape), known)


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
    se = math.nan if known.shape == (1, 1) else math.sqrt(variance(known[None])[0])
    return Estimate(float(known.mean()), se)


def one_set_of_images(*measured: pd.DataFrame) -> None:
    """Raise BadTable if cells of a data set were measured on different images."""
    known = pd.concat([frame.loc[frame.data_digest.notna(), ["dataset", "data_digest"]] for frame in measured])
    if known.data_digest.nunique() > 1:
        raise BadTable(
            f"The images of {known.dataset.iloc[0]} changed between the measurements: their tables hold several "
            "data_digest. Delete the cells of that data set and run again."
        )
