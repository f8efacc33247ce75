"""Where a cell's results come from: settings, versions, code, machine and cost, one row per command and cell.

The rows stay out of every other table, since they differ from run to run.
"""

from __future__ import annotations

import json
import logging
import os
import platform
import subprocess
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from difftime import __version__
from difftime.study.commands.common import Work, describe, peak_memory
from difftime.study.settings import Settings, read_cell
from difftime.tables.schema import Row, write_rows
from difftime.training.parallel import ALONE, Group

log = logging.getLogger("difftime")

ROOT = Path(__file__).parents[2]
PATIENCE = 10.0
"""Seconds for git's answer, which is waited for when the work is done."""


@contextmanager
def recorded(
    folder: Path, command: str, settings: Settings | None = None, group: Group = ALONE, **job: Any
) -> Iterator[Callable[[Work | None], None]]:
    """Write run_<command>.parquet into a cell's folder when the block has ended without an error.

    `settings` are those of the measurement, `job` is what else its command line said. The block may tell the function
    that it is given what the command did.
    """
    work: Work | None = None

    def did(done: Work | None) -> None:
        nonlocal work
        work = done

    if not group.first:
        yield did
        return
    git, start, clock = _ask_git(), datetime.now(UTC), time.monotonic()
    yield did
    seconds = time.monotonic() - clock
    cell = read_cell(folder / "cell.json")
    asked = {"cell": cell.model_dump(mode="json"), "measurement": settings and settings.model_dump(mode="json")} | job
    row = cell.keys | {"T": cell.T, "command": command, "settings": json.dumps(asked, sort_keys=True)}
    times = {"start": _stamp(start), "end": _stamp(datetime.now(UTC)), "seconds": seconds}
    times |= {"work_seconds": work and work.seconds, "units_per_second": work and work.units_per_second}
    write_rows(folder / f"run_{command}.parquet", "runs", [row | _versions() | _code(git) | _machine(group) | times])


def _stamp(moment: datetime) -> str:
    return moment.isoformat(timespec="milliseconds")


def _versions() -> Row:
    import torch

    versions = {"python": platform.python_version(), "torch": str(torch.__version__), "cuda": torch.version.cuda}
    return versions | {"difftime": __version__}


def _ask_git() -> subprocess.Popen[str] | OSError:
    """git, asked for the commit and the changed files of the clone that this code is in; it answers meanwhile."""
    # an installed package may lie within a repository that has nothing to do with it
    if not (ROOT / ".git").exists():
        return FileNotFoundError(f"{ROOT} is no git clone")
    command = ["git", "--no-optional-locks", "status", "--porcelain=v2", "--branch", "--untracked-files=no"]
    try:
        return subprocess.Popen(command, cwd=ROOT, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    except OSError as error:
        return error


def _code(git: subprocess.Popen[str] | OSError) -> Row:
    """The commit, and whether tracked files differ from it; nulls, with a remark in the log, if git does not know."""
    try:
        if isinstance(git, OSError):
            raise git
        answer, complaint = git.communicate(timeout=PATIENCE)
        lines = answer.splitlines()
        commits = [line.removeprefix("# branch.oid ") for line in lines if line.startswith("# branch.oid ")]
        if git.returncode or commits in ([], ["(initial)"]):
            raise OSError(complaint.strip() or "git names no commit")
    except (OSError, subprocess.SubprocessError) as error:
        if not isinstance(git, OSError):
            git.kill()
        log.warning("The record of this run has no git commit: %s.", error)
        return {"commit": None, "tree": None}
    return {"commit": commits[0], "tree": "clean" if all(line.startswith("#") for line in lines) else "changed"}


def _machine(group: Group) -> Row:
    import torch

    # a job has used a GPU if PyTorch has opened one
    place = torch.device("cuda" if torch.cuda.is_initialized() else "cpu")
    return {
        "host": platform.node(), "device": describe(place, group), "slurm_job": os.environ.get("SLURM_JOB_ID"),
        "peak_memory": peak_memory(torch.device("cpu")),
        "peak_gpu_memory": peak_memory(place) if place.type == "cuda" else None,
    }  # fmt: skip
