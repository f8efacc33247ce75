"""**The ELBO by p_noise** against the diffusion time, one column per SDE: of mixtures in nats, the more the better,
below the ceiling E log p_data; of images in bits per dimension, the fewer the better. All curves of a panel share
their trained scores. The reverse process starts from different densities at T, so only KL[p(x,T) || p_noise] differs.
Points are means ± their standard errors, over seeds and, of images, over the images. Dotted lines, the bars and the
text above a panel give the T* of each p_noise with its bootstrap interval, which knows nothing of the distance between
the times. Of a pretrained network T* is that of its running ELBO, which the figure ``prediction`` draws between the
points.
"""

from __future__ import annotations

import math

import pandas as pd
from matplotlib.figure import Figure

from difftime.figures import style
from difftime.figures.fig2 import ceiling, value_limits
from difftime.figures.settings import FigureSettings

DEPTH = 1.0
"""Bits per dimension behind the best at which the axis of images ends."""


def bits_limits(bits: pd.DataFrame) -> tuple[float, float]:
    """The axis of images [bits per dimension]: everything, but not further than DEPTH behind the best."""
    low, high = (bits["mean"] - bits.se.fillna(0)).min(), (bits["mean"] + bits.se.fillna(0)).max()
    if not math.isfinite(low):
        return 0.0, 1.0
    high = min(high, low + DEPTH)
    margin = 0.08 * (high - low) or 0.05
    return low - margin, high + margin


def draw(frame: pd.DataFrame, settings: FigureSettings) -> Figure:
    """One column per SDE, one line per p_noise, T* of each."""
    mixture = settings.kind == "mixture"
    quantity = "elbo" if mixture else "elbo_bpd"
    rows = style.select(frame, quantity=[quantity, "log_p_data"])
    elbo = style.select(rows, quantity=[quantity])
    sdes = style.sdes_of(elbo)
    figure, grid = style.panels(settings, 1, len(sdes), 2.8, sharex=True, sharey=True)
    grid[0, 0].set_ylim(*(value_limits(rows) if mixture else bits_limits(elbo)))
    for sde, axes in zip(sdes, grid[0], strict=True):
        own, found = elbo[elbo.sde == sde], []
        if mixture:
            axes.axhline(ceiling(rows[rows.sde == sde]), color=style.GREY, linewidth=0.9, label=style.CEILING)
        for level, name in enumerate(style.noises_of(own)):
            line, look = own[own.p_noise == name], style.P_NOISES[name]
            style.curve(axes, line, look, style.line_style(sde, settings))
            *place, said = style.optimum(line)
            style.time_bar(axes, place, look, level, 0.0 if mixture else 1.0)
            found.append(f"{name} {said}")
        style.heading(axes, style.sde_title(sde, settings), [f"$T^*$: {found[0]}", *found[1:]])
        style.time_axis(axes)
    grid[0, 0].set_ylabel("ELBO [nats]\nmore is better" if mixture else "ELBO [bits per dimension]\nless is better")
    style.legend(figure, 3, style.interval_of(grid.flat))
    style.footer(figure, settings, [*style.settings_of(elbo, "dataset", "net"), "dotted: T*"])
    return figure
