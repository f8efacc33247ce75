"""**The ELBO taken apart** (the paper's Fig. 2, Eq. 11), in nats, one row per SDE. Left, on a logarithmic axis, what
the ELBO loses below its ceiling E log p_data: the mismatch KL[p(x,T) || p_noise] and the gap G(s,T) of an imperfect
score. Right, what remains. The ELBO bounds the log-likelihood of the *reverse SDE*, which is computed from its density
on a grid in one dimension. The *probability-flow ODE* with the same score is another model, whose log-likelihood may
lie on either side of the ELBO. Points are means over seeds ± their standard errors. T* maximises the mean ELBO,
interpolated between the times; its interval is a bootstrap over seeds and knows nothing of the distance between the
times. The reverse process starts from the standard p_noise; where that was not measured, from the plainest p_noise
that was.
"""

from __future__ import annotations

import math

import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from difftime.figures import style
from difftime.figures.settings import FigureSettings

LOST = ("kl", "gap")
LEFT = ("log_q_ode", "log_q_sde", "elbo")


def _line(rows: pd.DataFrame, quantity: str) -> pd.DataFrame:
    return rows[rows.quantity == quantity].sort_values("T")


def missing(rows: pd.DataFrame) -> list[str]:
    """The quantities without one finite value: they were not measured, or cannot be for these data."""
    return [quantity for quantity in (*LOST, *LEFT) if not (_line(rows, quantity).finite > 0).any()]


def ceiling(rows: pd.DataFrame) -> float:
    """E log p_data [nats], one number for all T."""
    return _line(rows, "log_p_data")["mean"].mean()


def loss_limits(rows: pd.DataFrame) -> tuple[float, float]:
    """The left-hand axis [nats]: KL and gap, down to a hundredth of the smallest gap, where KL no longer matters."""
    low, high = style.gap_limits(_line(rows, "gap")["mean"])
    kl = _line(rows, "kl")["mean"].max()
    return low / 100, max(high, 1.5 * kl) if math.isfinite(kl) else high


def value_limits(rows: pd.DataFrame) -> tuple[float, float]:
    """The right-hand axis [nats]: from just above the ceiling to 2.5 times the loss of the best ELBO below it.

    At least 1 nat. The ends of the curves may lie tens of nats lower and would press the optimum flat: arrows say so.
    """
    best = [value for _, group in rows.groupby("sde") if math.isfinite(value := _line(group, "elbo")["mean"].max())]
    top = ceiling(rows)
    if not math.isfinite(top):
        top = max(best, default=0.0)
    span = max([1.0, *(2.5 * (top - value) for value in best)])
    return top - span, top + 0.12 * span


def _curves(axes: Axes, rows: pd.DataFrame, quantities: tuple[str, ...], linestyle: style.LineStyle) -> None:
    for quantity in quantities:
        if len(_line(rows, quantity)):
            style.curve(axes, _line(rows, quantity), style.QUANTITIES[quantity], linestyle)


def draw(frame: pd.DataFrame, settings: FigureSettings) -> Figure:
    """One row per SDE; KL and gap on the left, ELBO and log-likelihoods on the right, T* in both."""
    rows = style.of_one_noise(style.select(frame, quantity=[*LOST, *LEFT, "log_p_data"]))
    sdes, skipped = style.sdes_of(rows), missing(rows)
    figure, grid = style.panels(settings, len(sdes), 2, 0.8 + 1.85 * len(sdes), sharex=True, sharey="col")
    style.log_axis(grid[0, 0], *loss_limits(rows))
    grid[0, 1].set_ylim(*value_limits(rows))
    for sde, (lost, left) in zip(sdes, grid, strict=True):
        own, linestyle = rows[(rows.sde == sde) & ~rows.quantity.isin(skipped)], style.line_style(sde, settings)
        _curves(lost, own, LOST, linestyle)
        _curves(left, own, LEFT, linestyle)
        left.axhline(ceiling(own), color=style.GREY, linewidth=0.9, label=style.CEILING)
        elbo = _line(rows[rows.sde == sde], "elbo")
        *place, said = style.optimum(elbo) if len(elbo) else (math.nan,) * 3 + ("none: not measured",)
        for axes in (lost, left):
            style.time_line(axes, place, style.OPTIMUM, linewidth=1.0, label=style.OPTIMUM.label)
            style.heading(axes, style.sde_title(sde, settings), [f"$T^*$: {said}"])
        lost.set_ylabel("loss of the ELBO\n[nats]")
        left.set_ylabel("ELBO, E $\\log\\,q$\n[nats]")
    for axes in grid[-1]:
        style.time_axis(axes)
    style.legend(figure, 3)
    made = style.settings_of(rows, "dataset", "net", "p_noise")
    style.footer(figure, settings, [*made, *(f"no finite value of {name}" for name in skipped)])
    return figure
