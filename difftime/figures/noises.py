"""The ELBO by p_noise against the diffusion time, in nats: where the optimum moves when the start is better.

From the `summary` table. The scores are the same for all lines; KL[p(x,T) || p_noise] alone differs.
"""

from __future__ import annotations

import math

import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from difftime.figures import style
from difftime.figures.fig2 import ceiling, value_limits
from difftime.study.settings import FigureSettings


def _optimum(axes: Axes, line: pd.DataFrame, look: style.Look) -> str:
    """T* of one p_noise as a vertical line with its interval; what the panel's title says of it."""
    T_star, low, high = line.iloc[0][["T_star", "T_star_low", "T_star_high"]].astype(float)
    if not math.isfinite(T_star):
        return "–"
    if math.isfinite(low):
        axes.axvspan(low, high, color=look.colour, alpha=0.12, linewidth=0)
    axes.axvline(T_star, color=look.colour, linewidth=0.8, linestyle=(0, (1, 1)), zorder=1.5)
    return f"{T_star:.2f}{' (edge)' if style.at_edge(line) else ''}"


def draw(frame: pd.DataFrame, settings: FigureSettings) -> Figure:
    """One column per SDE, one line per p_noise, T* of each."""
    rows = style.select(frame, dataset=settings.dataset, net=settings.net, quantity=("elbo", "gap", "log_p_data"))
    sdes = style.sdes_of(rows)
    figure, grid = style.panels(settings, 1, len(sdes), 2.6, sharex=True, sharey=True)
    grid[0, 0].set_ylim(*value_limits(rows))
    for sde, axes in zip(sdes, grid[0], strict=True):
        own, found = rows[rows.sde == sde], []
        axes.axhline(ceiling(own), color=style.GREY, linewidth=0.9, label=style.CEILING)
        for name in [name for name in style.P_NOISES if name in set(own.p_noise)]:
            line = own[own.p_noise == name]
            style.curve(axes, line[line.quantity == "elbo"], style.P_NOISES[name], style.line_style(sde, sdes))
            found.append(f"{name} {_optimum(axes, line, style.P_NOISES[name])}")
        axes.set_title(style.sde_title(sde), loc="left", fontweight="bold")
        lines = [", ".join(found[k : k + 2]) for k in range(0, len(found), 2)]
        axes.set_title("$T^*$: " + ",\n".join(lines), loc="right", color=style.OPTIMUM_TEXT)
        style.time_axis(axes)
    grid[0, 0].set_ylabel("ELBO [nats]")
    style.legend(figure, 3)
    style.footer(figure, settings, [*style.settings_of(rows, "dataset", "net"), "dotted: T* with its interval"])
    return figure
