"""A study in odd places: copied, started elsewhere, written by two, cut, typed by hand, in other locales."""

import json
import os
import re
import shutil
import signal
import subprocess
import time
from pathlib import Path

import pyarrow.parquet as pq
import pytest
import yaml
from clones import LINE, ROOT, STUDY, Clone, clone_of

from difftime.study.registry import MEASUREMENTS

TOY = "cells/dataset=toy/sde=vp/net=mlp-16x1"


def difftime(clone: Clone, *arguments: str | Path, **options) -> subprocess.CompletedProcess[str]:
    return clone.run("python", "-m", "difftime.cli", *arguments, **options)


def snapshot(folder: Path) -> dict[str, tuple[int, bytes]]:
    return {
        str(path.relative_to(folder)): (path.stat().st_mtime_ns, path.read_bytes())
        for path in folder.rglob("*") if path.is_file() and path.name != ".lock"
    }  # fmt: skip


# By hand


@pytest.mark.parametrize(
    "place", [f"{TOY}/T=0.6", "cells/dataset=pictures/sde=vp/net=tiny/T=0.4"], ids=["mixture", "images"]
)
@pytest.mark.parametrize("measurement", MEASUREMENTS)
def test_a_command_typed_by_hand_gives_the_bytes_of_the_pipeline(clone, place: str, measurement: str) -> None:
    tables = (*MEASUREMENTS[measurement].tables, *MEASUREMENTS[measurement].units)
    paths = [clone.results / place / f"{table}.parquet" for table in tables]
    before = [path.read_bytes() for path in paths]
    for path in paths:
        path.unlink()
    difftime(clone, measurement, clone.results / place)
    assert [path.read_bytes() for path in paths] == before


def test_a_job_whose_code_was_edited_since_it_was_planned_refuses(line) -> None:
    """The edit comes when the plan is made, by a job that runs first; the weights of the edited code are never made."""
    shutil.rmtree(line.results)
    edit = (
        "import pathlib; p = pathlib.Path('difftime/diffusion/sde.py'); p.write_text(p.read_text() + '\\nnew = 1\\n')"
    )
    script = line.path / "workflow" / "scripts" / "settings.py"
    script.write_text(script.read_text() + f"\n{edit}\n")
    weights = f"results/{TOY}/T=0.5/weights.safetensors"
    run = line.snakemake("--cores", "1", weights, check=False)
    assert run.returncode != 0
    log = (line.results / "logs" / TOY.removeprefix("cells/") / "T=0.5" / "train.log").read_text()
    assert re.search(
        r"^difftime: study\.commands\.train was planned with the code \w{12}, but .* run snakemake again", log
    )
    assert not (line.path / weights).exists()


def test_two_clones_and_one_environment_do_not_mix(line, tmp_path: Path) -> None:
    """Planned by one clone, run by the code of another one."""
    shutil.copytree(line.path / "difftime", tmp_path / "other" / "difftime")
    sde = tmp_path / "other" / "difftime" / "diffusion" / "sde.py"
    sde.write_text(sde.read_text() + "\nnew = 1\n")
    # the rules import the planning clone's package; the command `difftime` is the other's (-P: wherever it is started)
    command = tmp_path / "bin" / "difftime"
    command.parent.mkdir()
    command.write_text(f'#!/bin/sh\nPYTHONPATH={tmp_path / "other"} exec python -P -m difftime.cli "$@"\n')
    command.chmod(0o755)
    shutil.rmtree(line.results)
    run = line.snakemake("--cores", "1", check=False, PATH=f"{command.parent}{os.pathsep}{os.environ['PATH']}")
    assert run.returncode != 0
    log = next((line.results / "logs").rglob("train.log")).read_text()
    assert f"the installed code, in {tmp_path / 'other' / 'difftime'}" in log
    assert "pip install" in log


# Copies


def test_a_copy_of_a_finished_study_is_shown_at_once_and_done_after_a_touch(finished, tmp_path: Path) -> None:
    copy = Clone(tmp_path / "copy", tmp_path / "copy" / finished.results.name)
    skipped = shutil.ignore_patterns(".snakemake")
    shutil.copytree(finished.path, copy.path, copy_function=shutil.copyfile, ignore=skipped)
    assert difftime(copy, "show", copy.results).stdout == difftime(finished, "show", finished.results).stdout.replace(
        str(finished.results), str(copy.results)
    )
    before = {name: content for name, (_, content) in snapshot(copy.results).items()}
    copy.snakemake("--touch", "--forceall", "--cores", "1")
    assert copy.planned() == {}
    assert {name: content for name, (_, content) in snapshot(copy.results).items()} == before
    # without --forceall Snakemake would know no setting of what is there, and see no change of any
    copy.change(datasets__toy__training__steps=30)
    assert copy.planned()["train"] == 2


# Started elsewhere


def mine(folder: Path) -> None:
    (folder / "mine.yaml").write_text(yaml.safe_dump(LINE))


def same_elbo(one: Path, other: Path) -> bool:
    return (one / "tables/toy/elbo.parquet").read_bytes() == (other / "tables/toy/elbo.parquet").read_bytes()


def test_a_study_can_be_started_from_another_folder(line, tmp_path: Path) -> None:
    mine(tmp_path)
    line.run("snakemake", "-s", line.path / "Snakefile", "--configfile", "mine.yaml", "--cores", "1", cwd=tmp_path)
    assert same_elbo(tmp_path / "results", line.results)
    assert (tmp_path / "results" / "figures").is_dir()
    assert difftime(line, "show", "results", cwd=tmp_path).returncode == 0


def test_a_study_can_be_put_into_another_directory(line, tmp_path: Path) -> None:
    (tmp_path / "there").mkdir()
    mine(line.path)
    there = tmp_path / "there"
    line.run("snakemake", "--directory", there, "--configfile", "mine.yaml", "--cores", "1")
    assert same_elbo(there / "results", line.results)


def test_results_in_the_home_folder_are_found_there(tmp_path: Path) -> None:
    clone = clone_of(tmp_path / "clone", LINE | {"results": "~/my results"})
    home = tmp_path / "home"
    home.mkdir()
    clone.snakemake("--cores", "1", HOME=str(home))
    assert (home / "my results" / "tables" / "toy" / "elbo.parquet").exists()
    assert not (clone.path / "~").exists()
    assert difftime(clone, "show", home / "my results").returncode == 0


def test_what_was_found_is_said_data_set_by_data_set_below_its_name(finished) -> None:
    lines = difftime(finished, "show", finished.results).stdout.splitlines()
    explorer = f"Explorer: {finished.results / 'explore.html'}"
    assert [line for line in lines if not line.startswith("  ")] == [*STUDY["datasets"], explorer]
    places = [line for line in lines if line.startswith("  Tables: ")]
    assert len(places) == len(STUDY["datasets"])
    for dataset, line in zip(STUDY["datasets"], places, strict=True):
        assert line.split("   ")[0].endswith(f"tables/{dataset}")


# Two at once


def test_a_second_snakemake_says_that_another_writes_there_and_touches_nothing(line, tmp_path: Path) -> None:
    other = clone_of(tmp_path / "other", LINE | {"results": str(line.results)})
    holder = subprocess.Popen(
        ["python", "-c", "import sys, time\nfrom difftime.study.collecting import hold\n"
         "hold(sys.argv[1]); print('held', flush=True); time.sleep(600)", str(line.results)],
        env=os.environ | {"PYTHONPATH": str(ROOT)}, stdout=subprocess.PIPE, text=True,
    )  # fmt: skip
    try:
        assert holder.stdout.readline() == "held\n"
        (line.results / "tables" / "toy" / "elbo.parquet").unlink()
        before = snapshot(line.results)
        for clone in (line, other):
            run = clone.snakemake("--cores", "1", check=False)
            assert run.returncode != 0
            assert f"Another Snakemake is writing into {clone.study['results'] if clone is other else 'results'}" in (
                run.stdout + run.stderr
            )
            assert "Traceback" not in run.stdout + run.stderr
        assert snapshot(line.results) == before
    finally:
        holder.kill()
        holder.communicate()
    line.snakemake("--cores", "1")
    assert (line.results / "tables" / "toy" / "elbo.parquet").exists()


def test_two_clones_with_one_results_folder(tmp_path: Path) -> None:
    study = LINE | {"results": str(tmp_path / "results"), "datasets": {"toy": {"training": {"steps": 200_000}}}}
    one, other = (clone_of(tmp_path / name, study) for name in ("one", "other"))
    command = ["snakemake", "--configfile", "study.yaml", "--cores", "1", "--quiet", "all"]
    environment = os.environ | {"PYTHONPATH": str(one.path), "OMP_NUM_THREADS": "1"}
    first = subprocess.Popen(command, cwd=one.path, env=environment, stderr=subprocess.DEVNULL, start_new_session=True)
    try:
        log = tmp_path / "results/logs/dataset=toy/sde=vp/net=mlp-16x1/T=0.5/train.log"
        deadline = time.monotonic() + 120
        while not (log.exists() and log.stat().st_size):
            assert first.poll() is None
            assert time.monotonic() < deadline
            time.sleep(0.1)
        run = other.snakemake("--cores", "1", check=False)
        assert run.returncode != 0
        assert "Another Snakemake is writing into" in run.stdout + run.stderr
        assert "Training" in log.read_text()
        assert first.poll() is None
    finally:
        os.killpg(first.pid, signal.SIGKILL)  # Snakemake alone would wait for its job
        first.wait(60)


# One cell that fails


def test_one_diverged_cell_leaves_the_rest_of_the_study(tmp_path: Path) -> None:
    study = LINE | {
        "datasets": LINE["datasets"] | {
            "wild": {"weights": [1.0], "means": [1.0], "stds": [1e18], "samples": 64, "seeds": 2,
                     "training": {"steps": 50, "batch": 8, "learning_rate": 1e30}},
        },
        "study": [
            *LINE["study"], {"dataset": "wild", "sde": "vp", "net": "mlp-16x1", "T": 0.5, "measure": "elbo"},
        ],
    }  # fmt: skip
    clone = clone_of(tmp_path / "clone", study)
    run = clone.snakemake("--cores", "1", "--keep-going", check=False)
    assert run.returncode != 0
    wild = "dataset=wild/sde=vp/net=mlp-16x1/T=0.5"
    assert "diverged" in (clone.results / "logs" / wild / "train.log").read_text().lower()
    partial = clone.results / "partial"
    assert pq.ParquetFile(partial / "tables/toy/elbo.parquet").read()["dataset"].unique().to_pylist() == ["toy"]
    assert [*(partial / "figures").rglob("*.pdf")]
    missing = pq.ParquetFile(partial / "tables/wild/missing.parquet").read().to_pylist()
    assert {row["dataset"] for row in missing} == {"wild"}
    assert {row["file"] for row in missing} >= {"elbo.parquet", "training.parquet"}
    shown = difftime(clone, "show", clone.results, check=False)
    assert shown.returncode == 1
    assert f"cells/{wild}/elbo.parquet" in shown.stderr
    assert str(partial) in shown.stderr
    # the other data have all of theirs
    assert (clone.results / "tables" / "toy" / "summary.parquet").exists()
    assert not (clone.results / "tables" / "wild").exists()


# Locales


ASCII = {"LC_ALL": "C", "PYTHONUTF8": "0", "PYTHONCOERCECLOCALE": "0", "PYTHONIOENCODING": "ascii"}


def test_a_locale_that_is_not_utf8_changes_no_byte(line, tmp_path: Path) -> None:
    # in such a locale no file can have a name outside ASCII; what files hold is UTF-8 all the same
    clone = clone_of(tmp_path / "ascii", LINE)
    (clone.path / "study.yaml").write_text("# Größe\n" + yaml.safe_dump(LINE, allow_unicode=True), encoding="utf-8")
    results = clone.results
    clone.snakemake("--cores", "1", **ASCII)
    names = [
        path.relative_to(line.results) for path in (line.results / "tables/toy").iterdir() if "runs" not in path.name
    ]
    assert names
    for name in names:
        assert (results / name).read_bytes() == (line.results / name).read_bytes(), name
    for log in (results / "logs").rglob("*.log"):
        log.read_text(encoding="utf-8")
    shown = difftime(clone, "show", results, **ASCII)
    assert "Tables: " in shown.stdout
    assert "Explorer: " in shown.stdout


# Storage


@pytest.mark.slow
@pytest.mark.skipif(not shutil.which("rsync"), reason="the plugin copies files by rsync")
def test_a_study_runs_on_a_storage_plugin(line, tmp_path: Path) -> None:
    """As on clusters that share no file system: every input that a job reads must be declared."""
    pytest.importorskip("snakemake_storage_plugin_fs")
    clone = clone_of(tmp_path / "stored", LINE)
    storage = tmp_path / "storage"
    storage.mkdir()
    options = [
        "--default-storage-provider", "fs", "--default-storage-prefix", str(storage),
        "--shared-fs-usage", "persistence", "source-cache", "sources", "software-deployment",
    ]  # fmt: skip
    clone.snakemake("--cores", "1", *options)
    stored = storage / "results"
    assert same_elbo(stored, line.results)
    assert json.loads((stored / "study.json").read_text()) == json.loads((line.results / "study.json").read_text())
    again = clone.snakemake("--cores", "1", "--dry-run", *options)
    assert "Nothing to be done" in again.stdout + again.stderr
