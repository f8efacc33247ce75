"""A small study in a folder of its own, submitted to the tests' cluster."""

import copy
import subprocess
from dataclasses import dataclass, field
from pathlib import Path

from cluster import Cluster, wait

from benchmarks.kills import STUDY, check_clean, check_same, check_whole, environment

SMALL = copy.deepcopy(STUDY)
SMALL["datasets"]["pictures"] |= {"gpu": 1, "memory": 1000, "training": {"steps": 500, "batch": 4}}
SMALL["study"] = [{"dataset": "pictures", "sde": "vp", "net": "tiny", "T": 0.4, "measure": "likelihood"}]
CELL = "cells/dataset=pictures/sde=vp/net=tiny/T=0.4"
SLURM = ("--profile", "slurm", "--slurm-init-seconds-before-status-checks", "3", "--latency-wait", "10")


@dataclass
class Run:
    """A study in a folder of its own, and the Snakemake processes started there."""

    path: Path
    cluster: Cluster
    processes: list[subprocess.Popen] = field(default_factory=list)

    @property
    def results(self) -> Path:
        return self.path / SMALL["results"]

    @property
    def resume(self) -> Path:
        return self.results / CELL / "resume.pt"

    def snakemake(self, *arguments: str) -> subprocess.Popen:
        with (self.path / f"snakemake{len(self.processes)}.log").open("w") as log:
            process = subprocess.Popen(
                ["snakemake", "--configfile", "study.yaml", *arguments], cwd=self.path, stdout=log, stderr=log,
                env=environment(self.path) | {"DIFFTIME_DEVICE": "cpu"}, start_new_session=True,
            )  # fmt: skip
        self.processes.append(process)
        return process

    def said(self) -> str:
        return "\n".join(p.read_text() for p in sorted(self.path.glob("snakemake*.log")))

    def submit(self, *arguments: str) -> subprocess.Popen:
        return self.snakemake(*SLURM, *arguments)

    def train_job(self) -> str:
        """The number of the training job, once it has saved a state."""
        wait("a saved state of the training", self.resume.exists)
        running = self.cluster.call("squeue", "-h", "-t", "RUNNING", "-o", "%A %k").splitlines()
        (job,) = [line.split()[0] for line in running if "train" in line]
        return job

    def finish(self, process: subprocess.Popen, expected: Path, seconds: float = 150) -> None:
        """Wait for the end; the tables must be those of the study that nobody disturbed."""
        assert process.wait(seconds) == 0, self.said()
        check_whole(self.results)
        check_clean(self.results)
        check_same(self.results, expected)

    def end(self) -> None:
        for process in self.processes:
            if process.poll() is None:
                process.kill()
                process.wait()
        self.cluster.call("scancel", "--user=root")
        wait("the end of all jobs", lambda: not self.cluster.call("squeue", "-h"))
