"""The explorer's charts as Vega-Lite specifications by Vega-Altair, without data. The page adds the data.

Each data set has its own charts, because units, titles and axes depend on it. The axes fit all curves of the data set,
so that two choices can be compared by eye. A value beyond an axis is an arrow on its border, as in the figures.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import altair as alt
import numpy as np
import pandas as pd

from difftime.figures import style
from difftime.figures.tradeoff import DEPTH, LOG_FROM, PANELS, Panel, limits
from difftime.tables.frames import parts_of
from difftime.tables.parquet import CURVE

Spec = dict[str, Any]
TIME = "diffusion time T [SDE time]"
HEIGHT = 200
Ends = tuple[float, float]
LOOKS = {
    "kl": ("KL[p(x,T) ‖ p_noise]", style.QUANTITIES["kl"].colour),
    "gap": ("gap G(s,T)", style.QUANTITIES["gap"].colour),
    "kl_low_bpd": ("KL, at least", style.P_NOISES["full"].colour),
    "kl_high_bpd": ("KL, at most", style.QUANTITIES["gap"].colour),
    "elbo": ("ELBO", style.INK),
    "elbo_bpd": ("ELBO", style.INK),
    "log_q_sde": ("log q, reverse SDE", style.QUANTITIES["log_q_sde"].colour),
    "log_q_ode": ("log q, ODE", style.QUANTITIES["log_q_ode"].colour),
    "bpd": ("BPD, ODE", style.QUANTITIES["log_q_ode"].colour),
    "log_p_data": ("log p_data, the ceiling", style.GREY),
    "prior": ("prior, log p_noise(x_T)", style.P_NOISES["standard"].colour),
    "I": ("I(s,T), Eq. 6", style.P_NOISES["flow"].colour),
    "K": ("K(T), Eq. 7", style.P_NOISES["mixture"].colour),
    "R": ("R(T), Eq. 5", style.P_NOISES["full"].colour),
    "decoder": ("decoder", style.GREY),
}
"""Label and colour of a quantity that is drawn over T."""
OTHERS = {
    "entropy": "entropy of p(x,ε)",
    "nfe": "NFE, likelihood",
    "sde:nfe": "NFE, samples of the SDE",
    "ode:nfe": "NFE, samples of the ODE",
    "sde:wasserstein1": "Wasserstein-1, SDE",
    "ode:wasserstein1": "Wasserstein-1, ODE",
    "sde:log_p_data_median": "median log p_data, SDE",
    "ode:log_p_data_median": "median log p_data, ODE",
}
"""Labels of the others."""
LABELS = OTHERS | {name: label for name, (label, _) in LOOKS.items()}
EXACT = ("prior", "R", "K", "decoder")
"""Terms without a network in them, which say how long the axis of the terms is."""


def charts(summary: pd.DataFrame, tradeoff: pd.DataFrame, known: bool) -> dict[str, dict[str, Spec]]:
    """Charts of one data set by the name of their place: over T of every SDE, and against cost of all together.

    One of which nothing is finite is left out.
    """
    return {
        "over_time": {sde: dict(_over_time(summary, sde, known)) for sde in style.sdes_of(summary)},
        "against_cost": dict(_against_cost(tradeoff)),
    }


def _over_time(summary: pd.DataFrame, sde: str, known: bool) -> Iterator[tuple[str, Spec]]:
    times = _wider(summary["T"][summary.sde == sde])
    for view in VIEWS["mixture" if known else "images"]:
        rows = summary[summary.quantity.isin(view.quantities) & summary["mean"].notna()]
        if len(own := rows[rows.sde == sde]):
            yield view.name, over_time(view, {*own.quantity}, times, view.window(rows, own))


def _against_cost(tradeoff: pd.DataFrame) -> Iterator[tuple[str, Spec]]:
    for panel in PANELS:
        rows = tradeoff[tradeoff[panel.cost].notna() & tradeoff[panel.quality].notna()]
        if len(rows):
            yield f"{panel.cost}-{panel.quality}", against_cost(panel, rows)


# axes


def _losses(rows: pd.DataFrame, own: pd.DataFrame) -> Ends:
    """From a hundredth of the smallest gap, where a KL no longer matters; of images four decades below the largest."""
    gap, kl = rows[rows.quantity == "gap"]["mean"], rows[rows.quantity != "gap"]["mean"].max()
    if len(gap):
        low, high = style.gap_limits(gap)
        return low / 100, max(high, 1.5 * kl) if kl > 0 else high
    return (kl / 1e4, 1.5 * kl) if kl > 0 else (0.1, 10.0)


def _values(rows: pd.DataFrame, own: pd.DataFrame) -> Ends:
    """From just above the best to 2.5 times what the worst curve's best ELBO is behind it."""
    unit = rows.unit.iloc[0]
    sign = 1.0 if unit == "nats" else -1.0
    elbo = rows[rows.quantity.isin(("elbo", "elbo_bpd"))]
    best = [(sign * curve["mean"]).max() for curve in parts_of(elbo, CURVE).values()] or [(sign * rows["mean"]).max()]
    top = max([*best, *(sign * rows["mean"][rows.quantity.isin(("log_p_data", "bpd"))])])
    span = max(DEPTH[unit] / 2, 2.5 * (top - min(best)))
    low, high = sorted((sign * (top - span), sign * (top + 0.12 * span)))
    return float(low), float(high)


def _terms(rows: pd.DataFrame, own: pd.DataFrame) -> Ends:
    """All terms without a network in them, and I(s,T) where it is no farther out than these are apart."""
    exact = own["mean"][own.quantity.isin(EXACT)]
    low, high = _wider(exact if len(exact) else own["mean"])
    return _wider([low, high, *own["mean"][own["mean"].between(low, high + (high - low) / 2)]])


def _wider(values: Iterable[float]) -> Ends:
    low, high = min(values), max(values)
    margin = 0.06 * (high - low) or 0.1 * abs(high) or 0.1
    return float(low - margin), float(high + margin)


@dataclass(frozen=True)
class View:
    """One chart of quantities over T. `window` says where its vertical axis ends, of all rows and those of its SDE."""

    name: str
    title: str
    quantities: tuple[str, ...]
    window: Callable[[pd.DataFrame, pd.DataFrame], Ends]
    log: bool = False


VIEWS = {
    "mixture": (
        View("value", "E log q [nats], more is better", ("log_p_data", "log_q_ode", "log_q_sde", "elbo"), _values),
        View("loss", "loss of the ELBO [nats]", ("kl", "gap"), _losses, log=True),
        View("terms", "ELBO = prior − I + R, I = K + G [nats]", ("prior", "I", "K", "R"), _terms),
    ),
    "images": (
        View("value", "[bits per dimension], less is better", ("bpd", "elbo_bpd"), _values),
        View("loss", "KL[p(x,T) ‖ p_noise] [bits per dimension]", ("kl_low_bpd", "kl_high_bpd"), _losses, log=True),
        View("terms", "ELBO = prior − I + R + decoder [nats]", ("prior", "I", "R", "decoder"), _terms),
    ),
}


# charts


def over_time(view: View, there: set[str], times: Ends, ends: Ends) -> Spec:
    """Quantities over T: means with their standard errors, T* with its interval, the T that is pointed at."""
    names = [name for name in view.quantities if name in there]
    y = alt.Scale(type="log" if view.log else "linear", domain=ends, nice=False)
    x = alt.X("T:Q", title=TIME, scale=alt.Scale(domain=times, nice=False), axis=alt.Axis(tickCount=8))
    legend = alt.Legend(title=None, orient="top", columns=2, labelLimit=0, labelExpr=_labels(names), symbolOpacity=1)
    colour = alt.Color(
        "quantity:N", scale=alt.Scale(domain=names, range=[LOOKS[name][1] for name in names]), legend=legend
    )
    picked = alt.selection_point(name="picked", fields=["quantity"], bind="legend")
    strong = alt.condition(picked, alt.value(1.0), alt.value(0.12))
    terms = _cut(
        alt.Chart(alt.NamedData("terms")).transform_filter(alt.FieldOneOfPredicate("quantity", names)), ends
    ).encode(x=x, color=colour, opacity=strong)
    tooltip = [alt.Tooltip("said:N", title="value"), alt.Tooltip("T:Q")]
    shown = alt.Y("shown:Q", title=view.title, scale=y)
    best = alt.Chart(alt.NamedData("optimum"))
    violet = style.OPTIMUM.colour
    layers = [
        best.mark_rect(color=violet, opacity=0.14).encode(x="T_star_low:Q", x2="T_star_high:Q"),
        best.mark_rule(color=violet, strokeWidth=1.5).encode(x="T_star:Q"),
        alt.Chart(alt.NamedData("now")).mark_rule(color=style.GREY, strokeDash=[3, 3]).encode(x="T:Q"),
        # the first layer with colours owns the legend, which answers only to what is its own
        terms.mark_line(strokeWidth=1.5).encode(y=shown).add_params(picked),
        terms.mark_rule(strokeWidth=1.2).encode(y=alt.Y("lower:Q", scale=y), y2="upper:Q"),
        terms.transform_filter("datum.shown !== null && datum.cut === ''")
        .mark_point(size=28, strokeWidth=1.4)
        .encode(
            y=shown, fill=alt.condition("datum.finite < datum.seeds", alt.value("white"), colour), tooltip=tooltip
        ),
        terms.mark_text(fontSize=12).encode(y=shown, text="cut:N", tooltip=tooltip),
        terms.transform_filter("datum.finite < datum.seeds")
        .mark_text(text="×", fontSize=13)
        .encode(y=alt.value(7)),
    ]  # fmt: skip
    return _finished(alt.layer(*layers))


def _cut(chart: alt.Chart, ends: Ends) -> alt.Chart:
    """What is beyond the axis is shown on its border, with an arrow and without its error."""
    low, high = ends
    return chart.transform_calculate(
        shown=f"datum.mean === null ? null : clamp(datum.mean, {low}, {high})",
        cut=f"datum.mean === null ? '' : datum.mean < {low} ? '▼' : datum.mean > {high} ? '▲' : ''",
    ).transform_calculate(
        lower=f"datum.cut || datum.se === null ? datum.shown : max(datum.mean - datum.se, {low})",
        upper=f"datum.cut || datum.se === null ? datum.shown : min(datum.mean + datum.se, {high})",
    )


def _labels(names: Sequence[str]) -> str:
    """A Vega expression that gives every quantity its label."""
    labels = {name: LOOKS[name][0] for name in names}
    return f"{labels!r}[datum.value]"


def against_cost(panel: Panel, rows: pd.DataFrame) -> Spec:
    """Quality against cost of all choices; those that the brush covers are listed, the chosen curve is drawn strong."""
    unit = rows.unit.iloc[0]
    if panel.quality == "distance":
        least = float(np.nanmin(rows[["distance", "distance_floor"]].to_numpy(float)))
        ends = least / 1.5, 1.5 * min(rows.distance.max(), 500 * least)
    else:
        ends = limits(rows, panel.quality)
    low, high = rows[panel.cost].min(), rows[panel.cost].max()
    wide = high > LOG_FROM * low > 0
    costs = (low / 1.3, high * 1.3) if wide else _wider((low, high))
    along = alt.Scale(type="log" if wide else "linear", domain=costs, nice=False)
    x = alt.X("cost:Q", title=panel.along, scale=along)
    scale = alt.Scale(type="log" if panel.quality == "distance" else "linear", domain=ends, nice=False)
    title = panel.label(unit).replace("$", "").split("\n")
    y = alt.Y("shown:Q", title=title, scale=scale)
    names = style.noises_of(rows)
    colour = alt.Color(
        "p_noise:N", scale=alt.Scale(domain=names, range=[style.P_NOISES[name].colour for name in names]),
        legend=alt.Legend(title=None, orient="top"),
    )  # fmt: skip
    shape = alt.Shape("sde:N", scale=alt.Scale(domain=style.sdes_of(rows)), legend=alt.Legend(title=None, orient="top"))
    points = _cut(alt.Chart(alt.NamedData("costs")), ends).encode(
        x=x, color=colour, opacity=alt.condition("datum.chosen", alt.value(1.0), alt.value(0.3))
    )
    brush = alt.selection_interval(name="brush", encodings=["x", "y"])
    tooltip = [alt.Tooltip(f"{name}:N") for name in ("sde", "net", "p_noise", "T", "cost", "said")]
    layers = [
        points.transform_filter("datum.chosen").mark_line(strokeWidth=1.2).encode(y=y, order="T:Q"),
        points.mark_rule().encode(y=alt.Y("lower:Q", scale=scale), y2="upper:Q"),
        points.transform_filter("datum.cut === ''")
        .mark_point(size=36, filled=True)
        .encode(y=y, shape=shape, tooltip=tooltip)
        .add_params(brush),
        points.mark_text(fontSize=12).encode(y=y, text="cut:N", tooltip=tooltip),
        points.transform_filter("datum.cheapest").mark_point(size=150, color=style.INK, opacity=1).encode(
            y=y, color=alt.value(style.INK), opacity=alt.value(1.0)
        ),
        points.transform_filter("datum.now").mark_point(size=260, shape="square").encode(
            y=y, color=alt.value(style.GREY), opacity=alt.value(1.0)
        ),
    ]  # fmt: skip
    return _finished(alt.layer(*layers))


def histogram() -> Spec:
    """Densities of samples over that of the data; the page says how high the axis is."""
    top = alt.param(name="top", value=1.0)
    bins = alt.Chart(alt.NamedData("bins")).transform_calculate(
        shown="min(datum.mean, top)", lower="min(datum.mean - datum.se, top)", upper="min(datum.mean + datum.se, top)",
        cut="datum.mean > top ? '▲' : ''",
    )  # fmt: skip
    names = [*style.SAMPLERS, "p_data"]
    labels = {"sde": "samples, reverse SDE", "ode": "samples, ODE", "p_data": "p_data"}
    colours = [*(look.colour for look in style.SAMPLERS.values()), style.INK]
    colour = alt.Color(
        "of:N", scale=alt.Scale(domain=names, range=colours),
        legend=alt.Legend(title=None, orient="top", symbolOpacity=1, labelExpr=f"{labels!r}[datum.value]"),
    )  # fmt: skip
    x = alt.X("x:Q", title="x [units of x]", scale=alt.Scale(nice=False, zero=False))
    y = alt.Scale(domainMin=0, domainMax=alt.ExprRef("top"), nice=False)
    layers = [
        bins.mark_area(interpolate="step", opacity=0.3).encode(
            x=x, y=alt.Y("lower:Q", scale=y, title="density [1 / units of x]"), y2="upper:Q", color=colour
        ),
        bins.mark_line(interpolate="step", strokeWidth=1.3).encode(x=x, y=alt.Y("shown:Q", scale=y), color=colour),
        bins.mark_text(baseline="top", fontSize=9).encode(x=x, y=alt.value(0), text="cut:N", color=colour),
    ]
    return _finished(alt.layer(*layers).add_params(top))


def modes() -> Spec:
    """The share of samples in each mode with its standard error, beside the share under p_data."""
    base = alt.Chart(alt.NamedData("modes")).encode(x=alt.X("mode:O", title="mode (component of p_data)"))
    colours = alt.Scale(domain=[*style.SAMPLERS], range=[look.colour for look in style.SAMPLERS.values()])
    colour = alt.Color("sampler:N", scale=colours, legend=alt.Legend(title=None, orient="top"))
    shares = base.transform_calculate(lower="datum.share - datum.se", upper="datum.share + datum.se")
    layers = [
        shares.mark_bar().encode(y=alt.Y("share:Q", title="share of samples [1]"), xOffset="sampler:N", color=colour),
        shares.mark_rule().encode(y=alt.Y("lower:Q"), y2="upper:Q", xOffset="sampler:N"),
        base.mark_tick(color=style.INK, thickness=2).encode(y="p_data:Q"),
    ]
    return _finished(alt.layer(*layers))


CONFIG = {
    "font": "system-ui, sans-serif",
    "view": {"stroke": None},
    "axis": {"gridColor": "#ebebeb", "titleFontWeight": 400},
    "legend": {"labelFontSize": 11},
    "autosize": {"type": "fit-x", "contains": "padding"},
}


def _finished(chart: alt.LayerChart | alt.FacetChart) -> Spec:
    spec: Spec = chart.properties(width="container", height=HEIGHT).to_dict()
    return spec | {"config": CONFIG}
