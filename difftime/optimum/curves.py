"""The mean ELBO over the diffusion time, from trained cells or from running ELBOs, and how it varies with the sample.

Trained cells. The ELBO falls steeply where KL[p(x,T) || p_noise] rises, towards small T, and changes little elsewhere.
So its parts are interpolated apart: KL by its logarithm, which is smooth, and the rest. Of known densities the rest is
the gap, by its logarithm too. Of images neither is known, but the KL has a bracket in closed form, whose middle is
within a fifth of it. The middle takes the place of the KL, and the rest is all else: whatever the middle is, the sum is
exact at every trained T, and between them only the distance of KL and middle is in the part that should change little.
A p_noise without a bracket has the whole as its rest.

Running ELBOs. A model trained up to T' has a gap g(t; T') for every t <= T'. The cell at T would have G(T) = g(T; T),
and that is not g(T; T'): a model that also has to know later times knows the early ones less well. One model alone does
not see what a larger T' costs at all t, and where that is most of it, it predicts too large a T*. Several tell it. At
the T_i of a cell the gap G(T_i) and that of the next longer model, g(T_i; T_j), are both known. Between them

    log G(T) = log g(T; T_j) + (T_j - T) / (T_j - T_i) * log[G(T_i) / g(T_i; T_j)],     T_i <= T <= T_j.

Of images no gap is known, but a difference of two is: prior, R and K are the same for both models, so
g(T_i; T_j) - G(T_i) = I(T_i; T_j) - I(T_i; T_i) = ELBO(T_i; T_i) - ELBO(T_i; T_j), image by image. The integral up to
T_i of a model trained to T is taken to lie between those of the two models, linearly in T; the rest of its integral,
from T_i to T, is taken to be the longer model's. Together that is

    ELBO(T) = ELBO(T; T_j) + (T_j - T) / (T_j - T_i) * [ELBO(T_i; T_i) - ELBO(T_i; T_j)],     T_i <= T <= T_j.

Both are exact at every trained T, and take the shape between from a model that was trained on both sides.
"""

from __future__ import annotations

from itertools import pairwise

import numpy as np
import pandas as pd
from scipy.interpolate import PchipInterpolator

from difftime.optimum.interpolated import FINE, BitsModel, Curve, DensityCurve, PredictedBits, TrainedBits, searched
from difftime.tables.frames import parts_of
from difftime.tables.paired import cube

FEW = 4
"""Models that a curve of at least three times as many cells is also predicted from."""


def trained_curve(rows: pd.DataFrame, units: pd.DataFrame) -> DensityCurve | TrainedBits | None:
    """From the table elbo, of images with their units, of one curve; None for fewer than three finite times."""
    found = _trained_bits(rows, units) if len(units) else _trained_density(rows)
    return found if len(found.T) >= 3 else None


def _trained_density(rows: pd.DataFrame) -> DensityCurve:
    wide = rows.pivot(index="seed", columns="T", values="gap")
    gaps = wide.to_numpy(float)
    usable = np.isfinite(gaps).all(0) & (gaps > 0).all(0)
    means = rows.groupby("T")[["kl", "kl_se", "gap_se"]].mean().to_numpy()[usable].T
    T = wide.columns.to_numpy(float)[usable]
    return DensityCurve(
        T, means[0], gaps[:, usable], rows.entropy.mean(), rows.entropy_se.mean(), means[1:],
        searched(T) if len(T) else T, T, T, int((~usable).sum()),
    )  # fmt: skip


def _trained_bits(rows: pd.DataFrame, units: pd.DataFrame) -> TrainedBits:
    T, values = cube(units, "elbo_bpd", "T")
    usable = np.isfinite(values).all((0, 1))
    middle = rows.groupby("T")[["kl_low_bpd", "kl_high_bpd"]].mean().mean(axis=1, skipna=False).reindex(T).fillna(0)
    return TrainedBits(T[usable], middle.to_numpy(float)[usable], values[..., usable], int((~usable).sum()))


class _Gap:
    """log g(t; T) of the seeds of one cell, between the smallest running time and T."""

    def __init__(self, rows: pd.DataFrame) -> None:
        wide = rows.pivot(index="t", columns="seed", values="gap").sort_index()
        self.t = wide.index.to_numpy()
        self.start = self.t[0]
        self.log_gap = PchipInterpolator(self.t, np.log(wide.to_numpy()), axis=0)

    def __call__(self, t: np.ndarray) -> np.ndarray:
        """[seeds, times]"""
        return self.log_gap(t).T


def predicted_gap(models: dict[float, _Gap], T: np.ndarray) -> np.ndarray:
    """G(T) of cells that are not trained [seeds, T], T rising, up to the last of the `models`."""
    ends = sorted(models)
    parts = [models[ends[0]](T[ends[0] > T])]
    for low, high in pairwise(ends):
        here, at_low = T[(low <= T) & (high > T)], np.array([low])
        ratio = models[low](at_low) - models[high](at_low)
        parts.append(models[high](here) + (high - here) / (high - low) * ratio)
    return np.exp(np.hstack([*parts, models[ends[-1]](T[ends[-1] <= T])]))


def predicted_curves(running: pd.DataFrame, rows: pd.DataFrame, units: pd.DataFrame) -> dict[str, Curve]:
    """By method, from the tables curve, elbo and, of images, curve_units of one curve; nothing without a finite model.

    curve: from all cells; few: from FEW of them, evenly spread, of at least three times as many; one: from that of the
    largest T alone.
    """
    every = (running if units.empty else units)["T"].nunique()
    bits, gaps = _bits_models(units), {}
    if units.empty:
        good = running.groupby("T").gap.transform(lambda gap: bool(np.isfinite(gap).all() and (gap > 0).all()))
        running = running[good.astype(bool)]
        gaps = {T: _Gap(own) for T, own in parts_of(running, "T", sort=True).items()}
    starts = {T: model.start for T, model in (bits or gaps).items()}
    if not starts:
        return {}
    times = [*starts]
    chosen = {"curve": _reaching(starts, times)}
    if len(times) >= 3 * FEW:
        spread = [times[round(k * (len(times) - 1) / (FEW - 1))] for k in range(FEW)]
        chosen["few"] = _reaching(starts, spread)
    if len(times) > 1:
        chosen["one"] = times[-1:]
    found: dict[str, Curve] = {}
    for method, own in chosen.items():
        low = own[0] if len(own) > 1 else max(times[0] if len(times) > 1 else 0.0, starts[own[0]])
        fine, left_out = np.linspace(low, own[-1], FINE), every - len(own) if method == "curve" else 0
        if len(units):
            found[method] = PredictedBits({T: bits[T] for T in own}, fine, left_out)
        else:
            found[method] = _predicted_density(running, rows, {T: gaps[T] for T in own}, fine, left_out)
    return found


def _bits_models(units: pd.DataFrame) -> dict[float, BitsModel]:
    cubes = {T: cube(own, "elbo_bpd", "t") for T, own in parts_of(units, "T", sort=True).items()}
    return {T: BitsModel(t, values) for T, (t, values) in cubes.items() if np.isfinite(values).all()}


def _reaching(starts: dict[float, float], times: list[float]) -> list[float]:
    """The last of `times`, and those before as far as the running ELBO of each next one begins at or below it."""
    chosen = times[-1:]
    for T in reversed(times[:-1]):
        if starts[chosen[0]] > T * (1 + 1e-9):
            break
        chosen.insert(0, T)
    return chosen


def _predicted_density(
    running: pd.DataFrame, rows: pd.DataFrame, models: dict[float, _Gap], fine: np.ndarray, left_out: int
) -> DensityCurve:
    """The KL is known at every running time without a model."""
    ends = running[running["T"].isin([*models])].sort_values("t")
    # the same time of two models may differ in its last bit, and a slope between such a pair is rounding alone
    ends = ends[~(ends.t.diff() <= 1e-9 * ends.t)]
    kl = np.exp(PchipInterpolator(ends.t, np.log(np.maximum(ends.kl, 1e-15)))(fine))
    gap, T = predicted_gap(models, fine), np.array([*models])
    places = T if len(T) > 1 else models[T[0]].t
    # the error of a running integral's points is much the same at all times: no resample shows it
    known_se, none = running.elbo_se.median(), np.zeros((2, len(fine)))
    return DensityCurve(fine, kl, gap, rows.entropy.mean(), known_se, none, fine, places, T, left_out)
