"""What an edit re-runs, on the real Snakefile: everything that depends on it, and nothing else."""

import os
from pathlib import Path

import numpy as np
import pytest

from difftime.study.settings import FIGURE_TABLE

Files = dict[Path, tuple[int, bytes]]


def contents(folder: Path) -> Files:
    return {path: (path.stat().st_mtime_ns, path.read_bytes()) for path in sorted(folder.rglob("*")) if path.is_file()}


def test_a_finished_study_has_nothing_to_do(clone) -> None:
    assert clone.planned() == {}


def test_touching_files_re_runs_nothing(clone) -> None:
    for path in clone.path.rglob("*"):
        if path.is_file() and ".snakemake" not in path.parts:
            os.utime(path)
    assert clone.planned() == {}


def test_adding_a_T_trains_only_the_new_cell(clone) -> None:
    cells = clone.results / "cells"
    before = contents(cells)
    first, *others = clone.study["study"]
    clone.change(study=[first | {"T": [0.3, 0.6, 0.9]}, *others])
    planned = clone.planned()
    assert {rule: planned[rule] for rule in ("cell", "train", "elbo", "likelihood", "samples")} == {
        "cell": 1, "train": 1, "elbo": 1, "likelihood": 1, "samples": 1,
    }  # fmt: skip
    clone.snakemake("--cores", "2")
    after = contents(cells)
    assert {path: after[path] for path in before} == before
    assert {path.parent.name for path in after.keys() - before.keys()} == {"T=0.9"}
    assert clone.planned() == {}


def test_changing_the_training_re_runs_that_data_sets_cells(clone) -> None:
    clone.change(datasets__toy__training__steps=30)
    planned = clone.planned()
    assert (planned["cell"], planned["train"], planned["elbo"], planned["likelihood"]) == (2, 2, 2, 2)


def test_editing_elbo_re_runs_the_elbo_jobs_and_nothing_upstream(clone) -> None:
    clone.edit("difftime/measures/elbo.py", "total += 0.5 * weight * mean", "total += weight * mean * 0.5")
    planned = clone.planned()
    assert planned.pop("elbo") == 3
    assert planned.keys() == {"collect", "optimum", "bounds", "summarise", "tradeoff"}


def test_editing_a_comment_or_a_docstring_re_runs_nothing(clone) -> None:
    clone.edit("difftime/measures/elbo.py", '"""The ELBO taken apart', '# a remark\n"""The ELBO, taken apart')
    assert clone.planned() == {}


@pytest.mark.parametrize(("section", "rule"), [("likelihood", "likelihood"), ("samples", "samples")])
def test_changing_a_tolerance_re_runs_that_measurement_only(clone, section: str, rule: str) -> None:
    clone.change(**{f"{section}__rtol": 1e-4})
    planned = clone.planned()
    assert planned[rule] == 2
    assert not planned.keys() & ({"cell", "train", "elbo", "likelihood", "samples"} - {rule})


@pytest.mark.parametrize(
    ("section", "value", "rule"), [("bpd__rtol", 0.2, "bpd"), ("image_elbo__pairs", 2, "image_elbo")]
)
def test_changing_a_measurement_of_images_re_runs_it_and_what_follows_only(
    clone, section: str, value, rule: str
) -> None:
    clone.change(**{section: value})
    assert clone.planned() == {
        rule: 1, "collect": 2, "table1": 1, "table2": 1, "tradeoff": 1, "figure": 1,
    }  # its own table and that of the runs  # fmt: skip


@pytest.mark.parametrize("settings", [{"image_samples__images": 3}, {"image_samples__steps_per_unit_time": 30}])
def test_drawing_other_images_re_runs_what_is_made_of_them_only(clone, settings: dict) -> None:
    clone.change(**settings)
    # collected: the images, their distances, the runs
    assert clone.planned() == {"image_samples": 1, "collect": 3, "tradeoff": 1}


def test_editing_the_trade_off_makes_its_table_anew_only(clone) -> None:
    clone.edit("difftime/optimum/tradeoff.py", "ERRORS = 2.0", "ERRORS = 3.0")
    assert clone.planned() == {"tradeoff": 1}


@pytest.mark.parametrize(
    "change", [{"data_dir": "elsewhere"}, {"datasets__pictures__gpu": 2}, {"datasets__pictures__memory": 3000},
               {"datasets__pictures__minutes": 5}],
)  # fmt: skip
def test_where_images_are_kept_and_what_a_job_asks_for_re_run_nothing(clone, change: dict) -> None:
    clone.change(**change)
    assert clone.planned() == {}


def test_other_pixels_under_the_same_path_train_anew(clone) -> None:
    path = clone.path / "pictures.npz"
    arrays = dict(np.load(path))
    np.savez(path, **(arrays | {"train": 255 - arrays["train"]}))
    planned = clone.planned()
    assert {rule: planned[rule] for rule in ("fetch", "train", "bpd", "image_elbo")} == {
        "fetch": 1, "train": 1, "bpd": 1, "image_elbo": 1,
    }  # fmt: skip


def test_editing_fetch_re_runs_nothing(clone) -> None:
    clone.edit("difftime/study/commands/fetch.py", "indent=2", "indent=4")
    assert clone.planned() == {}


def test_what_does_not_fit_the_images_is_refused_before_anything_is_trained(clone) -> None:
    clone.change(bpd__images=1000, results="elsewhere")
    weights = "elsewhere/cells/dataset=pictures/sde=vp/net=tiny/T=0.4/weights.safetensors"
    assert clone.snakemake("--cores", "2", weights, check=False).returncode != 0
    logs = clone.path / "elsewhere" / "logs"
    assert "1000 test images are asked for, but pictures has" in (logs / "fetch-pictures.log").read_text()
    assert not [*logs.rglob("train.log")]


def test_another_p_noise_trains_nothing_and_measures_its_data_set_only(clone) -> None:
    clone.change(datasets__pictures__p_noise=["standard", "full", "mixture"], noise__mixture__components=1)
    planned = clone.planned()
    assert {rule: planned[rule] for rule in ("fit_noise", "bpd", "image_elbo")} == {
        "fit_noise": 1, "bpd": 1, "image_elbo": 1,
    }  # fmt: skip
    assert not planned.keys() & {"cell", "train", "elbo", "likelihood", "samples", "fetch"}


def test_how_one_p_noise_is_fitted_concerns_no_other(clone) -> None:
    clone.change(noise__flow__steps=7)
    assert clone.planned() == {}


def test_changing_the_training_of_images_leaves_the_toy_alone(clone) -> None:
    clone.change(datasets__pictures__training__steps=3)
    planned = clone.planned()
    assert {rule: planned[rule] for rule in ("cell", "train", "bpd", "image_elbo", "fetch")} == {
        "cell": 1, "train": 1, "bpd": 1, "image_elbo": 1, "fetch": 0,
    }  # fmt: skip
    assert not planned.keys() & {"elbo", "likelihood", "samples"}


def test_changing_the_style_of_all_figures_redraws_figures_only(clone) -> None:
    clone.change(figures__font_size=9)
    assert clone.planned() == {"figure": 3}


def test_changing_one_figures_setting_redraws_only_it(clone) -> None:
    clone.change(figures__histogram_T=[0.6])
    assert clone.planned() == {"figure": 1}


def test_editing_one_figures_code_redraws_only_it(clone) -> None:
    path = clone.path / "difftime" / "figures" / "fig1.py"
    path.write_text(path.read_text() + "\nSPARE = 1\n")
    assert clone.planned() == {"figure": 1}


def test_another_spelling_of_the_same_settings_re_runs_nothing(clone) -> None:
    clone.change(datasets__toy__weights=["0.30", 7e-1], sdes__vp={"beta_max": 20, "kind": "vp", "epsilon": "1e-5"})
    assert clone.planned() == {}


def test_a_lost_table_is_made_again_from_the_cells(clone) -> None:
    (clone.results / "tables" / "samples.parquet").unlink()
    planned = clone.planned()
    assert planned["collect"] == 1
    assert not planned.keys() & {"cell", "train", "elbo", "likelihood", "samples"}


def test_every_figure_has_its_module() -> None:
    for figure in FIGURE_TABLE:
        assert (Path(__file__).parents[2] / "difftime" / "figures" / f"{figure}.py").is_file()
