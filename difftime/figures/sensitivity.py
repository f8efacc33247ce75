"""How the optimal diffusion time depends on the network and its training.

From the `optimum` table, in SDE time. One row per network: T* with its bootstrap interval over seeds (thick) and the
plateau on which the mean ELBO is within one standard error of its best (thin).
"""

from __future__ import annotations

import math
from typing import Any

import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from difftime.config import FigureSettings
from difftime.figures import style
from difftime.published import T_STAR

OFFSET = {"standard": -0.17, "matched": 0.17}
"""Where the two p_noise lie within a network's row."""
INTERVAL = "bootstrap interval over seeds"
PLATEAU = "ELBO within one s.e. of its best"
EDGE = "edge of the times studied, no optimum inside"
COLUMNS = 3


def _mark(axes: Axes, row: Any, place: float) -> None:
    """T* of one network and one p_noise: hollow where it only is the best of the times studied."""
    look = style.P_NOISES[row.p_noise]
    at, colour = [place, place], look.colour
    axes.plot([row.plateau_low, row.plateau_high], at, color=colour, linewidth=0.8, gid=PLATEAU)
    axes.plot([row.T_star_low, row.T_star_high], at, color=colour, linewidth=3, alpha=0.45, gid=INTERVAL)
    axes.plot(
        row.T_star, place, color=colour, marker=look.marker, markersize=4.5, linestyle="none",
        markerfacecolor=colour if row.interior else "white", gid=f"{row.net} {row.p_noise}",
    )  # fmt: skip


def _panel(axes: Axes, rows: pd.DataFrame, sde: str, nets: list[str]) -> None:
    """One SDE. A network without a row was not studied with it, or had too few times with a finite gap."""
    family = sde.split("-")[0]
    if family in T_STAR:
        axes.axvline(T_STAR[family], color=style.GREY, linewidth=0.9, linestyle=(0, (4, 2)))
        axes.set_title(f"paper: $T \\approx {T_STAR[family]:g}$", loc="right", color=style.GREY)
    for row in rows.itertuples():
        _mark(axes, row, nets.index(row.net) + OFFSET[row.p_noise])
    for net in nets:
        if net not in set(rows.net):
            style.note(axes, 0.5, 1 - (nets.index(net) + 0.5) / len(nets), "not in the table", ha="center", va="center")
    axes.set_title(style.sde_title(sde), loc="left", fontweight="bold")


def _legend(figure: Figure, rows: pd.DataFrame) -> None:
    """What the marks mean; the hollow one only where there is one."""
    proxies = [
        style.proxy(look.label, color=look.colour, marker=look.marker, linestyle="none", markersize=4.5)
        for name, look in style.P_NOISES.items()
        if name in set(rows.p_noise)
    ]
    proxies += [
        style.proxy(INTERVAL, color=style.GREY, linewidth=3, alpha=0.45),
        style.proxy(PLATEAU, color=style.GREY, linewidth=0.8),
    ]
    if not rows.interior.all():
        hollow = {"marker": "o", "markerfacecolor": "white", "linestyle": "none", "markersize": 4.5}
        proxies.append(style.proxy(EDGE, color=style.GREY, **hollow))
    style.legend_above(figure, {str(one.get_label()): one for one in proxies}, 3)


def draw(frame: pd.DataFrame, settings: FigureSettings) -> Figure:
    """One panel per SDE, one row per network in the table's order."""
    rows = style.select(frame, dataset=settings.dataset)
    sdes, nets = style.sdes_of(rows), [*rows.net.unique()]
    columns = min(COLUMNS, len(sdes))
    height = 0.9 + math.ceil(len(sdes) / columns) * (0.5 + 0.24 * len(nets))
    figure, grid = style.panels(settings, math.ceil(len(sdes) / columns), columns, height, sharex=True, sharey=True)
    for axes, sde in zip(grid.flat, sdes, strict=False):
        _panel(axes, rows[rows.sde == sde], sde, nets)
        axes.set_xlabel("optimal diffusion time $T^*$")
        axes.tick_params(labelbottom=True)
    for axes in grid.flat[len(sdes) :]:
        axes.set_visible(False)
    grid[0, 0].set_yticks(range(len(nets)), nets)
    grid[0, 0].set_ylim(len(nets) - 0.5, -0.5)
    _legend(figure, rows)
    said = style.settings_of(rows, "dataset", "epsilon", "weighting", "confidence")
    style.footer(figure, settings, said)
    return figure
