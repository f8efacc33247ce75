"""**Quality against cost**: which T for which budget, one row per SDE. Left the probability-flow ODE, its
log-likelihood (of images the bits per dimension) against right-hand-side calls of RK45; middle and right the reverse
SDE, its ELBO and the Wasserstein-1 distance of its samples (sliced for more than one dimension; of images to the test
images) against steps of Euler–Maruyama. A cost axis is logarithmic where costs differ by more than a factor of four;
the axis on top has the T that a cost belongs to. One curve per p_noise; error bars are ± standard errors over seeds
and, of images, over the images. A ring marks what the table ``cheapest`` has for this SDE and network: the cheapest
choice that surely loses no more than the loss that the settings allow against the best, by its likelihood for the ODE
and by its ELBO for the SDE. An axis ends where it would press the better half of the choices flat. The grey line is
the distance that as many perfect samples are expected to have.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import LogLocator, NullFormatter, NullLocator

from difftime.figures import style
from difftime.figures.settings import FigureSettings

DEPTH = {"nats": 2.0, "bits per dimension": 0.5}
"""What an axis shows below the best value, at least."""
FLOOR = "distance of perfect samples (expected)"
RING = "cheapest within the allowed loss"
LOG_FROM = 4.0
"""The axis of a cost is logarithmic where the largest is more than this times the smallest."""
CROWDED = 20.0
"""A logarithmic axis that is longer than this has no room for the labels 1, 2 and 5 of every decade."""
LETTER, SPACE = 0.032, 0.035
"""The width of a letter of a T on top, and the least space between two of them, as shares of a panel's width."""


@dataclass(frozen=True)
class Panel:
    """One quality against one cost: columns of the table."""

    cost: str
    quality: str
    cheapest: str
    along: str
    titles: tuple[str, str]
    """Of a mixture, of images."""

    def rises(self, unit: str) -> bool:
        """Whether more is better."""
        return unit == "nats" and self.quality != "distance"

    def label(self, unit: str) -> str:
        """What the vertical axis shows, and which way is better."""
        shown = "units of $x$" if self.quality == "distance" else unit
        better = "more" if self.rises(unit) else "less"
        return f"{self.titles[unit != 'nats']}\n[{shown}]\n{better} is better"


DISTANCES = ("Wasserstein-1, SDE", "sliced Wasserstein-1, SDE")
PANELS = (
    Panel("nfe", "likelihood", "cheapest_ode", "NFE of the ODE [1]", ("log-likelihood, ODE", "BPD, ODE")),
    Panel("sde_steps", "elbo", "cheapest_sde", "steps of the SDE [1]", ("ELBO (bounds SDE)",) * 2),
    Panel("sde_steps", "distance", "cheapest_sde", "steps of the SDE [1]", DISTANCES),
)


def known(rows: pd.DataFrame, panel: Panel) -> pd.DataFrame:
    """The rows whose cost and quality are known."""
    return rows[rows[panel.cost].notna() & rows[panel.quality].notna()]


def limits(rows: pd.DataFrame, quality: str) -> tuple[float, float]:
    """The vertical axis: from the best value to DEPTH behind it, or as far as the worst choice of the best half."""
    values, unit = rows[quality], rows.unit.iloc[0]
    sign = 1.0 if unit == "nats" else -1.0
    best = (sign * values).max()
    depth = max(DEPTH[unit], best - (sign * values).median())
    depth = min(depth, max(np.ptp(values), 0.1))
    ends = sign * np.array([best - 1.1 * depth, best + 0.15 * depth])
    return ends.min(), ends.max()


def _scale(axes: Axes, rows: pd.DataFrame, panel: Panel) -> None:
    """Both axes, and what perfect samples would have."""
    low, high = rows[panel.cost].min(), rows[panel.cost].max()
    if high > LOG_FROM * low:
        axes.set_xscale("log")
        axes.xaxis.set_major_locator(LogLocator(subs=(1, 3) if high > CROWDED * low else (1, 2, 5), numticks=15))
        axes.xaxis.set_major_formatter("{x:g}")
        axes.xaxis.set_minor_formatter(NullFormatter())
        axes.set_xlim(low / 1.3, high * 1.3)
    else:
        margin = 0.12 * (high - low) or 0.1 * high
        axes.set_xlim(low - margin, high + margin)
    if panel.quality != "distance":
        axes.set_ylim(*limits(rows, panel.quality))
        return
    lowest = np.nanmin([rows.distance_floor.min(), rows.distance.min()])
    style.log_axis(axes, lowest / 1.5, 1.5 * min(rows.distance.max(), 500 * lowest))
    for value in rows.distance_floor.dropna().unique():
        axes.axhline(value, color=style.GREY, linewidth=0.9, label=FLOOR)


def _curve(
    axes: Axes, own: pd.DataFrame, panel: Panel, look: style.Look, linestyle: style.LineStyle, level: int
) -> None:
    """One p_noise, what is cheapest ringed."""
    cost, value, se = (own[name].to_numpy(float) for name in (panel.cost, panel.quality, f"{panel.quality}_se"))
    low, high = axes.get_ylim()
    axes.plot(
        cost, value, color=look.colour, linestyle=linestyle, marker=look.marker, label=look.label, gid=style.CURVE
    )
    shown = np.where((value < low) | (value > high), np.nan, se)
    axes.errorbar(cost, value, shown, fmt="none", ecolor=look.colour, elinewidth=0.8)
    style.mark_outside(axes, cost, value, look, level)
    style.mark_not_finite(axes, cost[np.isnan(value)], look, level)
    chosen = own[own[panel.cheapest]]
    if len(chosen):
        axes.plot(
            chosen[panel.cost], chosen[panel.quality], linestyle="none", marker="o", markersize=8, label=RING, gid=RING,
            markerfacecolor="none", markeredgecolor=style.INK, markeredgewidth=1.0, zorder=4,
        )  # fmt: skip


def _times_on_top(axes: Axes, rows: pd.DataFrame, panel: Panel) -> None:
    """The T that each cost belongs to, on top: at one T all p_noises cost the same. As many as there is room for."""
    costs = rows.groupby("T")[panel.cost].mean().sort_values()
    along = axes.transData.transform([(cost, axes.get_ylim()[0]) for cost in costs])
    place = dict(zip(costs.index, axes.transAxes.inverted().transform(along)[:, 0], strict=True))
    shown: list[float] = []
    for T in [*costs.index[[0, -1]], *costs.index[1:-1]]:
        if all(abs(place[T] - place[other]) >= LETTER * len(f"{T:g}{other:g}") / 2 + SPACE for other in shown):
            shown.append(T)
    top = axes.secondary_xaxis("top")
    top.set_xticks(costs[shown], [f"{T:g}" for T in shown], fontsize="x-small", color=style.GREY)
    top.xaxis.set_minor_locator(NullLocator())
    top.tick_params(length=2, color=style.GREY, pad=1)
    top.spines[:].set_visible(False)
    axes.annotate(
        "$T$", (0, 1), (-3, 4), xycoords="axes fraction", textcoords="offset points", ha="right", fontsize="x-small",
        color=style.GREY,
    )  # fmt: skip


def _panel(axes: Axes, rows: pd.DataFrame, panel: Panel, linestyle: style.LineStyle) -> None:
    own = known(rows, panel)
    axes.set_ylabel(panel.label(rows.unit.iloc[0]))
    axes.set_xlabel(panel.along)
    if own.empty:
        axes.set(xticks=[], yticks=[])
        style.note(axes, 0.5, 0.5, "not measured, or not finite", ha="center")
        return
    _scale(axes, own, panel)
    for level, name in enumerate(style.noises_of(own)):
        line = rows[(rows.p_noise == name) & rows[panel.cost].notna()].sort_values("T")
        _curve(axes, line, panel, style.P_NOISES[name], linestyle, level)
    _times_on_top(axes, own, panel)


def draw(frame: pd.DataFrame, settings: FigureSettings) -> Figure:
    """One row per SDE of which a cost is known; a column per quality that was measured."""
    rows = style.select(frame)
    rows = rows[rows.nfe.notna() | rows.sde_steps.notna()]
    measured = [panel for panel in PANELS if len(known(rows, panel))]
    if not measured:
        raise style.NothingToDraw("no cell has a cost and a quality.")
    sdes = style.sdes_of(rows)
    figure, grid = style.panels(settings, len(sdes), len(measured), 0.8 + 2.0 * len(sdes))
    for sde, line in zip(sdes, grid, strict=True):
        for axes, panel in zip(line, measured, strict=True):
            _panel(axes, rows[rows.sde == sde], panel, style.line_style(sde, settings))
        line[0].set_title(style.sde_title(sde, settings), loc="left", fontweight="bold", pad=14)
    style.legend(figure, 3)
    skipped = [panel.quality for panel in PANELS if panel not in measured]
    made = style.settings_of(rows, "dataset", "net", "epsilon")
    of_ode = "test images" if rows.unit.iloc[0] != "nats" else "points per seed"
    counts = {
        "likelihood_units": f"{of_ode} of the ODE", "elbo_units": "of the ELBO", "distance_units": "samples per seed",
    }  # fmt: skip
    lacking = (f"no finite value of {name}" for name in skipped)
    style.footer(figure, settings, [*made, *style.counts_of(rows, counts), *lacking])
    return figure
