"""How the optimal diffusion time depends on the network and its training.

From the `optimum` table, in SDE time. One panel per family of SDE (the name up to its first hyphen), one row per
network, and one for every other convention of the SDE: T* with its bootstrap interval over seeds (thick) and the
plateau on which the mean ELBO is within one standard error of its best (thin).
"""

from __future__ import annotations

from typing import Any

import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from difftime.figures import style
from difftime.study.settings import FigureSettings
from difftime.tables.published import T_STAR

WIDE = 0.68
"""How much of a network's row the p_noises share."""
INTERVAL = "bootstrap interval over seeds"
PLATEAU = "ELBO within one s.e. of its best"
EDGE = "edge of the times studied, no optimum inside"


def family(sde: str) -> str:
    """VP or VE, for an SDE called vp-geometric or ve."""
    return sde.split("-")[0]


def setting(row: Any) -> str:
    """What a row of the figure is called: its network, or its SDE's variant of the family and its network."""
    variant = row.sde.removeprefix(family(row.sde)).removeprefix("-")
    return f"{variant}, {row.net}" if variant else row.net


def _mark(axes: Axes, row: Any, place: float) -> None:
    """T* of one setting and one p_noise: hollow where it only is the best of the times studied."""
    look = style.P_NOISES[row.p_noise]
    at, colour = [place, place], look.colour
    axes.plot([row.plateau_low, row.plateau_high], at, color=colour, linewidth=0.8, gid=PLATEAU)
    axes.plot([row.T_star_low, row.T_star_high], at, color=colour, linewidth=3, alpha=0.45, gid=INTERVAL)
    axes.plot(
        row.T_star, place, color=colour, marker=look.marker, markersize=4.5, linestyle="none",
        markerfacecolor=colour if row.interior else "white", gid=f"{setting(row)} {row.p_noise}",
    )  # fmt: skip


def _panel(axes: Axes, rows: pd.DataFrame, kind: str, settings: list[str]) -> None:
    """One family. A setting without a row was not studied with it, or had too few times with a finite gap."""
    if kind in T_STAR:
        axes.axvline(T_STAR[kind], color=style.GREY, linewidth=0.9, linestyle=(0, (4, 2)))
        axes.set_title(f"paper: $T \\approx {T_STAR[kind]:g}$", loc="right", color=style.GREY)
    noises = [name for name in style.P_NOISES if name in set(rows.p_noise)]
    for row in rows.itertuples():
        offset = WIDE * ((noises.index(row.p_noise) + 0.5) / len(noises) - 0.5)
        _mark(axes, row, settings.index(setting(row)) + offset)
    there = {setting(row) for row in rows.itertuples()}
    for place, name in enumerate(settings):
        if name not in there:
            style.note(axes, 0.5, 1 - (place + 0.5) / len(settings), "not in the table", ha="center", va="center")
    axes.set_title(style.sde_title(kind), loc="left", fontweight="bold")


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
    """One panel per family of SDE, one row per setting in the table's order."""
    rows = style.select(frame, dataset=settings.dataset)
    kinds = list(dict.fromkeys(family(sde) for sde in style.sdes_of(rows)))
    names = sorted(dict.fromkeys(setting(row) for row in rows.itertuples()), key=lambda name: "," in name)
    height = 0.9 + 0.5 + 0.24 * len(names)
    figure, grid = style.panels(settings, 1, len(kinds), height, sharex=True, sharey=True)
    for axes, kind in zip(grid[0], kinds, strict=True):
        _panel(axes, rows[rows.sde.map(family) == kind], kind, names)
        axes.set_xlabel("optimal diffusion time $T^*$")
    grid[0, 0].set_yticks(range(len(names)), names)
    grid[0, 0].set_ylim(len(names) - 0.5, -0.5)
    _legend(figure, rows)
    said = style.settings_of(rows, "dataset", "epsilon", "weighting", "confidence")
    style.footer(figure, settings, said)
    return figure
