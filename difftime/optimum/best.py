"""The tables optimum and prediction: the T of the best ELBO, from trained cells and from running ELBOs.

T* maximises the mean ELBO; of images it minimises the bound in bits per dimension. The interval is a bootstrap over
seeds and, of images, over images: whole curves are resampled, as their values are paired across T. It reflects the
variation of the sample only; the distance of the cells beside T* adds an error of its own, given beside it.

A pretrained network is the same at every T. Its curve is the running ELBO of the cell of its largest T, which predicts
nothing.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from typing import Any

import numpy as np
import pandas as pd

from difftime.optimum.curves import predicted_curves, trained_curve
from difftime.optimum.interpolated import Curve, at, uncertainty
from difftime.tables.frames import parts_of
from difftime.tables.paired import by_choice, one_set_of_images
from difftime.tables.parquet import CURVE, shaped
from difftime.tables.statistics import over_seeds

Tables = Mapping[str, pd.DataFrame]
SHOWN = 20
"""Every so manieth of the times at which a curve is looked at goes into the table prediction."""


def optimum(tables: Tables, settings: Mapping[str, Any]) -> pd.DataFrame:
    """T* of every curve by every method: from at least three times, or from the running ELBO of at least one model.

    Raises BadTable if cells were measured on different images.
    """
    rows = []
    for key, own in curves_of(tables):
        for method, curve in _by_method(own).items():
            rows.append(key | {"method": method} | _optimum_of(curve, own, settings))
    return shaped(rows, "optimum")


def curves_of(tables: Tables) -> Iterator[tuple[dict[str, str], dict[str, pd.DataFrame]]]:
    """Every curve by its key columns, with its part of the tables."""
    one_set_of_images(tables["elbo"])
    names = ("elbo", "curve", "elbo_units", "curve_units")
    parts = {name: parts_of(tables[name], CURVE) for name in names}
    for keys in dict.fromkeys([*parts["elbo"], *parts["curve"]]):
        own = {name: part.get(keys, tables[name].iloc[:0]) for name, part in parts.items()}
        yield dict(zip(CURVE, keys, strict=True)), own


def _by_method(own: Tables) -> dict[str, Curve]:
    if pd.isna(_first(own).weighting):
        own = {name: frame[frame["T"] == own["curve"]["T"].max()] for name, frame in own.items()}
        return predicted_curves(own["curve"], own["elbo"], own["curve_units"])
    trained = trained_curve(own["elbo"], own["elbo_units"])
    found: dict[str, Curve] = {"trained": trained} if trained else {}
    return found | predicted_curves(own["curve"], own["elbo"], own["curve_units"])


def _first(own: Tables) -> Any:
    """A row with what all cells of a curve have in common; its weighting is null if nothing was trained here."""
    return (own["elbo"] if len(own["elbo"]) else own["curve"]).iloc[0]


def _optimum_of(curve: Curve, own: Tables, settings: Mapping[str, Any]) -> dict[str, Any]:
    known = len(own["elbo_units"]) == len(own["curve_units"]) == 0
    sign = 1.0 if known else -1.0
    fine, elbo, places = curve.fine, curve.elbo(), curve.places
    best, first = int(elbo.argmax()), _first(own)
    above = min(max(int(np.searchsorted(places, fine[best])), 1), len(places) - 1)
    return {
        "unit": "nats" if known else "bits per dimension",
        "T_star": fine[best], "confidence": settings["optimum"]["confidence"],
        "spacing": places[above] - places[above - 1],
        "elbo_star": sign * elbo[best], "loss_at_star": first.log_p_data - elbo[best] if known else math.nan,
        "gain_over_1": elbo[best] - float(at(elbo[None], fine, 1.0)[0]),
        "gain_over_last": elbo[best] - elbo[-1], "T_last": fine[-1], "interior": bool(0 < best < len(fine) - 1),
        "times": len(places), "times_left_out": curve.left_out, "seeds": curve.seeds,
        "trained": listed(curve.trained), "epsilon": first.epsilon, "weighting": first.weighting,
    } | uncertainty(curve, settings)  # fmt: skip


def listed(times: np.ndarray) -> str:
    """Times in words."""
    return ", ".join(f"{T:g}" for T in times)


def prediction(tables: Tables, settings: Mapping[str, Any]) -> pd.DataFrame:
    """The curves that T* is read from: the mean of the trained cells at their T, and those predicted."""
    best = tables["optimum"].set_index([*CURVE, "method"])
    rows = []
    for key, own in curves_of(tables):
        known = len(own["elbo_units"]) == len(own["curve_units"]) == 0
        common = key | {"unit": "nats" if known else "bits per dimension", "units": own["elbo"].units.max()}
        points = {"trained": _trained_points(own, known)}
        for method, curve in _by_method(own).items():
            if method != "trained":
                points[method] = _points(curve, 1.0 if known else -1.0, settings)
        for method, of_method in points.items():
            place = (*key.values(), method)
            star = best.loc[place, ["T_star", "T_star_low", "T_star_high"]].to_dict() if place in best.index else {}
            rows += [common | {"method": method} | star | point for point in of_method]
    return shaped(rows, "prediction")


def _points(curve: Curve, sign: float, settings: Mapping[str, Any]) -> list[dict[str, Any]]:
    se = curve.se(settings["optimum"]["resamples"], settings["seed"])
    trained = listed(curve.trained)
    return [
        {"t": t, "elbo": elbo, "elbo_se": error, "trained": trained}
        for t, elbo, error in zip(*(part[::SHOWN] for part in (curve.fine, sign * curve.elbo(), se)), strict=True)
    ]


def _trained_points(own: Tables, known: bool) -> list[dict[str, Any]]:
    """The trained cells: null where a seed or a unit is not finite."""
    if known:
        cells = own["elbo"].groupby("T").elbo
        found = {T: over_seeds(v) if np.isfinite(v).all() else (math.nan, math.nan) for T, v in cells}
    else:
        units = own["elbo_units"].rename(columns={"elbo_bpd": "value"}).assign(known=0.0)
        choices = pd.MultiIndex.from_frame(units[[*CURVE, "T"]].drop_duplicates().sort_values("T"))
        paired = by_choice(units, choices)
        found = dict(zip(choices.get_level_values("T"), zip(paired.mean, paired.se, strict=True), strict=True))
    trained = listed(np.array([*found]))
    return [{"t": T, "elbo": mean, "elbo_se": se, "trained": trained} for T, (mean, se) in found.items()]


def said(optimum: pd.DataFrame) -> list[str]:
    """The table optimum in words: a line for every curve, from trained cells where it has them."""
    lines = []
    for _, curve in optimum.groupby(CURVE, sort=False):
        lines.append(_said_of(min(curve.itertuples(), key=lambda row: ("trained", "curve").index(row.method)
                                  if row.method in ("trained", "curve") else 2)))  # fmt: skip
    return lines or ["No T*: no curve has a running ELBO, or enough T, at which every seed is finite."]


def _said_of(row: Any) -> str:
    unit, digits = ("nats", 3) if row.unit == "nats" else ("bits per dimension", 4)
    interval, se = f"[{row.T_star_low:.2f}, {row.T_star_high:.2f}]", f" ± {row.elbo_star_se:.{digits}f}"
    remarks = []
    if math.isnan(row.T_star_low):
        interval, se = "(one seed: no interval)", ""
    elif row.T_star_high - row.T_star_low < row.spacing:
        remarks.append(f"interpolated between times {row.spacing:.2g} apart")
    if not row.interior:
        remarks = ["at the edge of the times studied"]
    if row.method != "trained":
        remarks.append(f"from the running ELBO of T = {row.trained}")
    if row.times_left_out:
        remarks.append(f"{row.times_left_out} T left out, where not everything is finite")
    name = f"{row.dataset} {row.sde} {row.net}, {row.p_noise} p_noise"
    remark = f" ({'; '.join(remarks)})" if remarks else ""
    return f"{name}: T* = {row.T_star:.2f} {interval}, ELBO {row.elbo_star:.{digits}f}{se} {unit}{remark}"
