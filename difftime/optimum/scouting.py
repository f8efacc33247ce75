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

A refinement trains further cells where T* is predicted. As its interval knows the seeds only, it asks for two things
before it calls T* known to a tolerance: an interval of at most that width, and trained cells on both sides of T* that
are no farther apart. The prediction is exact at both, so what it gets wrong between them has that much room and no
more. Cells narrow the second, and only seeds the first: where the second is met and the first is not, it ends and says
so.
"""

from __future__ import annotations

import json
import math
import re
from collections.abc import Callable, Iterable, Sequence
from itertools import pairwise

import numpy as np
import pandas as pd
from scipy.interpolate import PchipInterpolator

from difftime.study.settings import Block, Decision, Line, OptimumSettings, RefineSettings, Stop, refined_lines
from difftime.tables.derived import LINE, BadTable, Curve, empty, uncertainty
from difftime.tables.schema import TABLES

FINE = 2001
"""Times on which a predicted curve is searched for its maximum."""
SHOWN = 20
"""Every so manieth of them goes into the table of curves."""


class _Model:
    """log g(t; T) of the seeds of one cell, between the smallest running time and T."""

    def __init__(self, rows: pd.DataFrame) -> None:
        wide = rows.pivot(index="t", columns="seed", values="gap").sort_index()
        self.start, self.T = wide.index[[0, -1]]
        self.log_gap = PchipInterpolator(wide.index.to_numpy(), np.log(wide.to_numpy()), axis=0)

    def __call__(self, t: np.ndarray) -> np.ndarray:
        """[seeds, times]. Raises BadTable below the smallest running time, where nothing is known."""
        if len(t) and t.min() < self.start * (1 - 1e-9):
            raise BadTable(
                f"The running ELBO of the cell at T = {self.T:g} begins at {self.start:g} and says nothing of "
                f"{t.min():g}. Raise scout.times to {math.ceil(self.T / t.min())}."
            )
        return self.log_gap(t).T


def predicted_gap(models: dict[float, _Model], T: np.ndarray) -> np.ndarray:
    """G(T) of cells that are not trained [seeds, T], T rising, between the first and the last of the `models`.

    Raises BadTable for a T outside these, of which the models know nothing.
    """
    ends = sorted(models)
    if T.min() < ends[0] or T.max() > ends[-1]:
        beyond = T.min() if T.min() < ends[0] else T.max()
        raise BadTable(f"Models trained up to T = {ends[0]:g} to {ends[-1]:g} predict nothing at T = {beyond:g}.")
    parts = []
    for low, high in pairwise(ends):
        here, at_low = T[(low <= T) & (high > T)], np.array([low])
        ratio = models[low](at_low) - models[high](at_low)
        parts.append(models[high](here) + (high - here) / (high - low) * ratio)
    return np.exp(np.hstack([*parts, models[ends[-1]](T[ends[-1] <= T])]))


def _curve(rows: pd.DataFrame, gap: np.ndarray, T: np.ndarray) -> Curve:
    """The ELBO at the times `T` from a gap [seeds, T] and from the KL that the running integrals came with."""
    ends = rows.sort_values("t")
    # the same time of two models may differ in its last bit, and a slope between such a pair is rounding alone
    ends = ends[~(ends.t.diff() <= 1e-9 * ends.t)]
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


def _predictions(
    rows: pd.DataFrame, settings: OptimumSettings, seed: int, methods: Iterable[str] = ("one model", "all models")
) -> dict[str, tuple[Curve, dict]]:
    """By the last model alone, and by all of them; nothing of fewer than two models."""
    rows = _usable(rows)
    models = {T: _Model(of_T) for T, of_T in rows.groupby("T")}
    if len(models) < 2:
        return {}
    fine = np.linspace(min(models), max(models), FINE)
    gaps = {"one model": np.exp(models[max(models)](fine)), "all models": predicted_gap(models, fine)}
    curves = {method: _curve(rows, gaps[method], fine) for method in methods}
    return {method: (curve, _optimum(curve, settings, seed)) for method, curve in curves.items()}


def scout(
    running: pd.DataFrame,
    elbo: pd.DataFrame,
    optimum: pd.DataFrame,
    runs: pd.DataFrame,
    refined: pd.DataFrame,
    settings: OptimumSettings,
    seed: int,
) -> tuple[pd.DataFrame, pd.DataFrame]:
    """The tables `scout` and `scout_curves`: predicted optimum of every line, and what the trained cells say.

    A line that is refined has no row in `scout`, as it is predicted from every cell: the table `refined` is of these.
    Raises BadTable if a line has cells of a larger T than any of its models was trained up to.
    """
    rows, curves = [], []
    trained = optimum.set_index(LINE)
    for keys, line in running.groupby(LINE, sort=False):
        predicted, key = _predictions(line, settings, seed), dict(zip(LINE, keys, strict=True))
        own = elbo[(elbo[LINE] == pd.Series(key)).all(axis=1)]
        times = np.sort(own["T"].unique())
        if len(times) and times[-1] > line["T"].max():
            raise BadTable(
                f"{' '.join(keys)}: the scouting models were trained up to T = {line['T'].max():g}, which says nothing "
                f"of the cell at T = {times[-1]:g}. Measure the running ELBO of the largest T too."
            )
        if not predicted:
            continue
        one, best = (predicted[method][1] for method in ("one model", "all models"))
        known = trained.loc[keys].to_dict() if keys in trained.index else {}
        scouts = np.sort(_usable(line)["T"].unique())
        whole = refined[(refined[LINE[:3]] == pd.Series(key)[LINE[:3]]).all(axis=1)]
        cost = {method: _hours(runs, key, T) for method, T in _needed(np.sort(line["T"].unique()), times).items()}
        total = whole.iloc[0].grid_hours if len(whole) else cost["trained"]["hours"]
        if whole.empty:
            saved = {"line_hours": total, "saved_hours": total - cost["all models"]["hours"]}
            rows.append(
                key | best | _compared(best, one, known) | _work(scouts, times, best) | cost["all models"] | saved
            )
        points = [_points(key, method, *found) for method, found in predicted.items()]
        for part in (*points, _trained(key, own, known)):
            curves.append(part.assign(**cost[part.method.iloc[0]], grid_hours=total))
    columns = {name: [c.name for c in TABLES[name]] for name in ("scout", "scout_curves")}
    found = pd.DataFrame(rows)[columns["scout"]] if rows else empty("scout")
    return found, pd.concat(curves, ignore_index=True)[columns["scout_curves"]] if curves else empty("scout_curves")


def _needed(scouts: np.ndarray, times: np.ndarray) -> dict[str, np.ndarray]:
    """T of the cells that each method needs."""
    return {"one model": scouts[-1:], "all models": scouts, "trained": times}


def _devices(run: pd.Series) -> tuple[str, int]:
    """What trained a cell, GPU or CPU, and how many: GPUs, or threads."""
    if math.isfinite(run.peak_gpu_memory):
        several = re.match(r"(\d+) × ", run.device)
        return "GPU", int(several[1]) if several else 1
    return "CPU", json.loads(run.settings)["threads"]


def _each_hours(runs: pd.DataFrame, key: Line, times: np.ndarray) -> tuple[list[float], str]:
    """Device-hours of training each cell of a line, and whose: seconds of the process that finished it, by devices."""
    own = runs[
        (runs[LINE[:3]] == pd.Series(key)[LINE[:3]]).all(axis=1) & (runs.verb == "train") & runs["T"].isin(times)
    ]
    of_cells = [(*_devices(run), run.seconds / 3600) for _, run in own.iterrows()]
    kinds = {kind for kind, _, _ in of_cells}
    if len(of_cells) < len(times) or len(kinds) != 1:
        return [math.nan] * len(times), "mixed" if len(of_cells) == len(times) else "unknown"
    return [count * hours for _, count, hours in of_cells], kinds.pop()


def _hours(runs: pd.DataFrame, key: Line, times: np.ndarray) -> dict[str, object]:
    hours, kind = _each_hours(runs, key, times)
    return {"hours": sum(hours), "hours_of": kind}


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


def decide(running: pd.DataFrame, refine: RefineSettings, settings: OptimumSettings, seed: int) -> Decision:
    """Which T of a line to train next, or why none. `running`: of all its cells, for one p_noise.

    T* and its interval are those of the prediction from all cells. While the trained cells beside T* are farther apart
    than the tolerance, a cell is added there, if the budget has one left. After that it ends: `edge` if T* is the
    smallest or the largest T, `narrow` if the interval is within the tolerance, `seeds` if it is wider, which more
    cells do not change. Raises BadTable for more than one line, a T given twice, or a single seed.
    """
    line, p_noise = _the_line(running)
    trained, usable = (np.sort(rows["T"].unique()) for rows in (running, _usable(running)))
    found: dict[str, object] = {
        "p_noise": p_noise, "trained": trained.tolist(), "left_out": np.setdiff1d(trained, usable).tolist(),
        "interior": False, "add": None, "stopped": "diverged",
        **dict.fromkeys(("T_star", "T_star_low", "T_star_high", "below", "above")),
    }  # fmt: skip
    predicted = _predictions(running, settings, seed, ["all models"])
    if not predicted:
        why = f"of its {len(trained)} cells fewer than two have a finite gap of every seed"
        return Decision.model_validate(found | {"why": f"{line}, {p_noise}: {why}"})
    best = predicted["all models"][1]
    place = {name: float(best[name]) for name in ("T_star", "T_star_low", "T_star_high")}
    below, above = _neighbours(place["T_star"], usable, refine.tolerance)
    found |= place | {"below": below, "above": above, "interior": best["interior"]}
    stopped, why = _verdict(place, below, above, bool(best["interior"]), refine)
    if stopped is None and len(trained) >= refine.cells:
        stopped, why = "budget", f"its {refine.cells} cells are spent; those beside T* are {above - below:.3g} apart"
    elif stopped is None:
        found["add"] = _next(place["T_star"], below, above, trained, refine.tolerance)
        stopped, why = (None, f"T = {found['add']} is next") if found["add"] else ("place", "no T is left beside T*")
    said = f"T* = {place['T_star']:.3g} [{place['T_star_low']:.3g}, {place['T_star_high']:.3g}]"
    said += "" if best["interior"] else ", at the EDGE"
    said += f", {len(trained) - len(usable)} cells left out, not finite" if len(usable) < len(trained) else ""
    return Decision.model_validate(found | {"stopped": stopped, "why": f"{line}, {p_noise}: {said}; {why}"})


def _the_line(running: pd.DataFrame) -> tuple[str, str]:
    """The name of the only line in a table of running ELBOs, and its p_noise."""
    lines = running[LINE].drop_duplicates()
    if len(lines) != 1:
        raise BadTable(f"A refinement is of one line and p_noise, but its tables are of {len(lines)}.")
    if running.duplicated(["T", "seed", "t"]).any():
        raise BadTable("The running ELBO of a T is given twice.")
    if running.seed.nunique() < 2:
        raise BadTable("A single seed tells no interval of T*, so nothing to refine until it is narrow.")
    *line, p_noise = lines.iloc[0]
    return " ".join(line), p_noise


def _decimals(tolerance: float) -> int:
    """Decimals of added T, so that folders have short names: steps of at most a fifth of the tolerance."""
    return max(0, -math.floor(math.log10(tolerance / 5) + 1e-9))


def _neighbours(T_star: float, usable: np.ndarray, tolerance: float) -> tuple[float, float]:
    """The trained T next to T* on either side; T* itself where there is none.

    One at T* itself, to the precision of the added T, is on neither side: the optimum may lie on both.
    """
    apart = 0.5 * 10.0 ** -_decimals(tolerance)
    below, above = usable[usable < T_star - apart], usable[usable > T_star + apart]
    return float(below.max(initial=usable[0])), float(above.min(initial=usable[-1]))


def _verdict(
    place: dict[str, float], below: float, above: float, interior: bool, refine: RefineSettings
) -> tuple[Stop | None, str]:
    """Why a refinement is at its end; None while T* lies between cells that are too far apart."""
    if above - below > refine.tolerance * (1 + 1e-9):
        return None, ""
    if not interior:
        return "edge", "no optimum lies inside the T studied: move that edge outward"
    if place["T_star_high"] - place["T_star_low"] <= refine.tolerance:
        return "narrow", f"known to {refine.tolerance:g}"
    return "seeds", f"its cells are within {refine.tolerance:g}; only more seeds make the interval narrower"


def _next(T_star: float, below: float, above: float, trained: np.ndarray, tolerance: float) -> float | None:
    """The T to train next between two trained ones, rounded; None if none is free.

    Next to a cell within the tolerance of T*, a tolerance from it on the other side of T*, or midway where that
    suffices. Else half a tolerance from T*, on its wider side: the next one then closes in from the other.
    """
    left, right = T_star - below, above - T_star
    toward = 1.0 if right > left else -1.0
    coincident = np.abs(trained - T_star).min() <= 0.5 * 10.0 ** -_decimals(tolerance)
    if coincident or min(left, right) > tolerance:
        wanted = T_star + toward * tolerance / 2
    else:
        wanted = (below if toward > 0 else above) + toward * min(tolerance, (above - below) / 2)
    decimals = _decimals(tolerance)
    whole = np.arange(math.ceil(below * 10**decimals), math.floor(above * 10**decimals) + 1) / 10**decimals
    short = [T for T in whole.tolist() if below < T < above and float(f"{T:g}") == T and T not in trained]
    return min(short, key=lambda T: abs(T - wanted), default=None)


def refined(
    blocks: Sequence[Block], decided: Callable[[Line], Iterable[Decision]], runs: pd.DataFrame, optimum: pd.DataFrame
) -> pd.DataFrame:
    """The table `refined`: how the refinement of every line went and ended, and what its training took."""
    trained = optimum.set_index(LINE)
    rows = []
    for line, block in refined_lines(blocks):
        assert block.refine is not None
        rounds = list(decided(line))
        last, keys = rounds[-1], (*line.values(), rounds[-1].p_noise)
        known = trained.loc[keys] if keys in trained.index else {}
        found = last.model_dump(
            include={"T_star", "T_star_low", "T_star_high", "below", "above", "interior", "stopped", "why"}
        )
        stars = ", ".join("none" if one.T_star is None else f"{one.T_star:.3g}" for one in rounds)
        rows.append(line | found | {
            "p_noise": last.p_noise, "rounds": len(rounds), "cells": len(last.trained), "budget": block.refine.cells,
            "start": ", ".join(f"{T:g}" for T in sorted(block.T)),
            "added": ", ".join(f"{one.add:g}" for one in rounds if one.add is not None), "T_stars": stars,
            "width": None if last.T_star_low is None else last.T_star_high - last.T_star_low,
            "tolerance": block.refine.tolerance, "left_out": len(last.left_out),
            **{f"trained_{name}": known.get(name) for name in ("T_star", "T_star_low", "T_star_high")},
            **_grid_hours(runs, line, np.array(last.trained), block.refine.tolerance),
        })  # fmt: skip
    columns = {c.name: c.type for c in TABLES["refined"]}
    return pd.DataFrame(rows, columns=list(columns)).astype({n: k for n, k in columns.items() if k == "float64"})


def _grid_hours(runs: pd.DataFrame, line: Line, trained: np.ndarray, tolerance: float) -> dict[str, object]:
    """What the cells of a line took, and what a grid of them spaced by the tolerance would take at their mean."""
    each, kind = _each_hours(runs, line, trained)
    cells = math.ceil((trained.max() - trained.min()) / tolerance - 1e-9) + 1
    whole = cells * float(np.mean(each))
    return {
        "hours": sum(each), "grid_cells": cells, "grid_hours": whole,
        "grid_hours_se": cells * float(np.std(each, ddof=1)) / math.sqrt(len(each)), "saved_hours": whole - sum(each),
        "hours_of": kind,
    }  # fmt: skip
