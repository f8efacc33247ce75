"""The table summary: mean, standard error and median over seeds of what is measured, beside T* of its curve."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

import numpy as np
import pandas as pd

from difftime.tables.frames import of_networks, parts_of
from difftime.tables.paired import CHOICE
from difftime.tables.parquet import CELL, CURVE, shaped
from difftime.tables.schema import TABLES
from difftime.tables.statistics import over_seeds

QUANTITIES = {
    "mixture": {
        "elbo": ("elbo", "kl", "gap", "K", "R", "I", "prior", "entropy", "log_p_data"),
        "likelihood": ("log_q_ode", "log_q_sde", "nfe"),
        "samples": ("wasserstein1", "log_p_data_median", "nfe"),
    },
    "images": {
        "elbo": ("elbo_bpd", "kl_low_bpd", "kl_high_bpd", "prior", "I", "R", "decoder"),
        "likelihood": ("bpd", "nfe"),
        "samples": ("wasserstein1", "nfe"),
    },
}


def summary(tables: Mapping[str, pd.DataFrame], settings: Mapping[str, Any]) -> pd.DataFrame:
    """A row for every quantity, curve and T."""
    rows = []
    known = settings["kind"] == "mixture"
    for table, columns in QUANTITIES["mixture" if known else "images"].items():
        groups = parts_of(tables[table], "sampler") if table == "samples" else {"": tables[table]}
        for sampler, part in groups.items():
            prefix = f"{sampler}:" if sampler else ""
            for column in columns:
                rows += _rows(part, table, column, prefix, known)
    frame = pd.DataFrame(rows, columns=[*CHOICE, "quantity", "unit", "mean", "se", "median", "seeds", "finite"])
    best = of_networks(tables["optimum"])
    frame = frame.merge(best[[*CURVE, "T_star", "T_star_low", "T_star_high"]], on=CURVE, how="left")
    frame = frame.merge(tables["training"][[*CELL, "parameters"]], on=CELL, how="left", validate="many_to_one")
    return shaped(frame.to_dict("records"), "summary")


def _rows(frame: pd.DataFrame, table: str, column: str, prefix: str, known: bool) -> list[dict[str, Any]]:
    unit = next(one.unit for one in TABLES[table] if one.name == column)
    return [
        dict(zip(CHOICE, keys, strict=True)) | {"quantity": prefix + column, "unit": unit} | _over_seeds(
            cell, table, column, known
        )
        for keys, cell in frame.groupby(CHOICE, sort=False)
    ]  # fmt: skip


def _over_seeds(cell: pd.DataFrame, table: str, column: str, known: bool) -> dict[str, Any]:
    """Mean, its standard error and the median over the finite values, and how many of how many these are."""
    values = cell[column].to_numpy(float)
    finite = values[np.isfinite(values)]
    shared = cell[f"{column}_se"].mean() if f"{column}_se" in cell else 0.0
    if known:
        # the seeds share the Monte Carlo points of the ELBO, and no others; their own spread is not known of one
        mean, se = over_seeds(values)
        se = math.hypot(se, shared) if table == "elbo" else se
    else:
        # the seeds share the test images, but draw samples of their own
        mean, se = over_seeds(values, shared if table != "samples" or len(finite) == 1 else 0.0)
    median = float(np.median(finite)) if len(finite) else math.nan
    return {"mean": mean, "se": se, "median": median, "seeds": len(values), "finite": len(finite)}
