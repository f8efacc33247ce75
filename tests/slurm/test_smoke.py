"""The smoke study with `snakemake --profile slurm`: GPUs where they are asked for, and the tables of two cores."""

import pytest
from running import Run

from benchmarks.kills import check_clean, check_same, clone

pytestmark = pytest.mark.slurm


def test_the_smoke_study(cluster, tmp_path) -> None:
    study = {"datasets": {"mnist5k": {"gpu": 1}}}
    runs = [Run(clone(tmp_path / name, study), cluster) for name in ("local", "slurm")]
    known = set(cluster.jobs())
    files = ("--configfile", "config/smoke.yaml", "study.yaml")
    try:
        local = runs[0].snakemake("--cores", "2", *files)
        assert local.wait(1200) == 0, runs[0].said()
        on_slurm = runs[1].submit(*files)
        assert on_slurm.wait(1200) == 0, runs[1].said()
    finally:
        for run in runs:
            run.end()
    results = [run.path / "results/smoke" for run in runs]
    check_clean(results[1])
    check_same(results[1], results[0])
    jobs = [job for number, job in cluster.jobs().items() if number not in known]
    gpus = {job["Comment"]: job.get("TresPerJob", "") for job in jobs}
    images = {name for name in gpus if "mnist5k" in name}
    fits = {name for name in images if "fit_noise" in name}
    assert {name.split("_wildcards_")[0] for name in images - fits} == {
        "rule_train", "rule_elbo", "rule_likelihood", "rule_samples",
    }  # fmt: skip
    assert fits
    assert all(gpus[name] == "gres:gpu:1" for name in images - fits)
    assert all(gpus[name] == "" for name in (gpus.keys() - images) | fits)
    assert any("elbo_likelihood" in name and "_train" in name for name in gpus.keys() - images), "no group of cells"
