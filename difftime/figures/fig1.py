"""The paper's Fig. 1: the likelihood of samples against the diffusion time.

From the `samples` table, in nats: log p_data, evaluated at samples of the reverse SDE. At small T they are very
unlikely, because they start in the wrong place. Below, the times where the paper sees an optimum are magnified. The
paper does this in an inset; here the band of the samples fills the place where it would lie, so it is a row of its own.
"""

from __future__ import annotations

import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from difftime.figures import style
from difftime.study.settings import FigureSettings

ZOOM = (0.4, 1.2)
"""The diffusion times magnified."""
MEDIAN = style.Look("median of the samples, mean over seeds ± s.e.", style.SAMPLERS["sde"].colour, "o")
TRUTH = "median under $p_\\mathrm{data}$ itself"
BAND = style.Look("central 95 % of the samples, mean over seeds", "#93c3de", "")


def near(line: pd.DataFrame) -> pd.DataFrame:
    """The rows of the magnified times."""
    return line[line["T"].between(*ZOOM)]


def whole_limits(median: pd.DataFrame, low: pd.DataFrame, high: pd.DataFrame) -> tuple[float, float]:
    """The upper axis [nats]: the whole band, but not further down than three times the lowest median.

    The low quantile of a network that errs far out has no bound, and would press everything else flat.
    """
    means = pd.concat([median["mean"], low["mean"], high["mean"]])
    if means.isna().all():
        return -1.0, 0.0
    early = median[median["T"] <= ZOOM[1]]["mean"].dropna()
    lowest = (early if len(early) else means).min()
    top = means.max()
    bottom = max(means.min(), top - 3 * (top - lowest))
    margin = 0.05 * (top - bottom)
    return bottom - margin, top + margin


def zoom_limits(medians: pd.DataFrame) -> tuple[float, float]:
    """The lower axis [nats]: the medians of the magnified times with their standard errors."""
    se = medians.se.fillna(0)
    low, high = (medians["mean"] - se).min(), (medians["mean"] + se).max()
    margin = 0.08 * (high - low) or 0.5
    return low - margin, high + margin


def _whole(axes: Axes, lines: list[pd.DataFrame], truth: float, linestyle: str | tuple) -> None:
    median, low, high = lines
    axes.fill_between(low["T"], low["mean"], high["mean"], color=BAND.colour, alpha=0.4, linewidth=0, label=BAND.label)
    axes.axhline(truth, color=style.GREY, linewidth=0.9, label=TRUTH)
    style.curve(axes, median, MEDIAN, linestyle)
    style.mark_outside(axes, low["T"].to_numpy(), low["mean"].to_numpy(), BAND)
    for T in ZOOM:
        axes.axvline(T, color=style.GREY, linewidth=0.6, linestyle=":")


def _statistics(rows: pd.DataFrame) -> list[pd.DataFrame]:
    """Median, 2.5 % and 97.5 % quantile of log p_data: mean and standard error over seeds at every T."""
    return [style.mean_over_seeds(rows, f"log_p_data_{name}") for name in ("median", "q025", "q975")]


def draw(frame: pd.DataFrame, settings: FigureSettings) -> Figure:
    """One column per SDE: above all times with the spread of the samples, below the magnified medians."""
    rows = style.select(frame, dataset=settings.dataset, net=settings.net, p_noise=settings.p_noise, sampler="sde")
    sdes = style.sdes_of(rows)
    lines = {sde: _statistics(rows[rows.sde == sde]) for sde in sdes}
    medians, lows, highs = (pd.concat([lines[sde][i] for sde in sdes]) for i in range(3))
    truth = rows.log_p_data_median_p_data.mean()
    figure, grid = style.panels(settings, 2, len(sdes), 3.7, sharex="row", sharey="row")
    grid[0, 0].set_ylim(*whole_limits(medians, lows, highs))
    if near(medians)["mean"].notna().any():
        grid[1, 0].set_ylim(*zoom_limits(near(medians)))
    for sde, (whole, zoom) in zip(sdes, grid.T, strict=True):
        linestyle = style.line_style(sde, sdes)
        _whole(whole, lines[sde], truth, linestyle)
        zoom.axhline(truth, color=style.GREY, linewidth=0.9)
        style.curve(zoom, near(lines[sde][0]), MEDIAN, linestyle)
        whole.set_title(style.sde_title(sde), loc="left", fontweight="bold")
        for axes in (whole, zoom):
            style.time_axis(axes)
        zoom.set_xlim(ZOOM[0] - 0.03, ZOOM[1] + 0.03)
        zoom.set_title(f"magnified: $T$ from {ZOOM[0]:g} to {ZOOM[1]:g}", loc="left")
    grid[0, 0].set_ylabel("$\\log p_\\mathrm{data}$ of samples\n[nats]")
    grid[1, 0].set_ylabel("median of $\\log p_\\mathrm{data}$\n[nats]")
    style.legend(figure, 2)
    style.footer(figure, settings, style.settings_of(rows, "dataset", "net", "p_noise", "sampler"))
    return figure
