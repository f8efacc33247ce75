"""What kills jobs on a cluster: afterwards the study finishes, and its tables are the same to the bit."""

import os
import signal
import subprocess
from pathlib import Path

import pytest
from cluster import wait

pytestmark = pytest.mark.slurm


def resumed(run) -> bool:
    return "Resuming at step" in (run.results / "logs").joinpath(*CELL_PARTS, "train.log").read_text()


CELL_PARTS = ("dataset=pictures", "sde=vp", "net=tiny", "T=0.4")


def test_a_cancelled_training_goes_on(run, expected) -> None:
    process = run.submit()
    run.cluster.call("scancel", run.train_job())
    run.finish(process, expected)
    assert resumed(run)


def signal_training(run, number: signal.Signals) -> None:
    pids = [
        int(p.name)
        for p in Path("/proc").glob("[0-9]*")
        if (command := _command(p)) and "difftime\0train" in command and str(run.path) in _cwd(p)
    ]
    assert pids
    for pid in pids:
        os.kill(pid, number)


def test_a_training_killed_from_outside_goes_on(run, expected) -> None:
    process = run.submit()
    run.train_job()
    signal_training(run, signal.SIGKILL)
    run.finish(process, expected)
    assert resumed(run)


def _command(process: Path) -> str:
    try:
        return (process / "cmdline").read_text()
    except OSError:
        return ""


def _cwd(process: Path) -> str:
    try:
        return str((process / "cwd").readlink())
    except OSError:
        return ""


def test_a_training_requeued_for_a_higher_priority_goes_on(run, expected) -> None:
    process = run.submit()
    job = run.train_job()
    # an urgent job that wants both GPUs, and lasts a second
    run.cluster.call("sbatch", "-p", "urgent", "--gres=gpu:2", "--wrap", "sleep 1", "--output=/dev/null")
    wait("the requeue", lambda: run.cluster.jobs()[job].get("Restarts") == "1")
    run.finish(process, expected)
    assert resumed(run)


def test_a_training_longer_than_its_time_limit_goes_on_in_the_next_job(run, expected) -> None:
    process = run.submit()
    job = run.train_job()
    signal_training(run, signal.SIGSTOP)  # it is too quick: Slurm looks at limits twice a minute
    run.cluster.call("scontrol", "update", f"jobid={job}", "TimeLimit=0:01")
    run.finish(process, expected, seconds=300)
    assert run.cluster.jobs()[job]["JobState"] == "TIMEOUT"
    assert resumed(run)


@pytest.mark.parametrize("daemon", ["slurmd", "slurmctld"])
def test_a_daemon_may_be_restarted(run, expected, daemon: str) -> None:
    process = run.submit()
    run.train_job()
    run.cluster.stop(daemon)
    run.cluster.start(daemon)
    run.finish(process, expected)


def test_snakemake_killed_and_started_again(run, expected) -> None:
    process = run.submit()
    job = run.train_job()
    process.kill()
    process.wait()
    # its jobs go on; the lock stays
    wait("the end of the training", lambda: run.cluster.jobs()[job]["JobState"] == "COMPLETED")
    assert run.submit("--unlock").wait(60) == 0
    run.finish(run.submit(), expected)


def test_two_snakemakes_at_once(run, expected) -> None:
    process = run.submit()
    run.train_job()
    assert run.submit().wait(60) == 1
    assert "cannot be locked" in run.said()
    run.finish(process, expected)


def test_a_full_disk(run, expected) -> None:
    run.results.parent.mkdir(exist_ok=True)
    run.results.mkdir()
    subprocess.run(["mount", "-t", "tmpfs", "-o", "size=4m", "tmpfs", run.results], check=True)
    try:
        filler = run.results / "filler"
        process = run.submit("--retries", "0")
        run.train_job()
        subprocess.run(["dd", "if=/dev/zero", f"of={filler}", "bs=4k"], check=False, capture_output=True)
        assert process.wait(150) == 1
        assert "No space left" in run.said()
        filler.unlink()
        run.finish(run.submit(), expected)
    finally:
        run.end()
        subprocess.run(["umount", run.results], check=True)
