"""Every study that ships can be planned, on one machine and on a cluster, where small jobs are grouped.

And no table or figure waits for jobs of data that it does not show.
"""

import re
import subprocess
from pathlib import Path

import pytest
from clones import RESULTS, STUDY, clone_of

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


def jobs_of(plan: str) -> list[tuple[str, str]]:
    """The rule of every planned job, and the data set that it is of."""
    jobs = re.findall(r"^( *)(?:local)?rule (\w+):\n((?:\1    .*\n)+)", plan, re.MULTILINE)
    of = [re.search(r"wildcards: (?:dataset|place)=([^,/\n]+)", text) for _, _, text in jobs]
    return [(rule, found[1] if found else "") for (_, rule, _), found in zip(jobs, of, strict=True)]


def test_no_table_or_figure_waits_for_a_job_of_other_data(tmp_path: Path) -> None:
    """Fault 18: each figure needed all jobs of the study, images included.

    All targets of a data set are planned at once: where none of these jobs is of other data, none of one target is.
    """
    clone = clone_of(tmp_path / "clone", STUDY)
    made = f"{RESULTS}/(?:tables|figures)/[^,;\n]*"
    whole = clone.plan()
    targets = {*re.findall(rf"{made}\.(?:parquet|pdf)", whole)}
    seen: list[tuple[str, str]] = []
    for dataset in STUDY["datasets"]:
        own = sorted(path for path in targets if path.split("/")[2] == dataset)
        assert {path.split("/")[1] for path in own} == {"tables", "figures"}
        run = clone.run("snakemake", "--dry-run", "--forceall", *own, "--configfile", "study.yaml")
        jobs = jobs_of(run.stdout)
        assert {of for _, of in jobs} == {dataset}
        assert {"cell", "train", "elbo", "collect", "table", "figure"} <= {rule for rule, _ in jobs}
        seen += jobs
    # no job is shared, and together they are those of the whole study
    study = [job for job in jobs_of(whole) if job[1]]
    assert sorted(seen) == sorted(study)
