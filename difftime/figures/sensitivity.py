"""**How T* depends on the network, its training and the SDE's convention.** One panel per family of SDEs, one row per
network and, where a family has several SDEs, per SDE. A mark is the T that maximises the mean ELBO of trained cells,
with its bootstrap interval (thick) and the plateau on which the mean ELBO is within one standard error of its best
(thin). T* is interpolated between the times studied; the column ``spacing`` of the table ``optimum`` has their
distance, which no interval knows. Settings with different times are not compared on equal terms. A hollow mark lies at
the edge of the times studied, so no optimum was found inside. Where fewer than three times were trained, T* is read
from the running ELBO, and ``predicted`` stands beside it. Colour and marker tell the p_noise. The dashed line is the
paper's value (section 3), drawn for the paper's own mixture only.
"""

from __future__ import annotations

from typing import Any

import pandas as pd
from matplotlib.artist import Artist
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from difftime.figures import style
from difftime.figures.settings import FigureSettings
from difftime.tables.frames import rows_of
from difftime.tables.published import T_STAR

METHODS = ("trained", "curve")
"""How T* was found, the best way first."""
WIDE = 0.68
"""How much of a setting's row the p_noises share."""
PLATEAU = "ELBO within one s.e. of its best"
EDGE = "edge of the times studied, no optimum inside"


def family(kind: str) -> str:
    """VP, sub-VP or VE, of a kind of SDE."""
    return "VE" if kind.startswith("ve-") else style.kind_title(kind)


def by_best_method(rows: pd.DataFrame) -> pd.DataFrame:
    """One row per curve: from trained cells where the table has it, else from the running ELBO."""
    best = rows.assign(rank=rows.method.map(METHODS.index)).sort_values("rank", kind="stable")
    return best.drop_duplicates(["sde", "net", "p_noise"]).sort_index()


def names_of(rows: pd.DataFrame, settings: FigureSettings) -> pd.Series:
    """What each row of the table is called: its network, and its SDE where the family has several."""
    several = rows.sde.groupby(rows.sde.map(lambda sde: family(settings.sdes[sde]))).transform("nunique") > 1
    return rows.net.where(~several, rows.sde + ", " + rows.net)


def _mark(axes: Axes, row: Any, place: float) -> None:
    """T* of one setting and one p_noise: hollow where it only is the best of the times studied."""
    look = style.P_NOISES[row.p_noise]
    at, colour = [place, place], look.colour
    axes.plot([row.plateau_low, row.plateau_high], at, color=colour, linewidth=0.8, gid=PLATEAU)
    axes.plot([row.T_star_low, row.T_star_high], at, color=colour, gid=style.INTERVAL, **style.BAR)
    axes.plot(
        row.T_star, place, color=colour, marker=look.marker, markersize=4.5, linestyle="none",
        markerfacecolor=colour if row.interior else "white", gid=f"{row.name_} {row.p_noise}",
    )  # fmt: skip
    if row.method != "trained":
        axes.annotate("predicted", (row.T_star, place), (4, 2), textcoords="offset points", fontsize="xx-small")


def _panel(axes: Axes, rows: pd.DataFrame, names: list[str], noises: list[str]) -> None:
    """One family. A setting without a row was not studied with it, or had too few times with a finite ELBO."""
    for row in rows_of(rows):
        offset = WIDE * ((noises.index(row.p_noise) + 0.5) / len(noises) - 0.5)
        _mark(axes, row, names.index(row.name_) + offset)
    for place, name in enumerate(names):
        if name not in set(rows.name_):
            style.note(axes, 0.5, 1 - (place + 0.5) / len(names), "no $T^*$ in the table", ha="center", va="center")


def _legend(rows: pd.DataFrame) -> dict[str, Artist]:
    """What the marks mean; the hollow one only where there is one."""
    plain = {"linestyle": "none", "markersize": 4.5}
    looks = [style.P_NOISES[name] for name in style.noises_of(rows)]
    proxies = [style.proxy(look.label, color=look.colour, marker=look.marker, **plain) for look in looks]
    if rows.T_star_low.notna().any():
        proxies.append(style.proxy(style.INTERVAL, color=style.GREY, **style.BAR))
    if rows.plateau_low.notna().any():
        proxies.append(style.proxy(PLATEAU, color=style.GREY, linewidth=0.8))
    if not rows.interior.all():
        proxies.append(style.proxy(EDGE, color=style.GREY, marker="o", markerfacecolor="white", **plain))
    return {str(one.get_label()): one for one in proxies}


def draw(frame: pd.DataFrame, settings: FigureSettings) -> Figure:
    """One panel per family of SDE, one row per setting in the table's order."""
    rows = by_best_method(style.select(frame, method=[*METHODS]))
    rows = rows.assign(name_=names_of(rows, settings), family=rows.sde.map(lambda sde: family(settings.sdes[sde])))
    families, names = [*rows.family.unique()], [*rows.name_.unique()]
    noises = style.noises_of(rows)
    height = 1.1 + (0.12 + 0.09 * len(noises)) * len(names)
    figure, grid = style.panels(settings, 1, len(families), height, sharex=True, sharey=True)
    for one, axes in zip(families, grid[0], strict=True):
        _panel(axes, rows[rows.family == one], names, noises)
        style.heading(axes, one)
        paper = T_STAR.get(one.lower())
        if settings.paper_data and paper:
            axes.axvline(paper, color=style.GREY, linewidth=0.9, linestyle=(0, (4, 2)))
            axes.set_title(f"paper: $T \\approx {paper:g}$", loc="right", color=style.GREY)
        style.time_axis(axes, "optimal diffusion time $T^*$")
    grid[0, 0].set_yticks(range(len(names)), names)
    grid[0, 0].set_ylim(len(names) - 0.5, -0.5)
    style.legend(figure, 3, _legend(rows))
    style.footer(figure, settings, style.settings_of(rows, "dataset", "epsilon", "weighting", "confidence"))
    return figure
