"""Quality against cost, one line per p_noise and SDE: which T for which budget.

From the `tradeoff` table. Left the probability-flow ODE, middle and right the reverse SDE. A ring marks the choices
that are efficient, a thin one those of which it is not decided.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import LogLocator, NullFormatter

from difftime.figures import style
from difftime.study.settings import FigureSettings

ROOM = 0.07
"""The least distance between two labels of T, as a share of the panel's width."""
DEPTH = {"nats": 2.0, "bits per dimension": 0.5}
"""What an axis shows below the best value, at least."""
FLOOR = "distance of perfect samples (expected)"
RINGS = {
    "yes": ("efficient", {"markeredgecolor": style.INK, "markeredgewidth": 1.0}),
    "undecided": ("efficiency not decided", {"markeredgecolor": style.GREY, "markeredgewidth": 0.5}),
}


@dataclass(frozen=True)
class Panel:
    """One quality against one cost: columns of the table."""

    cost: str
    quality: str
    efficient: str
    along: str
    title: str

    def rises(self, unit: str) -> bool:
        """Whether more is better."""
        return unit == "nats" and self.quality != "distance"

    def label(self, unit: str) -> str:
        """What the vertical axis shows, and which way is better."""
        shown = "units of $x$" if self.quality == "distance" else unit
        return f"{self.title}\n[{shown}]\n{'more' if self.rises(unit) else 'less'} is better"


PANELS = (
    Panel("nfe", "likelihood", "efficient_ode", "NFE of the ODE [1]", "likelihood or BPD, ODE"),
    Panel("sde_steps", "elbo", "efficient_sde", "steps of the SDE [1]", "ELBO (bounds SDE)"),
    Panel("sde_steps", "distance", "efficient_sde", "steps of the SDE [1]", "Wasserstein-1 distance"),
)


def limits(rows: pd.DataFrame, quality: str) -> tuple[float, float]:
    """The vertical axis: from the best value to DEPTH behind it, or as far as the worst choice of the best half."""
    values = rows[quality].dropna()
    sign = 1.0 if rows.unit.iloc[0] == "nats" else -1.0
    best = (sign * values).max()
    depth = max(DEPTH[rows.unit.iloc[0]], best - (sign * values).median())
    ends = sign * np.array([best - 1.1 * depth, best + 0.2 * depth])
    return ends.min(), ends.max()


def _scale(axes: Axes, rows: pd.DataFrame, panel: Panel) -> None:
    """Both axes, and what perfect samples would have."""
    axes.set_xscale("log")
    axes.xaxis.set_major_locator(LogLocator(subs=(1, 2, 5), numticks=15))
    axes.xaxis.set_major_formatter("{x:g}")
    axes.xaxis.set_minor_formatter(NullFormatter())
    known = rows[rows[panel.cost].notna() & rows[panel.quality].notna()]
    low, high = known[panel.cost].min(), known[panel.cost].max()
    # a factor of 6.25 has two of the ticks on it in any case; with fewer matplotlib would choose others
    margin = max(1.3, 2.6 / math.sqrt(high / low))
    axes.set_xlim(low / margin, high * margin)
    if panel.quality != "distance":
        axes.set_ylim(*limits(known, panel.quality))
        return
    floor = known.distance_floor.min()
    low = min(floor, known.distance.min()) if math.isfinite(floor) else known.distance.min()
    style.log_axis(axes, low / 1.5, 1.5 * min(known.distance.max(), 500 * low))
    for value in known.distance_floor.dropna().unique():
        axes.axhline(value, color=style.GREY, linewidth=0.9, label=FLOOR)


def _line(axes: Axes, own: pd.DataFrame, panel: Panel, look: style.Look, linestyle: str | tuple, level: int) -> None:
    """One p_noise of one SDE, its efficient choices ringed."""
    cost, value, se = (own[name].to_numpy(float) for name in (panel.cost, panel.quality, f"{panel.quality}_se"))
    axes.plot(cost, value, color=look.colour, linestyle=linestyle, marker=look.marker, label=look.label, gid="curve")
    axes.errorbar(cost, value, se, fmt="none", ecolor=look.colour, elinewidth=0.8)
    for verdict, (label, ring) in RINGS.items():
        chosen = own[own[panel.efficient] == verdict]
        if len(chosen):
            axes.plot(
                chosen[panel.cost], chosen[panel.quality], linestyle="none", marker="o", markersize=7.5,
                markerfacecolor="none", label=label, gid=verdict, **ring,
            )  # fmt: skip
    style.mark_outside(axes, cost, value, look, level)


def _label_times(axes: Axes, own: pd.DataFrame, panel: Panel) -> None:
    """T beside the best point at every T: at one T all p_noises cost the same. As many as there is room for."""
    rises = panel.rises(own.unit.iloc[0])
    own = own.sort_values(panel.quality, ascending=not rises).drop_duplicates(["T", panel.cost]).sort_values(panel.cost)
    low, high = axes.get_ylim()
    left, right = np.log(axes.get_xlim())
    last = -math.inf
    for row in own[own[panel.quality].between(low, high)].itertuples():
        place = (math.log(getattr(row, panel.cost)) - left) / (right - left)
        if place - last > ROOM:
            axes.annotate(
                f"{row.T:g}", (getattr(row, panel.cost), getattr(row, panel.quality)), (0, 6 if rises else -6),
                textcoords="offset points", ha="center", va="bottom" if rises else "top", fontsize="x-small",
                color=style.GREY, annotation_clip=True,
            )  # fmt: skip
            last = place


def _panel(axes: Axes, rows: pd.DataFrame, panel: Panel, sdes: list[str]) -> None:
    known = rows[rows[panel.cost].notna() & rows[panel.quality].notna()]
    axes.set_ylabel(panel.label(rows.unit.iloc[0]))
    axes.set_xlabel(panel.along)
    if known.empty:
        axes.set(xticks=[], yticks=[])
        style.note(axes, 0.5, 0.5, "not measured", ha="center")
        return
    _scale(axes, rows, panel)
    level = 0
    for sde in sdes:
        for name, look in style.P_NOISES.items():
            own = known[(known.sde == sde) & (known.p_noise == name)].sort_values("T")
            if len(own):
                _line(axes, own, panel, look, style.line_style(sde, sdes), level)
                level += 1
    _label_times(axes, known, panel)


def draw(frame: pd.DataFrame, settings: FigureSettings) -> Figure:
    """One row per data set and network of which a cost is known; three columns: likelihood, ELBO, distance."""
    rows = frame[frame.nfe.notna() | frame.sde_steps.notna()]
    rows = style.select(rows, p_noise=tuple(style.P_NOISES))
    groups = [*rows.groupby(["dataset", "net"], sort=False)]
    figure, grid = style.panels(settings, len(groups), len(PANELS), 0.9 + 1.9 * len(groups))
    for ((dataset, net), own), line in zip(groups, grid, strict=True):
        sdes = style.sdes_of(own)
        for axes, panel in zip(line, PANELS, strict=True):
            _panel(axes, own, panel, style.sdes_of(rows))
        line[0].set_title(f"{dataset}, {net}: {', '.join(map(style.sde_title, sdes))}", loc="left", fontweight="bold")
    style.legend(figure, 3)
    devices = ", ".join(rows.training_device.unique())
    said = ["numbers beside points: T", "± standard error", f"trained on {devices}"]
    low, high = rows.training_seconds.min(), rows.training_seconds.max()
    style.footer(figure, settings, [*said, f"in {low:.3g} to {high:.3g} s a cell"])
    return figure
