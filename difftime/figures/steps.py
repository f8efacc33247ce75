"""**Few steps**: whether a short diffusion time still helps when the sampler is good. The Wasserstein-1 distance of the
samples to p_data in units of x (sliced for more than one dimension; of images to the test images) against T, a column
per number of evaluations of the score that a sampler may take (NFE), a row per SDE and p_noise, a line per sampler:
Euler–Maruyama in equal steps of time; DDIM, Heun and DPM-Solver++(2M) in equal steps of lambda = log(sigma²/alpha²).
The dark line is what many evaluations reach: RK45 to its tolerance, of images Euler–Maruyama in the settings' steps.
The grey line is what as many perfect samples are expected to have. Points are means over seeds ± their standard
errors; of one seed of images the error is a bootstrap over the images. All samplers start from the same draws.
"""

from __future__ import annotations

import itertools

import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from difftime.figures import style
from difftime.figures.settings import FigureSettings

PERFECT = "perfect samples (expected)"
MANY = {"ode": "many evaluations: RK45", "sde": "many evaluations: Euler–Maruyama"}
HIGHEST = 100.0
"""How many times the lowest distance an axis shows: Heun in two steps can miss by a thousand times that."""


def limits(rows: pd.DataFrame) -> tuple[float, float]:
    """The axis of all panels [units of x]; from below the lowest distance to HIGHEST times that, or the highest."""
    known = pd.concat([rows.wasserstein1, rows.many_wasserstein1, rows.wasserstein1_floor]).dropna()
    known = known[known > 0]
    if known.empty:
        return 0.1, 10.0
    low = known.min() / 1.3
    return low, min(1.5 * known.max(), HIGHEST * low)


def line_of(rows: pd.DataFrame, column: str) -> pd.DataFrame:
    """One line over T, as `style.curve` takes it."""
    named = {column: "mean", f"{column}_se": "se"}
    return rows[["T", *named, "seeds", "finite"]].rename(columns=named)


def _panel(axes: Axes, rows: pd.DataFrame, linestyle: style.LineStyle) -> None:
    for floor in rows.wasserstein1_floor.dropna().unique():
        axes.axhline(floor, color=style.GREY, linewidth=0.9, label=PERFECT)
    for name, label in MANY.items():
        many = rows[rows.many == name].drop_duplicates("T")
        if len(many):
            line = line_of(many, "many_wasserstein1").assign(finite=many.many_finite)
            style.curve(axes, line, style.Look(label, style.INK, ""), linestyle)
    for sampler, look in style.FEW_STEPS.items():
        own = rows[rows.sampler == sampler]
        if len(own):
            style.curve(axes, line_of(own, "wasserstein1"), look, linestyle)


def draw(frame: pd.DataFrame, settings: FigureSettings) -> Figure:
    """One row per SDE and p_noise, one column per number of evaluations, one line per sampler."""
    rows = style.select(frame)
    lines = [
        pair
        for pair in itertools.product(style.sdes_of(rows), style.noises_of(rows))
        if len(rows[(rows.sde == pair[0]) & (rows.p_noise == pair[1])])
    ]
    budgets = sorted(rows.evaluations.unique())
    height = 0.9 + 1.55 * len(lines)
    distance = "Wasserstein-1" if settings.kind == "mixture" else "sliced Wasserstein-1"
    figure, grid = style.panels(settings, len(lines), len(budgets), height, sharex=True, sharey=True)
    style.log_axis(grid[0, 0], *limits(rows))
    for (sde, p_noise), panels in zip(lines, grid, strict=True):
        own = rows[(rows.sde == sde) & (rows.p_noise == p_noise)]
        for budget, axes in zip(budgets, panels, strict=True):
            _panel(axes, own[own.evaluations == budget], style.line_style(sde, settings))
            style.heading(axes, style.sde_title(sde, settings), [p_noise, f"NFE ≤ {budget}"])
        panels[0].set_ylabel(f"{distance}\n[units of $x$]")
    for axes in grid[-1]:
        style.time_axis(axes)
    style.legend(figure, 3)
    said = style.settings_of(rows, "dataset", "net")
    said += [f"{name} takes {nfe} of {of}" for name, of, nfe in _apart(rows[rows.nfe != rows.evaluations])]
    said.append(f"many evaluations: {rows.many_nfe.min():.0f} to {rows.many_nfe.max():.0f}")
    style.footer(figure, settings, [*said, *style.counts_of(rows, {"units": "samples per seed"})])
    return figure


def _apart(rows: pd.DataFrame) -> list[tuple[str, int, int]]:
    """Samplers that do not take all evaluations they may."""
    return sorted({*zip(rows.sampler, rows.evaluations, rows.nfe, strict=True)})
