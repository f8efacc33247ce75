"""The best T from a few trained cells: what their running integrals say of the cells that are not trained.

A model trained up to T' has a gap g(t; T') for every t <= T'. The cell at T would have G(T) = g(T; T), and that is not
g(T; T'): a model that also has to know later times knows the early ones less well. One model alone does not see what a
larger T' costs at all t, and where that is most of it, it predicts too large a T*. Several models tell it. At a
scouting time T_i the ratio G(T_i) / g(T_i; T_j) to the next model, trained to T_j, is known; at T_j it is 1. Between
them its logarithm is taken to be linear in T:

    log G(T) = log g(T; T_j) + (T_j - T) / (T_j - T_i) * log[G(T_i) / g(T_i; T_j)],    T_i <= T <= T_j.

That is exact at every scouting time, and takes its shape between them from a model that was trained on both sides. KL
is known at every T without a model. The interval is the same bootstrap over seeds as that of the trained cells: it does
not know the error of the interpolation.
"""

from __future__ import annotations

import math
from itertools import pairwise

import numpy as np
import pandas as pd
from scipy.interpolate import PchipInterpolator

from difftime.config import OptimumSettings
from difftime.schemas import TABLES
from difftime.tables import LINE, Curve, empty, uncertainty

FINE = 2001
"""Times on which a predicted curve is searched for its maximum."""
SHOWN = 20
"""Every so manieth of them goes into the table of curves."""


class _Model:
    """log g(t; T) of the seeds of one cell, between the smallest running time and T."""

    def __init__(self, rows: pd.DataFrame) -> None:
        wide = rows.pivot(index="t", columns="seed", values="gap").sort_index()
        self.start = wide.index[0]
        self.log_gap = PchipInterpolator(wide.index.to_numpy(), np.log(wide.to_numpy()), axis=0)

    def __call__(self, t: np.ndarray) -> np.ndarray:
        """[seeds, times]"""
        return self.log_gap(t).T


def predicted_gap(models: dict[float, _Model], T: np.ndarray) -> np.ndarray:
    """G(T) of cells that are not trained [seeds, T], between the first and the last of the `models`, which are."""
    ends = sorted(models)
    log_gap = models[ends[0]](T)
    for low, high in pairwise(ends):
        here = low < T
        at_low = np.array([low])
        ratio = models[low](at_low) - models[high](at_low)
        log_gap[:, here] = (models[high](T) + np.clip((high - T) / (high - low), 0, 1) * ratio)[:, here]
    return np.exp(log_gap)


def _curve(rows: pd.DataFrame, gap: np.ndarray, T: np.ndarray) -> Curve:
    """The ELBO at the times `T` from a gap [seeds, T] and from the KL that the running integrals came with."""
    ends = rows.drop_duplicates("t").sort_values("t")
    kl = np.exp(PchipInterpolator(ends.t, np.log(np.maximum(ends.kl, 1e-15)))(T))
    shared = np.stack([PchipInterpolator(ends.t, ends.kl_se)(T), np.zeros_like(T)])
    return Curve(T, kl, gap, rows.entropy.mean(), rows.entropy_se.mean(), shared)


def _optimum(curve: Curve, settings: OptimumSettings, seed: int) -> dict[str, object]:
    elbo = curve.elbo(curve.T)
    best = int(elbo.argmax())
    found = uncertainty(curve, curve.T, settings, seed)
    return {"T_star": curve.T[best], "interior": bool(0 < best < len(elbo) - 1), "elbo_star": elbo[best]} | {
        name: found[name] for name in ("T_star_low", "T_star_high", "elbo_star_se")
    }


def _usable(rows: pd.DataFrame) -> pd.DataFrame:
    """Without the cells of which not every running gap is a positive number."""
    good = rows.groupby("T").gap.transform(lambda gap: bool(np.isfinite(gap).all() and (gap > 0).all()))
    return rows[good.astype(bool)]


def _predictions(rows: pd.DataFrame, settings: OptimumSettings, seed: int) -> dict[str, tuple[Curve, dict]]:
    """By the last model alone, and by all of them; nothing of fewer than two models."""
    rows = _usable(rows)
    models = {T: _Model(of_T) for T, of_T in rows.groupby("T")}
    if len(models) < 2:
        return {}
    fine = np.linspace(min(models), max(models), FINE)
    gaps = {"one model": np.exp(models[max(models)](fine)), "all models": predicted_gap(models, fine)}
    curves = {method: _curve(rows, gap, fine) for method, gap in gaps.items()}
    return {method: (curve, _optimum(curve, settings, seed)) for method, curve in curves.items()}


def scout(
    running: pd.DataFrame, elbo: pd.DataFrame, optimum: pd.DataFrame, settings: OptimumSettings, seed: int
) -> tuple[pd.DataFrame, pd.DataFrame]:
    """The tables `scout` and `scout_curves`: predicted optimum of every line, and what the trained cells say."""
    rows, curves = [], []
    trained = optimum.set_index(LINE)
    for keys, line in running.groupby(LINE, sort=False):
        predicted, key = _predictions(line, settings, seed), dict(zip(LINE, keys, strict=True))
        if not predicted:
            continue
        one, best = (predicted[method][1] for method in ("one model", "all models"))
        known = trained.loc[keys].to_dict() if keys in trained.index else {}
        own = elbo[(elbo[LINE] == pd.Series(key)).all(axis=1)]
        times = np.sort(own["T"].unique())
        scouts = np.sort(_usable(line)["T"].unique())
        rows.append(key | best | _compared(best, one, known) | _work(scouts, times, best))
        curves += [_points(key, method, *found) for method, found in predicted.items()]
        curves.append(_trained(key, own, known))
    columns = {name: [c.name for c in TABLES[name]] for name in ("scout", "scout_curves")}
    if not rows:
        return empty("scout"), empty("scout_curves")
    return pd.DataFrame(rows)[columns["scout"]], pd.concat(curves, ignore_index=True)[columns["scout_curves"]]


def _compared(best: dict, one: dict, known: dict) -> dict[str, object]:
    """The prediction of one model, and what the trained cells found."""
    names = ("T_star", "T_star_low", "T_star_high", "interior")
    row = {f"one_{name}": one[name] for name in names} | {f"trained_{name}": known.get(name) for name in names[:3]}
    low, high = row["trained_T_star_low"], row["trained_T_star_high"]
    told = low is not None and math.isfinite(low)
    return row | {"within": ("yes" if low <= best["T_star"] <= high else "no") if told else "unknown"}


def _work(scouts: np.ndarray, times: np.ndarray, best: dict) -> dict[str, object]:
    """How much of the grid was trained for the prediction, and which cells of it are worth training."""
    # the neighbours of T*, between which it is interpolated, are worth it in any case
    above = min(int(np.searchsorted(times, best["T_star"])), len(times) - 1)
    inside = (times >= best["T_star_low"]) & (times <= best["T_star_high"])
    inside[[max(above - 1, 0), above]] = True
    return {
        "scouts": ", ".join(f"{T:g}" for T in scouts), "cells": len(times), "trained_share": len(scouts) / len(times),
        "worth": ", ".join(f"{T:g}" for T in times[inside]), "worth_cells": int(inside.sum()),
    }  # fmt: skip


def _points(key: dict, method: str, curve: Curve, best: dict) -> pd.DataFrame:
    part = slice(None, None, SHOWN)
    gap = curve.gaps[:, part]
    se = gap.std(0, ddof=1) / math.sqrt(len(gap)) if len(gap) > 1 else np.full(gap.shape[1], math.nan)
    frame = pd.DataFrame({"t": curve.T[part], "elbo": curve.elbo(curve.T[part]), "elbo_se": se})
    told = {name: best[name] for name in ("T_star", "T_star_low", "T_star_high")}
    return frame.assign(**key, **told, method=method, seeds=len(curve.gaps))


def _trained(key: dict, own: pd.DataFrame, known: dict) -> pd.DataFrame:
    """The trained cells' ELBO: mean over seeds and its standard error; null where a seed is not finite."""
    cells = own.groupby("T").elbo
    frame = cells.agg(lambda v: v.mean() if np.isfinite(v).all() else math.nan).rename("elbo").reset_index()
    se = cells.agg(lambda v: v.std(ddof=1) / math.sqrt(len(v)) if len(v) > 1 and np.isfinite(v).all() else math.nan)
    names = ("T_star", "T_star_low", "T_star_high")
    frame = frame.rename(columns={"T": "t"}).assign(elbo_se=se.to_numpy())
    return frame.assign(
        **key, method="trained", seeds=own.seed.nunique(), **{name: known.get(name, math.nan) for name in names}
    )
