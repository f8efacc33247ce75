"""The table cheapest: of all T and p_noises of an SDE and a network, what `choice` takes."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

import numpy as np
import pandas as pd

from difftime.optimum.choice import choose
from difftime.tables.frames import parts_of, rows_of
from difftime.tables.paired import CHOICE, by_choice, one_set_of_images
from difftime.tables.parquet import CURVE, shaped
from difftime.tables.render import latex, markdown_rows, plus_minus
from difftime.tables.statistics import ERRORS, Paired

Tables = Mapping[str, pd.DataFrame]
MEASURED = ("elbo", "likelihood", "samples")
MODELS = {"ode": ("likelihood", "nfe"), "sde": ("elbo", "sde_steps")}
"""What a model is judged by, and what it costs."""


def cheapest(tables: Tables, settings: Mapping[str, Any]) -> pd.DataFrame:
    """The choice for the ODE, by its log-likelihood or BPD, and for the SDE, by its ELBO, of every SDE and network.

    A choice with a value that is not finite is none; an SDE and network without any has no row. Raises BadTable if
    cells were measured on different images.
    """
    one_set_of_images(*(tables[name] for name in MEASURED))
    loss, rows = settings["optimum"]["loss"], []
    known = settings["kind"] == "mixture"
    unit, sign = ("nats", 1.0) if known else ("bits per dimension", -1.0)
    for keys, own in networks(tables):
        choices = choices_of(own)
        qualities, costs = qualities_of(own, choices, known), costs_of(own, choices)
        for model, (quality, cost) in MODELS.items():
            if quality in qualities:
                here = _Choices(choices, qualities[quality], costs[cost].to_numpy(float), sign)
                if found := here.row(np.arange(len(choices)), loss):
                    key = dict(zip(CURVE, keys, strict=False)) | {"model": model, "unit": unit, "loss": loss}
                    rows.append(key | found)
    return shaped(rows, "cheapest")


def networks(tables: Tables) -> list[tuple[tuple[str, str, str], dict[str, pd.DataFrame]]]:
    """Every SDE and network with its part of the tables: one may have more seeds than another."""
    names = (*MEASURED, "elbo_units", "likelihood_units")
    parts = {name: parts_of(tables[name], CURVE[:3]) for name in names}
    there = dict.fromkeys(key for name in MEASURED for key in parts[name])
    return [(key, {name: part.get(key, tables[name].iloc[:0]) for name, part in parts.items()}) for key in there]


def choices_of(tables: Tables) -> pd.MultiIndex:
    """Every T and p_noise of which something is measured."""
    # frames without rows would spoil the types of the columns
    there = [tables[name][CHOICE] for name in MEASURED if len(tables[name])]
    return pd.MultiIndex.from_frame(pd.concat(there).drop_duplicates())


def qualities_of(tables: Tables, choices: pd.MultiIndex, known: bool) -> dict[str, Paired]:
    """The qualities of one network's choices that are measured: the larger, the better. `known`: its density."""
    drawn = tables["samples"].query("sampler == 'sde'")
    # the spread of several seeds has the error of the samples in it
    of_samples = 0.0 if drawn.seed.nunique() > 1 else math.nan if known else drawn.wasserstein1_se
    long = {"distance": _long(drawn, -drawn.wasserstein1, of_samples)}
    if known:
        elbo, ode = tables["elbo"], tables["likelihood"]
        long["elbo"] = _long(elbo, elbo.elbo, elbo.elbo_se if elbo.seed.nunique() > 1 else math.nan)
        long["likelihood"] = _long(ode, ode.log_q_ode, 0.0 if ode.seed.nunique() > 1 else math.nan)
    else:
        elbo, ode = tables["elbo_units"], tables["likelihood_units"]
        long["elbo"] = _long(elbo, -elbo.elbo_bpd, 0.0, elbo.unit)
        long["likelihood"] = _long(ode, -ode.bpd, 0.0, ode.unit)
    return {name: by_choice(part, choices) for name, part in long.items() if len(part)}


def _long(frame: pd.DataFrame, value: pd.Series, known: pd.Series | float, unit: pd.Series | int = 0) -> pd.DataFrame:
    return frame[[*CHOICE, "seed"]].assign(value=value, known=known, unit=unit)


def costs_of(tables: Tables, choices: pd.MultiIndex) -> pd.DataFrame:
    """Evaluations of the score: of the ODE with their standard deviation over batches and seeds, and of the SDE."""
    solved = tables["likelihood"].groupby(CHOICE)
    spread = pd.concat([solved.nfe_sd.mean(), solved.nfe.std()], axis=1).astype(float)
    drawn = tables["samples"].query("sampler == 'sde'").groupby(CHOICE)
    parts = {
        "nfe": solved.nfe.mean(), "nfe_sd": np.sqrt((spread**2).sum(axis=1, min_count=1)),
        "sde_steps": drawn.steps.mean(),
    }  # fmt: skip
    return pd.DataFrame({name: part.astype(float).reindex(choices) for name, part in parts.items()}, index=choices)


class _Choices:
    """The choices of one network, of which a row of the table compares some."""

    def __init__(self, choices: pd.MultiIndex, quality: Paired, cost: np.ndarray, sign: float) -> None:
        self.choices, self.quality, self.cost, self.sign = choices, quality, cost, sign

    def row(self, places: np.ndarray, loss: float) -> dict[str, Any] | None:
        """The cheapest of these places, the best, and what the same rule takes of the standard p_noise alone."""
        found = choose(self.quality, self.cost, places, loss)
        if found is None:
            return None
        chosen, best, behind, se, usable = found
        row = self._described(chosen) | {"behind": behind, "behind_se": se, "choices": usable}
        row |= {f"best_{name}": value for name, value in self._described(best).items()}
        standard = places[self.choices.get_level_values("p_noise")[places] == "standard"]
        if alone := choose(self.quality, self.cost, standard, loss):
            usual = self._described(alone[0])
            row |= {f"standard_{name}": usual[name] for name in ("T", "value", "cost")}
            row["saved"] = 1 - row["cost"] / usual["cost"]
        return row

    def _described(self, place: int) -> dict[str, Any]:
        *_, p_noise, T = self.choices[place]
        value, se = self.sign * self.quality.mean[place], self.quality.se[place]
        return {"T": T, "p_noise": p_noise, "value": value, "value_se": se, "cost": self.cost[place]}


HEADER = [
    "data", "net", "model", "choice", "value", "evaluations", "behind the best", "best choice", "its value",
    "standard alone", "its value", "its evaluations", "saved",
]  # fmt: skip


def texts(frame: pd.DataFrame) -> dict[str, str]:
    """The table cheapest for people: Markdown and LaTeX, by the suffix of their files."""
    rows = [
        [
            f"{row.dataset} {row.sde}", row.net, f"{row.model}, {row.unit}", f"T = {row.T:g}, {row.p_noise}",
            plus_minus(row.value, row.value_se, 3), f"{row.cost:.0f}", plus_minus(row.behind, row.behind_se, 4),
            f"T = {row.best_T:g}, {row.best_p_noise}", plus_minus(row.best_value, row.best_value_se, 3),
            "–" if math.isnan(row.standard_T) else f"T = {row.standard_T:g}",
            plus_minus(row.standard_value, math.nan, 3), plus_minus(row.standard_cost, math.nan, 0),
            "–" if math.isnan(row.saved) else f"{row.saved:.0%}",
        ]
        for row in rows_of(frame)
    ]  # fmt: skip
    losses = ", ".join(f"{loss:g}" for loss in frame.loss.unique())
    note = (
        f"The choice has the fewest evaluations of those that are behind the best by at most {losses or 'the loss'}, "
        f"with {ERRORS:g} paired standard errors added. *Standard alone* is what the same rule takes of the standard "
        "p_noise. The value of the SDE is its ELBO, which has no steps; its evaluations are the steps of the samples, "
        "as many per unit of time at every T."
    )
    return {".md": markdown_rows(HEADER, rows) + f"\n{note}\n", ".tex": latex(HEADER, rows)}
