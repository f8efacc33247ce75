"""The memory of a process: how much it can still have, and that it keeps what it has."""

from __future__ import annotations

import ctypes
import re
import resource
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

ROOT = Path("/")
TRIM_THRESHOLD, MMAP_THRESHOLD = -1, -3
"""The numbers of M_TRIM_THRESHOLD and M_MMAP_THRESHOLD in glibc's malloc.h."""


def keep() -> None:
    """Have the process keep up to 1 GB of the memory of tensors that are gone, for those to come.

    glibc gives it back at once, and the system fills every page of the next tensor with zeros. Larger blocks than
    32 MB are given back as before: glibc would not find room for others in their place. Other C libraries are left as
    they are.
    """
    library = ctypes.CDLL(None)
    if hasattr(library, "gnu_get_libc_version"):
        library.mallopt(MMAP_THRESHOLD, 2**25)
        library.mallopt(TRIM_THRESHOLD, 2**30)


def available() -> int | None:
    """Bytes that the machine, the job's control group and `ulimit` still allow; None where the system does not say."""
    return min(_allowances(), default=None)


def _allowances() -> Iterator[int]:
    with suppress(OSError):
        meminfo = (ROOT / "proc/meminfo").read_text(encoding="ascii")
        if found := re.search(r"^MemAvailable:\s+(\d+) kB", meminfo, re.MULTILINE):
            yield int(found[1]) * 1024
    yield from _of_groups()
    limit, _ = resource.getrlimit(resource.RLIMIT_AS)
    if limit != resource.RLIM_INFINITY:
        with suppress(OSError):
            pages = int((ROOT / "proc/self/statm").read_text(encoding="ascii").split()[0])
            yield max(0, limit - pages * resource.getpagesize())


def _of_groups() -> Iterator[int]:
    """What control groups, version 2 or 1, leave of their limits: this process's own and those above it."""
    with suppress(OSError):
        for line in (ROOT / "proc/self/cgroup").read_text(encoding="ascii").splitlines():
            number, controllers, name = line.split(":", 2)
            if number == "0":
                top, files = ROOT / "sys/fs/cgroup", ("memory.max", "memory.current")
            elif "memory" in controllers.split(","):
                top, files = ROOT / "sys/fs/cgroup/memory", ("memory.limit_in_bytes", "memory.usage_in_bytes")
            else:
                continue
            own = top / name.lstrip("/")
            for folder in (own, *own.parents):
                with suppress(OSError, ValueError):  # no such file above the top, "max" where there is no limit
                    limit, used = (int((folder / file).read_text(encoding="ascii")) for file in files)
                    yield max(0, limit - used)
