"""What Snakemake itself costs: dry runs of a thousand and of five thousand cells, and a run with nothing to do."""

from __future__ import annotations

import subprocess
import tempfile
import time
from pathlib import Path

import yaml

from difftime.tables.render import markdown_rows

ROOT = Path(__file__).parent.parent


def _run(*arguments: str) -> tuple[float, float]:
    """Wall-clock seconds and peak memory in MB of `snakemake` with these arguments."""
    start = time.perf_counter()
    run = subprocess.run(
        ["/usr/bin/env", "python3", "-c", _PEAK, "snakemake", *arguments],
        cwd=ROOT,
        check=True,
        capture_output=True,
        text=True,
    )
    return time.perf_counter() - start, float(run.stdout.splitlines()[-1])


_PEAK = """
import resource, subprocess, sys
subprocess.run(sys.argv[1:], check=True, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
print(resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss / 1024)
"""


def main() -> str:
    """A Markdown table of seconds and memory."""
    rows = []
    with tempfile.TemporaryDirectory() as scratch:
        for cells, options, label in ((1000, [], ""), (5000, ["--profile", "slurm"], " with the profile of Slurm")):
            times = [round(0.05 + 0.0005 * k, 4) for k in range(cells // 2)]
            grid = {"dataset": "toy", "sde": ["vp", "ve"], "net": "mlp-32x2", "T": times}
            path = Path(scratch) / "many.yaml"
            path.write_text(yaml.safe_dump({"results": f"{scratch}/results", "study": [grid]}))
            seconds, memory = _run("--dry-run", "--configfile", str(path), *options)
            name = f"`snakemake -n` on {cells:,} cells ({5 * cells:,} jobs){label}"
            rows.append([name, f"{seconds:.1f}", f"{memory:.0f}"])
    if (ROOT / "results" / "tables" / "toy" / "summary.parquet").exists():
        seconds, memory = _run("--cores", "2")
        rows.append(["`snakemake` on the finished default study", f"{seconds:.1f}", f"{memory:.0f}"])
    return markdown_rows(["", "seconds", "peak memory (MB)"], rows)


if __name__ == "__main__":
    print(main())
