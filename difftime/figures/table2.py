"""What another p_noise wins on images: bits per dimension and evaluations, one line per p_noise.

From the `table1` table. All lines share their scores and, at one T, the evaluations: only where the reverse process
starts differs. The star is Table 2's choice: the fewest evaluations within one standard error of the best.
"""

from __future__ import annotations

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from difftime.figures import style
from difftime.figures.table1 import line_of
from difftime.study.settings import FigureSettings
from difftime.tables.derived import table2

NFE = style.Look("NFE of RK45, the same for every $p_\\mathrm{noise}$", style.GREY, "s")
CHOICE = "cheapest within one standard error of the best"
STAR = {"marker": "*", "color": style.INK, "markersize": 9, "linestyle": "none", "zorder": 6}


def _against_cost(axes: Axes, rows: pd.DataFrame, look: style.Look, linestyle: str | tuple) -> None:
    rows = rows[rows.bpd.notna()].sort_values("nfe")
    options = {"color": look.colour, "marker": look.marker, "linestyle": linestyle, "elinewidth": 0.8}
    axes.errorbar(rows.nfe, rows.bpd, rows.bpd_se, **options, label=look.label)


def _row(axes: np.ndarray, line: pd.DataFrame, linestyle: str | tuple) -> None:
    bits, bound, calls, trade = axes
    for name, look in style.P_NOISES.items():
        own = line[line.p_noise == name].sort_values("T")
        if len(own):
            style.curve(bits, line_of(own, "bpd", "bpd_se", "images"), look, linestyle)
            style.curve(bound, line_of(own, "elbo_bpd", "elbo_bpd_se", "elbo_images"), look, linestyle)
            _against_cost(trade, own, look, linestyle)
    cost = line.drop_duplicates("T").sort_values("T")
    style.curve(calls, line_of(cost, "nfe", "nfe_sd", "images"), NFE, linestyle)
    for choice in table2(line).itertuples():
        bits.plot(choice.T, choice.bpd, **STAR, label=CHOICE)
        calls.plot(choice.T, choice.nfe, **STAR)
        trade.plot(choice.nfe, choice.bpd, **STAR)


def draw(frame: pd.DataFrame, settings: FigureSettings) -> Figure:
    """Two rows per data set, SDE and network: BPD and the ELBO, NFE and BPD against NFE."""
    rows = style.select(frame, p_noise=tuple(style.P_NOISES))
    lines = [*rows.groupby(["dataset", "sde", "net"], sort=False)]
    figure, grid = style.panels(settings, 2 * len(lines), 2, 0.8 + 3.5 * len(lines))
    for k, ((dataset, sde, net), line) in enumerate(lines):
        panels = grid[2 * k : 2 * k + 2].ravel()
        _row(panels, line, style.line_style(sde, style.sdes_of(rows)))
        panels[0].set_title(f"{dataset}, {style.sde_title(sde)}, {net}", loc="left", fontweight="bold")
        labels = ("BPD, ODE\n[bits per dimension]", "ELBO (bounds SDE)\n[bits per dimension]", "NFE [1]",
                  "BPD, ODE\n[bits per dimension]")  # fmt: skip
        for axes, label in zip(panels, labels, strict=True):
            axes.set_ylabel(label)
        for axes in panels[:3]:
            style.time_axis(axes)
        panels[2].set_ylim(0, None)
        panels[3].set_xlabel("NFE [1]")
    style.legend(figure, 2)
    said = [f"{name} {', '.join(f'{v:g}' for v in rows[name].dropna().unique())}" for name in ("images", "batch")]
    said += [f"{name} {', '.join(map(str, rows[name].unique()))}" for name in ("iterations", "weighting")]
    style.footer(figure, settings, [*said, "± standard error over images and seeds"])
    return figure
