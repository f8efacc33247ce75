"""**The gap G(s,T) of networks of different capacity** (the paper's Fig. 3), in nats on a logarithmic axis, one column
per SDE. All networks of the data set are shown, from light to dark by their number of parameters. Points are means
over seeds ± their standard errors. The gap compares the learned score with the exact one, which is known for a
mixture. It does not depend on p_noise. Networks may differ in more than their size, such as their training: the
settings below say in what.
"""

from __future__ import annotations

import pandas as pd
from matplotlib.figure import Figure

from difftime.figures import style
from difftime.figures.settings import FigureSettings


def by_parameters(rows: pd.DataFrame) -> dict[str, int]:
    """The networks from small to large, with their number of parameters."""
    counts = rows.groupby("net", sort=False).parameters.first().sort_values(kind="stable")
    return dict(zip(counts.index, counts.tolist(), strict=True))


def draw(frame: pd.DataFrame, settings: FigureSettings) -> Figure:
    """One panel per SDE, one line per network."""
    rows = style.select(frame, quantity=["gap"]).drop_duplicates(["sde", "net", "T"])
    sdes, networks = style.sdes_of(rows), by_parameters(rows)
    figure, grid = style.panels(settings, 1, len(sdes), 2.45, sharex=True, sharey=True)
    style.log_axis(grid[0, 0], *style.gap_limits(rows["mean"]))
    for sde, axes in zip(sdes, grid[0], strict=True):
        for (net, look), count in zip(style.networks([*networks]).items(), networks.values(), strict=True):
            line = rows[(rows.sde == sde) & (rows.net == net)]
            named = style.Look(f"{net}: {count:,} parameters", look.colour, look.marker)
            if len(line):
                style.curve(axes, line, named, style.line_style(sde, settings))
        style.heading(axes, style.sde_title(sde, settings))
        style.time_axis(axes)
    grid[0, 0].set_ylabel("gap $G(s,T)$ [nats]")
    style.legend(figure, 2 if len(networks) < 5 else 3)
    style.footer(figure, settings, style.settings_of(rows, "dataset"))
    return figure
