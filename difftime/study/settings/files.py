"""The files that settings are in: read, and laid over each other. Every value keeps the file and line it is from.

Snakemake merges configuration files by itself, but forgets which file a value is from, and leaves in a data set that
becomes one of another kind what the old kind had. So the files are read again here, by the rules of YAML's safe_load.
"""

from __future__ import annotations

import json
import os
import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import yaml

Place = tuple[int | str, ...]
"""Where a value is in the settings: the keys and indices that lead to it."""


class BadSettings(Exception):
    """Settings with faults; the message lists every one."""


class Keys(dict[Any, Any]):
    """A mapping that has the origin of each key: its file and line."""

    def __init__(self, values: Mapping[Any, Any], origins: Mapping[Any, str]) -> None:
        super().__init__(values)
        self.origins = dict(origins)


class Items(list[Any]):
    """A list that has the origin of each item."""

    origins: list[str]


def origin(settings: Any, place: Sequence[int | str]) -> str:
    """File and line of the innermost value on the way to a place; empty for settings that are of no file."""
    found = ""
    for part in place:
        try:
            found, settings = settings.origins[part], settings[part]
        except (AttributeError, LookupError, TypeError):
            break
    return found


class _Yaml(yaml.SafeLoader):
    """SafeLoader, with origins, and with a list of the keys that a mapping gives twice."""

    def __init__(self, text: str, source: str) -> None:
        super().__init__(text)
        self.name = source
        self.repeated: list[str] = []

    def origin(self, node: yaml.Node) -> str:
        return f"{self.name}, line {node.start_mark.line + 1}"

    def keys(self, node: yaml.MappingNode) -> Iterator[Keys]:
        keys = [(key.tag, key.value) for key, _ in node.value if isinstance(key, yaml.ScalarNode)]
        again = [key for i, (key, _) in enumerate(node.value) if (key.tag, key.value) in keys[:i]]
        self.repeated += [f"{self.origin(key)}: {key.value} is given again" for key in again]
        made = Keys({}, {})
        yield made
        made.update(self.construct_mapping(node))
        made.origins = {self.construct_object(key): self.origin(key) for key, _ in node.value}

    def items(self, node: yaml.SequenceNode) -> Iterator[Items]:
        made = Items()
        made.origins = [self.origin(item) for item in node.value]
        yield made
        made.extend(self.construct_sequence(node))


_Yaml.add_constructor("tag:yaml.org,2002:map", _Yaml.keys)
_Yaml.add_constructor("tag:yaml.org,2002:seq", _Yaml.items)


class _Json(_Yaml):
    """JSON is YAML but for numbers such as 1e5, which YAML 1.1 takes for text, and for tabs."""


_Json.add_implicit_resolver("tag:yaml.org,2002:float", re.compile(r"-?[0-9]+[eE][-+]?[0-9]+$"), list("-0123456789"))


def shown(path: Path) -> str:
    """A path as a person wrote it, most probably: relative if it is below the working directory."""
    relative = os.path.relpath(path)
    return str(path.absolute()) if relative.startswith("..") else relative


def read_file(path: Path) -> Keys:
    """The settings in a YAML or JSON file. Raises BadSettings if it cannot be read, or gives a key twice."""
    source = shown(path)
    try:
        text = path.read_bytes().decode("utf-8-sig")
    except OSError as error:
        raise BadSettings(f"{source} cannot be read: {error.strerror}.") from None
    except UnicodeDecodeError as error:
        raise BadSettings(f"{source} is not UTF-8, at byte {error.start}. Save it in UTF-8.") from None
    loader = _loader(text, source)
    try:
        settings = loader.get_single_data()
    except (yaml.YAMLError, ValueError, RecursionError) as error:
        raise BadSettings(f"{source} is not valid YAML or JSON: {error}") from None
    if loader.repeated:
        raise BadSettings(f"{source} gives a key twice:" + "".join(f"\n  - {one}" for one in loader.repeated))
    if not isinstance(settings, Keys):
        raise BadSettings(f"{source} must have keys at its top level, such as results: and study:.")
    return settings


def _loader(text: str, source: str) -> _Yaml:
    try:
        json.loads(text)
    except (ValueError, RecursionError):
        return _Yaml(text, source)
    return _Json(text.replace("\t", " "), source)  # JSON has no raw tab inside a text


def given_by(source: str, values: Any) -> Any:
    """Values that are of no file, with a common origin in words."""
    if isinstance(values, Mapping):
        inner = {key: given_by(source, value) for key, value in values.items()}
        return Keys(inner, dict.fromkeys(inner, source))
    if isinstance(values, list | tuple):
        items = Items(given_by(source, value) for value in values)
        items.origins = [source] * len(items)
        return items
    return values


USUAL_KIND = {"datasets": "mixture", "sdes": None, "nets": "mlp"}
"""The groups whose entries have a kind, and the kind of an entry that states none."""
EITHER = {"stds": "covariances", "covariances": "stds"}
"""Keys of a data set of which one takes the place of the other."""


def merged(layers: Iterable[Keys]) -> Keys:
    """Settings laid over each other, the last on top: mappings are merged, anything else is replaced."""
    whole = Keys({}, {})
    for layer in layers:
        whole = _over(whole, layer, ())
    return whole


def _over(old: Keys, new: Keys, place: Place) -> Keys:
    """A new mapping over an old one at the same place."""
    entry = place[0] if len(place) == 2 else None
    if entry in USUAL_KIND and _replaces(entry, new, old):
        return new
    made = Keys(old, old.origins)
    for key, value in new.items():
        if entry == "datasets" and EITHER.get(key) not in new:
            made.pop(EITHER.get(key), None)
        before = old.get(key)
        if isinstance(before, Keys) and isinstance(value, Keys):
            value = _over(before, value, (*place, key))
        made[key] = value
        made.origins[key] = new.origins[key]
    return made


def _replaces(group: str, new: Keys, old: Keys) -> bool:
    """Whether an entry is of another kind than the one it is laid over; a path alone makes images of a mixture."""
    before = old.get("kind", USUAL_KIND[group])
    if group == "datasets" and "kind" not in new and "path" in new:
        return before == "mixture" and "path" not in old
    return new.get("kind", ...) not in (..., before)


def read_files(paths: Iterable[Path]) -> Keys:
    """The settings of several files, each laid over the ones before it. Raises BadSettings."""
    return merged(read_file(path) for path in paths)
