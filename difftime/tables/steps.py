"""The table steps: how good samples are in few steps, and whether a shorter T still helps then.

A seed starts from the same random numbers at every T, with every sampler: differences are paired over seeds. Of a
single seed of images the distances have bootstrap errors, which are taken for independent: too large a sum.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

import numpy as np
import pandas as pd

from difftime.tables.frames import parts_of
from difftime.tables.paired import CHOICE, one_set_of_images
from difftime.tables.parquet import CURVE, shaped
from difftime.tables.statistics import Estimate, over_seeds

OF = ["wasserstein1", "wasserstein1_se"]


def steps(tables: Mapping[str, pd.DataFrame], settings: Mapping[str, Any]) -> pd.DataFrame:
    """A row for every cell, p_noise, sampler and number of evaluations.

    Raises BadTable if cells of one data set were measured on different images.
    """
    few, many = tables["few_steps"], tables["samples"]
    one_set_of_images(few, many)
    converged = {choice: _reference(own) for choice, own in parts_of(many, CHOICE).items()}
    last = {curve: _last(own["T"]) for curve, own in parts_of(few, CURVE).items()}
    by = [*CHOICE, "sampler", "evaluations"]
    parts = {key: own.set_index("seed") for key, own in parts_of(few, by).items()}
    rows = []
    for key, own in parts.items():
        net, choice, how = key[:3], key[: len(CHOICE)], key[len(CHOICE) :]
        reference, against_T = converged[choice], last.get((*net, "standard"), math.nan)
        against = parts.get((*net, "standard", against_T, *how))
        behind = _difference(own, reference)
        gain = Estimate(math.nan, math.nan) if against is None else _difference(against, own)
        mean, many_mean = (over_seeds(frame.wasserstein1, _alone(frame)) for frame in (own, reference))
        rows.append(
            dict(zip(by, key, strict=True))
            | own.iloc[0][["nfe", "units", "wasserstein1_floor"]].to_dict()
            | {
                "wasserstein1": mean.mean, "wasserstein1_se": mean.se, "many": reference.sampler.iloc[0],
                "many_nfe": reference.nfe.mean(), "many_wasserstein1": many_mean.mean,
                "many_wasserstein1_se": many_mean.se, "many_finite": _finite(reference),
                "behind": behind.mean, "behind_se": behind.se,
                "against_T": against_T, "gain": gain.mean, "gain_se": gain.se,
                "seeds": len(own), "finite": _finite(own),
            }
        )  # fmt: skip
    return shaped(rows, "steps")


def _reference(own: pd.DataFrame) -> pd.DataFrame:
    """Of the samplers of many evaluations the ODE's, if there is one: of these samplers all but one tend to it."""
    best = own[own.sampler == "ode"]
    return (best if len(best) else own).set_index("seed")


def _last(T: pd.Series) -> float:
    """T = 1, or the largest T."""
    return 1.0 if 1.0 in set(T) else float(T.max())


def _finite(frame: pd.DataFrame) -> int:
    return int(np.isfinite(frame.wasserstein1).sum())


def _alone(frame: pd.DataFrame) -> float:
    """The standard error of a single seed; several show theirs by how far they are apart."""
    se = frame.wasserstein1_se.iloc[0]
    return float(se) if len(frame) == 1 and se is not None and math.isfinite(se) else 0.0


def _difference(one: pd.DataFrame, other: pd.DataFrame) -> Estimate:
    """The distance of one less that of the other, by seed."""
    return over_seeds(one.wasserstein1 - other.wasserstein1, math.hypot(_alone(one), _alone(other)))
