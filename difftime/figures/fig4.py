"""The paper's Fig. 4: histograms of samples at a few diffusion times, over the density they should have.

From the `histogram` table, in 1 / units of x. Samples of the reverse SDE, as densities: mean over seeds with a band of
one standard error. A bin counts over all samples, so those outside the bins, or not finite, are missing from the area;
their share is written into the panel.
"""

from __future__ import annotations

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from difftime.figures import style
from difftime.study.settings import FigureSettings

MEAN = "samples of the reverse SDE, mean over seeds"
BAND = "± s.e. over seeds"
LOOK = style.SAMPLERS["sde"]
NOTE_FROM = 5e-4
"""The share of missing samples from which on it is written into the panel."""


def bins(rows: pd.DataFrame) -> pd.DataFrame:
    """One row per bin: its edges, p_data, and mean and standard error over seeds of the samples' density."""
    return rows.groupby("left", as_index=False).agg(
        right=("right", "first"), p_data=("density_p_data", "first"), mean=("density", "mean"), se=("density", "sem")
    )


def _panel(axes: Axes, table: pd.DataFrame) -> None:
    """The histogram filled, its standard error as a band along its top, p_data as a line."""
    edges = np.append(table.left, table.right.iloc[-1])
    mean, se, colour = table["mean"], table.se.fillna(0), LOOK.colour
    axes.stairs(mean, edges, fill=True, color=colour, alpha=0.35, linewidth=0, label=MEAN)
    axes.stairs(mean + se, edges, baseline=mean - se, fill=True, color=colour, linewidth=0, label=BAND)
    axes.plot((table.left + table.right) / 2, table.p_data, color=style.INK, linewidth=0.8, label=style.P_DATA)
    missing = 1 - (table["mean"] * (table.right - table.left)).sum()
    if missing > NOTE_FROM:
        style.note(axes, 0.98, 0.95, f"{100 * missing:.2g} % outside\nor not finite", ha="right", va="top")


def draw(frame: pd.DataFrame, settings: FigureSettings) -> Figure:
    """One row per SDE, one column per T of `settings.histogram_T`."""
    rows = style.select(
        frame, dataset=settings.dataset, net=settings.net, p_noise=settings.p_noise, sampler="sde",
        T=settings.histogram_T,
    )  # fmt: skip
    sdes, times = style.sdes_of(rows), settings.histogram_T
    figure, grid = style.panels(settings, len(sdes), len(times), 0.75 + 1.2 * len(sdes), sharex=True, sharey=True)
    for sde, row in zip(sdes, grid, strict=True):
        for T, axes in zip(times, row, strict=True):
            own = rows[(rows.sde == sde) & (rows["T"] == T)]
            if len(own):
                _panel(axes, bins(own))
            else:
                style.note(axes, 0.5, 0.5, "not in the table", ha="center")
            axes.set_title(f"{style.sde_title(sde)}, $T = {T:g}$")
        row[0].set_ylabel("density\n[1 / units of $x$]")
    for axes in grid[-1]:
        axes.set_xlabel("$x$ [units of $x$]")
    grid[0, 0].set_ylim(0, None)
    style.legend(figure, 3)
    style.footer(figure, settings, style.settings_of(rows, "dataset", "net", "p_noise"))
    return figure
