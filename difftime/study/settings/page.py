"""The settings as a page of the documentation: every key, what it may be, its default and what it means."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from typing import Any

from difftime.study.settings.study import Study

Schema = Mapping[str, Any]


def page() -> str:
    """All settings in Markdown, a table for each kind of section, from the JSON schema that editors use."""
    schema = Study.model_json_schema()
    sections = [schema, *sorted(schema["$defs"].values(), key=lambda one: str(one["title"]))]
    return "\n".join(["# Settings\n", *(line for one in sections for line in _section(one))])


def _section(section: Schema) -> Iterator[str]:
    """One table; keys that must be given have no default."""
    yield f"## {_heading(section['title'])}\n"
    if "description" in section:
        yield f"{section['description']}\n"
    yield "| key | value | default | meaning |"
    yield "|---|---|---|---|"
    needed = section.get("required", ())
    for key, value in section["properties"].items():
        default = "" if key in needed or "default" not in value else _default(value["default"])
        cells = (f"`{key}`", _value(value), default, value.get("description", ""))
        yield f"| {' | '.join(cell.replace('|', '&#124;') for cell in cells)} |"
    yield ""


def _heading(title: str) -> str:
    return title.removesuffix("Settings") or title


def _default(value: Any) -> str:
    """A default as it would be written; that of a section is in the section's own table."""
    return "as below" if isinstance(value, dict) else f"`{json.dumps(value, ensure_ascii=False)}`"


def _value(value: Schema) -> str:
    """What a key may be, in a few words."""
    if "$ref" in value:
        title = _heading(value["$ref"].rpartition("/")[2])
        return f"[{title}](#{title.lower()})"
    if "const" in value:
        return f"`{value['const']}`"
    if "enum" in value:
        return ", ".join(f"`{one}`" for one in value["enum"])
    for several in ("anyOf", "oneOf"):
        if several in value:
            return " or ".join(dict.fromkeys(_value(one) for one in value[several]))
    if value.get("type") == "array":
        return f"list of {_value(value['items'])}"
    if value.get("type") == "object":
        inner = value.get("additionalProperties") or next(iter(value.get("patternProperties", {}).values()))
        return f"by name: {_value(inner)}"
    return f"{value.get('type', 'any')}{_bounds(value)}"


def _bounds(value: Schema) -> str:
    """What a number must be above or below."""
    words = {"minimum": "≥", "exclusiveMinimum": ">", "maximum": "≤", "exclusiveMaximum": "<"}
    found = [f" {sign} {value[key]:g}" for key, sign in words.items() if key in value]
    return ",".join(found)
