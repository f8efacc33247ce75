"""Every study that ships can be planned, on one machine and on a cluster, where small jobs are grouped."""

import subprocess
from pathlib import Path

import pytest

STUDIES = sorted(path.stem for path in (Path(__file__).parents[2] / "config").glob("*.yaml"))


@pytest.mark.parametrize("profile", [(), ("--profile", "profiles/slurm")], ids=["local", "slurm"])
@pytest.mark.parametrize("study", STUDIES)
def test_a_study_can_be_planned(study: str, profile: tuple[str, ...], fresh: Path) -> None:
    command = ["snakemake", "--dry-run", "--quiet", "rules", *profile, "--configfile", f"config/{study}.yaml"]
    run = subprocess.run(command, cwd=fresh, capture_output=True, text=True, check=False)
    assert run.returncode == 0, run.stdout + run.stderr
    assert "This was a dry-run" in run.stdout + run.stderr
