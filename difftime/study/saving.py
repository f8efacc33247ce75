"""Tables and figures as files, from the files that they are made of.

Every table and every figure is a process of its own, so what these need to import is most of what they cost: nothing
here reads a study, whose settings take longer to import than a table takes to write.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterable, Mapping, Sequence
from importlib import import_module
from pathlib import Path
from typing import Any

from difftime.study.registry import Derived
from difftime.support.files import atomic
from difftime.tables.parquet import BadTable, collect, empty, labelled, missing, read, save
from difftime.tables.render import latex_of

log = logging.getLogger("difftime")


def save_collected(paths: Sequence[Path | str], table: str, output: Path | str) -> None:
    """The tables of single cells as one: Parquet, Markdown and HTML; what is doubtful is logged. Raises BadTable."""
    from difftime.tables.bounds import doubts

    if not paths:
        raise BadTable(f"No cell has its part of the table {table} yet.")
    frame = collect(map(Path, paths), table)
    save(frame, table, Path(output))
    for doubt in doubts({table: frame}):
        log.warning("WARNING: %s", doubt)


def save_missing(paths: Iterable[Path], output: Path) -> None:
    """The table `missing`."""
    save(missing(paths), "missing", output)


def save_derived(entry: Derived, inputs: Mapping[str, Any], settings: Mapping[str, Any], output: Path | str) -> None:
    """A derived table from the files of other tables: Parquet, Markdown, LaTeX and HTML."""
    frames = {}
    for name in (*entry.needs, *entry.wants):
        frames[name] = read(Path(inputs[name]), name) if name in inputs else empty(name)
    for name in entry.units:
        listed = inputs.get(name, [])
        paths = [listed] if isinstance(listed, str) else listed
        frames[name] = collect(map(Path, paths), name)
    made = _named(entry.function)(frames, settings)
    save(made, entry.name, Path(output))
    texts = _named(entry.texts)(made) if entry.texts else {".tex": latex_of(labelled(made, entry.name))}
    for suffix, text in texts.items():
        with atomic(Path(output).with_suffix(suffix)) as temporary:
            temporary.write_text(text, encoding="utf-8")


def _named(place: str) -> Callable[..., Any]:
    """A function by its "module:name"."""
    module, _, name = place.partition(":")
    return getattr(import_module(module), name)


def save_figure(name: str, place: str, table: Path | str, settings: Mapping[str, Any], output: Path | str) -> None:
    """A figure of one data set, or of one network of it: PDF and PNG. `place` is "dataset" or "dataset/net"."""
    from difftime import figures

    dataset, _, net = place.partition("/")
    style = figures.FigureSettings(**settings)
    figures.draw(name, Path(table), Path(output), style, dataset, net or None)
