"""Every study that ships can be planned, on one machine and on a cluster, whose jobs are grouped."""

from __future__ import annotations

import shutil
import subprocess
from pathlib import Path

import pytest
from conftest import PARTS, ROOT


@pytest.fixture(scope="module")
def fresh(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A copy of the repository without results."""
    folder = tmp_path_factory.mktemp("fresh")
    for part in (*PARTS, "config"):
        source = ROOT / part
        if source.is_dir():
            shutil.copytree(source, folder / part, ignore=shutil.ignore_patterns("__pycache__"))
        else:
            shutil.copy(source, folder)
    return folder


@pytest.mark.parametrize("profile", [(), ("--profile", "profiles/slurm")], ids=["local", "slurm"])
@pytest.mark.parametrize("study", sorted(path.stem for path in (ROOT / "config").glob("*.yaml")))
def test_a_study_can_be_planned(study: str, profile: tuple[str, ...], fresh: Path) -> None:
    command = ["snakemake", "--dry-run", "--quiet", "rules", *profile, "--configfile", f"config/{study}.yaml"]
    run = subprocess.run(command, cwd=fresh, capture_output=True, text=True, check=False)
    assert run.returncode == 0, run.stdout + run.stderr
    assert "This was a dry-run" in run.stdout + run.stderr
