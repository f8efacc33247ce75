"""Whether the bounds hold, and what is doubtful in the tables: what the log and `difftime show` say of it."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
import pandas as pd

from difftime.tables.parquet import CELL, CURVE, shaped

LOST = 1e-4
"""Share of the probability off the grid above which E log q_SDE is a lower bound only."""
RESIDUAL = 1e-6
"""Nats by which Proposition 1 may be off, beyond Monte Carlo error, before it is said."""
WATCHED = {"elbo": ("elbo", "elbo_bpd"), "likelihood": ("log_q_ode", "bpd"), "samples": ("wasserstein1",)}
"""Columns that are finite of every cell, as far as its kind of data has them."""


def bounds(tables: Mapping[str, pd.DataFrame], settings: Mapping[str, Any]) -> pd.DataFrame:
    """ELBO <= E log q <= -entropy for the reverse SDE, row by row, of a known density.

    `tolerance` is the numerical error of log_q_sde plus that of the decomposition, and four standard errors of the
    ELBO where it is a Monte Carlo estimate. A row is untested where the ELBO or the density of the SDE is not known.
    """
    keys = [*CURVE, "T", "seed"]
    both = tables["elbo"].merge(
        tables["likelihood"][[*keys, "log_q_sde", "log_q_sde_error", "log_q_sde_lost"]], on=keys, validate="one_to_one"
    )
    tolerance = both.log_q_sde_error + both.residual.abs() + 4 * both.elbo_se
    known = np.isfinite(both.log_q_sde) & np.isfinite(both.elbo) & np.isfinite(tolerance)
    holds = (both.elbo <= both.log_q_sde + tolerance) & (both.log_q_sde <= -both.entropy + tolerance)
    verdicts = np.where(known, np.where(holds, "holds", "broken"), "untested")
    table = both.assign(ceiling=-both.entropy, tolerance=tolerance, verdict=verdicts)
    return shaped(table.to_dict("records"), "bounds")


def verdict(checked: pd.DataFrame) -> str:
    """What the bounds table says, in a sentence or two."""
    count = checked.verdict.value_counts()
    tested = len(checked) - count.get("untested", 0)
    if not tested:
        return "The bound was tested in no row: no finite ELBO, or no density of the reverse SDE."
    lines = [f"ELBO <= E log q_SDE <= E log p holds in {count.get('holds', 0)} of {tested} rows."]
    if tested < len(checked):
        lines.append(f"{len(checked) - tested} more were not tested: no finite ELBO, or no density of the reverse SDE.")
    lost = (checked.log_q_sde_lost > LOST).sum()
    if lost:
        rows = "In 1 row" if lost == 1 else f"In {lost} rows"
        lines.append(
            f"{rows} more than {LOST:g} of the probability left the grid. E log q_SDE is a lower bound there, so only "
            "the first inequality is tested."
        )
    return "\n".join(lines)


def doubts(tables: Mapping[str, pd.DataFrame]) -> list[str]:
    """What is not to be relied on in the measured tables, cell by cell, with what to do.

    Proposition 1 is off by the column residual, which is the error of the quadrature; of more than one dimension four
    standard errors of the points are allowed. And a value is not finite: a model diverged, or something overflows.
    """
    return [*_off(tables["elbo"]), *_not_finite(tables)] if "elbo" in tables else _not_finite(tables)


def _off(elbo: pd.DataFrame) -> list[str]:
    errors = elbo[["prior_se", "I_se", "kl_se", "gap_se", "entropy_se"]].astype(float)
    allowed = RESIDUAL + 4 * np.sqrt((errors**2).sum(axis=1))
    off = elbo[elbo.residual.notna() & (elbo.residual.abs() > allowed)]
    return [
        f"{_name(keys)}: Proposition 1 is off by {cell.residual.abs().max():.2g} nats, as the quadrature is too coarse "
        "there. Raise elbo.time_steps, or lower T."
        for keys, cell in off.groupby(CELL, sort=False)
    ]


def _not_finite(tables: Mapping[str, pd.DataFrame]) -> list[str]:
    found = []
    for table, columns in WATCHED.items():
        frame = tables.get(table)
        if frame is None or frame.empty:
            continue
        # of images one column is null, of mixtures another: data that have a column have it of every row
        had = [column for column in columns if frame[column].notna().any()] or [*columns]
        lost = ~np.isfinite(frame[had].astype(float)).all(axis=1)
        for keys, cell in frame[lost].groupby(CELL, sort=False):
            seeds = f"{cell.seed.nunique()} of {frame[_of(frame, keys)].seed.nunique()} seeds"
            found.append(f"{_name(keys)}: the table {table} has values that are not finite, of {seeds}.")
        if "failed" in frame:
            part = frame[frame.failed > 0]
            found += [
                f"{_name(keys)}: {cell.failed.sum()} values of the table {table} are not finite and in no mean."
                for keys, cell in part.groupby(CELL, sort=False)
            ]
    return found


def _of(frame: pd.DataFrame, keys: tuple[Any, ...]) -> pd.Series:
    return (frame[CELL] == pd.Series(dict(zip(CELL, keys, strict=True)))).all(axis=1)


def _name(keys: tuple[Any, ...]) -> str:
    dataset, sde, net, T = keys
    return f"{dataset} {sde} {net}, T = {T:g}"
