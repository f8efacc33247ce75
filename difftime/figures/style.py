"""What all figures share: type, colours, a curve over T with its uncertainty, where it was made, and how it is written.

Line style tells the SDE. Colour and marker tell the rest: one look per quantity, sampler or network, the same in every
figure. Uncertainty is the standard error over seeds unless the legend names another. What cannot be drawn as a point
stays visible: values beyond an axis as arrows on its border, values that are not finite as crosses there.
"""

from __future__ import annotations

import math
import textwrap
from collections.abc import Iterator, Mapping, Sequence
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

from difftime.study.settings import FigureSettings
from difftime.support.files import atomic
from difftime.tables.derived import BadTable


@dataclass(frozen=True)
class Look:
    """How one quantity, sampler or network appears."""

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
P_NOISES = {
    "standard": Look(r"standard $p_\mathrm{noise}$", _BLUE, "o"),
    "matched": Look(r"matched $p_\mathrm{noise}$ (mean, variance)", _VERMILION, "D"),
    "full": Look(r"full-covariance $p_\mathrm{noise}$", _GREEN, "^"),
    "mixture": Look(r"mixture $p_\mathrm{noise}$", _PURPLE, "s"),
    "flow": Look(r"flow $p_\mathrm{noise}$", _ORANGE, "v"),
}
OPTIMUM = Look("$T^*$ with bootstrap interval", _PURPLE, "")
OPTIMUM_TEXT = "#9c4a8c"
"""The same hue, dark enough to be read."""
CEILING = r"$\mathrm{E}\,\log\,p_\mathrm{data}$, the ceiling"
TIME = "diffusion time $T$"
P_DATA = r"$p_\mathrm{data}$"
LINE_STYLES = {"vp": "-", "ve": "--"}
_FURTHER_STYLES = ("-.", (0, (1, 1)), (0, (5, 1, 1, 1, 1, 1)))
_CURVE = "curve"
NO_BREAK = "\N{NO-BREAK SPACE}"


def networks(names: Sequence[str]) -> dict[str, Look]:
    """From light to dark in the order of `names`, which the settings list from small to large."""
    shades = seaborn.color_palette("viridis_r", len(names) + 1).as_hex()[1:]
    markers = [*"osD^vPX"]
    return {name: Look(name, shades[i], markers[i % len(markers)]) for i, name in enumerate(names)}


def line_style(sde: str, sdes: Sequence[str]) -> str | tuple:
    """VP is solid and VE dashed, whatever else is shown; the others take the next styles in the table's order."""
    if sde in LINE_STYLES:
        return LINE_STYLES[sde]
    others = [name for name in sdes if name not in LINE_STYLES]
    return _FURTHER_STYLES[others.index(sde) % len(_FURTHER_STYLES)]


def sdes_of(frame: pd.DataFrame) -> list[str]:
    """The SDEs of a table, in its order."""
    return [*frame.sde.unique()]


def sde_title(sde: str) -> str:
    """The SDE's name with its family in capitals: vp -> VP, ve-geometric -> VE-geometric."""
    family, *rest = sde.split("-")
    return "-".join([family.upper(), *rest])


@contextmanager
def context(settings: FigureSettings) -> Iterator[None]:
    """matplotlib's own defaults and ours for as long as one figure is drawn and saved, whatever a matplotlibrc says."""
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
        "pdf.fonttype": 42, "ps.fonttype": 42, "savefig.dpi": 200, "legend.frameon": False, "axes.titlepad": 4.0,
        "font.family": ["DejaVu Sans"], "mathtext.fontset": "dejavusans", "axes.labelcolor": INK, "text.color": INK,
        "axes.grid": True, "grid.color": "#ebebeb", "grid.linewidth": 0.5, "axes.axisbelow": True,
    }  # fmt: skip
    with matplotlib.rc_context():
        matplotlib.rcdefaults()
        matplotlib.rcParams.update({**seaborn.axes_style("ticks"), **sizes, **lines, **written})
        yield


def save(figure: Figure, output: Path) -> None:
    """Write the PDF `output` and a PNG beside it: whole or not at all, and the same bytes for the same figure."""
    for suffix, metadata in ((".pdf", {"CreationDate": None}), (".png", {})):
        with atomic(output.with_suffix(suffix)) as temporary:
            figure.savefig(temporary, metadata=metadata)


def panels(
    settings: FigureSettings, rows: int, columns: int, height: float, **options: Any
) -> tuple[Figure, np.ndarray]:
    """A figure as wide as the page and `height` inches high, and its axes [rows, columns]."""
    layout = ConstrainedLayoutEngine(w_pad=0.04, h_pad=0.04, wspace=0.03, hspace=0.03)
    figure = Figure(figsize=(settings.width, height), layout=layout)
    axes = figure.subplots(rows, columns, squeeze=False, **options)
    seaborn.despine(fig=figure)
    return figure, axes


def select(frame: pd.DataFrame, **wanted: object) -> pd.DataFrame:
    """The rows with these values in these columns. Raises BadTable, naming what there is, if there are none."""
    rows = frame
    for column, value in wanted.items():
        rows = rows[rows[column].isin(value if isinstance(value, tuple) else (value,))]
    if len(rows):
        return rows
    asked = ", ".join(f"{column} {value!r}" for column, value in wanted.items())
    found = "; ".join(f"{column}: {', '.join(map(str, frame[column].unique()))}" for column in wanted)
    if frame.empty:
        raise BadTable(f"The figure's table is empty, so it has no row with {asked}. Leave this figure out.")
    raise BadTable(
        f"The figure's table has no row with {asked}. It has {found}. Name others under 'figures' in the configuration."
    )


def mean_over_seeds(frame: pd.DataFrame, column: str) -> pd.DataFrame:
    """One row per T: mean and standard error of `column` over the seeds with a finite value, and how many there are."""

    def row(values: pd.Series) -> pd.Series:
        finite = values[np.isfinite(values)]
        n = len(finite)
        mean = finite.mean() if n else math.nan
        se = finite.std(ddof=1) / math.sqrt(n) if n > 1 else math.nan
        return pd.Series({"mean": mean, "se": se, "seeds": len(values), "finite": n})

    return frame.groupby("T")[column].apply(row).unstack().reset_index()


def curve(axes: Axes, line: pd.DataFrame, look: Look, style: str | tuple) -> None:
    """`mean` over `T` with a band of ± `se`, from the columns of the summary table.

    The line breaks where no seed is finite. Where only some are, the mean of these is a hollow marker. Set the limits
    of `axes` before: what lies beyond them is marked as it is drawn, without its band.
    """
    line = line.sort_values("T")
    T, mean, se = (line[name].to_numpy(float) for name in ("T", "mean", "se"))
    some = (line.finite < line.seeds).to_numpy()
    level = sum(one.get_gid() == _CURVE for one in axes.lines)
    low, high = axes.get_ylim()
    # the band of a point beyond the axis could cross the whole panel, and say nothing
    se = np.where((mean < low) | (mean > high), np.nan, se)
    axes.fill_between(T, mean - se, mean + se, color=look.colour, alpha=0.2, linewidth=0)
    axes.plot(T, mean, color=look.colour, linestyle=style, marker=look.marker, label=look.label, gid=_CURVE)
    axes.errorbar(T, mean, se, fmt="none", ecolor=look.colour, elinewidth=0.8)
    axes.plot(T[some], mean[some], color=look.colour, marker=look.marker, markerfacecolor="white", linestyle="none")
    mark_not_finite(axes, T[some], look, level)
    mark_outside(axes, T, mean, look, level)


def _border(axes: Axes, T: np.ndarray, look: Look, marker: str, place: float, what: str) -> None:
    """Markers at a place of the vertical axis, from 0 to 1; `what` is said in the legend."""
    if len(T):
        axes.plot(
            T, np.full(len(T), place), color=look.colour, marker=marker, linestyle="none", markersize=3.5, zorder=5,
            transform=axes.get_xaxis_transform(), clip_on=False, gid=what,
        )  # fmt: skip


NOT_FINITE = "not finite for some seeds (hollow: mean of the rest)"
OUTSIDE = "beyond the axis"
_MARKS = {NOT_FINITE: "x", OUTSIDE: "v"}


def mark_not_finite(axes: Axes, T: np.ndarray, look: Look, level: int = 0) -> None:
    """A cross on the upper border at every T where a value is null or not finite."""
    _border(axes, T, look, "x", 1 - 0.05 * level, NOT_FINITE)


def mark_outside(axes: Axes, T: np.ndarray, value: np.ndarray, look: Look, level: int = 0) -> None:
    """An arrow on the border at every T whose value lies beyond limits that were set by hand."""
    if axes.get_autoscaley_on():
        return
    low, high = axes.get_ylim()
    _border(axes, T[value < low], look, "v", 0.025 + 0.05 * level, OUTSIDE)
    _border(axes, T[value > high], look, "^", 0.975 - 0.05 * level, OUTSIDE)


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


def time_axis(axes: Axes) -> None:
    """The diffusion time, in SDE time, along the horizontal axis."""
    axes.set_xlabel(TIME)
    axes.xaxis.set_major_locator(MaxNLocator(nbins=6, steps=[1, 2, 5, 10]))


def gap_limits(gap: pd.Series) -> tuple[float, float]:
    """A logarithmic axis [nats] for the gap: at most a factor of 1000, as the gap of a diverged model has no bound."""
    positive = gap[np.isfinite(gap) & (gap > 0)]
    if positive.empty:
        return 0.1, 10.0
    low = positive.min()
    return low / 1.5, 1.5 * min(positive.max(), 1000 * low)


def at_edge(line: pd.DataFrame) -> bool:
    """Whether T* is the first or the last T at which every seed's gap is finite. `line`: rows of the summary table."""
    T = line["T"][(line.quantity == "gap") & (line.finite == line.seeds)]
    return not T.min() < line.T_star.iloc[0] < T.max()


def optimum(axes: Axes, line: pd.DataFrame) -> None:
    """T* as a vertical line with its interval shaded, and its value above. `line`: rows of the summary table."""
    T_star, low, high = line.iloc[0][["T_star", "T_star_low", "T_star_high"]].astype(float)
    if not math.isfinite(T_star):
        axes.set_title("no $T^*$: too few finite times", loc="right", color=OPTIMUM_TEXT)
        return
    if math.isfinite(low):
        axes.axvspan(low, high, color=OPTIMUM.colour, alpha=0.18, linewidth=0)
    axes.axvline(T_star, color=OPTIMUM.colour, linewidth=1.0, zorder=1.5, label=OPTIMUM.label)
    interval = f"[{low:.2f}, {high:.2f}]" if math.isfinite(low) else "(one seed: no interval)"
    if at_edge(line):
        interval = "(edge of the times)"
    axes.set_title(f"$T^* = {T_star:.2f}$  {interval}", loc="right", color=OPTIMUM_TEXT)


def proxy(label: str, **options: Any) -> Line2D:
    """A line that stands in the legend only."""
    return Line2D([], [], label=label, **options)


def _proxies(axes: Sequence[Axes]) -> dict[str, Artist]:
    """What the legend says of crosses and arrows, if there are any."""
    said = {line.get_gid() for one in axes for line in one.lines}
    return {
        what: proxy(what, color=GREY, marker=marker, linestyle="none", markersize=3.5)
        for what, marker in _MARKS.items()
        if what in said
    }


def legend(figure: Figure, columns: int) -> None:
    """One legend above all panels, where no data can be: every label once."""
    shown: dict[str, Artist] = {}
    for one in figure.axes:
        for handle, label in zip(*one.get_legend_handles_labels(), strict=True):
            shown.setdefault(label, handle)
    shown |= _proxies(figure.axes)
    legend_above(figure, shown, columns)


def legend_above(figure: Figure, shown: Mapping[str, Artist], columns: int) -> None:
    """Handles by their label, above all panels."""
    figure.legend(
        shown.values(), shown.keys(), loc="outside upper center", ncols=columns, handlelength=2.2, columnspacing=1.6
    )


def note(axes: Axes, x: float, y: float, text: str, **options: Any) -> None:
    """A small grey remark inside a panel, at a place from 0 to 1."""
    box = {"facecolor": "white", "edgecolor": "none", "pad": 1}
    axes.text(x, y, text, transform=axes.transAxes, fontsize="x-small", color=GREY, bbox=box, **options)


def settings_of(frame: pd.DataFrame, *columns: str) -> list[str]:
    """What the rows were made with, e.g. "net mlp-32x2": every value of these columns, how many seeds and samples."""
    said = [
        f"{column} {', '.join(f'{v:g}' if isinstance(v, float) else str(v) for v in frame[column].unique())}"
        for column in columns
    ]
    counts = frame.seeds if "seeds" in frame else frame.groupby(["sde", "net", "T"]).seed.nunique()
    low, high = counts.min(), counts.max()
    number = f"{high}" if low == high else f"{low} to {high}"
    said.append(f"{number} seed{'s' if high > 1 else ''}")
    if "points" in frame:
        said.append(f"{', '.join(str(n) for n in frame.points.unique())} samples per seed")
    return said


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
