"""The default study from a clean results folder, on two cores: seconds, memory, and what each rule takes."""

from __future__ import annotations

import csv
import resource
import statistics
import subprocess
import tempfile
import time
from pathlib import Path

import yaml

from difftime.study.registry import MEASUREMENTS
from difftime.study.settings import read_study
from difftime.tables.render import markdown_rows

ROOT = Path(__file__).parent.parent
JOBS = {
    "toy": ("train", "elbo", "likelihood", "samples"),
    "mnist5k": ("train", "noise_full", "elbo", "likelihood", "samples"),
}


def _seconds(settings: Path, *targets: str) -> float:
    start = time.perf_counter()
    command = ["snakemake", "--cores", "2", "--configfile", str(settings), "--", *targets]
    subprocess.run(command, cwd=ROOT, check=True, capture_output=True)
    return time.perf_counter() - start


def _row(results: Path, dataset: str, rule: str) -> tuple[list[str], float]:
    """What Snakemake's benchmark files say of a rule's jobs, and their largest memory in MB."""
    files = (ROOT / results / "benchmarks" / f"dataset={dataset}").rglob(f"{rule}.tsv")
    jobs = [next(csv.DictReader(file.open(), delimiter="\t")) for file in files]
    times = [float(job["s"]) for job in jobs]
    # a job may be over before its memory was looked at
    memory = max([float(job["max_rss"]) for job in jobs if job["max_rss"] != "NA"], default=0.0)
    numbers = [f"{statistics.median(times):.1f}", f"{max(times):.1f}", f"{sum(times):.0f}", f"{memory:.0f}"]
    return [f"{rule}, {dataset}", str(len(jobs)), *numbers], memory


def main() -> str:
    """A Markdown table per rule and data set, and of the study's two halves: the toy's cells, and all that is left.

    The study is made in the folder results if there is none yet, and stays there; else in a folder of its own.
    """
    with tempfile.TemporaryDirectory() as scratch:
        own_folder = (ROOT / "results" / "cells").exists()
        results, settings = Path(scratch) / "results" if own_folder else Path("results"), Path(scratch) / "fresh.yaml"
        settings.write_text(yaml.safe_dump({"results": str(results)}))
        grid = read_study().cells()
        toy = [file for table in MEASUREMENTS for file in grid.files("toy", table)]
        halves = {
            "toy": _seconds(settings, *(f"{results}/cells/{file}" for file in toy)),
            "mnist5k": _seconds(settings, "all"),
        }
        rows, own = [], resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss / 1024
        for dataset, rules in JOBS.items():
            of_rules = [_row(results, dataset, rule) for rule in rules]
            # two jobs at a time, and Snakemake itself
            memory = f"below {2 * max(memory for _, memory in of_rules) + own:.0f}"
            rows += [row for row, _ in of_rules]
            rows.append([f"**all of {dataset}**, 2 cores", "", "", "", f"**{halves[dataset]:.0f}**", memory])
    return markdown_rows(["rule", "jobs", "median s", "longest s", "sum s", "peak memory (MB)"], rows)


if __name__ == "__main__":
    print(main())
