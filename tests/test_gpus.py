"""A job gets the GPUs it asks for, and no other job's. The GPUs are made up: a program called nvidia-smi lists them."""

import os
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from tempfile import TemporaryDirectory

import pytest

from difftime.study import devices as gpus

CLAIM = """
import sys, time, pathlib
from difftime.study.devices import claim
import os
claim(int(sys.argv[1]), pathlib.Path(sys.argv[2]))
print(os.environ["CUDA_VISIBLE_DEVICES"], flush=True)
"""


@pytest.fixture
def machine(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A machine with three GPUs; a folder for locks."""
    program = tmp_path / "bin" / "nvidia-smi"
    program.parent.mkdir()
    program.write_text("#!/bin/sh\nprintf '0\\n1\\n2\\n'\n")
    program.chmod(0o755)
    monkeypatch.setenv("PATH", f"{program.parent}:{os.environ['PATH']}")
    for name in ("CUDA_VISIBLE_DEVICES", "SLURM_JOB_ID", gpus.DEVICE, gpus.SHARED):
        monkeypatch.delenv(name, raising=False)
    return tmp_path


def job(count: int, locks: Path, then: str = "sys.stdin.read()") -> subprocess.Popen[str]:
    return subprocess.Popen(
        [sys.executable, "-c", CLAIM + then, str(count), str(locks)],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    )


def seen(job: subprocess.Popen[str]) -> set[str]:
    return set(job.stdout.readline().strip().split(","))


def test_jobs_at_the_same_time_have_different_gpus(machine: Path) -> None:
    jobs = [job(1, machine), job(2, machine)]
    try:
        first, second = map(seen, jobs)
        assert (len(first), len(second)) == (1, 2)
        assert first | second == {"0", "1", "2"}
    finally:
        for one in jobs:
            one.communicate()


def test_a_job_waits_until_enough_gpus_are_free_also_after_a_kill(machine: Path) -> None:
    first = job(2, machine)
    assert len(seen(first)) == 2
    second = job(2, machine)
    with pytest.raises(subprocess.TimeoutExpired):
        second.wait(1)
    first.kill()
    assert len(seen(second)) == 2
    first.communicate()
    second.communicate()


def test_gpus_are_shared_only_when_told_to(machine: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(gpus.SHARED, "1")
    jobs = [job(3, machine), job(3, machine)]
    assert [seen(one) for one in jobs] == 2 * [{"0", "1", "2"}]
    for one in jobs:
        one.communicate()


def test_under_slurm_a_job_keeps_the_gpus_it_was_given(machine: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SLURM_JOB_ID", "7")
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "1,2")
    gpus.claim(2, machine)
    assert os.environ["CUDA_VISIBLE_DEVICES"] == "1,2"


def test_too_few_gpus_are_refused_and_never_replaced_by_the_cpu(machine: Path) -> None:
    with pytest.raises(gpus.NoGpu, match=r"asks for 4 GPU\(s\), and sees 3"):
        gpus.claim(4, machine)


def test_a_machine_without_gpus_is_refused(machine: Path) -> None:
    (machine / "bin" / "nvidia-smi").write_text("#!/bin/sh\nexit 9\n")
    with pytest.raises(gpus.NoGpu, match="sees 0"):
        gpus.claim(1, machine)


def test_gpus_that_pytorch_cannot_use_are_refused() -> None:
    gpus.confirm(2, lambda: 2)
    with pytest.raises(gpus.NoGpu, match=r"has 2 GPU\(s\), but PyTorch can use 0"):
        gpus.confirm(2, lambda: 0)


def test_a_process_keeps_its_gpus_when_torchrun_takes_its_place(machine: Path) -> None:
    first = job(3, machine, 'os.execv(sys.executable, [sys.executable, "-c", "input()"])')
    assert len(seen(first)) == 3
    second = job(3, machine)
    with pytest.raises(subprocess.TimeoutExpired):
        second.wait(2)
    first.communicate()
    assert len(seen(second)) == 3
    second.communicate()


def test_the_cpu_is_taken_instead_only_when_told_to_and_said_loudly(machine: Path, monkeypatch, caplog) -> None:
    monkeypatch.setenv(gpus.DEVICE, "cpu")
    gpus.claim(1, machine)
    assert os.environ["CUDA_VISIBLE_DEVICES"] == ""
    assert "WARNING" in caplog.text


def test_a_job_that_asks_for_none_sees_none(machine: Path) -> None:
    gpus.claim(0, machine)
    assert os.environ["CUDA_VISIBLE_DEVICES"] == ""


@pytest.mark.parametrize(
    ("variable", "seen"),
    [("-1", []), ("NoDevFiles", []), ("", []), ("0,-1,2", ["0"]), ("1, 2", ["1", "2"]), ("7", []),
     ("GPU-8932f937,MIG-17", ["GPU-8932f937", "MIG-17"])],
)  # fmt: skip
def test_what_names_no_gpu_is_not_counted_as_one(
    machine: Path, monkeypatch: pytest.MonkeyPatch, variable: str, seen: list[str]
) -> None:
    """CUDA takes the names up to the first that is none: -1 hides all GPUs, and Slurm gives NoDevFiles for none."""
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", variable)
    assert gpus.visible() == seen


def of_another_user(action: Callable[[], object]) -> str:
    """What `action` returns or raises, as text, in a process of the user nobody."""
    if os.getuid() != 0:
        pytest.skip("only the superuser can become another user")
    reader, writer = os.pipe()
    child = os.fork()
    if child == 0:
        try:
            os.setuid(65534)
            said = repr(action())
        except Exception as error:
            said = f"{type(error).__name__}: {error}"
        os.write(writer, said.encode())
        os._exit(0)
    os.close(writer)
    os.waitpid(child, 0)
    with os.fdopen(reader) as pipe:
        return pipe.read()


@pytest.fixture
def shared() -> Iterator[Path]:
    """A folder like /tmp, for all users, who cannot delete each other's files."""
    with TemporaryDirectory() as folder:
        Path(folder).chmod(0o1777)
        yield Path(folder)


@pytest.mark.parametrize("umask", [0o022, 0o077])
def test_the_lock_of_one_user_is_respected_and_taken_over_by_another(shared: Path, umask: int) -> None:
    lock, before = shared / "difftime-gpu-0.lock", os.umask(umask)
    try:
        held = gpus._lock(lock)
    finally:
        os.umask(before)
    assert of_another_user(lambda: gpus._lock(lock)) == "None"
    os.close(held)
    assert of_another_user(lambda: gpus._lock(lock)).isdigit()


def test_a_lock_file_that_another_user_keeps_closed_is_named_with_what_to_do(shared: Path) -> None:
    lock = shared / "difftime-gpu-0.lock"
    lock.touch(mode=0o600)
    said = of_another_user(lambda: gpus._lock(lock))
    assert said.startswith(f"NoGpu: The lock file {lock}")
    assert gpus.SHARED in said


def test_a_lock_file_is_no_way_to_another_file(shared: Path) -> None:
    (shared / "difftime-gpu-0.lock").symlink_to(shared / "victim")
    with pytest.raises(gpus.NoGpu, match="cannot be opened"):
        gpus._lock(shared / "difftime-gpu-0.lock")
    assert not (shared / "victim").exists()
