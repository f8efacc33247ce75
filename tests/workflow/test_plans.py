"""Every study that ships can be planned, on one machine and on a cluster, where small jobs are grouped."""

import re
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


def test_a_network_s_own_resources_go_before_those_of_its_data(fresh: Path) -> None:
    (fresh / "two.yaml").write_text(
        "datasets: {mnist5k: {memory: 5000, minutes: 40}}\n"
        "nets: {large: {kind: ncsnpp, width: 64, multipliers: [1, 2], memory: 9000, minutes: 90}}\n"
        "study: [{dataset: mnist5k, sde: vp, net: [unet-16, large], T: 0.4, measure: elbo}]\n"
    )
    command = ["snakemake", "--dry-run", "--configfile", "two.yaml"]
    run = subprocess.run(command, cwd=fresh, capture_output=True, text=True, check=True)
    jobs = re.findall(r"^rule (train|elbo):.*?/net=([^/]+)/.*?resources: (.*?)$", run.stdout + run.stderr, re.M | re.S)
    asked = {(rule, net): re.findall(r"\b(?:mem_mb|runtime)=(\d+)", resources) for rule, net, resources in jobs}
    assert {key: {*values} for key, values in asked.items()} == {
        (rule, net): {memory, minutes}
        for rule in ("train", "elbo")
        for net, memory, minutes in (("unet-16", "5000", "40"), ("large", "9000", "90"))
    }
