"""**Likelihood of samples against the diffusion time** (the paper's Fig. 1), in nats: log p_data at samples of the
reverse SDE (Euler–Maruyama), one column per SDE. Points are the median over a seed's samples, averaged over seeds, ±
the standard error over seeds. The band reaches from the 2.5 % to the 97.5 % quantile of a seed's samples, each
averaged over seeds. The grey line is the median under p_data itself. The lower row magnifies the medians for T from
0.4 to 1.2, where the paper sees an optimum, if three of the times lie there. The reverse process starts from the
standard p_noise; where that was not measured, from the plainest p_noise that was. This likelihood cannot see a lost
mode: a sample that crowds into a narrow mode is likely. The figure ``quality`` shows what it misses.
"""

from __future__ import annotations

import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from difftime.figures import style
from difftime.figures.settings import FigureSettings

ZOOM = (0.4, 1.2)
"""The diffusion times magnified."""
ENOUGH = 3
"""Fewer times than these are not magnified."""
MEDIAN = style.Look("median of the samples, mean over seeds ± s.e.", style.SAMPLERS["sde"].colour, "o")
TRUTH = "median under $p_\\mathrm{data}$ itself"
BAND = style.Look("central 95 % of the samples, mean over seeds", "#93c3de", "")


def near(line: pd.DataFrame) -> pd.DataFrame:
    """The rows of the magnified times."""
    return line[line["T"].between(*ZOOM)]


def whole_limits(median: pd.DataFrame, low: pd.DataFrame, high: pd.DataFrame, truth: float) -> tuple[float, float]:
    """The upper axis [nats]: the whole band, but not further down than three times the lowest median.

    The low quantile of a network that errs far out has no bound, and would press everything else flat.
    """
    means = pd.concat([median["mean"], low["mean"], high["mean"]]).dropna()
    if means.empty:
        return truth - 1.0, truth + 1.0
    early = median[median["T"] <= ZOOM[1]]["mean"].dropna()
    lowest = min((early if len(early) else means).min(), truth)
    top = max(means.max(), truth)
    bottom = max(means.min(), top - 3 * (top - lowest))
    margin = 0.05 * (top - bottom) or 0.5
    return bottom - margin, top + margin


def zoom_limits(medians: pd.DataFrame, truth: float) -> tuple[float, float]:
    """The lower axis [nats]: the medians of the magnified times with their standard errors, and p_data's."""
    se = medians.se.fillna(0)
    low, high = min((medians["mean"] - se).min(), truth), max((medians["mean"] + se).max(), truth)
    margin = 0.08 * (high - low) or 0.5
    return low - margin, high + margin


def _whole(axes: Axes, lines: list[pd.DataFrame], truth: float, linestyle: style.LineStyle, zoomed: bool) -> None:
    median, low, high = lines
    axes.fill_between(low["T"], low["mean"], high["mean"], color=BAND.colour, alpha=0.4, linewidth=0, label=BAND.label)
    axes.axhline(truth, color=style.GREY, linewidth=0.9, label=TRUTH)
    style.curve(axes, median, MEDIAN, linestyle)
    style.mark_outside(axes, low["T"].to_numpy(), low["mean"].to_numpy(), BAND, level=1)
    for T in ZOOM if zoomed else ():
        axes.axvline(T, color=style.GREY, linewidth=0.6, linestyle=":")


def _statistics(rows: pd.DataFrame) -> list[pd.DataFrame]:
    """Median, 2.5 % and 97.5 % quantile of log p_data: mean and standard error over seeds at every T."""
    return [style.mean_over_seeds(rows, f"log_p_data_{name}") for name in ("median", "q025", "q975")]


def draw(frame: pd.DataFrame, settings: FigureSettings) -> Figure:
    """One column per SDE: above all times with the spread of the samples, below the magnified medians."""
    rows = style.of_one_noise(style.select(frame, sampler=["sde"]))
    sdes = style.sdes_of(rows)
    lines = {sde: _statistics(rows[rows.sde == sde]) for sde in sdes}
    medians, lows, highs = (pd.concat([lines[sde][i] for sde in sdes]) for i in range(3))
    truth = rows.log_p_data_median_p_data.mean()
    zoomed = bool(near(medians.dropna(subset="mean"))["T"].nunique() >= ENOUGH and len(near(medians)) < len(medians))
    figure, grid = style.panels(settings, 1 + zoomed, len(sdes), 3.7 if zoomed else 2.3, sharex="row", sharey="row")
    grid[0, 0].set_ylim(*whole_limits(medians, lows, highs, truth))
    grid[0, 0].set_ylabel("$\\log p_\\mathrm{data}$ of samples\n[nats]")
    for sde, axes in zip(sdes, grid[0], strict=True):
        _whole(axes, lines[sde], truth, style.line_style(sde, settings), zoomed)
        style.heading(axes, style.sde_title(sde, settings))
        style.time_axis(axes)
    if zoomed:
        grid[1, 0].set_ylim(*zoom_limits(near(medians), truth))
        grid[1, 0].set_xlim(ZOOM[0] - 0.03, ZOOM[1] + 0.03)
        grid[1, 0].set_ylabel("median of $\\log p_\\mathrm{data}$\n[nats]")
        for sde, axes in zip(sdes, grid[1], strict=True):
            axes.axhline(truth, color=style.GREY, linewidth=0.9)
            style.curve(axes, near(lines[sde][0]), MEDIAN, style.line_style(sde, settings))
            axes.set_title(f"magnified: $T$ from {ZOOM[0]:g} to {ZOOM[1]:g}", loc="left")
            style.time_axis(axes)
    style.legend(figure, 2)
    said = style.settings_of(rows, "dataset", "net", "p_noise")
    style.footer(figure, settings, [*said, *style.counts_of(rows, {"units": "samples per seed"})])
    return figure
