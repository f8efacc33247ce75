"""**How well the score is known at each level of noise**: the mean error of a network, per dimension, on a logarithmic
axis, against lambda = log(σ²/α²), from clean data on the left to pure noise on the right. One panel per SDE, one line
per T, of at most seven T. A point stands for an interval of lambda, in which the error was averaged. Of a known density
it is the excess E‖σ(s − ∇ log p)‖²/d over the exact score; its integral over lambda, times d/2, is the gap G. Where one
line lies below another, that T has the better score. Of images it is E‖σs + z‖²/d, as nobody knows their exact score,
which would have most of that error, too. Hence the second row of images: by how much the error of a T is larger than
that of the largest T, in intervals that both have, where the latter is known to a tenth. A score that knows nothing has
the error 1. Bands are ± standard errors: over seeds; of a single seed, over its images. In the second row the errors of
two T are taken as independent, since each T has its own times and noise.
"""

from __future__ import annotations

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from difftime.figures import style
from difftime.figures.settings import FigureSettings

SPAN = 1e6
"""The largest of what the axis shows over the smallest."""
LINES = 7
KNOWN = 0.1
"""The largest standard error of the reference, as a share of it, where the second row shows a difference."""


def times(rows: pd.DataFrame) -> list[float]:
    """At most LINES of the T, from the smallest to the largest."""
    known = sorted(rows["T"].unique())
    places = np.linspace(0, len(known) - 1, min(LINES, len(known))).round().astype(int)
    return [known[place] for place in places]


def over_seeds(cell: pd.DataFrame, column: str) -> pd.DataFrame:
    """Mean, standard error and how many seeds are finite, of every interval from low to high."""
    found = cell.groupby(["low", "high"])[column].agg(mean="mean", se="sem", seeds="size", finite="count").reset_index()
    alone = cell.groupby(["low", "high"])[f"{column}_se"].first().to_numpy(float)
    return found.assign(se=np.where(found.seeds == 1, alone, found.se.to_numpy(float)))


def relative(line: pd.DataFrame, reference: pd.DataFrame) -> pd.DataFrame:
    """By how many per cent a line of `over_seeds` is above another, in intervals that both have; standard errors."""
    both = line.merge(reference[["low", "high", "mean", "se"]], on=["low", "high"], suffixes=("", "_of"))
    both = both[both.se_of <= KNOWN * both.mean_of]
    ratio = both["mean"] / both.mean_of
    se = np.hypot(both.se, ratio * both.se_of) / both.mean_of
    return both.assign(mean=100 * (ratio - 1), se=100 * se)


def limits(values: pd.Series) -> tuple[float, float]:
    """The vertical axis, from the smallest value that is shown to the largest."""
    positive = values[np.isfinite(values) & (values > 0)]
    if positive.empty:
        return 0.01, 2.0
    return max(positive.min(), positive.max() / SPAN) / 1.5, 1.5 * positive.max()


def _line(axes: Axes, line: pd.DataFrame, look: style.Look, linestyle: style.LineStyle, level: int) -> None:
    x, mean, se = ((line.low + line.high) / 2).to_numpy(), line["mean"].to_numpy(float), line.se.to_numpy(float)
    axes.fill_between(x, mean - se, mean + se, color=look.colour, alpha=0.2, linewidth=0)
    axes.plot(
        x, mean, color=look.colour, marker=look.marker, linestyle=linestyle, label=look.label, gid=style.CURVE
    )  # fmt: skip
    some = (line.finite < line.seeds).to_numpy()
    axes.plot(x[some], mean[some], color=look.colour, marker=look.marker, markerfacecolor="white", linestyle="none")
    style.mark_not_finite(axes, x[some], look, level)
    style.mark_outside(axes, x, mean, look, level)


def draw(frame: pd.DataFrame, settings: FigureSettings) -> Figure:
    """One panel per SDE, one line per T."""
    rows = style.select(frame, T=times(frame) if len(frame) else [])
    column, said = ("excess", "excess error") if settings.kind == "mixture" else ("error", "error")
    sdes, largest = style.sdes_of(rows), rows["T"].max()
    compared = settings.kind != "mixture" and rows["T"].nunique() > 1
    figure, grid = style.panels(settings, 1 + compared, len(sdes), 4.3 if compared else 2.7, sharex=True, sharey="row")
    style.log_axis(grid[0, 0], *limits(rows.groupby(["sde", "T", "low", "high"])[column].mean()))
    shown = sorted(rows["T"].unique())
    looks = dict(zip(shown, style.networks([f"$T = {T:g}$" for T in shown]).values(), strict=True))
    for sde, panels in zip(sdes, grid.T, strict=True):
        lines = {T: over_seeds(cell, column) for T, cell in rows[rows.sde == sde].groupby("T")}
        linestyle = style.line_style(sde, settings)
        for level, (T, line) in enumerate(lines.items()):
            _line(panels[0], line, looks[T], linestyle, level)
            if compared and largest != T and largest in lines:
                _line(panels[1], relative(line, lines[largest]), looks[T], linestyle, level)
        if compared:
            panels[1].axhline(0, color=style.GREY, linewidth=0.9)
        style.heading(panels[0], style.sde_title(sde, settings))
        panels[-1].set_xlabel(r"noise level $\lambda = \log(\sigma^2/\alpha^2)$ [1]")
    grid[0, 0].set_ylabel(f"{said} per dimension [1]\nless is better")
    if compared:
        grid[1, 0].set_ylabel(f"above that of $T = {largest:g}$ [%]\nless is better")
    style.legend(figure, 5)
    made = style.settings_of(rows, "dataset", "net", "epsilon", "weighting")
    style.footer(figure, settings, [*made, *style.counts_of(rows, {"units": "test images"})])
    return figure
