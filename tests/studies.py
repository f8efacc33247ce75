"""Studies for tests: config.yaml, with changes by place."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

from difftime.study.settings import Study, parse
from difftime.study.settings.files import given_by, merged, read_file

ROOT = Path(__file__).parents[1]
CONFIGS = [ROOT / "config.yaml", *sorted((ROOT / "config").glob("*.yaml"))]
GONE = object()
"""As a change: take the key away."""


def settings(path: Path = ROOT / "config.yaml", changes: dict[str, Any] | None = None) -> Any:
    """config.yaml with the file at `path` over it, and changes by place, e.g. study[0].T."""
    whole = merged([read_file(ROOT / "config.yaml"), read_file(path)])
    for place, value in (changes or {}).items():
        *around, last = [int(part) if part.isdigit() else part for part in re.findall(r"[^.\[\]]+", place)]
        inner: Any = whole
        for part in around:
            inner = inner[part] if isinstance(inner, list) else inner.setdefault(part, given_by("test", {}))
        if value is GONE:
            del inner[last]
        else:
            inner[last] = value
    return whole


def study(changes: dict[str, Any] | None = None, path: Path = ROOT / "config.yaml") -> Study:
    return parse(Study, settings(path, changes), "test")
