"""The paper's Fig. 2: the ELBO taken apart, against the diffusion time.

From the `summary` table, in nats. Left: what is lost in Eq. 11, the mismatch KL[p(x,T) || p_noise], which falls with
T, and the gap G(s,T), which rises. Right: what is left, the ELBO, below its ceiling E log p_data, with the
log-likelihoods of the two models that share one score. The ELBO bounds the reverse SDE's, not that of the
probability-flow ODE.
"""

from __future__ import annotations

import math

import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from difftime.figures import style
from difftime.study.settings import FigureSettings

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
    return low / 100, max(high, 1.5 * _line(rows, "kl")["mean"].max())


def value_limits(rows: pd.DataFrame) -> tuple[float, float]:
    """The right-hand axis [nats]: from just above the ceiling to 2.5 times the loss of the best ELBO below it.

    At least 1 nat. The ends of the curves may lie tens of nats lower and would press the optimum flat: arrows say so.
    """
    top = ceiling(rows)
    best = [_line(group, "elbo")["mean"].max() for _, group in rows.groupby("sde")]
    span = max([1.0, *(2.5 * (top - value) for value in best if math.isfinite(value))])
    return top - span, top + 0.12 * span


def _losses(axes: Axes, rows: pd.DataFrame, linestyle: str | tuple, skipped: list[str]) -> None:
    for quantity in LOST:
        if quantity not in skipped:
            style.curve(axes, _line(rows, quantity), style.QUANTITIES[quantity], linestyle)


def _values(axes: Axes, rows: pd.DataFrame, linestyle: str | tuple, skipped: list[str]) -> None:
    axes.axhline(ceiling(rows), color=style.GREY, linewidth=0.9, label=style.CEILING)
    for quantity in LEFT:
        if quantity not in skipped:
            style.curve(axes, _line(rows, quantity), style.QUANTITIES[quantity], linestyle)


def draw(frame: pd.DataFrame, settings: FigureSettings) -> Figure:
    """One row per SDE; KL and gap on the left, ELBO and log-likelihoods on the right, T* in both."""
    rows = style.select(frame, dataset=settings.dataset, net=settings.net, p_noise=settings.p_noise)
    sdes, skipped = style.sdes_of(rows), missing(rows)
    figure, grid = style.panels(settings, len(sdes), 2, 0.7 + 1.75 * len(sdes), sharex=True, sharey="col")
    style.log_axis(grid[0, 0], *loss_limits(rows))
    grid[0, 1].set_ylim(*value_limits(rows))
    for sde, (lost, left) in zip(sdes, grid, strict=True):
        own, linestyle = rows[rows.sde == sde], style.line_style(sde, sdes)
        _losses(lost, own, linestyle, skipped)
        _values(left, own, linestyle, skipped)
        for axes in (lost, left):
            style.optimum(axes, own)
            axes.set_title(style.sde_title(sde), loc="left", fontweight="bold")
        lost.set_ylabel("loss of the ELBO\n[nats]")
        left.set_ylabel("ELBO, E $\\log\\,q$\n[nats]")
    for axes in grid[-1]:
        style.time_axis(axes)
    style.legend(figure, 3)
    said = style.settings_of(rows, "dataset", "net", "p_noise")
    style.footer(figure, settings, [*said, *(f"no finite value of {name}" for name in skipped)])
    return figure
