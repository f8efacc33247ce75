"""A study as plain values: as it can be read again, in the results that it made, and with blocks added to its file."""

from __future__ import annotations

import json
import shutil
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

import yaml

from difftime.study.settings.base import parse
from difftime.study.settings.files import BadSettings, read_file
from difftime.study.settings.study import Study
from difftime.support.files import atomic

STUDY_FILE = "study.json"


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

    Cells that the file has already are not added. Raises BadSettings if the file cannot be read, or its `study` is no
    list in block style, one "- " for each item.
    """
    whole = read_file(path)
    own = whole.get("study") or []
    wanted = [rest for block in blocks if (rest := _without(block, own))]
    if not wanted:
        return f"Nothing to add to {path}."
    content = path.read_bytes().decode("utf-8")
    newline = "\r\n" if "\r\n" in content else "\n"
    lines = content.splitlines(keepends=True)
    place, indent = _end_of_list(lines)
    added = [f"{indent}- {json.dumps(block)}{newline}" for block in wanted]
    if place and not lines[place - 1].endswith("\n"):
        lines[place - 1] += newline
    new = "".join([*lines[:place], *added, *lines[place:]])
    if not place or not _adds(new, wanted, whole):
        raise BadSettings(
            f"{path} has no 'study:' with a list in block style below it, so nothing was added. By hand:\n"
            + "".join(added).rstrip()
        )
    target = path.resolve()
    with atomic(target) as temporary:
        temporary.write_bytes(new.encode())
        shutil.copymode(target, temporary)
    return f"Added to {path}:\n{''.join(added)}".rstrip()


def _without(block: Mapping[str, Any], own: Iterable[Any]) -> dict[str, Any]:
    """A block of one data set, SDE and network without the T that blocks of a file have; empty if they have all."""
    same = [one for one in own if all(block[key] in _listed(one, key) for key in ("dataset", "sde", "net"))]
    there = {str(T) for one in same for T in _listed(one, "T")}
    T = [T for T in block["T"] if str(T) not in there and f"{T:g}" not in there]
    return {**block, "T": T} if T else {}


def _listed(block: Any, key: str) -> list[Any]:
    value = block.get(key, []) if isinstance(block, Mapping) else []
    return value if isinstance(value, list) else [value]


def _end_of_list(lines: list[str]) -> tuple[int, str]:
    """Where the next item of the list `study` belongs, and how far it is indented; 0 if there is no such list."""
    starts = [i for i, line in enumerate(lines, 1) if line.lstrip("\ufeff").split("#")[0].rstrip() == "study:"]
    if len(starts) != 1:
        return 0, ""
    place, indent = starts[0], "  "
    for i, line in enumerate(lines[place:], place + 1):
        if line[:1] not in (" ", "-", "#", "\n", "\r") or line.startswith("---"):
            break
        if line.strip() and not line.startswith("#"):
            if place == starts[0]:
                indent = line[: len(line) - len(line.lstrip())]
            place = i
    return place, indent


def _adds(text: str, blocks: list[dict[str, Any]], whole: Mapping[str, Any]) -> bool:
    """Whether a YAML text says what `whole` says, with the blocks added to its study."""
    try:
        return yaml.safe_load(text) == {**whole, "study": [*(whole.get("study") or []), *blocks]}
    except (yaml.YAMLError, TypeError):
        return False
