"""What all figures share: type, colours, a curve over T with its uncertainty, and how a figure is written.

Line style tells the kind of the SDE. Colour and marker tell the rest: one look per quantity, sampler, p_noise or
network, the same in every figure. What cannot be drawn as a point stays visible: a value beyond an axis as an arrow on
its border, a value that is not finite as a cross there, a panel without any value as words.
"""

from __future__ import annotations

import math
import re
import textwrap
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import matplotlib
import numpy as np
import pandas as pd
import seaborn
from matplotlib.artist import Artist
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.layout_engine import ConstrainedLayoutEngine
from matplotlib.lines import Line2D
from matplotlib.ticker import LogLocator, MaxNLocator, NullFormatter

from difftime.figures.settings import FigureSettings
from difftime.support.files import atomic

LineStyle = str | tuple


class NothingToDraw(Exception):
    """The table has no row that the figure shows; the message says of what."""


@dataclass(frozen=True)
class Look:
    """How one quantity, sampler, p_noise or network appears."""

    label: str
    colour: str
    marker: str


_BLUE, _ORANGE, _GREEN, _VERMILION, _PURPLE, *_ = seaborn.color_palette("colorblind").as_hex()
INK = "#262626"
GREY = "#757575"
"""References that are no model: p_data, floors, the paper's values, settings."""

QUANTITIES = {
    "kl": Look(r"$\mathrm{KL}[\,p(x,T)\,\|\,p_\mathrm{noise}]$", _GREEN, "^"),
    "gap": Look(r"gap $G(s,T)$", _VERMILION, "v"),
    "elbo": Look("ELBO (bounds reverse SDE)", INK, "D"),
    "log_q_sde": Look("log-likelihood, reverse SDE", _BLUE, "o"),
    "log_q_ode": Look("log-likelihood, probability-flow ODE", _ORANGE, "s"),
}
SAMPLERS = {
    "sde": Look("reverse SDE, Euler–Maruyama", _BLUE, "o"),
    "ode": Look("probability-flow ODE, RK45", _ORANGE, "s"),
}
FEW_STEPS = {
    "sde": SAMPLERS["sde"],
    "ddim": Look("DDIM", _GREEN, "^"),
    "heun": Look("Heun", _PURPLE, "D"),
    "dpm_solver_2m": Look("DPM-Solver++(2M)", _VERMILION, "v"),
}
P_NOISES = {
    "standard": Look(r"standard $p_\mathrm{noise}$", _BLUE, "o"),
    "matched": Look(r"matched $p_\mathrm{noise}$ (mean, variance)", _VERMILION, "D"),
    "full": Look(r"full-covariance $p_\mathrm{noise}$", _GREEN, "^"),
    "mixture": Look(r"mixture $p_\mathrm{noise}$", _PURPLE, "s"),
    "flow": Look(r"flow $p_\mathrm{noise}$", _ORANGE, "v"),
}
LINE_STYLES: dict[str, LineStyle] = {"vp": "-", "sub-vp": "-.", "ve-exponential": "--", "ve-geometric": (0, (1, 1))}
OTHER_STYLES = ((0, (5, 1, 1, 1, 1, 1)), (0, (8, 3)), (0, (5, 1, 1, 1)), (0, (3, 4)))
"""Of other kinds of SDE, which have one each in a study of at most so many of them."""
OPTIMUM = Look("$T^*$ with bootstrap interval", _PURPLE, "")
OPTIMUM_TEXT = "#9c4a8c"
"""The same hue, dark enough to be read."""
CEILING = r"$\mathrm{E}\,\log\,p_\mathrm{data}$, the ceiling"
TIME = "diffusion time $T$"
P_DATA = r"$p_\mathrm{data}$"
NOT_FINITE = "not finite for some seeds or images (hollow: mean of the rest)"
BELOW = "below the axis"
ABOVE = "above the axis"
_MARKS = {NOT_FINITE: "x", BELOW: r"$\downarrow$", ABOVE: r"$\uparrow$"}
INTERVAL = "bootstrap interval of $T^*$"
BAR: dict[str, Any] = {"linewidth": 3, "alpha": 0.45}
"""An interval of T* as a bar."""
CURVE = "curve"
"""The gid of a line that shows a column of the table."""
_APART = 0.02
"""The least distance of two marks on a border, as a share of it; those between are left out."""
NO_BREAK = "\N{NO-BREAK SPACE}"


def networks(names: Sequence[str]) -> dict[str, Look]:
    """From light to dark in the order of `names`."""
    shades = seaborn.color_palette("viridis_r", len(names) + 1).as_hex()[1:]
    markers = [*"osD^vPX"]
    return {name: Look(name, shades[i], markers[i % len(markers)]) for i, name in enumerate(names)}


def line_style(sde: str, settings: FigureSettings) -> LineStyle:
    """The line style of an SDE's kind, in all figures of a data set."""
    kind, others = settings.sdes[sde], sorted({*settings.sdes.values()} - LINE_STYLES.keys())
    return LINE_STYLES.get(kind) or OTHER_STYLES[others.index(kind) % len(OTHER_STYLES)]


def kind_title(kind: str) -> str:
    """A kind of SDE in writing: sub-VP, VE-geometric, tabulated."""
    return re.sub(r"\bv[pe]\b", lambda found: found[0].upper(), kind)


def sde_title(sde: str, settings: FigureSettings) -> str:
    """The SDE as the user named it, and its kind where the name does not begin to say it: ve; fast (VP)."""
    kind = settings.sdes[sde]
    return sde if kind.startswith(sde.casefold()) else f"{sde} ({kind_title(kind)})"


def sdes_of(frame: pd.DataFrame) -> list[str]:
    """The SDEs of a table, in its order."""
    return [*frame.sde.unique()]


def noises_of(frame: pd.DataFrame) -> list[str]:
    """The p_noises of a table, from the plainest to the most elaborate."""
    return sorted(frame.p_noise.unique(), key=[*P_NOISES].index)


def of_one_noise(frame: pd.DataFrame) -> pd.DataFrame:
    """The rows of the standard p_noise; where it was not measured, of the plainest that was."""
    return select(frame, p_noise=noises_of(frame)[:1])


@contextmanager
def context(settings: FigureSettings) -> Iterator[None]:
    """matplotlib's own defaults, whatever a matplotlibrc says, and ours, while one figure is drawn and saved."""
    size = settings.font_size
    sizes: dict[Any, Any] = {
        "font.size": size, "axes.labelsize": size, "axes.titlesize": size, "legend.fontsize": size - 1,
        "xtick.labelsize": size - 1, "ytick.labelsize": size - 1,
    }  # fmt: skip
    lines: dict[Any, Any] = {
        "axes.linewidth": 0.6, "lines.linewidth": 1.1, "lines.markersize": 3.0, "lines.markeredgewidth": 0.7,
        "xtick.major.width": 0.6, "ytick.major.width": 0.6, "xtick.minor.width": 0.4, "ytick.minor.width": 0.4,
        "xtick.major.size": 2.5, "ytick.major.size": 2.5, "xtick.minor.size": 1.5, "ytick.minor.size": 1.5,
    }  # fmt: skip
    written: dict[Any, Any] = {
        "pdf.fonttype": 42, "ps.fonttype": 42, "svg.hashsalt": "difftime", "savefig.dpi": 200, "legend.frameon": False,
        "axes.titlepad": 4.0, "font.family": ["DejaVu Sans"], "mathtext.fontset": "dejavusans", "text.color": INK,
        "axes.labelcolor": INK, "axes.grid": True, "grid.color": "#ebebeb", "grid.linewidth": 0.5,
        "axes.axisbelow": True,
    }  # fmt: skip
    with matplotlib.rc_context():
        matplotlib.rcdefaults()
        matplotlib.rcParams.update({**seaborn.axes_style("ticks"), **sizes, **lines, **written})
        yield


def save(figure: Figure, output: Path, formats: Sequence[str] = ()) -> None:
    """Write the PDF `output`, a PNG beside it and further formats: each whole or not at all, without a date."""
    undated: dict[str, dict[str, None]] = {"pdf": {"CreationDate": None}, "svg": {"Date": None}}
    for name in dict.fromkeys(("pdf", "png", *formats)):
        with atomic(output.with_suffix(f".{name}")) as temporary:
            figure.savefig(temporary, format=name, metadata=undated.get(name, {}))
        # laid out once: the layout is two fifths of the time, and the formats are alike
        figure.set_layout_engine("none")


def panels(
    settings: FigureSettings, rows: int, columns: int, height: float, **options: Any
) -> tuple[Figure, np.ndarray]:
    """A figure as wide as the page and `height` inches high, and its axes [rows, columns]."""
    layout = ConstrainedLayoutEngine(w_pad=0.04, h_pad=0.04, wspace=0.03, hspace=0.03)
    figure = Figure(figsize=(settings.width, height), layout=layout)
    axes = figure.subplots(rows, columns, squeeze=False, **options)
    seaborn.despine(fig=figure)
    return figure, axes


def blank(settings: FigureSettings, text: str) -> Figure:
    """A figure that says why it shows nothing."""
    figure, ((axes,),) = panels(settings, 1, 1, 1.2)
    axes.set_axis_off()
    note(axes, 0.5, 0.5, text, ha="center", va="center")
    return figure


def select(frame: pd.DataFrame, **wanted: Sequence[object]) -> pd.DataFrame:
    """The rows with one of these values in each of these columns. Raises NothingToDraw if there are none."""
    rows = frame
    for column, values in wanted.items():
        rows = rows[rows[column].isin(values)]
    if rows.empty:
        asked = ", ".join(f"{column} {' or '.join(map(str, values))}" for column, values in wanted.items())
        raise NothingToDraw(f"its table has no row of {asked}." if len(frame) else "its table has no row of it.")
    return rows


def mean_over_seeds(frame: pd.DataFrame, column: str) -> pd.DataFrame:
    """One row per T: mean and standard error of `column` over the seeds with a finite value, and how many there are."""
    values = frame.assign(value=frame[column].where(np.isfinite(frame[column]))).groupby("T").value
    return values.agg(mean="mean", se="sem", seeds="size", finite="count").reset_index()


def curve(axes: Axes, line: pd.DataFrame, look: Look, style: LineStyle) -> None:
    """`mean` over `T` with a band of ± `se`, from the columns of the summary table.

    The line breaks where no seed is finite. Where only some are, the mean of these is a hollow marker. Set the limits
    of `axes` before: what lies beyond them is marked as it is drawn, without its band.
    """
    line = line.sort_values("T")
    T, mean, se = (line[name].to_numpy(float) for name in ("T", "mean", "se"))
    some = (line.finite < line.seeds).to_numpy()
    level = sum(one.get_gid() == CURVE for one in axes.lines)
    low, high = axes.get_ylim()
    # the band of a point beyond the axis could cross the whole panel, and say nothing
    se = np.where((mean < low) | (mean > high), np.nan, se) if not axes.get_autoscaley_on() else se
    axes.fill_between(T, mean - se, mean + se, color=look.colour, alpha=0.2, linewidth=0)
    axes.plot(T, mean, color=look.colour, linestyle=style, marker=look.marker, label=look.label, gid=CURVE)
    axes.errorbar(T, mean, se, fmt="none", ecolor=look.colour, elinewidth=0.8)
    axes.plot(T[some], mean[some], color=look.colour, marker=look.marker, markerfacecolor="white", linestyle="none")
    mark_not_finite(axes, T[some], look, level)
    mark_outside(axes, T, mean, look, level)


def _border(axes: Axes, x: np.ndarray, look: Look, what: str, place: float) -> None:
    """Marks at a place of the vertical axis, from 0 to 1; `what` is said in the legend."""
    if len(x):
        axes.plot(
            x, np.full(len(x), place), color=look.colour, marker=_MARKS[what], linestyle="none", zorder=5,
            markersize=3.5 if what == NOT_FINITE else 5, markeredgewidth=0.7 if what == NOT_FINITE else 0.2,
            transform=axes.get_xaxis_transform(), clip_on=False, gid=what,
        )  # fmt: skip


def mark_not_finite(axes: Axes, x: np.ndarray, look: Look, level: int = 0) -> None:
    """A cross on the upper border wherever a value is null or not finite."""
    _border(axes, x, look, NOT_FINITE, 1 - 0.05 * level)


def mark_outside(axes: Axes, x: np.ndarray, value: np.ndarray, look: Look, level: int = 0) -> None:
    """An arrow on the border wherever a value lies beyond limits that were set by hand."""
    if axes.get_autoscaley_on():
        return
    low, high = axes.get_ylim()
    _border(axes, _apart(x[value < low], x), look, BELOW, 0.03 + 0.06 * level)
    _border(axes, _apart(x[value > high], x), look, ABOVE, 0.97 - 0.06 * level)


def _apart(marked: np.ndarray, x: np.ndarray) -> np.ndarray:
    """Of many marks beside each other as many as can be told apart."""
    kept: list[float] = []
    for place in np.sort(marked):
        if not kept or place - kept[-1] >= _APART * np.ptp(x):
            kept.append(float(place))
    return np.array(kept)


def log_axis(axes: Axes, low: float, high: float) -> None:
    """A logarithmic vertical axis from `low` to `high`, labelled at powers of ten, or at 1, 2, 5 where it is short."""
    axes.set_yscale("log")
    axes.set_ylim(low, high)
    if high < 100 * low:
        axes.yaxis.set_major_locator(LogLocator(subs=(1, 2, 5), numticks=15))
        axes.yaxis.set_major_formatter("{x:g}")
    else:
        axes.yaxis.set_major_locator(LogLocator(numticks=15))
    axes.yaxis.set_minor_locator(LogLocator(subs=tuple(range(2, 10)), numticks=15))
    axes.yaxis.set_minor_formatter(NullFormatter())


def time_axis(axes: Axes, label: str = TIME) -> None:
    """The diffusion time, in SDE time, along the horizontal axis."""
    axes.set_xlabel(label)
    axes.xaxis.set_major_locator(MaxNLocator(nbins=6, steps=[1, 2, 5, 10]))


def gap_limits(gap: pd.Series) -> tuple[float, float]:
    """A logarithmic axis [nats] for the gap: at most a factor of 10,000, as a diverged model has no bound."""
    positive = gap[np.isfinite(gap) & (gap > 0)]
    if positive.empty:
        return 0.1, 10.0
    low = positive.min()
    return low / 1.5, 1.5 * min(positive.max(), 10_000 * low)


def optimum(line: pd.DataFrame) -> tuple[float, float, float, str]:
    """T*, the ends of its interval, and what to say of it; null if unknown. `line`: summary rows of one ELBO over T.

    T* at the first or the last T at which every seed is finite is the edge of what was studied, no optimum.
    """
    T_star, low, high = (float(value) for value in line.iloc[0][["T_star", "T_star_low", "T_star_high"]])
    whole = line["T"][line.finite == line.seeds]
    if not math.isfinite(T_star):
        said = "none: too few finite times"
    elif not whole.min() < T_star < whole.max():
        said = f"{T_star:.2f} (edge of the times)"
    else:
        said = f"{T_star:.2f}" + (f" [{low:.2f}, {high:.2f}]" if math.isfinite(low) else " (one seed: no interval)")
    return T_star, low, high, said


def time_line(axes: Axes, place: Sequence[float], look: Look, **options: Any) -> None:
    """T* as a vertical line with its interval shaded, as far as they are known. `place`: T*, low, high."""
    T_star, low, high = place
    if math.isfinite(low) and math.isfinite(high):
        axes.axvspan(low, high, color=look.colour, alpha=0.14, linewidth=0)
    if math.isfinite(T_star):
        axes.axvline(T_star, color=look.colour, zorder=1.5, **options)


def time_bar(axes: Axes, place: Sequence[float], look: Look, level: int, worse: float) -> None:
    """One T* of several: a dotted line, and its interval as a bar. `place` as for `time_line`.

    `worse` is the end of the vertical axis, 0 or 1, that is far from the best values: the first bar is nearest to it.
    """
    T_star, low, high = place
    time_line(axes, (T_star, math.nan, math.nan), look, linewidth=0.8, linestyle=(0, (1, 1)))
    if math.isfinite(low) and math.isfinite(high):
        bar = {"color": look.colour, "gid": INTERVAL, "solid_capstyle": "butt", "zorder": 1.5, **BAR}
        axes.plot([low, high], [abs(worse - 0.035 - 0.045 * level)] * 2, transform=axes.get_xaxis_transform(), **bar)


def interval_of(axes: Iterable[Axes]) -> dict[str, Artist]:
    """What the bars of intervals mean, for the legend, if any of the panels has one."""
    there = any(line.get_gid() == INTERVAL for panel in axes for line in panel.lines)
    return {INTERVAL: proxy(INTERVAL, color=GREY, **BAR)} if there else {}


def heading(axes: Axes, title: str, said: Sequence[str] = ()) -> None:
    """The title of a panel, and below it what is found there, on as many lines as the panel's width needs."""
    figure = axes.get_figure(root=True)
    assert figure is not None
    columns = axes.get_subplotspec().get_gridspec().ncols  # type: ignore[union-attr]
    size = 0.85 * matplotlib.rcParams["font.size"]
    width = figure.get_size_inches()[0] * 72 / columns - 6 * size
    room = max(12, int(width / (0.58 * size)))
    lines = textwrap.wrap(", ".join(one.replace(" ", NO_BREAK) if len(one) < room else one for one in said), room)
    axes.set_title(title, loc="left", fontweight="bold", pad=4 + (1.25 * len(lines) + 0.35 * bool(lines)) * size)
    if lines:
        axes.annotate(
            "\n".join(lines).replace(NO_BREAK, " "), (0, 1), (0, 3), xycoords="axes fraction",
            textcoords="offset points", va="bottom", fontsize=size, color=OPTIMUM_TEXT, annotation_clip=False,
        )  # fmt: skip


def proxy(label: str, **options: Any) -> Line2D:
    """A line that stands in the legend only."""
    return Line2D([], [], label=label, **options)


def legend(figure: Figure, columns: int, extra: Mapping[str, Artist] | None = None) -> None:
    """One legend above all panels, where no data can be: every label once, and what the marks on borders mean.

    A panel of curves without one finite value says so.
    """
    shown: dict[str, Artist] = {}
    gids = {line.get_gid() for axes in figure.axes for line in axes.lines}
    for axes in figure.axes:
        for handle, label in zip(*axes.get_legend_handles_labels(), strict=True):
            shown.setdefault(label, handle)
        values = [np.asarray(line.get_ydata(), float) for line in axes.lines if line.get_gid() == CURVE]
        if values and not np.isfinite(np.concatenate(values)).any():
            note(axes, 0.5, 0.5, "no finite value", ha="center", va="center")
    shown |= extra or {}
    shown |= {
        what: proxy(what, color=GREY, marker=mark, linestyle="none", markersize=3.5 if what == NOT_FINITE else 5)
        for what, mark in _MARKS.items()
        if what in gids
    }
    figure.legend(
        shown.values(), shown.keys(), loc="outside upper center", ncols=columns, handlelength=2.2, columnspacing=1.6
    )


def note(axes: Axes, x: float, y: float, text: str, **options: Any) -> None:
    """A small grey remark inside a panel, at a place from 0 to 1."""
    box = {"facecolor": "white", "edgecolor": "none", "pad": 1}
    axes.text(x, y, text, transform=axes.transAxes, fontsize="x-small", color=GREY, bbox=box, **options)


def settings_of(frame: pd.DataFrame, *columns: str) -> list[str]:
    """What the rows were made with, e.g. "net mlp-32x2": every value of these columns, how many seeds."""
    values = {column: frame[column].dropna().unique() for column in columns}
    said = [f"{column} {', '.join(map(_short, found))}" for column, found in values.items() if len(found)]
    counts = frame.seeds if "seeds" in frame else frame.groupby(["sde", "net", "T"]).seed.nunique()
    low, high = counts.min(), counts.max()
    number = f"{high}" if low == high else f"{low} to {high}"
    said.append(f"{number} seed{'s' if high > 1 else ''}")
    return said


def counts_of(rows: pd.DataFrame, texts: Mapping[str, str]) -> list[str]:
    """How much stands behind the values, e.g. "256 test images": every value of these columns, and of what."""
    found = {text: rows[column].dropna().unique() for column, text in texts.items()}
    return [f"{', '.join(f'{value:,.0f}' for value in values)} {text}" for text, values in found.items() if len(values)]


def _short(value: Any) -> str:
    return f"{value:g}" if isinstance(value, float) else str(value)


def footer(figure: Figure, settings: FigureSettings, said: Sequence[str]) -> None:
    """The settings, small and grey, below all panels."""
    width, height = figure.get_size_inches()
    size = settings.font_size - 2
    unbroken = " · ".join(one.replace(" ", NO_BREAK) for one in said)
    lines = textwrap.wrap(unbroken, int(width * 72 / (0.52 * size)), break_long_words=False)
    room = (len(lines) * 1.35 * size + 3) / 72 / height
    text = "\n".join(lines).replace(NO_BREAK, " ")
    figure.text(0.5, 2 / 72 / height, text, ha="center", va="bottom", fontsize=size, color=GREY)
    layout = figure.get_layout_engine()
    assert isinstance(layout, ConstrainedLayoutEngine)
    layout.set(rect=(0, room, 1, 1 - room))
