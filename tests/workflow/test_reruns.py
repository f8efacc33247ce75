"""What an edit re-runs, on the real Snakefile: everything that depends on it, and nothing else."""

import os
import re
from pathlib import Path

import numpy as np
import pytest

from difftime.study.plan import Plan
from difftime.study.registry import DERIVED
from difftime.study.settings import COLLECTED, read_study

Files = dict[Path, tuple[int, bytes]]
MEASURES = ("elbo", "likelihood", "samples")
CELLS = {"fetch", "cell", "train", "fit_noise", *MEASURES}
"""The rules that work on single cells and data sets."""
TABLES = {"elbo", "curve", "training", "runs", "optimum", "prediction", "summary", "cheapest", "tradeoff"}
MEASURED = TABLES | {"likelihood", "samples"}
LEAST = {
    "figures/toy/mlp-16x1": {"fig1", "fig2", "fig4", "quality", "cost", "noises", "prediction", "tradeoff"},
    "figures/other/mlp-16x1": {"fig2", "noises"}, "figures/pictures/tiny": {"noises", "images", "tradeoff"},
    "figures/pictures": {"table1", "learning"},
    "tables/other": TABLES, "tables/toy": MEASURED | {"modes", "histogram", "bounds"},
    "tables/pictures": MEASURED | {"images", "history", "table1"},
}  # fmt: skip
"""What the finished study has in any case; all that it has stands in the registry."""


def plan_of(clone) -> Plan:
    """What the clone's study plans, by the registry."""
    return Plan(read_study([clone.path / "study.yaml"], base=clone.path / "config.yaml"))


def contents(folder: Path) -> Files:
    return {path: (path.stat().st_mtime_ns, path.read_bytes()) for path in sorted(folder.rglob("*")) if path.is_file()}


def of_cells(planned: dict[str, int]) -> dict[str, int]:
    """The planned jobs that work on single cells and data sets."""
    return {rule: count for rule, count in planned.items() if rule in CELLS}


def changes(plan: str) -> dict[str, list[tuple[str, str, str]]]:
    """Every setting that a plan names as changed: by the rule, the job's output, and its text before and now."""
    found: dict[str, list[tuple[str, str, str]]] = {}
    jobs = re.findall(r"rule (\w+):\n(?:.*\n)*?\s+output: ([^,\n]*)(?:.*\n)*?\s+reason: (.*)\n", plan)
    for rule, output, reason in jobs:
        if "before:" in reason:
            before, now = re.search(r"before: (.*) now: (.*)$", reason).groups()
            found.setdefault(rule, []).append((output, before.strip(), now.strip()))
    return found


def test_a_finished_study_has_all_its_tables_and_figures_and_nothing_to_do(finished) -> None:
    assert finished.planned() == {}
    planned = plan_of(finished)
    for files, kind in ((planned.tables(), "tables/*/*.parquet"), (planned.figures(), "figures/**/*.pdf")):
        assert {str(path.relative_to(finished.path)) for path in finished.results.glob(kind)} == {*files}
    assert {path.stem for path in finished.results.glob("*.html")} == {"explore", "findings"}
    for place, least in LEAST.items():
        assert {path.stem for path in (finished.results / place).iterdir()} >= least


def test_touching_files_re_runs_nothing(clone) -> None:
    for path in clone.path.rglob("*"):
        if path.is_file() and ".snakemake" not in path.parts:
            os.utime(path)
    assert clone.planned() == {}


# What a plan says


def test_a_changed_setting_is_named_with_its_old_and_new_value_one_line_per_cell_and_nothing_else(clone) -> None:
    clone.change(datasets__toy__training__steps=30)
    plan = clone.plan()
    named = changes(plan)
    assert named.keys() == {"cell", "study"}
    places = [f"dataset=toy/sde=vp/net=mlp-16x1/T={T}/cell.json" for T in ("0.3", "0.6")]
    for (output, before, now), place in zip(sorted(named["cell"]), places, strict=True):
        assert output.endswith(place)
        assert (before, now) == ("'training.steps = 20'", "'training.steps = 30'")
    assert [(before, now) for _, before, now in named["study"]] == [
        ("'datasets.toy.training.steps = 20'", "'datasets.toy.training.steps = 30'")
    ]
    assert plan.count("training.steps") == 2 * 3
    assert len(plan) < 40_000


def test_a_changed_measurement_is_named_once_for_its_data_set(clone) -> None:
    clone.change(likelihood__rtol=1e-4)
    named = changes(clone.plan())
    assert named.keys() == {"settings", "study"}
    ((output, before, now),) = named["settings"]
    assert output.endswith("settings/toy/likelihood.json")
    assert (before, now) == ("'rtol = 1e-05'", "'rtol = 0.0001'")


# Settings of cells


def test_adding_a_T_trains_only_the_new_cell(clone) -> None:
    cells = clone.results / "cells"
    before = contents(cells)
    first, *others = clone.study["study"]
    clone.change(study=[first | {"T": [0.3, 0.6, 0.9]}, *others])
    assert of_cells(clone.planned()) == {"cell": 1, "train": 1, "elbo": 1, "likelihood": 1, "samples": 1}
    clone.snakemake("--cores", "2")
    after = contents(cells)
    assert {path: after[path] for path in before} == before
    assert {path.parent.name for path in after.keys() - before.keys()} == {"T=0.9"}
    assert clone.planned() == {}


def test_another_data_set_in_the_study_changes_no_cell_table_or_figure_that_is_there(clone) -> None:
    """Its settings have names that no other data set has: an SDE and covariances."""
    more = {"dataset": "square", "sde": "slow", "net": "mlp-16x1", "T": 0.7, "measure": "elbo"}
    square = {"weights": [1.0], "means": [[0.0, 0.0]], "covariances": [[[1.0, 0.5], [0.5, 1.0]]], "samples": 64}
    clone.change(
        datasets__square=square, sdes__slow={"kind": "ve-geometric"}, study=[*clone.study["study"], more]
    )  # fmt: skip
    cells = plan_of(clone).cells
    tables, figures = {*cells.tables("square")}, {name for name, dataset, _ in cells.figures() if dataset == "square"}
    assert tables >= TABLES
    assert figures >= {"fig2", "noises"}
    assert clone.planned() == {
        "study": 1, "cell": 1, "settings": 1, "train": 1, "elbo": 1, "collect": len(tables & {*COLLECTED}),
        "table": len(tables & {*DERIVED}), "figure": len(figures), "pages": 1,
    }  # fmt: skip


def test_changing_the_training_re_runs_that_data_sets_cells(clone) -> None:
    clone.change(datasets__toy__training__steps=30)
    assert of_cells(clone.planned()) == {"cell": 2, "train": 2, "elbo": 2, "likelihood": 2, "samples": 2}


def test_changing_the_training_of_images_leaves_the_toy_alone(clone) -> None:
    clone.change(datasets__pictures__training__steps=3)
    assert of_cells(clone.planned()) == {
        "cell": 1,
        "train": 1,
        "elbo": 1,
        "likelihood": 1,
        "samples": 1,
        "fit_noise": 1,
    }


def test_another_p_noise_trains_nothing_and_measures_its_data_set_only(clone) -> None:
    clone.change(datasets__pictures__p_noise=["standard", "full", "mixture"], noise__mixture__components=1)
    assert of_cells(clone.planned()) == {"fit_noise": 1, "elbo": 1, "likelihood": 1, "samples": 1}


def test_how_one_p_noise_is_fitted_concerns_no_other(clone) -> None:
    clone.change(noise__flow__steps=7)
    assert clone.planned() == {"study": 1}


def test_another_spelling_of_the_same_settings_re_runs_nothing(clone) -> None:
    clone.change(datasets__toy__weights=["0.30", 7e-1], sdes__vp={"beta_max": 20, "kind": "vp", "epsilon": "1e-5"})
    assert clone.planned() == {}


# Settings of measurements


@pytest.mark.parametrize("measure", ["likelihood", "samples"])
def test_changing_a_tolerance_re_runs_that_measurement_only(clone, measure: str) -> None:
    clone.change(**{f"{measure}__rtol": 1e-4})
    assert of_cells(clone.planned()) == {measure: 2}


@pytest.mark.parametrize(
    ("section", "value", "rule"),
    [("likelihood__rtol", 0.2, "likelihood"), ("elbo__pairs", 2, "elbo"), ("samples__images", 3, "samples"),
     ("samples__steps_per_unit_time", 30, "samples")],
)  # fmt: skip
def test_what_a_data_set_s_own_measurements_say_concerns_it_alone(clone, section: str, value, rule: str) -> None:
    clone.change(**{f"datasets__pictures__measurements__{section}": value})
    assert of_cells(clone.planned()) == {rule: 1}


def test_a_setting_of_images_concerns_no_mixture(clone) -> None:
    clone.change(likelihood__images=1)
    assert of_cells(clone.planned()) == {"likelihood": 1}


@pytest.mark.parametrize(
    "change", [{"data_dir": "elsewhere"}, {"datasets__pictures__gpu": 2}, {"datasets__pictures__memory": 3000},
               {"datasets__pictures__minutes": 5}, {"checkpoint_minutes": 1.5}],
)  # fmt: skip
def test_where_images_are_kept_and_what_a_job_asks_for_re_run_nothing(clone, change: dict) -> None:
    clone.change(**change)
    assert clone.planned() == {"study": 1}


# Images


def test_other_pixels_under_the_same_path_train_anew(clone) -> None:
    path = clone.path / "pictures.npz"
    arrays = dict(np.load(path))
    np.savez(path, **(arrays | {"train": 255 - arrays["train"]}))
    assert of_cells(clone.planned()) == {
        "fetch": 1, "train": 1, "fit_noise": 1, "elbo": 1, "likelihood": 1, "samples": 1,
    }  # fmt: skip


def test_what_does_not_fit_the_images_is_refused_before_anything_is_trained(clone) -> None:
    clone.change(likelihood__images=1000, results="elsewhere")
    weights = "elsewhere/cells/dataset=pictures/sde=vp/net=tiny/T=0.4/weights.safetensors"
    assert clone.snakemake("--cores", "2", weights, check=False).returncode != 0
    logs = clone.path / "elsewhere" / "logs"
    assert "1000 test images are asked for" in (logs / "fetch-pictures.log").read_text()
    assert not [*logs.rglob("train.log")]


# Code


def test_editing_elbo_re_runs_the_elbo_jobs_and_nothing_upstream(clone) -> None:
    path = clone.path / "difftime/measures/elbo.py"
    path.write_text(path.read_text(encoding="utf-8") + "\nSPARE = 1\n", encoding="utf-8")
    assert of_cells(clone.planned()) == {"elbo": 4}


@pytest.mark.parametrize("module", ["measures/elbo.py", "diffusion/sde.py", "figures/style.py", "tables/parquet.py"])
def test_editing_comments_and_docstrings_re_runs_nothing(clone, module: str) -> None:
    clone.edit(f"difftime/{module}", '"""', '# a remark\n"""Other words. ')
    assert clone.planned() == {}


def test_editing_fetch_re_runs_nothing(clone) -> None:
    clone.edit("difftime/study/commands/fetch.py", "indent=2", "indent=4")
    assert clone.planned() == {}


def test_editing_a_derived_table_s_code_makes_it_and_what_shows_it_anew(clone) -> None:
    path = clone.path / "difftime/optimum/tradeoff.py"
    path.write_text(path.read_text(encoding="utf-8") + "\nSPARE = 1\n", encoding="utf-8")
    assert clone.planned() == {"table": 3, "figure": 2, "pages": 1}


def test_editing_one_figures_code_redraws_only_it(clone) -> None:
    path = clone.path / "difftime/figures/fig1.py"
    path.write_text(path.read_text(encoding="utf-8") + "\nSPARE = 1\n", encoding="utf-8")
    assert clone.planned() == {"figure": 1}


@pytest.mark.parametrize("key", ["width", "font_size"])
def test_changing_the_style_redraws_figures_and_the_page_that_shows_one_only(clone, key: str) -> None:
    clone.change(**{f"figures__{key}": 7})
    assert clone.planned() == {"figure": len(plan_of(clone).figures()), "study": 1, "pages": 1}


def test_editing_the_explorers_page_makes_the_pages_anew(clone) -> None:
    clone.edit("difftime/explore/page.css", "#262626", "#000000")
    assert clone.planned() == {"pages": 1}


def test_a_lost_table_is_made_again_from_the_cells(clone) -> None:
    (clone.results / "tables" / "toy" / "samples.parquet").unlink()
    planned = clone.planned()
    assert planned["collect"] == 1
    assert of_cells(planned) == {}
