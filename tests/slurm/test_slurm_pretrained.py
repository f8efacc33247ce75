"""A model that somebody else trained, with `snakemake --profile slurm`: its GPU, and the tables of two cores."""

import pytest
from running import Run
from test_models import needs_diffusers, save

from benchmarks.kills import STUDY, check_clean, check_same, check_whole, clone

pytestmark = [pytest.mark.slurm, needs_diffusers]
OF_MODEL = STUDY | {
    "datasets": {"pictures": STUDY["datasets"]["pictures"]},
    "nets": {"ddpm": {"kind": "pretrained", "path": "./ddpm", "gpu": 1}},
    "study": [{"dataset": "pictures", "net": "ddpm", "T": 0.4, "measure": ["elbo", "likelihood"]}],
}
TABLE = f"{OF_MODEL['results']}/tables/pictures/table1.parquet"


def test_a_pretrained_study(cluster, tmp_path) -> None:
    local, on_slurm = (Run(clone(tmp_path / name, OF_MODEL), cluster) for name in ("local", "slurm"))
    for run in (local, on_slurm):
        save(run.path / "ddpm", pipeline=True)
    known = set(cluster.jobs())
    try:
        processes = local.snakemake("--cores", "2", TABLE), on_slurm.submit(TABLE)
        for run, process in zip((local, on_slurm), processes, strict=True):
            assert process.wait(300) == 0, run.said()
    finally:
        for run in (local, on_slurm):
            run.end()
    check_whole(on_slurm.results)
    check_clean(on_slurm.results)
    check_same(on_slurm.results, local.results)
    jobs = [job for number, job in cluster.jobs().items() if number not in known]
    gpus = sorted((job["Comment"].split("_wildcards_")[0], job.get("TresPerJob", "")) for job in jobs)
    assert gpus == [("rule_elbo", "gres:gpu:1"), ("rule_fit_noise", ""), ("rule_likelihood", "gres:gpu:1")]
