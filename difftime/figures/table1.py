"""**Bits per dimension and cost of images** (the paper's Table 1), one row per SDE and network. Left, of the 8-bit
test images, which no model has trained on: under the *probability-flow ODE*, and the ELBO, which bounds another model,
the *reverse SDE*. The band is what the mismatch KL[p(x,T) || p_noise] alone should add to the ODE's value at the
largest T; it is bracketed in closed form from the training images. Error bars are standard errors over images and
seeds. Middle, the same values minus those at T = 1, or at the largest T: paired over the same images and seeds, so with
their own, smaller, standard errors. Right, right-hand-side calls of RK45, which belong to a batch of images solved as
one system, with the standard deviation over batches. The reverse process starts from the standard p_noise; where that
was not measured, from the plainest p_noise that was. Grey stars are the paper's values, of its own networks and
trainings.
"""

from __future__ import annotations

import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from difftime.figures import style
from difftime.figures.settings import FigureSettings
from difftime.tables.published import SOURCE

BPD = style.Look("BPD, probability-flow ODE", style.QUANTITIES["log_q_ode"].colour, "s")
ELBO = style.Look("ELBO in bits (bounds reverse SDE)", style.QUANTITIES["elbo"].colour, "D")
NFE = style.Look("NFE of RK45, mean ± s.d. over batches", style.SAMPLERS["ode"].colour, "s")
RISE = "BPD at the largest T + KL bracket"
PAPER = f"{SOURCE}, Table 1"


def line_of(rows: pd.DataFrame, value: str, spread: str, measured: str) -> pd.DataFrame:
    """The curve of a value over the T at which it was measured; hollow where some of it is not finite."""
    rows = rows[rows[measured].notna()]
    lost = rows[value].isna() * rows.seeds
    some = (rows.failed.fillna(0) > 0).astype(int) if measured == "units" else 0
    finite = (rows.seeds - some - lost).clip(lower=0)
    return rows[["T", "seeds"]].assign(mean=rows[value], se=rows[spread], finite=finite)


def _curve(axes: Axes, line: pd.DataFrame, look: style.Look, linestyle: style.LineStyle) -> None:
    if len(line):
        style.curve(axes, line, look, linestyle)


def _paper(axes: Axes, rows: pd.DataFrame, column: str) -> None:
    """The paper's values, where it has these data and this SDE."""
    known = rows[rows[column].notna()]
    if len(known):
        axes.plot(known["T"], known[column], color=style.GREY, marker="*", linestyle=":", linewidth=0.8, markersize=5,
                  label=PAPER)  # fmt: skip


def _rise(axes: Axes, rows: pd.DataFrame) -> None:
    """What KL alone predicts: the BPD at the largest T, raised by KL at each smaller T less KL at the largest."""
    rows = rows[rows.kl_low_bpd.notna() & rows.kl_high_bpd.notna()]
    known = rows[rows.bpd.notna()]
    if known.empty:
        return
    last = known.iloc[known["T"].argmax()]
    rows = rows[rows["T"] <= last["T"]]
    low = last.bpd + rows.kl_low_bpd - last.kl_high_bpd
    high = last.bpd + rows.kl_high_bpd - last.kl_low_bpd
    colour = style.QUANTITIES["kl"].colour
    axes.fill_between(rows["T"], low, high, color=colour, alpha=0.3, linewidth=0.8, label=RISE)


def _row(bits: Axes, less: Axes, calls: Axes, rows: pd.DataFrame, linestyle: style.LineStyle) -> None:
    _rise(bits, rows)
    _curve(bits, line_of(rows, "elbo_bpd", "elbo_bpd_se", "elbo_units"), ELBO, linestyle)
    _curve(bits, line_of(rows, "bpd", "bpd_se", "units"), BPD, linestyle)
    less.axhline(0, color=style.GREY, linewidth=0.9)
    for value, measured, look in (("elbo_bpd", "elbo_units", ELBO), ("bpd", "units", BPD)):
        _curve(less, line_of(rows, f"delta_{value}", f"delta_{value}_se", measured), look, linestyle)
    _curve(calls, line_of(rows, "nfe", "nfe_sd", "units"), NFE, linestyle)
    _paper(bits, rows, "paper_bpd")
    _paper(calls, rows, "paper_nfe")


def draw(frame: pd.DataFrame, settings: FigureSettings) -> Figure:
    """One row per SDE and network; bits per dimension, their differences, and evaluations."""
    rows = style.of_one_noise(frame)
    lines = [*rows.groupby(["sde", "net"], sort=False)]
    figure, grid = style.panels(settings, len(lines), 3, 0.8 + 1.75 * len(lines))
    for ((sde, net), line), panels in zip(lines, grid, strict=True):
        own, (bits, less, calls) = line.sort_values("T"), panels
        _row(bits, less, calls, own, style.line_style(sde, settings))
        bits.set_ylabel("bits per dimension\nless is better")
        against = ", ".join(f"{T:g}" for T in own.against_T.dropna().unique()) or "–"
        less.set_ylabel(f"minus those at $T = {against}$\n[bits per dimension]")
        calls.set_ylabel("NFE [1]")
        calls.set_ylim(0, None)
        style.heading(bits, f"{style.sde_title(sde, settings)}, {net}")
        for axes, what in zip((less, calls), ("paired differences", "cost of the ODE"), strict=True):
            axes.set_title(what, loc="left")
    for axes in grid[-1]:
        style.time_axis(axes)
    style.legend(figure, 3)
    counts = {"units": "test images of BPD", "elbo_units": "of the ELBO", "batch": "solved as one system"}
    said = style.settings_of(rows, "dataset", "p_noise", "iterations", "weighting")
    style.footer(figure, settings, [*said, *style.counts_of(rows, counts)])
    return figure
