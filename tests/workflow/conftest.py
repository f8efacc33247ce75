"""A finished tiny study in a folder of its own, made by the real Snakefile."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
from collections import Counter
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pytest
import yaml

ROOT = Path(__file__).parents[2]
PARTS = ["Snakefile", "workflow", "profiles", "difftime", "config", "config.yaml", "environment.yml"]
RESULTS = "study results"
"""With a space, as folders have them."""
STUDY = {
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
        },
    },
    "nets": {"tiny": {"kind": "ncsnpp", "width": 4, "multipliers": [1, 2], "blocks": 1}},
    "study": [
        {"dataset": "toy", "sde": "vp", "net": "mlp-16x1", "T": [0.3, 0.6]},
        {"dataset": "other", "sde": "vp", "net": "mlp-16x1", "T": [0.6], "measure": "elbo"},
        {"dataset": "pictures", "sde": "vp", "net": "tiny", "T": [0.4]},
    ],
    "bpd": {"images": 2, "batch": 2, "rtol": 0.1, "atol": 0.1},
    "image_elbo": {"images": 2, "pairs": 1},
    "image_samples": {"images": 2, "steps_per_unit_time": 20},
    "elbo": {"time_steps": 20},
    "likelihood": {"points": 32, "grid_cells": 128, "grid_steps": 12},
    "samples": {"points": 64, "steps_per_unit_time": 20},
    "optimum": {"resamples": 10},
    "figures": {"draw": ["fig1", "fig4", "table1"], "net": "mlp-16x1", "histogram_T": [0.3, 0.6]},
}  # fmt: skip

REFINED = {
    "results": RESULTS,
    "datasets": {"toy": {"samples": 256, "seeds": 2, "training": {"steps": 200, "batch": 64}}},
    "p_noise": "standard",
    "study": [
        {"dataset": "toy", "sde": "vp", "net": "mlp-16x1", "T": [0.2, 1.5], "measure": "elbo",
         "refine": {"tolerance": 0.02, "cells": 4}},
    ],
    "elbo": {"time_steps": 20}, "scout": {"times": 10, "time_steps": 20}, "optimum": {"resamples": 10},
    "figures": {"draw": ["scout"], "net": "mlp-16x1"},
}  # fmt: skip


@dataclass(frozen=True)
class Clone:
    """A copy of the repository with results in it."""

    path: Path

    @property
    def results(self) -> Path:
        return self.path / RESULTS

    def snakemake(self, *arguments: str, check: bool = True) -> subprocess.CompletedProcess[str]:
        environment = os.environ | {"PYTHONPATH": str(self.path), "OMP_NUM_THREADS": "1"}
        run = subprocess.run(
            ["snakemake", "--configfile", "study.yaml", *arguments],
            cwd=self.path, env=environment, capture_output=True, text=True, check=False,
        )  # fmt: skip
        assert run.returncode == 0 or not check, run.stdout + run.stderr
        return run

    def planned(self) -> Counter[str]:
        """How many jobs of each rule a run would start now."""
        run = self.snakemake("--dry-run")
        output = run.stdout + run.stderr
        if "Nothing to be done" in output:
            return Counter()
        table = output[output.index("Job stats:") :]
        jobs = {rule: int(count) for rule, count in re.findall(r"^(\w+)\s+(\d+)$", table, re.MULTILINE)}
        return Counter(
            {rule: count for rule, count in jobs.items() if rule not in ("all", "tables", "figures", "total")}
        )

    def edit(self, name: str, old: str, new: str) -> None:
        """Replace text that must be there."""
        path = self.path / name
        content = path.read_text()
        assert old in content
        path.write_text(content.replace(old, new, 1))

    @property
    def study(self) -> dict:
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


def copied(folder: Path) -> Path:
    """The repository without results, in a new folder."""
    folder.mkdir()
    for part in PARTS:
        source, ignore = ROOT / part, shutil.ignore_patterns("__pycache__")
        shutil.copytree(source, folder / part, ignore=ignore) if source.is_dir() else shutil.copy(source, folder)
    return folder


@pytest.fixture(scope="module")
def fresh(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A copy of the repository in which nothing was run."""
    return copied(tmp_path_factory.mktemp("fresh") / "clone")


def made(path: Path, study: dict) -> Clone:
    """A finished study in a new folder."""
    clone = Clone(copied(path))
    (clone.path / "study.yaml").write_text(yaml.safe_dump(study))
    grey = np.random.default_rng(0).integers(256, size=(8, 8, 8), dtype=np.uint8)
    np.savez(clone.path / "pictures.npz", train=grey[:6], test=grey[6:])
    clone.snakemake("--cores", "2")
    return clone


@pytest.fixture(scope="session")
def finished(tmp_path_factory: pytest.TempPathFactory) -> Clone:
    return made(tmp_path_factory.mktemp("study") / "clone", STUDY)


@pytest.fixture(scope="session")
def whole_refined(tmp_path_factory: pytest.TempPathFactory) -> Clone:
    return made(tmp_path_factory.mktemp("refined") / "clone", REFINED)


@pytest.fixture
def refined(whole_refined: Clone, tmp_path: Path) -> Clone:
    """A copy of a finished study that added cells to its line until its budget was spent; a test may change it."""
    shutil.copytree(whole_refined.path, tmp_path / "clone", symlinks=True)
    return Clone(tmp_path / "clone")


@pytest.fixture
def clone(finished: Clone, tmp_path: Path) -> Clone:
    """A copy of the finished study that a test may change."""
    shutil.copytree(finished.path, tmp_path / "clone", symlinks=True)
    return Clone(tmp_path / "clone")
