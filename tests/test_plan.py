"""What the rules ask of a study: settings as parameters, the files of a job, and what it needs of the machine."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace as Job
from typing import Any

import numpy as np
import pytest
from studies import CONFIGS, study

from difftime.study.plan import Plan, parameters
from difftime.study.registry import DERIVED, MEASUREMENTS
from difftime.study.settings import COLLECTED, Cell, read_measurement
from difftime.support.plain import unflat, write_json

CELL = {"dataset": "toy", "sde": "vp", "net": "mlp-32x2", "T": "0.6"}
DIGITS = {"dataset": "mnist5k", "sde": "vp", "net": "unet-16", "T": "0.6"}


def plan(changes: dict[str, Any] | None = None, **options: Any) -> Plan:
    return Plan(study(changes, **options))


def settings(of: dict[str, Any], job: Job) -> dict[str, Any]:
    """The settings that a job's parameters say, as the script of its rule reads them."""
    return unflat(filter(None, (value(job) for value in of.values())))


# Settings as parameters


def test_the_parameters_of_a_cell_are_its_settings() -> None:
    made = plan()
    for keys in (CELL, DIGITS):
        assert Cell.model_validate(settings(made.cell_parameters(), Job(**keys))) == made.study.cell(**keys)


def test_the_parameters_of_a_measurement_are_what_its_command_reads(tmp_path: Path) -> None:
    made = plan({"datasets.mnist5k.measurements": {"likelihood": {"rtol": 0.5}}})
    of = made.measurement_parameters()
    for dataset in ("toy", "mnist5k"):
        for name in MEASUREMENTS:
            write_json(settings(of, Job(dataset=dataset, measurement=name)), tmp_path / "settings.json")
            found = read_measurement(tmp_path / "settings.json", made.cells.family(dataset), name)
            assert found.settings == made.study.measurement_settings(dataset, name)
            assert found.p_noise == made.study.noises(dataset)
    flow = settings(of, Job(dataset="toy", measurement="noise_flow"))
    assert flow == made.study.noise.flow.model_dump(mode="json")


def test_a_job_without_a_setting_has_null_and_one_null_is_in_every_job() -> None:
    """Another data set in the study changes no parameter of a job of these data: Snakemake sees null as nothing."""
    of = parameters(lambda job: job.settings, [Job(settings={"a.b": "1"}), Job(settings={"c": "2"})])
    assert {name: value(Job(settings={"c": "2"})) for name, value in of.items()} == {
        "absent": None, "a_b": None, "c": "c = 2",
    }  # fmt: skip


def test_the_parameters_of_images_change_with_the_files(tmp_path: Path) -> None:
    """Fault 9: other images of equal size under the same path."""
    path = tmp_path / "mine.npz"
    found = []
    for level in (0, 255):
        np.savez(path, train=np.full((4, 8, 8), level, np.uint8), test=np.full((2, 8, 8), level, np.uint8))
        made = plan({"datasets.mnist5k": {"kind": "npz", "path": str(path)}})
        found.append(settings(made.images_parameters(), Job(dataset="mnist5k")))
    assert found[0].pop("files") != found[1].pop("files")
    assert found[0] == found[1]


def test_every_setting_of_the_study_is_a_parameter() -> None:
    made = plan()
    texts = made.study_parameters()
    assert all(name.isidentifier() for name in texts)
    assert unflat(texts.values()) == made.study.model_dump(mode="json", exclude_unset=True)


# Files


@pytest.mark.parametrize("path", CONFIGS, ids=lambda path: path.name)
def test_what_a_table_or_figure_is_made_of_is_planned_and_of_its_own_data(path: Path) -> None:
    """Fault 18: nothing waits for what it does not show."""
    made = plan(path=path)
    planned, results = {*made.tables()}, made.results
    for place in planned:
        dataset, table = Path(place).parts[-2], Path(place).stem
        job = Job(dataset=dataset, table=table)
        if table in COLLECTED:
            files, tables = made.parts(job), []
        else:
            sources = made.sources(job)
            units = DERIVED[table].units
            files = [file for name in units for file in sources[name]]
            tables = [file for name, file in sources.items() if name not in units]
        assert files or tables
        assert all(file.startswith(f"{results}/cells/dataset={dataset}/") for file in files)
        assert {*tables} <= {one for one in planned if Path(one).parts[-2] == dataset}
    for figure in made.figures():
        place = str(Path(figure).relative_to(f"{results}/figures").parent)
        shown = made.shown(Job(place=place, figure=Path(figure).stem))
        assert shown in planned
        assert Path(shown).parts[-2] == place.partition("/")[0]


def test_a_cell_waits_for_the_images_and_for_the_p_noises_that_are_fitted() -> None:
    made = plan({"datasets.toy.p_noise": ["standard", "flow", "mixture"]})
    assert (made.images(Job(**CELL)), made.images(Job(**DIGITS))) == ([], ["results/data/mnist5k.json"])
    folder = "results/cells/dataset=toy/sde=vp/net=mlp-32x2/T=0.6"
    assert made.fitted(Job(**CELL)) == [f"{folder}/noise_{name}.safetensors" for name in ("flow", "mixture")]
    assert [Path(path).name for path in made.fitted(Job(**DIGITS))] == ["noise_full.safetensors"]


# The machine


def test_a_retry_gets_more_memory_and_time_and_a_network_goes_before_its_data() -> None:
    made = plan({"datasets.mnist5k.memory": 5000, "datasets.mnist5k.minutes": 40, "nets.unet-16.memory": 9000})
    digits = Job(**DIGITS)
    assert [made.memory(digits, attempt) for attempt in (1, 2)] == [9000, 18000]
    assert [made.minutes(digits, attempt) for attempt in (1, 2)] == [40, 80]
    assert (made.memory(Job(**CELL), 1), made.minutes(Job(**CELL), 1)) == (1000, 30)


def test_tables_and_figures_of_large_images_are_small_jobs() -> None:
    made = plan({"datasets.mnist5k.memory": 64000, "datasets.mnist5k.minutes": 4000})
    for job in (Job(dataset="mnist5k", table="elbo"), Job(place="mnist5k/unet-16", figure="images")):
        assert (made.memory(job, 1), made.minutes(job, 1)) == (1000, 30)


def test_every_gpu_has_a_thread_of_its_own() -> None:
    made = plan({"datasets.mnist5k.gpu": 2, "datasets.mnist5k.threads": 1})
    assert (made.gpus(Job(**DIGITS)), made.one_gpu(Job(**DIGITS)), made.cpus(Job(**DIGITS))) == (2, 1, 2)
    assert (made.gpus(Job(**CELL)), made.one_gpu(Job(**CELL)), made.cpus(Job(**CELL))) == (0, 0, 1)


def test_jobs_of_mixtures_alone_are_submitted_together() -> None:
    assert (plan().group(Job(**CELL)), plan().group(Job(**DIGITS))) == ("cell", None)
