"""The paper's Fig. 3: the gap G(s,T) of networks of different capacity, against the diffusion time.

From the `summary` table, in nats. The gap does not depend on p_noise, so the rows of one p_noise are shown.
"""

from __future__ import annotations

import pandas as pd
from matplotlib.figure import Figure

from difftime.figures import style
from difftime.study.settings import FigureSettings


def draw(frame: pd.DataFrame, settings: FigureSettings) -> Figure:
    """One panel per SDE, one line per network of `settings.capacities`."""
    rows = style.select(
        frame, dataset=settings.dataset, net=settings.capacities, p_noise=settings.p_noise, quantity="gap"
    )
    sdes, looks = style.sdes_of(rows), style.networks(settings.capacities)
    figure, grid = style.panels(settings, 1, len(sdes), 2.35, sharey=True)
    style.log_axis(grid[0, 0], *style.gap_limits(rows["mean"]))
    for sde, axes in zip(sdes, grid[0], strict=True):
        for net, look in looks.items():
            style.curve(axes, rows[(rows.sde == sde) & (rows.net == net)], look, style.line_style(sde, sdes))
        axes.set_title(style.sde_title(sde), loc="left", fontweight="bold")
        style.time_axis(axes)
    grid[0, 0].set_ylabel("gap $G(s,T)$ [nats]")
    style.legend(figure, 3)
    absent = [name for name in settings.capacities if name not in set(rows.net)]
    said = [*style.settings_of(rows, "dataset"), "the gap does not depend on p_noise"]
    style.footer(figure, settings, [*said, *(f"no rows for net {name}" for name in absent)])
    return figure
