"""Which T to train next, curve by curve, and why; or why none. Of a pretrained network none is trained.

T* and its interval are predicted from the running ELBOs of all cells there are. The prediction is exact at every
trained T, so what it gets wrong between the cells beside T* has as much room as these are apart. While that is more
than the tolerance, a cell is suggested there. Its interval knows seeds and images only: cells do not narrow it.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd

from difftime.optimum.best import curves_of
from difftime.optimum.curves import predicted_curves
from difftime.optimum.interpolated import Curve, uncertainty

TOLERANCE = 0.1
"""How far apart, in SDE time, the trained T beside T* may be."""
OUTWARD = 1.5
"""A T* at the edge of the T studied is looked for at this factor beyond."""


@dataclass(frozen=True)
class Suggestion:
    """The T to train next for one curve, or None, and why."""

    dataset: str
    sde: str
    net: str
    p_noise: str
    T: float | None
    why: str

    def __str__(self) -> str:
        return f"{self.dataset} {self.sde} {self.net}, {self.p_noise} p_noise: {self.why}"


def suggest(
    tables: Mapping[str, pd.DataFrame], settings: Mapping[str, Any], tolerance: float = TOLERANCE
) -> list[Suggestion]:
    """For every curve of the tables elbo and curve, of images with their units."""
    found = []
    for key, own in curves_of(tables):
        curve = predicted_curves(own["curve"], own["elbo"], own["curve_units"]).get("curve")
        T = np.sort(pd.concat([own["elbo"]["T"], own["curve"]["T"]]).unique())
        if curve is None:
            next_T, why = None, _not_known(own["curve"], T)
        elif key["net"] in settings["pretrained"]:
            next_T, why = None, _of_one_model(curve, settings)
        else:
            next_T, why = _next(curve, T, settings, tolerance)
        found.append(Suggestion(**key, T=next_T, why=why))
    return found


def _not_known(running: pd.DataFrame, T: np.ndarray) -> str:
    if running.empty:
        return "no running ELBO is known, as of a p_noise that is fitted to one T alone: nothing is predicted"
    return f"none of its {len(T)} cells has a finite ELBO of every seed and image: nothing is predicted"


def _next(curve: Curve, T: np.ndarray, settings: Mapping[str, Any], tolerance: float) -> tuple[float | None, str]:
    """The T to train next, or None, and why."""
    elbo = curve.elbo()
    best, trained = int(elbo.argmax()), curve.trained
    star, sure = float(curve.fine[best]), uncertainty(curve, settings)
    said = _said(star, sure)
    if curve.left_out:
        said += f", {curve.left_out} cells left out"
    below, above = neighbours(star, trained, tolerance)
    apart = above - below
    if best == len(elbo) - 1 and not sure["plateau_low"] <= below:
        beyond = rounded(OUTWARD * trained[-1])
        return beyond, f"train T = {beyond:g}: {said}, the largest T there is, so the best may lie beyond"
    if best == 0 and not sure["plateau_high"] >= above:
        beyond = rounded(trained[0] / OUTWARD)
        if len(trained) == 1:
            return beyond, f"train T = {beyond:g}: {said}, the smallest T that the model of {trained[0]:g} knows"
        return beyond, f"train T = {beyond:g}: {said}, the smallest T there is, so the best may lie before it"
    if len(trained) == 1 and star < trained[0] - tolerance / 2:
        place = between(star, 0.0, trained[0], T, tolerance)
        if place is not None:
            return place, f"train T = {place:g}: {said}, predicted from the model of T = {trained[0]:g} alone"
    if apart > tolerance * (1 + 1e-9):
        place = between(star, below, above, T, tolerance)
        if place is not None:
            return place, f"train T = {place:g}: {said}, and the cells beside it are {apart:.3g} apart"
        return None, f"no T is left to train: {said}, between {below:g} and {above:g}"
    width = sure["T_star_high"] - sure["T_star_low"]
    more = "" if math.isnan(width) or width <= tolerance else "; only more seeds or images narrow the interval"
    more = " (one seed: no interval)" if math.isnan(width) else more
    flat = ", the ELBO is flat to there within its error" if best in (0, len(elbo) - 1) else ""
    return None, f"enough: {said}{flat}, cells {apart:.2g} apart{more}"


def _of_one_model(curve: Curve, settings: Mapping[str, Any]) -> str:
    """What is known of a pretrained network, of which a cell of another T would be the same network."""
    star = float(curve.fine[int(curve.elbo().argmax())])
    return f"enough: {_said(star, uncertainty(curve, settings))}, of one model, whose running ELBO knows every T"


def _said(star: float, sure: Mapping[str, float]) -> str:
    """T* and its interval."""
    interval = "" if math.isnan(sure["T_star_low"]) else f" [{sure['T_star_low']:.3g}, {sure['T_star_high']:.3g}]"
    return f"T* = {star:.3g}{interval}"


def neighbours(star: float, trained: np.ndarray, tolerance: float) -> tuple[float, float]:
    """The trained T next to T* on either side; the outermost one where there is none.

    One at T* itself, to the precision of the suggested T, is on neither side: the optimum may lie on both.
    """
    apart = 0.5 * 10.0 ** -decimals(tolerance)
    below, above = trained[trained < star - apart], trained[trained > star + apart]
    return float(below.max(initial=trained[0])), float(above.min(initial=trained[-1]))


def decimals(tolerance: float) -> int:
    """Decimals of suggested T, so that folders have short names: steps of at most a fifth of the tolerance."""
    return max(0, -math.floor(math.log10(tolerance / 5) + 1e-9))


def rounded(T: float) -> float:
    """To two digits."""
    return float(f"{T:.2g}")


def between(star: float, below: float, above: float, trained: np.ndarray, tolerance: float) -> float | None:
    """The T to train next between two trained ones, rounded to at most six digits; None if none is free.

    Next to a cell within the tolerance of T*, a tolerance from it on the other side of T*, or midway where that
    suffices. Else half a tolerance from T*, on its wider side: the next one then closes in from the other.
    """
    left, right = star - below, above - star
    toward = 1.0 if right > left else -1.0
    coincident = np.abs(trained - star).min() <= 0.5 * 10.0 ** -decimals(tolerance)
    if coincident or min(left, right) > tolerance:
        wanted = star + toward * tolerance / 2
    else:
        wanted = (below if toward > 0 else above) + toward * min(tolerance, (above - below) / 2)
    unit = 10 ** decimals(tolerance)
    whole = np.arange(math.ceil(below * unit), math.floor(above * unit) + 1) / unit
    short = [T for T in whole.tolist() if below < T < above and float(f"{T:g}") == T and T not in trained]
    return min(short, key=lambda T: abs(T - wanted), default=None)


def blocks(suggestions: Iterable[Suggestion], study: Sequence[Mapping[str, Any]] = ()) -> list[dict[str, Any]]:
    """The blocks of a study file that train what is suggested: one for each data set, SDE and network.

    A block measures what the first block of `study` with the same data set, SDE and network measures.
    """
    times: dict[tuple[str, str, str], set[float]] = {}
    for one in suggestions:
        if one.T is not None:
            times.setdefault((one.dataset, one.sde, one.net), set()).add(one.T)
    found = []
    for keys, T in times.items():
        key = dict(zip(("dataset", "sde", "net"), keys, strict=True))
        own = next((block for block in study if all(_has(block, *pair) for pair in key.items())), {})
        measured = {"measure": own["measure"]} if "measure" in own else {}
        found.append(key | {"T": sorted(T)} | measured)
    return found


def _has(block: Mapping[str, Any], key: str, name: str) -> bool:
    """Whether a block names it, alone or in a list."""
    value = block.get(key)
    return value == name or (isinstance(value, Sequence) and not isinstance(value, str) and name in value)
