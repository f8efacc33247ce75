"""Faults of settings: all of them at once, each with its place, its value, and the file and line that it is from."""

from __future__ import annotations

from collections.abc import Sequence
from textwrap import shorten
from typing import Any

from pydantic import ValidationError
from pydantic_core import PydanticCustomError

from difftime.study.settings.files import Place, origin

Fault = Any
"""What pydantic reports of one fault: its type, its place `loc`, and the `input` found there."""


def fault(text: str, found: Any, place: Place = ()) -> Fault:
    """A fault of our own, at a place inside what is being checked."""
    return {"type": "fault", "loc": place, "input": found, "ctx": {"text": text}}


def refuse(faults: Sequence[Fault]) -> None:
    """Raise all faults in one ValidationError; nothing if there are none."""
    if faults:
        raise ValidationError.from_exception_data("settings", [_line_error(one) for one in faults])


def _line_error(one: Fault) -> Fault:
    """What pydantic takes for a fault: its own kinds by their names, ours as an error with a text."""
    if one["type"] == "fault":
        return one | {"type": PydanticCustomError("fault", "{text}", one["ctx"])}
    return one


def described(error: ValidationError, settings: Any, source: str) -> str:
    """All faults that were found in the settings, one in a line."""
    lines = [f"\n  - {_described(found, settings)}" for found in error.errors()]
    count = "a fault" if len(lines) == 1 else f"{len(lines)} faults"
    return f"{source} has {count}:{''.join(lines)}"


def _described(found: Fault, settings: Any) -> str:
    """One fault: file and line, place, what is wrong, what is there."""
    parts = [part for part in found["loc"] if part != "[key]"]
    place = "".join(f"[{part}]" if isinstance(part, int) else f".{part}" for part in parts).lstrip(".")
    text = found["msg"].removeprefix("Value error, ")
    value = "nothing" if found["input"] is None else shorten(repr(found["input"]), 80, placeholder=" ...")
    shown = "" if isinstance(found["input"], dict) or found["type"] == "missing" else f" (found: {value})"
    return ": ".join(part for part in (origin(settings, parts), place, f"{text}{shown}") if part)
