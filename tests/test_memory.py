"""The memory that a process can have is the least of what the machine, its control groups and `ulimit` allow.

What a process keeps, it need not ask for again.
"""

from __future__ import annotations

import platform
import resource
import subprocess
import sys
from pathlib import Path

import pytest

from difftime.support import memory

GB = 10**9


@pytest.fixture
def machine(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A root folder of a machine with 8 GB left, without control groups."""
    monkeypatch.setattr(memory, "ROOT", tmp_path)
    monkeypatch.setattr(resource, "getrlimit", lambda _: (resource.RLIM_INFINITY, resource.RLIM_INFINITY))
    put(tmp_path / "proc/meminfo", f"MemTotal: 1 kB\nMemAvailable:   {8 * GB // 1024} kB\n")
    return tmp_path


def put(file: Path, text: object) -> None:
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_text(f"{text}\n")


def test_without_limits_it_is_what_the_machine_has(machine: Path) -> None:
    assert memory.available() == 8 * GB // 1024 * 1024


@pytest.mark.parametrize("group", ["job", "."])
def test_a_control_group_of_version_2_or_the_one_above_it_may_allow_less(machine: Path, group: str) -> None:
    put(machine / "proc/self/cgroup", "0::/job/step")
    put(machine / "sys/fs/cgroup/job/step/memory.max", "max")
    put(machine / "sys/fs/cgroup/job/step/memory.current", GB)
    put(machine / "sys/fs/cgroup" / group / "memory.max", 5 * GB)
    put(machine / "sys/fs/cgroup" / group / "memory.current", 2 * GB)
    assert memory.available() == 3 * GB


def test_a_control_group_of_version_1_may_allow_less(machine: Path) -> None:
    put(machine / "proc/self/cgroup", "5:cpu:/other\n4:memory:/slurm/job_7")
    put(machine / "sys/fs/cgroup/memory/slurm/job_7/memory.limit_in_bytes", 5 * GB)
    put(machine / "sys/fs/cgroup/memory/slurm/job_7/memory.usage_in_bytes", 6 * GB)
    assert memory.available() == 0


def test_ulimit_may_allow_less(machine: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(resource, "getrlimit", lambda _: (3 * GB, 3 * GB))
    put(machine / "proc/self/statm", "1000 1 1 1 1 1 1")
    assert memory.available() == 3 * GB - 1000 * resource.getpagesize()


def test_a_system_that_does_not_say_gives_no_number(machine: Path) -> None:
    (machine / "proc/meminfo").unlink()
    assert memory.available() is None


def test_this_machine_has_some() -> None:
    there = memory.available()
    assert there is None or 0 < there < 2**60


FAULTS = """
import resource, sys
import numpy as np
from difftime.support import memory
if sys.argv[1] == "keep":
    memory.keep()
def faults():
    before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
    [np.ones(2_000_000) for _ in range(8)]
    return resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before
faults(), faults()
print(faults())
"""


@pytest.mark.skipif(platform.libc_ver()[0] != "glibc", reason="other C libraries are left as they are")
def test_memory_that_is_kept_is_not_asked_for_again() -> None:
    """Eight arrays of 16 MB need pages of the system once, and without it every time (fewer where pages are huge)."""
    kept, given_back = (
        int(subprocess.run([sys.executable, "-c", FAULTS, how], check=True, capture_output=True).stdout)
        for how in ("keep", "no")
    )
    assert kept < 10
    assert given_back > 1000
