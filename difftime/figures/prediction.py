"""**The optimal T predicted, beside the one found by training at every T**: the ELBO against the diffusion time, of
mixtures in nats, the more the better, of images in bits per dimension, the fewer the better. One column per SDE, one
row per p_noise. Diamonds are cells trained up to their own T. Lines are predicted from running ELBOs: a model trained
up to T knows its ELBO at every earlier time. The line of all cells goes through what they know, so it agrees with the
diamonds by construction; the lines of few cells, or of the one of the largest T, are tests of the prediction. Text
above a panel gives T* of each, dotted in the panel, with its bootstrap interval, a bar on the side of the worse
values. Error bars and bands are ± standard errors over seeds and, of images, over the images. The last line says which
cells a prediction knows. Of a pretrained network, which is the same at every T, the line is no prediction but its
running ELBO, and the diamonds are cells at which it was measured.
"""

from __future__ import annotations

import math

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from difftime.figures import style
from difftime.figures.settings import FigureSettings

METHODS = {
    "trained": style.Look("trained cells", style.INK, "D"),
    "curve": style.Look("predicted from all cells", style.P_NOISES["full"].colour, ""),
    "few": style.Look("predicted from few cells", style.P_NOISES["standard"].colour, ""),
    "one": style.Look("predicted from the cell of the largest $T$", style.P_NOISES["matched"].colour, ""),
}
NAMES = {"trained": "trained", "curve": "all cells", "few": "few cells", "one": "one cell"}
PRETRAINED = {
    "trained": style.Look("measured cells", style.INK, "D"),
    "curve": style.Look("running ELBO of the network", style.P_NOISES["full"].colour, ""),
}
PRETRAINED_NAMES = {"curve": "running ELBO"}
SPAN = {"nats": (2.0, math.inf), "bits per dimension": (0.2, 1.0)}
"""What the axis shows behind the best value: at least, at most."""


def limits(rows: pd.DataFrame) -> tuple[float, float]:
    """The vertical axis: from the best value of any curve to twice the distance of the worst curve's best, and SPAN."""
    sign = 1.0 if rows.unit.iloc[0] == "nats" else -1.0
    best = (sign * rows.elbo).groupby([rows.sde, rows.p_noise, rows.method]).max().dropna()
    if best.empty:
        return 0.0, 1.0
    least, most = SPAN[rows.unit.iloc[0]]
    span = min(max(least, 2 * (best.max() - best.min())), most)
    ends = sign * np.array([best.max() - span, best.max() + 0.1 * span])
    return ends.min(), ends.max()


def said_of(line: pd.DataFrame) -> str:
    """T* of one method in words."""
    first, finite = line.iloc[0], line.t[line.elbo.notna()]
    if not math.isfinite(first.T_star):
        return "none"
    if not finite.min() < first.T_star < finite.max():
        return f"{first.T_star:.2f} (edge)"
    known = math.isfinite(first.T_star_low)
    return f"{first.T_star:.2f}" + (f" [{first.T_star_low:.2f}, {first.T_star_high:.2f}]" if known else "")


def _line(axes: Axes, line: pd.DataFrame, look: style.Look, linestyle: style.LineStyle, level: int) -> None:
    first = line.iloc[0]
    worse = 0.0 if first.unit == "nats" else 1.0
    style.time_bar(axes, (first.T_star, first.T_star_low, first.T_star_high), look, level, worse)
    t, elbo, se = (line[name].to_numpy(float) for name in ("t", "elbo", "elbo_se"))
    shown = (elbo > min(axes.get_ylim())) & (elbo < max(axes.get_ylim()))
    band = np.where(shown, se, np.nan)
    if look.marker:
        axes.errorbar(t, elbo, band, fmt="none", ecolor=look.colour, elinewidth=0.8)
        linestyle = "none"
    else:
        axes.fill_between(t, elbo - band, elbo + band, color=look.colour, alpha=0.2, linewidth=0)
    axes.plot(
        t, elbo, color=look.colour, marker=look.marker, linestyle=linestyle, label=look.label, gid=style.CURVE, zorder=3
    )
    style.mark_not_finite(axes, t[np.isnan(elbo)], look, level)
    style.mark_outside(axes, t, elbo, look, level)


def draw(frame: pd.DataFrame, settings: FigureSettings) -> Figure:
    """One column per SDE, one row per p_noise."""
    rows = style.select(frame, method=[*METHODS])
    sdes, noises = style.sdes_of(rows), style.noises_of(rows)
    figure, grid = style.panels(settings, len(noises), len(sdes), 0.8 + 1.9 * len(noises), sharex=True, sharey=True)
    grid[0, 0].set_ylim(*limits(rows))
    for sde, column in zip(sdes, grid.T, strict=True):
        for name, axes in zip(noises, column, strict=True):
            own = rows[(rows.sde == sde) & (rows.p_noise == name)]
            lines = {method: line for method in METHODS if len(line := own[own.method == method].sort_values("t"))}
            pretrained = settings.sdes[sde] == "of-model"
            looks, names = (PRETRAINED, PRETRAINED_NAMES) if pretrained else (METHODS, NAMES)
            for level, (method, line) in enumerate(lines.items()):
                _line(axes, line, looks[method], style.line_style(sde, settings), level)
            said = [f"{names[method]} {said_of(line)}" for method, line in lines.items() if method in names] or [
                "not measured"
            ]
            style.heading(axes, f"{style.sde_title(sde, settings)}, {name}", [f"$T^*$: {said[0]}", *said[1:]])
        style.time_axis(column[-1])
    nats = rows.unit.iloc[0] == "nats"
    for axes in grid[:, 0]:
        axes.set_ylabel("ELBO [nats]\nmore is better" if nats else "ELBO [bits per dimension]\nless is better")
    style.legend(figure, 3, style.interval_of(grid.flat))
    known = rows[rows.method != "trained"].groupby(["method", "trained"], sort=False).size().index
    said = [f"{names[method]}: T = {cells}" for method, cells in known]
    made = [f"dataset {rows.dataset.iloc[0]}", f"net {rows.net.iloc[0]}"]
    style.footer(figure, settings, [*made, *style.counts_of(rows, {"units": "test images"}), *said])
    return figure
