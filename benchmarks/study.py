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

from difftime.tables import markdown_rows

ROOT = Path(__file__).parent.parent


def main() -> str:
    """A Markdown table per rule, from Snakemake's own benchmark files, and the study's total."""
    with tempfile.TemporaryDirectory() as scratch:
        path = Path(scratch) / "fresh.yaml"
        path.write_text(yaml.safe_dump({"results": f"{scratch}/results"}))
        start = time.perf_counter()
        subprocess.run(
            ["snakemake", "--cores", "2", "--configfile", str(path)], cwd=ROOT, check=True, capture_output=True
        )
        seconds = time.perf_counter() - start
        rows, peak = [], 0.0
        for rule in ("train", "elbo", "likelihood", "samples"):
            jobs = [next(csv.DictReader(file.open(), delimiter="\t")) for file in Path(scratch).rglob(f"{rule}.tsv")]
            times, memory = (
                [float(job["s"]) for job in jobs],
                [float(job["max_rss"]) for job in jobs if job["max_rss"] != "NA"],
            )
            peak = max(peak, *memory)
            rows.append(
                [
                    rule,
                    str(len(jobs)),
                    f"{statistics.median(times):.1f}",
                    f"{max(times):.1f}",
                    f"{sum(times):.0f}",
                    f"{max(memory):.0f}",
                ]
            )
    # two jobs at a time, and Snakemake itself
    own = resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss / 1024
    rows.append(["whole study, 2 cores", "", "", "", f"**{seconds:.0f}**", f"below {2 * peak + own:.0f}"])
    return markdown_rows(["rule", "jobs", "median s", "longest s", "sum s", "peak memory (MB)"], rows)


if __name__ == "__main__":
    print(main())
