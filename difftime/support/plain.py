"""Plain values: one text per setting for Snakemake, which names those that changed, and files of JSON."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from difftime.support.files import atomic


def flat(plain: Mapping[str, Any], above: str = "") -> dict[str, str]:
    """The settings of nested mappings by their dotted names, e.g. {"training.steps": "3000"}, as JSON."""
    found: dict[str, str] = {}
    for key, value in plain.items():
        name = f"{above}{key}"
        found |= flat(value, f"{name}.") if isinstance(value, Mapping) and value else {name: json.dumps(value)}
    return found


def unflat(texts: Iterable[str]) -> dict[str, Any]:
    """The nested mappings from texts such as "training.steps = 3000"."""
    whole: dict[str, Any] = {}
    for text in texts:
        name, _, value = text.partition(" = ")
        *above, last = name.split(".")
        inner = whole
        for key in above:
            inner = inner.setdefault(key, {})
        inner[last] = json.loads(value)
    return whole


def write_json(plain: Any, path: str | Path) -> None:
    """Write plain values as JSON, whole or not at all."""
    with atomic(Path(path)) as temporary:
        temporary.write_text(json.dumps(plain, sort_keys=True) + "\n", encoding="utf-8")
