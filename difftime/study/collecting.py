"""From the folders of cells to the tables and figures of a study, and what these say.

The commands `collect`, `partial`, `show` and `suggest` share it. What a study is stands in its results, in study.json:
the configuration may have changed since.
"""

from __future__ import annotations

import fcntl
import logging
import os
from collections.abc import Iterable, Sequence
from pathlib import Path
from textwrap import indent
from typing import Any

from difftime.study.registry import DERIVED, FIGURES
from difftime.study.saving import save_collected, save_derived, save_figure, save_missing
from difftime.study.settings import COLLECTED, BadSettings, Study, study_in
from difftime.tables.parquet import BadTable, collect, read

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


def parts(study: Study, results: Path, dataset: str, table: str) -> tuple[list[Path], list[Path]]:
    """The files that a table of some data is collected from: those that are there, and those that are not."""
    paths = [results / "cells" / part for part in study.cells().files(dataset, table)]
    return [path for path in paths if path.exists()], [path for path in paths if not path.exists()]


def make_partial(results: Path) -> str:
    """Tables and figures of what there is of an unfinished study, in results/partial, and what lacks, in words."""
    study = study_in(results)
    return "\n".join(line for dataset in study.cells().datasets() for line in _partial_of(study, results, dataset))


def _partial_of(study: Study, results: Path, dataset: str) -> list[str]:
    """The same of one data set: how much was made and where, and what was refused."""
    folder, made, lacking = results / "partial", dict[str, str](), set[Path]()
    tables, refused = folder / "tables" / dataset, list[str]()
    planned = study.cells().tables(dataset)
    for table in (name for name in COLLECTED if name in planned):
        there, absent = parts(study, results, dataset, table)
        lacking |= {*absent}
        if there:
            output = tables / f"{table}.parquet"
            try:
                save_collected(there, table, output)
                made[table] = str(output)
            except BadTable as error:
                refused.append(f"table {dataset}/{table}: {error}")
    for entry in (DERIVED[name] for name in planned if name in DERIVED):
        if entry.possible(made):
            units = {name: [str(path) for path in parts(study, results, dataset, name)[0]] for name in entry.units}
            output = tables / f"{entry.name}.parquet"
            try:
                save_derived(entry, made | units, study.plain(dataset), output)
                made[entry.name] = str(output)
            except (BadTable, ValueError) as error:
                refused.append(f"table {dataset}/{entry.name}: {error}")
    drawn = 0
    for name, _, net in (one for one in study.cells().figures() if one[1] == dataset):
        if (table := FIGURES[name].table) in made:
            place = f"{dataset}/{net}" if net else dataset
            try:
                save_figure(name, place, made[table], study.style(dataset), folder / "figures" / place / f"{name}.pdf")
                drawn += 1
            except (BadTable, ValueError) as error:
                refused.append(f"figure {place}/{name}: {error}")
    save_missing(sorted(lacking), tables / "missing.parquet")
    said = f"{dataset}: {len(made)} tables and {drawn} figures of what there is, in {folder}"
    return [f"{said}; {len(lacking)} files of cells are missing: {tables / 'missing.md'}", *refused]


def findings(results: Path) -> str:
    """What a study found, in a few lines: T* of every curve, whether the bounds hold, what is doubtful, where to look.

    Of several data sets, each has its lines below its name. Raises BadSettings, with what is missing, if the study is
    not complete.
    """
    study = study_in(results)
    cells = study.cells()
    wanted = {
        dataset: [results / "tables" / dataset / f"{table}.parquet" for table in cells.tables(dataset)]
        for dataset in cells.datasets()
    }
    absent = [path for name in wanted for table in COLLECTED for path in parts(study, results, name, table)[1]]
    absent += [path for paths in wanted.values() for path in paths if not path.exists()]
    if absent:
        raise BadSettings(_incomplete(results, absent))
    found = {}
    for dataset, paths in wanted.items():
        places = [f"{name.capitalize()}: {results / name / dataset}" for name in ("tables", "figures")]
        found[dataset] = [*_found(paths), "   ".join(places)]
    explorer = results / "explore.html"
    last = [f"Explorer: {explorer}"] if explorer.exists() else []
    if len(found) == 1:
        return "\n".join([*next(iter(found.values())), *last])
    return "\n".join([*(f"{name}\n" + indent("\n".join(lines), "  ") for name, lines in found.items()), *last])


def _found(paths: Iterable[Path]) -> list[str]:
    """What the tables of one data set say."""
    from difftime.optimum.best import said
    from difftime.tables.bounds import doubts, verdict

    frames = {path.stem: read(path, path.stem) for path in paths}
    lines = said(frames["optimum"]) if "optimum" in frames else []
    lines += [verdict(frames["bounds"])] if "bounds" in frames else []
    return lines + [f"WARNING: {doubt}" for doubt in doubts(frames)]


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
    frames = {dataset: _of_optimum(study, results, dataset) for dataset in study.cells().datasets()}
    found = [one for dataset, own in frames.items() for one in suggest(own, study.plain(dataset))]
    if not found:
        raise BadSettings(f"No cell in {results} has its ELBO measured yet: run snakemake first.")
    lines = [str(one) for one in found]
    if write is not None:
        own = [block.model_dump(mode="json", exclude_unset=True) for block in study.study]
        lines.append(add_blocks(write, blocks(found, own)))
    return "\n".join(lines)


def _of_optimum(study: Study, results: Path, dataset: str) -> dict[str, Any]:
    """What the optimum of some data is found from, as far as it is there."""
    frames = {}
    for name in (*DERIVED["optimum"].needs, *DERIVED["optimum"].units):
        paths, absent = parts(study, results, dataset, name)
        frames[name] = collect(paths, name)
        if absent:
            log.warning(
                "WARNING: %d files of %s of %s are missing: the suggestion is from what there is.",
                len(absent), name, dataset,
            )  # fmt: skip
    return frames
