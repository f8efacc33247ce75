"""What the likelihood of samples cannot see: their distance to p_data and the share of each mode.

From the `samples` table, for both samplers. Samples that crowd into the narrow mode have a high median of log p_data
(right), higher even than that of the data, although they are far from p_data (left) and a mode is lost (middle).
"""

from __future__ import annotations

import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from difftime.figures import style
from difftime.study.settings import FigureSettings

COLUMNS = {
    "wasserstein1": "Wasserstein-1 distance\nto $p_\\mathrm{data}$ [units of $x$]",
    "share_first": "share of samples\nin the first mode [1]",
    "log_p_data_median": "median of $\\log p_\\mathrm{data}$\n[nats]",
}
REFERENCES = {
    "wasserstein1": "wasserstein1_floor",
    "share_first": "share_first_p_data",
    "log_p_data_median": "log_p_data_median_p_data",
}
"""What perfect samples would have."""
PERFECT = "perfect samples (expected)"
DEPTH = 8.0
"""Nats below the best median at which that axis ends."""


def _limit(axes: Axes, rows: pd.DataFrame, column: str) -> None:
    """Distance: logarithmic, from half its floor to at most 500 times it. Share: from 0. Median: DEPTH nats."""
    means = pd.concat([style.mean_over_seeds(own, column) for _, own in rows.groupby(["sde", "sampler"])])["mean"]
    if column == "wasserstein1":
        floor = rows.wasserstein1_floor.mean()
        style.log_axis(axes, floor / 2, max(10 * floor, min(2 * means.max(), 500 * floor)))
    elif column == "share_first":
        axes.set_ylim(0, min(1.0, 1.25 * max(means.max(), rows.share_first_p_data.max())))
    elif means.notna().any():
        axes.set_ylim(means.max() - DEPTH, means.max() + 0.1 * DEPTH)


def _panel(axes: Axes, rows: pd.DataFrame, column: str, linestyle: str | tuple) -> None:
    """One line per sampler; a grey line for what perfect samples would have, where the table knows it."""
    if column in REFERENCES:
        axes.axhline(rows[REFERENCES[column]].mean(), color=style.GREY, linewidth=0.9, label=PERFECT)
    for sampler, look in style.SAMPLERS.items():
        own = rows[rows.sampler == sampler]
        if len(own):
            style.curve(axes, style.mean_over_seeds(own, column), look, linestyle)


def draw(frame: pd.DataFrame, settings: FigureSettings) -> Figure:
    """One row per SDE, one column per measure of quality, one line per sampler."""
    rows = style.select(frame, dataset=settings.dataset, net=settings.net, p_noise=settings.p_noise)
    sdes = style.sdes_of(rows)
    figure, grid = style.panels(settings, len(sdes), len(COLUMNS), 0.75 + 1.55 * len(sdes), sharex=True, sharey="col")
    for axes, column in zip(grid[0], COLUMNS, strict=True):
        _limit(axes, rows, column)
    for sde, line in zip(sdes, grid, strict=True):
        for axes, (column, label) in zip(line, COLUMNS.items(), strict=True):
            _panel(axes, rows[rows.sde == sde], column, style.line_style(sde, sdes))
            axes.set_title(style.sde_title(sde), loc="left", fontweight="bold")
            axes.set_ylabel(label)
    for axes in grid[-1]:
        style.time_axis(axes)
    style.legend(figure, 2)
    style.footer(figure, settings, style.settings_of(rows, "dataset", "net", "p_noise"))
    return figure
