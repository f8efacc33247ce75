"""**What the likelihood of samples cannot see.** Left, the Wasserstein-1 distance of the samples to p_data, in units
of x (sliced for more than one dimension), beside what as many perfect samples are expected to have. Middle, the share
of samples that most probably belong to the mixture's first component, beside that share under p_data. Right, the
median of log p_data in nats, as in Fig. 1: a median above that of p_data is no good sign where one of the other two is
off. Both samplers, one row per SDE; points are means over seeds ± their standard errors. The reverse process starts
from the standard p_noise; where that was not measured, from the plainest p_noise that was.
"""

from __future__ import annotations

import math

import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from difftime.figures import style
from difftime.figures.settings import FigureSettings

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
    perfect = rows[REFERENCES[column]].mean()
    highest = means.max() if means.notna().any() else perfect
    if column == "wasserstein1":
        lowest = min(perfect, means.min()) if means.notna().any() else perfect
        style.log_axis(axes, lowest / 2, max(10 * lowest, min(2 * highest, 500 * lowest)))
    elif column == "share_first":
        axes.set_ylim(0, min(1.05, 1.25 * max(highest, perfect)))
    else:
        lowest = max(min(means.min(), perfect), highest - DEPTH) if means.notna().any() else perfect - 1
        margin = 0.1 * (max(highest, perfect) - lowest) or 0.5
        axes.set_ylim(lowest - margin, max(highest, perfect) + margin)


def _panel(axes: Axes, rows: pd.DataFrame, column: str, linestyle: style.LineStyle) -> None:
    """One line per sampler; a grey line for what perfect samples would have, where the table knows it."""
    perfect = rows[REFERENCES[column]].mean()
    if math.isfinite(perfect):
        axes.axhline(perfect, color=style.GREY, linewidth=0.9, label=PERFECT)
    for sampler, look in style.SAMPLERS.items():
        own = rows[rows.sampler == sampler]
        if len(own):
            style.curve(axes, style.mean_over_seeds(own, column), look, linestyle)


def draw(frame: pd.DataFrame, settings: FigureSettings) -> Figure:
    """One row per SDE, one column per measure of quality, one line per sampler."""
    rows = style.of_one_noise(frame)
    sdes = style.sdes_of(rows)
    figure, grid = style.panels(settings, len(sdes), len(COLUMNS), 0.75 + 1.55 * len(sdes), sharex=True, sharey="col")
    for axes, column in zip(grid[0], COLUMNS, strict=True):
        _limit(axes, rows, column)
    for sde, line in zip(sdes, grid, strict=True):
        for axes, (column, label) in zip(line, COLUMNS.items(), strict=True):
            _panel(axes, rows[rows.sde == sde], column, style.line_style(sde, settings))
            style.heading(axes, style.sde_title(sde, settings))
            axes.set_ylabel(label)
    for axes in grid[-1]:
        style.time_axis(axes)
    style.legend(figure, 2)
    said = style.settings_of(rows, "dataset", "net", "p_noise")
    style.footer(figure, settings, [*said, *style.counts_of(rows, {"units": "samples per seed"})])
    return figure
