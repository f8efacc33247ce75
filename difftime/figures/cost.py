"""**What samples cost**: evaluations of the score per sample against the diffusion time, one column per SDE. The
reverse SDE takes the steps of Euler–Maruyama that the settings give it per unit of time, so its cost is proportional
to T by choice. The probability-flow ODE is solved by RK45, whose right-hand-side calls follow from its tolerance; all
samples of a seed are solved as one system. Points are means over seeds ± their standard errors. The reverse process
starts from the standard p_noise; where that was not measured, from the plainest p_noise that was.
"""

from __future__ import annotations

import pandas as pd
from matplotlib.figure import Figure

from difftime.figures import style
from difftime.figures.settings import FigureSettings


def draw(frame: pd.DataFrame, settings: FigureSettings) -> Figure:
    """One column per SDE, one line per sampler."""
    rows = style.of_one_noise(frame)
    sdes = style.sdes_of(rows)
    figure, grid = style.panels(settings, 1, len(sdes), 2.3, sharex=True, sharey=True)
    for sde, axes in zip(sdes, grid[0], strict=True):
        for sampler, look in style.SAMPLERS.items():
            own = rows[(rows.sde == sde) & (rows.sampler == sampler)]
            if len(own):
                style.curve(axes, style.mean_over_seeds(own, "nfe"), look, style.line_style(sde, settings))
        style.heading(axes, style.sde_title(sde, settings))
        style.time_axis(axes)
    grid[0, 0].set_ylabel("score evaluations\nper sample [1]")
    grid[0, 0].set_ylim(0, None)
    style.legend(figure, 2)
    said = style.settings_of(rows, "dataset", "net", "p_noise")
    style.footer(figure, settings, [*said, *style.counts_of(rows, {"units": "samples per seed"})])
    return figure
