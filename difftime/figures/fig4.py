"""**Histograms of samples at several diffusion times** (the paper's Fig. 4), as densities in 1 / units of x. Samples
of the reverse SDE (Euler–Maruyama), mean over seeds with a band of ± one standard error over seeds, over the density
of the data. One row per SDE. Of the times sampled, four are shown: those nearest to the paper's 0.5, 0.8, 1 and 2, the
closest pair first, each time once. Bins count over all samples: the share that lies outside the bins, or is not
finite, is written into a panel where there is one. The reverse process starts from the standard p_noise; where that
was not measured, from the plainest p_noise that was.
"""

from __future__ import annotations

from collections.abc import Iterable
from itertools import product

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from difftime.figures import style
from difftime.figures.settings import FigureSettings

PAPER_TIMES = (0.5, 0.8, 1.0, 2.0)
MEAN = "samples of the reverse SDE, mean over seeds"
BAND = "± s.e. over seeds"
LOOK = style.SAMPLERS["sde"]
NOTE_FROM = 5e-4
"""The share of missing samples from which on it is written into the panel."""
TALL = 2.5
"""The axis ends at this multiple of p_data's highest bin, or below."""


def times(sampled: Iterable[float]) -> list[float]:
    """The times shown, of those sampled: the nearest to the paper's, the closest pair first, each once."""
    pairs = sorted(product(sampled, PAPER_TIMES), key=lambda pair: (abs(pair[0] - pair[1]), pair))
    chosen: dict[float, float] = {}
    for T, wanted in pairs:
        if T not in chosen.values() and wanted not in chosen:
            chosen[wanted] = T
    return sorted(chosen.values())


def bins(rows: pd.DataFrame) -> pd.DataFrame:
    """One row per bin: its edges, p_data, and mean and standard error over seeds of the samples' density."""
    return rows.groupby("left", as_index=False).agg(
        right=("right", "first"), p_data=("density_p_data", "first"), mean=("density", "mean"), se=("density", "sem")
    )


def _panel(axes: Axes, table: pd.DataFrame) -> None:
    """The histogram filled, its standard error as a band along its top, p_data as a line."""
    edges = np.append(table.left, table.right.iloc[-1])
    mean, se, colour = table["mean"], table.se.fillna(0), LOOK.colour
    middle = (table.left + table.right) / 2
    axes.stairs(mean, edges, fill=True, color=colour, alpha=0.35, linewidth=0, label=MEAN)
    axes.stairs(mean + se, edges, baseline=mean - se, fill=True, color=colour, linewidth=0, label=BAND)
    axes.plot(middle, table.p_data, color=style.INK, linewidth=0.8, label=style.P_DATA)
    style.mark_outside(axes, middle.to_numpy(), mean.to_numpy(), LOOK)
    missing = 1 - (mean * (table.right - table.left)).sum()
    if missing > NOTE_FROM:
        style.note(axes, 0.98, 0.95, f"{100 * missing:.2g} % outside\nor not finite", ha="right", va="top")


def _top(shown: Iterable[pd.DataFrame]) -> float:
    """The end of the axis: the highest bin with its error, but not far above p_data's."""
    parts = [bins(rows) for rows in shown]
    highest = max((part["mean"] + part.se.fillna(0)).max() for part in parts)
    p_data = max(part.p_data.max() for part in parts)
    return 1.05 * min(max(highest, p_data), TALL * p_data)


def draw(frame: pd.DataFrame, settings: FigureSettings) -> Figure:
    """One row per SDE, one column per time shown."""
    rows = style.of_one_noise(style.select(frame, sampler=["sde"]))
    shown = {sde: times(rows[rows.sde == sde]["T"].unique()) for sde in style.sdes_of(rows)}
    columns = max(map(len, shown.values()))
    figure, grid = style.panels(settings, len(shown), columns, 0.75 + 1.25 * len(shown), sharex=True, sharey=True)
    of = {(sde, T): rows[(rows.sde == sde) & (rows["T"] == T)] for sde in shown for T in shown[sde]}
    grid[0, 0].set_ylim(0, _top(of.values()))
    for sde, row in zip(shown, grid, strict=True):
        for T, axes in zip(shown[sde], row, strict=False):
            _panel(axes, bins(of[sde, T]))
            axes.set_title(f"{style.sde_title(sde, settings)}, $T = {T:g}$")
        for axes in row[len(shown[sde]) :]:
            axes.set_visible(False)
        row[0].set_ylabel("density\n[1 / units of $x$]")
    for axes in grid[-1]:
        axes.set_xlabel("$x$ [units of $x$]")
    style.legend(figure, 3)
    style.footer(figure, settings, style.settings_of(rows, "dataset", "net", "p_noise"))
    return figure
