"""GPUs for a job: as many as it asks for, and none that another job has.

Under Slurm a job has been given its own already. On a workstation nobody does that: there a lock file per GPU, which
dies with the process that holds it, keeps jobs apart, and a job waits until enough GPUs are free. Nothing here imports
torch: which GPUs a process sees must be settled before.
"""

from __future__ import annotations

import fcntl
import logging
import os
import subprocess
import tempfile
import time
from collections.abc import Callable
from contextlib import suppress
from itertools import takewhile
from pathlib import Path

log = logging.getLogger("difftime")

DEVICE, SHARED, VISIBLE = "DIFFTIME_DEVICE", "DIFFTIME_SHARE_GPUS", "CUDA_VISIBLE_DEVICES"
_held: list[int] = []
"""Descriptors of locks, which are let go when the process ends."""


class NoGpu(Exception):
    """A job asks for GPUs that are not there; the message says what to do."""


def claim(count: int, locks: Path | None = None) -> int:
    """Give this process and its children `count` GPUs of their own, and let them see no other: -> how many it has now.

    `locks` is the folder of the lock files, by default that for temporary files. The environment may say otherwise:
    DIFFTIME_DEVICE=cpu computes on the CPU whatever a study asks for, DIFFTIME_SHARE_GPUS=1 lets jobs share GPUs.
    Raises NoGpu if the machine, or the job, has fewer than `count`.
    """
    if os.environ.get(DEVICE, "") not in ("", "cpu"):
        raise NoGpu(f"{DEVICE} is {os.environ[DEVICE]}; it can be cpu, or not set at all.")
    if count == 0 or os.environ.get(DEVICE) == "cpu":
        if count:
            log.warning("WARNING: the job asks for %d GPU(s), but %s=cpu: it computes on the CPU.", count, DEVICE)
        os.environ[VISIBLE] = ""
        return 0
    there = visible()
    if len(there) < count:
        raise NoGpu(
            f"The job asks for {count} GPU(s), and sees {len(there)}. Set `gpu` of the data set to what there is, or "
            f"{DEVICE}=cpu in the environment to compute on the CPU all the same."
        )
    alone = "SLURM_JOB_ID" in os.environ or os.environ.get(SHARED) == "1"
    mine = there[:count] if alone else _locked(there, count, locks or Path(tempfile.gettempdir()))
    os.environ[VISIBLE] = ",".join(mine)
    log.info("On GPU %s", os.environ[VISIBLE])
    return count


def confirm(claimed: int, usable: Callable[[], int]) -> None:
    """Raise NoGpu if fewer GPUs can be used, as PyTorch counts them, than were claimed."""
    if claimed and (number := usable()) < claimed:
        raise NoGpu(
            f"The job has {claimed} GPU(s), but PyTorch can use {number}: its build is for the CPU, or the driver is "
            f"too old. {DEVICE}=cpu in the environment computes on the CPU all the same."
        )


def in_group() -> bool:
    """Whether torchrun started this process: then the GPUs were claimed for all of them."""
    return "TORCHELASTIC_RUN_ID" in os.environ


def visible() -> list[str]:
    """The GPUs that this process may see, as CUDA_VISIBLE_DEVICES names them."""
    try:
        listed = subprocess.run(
            ["nvidia-smi", "--query-gpu=index", "--format=csv,noheader"], capture_output=True, text=True, check=True
        ).stdout.split()
    except (OSError, subprocess.CalledProcessError):
        return []
    allowed = os.environ.get(VISIBLE)
    if allowed is None:
        return listed
    names = [name.strip() for name in allowed.split(",")]
    # as CUDA reads it: what follows the first name of no GPU, such as -1 or Slurm's NoDevFiles, is not seen either
    return [*takewhile(lambda name: name in listed or name.startswith(("GPU-", "MIG-")), names)]


def _locked(there: list[str], count: int, folder: Path) -> list[str]:
    """`count` GPUs that nobody else has, as soon as there are so many."""
    said = False
    while True:
        taken = {name: lock for name in there if (lock := _lock(folder / f"difftime-gpu-{name}.lock")) is not None}
        for name in list(taken)[count:]:
            os.close(taken.pop(name))
        if len(taken) == count:
            for lock in taken.values():
                os.set_inheritable(lock, True)  # torchrun, which may take this process's place, keeps it
            _held.extend(taken.values())
            return list(taken)
        for lock in taken.values():  # not kept while waiting: two jobs might wait for each other
            os.close(lock)
        if not said:
            log.info("Waiting for %d of the GPUs %s: other jobs have them", count, ", ".join(there))
            said = True
        time.sleep(1 + os.getpid() % 100 / 100)


def _lock(path: Path) -> int | None:
    """A descriptor of the locked file, or None if another process, of whatever user, has the lock."""
    descriptor = _opened(path)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        os.close(descriptor)
        return None
    return descriptor


def _opened(path: Path) -> int:
    """A lock file, made if it is not there, that every user can open. Raises NoGpu where another user keeps it closed.

    To read suffices for a lock; in a sticky folder such as /tmp a file of another user cannot be opened to write.
    """
    try:
        with suppress(FileNotFoundError):
            return os.open(path, os.O_RDONLY | os.O_NOFOLLOW)
        descriptor = os.open(path, os.O_RDONLY | os.O_CREAT | os.O_EXCL, 0o644)
        os.fchmod(descriptor, 0o644)  # whatever the umask
        return descriptor
    except FileExistsError:  # another job has just made it
        return _opened(path)
    except OSError as error:
        raise NoGpu(
            f"The lock file {path}, which keeps jobs from each other's GPUs, cannot be opened ({error.strerror}). Have "
            f"its owner delete it, or set {SHARED}=1 to do without locks."
        ) from error
