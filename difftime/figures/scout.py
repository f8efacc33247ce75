"""The optimal T predicted from a few trained cells, beside what all trained cells say, in nats.

From the `scout_curves` table: the running ELBO of the model of the largest T alone, the prediction of all scouting
models, and the mean ELBO of every trained cell; and the hours of training that the prediction saves.
"""

from __future__ import annotations

import math

import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from difftime.figures import style
from difftime.study.settings import FigureSettings

METHODS = {
    "trained": style.Look("trained cells", style.INK, "D"),
    "all models": style.Look("predicted by all scouting models", style.P_NOISES["standard"].colour, ""),
    "one model": style.Look("predicted by the model of the largest $T$ alone", style.P_NOISES["matched"].colour, ""),
}


def limits(rows: pd.DataFrame) -> tuple[float, float]:
    """The vertical axis [nats]: what any method finds best, and 2 nats, or twice the spread of the best ones, below."""
    best = rows.groupby(["sde", "p_noise", "method"]).elbo.max()
    high, low = best.max(), best.min()
    span = max(2.0, 2 * (high - low))
    return high - span, high + 0.08 * span


def _said(line: pd.DataFrame) -> str:
    """T* of one method in words."""
    first = line.iloc[0]
    if not math.isfinite(first.T_star):
        return "–"
    finite = line.t[line.elbo.notna()]
    edge = not finite.min() < first.T_star < finite.max()
    return f"{first.T_star:.2f}{' (edge)' if edge else ''}"


def _saved(line: pd.DataFrame) -> str:
    """What the cells of one method took of the hours that it stands against."""
    first = line.iloc[0]
    if not math.isfinite(first.hours) or not first.grid_hours > 0:
        return f"training: {first.hours_of}, no sum"
    part = f"{first.hours:.2g} of {first.grid_hours:.2g} {first.hours_of}-hours"
    return f"training: {part}, {100 * (1 - first.hours / first.grid_hours):.0f} % saved"


def _panel(axes: Axes, rows: pd.DataFrame, linestyle: str | tuple) -> None:
    for name, look in METHODS.items():
        line = rows[rows.method == name].sort_values("t")
        if line.empty:
            continue
        first = line.iloc[0]
        if math.isfinite(first.T_star_low) and name != "one model":
            axes.axvspan(first.T_star_low, first.T_star_high, color=look.colour, alpha=0.12, linewidth=0)
        axes.axvline(first.T_star, color=look.colour, linewidth=0.8, linestyle=(0, (1, 1)))
        if name == "trained":
            axes.errorbar(
                line.t, line.elbo, line.elbo_se, color=look.colour, marker=look.marker, linestyle="none", zorder=3,
                elinewidth=0.8, label=look.label,
            )  # fmt: skip
        else:
            axes.fill_between(
                line.t, line.elbo - line.elbo_se, line.elbo + line.elbo_se, color=look.colour, alpha=0.2, linewidth=0
            )
            axes.plot(line.t, line.elbo, color=look.colour, linestyle=linestyle, label=look.label)


def draw(frame: pd.DataFrame, settings: FigureSettings) -> Figure:
    """One column per SDE, one row per p_noise."""
    rows = style.select(frame, dataset=settings.dataset, net=settings.net)
    sdes = style.sdes_of(rows)
    noises = [name for name in style.P_NOISES if name in set(rows.p_noise)]
    figure, grid = style.panels(settings, len(noises), len(sdes), 0.8 + 1.75 * len(noises), sharex=True, sharey=True)
    grid[0, 0].set_ylim(*limits(rows))
    for sde, column in zip(sdes, grid.T, strict=True):
        for name, axes in zip(noises, column, strict=True):
            own = rows[(rows.sde == sde) & (rows.p_noise == name)]
            _panel(axes, own, style.line_style(sde, sdes))
            told = {method: _said(own[own.method == method]) for method in METHODS if (own.method == method).any()}
            axes.set_title(f"{style.sde_title(sde)}, {name}", loc="left", fontweight="bold")
            text = ", ".join(f"{method} {T_star}" for method, T_star in told.items())
            axes.set_title(f"$T^*$: {text}", loc="right", color=style.OPTIMUM_TEXT, fontsize="x-small")
            style.note(axes, 0.5, 0.03, _saved(own[own.method == "all models"]), ha="center", va="bottom", zorder=1)
        style.time_axis(column[-1])
    for axes in grid[:, 0]:
        axes.set_ylabel("ELBO [nats]")
    style.legend(figure, 3)
    said = [*style.settings_of(rows, "dataset", "net"), "dotted: T*, shaded its interval over seeds"]
    style.footer(figure, settings, [*said, "± standard error over seeds"])
    return figure
