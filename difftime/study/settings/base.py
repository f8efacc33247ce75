"""What all settings have in common: they are closed and immutable, and their numbers are numbers."""

from __future__ import annotations

import json
import os
from collections.abc import Callable
from difflib import get_close_matches
from typing import Annotated, Any, TypeVar

from pydantic import (
    AfterValidator,
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Field,
    GetCoreSchemaHandler,
    GetJsonSchemaHandler,
    ValidationError,
    WrapValidator,
    model_validator,
)
from pydantic_core import CoreSchema, core_schema

from difftime.study.settings.errors import Fault, described, fault, refuse
from difftime.study.settings.files import BadSettings

Check = Callable[[Any], Any]
Info = Any
"""Pydantic's ValidationInfo: the `context` of the reading, and the `data` that are read already."""


def _number(value: Any) -> Any:
    """Refuse booleans, which YAML makes of yes and no, and which Python would take for 1 and 0."""
    if isinstance(value, bool):
        raise ValueError("must be a number, not yes or no")
    return value


NotBool = BeforeValidator(_number)
Number = Annotated[float, Field(allow_inf_nan=False), NotBool]
Positive = Annotated[float, Field(allow_inf_nan=False, gt=0), NotBool]
Share = Annotated[float, Field(gt=0, lt=1), NotBool]
Tolerance = Annotated[float, Field(allow_inf_nan=False, ge=1e-13), NotBool]
"""RK45 refuses a relative tolerance near the spacing of float64 numbers."""
Whole = Annotated[int, Field(ge=0), NotBool]
Count = Annotated[int, Field(ge=1), NotBool]
AtLeast2 = Annotated[int, Field(ge=2), NotBool]
"""How many are needed for a standard error."""


def _text(value: Any) -> Any:
    """Say what makes a text of a name such as on, 1 or 2026-01-01, which YAML takes for yes, a number and a date."""
    if not isinstance(value, str):
        raise ValueError("must be a text, which YAML took for something else: put the name in quotes")
    return value


Text = BeforeValidator(_text)
Name = Annotated[str, Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9._+-]*$", max_length=200), Text]
"""A folder is named by it, and has no longer name than 255 bytes on most systems."""


def _at_home(path: str) -> str:
    """The path with the home folder in place of ~."""
    expanded = os.path.expanduser(path)  # noqa: PTH111  (pathlib takes ./~ for ~)
    if expanded.startswith("~"):
        raise ValueError("begins with ~, which is nobody's home folder; write the whole path, or ./~ for a file")
    return expanded


def _possible(path: str) -> str:
    """Refuse what no file can be called, and line breaks, which Snakemake cannot match."""
    try:
        longest = max(len(part) for part in path.encode("utf-8", "surrogateescape").split(b"/"))
    except UnicodeEncodeError:
        raise ValueError("has a character that no file name can have; name another one") from None
    if any(ord(character) < 32 for character in path):
        raise ValueError("has a line break or another control character; name another one")
    if longest > 255:
        raise ValueError(f"has a part of {longest} bytes, but no file has a name of more than 255; name another one")
    return path


HomePath = Annotated[str, AfterValidator(_at_home), AfterValidator(_possible)]


class Settings(BaseModel):
    """Immutable, and closed: a key that is not declared is an error, not a comment."""

    model_config = ConfigDict(extra="forbid", frozen=True, validate_default=True, defer_build=True)

    @model_validator(mode="wrap")
    @classmethod
    def _closed(cls, values: Any, check: Check) -> Any:
        """Name the nearest key beside one that is unknown."""
        try:
            return check(values)
        except ValidationError as error:
            ours = ("extra_forbidden", 1)
            refuse([cls._unknown(f) if (f["type"], len(f["loc"])) == ours else f for f in error.errors()])

    @classmethod
    def _unknown(cls, extra: Fault) -> Fault:
        near = get_close_matches(str(extra["loc"][0]), cls.model_fields, n=1)
        hint = f"did you mean {near[0]}?" if near else f"known here are {', '.join(cls.model_fields)}"
        return fault(f"no such key; {hint}", extra["input"], extra["loc"])

    def canonical(self, exclude: set[str] | None = None) -> str:
        """One JSON text per meaning: `1` and `1.0`, or another order of the keys, give the same."""
        return json.dumps(self.model_dump(mode="json", exclude=exclude), sort_keys=True)


S = TypeVar("S", bound=Settings)


def parse(kind: type[S], settings: Any, source: str) -> S:
    """Settings of a kind from plain values. Raises BadSettings with every fault, naming `source`."""
    try:
        return kind.model_validate(settings)
    except ValidationError as error:
        raise BadSettings(described(error, settings, source)) from None


class OneOrMany:
    """Marks a list whose only item may stand without brackets, also for the editors that read the JSON schema."""

    def __get_pydantic_core_schema__(self, source: Any, handler: GetCoreSchemaHandler) -> CoreSchema:
        return core_schema.no_info_before_validator_function(_one_or_many, handler(source))

    def __get_pydantic_json_schema__(self, schema: CoreSchema, handler: GetJsonSchemaHandler) -> dict[str, Any]:
        many = handler(schema)
        return {"anyOf": [many["items"], many]}


def _one_or_many(value: Any) -> Any:
    return value if isinstance(value, list | tuple) else [value]


def _filled(items: tuple[Any, ...]) -> tuple[Any, ...]:
    """Refuse an empty list. (Pydantic's own min_length also finds a list empty whose items all have faults.)"""
    if not items:
        raise ValueError("must not be empty")
    return items


def _distinct(items: tuple[Any, ...]) -> tuple[Any, ...]:
    refuse([fault("is listed twice", item, (i,)) for i, item in enumerate(items) if item in items[:i]])
    return items


Item = TypeVar("Item")
Filled = Annotated[tuple[Item, ...], AfterValidator(_filled)]
Vector = Annotated[tuple[Item, ...], OneOrMany(), AfterValidator(_filled)]
Distinct = Annotated[tuple[Item, ...], OneOrMany(), AfterValidator(_distinct)]
Listed = Annotated[tuple[Item, ...], OneOrMany(), AfterValidator(_distinct), AfterValidator(_filled)]


def _without_tag(values: Any, check: Check) -> Any:
    """Leave out of a fault's place what pydantic adds: the member of the union it was found in."""
    try:
        return check(values)
    except ValidationError as error:
        refuse([f | {"loc": f["loc"][1:]} for f in error.errors()])


def usual_kind(default: str) -> BeforeValidator:
    """Let `kind` be left out where it is the usual one."""

    def fill(values: Any) -> Any:
        return {"kind": default} | values if isinstance(values, dict) else values

    return BeforeValidator(fill)


BY_KIND = (Field(discriminator="kind"), WrapValidator(_without_tag))
"""Marks a union of settings that are told apart by their kind."""
