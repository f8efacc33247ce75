"""The paper's Table 1 as a figure: bits per dimension and NFE against the diffusion time.

From the `table1` table. Left, in bits per dimension: the 8-bit test images under the probability-flow ODE, the ELBO's
bound on another model, the reverse SDE, and how much the mismatch KL[p(x,T) || p_noise] alone should add to the value
at the largest T, bracketed in closed form from the data. Right: right-hand-side calls of RK45. Crosses are the paper's.
"""

from __future__ import annotations

import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from difftime.figures import style
from difftime.study.settings import FigureSettings
from difftime.tables.published import SOURCE, TABLE1

BPD = style.Look("BPD, probability-flow ODE", style.QUANTITIES["log_q_ode"].colour, "s")
ELBO = style.Look("ELBO in bits (bounds reverse SDE)", style.QUANTITIES["elbo"].colour, "D")
NFE = style.Look("NFE of RK45, mean ± s.d. over batches", style.SAMPLERS["ode"].colour, "s")
RISE = "BPD at the largest T + KL bracket"
PAPER = f"{SOURCE}, Table 1"


def line_of(rows: pd.DataFrame, value: str, spread: str, measured: str) -> pd.DataFrame:
    """The curve of a value over the T at which it was measured; hollow where some of it is not finite."""
    rows = rows[rows[measured].notna()]
    lost = rows[value].isna() * rows.seeds
    some = (rows.failed.fillna(0) > 0).astype(int) if measured == "images" else 0
    finite = (rows.seeds - some - lost).clip(lower=0)
    return rows[["T", "seeds"]].assign(mean=rows[value], se=rows[spread], finite=finite)


def _paper(axes: Axes, dataset: str, sde: str, column: str) -> None:
    """The published values of these data, which are of VP."""
    rows = [row for row in TABLE1 if row.dataset == dataset and sde == "vp"]
    if rows:
        T, value = [row.T for row in rows], [getattr(row, column) for row in rows]
        axes.plot(T, value, color=style.GREY, marker="x", linestyle=":", linewidth=0.8, label=PAPER)


def _rise(axes: Axes, rows: pd.DataFrame) -> None:
    """What KL alone predicts: the BPD at the largest T, raised by KL at each smaller T less KL at the largest."""
    rows = rows[rows.kl_low_bpd.notna()]
    known = rows[rows.bpd.notna()]
    if known.empty:
        return
    last = known.loc[known["T"].idxmax()]
    rows = rows[rows["T"] < last["T"]]
    low = last.bpd + rows.kl_low_bpd - last.kl_high_bpd
    high = last.bpd + rows.kl_high_bpd - last.kl_low_bpd
    colour = style.QUANTITIES["kl"].colour
    axes.fill_between(rows["T"], low, high, color=colour, alpha=0.3, linewidth=0.8, label=RISE)


def draw(frame: pd.DataFrame, settings: FigureSettings) -> Figure:
    """One row per data set, SDE and network; on the left bits per dimension, on the right evaluations."""
    rows = style.select(frame, p_noise=settings.p_noise)
    lines = [*rows.groupby(["dataset", "sde", "net"], sort=False)]
    figure, grid = style.panels(settings, len(lines), 2, 0.7 + 1.75 * len(lines))
    for ((dataset, sde, net), line), (bits, calls) in zip(lines, grid, strict=True):
        own, linestyle = line.sort_values("T"), style.line_style(sde, style.sdes_of(rows))
        _rise(bits, own)
        style.curve(bits, line_of(own, "elbo_bpd", "elbo_bpd_se", "elbo_images"), ELBO, linestyle)
        style.curve(bits, line_of(own, "bpd", "bpd_se", "images"), BPD, linestyle)
        style.curve(calls, line_of(own, "nfe", "nfe_sd", "images"), NFE, linestyle)
        _paper(bits, dataset, sde, "bpd")
        _paper(calls, dataset, sde, "nfe")
        bits.set_ylabel("bits per dimension")
        calls.set_ylabel("NFE [1]")
        calls.set_ylim(0, None)
        for axes in (bits, calls):
            axes.set_title(f"{dataset}, {style.sde_title(sde)}, {net}", loc="left", fontweight="bold")
    for axes in grid[-1]:
        style.time_axis(axes)
    style.legend(figure, 3)
    said = [f"{name} {', '.join(f'{v:g}' for v in rows[name].dropna().unique())}" for name in ("images", "batch")]
    said += [f"{name} {', '.join(map(str, rows[name].unique()))}" for name in ("iterations", "weighting", "p_noise")]
    style.footer(figure, settings, [*said, "± standard error over images and seeds"])
    return figure
