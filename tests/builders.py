"""Tables that keep their schema, from rows that say only what matters."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from functools import cache
from typing import Any

import numpy as np
import pandas as pd

from difftime.tables.parquet import check, empty, shaped
from difftime.tables.schema import TABLES

Row = dict[str, Any]
DEFAULTS = {"string": "none", "float64": 0.0, "int64": 1, "bool": True, "binary": b""}
"""What a column that may not be null holds where a row does not name it."""
TOY = {"dataset": "toy", "sde": "vp", "net": "mlp", "p_noise": "standard"}
DIGITS = {"dataset": "digits", "sde": "vp", "net": "unet", "p_noise": "standard"}
CEILING = -0.85
LN2 = float(np.log(2))
D = 784
SETTINGS: dict[str, Any] = {
    "seed": 0,
    "optimum": {"resamples": 200, "confidence": 0.95, "loss": 0.01},
    "kind": "mixture",
    "sdes": {"vp": "vp", "ve": "ve-exponential"},
    "pretrained": [],
}
OF_IMAGES = SETTINGS | {"kind": "mnist5k"}


def frame(table: str, rows: Iterable[Row]) -> pd.DataFrame:
    """A valid table: columns that a row does not name are null, or a default where they may not be; unknown ones go."""
    usual = {column.name: None if column.nullable else DEFAULTS[column.type] for column in TABLES[table]}
    usual |= {"failed": 0} if "failed" in usual else {}
    filled = [usual | {name: value for name, value in row.items() if name in usual} for row in rows]
    return check(shaped(filled, table), table, table) if filled else empty(table)


def tables(rows: Mapping[str, Iterable[Row]]) -> dict[str, pd.DataFrame]:
    """Every table that cells leave, without rows where `rows` has none."""
    names = [name for name in TABLES if name not in ("optimum", "prediction", "cheapest", "tradeoff", "summary")]
    return {name: frame(name, rows.get(name, ())) for name in names}


@cache
def of_seed(seed: int) -> float:
    """A number of mean 0 and standard deviation 1."""
    return float(np.random.default_rng([seed, 7]).normal())


def mixture(
    kl: Callable[[float], float],
    gap: Callable[[float, float, int], float],
    times: Sequence[float],
    seeds: int = 8,
    steps: int = 40,
    **key: Any,
) -> dict[str, list[Row]]:
    """Rows of a mixture's tables elbo, curve and training: KL(T), and the gap at t of the model of a seed and T."""
    key = TOY | {"epsilon": 1e-5, "weighting": "likelihood", "log_p_data": CEILING} | key
    exact = {"entropy": -CEILING, "kl_se": 0.0, "gap_se": 0.0, "entropy_se": 0.0, "elbo_se": 0.0, "residual": 0.0}
    found: dict[str, list[Row]] = {"elbo": [], "curve": [], "training": []}
    for T in times:
        found["training"].append(key | {"T": T, "seeds": seeds})
        for seed in range(seeds):
            own = key | {"T": T, "seed": seed}
            parts = {"kl": kl(T), "gap": gap(T, T, seed)}
            found["elbo"].append(own | exact | parts | {"elbo": CEILING - parts["kl"] - parts["gap"]})
            for t in T * (np.arange(1, steps + 1) / steps):
                parts = {"kl": kl(t), "gap": gap(t, T, seed)}
                found["curve"].append(own | parts | {"t": t, "elbo": CEILING - sum(parts.values()), "elbo_se": 0.0})
    return found


def images(
    bits: Callable[[float, float, int, int], float],
    times: Sequence[float],
    seeds: int = 1,
    units: int = 30,
    steps: int = 40,
    kl: Callable[[float], float] | None = None,
    **key: Any,
) -> dict[str, list[Row]]:
    """Rows of elbo, curve, their units and training: `bits` at t of the model of T, a seed and an image."""
    key = DIGITS | {"epsilon": 1e-5, "weighting": "noise", "data_digest": "a", "units": units} | key
    found: dict[str, list[Row]] = {name: [] for name in ("elbo", "elbo_units", "curve", "curve_units", "training")}
    for T in times:
        found["training"].append(key | {"T": T, "seeds": seeds})
        bracket = {"kl_low_bpd": 0.9 * kl(T), "kl_high_bpd": 1.1 * kl(T)} if kl else {}
        for seed in range(seeds):
            own = key | {"T": T, "seed": seed}
            whole = [bits(T, T, seed, unit) for unit in range(units)]
            found["elbo"].append(own | bracket | _bits(whole))
            found["elbo_units"] += [own | {"unit": unit, "elbo_bpd": b} for unit, b in enumerate(whole)]
            for t in T * (np.arange(1, steps + 1) / steps):
                here = [bits(t, T, seed, unit) for unit in range(units)]
                found["curve"].append(own | {"t": t} | _bits(here))
                found["curve_units"] += [own | {"t": t, "unit": unit, "elbo_bpd": b} for unit, b in enumerate(here)]
    return found


def _bits(values: Sequence[float]) -> Row:
    se = float(np.std(values, ddof=1) / np.sqrt(len(values))) if len(values) > 1 else None
    return {"elbo_bpd": float(np.mean(values)), "elbo_bpd_se": se}


def joined(*parts: Mapping[str, Iterable[Row]]) -> dict[str, list[Row]]:
    """The rows of several cells or curves, table by table."""
    return {name: [row for part in parts for row in part.get(name, ())] for name in TABLES}
