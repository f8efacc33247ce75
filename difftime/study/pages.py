"""What people open: the explorer, and the findings in words, which Snakemake's report opens with."""

from __future__ import annotations

import base64
import math
from collections.abc import Iterable, Iterator, Mapping, Sequence
from html import escape
from pathlib import Path

import pandas as pd

from difftime.explore import NEEDS, WANTS
from difftime.explore.page import save_explorer
from difftime.optimum.best import said
from difftime.study.registry import FIGURES
from difftime.support.files import atomic
from difftime.tables.bounds import doubts, verdict
from difftime.tables.frames import of_networks, rows_of
from difftime.tables.parquet import empty, read
from difftime.tables.render import plus_minus

Frames = dict[str, pd.DataFrame]
DIGITS = {"nats": 3, "bits per dimension": 4}


def save_pages(paths: Iterable[str], pictures: Iterable[str], kinds: Mapping[str, str], to: tuple[Path, Path]) -> None:
    """Write the explorer and the findings from .../<data set>/<table>.parquet and .../<data set>/.../<figure>.png."""
    frames: dict[str, Frames] = {name: {} for name in kinds}
    for path in map(Path, paths):
        frames[path.parent.name][path.stem] = read(path, path.stem)
    shown = {name: own for name, own in frames.items() if {*NEEDS} <= {*own}}
    explorer, findings = to
    save_explorer(
        {name: {table: own.get(table, empty(table)) for table in (*NEEDS, *WANTS)} for name, own in shown.items()},
        kinds,
        explorer,
    )
    drawn: dict[str, list[bytes]] = {name: [] for name in kinds}
    for path in map(Path, pictures):
        drawn[path.parents[FIGURES[path.stem].each_net].name].append(path.read_bytes())
    parts = [section(name, own, drawn[name]) for name, own in frames.items()]
    with atomic(findings) as temporary:
        temporary.write_text(STYLE + "\n".join(parts), encoding="utf-8")


# findings


STYLE = """<meta charset="utf-8">
<style>
.prose.max-w-lg { max-width: 56rem }
#app .grow.h-screen { align-items: flex-start }
#app .grow.flex.gap-3 { flex-wrap: wrap }
.finding { font-family: sans-serif; max-width: 56rem }
.finding img { width: 100% }
</style>
"""
"""The report gives its opening page a narrow column beside the rules; this lets both stand below each other."""


def section(dataset: str, frames: Mapping[str, pd.DataFrame], pictures: Sequence[bytes]) -> str:
    """What was found on one data set, as HTML: in sentences, a picture, and T* of every curve."""
    optimum = frames.get("optimum", empty("optimum"))
    lines = [*_best(optimum), *_cheapest(frames.get("cheapest", empty("cheapest")))]
    lines += verdict(frames["bounds"]).splitlines() if len(frames.get("bounds", ())) else []
    lines += [f"Doubtful: {doubt}" for doubt in doubts(frames)]
    shown = (
        f'<img alt="The ELBO of {escape(dataset)}" src="data:image/png;base64,{base64.b64encode(png).decode()}">'
        for png in pictures
    )
    curves = f"<details><summary>T* of every curve</summary>{_listed(said(optimum))}</details>"
    return "\n".join(
        ['<div class="finding">', f"<h2>{escape(dataset)}</h2>", _listed(lines), *shown, curves, "</div>\n"]
    )


def _listed(lines: Iterable[str]) -> str:
    return "\n".join(["<ul>", *(f"<li>{escape(line)}</li>" for line in lines), "</ul>"])


def _best(optimum: pd.DataFrame) -> Iterator[str]:
    """The best of all curves, of those that predict nothing where there are any."""
    if optimum.empty:
        return
    known = of_networks(optimum)
    rows = rows_of(known if len(known) else optimum)
    best = max(rows, key=lambda row: row.elbo_star if row.unit == "nats" else -row.elbo_star)
    digits = DIGITS[best.unit]
    interval = "" if math.isnan(best.T_star_low) else f" [{best.T_star_low:.2f}, {best.T_star_high:.2f}]"
    gained = plus_minus(best.gain_over_1, best.gain_over_1_se, digits)
    gain = "" if math.isnan(best.gain_over_1) else f" At T = 1 it is {gained} worse."
    edge = "" if best.interior else " That T* is at the edge of the times studied."
    source = "" if len(known) else f" It is predicted from T = {best.trained}."
    value = plus_minus(best.elbo_star, best.elbo_star_se, digits)
    yield (
        f"The best ELBO is {value} {best.unit}: {best.sde}, {best.net}, started from the {best.p_noise} p_noise at T* "
        f"= {best.T_star:.2f}{interval}.{gain}{edge}{source}"
    )


def _cheapest(cheapest: pd.DataFrame) -> Iterator[str]:
    """Which choice is the cheapest of those as good, for each SDE, network and model; and without a fitted p_noise."""
    for row in rows_of(cheapest):
        digits = DIGITS[row.unit]
        model = {"ode": "log q of the ODE" if row.unit == "nats" else "BPD of the ODE", "sde": "ELBO of the SDE"}[
            row.model
        ]
        alone = (
            ""
            if math.isnan(row.standard_T)
            else f" From the standard p_noise alone the same rule takes T = {row.standard_T:g}: "
            f"{row.standard_cost:.0f} evaluations, {row.standard_value:.{digits}f}."
        )
        yield (
            f"{row.sde}, {row.net}, {model}: the cheapest choice within {row.loss:g} {row.unit} of the best is T = "
            f"{row.T:g} from the {row.p_noise} p_noise: {row.cost:.0f} evaluations of the score, "
            f"{plus_minus(row.value, row.value_se, digits)}.{alone}"
        )
