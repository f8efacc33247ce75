"""A study killed again and again: `python -m benchmarks.kills` runs a small one with SIGKILL at random moments.

The whole process group dies each time. After every kill no file may be half written under its final name; after every
finished run the tables must equal those of a run that nobody disturbed, bit for bit, and no temporary file may be left.
"""

from __future__ import annotations

import argparse
import json
import os
import random
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import numpy as np
import pandas as pd
import pyarrow.parquet as pq
import yaml
from safetensors import safe_open

ROOT = Path(__file__).parent.parent
RUN = ("dataset", "sde", "net", "T", "command", "settings")
"""What the table `runs` says of a run that does not differ from run to run. The other tables have nothing that does."""
STUDY = {
    "results": "results/small",
    "checkpoint_minutes": 0.001,
    "datasets": {
        "toy": {"samples": 256, "seeds": 2, "training": {"steps": 400, "batch": 64}},
        "pictures": {
            "kind": "npz", "path": "pictures.npz", "training": {"steps": 60, "batch": 4},
            "p_noise": ["standard", "full"],
            "measurements": {"likelihood": {"rtol": 0.1, "atol": 0.1}},
        },
    },
    "nets": {"tiny": {"kind": "ncsnpp", "width": 4, "multipliers": [1, 2], "blocks": 1}},
    "study": [
        {"dataset": "toy", "sde": "vp", "net": "mlp-16x1", "T": [0.3, 0.6, 0.9]},
        {"dataset": "pictures", "sde": "vp", "net": "tiny", "T": 0.4},
    ],
    "elbo": {"time_steps": 20, "times": 5, "images": 2, "pairs": 1},
    "likelihood": {"points": 32, "grid_cells": 128, "grid_steps": 12, "images": 2, "batch": 1},
    "samples": {"points": 64, "images": 2, "steps_per_unit_time": 20, "evaluations": [4]},
    "optimum": {"resamples": 10},
}  # fmt: skip
"""Every rule, on both kinds of data, two seeds and states saved after every block."""


def clone(folder: Path, study: dict) -> Path:
    """A copy of the repository at `folder`, with `study` as study.yaml and images beside it."""
    folder.mkdir(parents=True)
    for part in ("Snakefile", "config.yaml", "environment.yml", "config", "difftime", "profiles", "workflow"):
        source = ROOT / part
        if source.is_dir():
            shutil.copytree(source, folder / part, ignore=shutil.ignore_patterns("__pycache__"))
        else:
            shutil.copy(source, folder)
    (folder / "slurm").symlink_to("profiles/slurm")
    (folder / "study.yaml").write_text(yaml.safe_dump(study))
    grey = np.random.default_rng(0).integers(256, size=(12, 8, 8), dtype=np.uint8)
    np.savez(folder / "pictures.npz", train=grey[:8], test=grey[8:])
    return folder


def environment(folder: Path) -> dict[str, str]:
    path = f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"
    return os.environ | {"PATH": path, "PYTHONPATH": str(folder), "OMP_NUM_THREADS": "1"}


def tables(results: Path) -> dict[str, pd.DataFrame]:
    """Every table of every data set; of `runs`, which says when, where and how long, only what was run."""
    found = {}
    for path in sorted((results / "tables").rglob("*.parquet")):
        frame = pq.ParquetFile(path).read().to_pandas()
        found[str(path.relative_to(results))] = frame[list(RUN)] if path.stem == "runs" else frame
    return found


def check_same(results: Path, expected: Path) -> None:
    """Raise AssertionError unless two studies' tables and weights are the same, to the bit."""
    found, wanted = tables(results), tables(expected)
    assert wanted
    assert found.keys() == wanted.keys()
    for name, frame in wanted.items():
        pd.testing.assert_frame_equal(found[name], frame, check_exact=True, obj=name)
    for path in expected.rglob("*.safetensors"):
        assert (results / path.relative_to(expected)).read_bytes() == path.read_bytes(), path


def check_whole(results: Path) -> None:
    """Read every file that has its final name; whatever is half written raises."""
    for path in results.rglob("*"):
        if path.name.startswith(".") or "benchmarks" in path.parts:
            continue
        if path.suffix == ".parquet":
            pq.ParquetFile(path).read()
        elif path.suffix == ".safetensors":
            with safe_open(path, framework="np") as file:
                assert list(file.keys())
        elif path.suffix == ".json":
            json.loads(path.read_text())
        elif path.suffix in (".pdf", ".png", ".md", ".html", ".tex"):
            assert path.stat().st_size, path


def check_clean(results: Path) -> None:
    """Raise AssertionError if temporary files or resume states are left."""
    left = [p for p in results.rglob("*") if ".partial" in p.name or p.name.endswith("resume.pt")]
    assert not left, left


def main(kills: int, seed: int) -> str:
    """Kill a study `kills` times; say how often, and how many runs were finished in between."""
    rng, done, finished, started = random.Random(seed), 0, 0, time.monotonic()
    with tempfile.TemporaryDirectory() as scratch:
        folder = clone(Path(scratch) / "clone", STUDY)
        command = ["snakemake", "--cores", "2", "--configfile", "study.yaml", "--quiet", "all"]
        options = {"cwd": folder, "env": environment(folder), "stdout": subprocess.DEVNULL, "stderr": subprocess.PIPE}
        results, expected = folder / STUDY["results"], Path(scratch) / "expected"
        before = time.monotonic()
        subprocess.run(command, check=True, **options)
        undisturbed = time.monotonic() - before
        print(f"{undisturbed:.0f} s undisturbed", file=sys.stderr)
        shutil.copytree(results, expected)
        shutil.rmtree(results)
        while done < kills or results.exists():
            # what was done before a kill stays done, so short waits reach every part of the study too
            wait = rng.uniform(0.05, 0.4) * undisturbed if done < kills else None
            process = subprocess.Popen(command, start_new_session=True, **options)
            try:
                _, errors = process.communicate(timeout=wait)
            except subprocess.TimeoutExpired:
                os.killpg(process.pid, signal.SIGKILL)
                process.communicate()
                done += 1
                print(f"{done} of {kills} kills, this after {wait:.0f} s, {finished} finished runs", file=sys.stderr)
                check_whole(results)
                # a lock outlives a Snakemake that was killed
                subprocess.run([*command, "--unlock"], check=True, **options)
                continue
            assert process.returncode == 0, errors.decode()
            check_whole(results)
            check_clean(results)
            check_same(results, expected)
            finished += 1
            shutil.rmtree(results)
    return f"{done} kills, {finished} finished runs with identical tables, {time.monotonic() - started:.0f} s"


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--kills", type=int, default=50)
    parser.add_argument("--seed", type=int, default=0)
    print(main(**vars(parser.parse_args())))
