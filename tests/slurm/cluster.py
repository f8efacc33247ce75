"""A real Slurm on this machine, as plain processes: munge, a controller and one node with two made-up GPUs.

`python tests/slurm/cluster.py up` starts it, `down` ends it. It needs root and Debian's packages slurm-wlm and munge,
and it takes over /etc/slurm: for machines that have no Slurm of their own, containers above all.
"""

from __future__ import annotations

import os
import re
import shutil
import signal
import socket
import stat
import subprocess
import sys
import time
from pathlib import Path

HERE = Path(__file__).parent
CONF, RUN, LOG, SPOOL = (Path(p) for p in ("/etc/slurm", "/run/slurm", "/var/log/slurm", "/var/spool/slurm"))
MARK = "# Written by difftime's tests"
NULL = os.makedev(1, 3)
"""The device number of /dev/null, which the made-up GPUs are copies of."""


def missing() -> str:
    """Why there can be no cluster here; empty if there can."""
    if os.geteuid() != 0:
        return "starting a Slurm needs root"
    absent = [name for name in ("slurmctld", "slurmd", "munged", "srun") if shutil.which(name) is None]
    if absent:
        return f"{', '.join(absent)} not installed: apt-get install --no-install-recommends slurm-wlm munge"
    conf = CONF / "slurm.conf"
    if conf.exists() and MARK not in conf.read_text():
        return f"{conf} belongs to a Slurm that is not ours"
    return ""


def _call(*command: str, timeout: float = 10) -> str:
    """What a command prints; nothing if it fails or hangs, as Slurm's do while the controller is down."""
    try:
        return subprocess.run(command, capture_output=True, text=True, timeout=timeout, check=True).stdout
    except (subprocess.CalledProcessError, subprocess.TimeoutExpired):
        return ""


def _wait(what: str, condition, seconds: float = 60) -> None:
    end = time.monotonic() + seconds
    while not condition():
        if time.monotonic() > end:
            raise TimeoutError(f"{what} did not come in {seconds:g} s; see {LOG}")
        time.sleep(0.2)


def _pid(daemon: str) -> int | None:
    try:
        pid = int((RUN / f"{daemon}.pid").read_text())
        os.kill(pid, 0)
    except (OSError, ValueError):
        return None
    return pid


def start(daemon: str) -> None:
    """Start slurmctld or slurmd if it does not run."""
    if _pid(daemon) is None:
        subprocess.run([daemon], check=True)
    if daemon == "slurmctld":
        _wait("slurmctld", lambda: "is UP" in _call("scontrol", "ping"))
    else:
        _wait("the node", lambda: set(_call("sinfo", "-h", "-o", "%t").split()) & {"idle", "mix", "alloc"})


def stop(daemon: str) -> None:
    """End slurmctld or slurmd; jobs go on."""
    if (pid := _pid(daemon)) is not None:
        os.kill(pid, signal.SIGTERM)
        _wait(f"the end of {daemon}", lambda: _pid(daemon) is None)


def up(cpus: int | None = None) -> None:
    """Start the cluster, or let it run."""
    if reason := missing():
        raise RuntimeError(reason)
    for folder in (CONF, RUN, LOG, SPOOL / "ctld", SPOOL / "d", Path("/run/munge")):
        folder.mkdir(parents=True, exist_ok=True)
    shutil.chown("/run/munge", "munge", "munge")
    for i in range(2):
        gpu = Path(f"/dev/difftime-gpu{i}")
        if not gpu.exists():
            os.mknod(gpu, 0o666 | stat.S_IFCHR, NULL)
            gpu.chmod(0o666)
    memory = re.search(r"RealMemory=(\d+)", _call("slurmd", "-C"))
    values = {"HOST": socket.gethostname().split(".")[0], "CPUS": cpus or os.cpu_count(), "MEMORY": memory[1]}
    for name in ("slurm.conf", "gres.conf"):
        (CONF / name).write_text(f"{MARK}.\n" + (HERE / name).read_text().format(**values))
    if not _call("munge", "-n"):
        subprocess.run(["runuser", "-u", "munge", "--", "munged", "--force"], check=True)
    start("slurmctld")
    start("slurmd")


def down() -> None:
    """Cancel what runs, and end the cluster."""
    _call("scancel", "--user", "root")
    stop("slurmd")
    stop("slurmctld")


if __name__ == "__main__":
    {"up": up, "down": down}[sys.argv[1]]()
