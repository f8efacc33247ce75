"""**Learning curves of image models**: the training loss of Eq. 3 in nats per image, on a logarithmic axis, against
the training step. One panel per network and SDE, one line per T. A training is cut into at most 60 stretches of equal
length; a line shows the mean of the recorded losses of each stretch over all seeds, with a band, where there are
several, of ± their standard error, which includes the fall within the stretch. Losses of different T are integrals
over different times and those of different weightings have different weights, so only the shapes of their curves can
be compared, not the heights.
"""

from __future__ import annotations

import pandas as pd
from matplotlib.figure import Figure

from difftime.figures import style
from difftime.figures.settings import FigureSettings

STRETCHES = 60
"""How many points a curve has at most."""


def smoothed(line: pd.DataFrame) -> pd.DataFrame:
    """Mean step, mean loss and its standard error of every stretch, over the seeds."""
    steps = sorted(line.step.unique())
    stretch = line.step.map({step: k * min(STRETCHES, len(steps)) // len(steps) for k, step in enumerate(steps)})
    return line.groupby(stretch.rename("stretch")).agg(step=("step", "mean"), loss=("loss", "mean"), se=("loss", "sem"))


def draw(frame: pd.DataFrame, settings: FigureSettings) -> Figure:
    """One row per network, one column per SDE, one line per T."""
    rows = style.select(frame)
    nets, sdes = [*rows.net.unique()], style.sdes_of(rows)
    figure, grid = style.panels(settings, len(nets), len(sdes), 0.7 + 1.9 * len(nets), sharex=True, sharey=True)
    looks = style.networks([f"$T = {T:g}$" for T in sorted(rows["T"].unique())])
    for net, line in zip(nets, grid, strict=True):
        for sde, axes in zip(sdes, line, strict=True):
            own = rows[(rows.net == net) & (rows.sde == sde)]
            for T, history in own.groupby("T"):
                look, curve = looks[f"$T = {T:g}$"], smoothed(history)
                axes.fill_between(
                    curve.step, curve.loss - curve.se, curve.loss + curve.se, color=look.colour, alpha=0.25, linewidth=0
                )
                axes.plot(
                    curve.step, curve.loss, color=look.colour, linestyle=style.line_style(sde, settings),
                    label=look.label, gid=style.CURVE, marker="o" if len(curve) == 1 else "",
                )  # fmt: skip
            if own.empty:
                style.note(axes, 0.5, 0.5, "not trained", ha="center", va="center")
            style.heading(axes, f"{style.sde_title(sde, settings)}, {net}")
        line[0].set_ylabel("training loss\n[nats per image]")
    if (rows.loss > 0).any():
        grid[0, 0].set_yscale("log")
    for axes in grid[-1]:
        axes.set_xlabel("training step")
    style.legend(figure, 4)
    style.footer(figure, settings, style.settings_of(rows, "dataset"))
    return figure
