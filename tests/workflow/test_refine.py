"""Cells that a study adds by itself, on the real Snakefile: where they go, when they stop, what a change re-runs."""

import json
import os
import shutil
import subprocess
from pathlib import Path

import pyarrow.parquet as pq

LINE = "dataset=toy/sde=vp/net=mlp-16x1"


def times(clone, table: str) -> set[float]:
    return set(pq.ParquetFile(clone.results / "tables" / f"{table}.parquet").read().column("T").to_pylist())


def decisions(clone) -> list[dict]:
    folder = clone.results / "refine" / LINE
    return [json.loads((folder / f"round={k + 1}.json").read_text()) for k in range(len([*folder.iterdir()]))]


def contents(folder: Path) -> dict[Path, tuple[int, bytes]]:
    return {path: (path.stat().st_mtime_ns, path.read_bytes()) for path in sorted(folder.rglob("*")) if path.is_file()}


def shown(clone) -> subprocess.CompletedProcess[str]:
    environment = os.environ | {"PYTHONPATH": str(clone.path)}
    command = ["difftime", "show", str(clone.results)]
    return subprocess.run(command, env=environment, capture_output=True, text=True, check=False)


def test_added_cells_are_in_every_table_and_the_budget_is_kept(refined) -> None:
    decided = decisions(refined)
    added = [one["add"] for one in decided[:-1]]
    assert [one["stopped"] for one in decided] == [None, None, "budget"]
    assert decided[-1]["trained"] == sorted([0.2, 1.5, *added])
    for table in ("elbo", "running", "runs", "summary"):
        assert times(refined, table) == {0.2, 1.5, *added}
    (row,) = pq.ParquetFile(refined.results / "tables" / "refined.parquet").read().to_pylist()
    assert (row["cells"], row["rounds"], row["stopped"], row["hours_of"]) == (4, 3, "budget", "CPU")
    assert row["T_star"] == decided[-1]["T_star"]
    assert (row["grid_cells"], row["saved_hours"] > 0) == (66, True)
    assert {path.name for path in (refined.results / "cells" / LINE).iterdir()} == {
        f"T={T:g}" for T in (0.2, 1.5, *added)
    }  # fmt: skip


def test_a_finished_refinement_has_nothing_to_do(refined) -> None:
    assert refined.planned() == {}
    assert "WARNING: refined with 4 of 4 cells" in shown(refined).stdout
    assert "its 4 cells are spent" in shown(refined).stdout


def test_a_larger_budget_trains_only_the_new_cell(refined) -> None:
    cells = refined.results / "cells"
    before, decided = contents(cells), decisions(refined)
    study = refined.study
    study["study"][0]["refine"]["cells"] = 5
    refined.change(study=study["study"])
    refined.snakemake("--cores", "2")
    after, further = contents(cells), decisions(refined)
    assert {path: after[path] for path in before} == before
    assert {path.parent.name for path in after.keys() - before.keys()} == {f"T={further[2]['add']:g}"}
    assert [one["add"] for one in further[:2]] == [one["add"] for one in decided[:2]]
    assert times(refined, "elbo") == {*further[-1]["trained"]}
    assert len(further[-1]["trained"]) == 5
    assert refined.planned() == {}


def test_a_study_that_was_cut_comes_to_the_same_cells_and_bits(refined) -> None:
    line, tables = refined.results / "cells" / LINE, refined.results / "tables"
    added = [line / f"T={one['add']:g}" for one in decisions(refined)[:-1]]
    kept = [*(refined.results / "refine" / LINE).iterdir(), *(cell / "weights.safetensors" for cell in added)]
    before = {path: path.read_bytes() for path in kept}
    for round in (2, 3):
        (refined.results / "refine" / LINE / f"round={round}.json").unlink()
    for folder in (added[1], tables):
        shutil.rmtree(folder)
    assert shown(refined).returncode == 1
    assert "round=2.json does not exist: the refinement" in shown(refined).stderr
    refined.snakemake("--cores", "2")
    assert {path: path.read_bytes() for path in before} == before
    assert refined.planned() == {}


def test_editing_the_decision_re_runs_no_training_that_is_still_asked_for(refined) -> None:
    refined.edit("difftime/optimum/scouting.py", "FINE = 2001", "FINE = 2002")
    planned = refined.planned()
    assert planned["refine"] >= 1
    assert not planned.keys() & {"cell", "train", "running"}
