"""The workflow as a module of another one, and where Snakemake's workflow catalog looks for it."""

import re
import shutil
import subprocess
from pathlib import Path

import pytest
import yaml
from clones import LINE, Clone, clone_of

OUTER = """
configfile: "outer.yaml"

rule all:
    input:
        "words.txt",

module difftime:
    snakefile: {snakefile}
    config: config["difftime"]

use rule * from difftime as difftime_*

rule table:
    input:
        rules.difftime_all.input,
        words="results/tables/toy/elbo.md",
    output:
        "words.txt",
    shell:
        "wc -w {{input.words}} > {{output}}"

assert config == {config}
"""
"""A workflow with a rule whose name is that of one of ours, and with settings of its own."""


@pytest.fixture
def outer(fresh: Path, tmp_path: Path) -> Clone:
    """A folder without the repository, in which the repository's code is what is installed."""
    return Clone(fresh, tmp_path)


def use(outer: Clone, snakefile: str, study: object = LINE) -> None:
    settings = {"title": "no setting of a study", "difftime": study}
    (outer.results / "outer.yaml").write_text(yaml.safe_dump(settings))
    (outer.results / "Snakefile").write_text(OUTER.format(snakefile=snakefile, config=settings))


def snakemake(outer: Clone, *arguments: str, **options) -> str:
    run = outer.run("snakemake", *arguments, cwd=outer.results, **options)
    return run.stdout + run.stderr


def jobs(output: str) -> dict[str, int]:
    counts = re.findall(r"^(\w+) +(\d+)$", output[output.index("Job stats:") :], re.MULTILINE)
    return {rule: int(count) for rule, count in counts}


def plan(clone: Path, snakefile: Path) -> dict[str, int]:
    command = ["snakemake", "--dry-run", "--snakefile", str(snakefile), "--configfile", "study.yaml"]
    run = subprocess.run(command, cwd=clone, capture_output=True, text=True, check=True)
    return jobs(run.stdout + run.stderr)


def test_the_catalog_s_snakefile_plans_the_same_study(fresh: Path) -> None:
    there, root = plan(fresh, Path("workflow/Snakefile")), plan(fresh, Path("Snakefile"))
    assert there.pop("all") == root.pop("default") == 1
    assert there["train"] == 1
    assert {**there, "total": 0} == {**root, "total": 0}


def test_another_workflow_makes_a_study_from_its_own_config(outer, finished_line) -> None:
    use(outer, repr(str(outer.path / "workflow" / "Snakefile")))
    snakemake(outer, "--cores", "1")
    made = outer.results / "results" / "tables" / "toy" / "elbo.parquet"
    assert made.read_bytes() == (finished_line.results / "tables" / "toy" / "elbo.parquet").read_bytes()
    assert (outer.results / "words.txt").exists()
    assert "Nothing to be done" in snakemake(outer, "--cores", "1", "--dry-run")


def test_two_studies_in_one_workflow(outer) -> None:
    snakefile = ""
    for name, times in (("one", [0.5]), ("two", [0.4, 0.6])):
        study = LINE | {"results": name, "study": [LINE["study"][0] | {"T": times}]}
        snakefile += f"""
module {name}:
    snakefile: {str(outer.path / "Snakefile")!r}
    config: {study}
use rule * from {name} as {name}_*
"""
    (outer.results / "Snakefile").write_text(
        f"{snakefile}\nrule both:\n    input: rules.one_all.input, rules.two_all.input"
    )
    planned = jobs(snakemake(outer, "--dry-run", "both"))
    assert (planned["one_train"], planned["two_train"]) == (1, 2)


def test_a_fault_in_the_module_s_config_is_named(outer) -> None:
    use(outer, repr(str(outer.path / "Snakefile")), LINE | {"datasets": {"toy": {"seeds": -1}}})
    output = snakemake(outer, "--dry-run", check=False)
    assert "the module's config: datasets.toy.seeds" in output
    assert "Traceback" not in output


@pytest.mark.skipif(not shutil.which("git"), reason="Snakemake clones a module by git")
def test_a_module_that_is_on_github(outer, tmp_path: Path) -> None:
    """Git is told that the address is a folder here."""
    published = clone_of(tmp_path / "published", LINE)
    git = ["git", "-C", str(published.path), "-c", "user.name=a", "-c", "user.email=a@b"]
    for command in (["init", "--quiet"], ["add", "."], ["commit", "--quiet", "-m", "a"], ["tag", "v1"]):
        subprocess.run([*git, *command], check=True)
    use(outer, 'github("someone/difftime", path="workflow/Snakefile", tag="v1")')
    where = {
        "GIT_CONFIG_COUNT": "1", "XDG_CACHE_HOME": str(tmp_path / "cache"),
        "GIT_CONFIG_KEY_0": f"url.file://{published.path}.insteadOf",
        "GIT_CONFIG_VALUE_0": "https://github.com/someone/difftime",
    }  # fmt: skip
    assert jobs(snakemake(outer, "--dry-run", **where))["difftime_train"] == 1
    cell = "results/cells/dataset=toy/sde=vp/net=mlp-16x1/T=0.5/cell.json"
    snakemake(outer, "--cores", "1", cell, **where)  # a script, from Git
    assert (outer.results / cell).exists()
