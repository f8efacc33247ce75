"""Copies of the repository in folders of their own, in which the real Snakefile makes tiny studies."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
from collections import Counter
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import yaml

ROOT = Path(__file__).parents[2]
PARTS = [
    "Snakefile", "workflow", "profiles", "difftime", "config", "config.yaml", "environment.yml",
    "environment.post-deploy.sh",
]  # fmt: skip
RESULTS = "study results"
"""With a space, as folders have them."""
STUDY: dict[str, Any] = {
    "results": RESULTS,
    "datasets": {
        "toy": {"samples": 256, "seeds": 2, "training": {"steps": 20, "batch": 32}},
        "other": {
            "weights": [1.0], "means": [0.0], "stds": [1.0], "samples": 256, "seeds": 2,
            "training": {"steps": 20, "batch": 32},
        },
        "pictures": {
            "kind": "npz", "path": "pictures.npz", "training": {"steps": 2, "batch": 4},
            "p_noise": ["standard", "full"],
            "measurements": {
                "likelihood": {"rtol": 0.1, "atol": 0.1}, "samples": {"images": 2, "steps_per_unit_time": 20},
            },
        },
    },
    "nets": {"tiny": {"kind": "ncsnpp", "width": 4, "multipliers": [1, 2], "blocks": 1}},
    "study": [
        {"dataset": "toy", "sde": "vp", "net": "mlp-16x1", "T": [0.3, 0.6]},
        {"dataset": "other", "sde": "vp", "net": "mlp-16x1", "T": [0.6], "measure": "elbo"},
        {"dataset": "pictures", "sde": "vp", "net": "tiny", "T": [0.4]},
    ],
    "elbo": {"time_steps": 20, "times": 5, "images": 2, "pairs": 1},
    "likelihood": {"points": 32, "grid_cells": 128, "grid_steps": 12, "images": 2, "batch": 2},
    "samples": {"points": 64, "steps_per_unit_time": 20, "evaluations": [4]},
    "optimum": {"resamples": 10},
}  # fmt: skip
LINE = {
    "datasets": {"toy": {"samples": 64, "seeds": 2, "training": {"steps": 3, "batch": 8}}},
    "study": [{"dataset": "toy", "sde": "vp", "net": "mlp-16x1", "T": 0.5, "measure": "elbo"}],
    "elbo": {"time_steps": 4, "times": 2},
    "optimum": {"resamples": 10},
}
"""The smallest study: one cell, one measurement."""


@dataclass(frozen=True)
class Clone:
    """A copy of the repository with results in it."""

    path: Path
    results: Path

    def run(
        self, *command: str | Path, check: bool = True, cwd: Path | None = None, **environment: str
    ) -> subprocess.CompletedProcess[str]:
        """A command in this clone, with this clone's code."""
        inherited = os.environ | {"PYTHONPATH": str(self.path), "OMP_NUM_THREADS": "1", "DIFFTIME_DEVICE": "cpu"}
        run = subprocess.run(
            [*map(str, command)], cwd=cwd or self.path, env=inherited | environment, capture_output=True,
            text=True, errors="replace", check=False,
        )  # fmt: skip
        assert run.returncode == 0 or not check, run.stdout + run.stderr
        return run

    def snakemake(self, *arguments: str | Path, **options: Any) -> subprocess.CompletedProcess[str]:
        return self.run("snakemake", "--configfile", "study.yaml", *arguments, **options)

    def plan(self) -> str:
        run = self.snakemake("--dry-run")
        return run.stdout + run.stderr

    def planned(self) -> Counter[str]:
        """How many jobs of each rule a run would start now."""
        output = self.plan()
        if "Nothing to be done" in output:
            return Counter()
        table = output[output.index("Job stats:") :]
        jobs = {rule: int(count) for rule, count in re.findall(r"^(\w+)\s+(\d+)$", table, re.MULTILINE)}
        return Counter(
            {rule: count for rule, count in jobs.items() if rule not in ("default", "tables", "figures", "total")}
        )

    def edit(self, name: str, old: str, new: str) -> None:
        """Replace text that must be there."""
        path = self.path / name
        content = path.read_text(encoding="utf-8")
        assert old in content
        path.write_text(content.replace(old, new, 1), encoding="utf-8")

    @property
    def study(self) -> dict[str, Any]:
        """The study's own settings, as its file has them."""
        return yaml.safe_load((self.path / "study.yaml").read_text())

    def change(self, **settings: object) -> None:
        """Set keys of the study, written with double underscores between levels."""
        study = self.study
        for key, value in settings.items():
            *levels, last = key.split("__")
            place = study
            for level in levels:
                place = place.setdefault(level, {})
            place[last] = value
        (self.path / "study.yaml").write_text(yaml.safe_dump(study))


def clone_of(folder: Path, study: dict[str, Any]) -> Clone:
    """The repository without results, in a new folder, with a study of its own."""
    folder.mkdir(parents=True)
    for part in PARTS:
        source, ignore = ROOT / part, shutil.ignore_patterns("__pycache__")
        shutil.copytree(source, folder / part, ignore=ignore) if source.is_dir() else shutil.copy(source, folder)
    (folder / "study.yaml").write_text(yaml.safe_dump(study))
    grey = np.random.default_rng(0).integers(256, size=(8, 8, 8), dtype=np.uint8)
    np.savez(folder / "pictures.npz", train=grey[:6], test=grey[6:])
    return Clone(folder, folder / study.get("results", "results"))


def finished_study(folder: Path, study: dict[str, Any]) -> Clone:
    """The same, with the study made."""
    made = clone_of(folder, study)
    made.snakemake("--cores", "2")
    return made


def copy_of(clone: Clone, folder: Path) -> Clone:
    """A copy with all times of change, as Snakemake left it."""
    shutil.copytree(clone.path, folder, symlinks=True)
    return Clone(folder, folder / clone.results.relative_to(clone.path))
