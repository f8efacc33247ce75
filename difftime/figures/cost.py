"""What samples cost, against the diffusion time: evaluations of the score and seconds.

From the `cost` table. The number of evaluations is a mean over seeds with its standard error; the seconds are one
measurement for all seeds together, which differs from run to run and from machine to machine.
"""

from __future__ import annotations

import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from difftime.figures import style
from difftime.study.settings import FigureSettings


def _curves(axes: Axes, rows: pd.DataFrame, mean: str, se: str | None, linestyle: str | tuple) -> None:
    """One line per sampler, each the `mean` column with the `se` column as its uncertainty."""
    for sampler, look in style.SAMPLERS.items():
        own = rows[rows.sampler == sampler]
        errors = own[se] if se else float("nan")
        line = own[["T", "seeds"]].assign(mean=own[mean], se=errors, finite=own.seeds.where(own[mean].notna(), 0))
        style.curve(axes, line, look, linestyle)


def draw(frame: pd.DataFrame, settings: FigureSettings) -> Figure:
    """One column per SDE; above evaluations per sample, below seconds; one line per sampler."""
    rows = style.select(frame, dataset=settings.dataset, net=settings.net, p_noise=settings.p_noise)
    sdes = style.sdes_of(rows)
    figure, grid = style.panels(settings, 2, len(sdes), 3.6, sharex=True, sharey="row")
    for sde, (evaluations, seconds) in zip(sdes, grid.T, strict=True):
        own, linestyle = rows[rows.sde == sde], style.line_style(sde, sdes)
        _curves(evaluations, own, "nfe", "nfe_se", linestyle)
        _curves(seconds, own, "seconds", None, linestyle)
        evaluations.set_title(style.sde_title(sde), loc="left", fontweight="bold")
        style.time_axis(seconds)
    grid[0, 0].set_ylabel("score evaluations\nper sample [1]")
    grid[1, 0].set_ylabel("wall-clock time,\nall samples [s]")
    for axes in grid[:, 0]:
        axes.set_ylim(0, None)
    style.legend(figure, 2)
    said = style.settings_of(rows, "dataset", "net", "p_noise")
    style.footer(figure, settings, [*said, "seconds: one run, without repetition"])
    return figure
