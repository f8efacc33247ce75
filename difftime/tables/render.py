"""Tables for people: Markdown, LaTeX and HTML."""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from pathlib import Path
from textwrap import shorten

import pandas as pd

ROWS_SHOWN = 2000
"""How much of a table its page holds; Snakemake's report embeds it, and a browser has to open that."""


def cell_text(value: object) -> str:
    """One value for a person: numbers to six digits, nothing for null."""
    if isinstance(value, bytes):
        return f"{len(value)} bytes"
    if isinstance(value, float):
        return "" if math.isnan(value) else f"{value:.6g}"
    return "" if value is None else shorten(str(value), 100, placeholder=" ...")


def plus_minus(value: float, error: float, digits: int) -> str:
    """`value ± error`, an en dash for null."""
    if math.isnan(value):
        return "–"
    return f"{value:.{digits}f}" + ("" if math.isnan(error) else f" ± {error:.{digits}f}")


def markdown(frame: pd.DataFrame) -> str:
    """A frame as a Markdown table, numbers to six digits."""
    return markdown_rows(frame.columns, [[cell_text(v) for v in row] for row in frame.itertuples(index=False)])


def markdown_rows(header: Iterable[str], rows: Iterable[Sequence[str]]) -> str:
    """A Markdown table from texts."""
    header = list(header)
    return "".join("| " + " | ".join(row) + " |\n" for row in [header, ["---"] * len(header), *rows])


def latex(header: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    """A LaTeX tabular from texts, with the rules of the package booktabs."""
    special = {"±": "$\\pm$", "–": "--", "−": "$-$", "_": "\\_", "%": "\\%", "Δ": "$\\Delta$"}
    escape = str.maketrans(special)
    lines = [" & ".join(text.translate(escape) for text in row) + r" \\" for row in [header, *rows]]
    body = "\n".join([r"\toprule", lines[0], r"\midrule", *lines[1:], r"\bottomrule"])
    return f"\\begin{{tabular}}{{{'l' * 3}{'r' * (len(header) - 3)}}}\n{body}\n\\end{{tabular}}\n"


def latex_of(frame: pd.DataFrame) -> str:
    """A frame as a LaTeX tabular, numbers to six digits."""
    return latex(list(map(str, frame.columns)), [[cell_text(v) for v in row] for row in frame.itertuples(index=False)])


def page(title: str, frame: pd.DataFrame) -> str:
    """A frame as an HTML page for Snakemake's report, to be searched and sorted."""
    style = (
        "body{font-family:sans-serif;font-size:13px}table{border-collapse:collapse;margin-top:6px}"
        "td,th{padding:2px 8px;border-bottom:1px solid #ddd;text-align:right}"
        "th{cursor:pointer;position:sticky;top:0;background:white;vertical-align:bottom}"
        "th[aria-sort=ascending]::after{content:' ▲'}th[aria-sort=descending]::after{content:' ▼'}"
        "tr:hover td{background:#f4f4f4}.search{min-width:240px;padding:3px 6px}"
    )
    body = frame.head(ROWS_SHOWN).map(cell_text).to_html(index=False, border=0)
    head = f"<!doctype html><meta charset=utf-8><title>{title}</title><style>{style}</style>"
    cut = f"<p>The first {ROWS_SHOWN} of {len(frame)} rows; {title}.parquet has all.</p>"
    script = Path(__file__).with_suffix(".js").read_text(encoding="utf-8")
    search = f"<script>{script}document.querySelectorAll('table').forEach(searchable)</script>"
    return f"{head}<h1>{title}</h1>{cut if len(frame) > ROWS_SHOWN else ''}{body}{search}"
