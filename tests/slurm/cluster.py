"""A real Slurm of one node with two made-up GPUs, as plain processes.

Its munge, ports, logs and state are its own; slurm.conf must lie in /etc/slurm, as Snakemake's plugin hides SLURM_CONF
from jobs. It needs root and Debian's packages slurm-wlm and munge, and leaves a Slurm that is not its own alone.
"""

from __future__ import annotations

import os
import re
import shutil
import signal
import socket
import stat
import subprocess
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

ETC = Path("/etc/slurm")
CONF = """# Written by difftime's tests.
ClusterName=difftime
SlurmctldHost={host}(127.0.0.1)
SlurmctldPort={ports[0]}
SlurmdPort={ports[1]}
SlurmUser=root
SlurmdUser=root
AuthType=auth/munge
CredType=cred/munge
# a requeued job waits until its old credential has expired
AuthInfo=socket={folder}/munge.socket,cred_expire=10
SlurmctldPidFile={folder}/slurmctld.pid
SlurmdPidFile={folder}/slurmd.pid
SlurmctldLogFile={folder}/slurmctld.log
SlurmdLogFile={folder}/slurmd.log
StateSaveLocation={folder}/ctld
SlurmdSpoolDir={folder}/d
ProctrackType=proctrack/linuxproc
TaskPlugin=task/none
JobAcctGatherType=jobacct_gather/none
SlurmdParameters=config_overrides
SwitchType=switch/none
MpiDefault=none
ReturnToService=2
SchedulerType=sched/backfill
SchedulerParameters=bf_interval=2,sched_interval=2
PreemptType=preempt/partition_prio
PreemptMode=REQUEUE
SelectType=select/cons_tres
SelectTypeParameters=CR_Core_Memory
DefMemPerCPU=100
GresTypes=gpu
AccountingStorageType=accounting_storage/none
JobCompType=jobcomp/none
MinJobAge=300
InactiveLimit=0
KillWait=5
SlurmctldTimeout=60
SlurmdTimeout=60
NodeName={host} NodeAddr=127.0.0.1 CPUs=32 RealMemory={memory} Gres=gpu:2 State=UNKNOWN
PartitionName=main Nodes={host} Default=YES MaxTime=INFINITE State=UP PriorityTier=1
PartitionName=urgent Nodes={host} Default=NO MaxTime=INFINITE State=UP PriorityTier=10 PreemptMode=OFF
"""
"""More cores than the machine has: the jobs are small."""


def missing() -> str:
    """Why there can be no cluster here; empty if there can."""
    if os.geteuid() != 0:
        return "starting a Slurm needs root"
    absent = [name for name in ("slurmctld", "slurmd", "munged", "sbatch") if shutil.which(name) is None]
    if absent:
        return f"not installed: {', '.join(absent)} (make test-slurm installs them)"
    conf = ETC / "slurm.conf"
    ours = not conf.exists() or conf.read_text().startswith(CONF.splitlines()[0])
    return "" if ours else f"{conf} belongs to another Slurm"


def wait(what: str, condition: Callable[[], object], seconds: float = 90) -> None:
    """Ask again until `condition` holds. Raises TimeoutError."""
    end = time.monotonic() + seconds
    while not condition():
        if time.monotonic() > end:
            raise TimeoutError(f"{what} did not come in {seconds:g} s")
        time.sleep(0.2)


def _free_ports(count: int) -> list[int]:
    sockets = [socket.socket() for _ in range(count)]
    for s in sockets:
        s.bind(("127.0.0.1", 0))
    ports = [s.getsockname()[1] for s in sockets]
    for s in sockets:
        s.close()
    return ports


class Cluster:
    def __init__(self) -> None:
        self.folder = Path(tempfile.mkdtemp(prefix="difftime-slurm-"))
        # Slurm's daemons take no folder whose parents others cannot enter
        self.folder.chmod(0o755)

    def up(self) -> None:
        """Start everything. Raises TimeoutError if it does not come up."""
        for name in ("ctld", "d"):
            (self.folder / name).mkdir()
        for name in ("gpu0", "gpu1"):  # copies of /dev/null
            os.mknod(self.folder / name, 0o666 | stat.S_IFCHR, os.makedev(1, 3))
        host = socket.gethostname().split(".")[0]
        memory = re.search(r"RealMemory=(\d+)", subprocess.check_output(["slurmd", "-C"], text=True))
        assert memory is not None
        conf = CONF.format(host=host, ports=_free_ports(2), folder=self.folder, memory=memory[1])
        ETC.mkdir(exist_ok=True)
        (ETC / "slurm.conf").write_text(conf)
        (ETC / "gres.conf").write_text(f"AutoDetect=off\nNodeName={host} Name=gpu File={self.folder}/gpu[0-1]\n")
        key = self.folder / "munge.key"
        key.write_bytes(os.urandom(128))
        key.chmod(0o400)
        files = {"socket": "socket", "key-file": "key", "pid-file": "pid", "log-file": "log", "seed-file": "seed"}
        options = [f"--{option}={self.folder}/munge.{suffix}" for option, suffix in files.items()]
        subprocess.run(["munged", "--force", *options], check=True, capture_output=True)
        self.start("slurmctld")
        self.start("slurmd")

    def call(self, *command: str, seconds: float = 10) -> str:
        """What a command of Slurm prints; nothing if it fails or hangs, as they do while the controller is down."""
        try:
            run = subprocess.run(command, capture_output=True, text=True, timeout=seconds, check=True)
        except (subprocess.CalledProcessError, subprocess.TimeoutExpired):
            return ""
        return run.stdout

    def _pid(self, daemon: str) -> int | None:
        try:
            pid = int((self.folder / f"{daemon}.pid").read_text())
            os.kill(pid, 0)
        except (OSError, ValueError):
            return None
        return pid

    def start(self, daemon: str) -> None:
        """Start slurmctld or slurmd, and wait until it answers."""
        subprocess.run([daemon], check=True, capture_output=True)
        if daemon == "slurmctld":
            wait("slurmctld", lambda: "is UP" in self.call("scontrol", "ping"))
        else:
            wait("the node", lambda: set(self.call("sinfo", "-h", "-o", "%t").split()) & {"idle", "mix", "alloc"})

    def stop(self, daemon: str) -> None:
        """End slurmctld, slurmd or munge; jobs go on."""
        if (pid := self._pid(daemon)) is not None:
            os.kill(pid, signal.SIGTERM)
            wait(f"the end of {daemon}", lambda: self._pid(daemon) is None)

    def jobs(self) -> dict[str, dict[str, str]]:
        """What scontrol knows of every job that it remembers, by the job's number."""
        found = {}
        for block in self.call("scontrol", "show", "job", "--details").split("\n\n"):
            fields = dict(re.findall(r"(\S+?)=(\S*)", block))
            if "JobId" in fields:
                found[fields["JobId"]] = fields
        return found

    def down(self) -> None:
        """Cancel what runs and end everything."""
        self.call("scancel", "--user=root")
        wait("the end of all jobs", lambda: not self.call("squeue", "-h"), 30)
        for daemon in ("slurmd", "slurmctld", "munge"):
            self.stop(daemon)
        # with a slurm.conf and no controller, every Snakemake waits nine seconds for scontrol's answer
        for name in ("slurm.conf", "gres.conf"):
            (ETC / name).unlink(missing_ok=True)
        shutil.rmtree(self.folder)
