"""Settings as plain values: one text per setting for Snakemake, which names those that changed, and files of JSON."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from difftime.study.settings.base import parse
from difftime.study.settings.files import BadSettings
from difftime.study.settings.study import Study
from difftime.support.files import atomic

STUDY_FILE = "study.json"


def flat(plain: Mapping[str, Any], above: str = "") -> dict[str, str]:
    """The settings of nested mappings by their dotted names, e.g. {"training.steps": "3000"}, as JSON."""
    found: dict[str, str] = {}
    for key, value in plain.items():
        name = f"{above}{key}"
        found |= flat(value, f"{name}.") if isinstance(value, Mapping) else {name: json.dumps(value)}
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


def plain_study(study: Study) -> dict[str, Any]:
    """A study as it can be read again: only what was given, as what was not given may depend on that."""
    return study.model_dump(mode="json", exclude_unset=True)


def study_in(results: Path) -> Study:
    """The study that some results are of, from their study.json. Raises BadSettings."""
    path = results / STUDY_FILE
    try:
        plain = json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise BadSettings(f"{path} does not exist: {results} is not the results folder of a study.") from None
    except (OSError, ValueError) as error:
        raise BadSettings(f"{path} cannot be read ({error}). Run snakemake, which writes it anew.") from None
    return parse(Study, plain, str(path))


def add_blocks(path: Path, blocks: Iterable[Mapping[str, Any]]) -> str:
    """Add blocks to the `study` of a YAML file, whose other lines stay as they are: -> what was added, in words.

    Raises BadSettings if the file has no `study` that ends the file or is followed by another key.
    """
    text = path.read_text(encoding="utf-8")
    lines = text.splitlines(keepends=True)
    starts = [i for i, line in enumerate(lines) if line.split("#")[0].rstrip() == "study:"]
    if len(starts) != 1:
        raise BadSettings(
            f"{path} has no block 'study:' of its own with a list below it, so nothing can be added there."
        )
    start = starts[0] + 1
    end = next((i for i in range(start, len(lines)) if lines[i][:1] not in (" ", "-", "#", "\n")), len(lines))
    while end > start and not lines[end - 1].strip():
        end -= 1
    first = next((line for line in lines[start:end] if line.lstrip().startswith("-")), "  - ")
    indent = first[: len(first) - len(first.lstrip())]
    added = [f"{indent}- {json.dumps(dict(block))}\n" for block in blocks]
    if end and not lines[end - 1].endswith("\n"):
        lines[end - 1] += "\n"
    with atomic(path) as temporary:
        temporary.write_text("".join([*lines[:end], *added, *lines[end:]]), encoding="utf-8")
    return f"Added to {path}:\n{''.join(added)}".rstrip()
