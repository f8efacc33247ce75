"""From the folders of cells to the tables and figures of a study, and what these say.

The scripts of the rules and the commands `collect`, `partial`, `show` and `suggest` share it. What a study is stands in
its results, in study.json: the configuration may have changed since.
"""

from __future__ import annotations

import fcntl
import logging
import os
from collections.abc import Callable, Iterable, Mapping, Sequence
from importlib import import_module
from pathlib import Path
from typing import Any

from difftime.study.registry import DERIVED, FIGURES, Derived
from difftime.study.settings import COLLECTED, BadSettings, Study, study_in
from difftime.support.files import atomic
from difftime.tables.parquet import BadTable, collect, empty, labelled, missing, read, save
from difftime.tables.render import latex_of

log = logging.getLogger("difftime")


class Busy(Exception):
    """Another Snakemake writes into these results; the message says what to do."""


_held: list[int] = []
"""The descriptor of the lock on the results, which is let go when the process ends."""


def hold(results: Path | str) -> None:
    """Keep other Snakemakes away from these results for as long as this process lives. Raises Busy.

    Snakemake's own lock is in the folder it was started in: two clones with one results folder do not see it.
    """
    path = Path(results) / ".lock"
    path.parent.mkdir(parents=True, exist_ok=True)
    descriptor = os.open(path, os.O_RDWR | os.O_CREAT, 0o666)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        os.close(descriptor)
        raise Busy(
            f"Another Snakemake is writing into {results}. Wait for it, stop it, or set other results."
        ) from None
    except OSError as error:  # a file system without locks
        log.warning(
            "WARNING: %s cannot be locked (%s): see to it that one Snakemake alone writes into it.", path, error
        )
    _held.append(descriptor)


def parts(study: Study, results: Path, table: str) -> tuple[list[Path], list[Path]]:
    """The files that a table is collected from: those that are there, and those that are not."""
    paths = [results / "cells" / part for part in study.cells().files(table)]
    return [path for path in paths if path.exists()], [path for path in paths if not path.exists()]


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


def make_partial(results: Path) -> str:
    """Tables and figures of what there is of an unfinished study, in results/partial, and what lacks, in words."""
    study, folder, lacking = study_in(results), results / "partial", set()
    made: dict[str, str] = {}
    refused: list[str] = []
    for table in COLLECTED:
        there, absent = parts(study, results, table)
        lacking |= {*absent}
        if there:
            output = folder / "tables" / f"{table}.parquet"
            try:
                save_collected(there, table, output)
                made[table] = str(output)
            except BadTable as error:
                refused.append(f"table {table}: {error}")
    for entry in DERIVED.values():
        if {*entry.needs} <= {*made}:
            inputs = made | {name: [str(path) for path in parts(study, results, name)[0]] for name in entry.units}
            output = folder / "tables" / f"{entry.name}.parquet"
            try:
                save_derived(entry, inputs, study.plain(), output)
                made[entry.name] = str(output)
            except (BadTable, ValueError) as error:
                refused.append(f"table {entry.name}: {error}")
    drawn = 0
    for name, dataset, net in study.cells().figures():
        if (table := FIGURES[name].table) in made:
            place = f"{dataset}/{net}" if net else dataset
            try:
                save_figure(name, place, made[table], study.style(dataset), folder / "figures" / place / f"{name}.pdf")
                drawn += 1
            except (BadTable, ValueError) as error:
                refused.append(f"figure {place}/{name}: {error}")
    save_missing(sorted(lacking), folder / "tables" / "missing.parquet")
    lines = [f"{len(made)} tables and {drawn} figures of what there is: {folder}"]
    lines.append(f"{len(lacking)} files of cells are missing: {folder / 'tables' / 'missing.md'}")
    return "\n".join([*lines, *refused])


def findings(results: Path) -> str:
    """What a study found, in a few lines: T* of every curve, whether the bounds hold, what is doubtful, where to look.

    Raises BadSettings, with what is missing, if the study is not complete.
    """
    from difftime.optimum.best import said
    from difftime.tables.bounds import doubts, verdict

    study, tables = study_in(results), results / "tables"
    wanted = [tables / f"{table}.parquet" for table in study.cells().tables()]
    absent = [path for table in COLLECTED for path in parts(study, results, table)[1]]
    absent += [path for path in wanted if not path.exists()]
    if absent:
        raise BadSettings(_incomplete(results, absent))
    frames = {path.stem: read(path, path.stem) for path in wanted}
    lines = said(frames["optimum"]) if "optimum" in frames else []
    lines += [verdict(frames["bounds"])] if "bounds" in frames else []
    lines += [f"WARNING: {doubt}" for doubt in doubts(frames)]
    return "\n".join([*lines, f"Tables: {tables}   Figures: {results / 'figures'}"])


def _incomplete(results: Path, absent: Sequence[Path]) -> str:
    """What to say of a study that lacks some files."""
    listed = "\n".join(f"  {path.relative_to(results)}" for path in absent[:20])
    more = f"\n  ... and {len(absent) - 20} more" if len(absent) > 20 else ""
    there = results / "partial"
    hint = f"What can be made of the rest is in {there}." if there.exists() else "What can be made of the rest: "
    hint += "" if there.exists() else f"difftime partial {results}"
    return (
        f"The study in {results} is not complete; these are missing:\n{listed}{more}\nRun snakemake again. {hint}\n"
        "If the folder was copied or unpacked, Snakemake takes its files for changed: snakemake --touch --forceall "
        "--cores 1, before any setting is changed, tells it that they are not."
    )


def suggestions(results: Path, write: Path | None) -> str:
    """Which T to train next, curve by curve, and why; with `write`, they are added to that study file."""
    from difftime.optimum.suggest import blocks, suggest
    from difftime.study.settings import add_blocks

    study = study_in(results)
    frames = {}
    for name in (*DERIVED["optimum"].needs, *DERIVED["optimum"].units):
        paths, absent = parts(study, results, name)
        frames[name] = collect(paths, name)
        if absent:
            log.warning("WARNING: %d files of %s are missing: the suggestion is from what there is.", len(absent), name)
    if frames["elbo"].empty and frames["curve"].empty:
        raise BadSettings(f"No cell in {results} has its ELBO measured yet: run snakemake first.")
    found = suggest(frames, study.plain())
    lines = [str(one) for one in found]
    if write is not None:
        own = [block.model_dump(mode="json", exclude_unset=True) for block in study.study]
        lines.append(add_blocks(write, blocks(found, own)))
    return "\n".join(lines)
