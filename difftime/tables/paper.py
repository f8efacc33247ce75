"""Table 1 of the paper for every cell on some images and every p_noise, with the paper's own values beside.

Where the reference is T = 1, or the largest T, of the standard p_noise, a difference is over the same images and seeds:
the paired standard error of the ODE's BPD is 4 to 40 times smaller than that of either value.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

import numpy as np
import pandas as pd

from difftime.tables.frames import parts_of, rows_of
from difftime.tables.paired import CHOICE, difference, one_set_of_images
from difftime.tables.parquet import CELL, CURVE, shaped
from difftime.tables.published import SOURCE, TABLE1
from difftime.tables.render import latex, markdown_rows, plus_minus
from difftime.tables.statistics import over_seeds

Tables = Mapping[str, pd.DataFrame]
MEANS = {"likelihood": ("nfe", "nfe_sd", "batch", "units"), "elbo": ("kl_low_bpd", "kl_high_bpd")}


def table1(tables: Tables, settings: Mapping[str, Any]) -> pd.DataFrame:
    """A row for every cell and p_noise; null where it is not measured so.

    Raises BadTable if cells were measured on different images.
    """
    bpd, elbo = tables["likelihood"], tables["elbo"]
    one_set_of_images(bpd, elbo)
    trained = tables["training"].set_index(CELL)
    units = {name: _per_unit(tables[f"{name}_units"], name) for name in MEANS}
    of_cells = {name: parts_of(frame, CHOICE) for name, frame in (("likelihood", bpd), ("elbo", elbo))}
    rows = []
    for choice in dict.fromkeys([*of_cells["likelihood"], *of_cells["elbo"]]):
        key = dict(zip(CHOICE, choice, strict=True))
        cost = trained.loc[tuple(key[name] for name in CELL)]
        row = key | {
            "parameters": cost.parameters, "iterations": cost.steps, "seeds": cost.seeds, "weighting": cost.weighting,
            "data_kind": settings["kind"], "sde_kind": settings["sdes"][key["sde"]],
            "against_T": _reference([other for part in of_cells.values() for other in part], key),
        }  # fmt: skip
        for table, column in (("likelihood", "bpd"), ("elbo", "elbo_bpd")):
            if choice in of_cells[table]:
                own = of_cells[table][choice]
                row |= dict(zip(MEANS[table], own[[*MEANS[table]]].mean(), strict=True))
                row[column], row[f"{column}_se"] = over_seeds(own[column], own[f"{column}_se"].mean())
                against = (*choice[:3], "standard", row["against_T"])
                row[f"delta_{column}"], row[f"delta_{column}_se"] = difference(
                    units[table].get(choice), units[table].get(against)
                )
        if choice in of_cells["likelihood"]:
            row["failed"] = of_cells["likelihood"][choice].failed.sum()
        if choice in of_cells["elbo"]:
            row["elbo_units"] = of_cells["elbo"][choice].units.mean()
        rows.append(row | _published(row))
    return shaped(rows, "table1")


def _reference(choices: list[tuple[Any, ...]], key: Mapping[str, Any]) -> float:
    """T = 1 of the standard p_noise on this curve, or the largest T; NaN where that p_noise is not measured."""
    curve = (*(key[name] for name in CURVE[:3]), "standard")
    T = [choice[-1] for choice in choices if choice[:-1] == curve]
    return 1.0 if 1.0 in T else max(T, default=math.nan)


def _per_unit(units: pd.DataFrame, table: str) -> dict[tuple[Any, ...], pd.Series]:
    """The bits per dimension of every seed and image, mean over its draws, by choice."""
    column = "bpd" if table == "likelihood" else "elbo_bpd"
    filled = units.assign(value=units[column].fillna(np.inf))
    return {key: own.groupby(["seed", "unit"]).value.mean() for key, own in filled.groupby(CHOICE)}


def _published(row: Mapping[str, Any]) -> dict[str, float]:
    """The paper's values of the same kind of data and SDE, T and p_noise."""
    if row["sde_kind"] != "vp" or row["p_noise"] != "standard":
        return {}
    same = [one for one in TABLE1 if (one.dataset, one.T) == (row["data_kind"], row["T"])]
    return {"paper_bpd": same[0].bpd, "paper_nfe": same[0].nfe} if same else {}


HEADER = [
    "data", "net", "p_noise", "T", "BPD (ODE)", "ΔBPD", "ELBO (bpd, SDE)", "ΔELBO (bpd)", "KL (bpd)", "NFE",
    "ODE batch", "parameters", "iterations", "paper BPD", "paper NFE",
]  # fmt: skip


def table1_rows(frame: pd.DataFrame) -> list[list[str]]:
    """Table 1 as texts."""
    order = frame.sort_values(["dataset", "sde", "net", "p_noise", "T"], ascending=[True] * 4 + [False])
    return [
        [
            f"{row.dataset} {row.sde}", row.net, row.p_noise, f"{row.T:g}",
            plus_minus(row.bpd, row.bpd_se, 3) + (f" ({row.failed:.0f} failed)" if row.failed > 0 else ""),
            plus_minus(row.delta_bpd, row.delta_bpd_se, 4), plus_minus(row.elbo_bpd, row.elbo_bpd_se, 3),
            plus_minus(row.delta_elbo_bpd, row.delta_elbo_bpd_se, 4),
            "–" if math.isnan(row.kl_low_bpd) else f"{row.kl_low_bpd:.4f} to {row.kl_high_bpd:.4f}",
            plus_minus(row.nfe, row.nfe_sd, 0), "–" if math.isnan(row.batch) else f"{row.batch:.0f}",
            *(f"{count:,.0f}" if count == count else "–" for count in (row.parameters, row.iterations)),
            "" if math.isnan(row.paper_bpd) else f"{row.paper_bpd:.2f}",
            "" if math.isnan(row.paper_nfe) else f"{row.paper_nfe:g}",
        ]
        for row in rows_of(order)
    ]  # fmt: skip


def texts(frame: pd.DataFrame) -> dict[str, str]:
    """Table 1 as the paper prints it, in Markdown and in LaTeX, by the suffix of their files."""
    rows = table1_rows(frame)
    note = (
        f"Paper: Table 1 of {SOURCE}. ± is a standard error; for the NFE the standard deviation over batches. Δ is "
        "against the standard p_noise at T = 1, or at the largest T, paired over the same images and seeds."
    )
    return {".md": markdown_rows(HEADER, rows) + f"\n{note}\n", ".tex": latex(HEADER, rows)}
