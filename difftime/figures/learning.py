"""Learning curves of image models: the training loss against the number of steps, from the `history` table.

The loss of Eq. 3 in nats per image, a mean over many steps in each point; its weight is that of the study, so curves of
different weightings cannot be compared.
"""

from __future__ import annotations

import pandas as pd
from matplotlib.figure import Figure

from difftime.figures import style
from difftime.study.settings import FigureSettings

POINTS = 60
"""How many points a curve has at most: means over as many stretches of the training."""


def smoothed(line: pd.DataFrame) -> pd.DataFrame:
    """Step and loss, averaged over stretches of equal length and over seeds."""
    mean = line.groupby("step", as_index=False).loss.mean()
    stretch = mean.index * min(POINTS, len(mean)) // len(mean)
    return mean.groupby(stretch)[["step", "loss"]].mean()


def draw(frame: pd.DataFrame, settings: FigureSettings) -> Figure:
    """One panel per data set and network, one line per SDE and T."""
    groups = [*frame.groupby(["dataset", "net"], sort=False)]
    figure, grid = style.panels(settings, len(groups), 1, 0.7 + 1.8 * len(groups))
    looks = style.networks([f"$T = {T:g}$" for T in sorted(frame["T"].unique())])
    for ((dataset, net), rows), (axes,) in zip(groups, grid, strict=True):
        for (sde, T), line in rows.groupby(["sde", "T"], sort=False):
            look, curve = looks[f"$T = {T:g}$"], smoothed(line)
            style_of = style.line_style(sde, style.sdes_of(frame))
            axes.plot(curve.step, curve.loss, color=look.colour, linestyle=style_of, label=look.label)
        axes.set_yscale("log")
        axes.set_xlabel("training step")
        axes.set_ylabel("training loss\n[nats per image]")
        axes.set_title(f"{dataset}, {net}", loc="left", fontweight="bold")
    style.legend(figure, 4)
    said = f"mean over seeds and over up to 1/{POINTS} of the training per point"
    style.footer(figure, settings, [f"SDE {', '.join(style.sdes_of(frame))}", said])
    return figure
