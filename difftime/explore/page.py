"""The explorer's page: charts, values and pictures of all data sets in one HTML file that needs no network."""

from __future__ import annotations

import json
import logging
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pandas as pd
import vl_convert

from difftime import __version__
from difftime.explore import charts, data
from difftime.support.files import atomic
from difftime.tables import render

log = logging.getLogger("difftime")

LARGEST = 3_000_000
"""Bytes of a page that still opens at once on a telephone."""
PICTURES = 1_500_000
"""Of these, for the pictures of all data sets."""


def save_explorer(tables: Mapping[str, Mapping[str, pd.DataFrame]], kinds: Mapping[str, str], output: Path) -> None:
    """Write the page. `tables` are NEEDS and WANTS of every data set, without rows where it has none."""
    page = filled(whole(tables, kinds))
    if len(page.encode()) > LARGEST:
        log.warning("WARNING: %s has %.1f MB: it takes its time to open.", output, len(page.encode()) / 1e6)
    with atomic(output) as temporary:
        temporary.write_text(page, encoding="utf-8")


def whole(tables: Mapping[str, Mapping[str, pd.DataFrame]], kinds: Mapping[str, str]) -> dict[str, Any]:
    """All that the page knows."""
    datasets = {}
    for name, own in tables.items():
        known = kinds[name] == "mixture"
        datasets[name] = data.of_dataset(own, kinds[name]) | {
            "unit": "nats" if known else "bits per dimension",
            "charts": charts.charts(own["summary"], own["tradeoff"], known),
            "pictures": data.pictures(own, PICTURES // len(tables)),
        }
    return {
        "version": __version__,
        "labels": charts.LABELS,
        "pictures": {"histogram": charts.histogram(), "modes": charts.modes()},
        "datasets": datasets,
    }


def filled(values: Mapping[str, Any]) -> str:
    """The page with its values, its style and its programs in their places."""
    parts = {
        "style": beside(__file__, ".css"),
        "data": json.dumps(values, ensure_ascii=False, allow_nan=False, separators=(",", ":")).replace("</", "<\\/"),
        # a function keeps the bundle's many names from the page's own
        "vega": f"(() => {{{vl_convert.javascript_bundle(None)}}})();",  # type: ignore[arg-type]  # no snippet to add
        "search": beside(render.__file__, ".js"),
        "script": beside(__file__, ".js"),
    }
    return re.sub(r"\{\{(\w+)\}\}", lambda found: parts[found[1]], beside(__file__, ".html"))


def beside(module: str, suffix: str) -> str:
    """The text of the file that lies beside a module under its name."""
    return Path(module).with_suffix(suffix).read_text(encoding="utf-8")
