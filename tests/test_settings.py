"""Settings: every fault is told at once, by its place and value; a cell is named by what determines its weights."""

from __future__ import annotations

import json
import math
import os
import re
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path
from shutil import rmtree
from typing import Any

import jsonschema
import pytest
import yaml
from pydantic import BaseModel
from studies import CONFIGS, GONE, ROOT, settings, study
from typer.testing import CliRunner

from difftime.cli import app
from difftime.study.settings import (
    BadSettings,
    Cell,
    Study,
    parse,
    read_cell,
    read_measurement,
    read_study,
)
from difftime.study.settings.page import page
from difftime.study.settings.study import NewStudy

SCHEMA = ROOT / "workflow" / "schemas" / "config.schema.json"


@pytest.fixture(autouse=True)
def _elsewhere(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A relative results folder is looked for where the test writes."""
    monkeypatch.chdir(tmp_path)


def faults(values: Any) -> list[str]:
    """The lines of the message that these settings are refused with, without their origin."""
    with pytest.raises(BadSettings) as error:
        parse(NewStudy, values, "The study")
    first, *lines = str(error.value).splitlines()
    assert first == f"The study has {'a fault' if len(lines) == 1 else f'{len(lines)} faults'}:"
    assert all(line.startswith("  - ") for line in lines)
    return [re.sub(r"^  - (\S*config.yaml, line \d+: |test: )?", "", line) for line in lines]


TOY = {"weights": [0.3, 0.7], "means": [1.0, 3.0], "stds": [0.1, 0.5]}
PLANE = {"datasets.toy.means": [[0.0, 1.0], [2.0, 3.0]], "datasets.toy.stds": GONE}
"""The toy's means in two dimensions."""
SQUARE = [[0.2, 0.1], [0.1, 0.2]]
FAULTY: list[tuple[dict[str, Any], list[str]]] = [
    ({"colour": "red"}, ["colour"]),
    ({"resuls": "out"}, ["resuls"]),
    ({"elbo.time_step": 9}, ["elbo.time_step"]),
    ({"datasets.toy.training.learning_rte": 1e-3}, ["datasets.toy.training.learning_rte"]),
    ({"nets.mlp-32x2.training": {"learning_rte": 1e-3}}, ["nets.mlp-32x2.training.learning_rte"]),
    ({"sdes.vp.beta_mni": 1}, ["sdes.vp.beta_mni"]),
    ({"study[0].mesure": "elbo"}, ["study[0].mesure"]),
    (
        {"datasets.toy.weights": GONE, "datasets.toy.weigths": [0.3, 0.7]},
        ["datasets.toy.weights", "datasets.toy.weigths"],
    ),
    ({"study": GONE}, ["study"]),
    ({"study[0].T[0]": 1e-6}, ["study[0].T[0]"]),
    ({"sdes.ve.epsilon": 0.05}, ["study[0].T[0]"]),
    ({"study[0].T[1]": "long"}, ["study[0].T[1]"]),
    ({"study[0].T[1]": math.nan}, ["study[0].T[1]"]),
    ({"study[0].T[1]": math.inf}, ["study[0].T[1]"]),
    ({"study[0].T[1]": True}, ["study[0].T[1]"]),
    ({"study[0].T[1]": [0.1]}, ["study[0].T[1]"]),
    ({"study[0].T[1]": 0}, ["study[0].T[1]"]),
    ({"study[0].T[1]": -0.5}, ["study[0].T[1]"]),
    ({"study[0].T": None}, ["study[0].T[0]"]),
    ({"study[0].T": []}, ["study[0].T"]),
    ({"study[0].T[1]": 0.05}, ["study[0].T[1]"]),
    ({"study[0].T[0]": 1}, ["study[0].T[10]"]),
    ({"study[0].T[0]": 0.1234567, "study[0].T[1]": 0.1234568}, ["study[0].T[0]", "study[0].T[1]"]),
    (
        {"study[0].T[0]": "x", "study[0].T[1]": -1, "study[0].T[2]": 1e-7},
        ["study[0].T[0]", "study[0].T[1]", "study[0].T[2]"],
    ),
    ({"study[0].dataset": "tyo"}, ["study[0].dataset[0]"]),
    ({"study[1].sde": ["vp", "sub-vp"]}, ["study[1].sde[1]"]),
    ({"study[1].net[0]": "mlp-8x8"}, ["study[1].net[0]"]),
    ({"study[0].dataset": ["toy", "toy"]}, ["study[0].dataset[1]"]),
    ({"study[0].measure": "fid"}, ["study[0].measure[0]"]),
    ({"study": []}, ["study"]),
    ({"study": {"dataset": "toy"}}, ["study"]),
    ({"study[1]": "toy"}, ["study[1]"]),
    ({"datasets.toy.seeds": 0}, ["datasets.toy.seeds"]),
    ({"datasets.toy.seeds": 2.5}, ["datasets.toy.seeds"]),
    ({"datasets.toy.seeds": True}, ["datasets.toy.seeds"]),
    ({"datasets.toy.samples": -5}, ["datasets.toy.samples"]),
    ({"datasets.toy.weights": [0.3, 0.6]}, ["datasets.toy.weights"]),
    ({"datasets.toy.weights": [0.3, 0.7000001]}, ["datasets.toy.weights"]),
    ({"datasets.toy.weights": [-0.3, 1.3]}, ["datasets.toy.weights[0]"]),
    ({"datasets.toy.weights": []}, ["datasets.toy.weights"]),
    ({"datasets.toy.stds": [0.1, -0.5]}, ["datasets.toy.stds[1][0]"]),
    (
        {"datasets.toy.weights": [0.3, 0.8], "datasets.toy.stds": [0.0, 0.5]},
        ["datasets.toy.weights", "datasets.toy.stds[0][0]"],
    ),
    ({"datasets.toy.means": [1.0]}, ["datasets.toy.means"]),
    ({"datasets.toy.stds": [0.1, 0.5, 0.5]}, ["datasets.toy.stds"]),
    ({"datasets.toy.means": [1.0, [1.0, 2.0]]}, ["datasets.toy.means"]),
    ({"datasets.toy.means": [1.0, math.nan]}, ["datasets.toy.means[1][0]"]),
    ({"datasets.toy.stds": [[0.1, 0.2], 0.5]}, ["datasets.toy.stds"]),
    ({"datasets.toy.stds": GONE}, ["datasets.toy.covariances"]),
    ({"datasets.toy.covariances": [[[0.1]], [[0.2]]]}, ["datasets.toy.covariances"]),
    (PLANE | {"datasets.toy.covariances": [SQUARE, [[1.0, 0.0], [0.1, 1.0]]]}, ["datasets.toy.covariances[1]"]),
    (PLANE | {"datasets.toy.covariances": [[[1.0, 2.0], [2.0, 1.0]], SQUARE]}, ["datasets.toy.covariances[0]"]),
    (PLANE | {"datasets.toy.covariances": [SQUARE, [[1.0, 0.0]]]}, ["datasets.toy.covariances[1]"]),
    (PLANE | {"datasets.toy.covariances": [[[1.0]], [[1.0]]]}, ["datasets.toy.covariances"]),
    ({"datasets.toy.kind": "mnits"}, ["datasets.toy"]),
    ({"datasets": {}}, ["datasets", "study[0].dataset[0]", "study[1].dataset[0]", "study[2].dataset[0]"]),
    ({"datasets": ["toy"]}, ["datasets"]),
    ({"datasets.a/b": TOY}, ["datasets.a/b"]),
    ({"sdes.a=b": {"kind": "vp"}}, ["sdes.a=b"]),
    ({"nets.a b": {"width": 4}}, ["nets.a b"]),
    ({"sdes.vp.beta_min": -0.1}, ["sdes.vp.beta_min"]),
    ({"sdes.vp.beta_max": 0.05}, ["sdes.vp.beta_max"]),
    ({"sdes.vp": {"kind": "vp", "beta_min": 30}}, ["sdes.vp.beta_max"]),
    ({"sdes.ve": {"kind": "ve-geometric", "sigma_min": 2, "sigma_max": 2}}, ["sdes.ve.sigma_max"]),
    ({"sdes.ve.base": 1}, ["sdes.ve.base"]),
    ({"sdes.vp.epsilon": 0}, ["sdes.vp.epsilon"]),
    ({"sdes.vp": {"kind": "vpp"}}, ["sdes.vp"]),
    ({"sdes.vp": {"beta_min": 1}}, ["sdes.vp"]),
    ({"sdes.vp.base": 25}, ["sdes.vp.base"]),
    ({"sdes.vp": 3}, ["sdes.vp"]),
    ({"nets.mlp-32x2.kind": "unet"}, ["nets.mlp-32x2"]),
    ({"nets.mlp-32x2.width": 0}, ["nets.mlp-32x2.width"]),
    ({"nets.mlp-32x2.activation": "swish"}, ["nets.mlp-32x2.activation"]),
    ({"datasets.toy.training.ema": 1}, ["datasets.toy.training.ema"]),
    ({"datasets.toy.training.steps": 0}, ["datasets.toy.training.steps"]),
    ({"nets.mlp-16x1.training": {"steps": -3}}, ["nets.mlp-16x1.training.steps"]),
    ({"datasets.toy.training.learning_rate": "small"}, ["datasets.toy.training.learning_rate"]),
    ({"datasets.toy.training": None}, ["datasets.toy.training"]),
    ({"likelihood.rtol": 1e-14}, ["likelihood.rtol"]),
    ({"samples.max_evaluations": 7}, ["samples.max_evaluations"]),
    ({"likelihood.grid_cells": 15}, ["likelihood.grid_cells"]),
    ({"optimum.resamples": 1}, ["optimum.resamples"]),
    ({"optimum.confidence": 1}, ["optimum.confidence"]),
    ({"p_noise": ["standrad"]}, ["p_noise[0]"]),
    ({"seed": -1}, ["seed"]),
    ({"checkpoint_minutes": 0}, ["checkpoint_minutes"]),
    ({"datasets.mnist5k.path": "pictures"}, ["datasets.mnist5k"]),
    ({"datasets.mnist5k": {"kind": "cifar10", "path": "x", "channels": 3, "test_share": 0.1}}, ["datasets.mnist5k"]),
    ({"datasets.mnist5k": {"kind": "folder"}}, ["datasets.mnist5k"]),
    ({"datasets.mnist5k": {"kind": "npz", "test_share": 0.1}}, ["datasets.mnist5k"]),
    ({"datasets.mnist5k": {"kind": "npz", "path": "x.npz", "channels": 2}}, ["datasets.mnist5k.channels"]),
    ({"datasets.mnist5k": {"kind": "npz", "path": "x.npz", "test_share": 1}}, ["datasets.mnist5k.test_share"]),
    ({"datasets.mnist5k.flip": "sometimes"}, ["datasets.mnist5k.flip"]),
    ({"datasets.mnist5k.gpu": 3}, ["study[2]"]),
    ({"datasets.mnist5k.gpu": 2, "nets.unet-16.training": {"batch": 9}}, ["study[2]"]),
    ({"datasets.mnist5k.gpu": 0.5}, ["datasets.mnist5k.gpu"]),
    ({"datasets.mnist5k.samples": 9}, ["datasets.mnist5k.samples"]),
    ({"datasets.mnist5k.training.stesp": 9}, ["datasets.mnist5k.training.stesp"]),
    ({"datasets.mnist5k.kind": "minst"}, ["datasets.mnist5k"]),
    ({"datasets.mnist5k.kind": ["mnist"]}, ["datasets.mnist5k"]),
    ({"study[0].net": ["mlp-32x2", "unet-16"]}, ["study[0].net[1]"]),
    ({"study[2].net": "mlp-32x2"}, ["study[2].net[0]"]),
    ({"study[2].dataset": ["mnist5k", "toy"]}, ["study[2].net[0]"]),
    ({"nets.unet-16.blocks": 0}, ["nets.unet-16.blocks"]),
    ({"nets.unet-16.multipliers": []}, ["nets.unet-16.multipliers"]),
    ({"nets.unet-16.dropout": 1}, ["nets.unet-16.dropout"]),
    ({"nets.unet-16.precision": "float16"}, ["nets.unet-16.precision"]),
    ({"nets.unet-16.depth": 3}, ["nets.unet-16.depth"]),
    ({"nets.unet-16.fourier": [4, 17]}, ["nets.unet-16.fourier[1]"]),
    ({"nets.unet-16.fourier": 4}, ["nets.unet-16.fourier"]),
    ({"nets.unet-16.pixel_prior": "grey"}, ["nets.unet-16.pixel_prior"]),
    ({"nets.mlp-32x2.pixel_prior": True}, ["nets.mlp-32x2.pixel_prior"]),
    ({"datasets.toy.training.optimiser": "sgd"}, ["datasets.toy.training.optimiser"]),
    ({"datasets.toy.training.decay": "linear"}, ["datasets.toy.training.decay"]),
    ({"results": ""}, ["results"]),
    ({"results": "out/{x}"}, ["results"]),
    ({"results": 5}, ["results"]),
    ({"results": "/dev/null/out"}, ["results"]),
    (
        {
            "resuls": "out",
            "datasets.toy.weights": [1.0, 1.0],
            "sdes.vp.beta_min": -1,
            "nets.mlp-16x1.depth": 0,
            "study[0].T[0]": 1e-9,
            "study[1].dataset": "tyo",
            "elbo.points": 1,
            "results": "/dev/null",
        },
        [
            "resuls",
            "datasets.toy.weights",
            "sdes.vp.beta_min",
            "nets.mlp-16x1.depth",
            "study[0].T[0]",
            "study[1].dataset[0]",
            "elbo.points",
            "results",
        ],
    ),
    ({"study[1].net": "mlp-32x2", "study[1].T": [0.6, 0.65]}, ["study[1]"]),
    ({"p_noise": ["matched", "matched"]}, ["p_noise[1]"]),
    (
        {"elbo.images": 0, "likelihood.images": 0, "samples.images": 0},
        ["elbo.images", "likelihood.images", "samples.images"],
    ),
    (
        {"samples.evaluations": [5, 1, 5.5], "samples.samplers": ["heun", "euler"]},
        ["samples.evaluations[1]", "samples.evaluations[2]", "samples.samplers[1]"],
    ),
    ({"samples.evaluations": [], "samples.samplers": []}, ["samples.evaluations", "samples.samplers"]),
    (
        {"samples.evaluations": [5, 5], "samples.samplers": ["heun"] * 2},
        ["samples.evaluations[1]", "samples.samplers[1]"],
    ),
    ({"figures.skip": ["fig1", "fig5"]}, ["figures.skip[1]"]),
    ({"figures.skip": ["fig1", "fig1"]}, ["figures.skip[1]"]),
    ({"figures.draw": ["fig1"]}, ["figures.draw"]),
    ({"optimum.loss": -0.1}, ["optimum.loss"]),
    ({"elbo.times": 5000}, ["elbo.times", "elbo.times"]),
    ({"datasets.mnist5k.measurements": {"elbo": {"times": 20_000}}}, ["elbo.times"]),
    ({"datasets.toy.measurements": {"elbo": {"pairs": 3}}}, ["datasets.toy.measurements.elbo.pairs"]),
    ({"datasets.mnist5k.measurements": {"samples": {"bins": 3}}}, ["datasets.mnist5k.measurements.samples.bins"]),
    ({"results": "-out"}, ["results"]),
    ({"results": "./-out"}, ["results"]),
    ({"results": "~nobody-of-this-name/out"}, ["results"]),
    ({"results": "a\nb"}, ["results"]),
    ({"results": "a\0b"}, ["results"]),
    ({"results": "a\ud800"}, ["results"]),
    ({"results": "out/" + "x" * 256}, ["results"]),
    ({"data_dir": "a\0b"}, ["data_dir"]),
    ({"nets.mlp": {"kind": "mlp"}, "nets." + "m" * 256: {"kind": "mlp"}}, ["nets." + "m" * 256]),
    ({"data_dir": "~nobody-of-this-name/out"}, ["data_dir"]),
]


@pytest.mark.parametrize(("changes", "places"), FAULTY, ids=[" ".join(places) for _, places in FAULTY])
def test_every_fault_is_told_by_its_place(changes: dict[str, Any], places: list[str]) -> None:
    lines = faults(settings(changes=changes))
    assert sorted(line.split(": ")[0] for line in lines) == sorted(places)
    assert not [line for line in lines if "Value error" in line or "[key]" in line]


def test_a_fault_says_what_is_wanted_what_was_found_and_what_was_meant_perhaps() -> None:
    changes = {
        "resuls": "out", "colour": "red", "sdes.vp.beta_min": -1, "study[0].T[0]": 1e-6, "study[0].net": "mlp-32x3",
        "elbo.time_step": 9,
    }  # fmt: skip
    told = dict(line.split(": ", 1) for line in faults(settings(changes=changes)))
    assert told["resuls"] == "no such key; did you mean results? (found: 'out')"
    assert "known here are results, seed, datasets" in told["colour"]
    assert told["elbo.time_step"].startswith("no such key; did you mean time_steps?")
    assert "greater than 0" in told["sdes.vp.beta_min"]
    assert "(found: -1)" in told["sdes.vp.beta_min"]
    assert told["study[0].T[0]"] == "must be above the epsilon = 1e-05 of sde vp (found: 1e-06)"
    assert "defined are mlp-16x1, mlp-32x2" in told["study[0].net[0]"]


@pytest.mark.parametrize("name", ["on", "1", "2026-01-01", "1_0", "~"])
def test_a_name_that_yaml_takes_for_something_else_is_to_be_quoted(tmp_path: Path, name: str) -> None:
    text = "datasets: {%s: {weights: [1], means: [0], stds: [1]}}\nstudy: [{dataset: %s, sde: vp, net: mlp-16x1, T: 1}]"
    (tmp_path / "mine.yaml").write_text(text % (name, name))
    with pytest.raises(BadSettings) as error:
        read_study([tmp_path / "mine.yaml"])
    _, *lines = str(error.value).splitlines()
    assert len(lines) == 2
    for number, line in enumerate(lines, 1):
        assert f"mine.yaml, line {number}: " in line
        assert "put the name in quotes (found: " in line
    if name != "~":
        (tmp_path / "mine.yaml").write_text(text % (f"'{name}'", f"'{name}'"))
        assert read_study([tmp_path / "mine.yaml"]).cells().datasets() == [name]


def test_messages_count_as_people_do() -> None:
    """Fault 26: "one number or 1 numbers"."""
    (line,) = faults(settings(changes={"datasets.toy.stds": [[0.1, 0.2], 0.5]}))
    assert "each item must be one number, as each of the means has 1 coordinate (" in line
    (line,) = faults(settings(changes=PLANE | {"datasets.toy.stds": [[0.1, 0.2, 0.3], 0.5]}))
    assert "one number, or a list of 2 numbers, as each of the means has 2 coordinates (" in line
    (line,) = faults(settings(changes={"datasets.toy.means": [1.0]}))
    assert "one item for each weight; there are 2, not 1 (" in line


def test_settings_that_are_no_mapping_are_refused() -> None:
    (line,) = faults(["toy"])
    assert "['toy']" in line


def test_a_long_value_is_quoted_in_part() -> None:
    (line,) = faults(settings(changes={"datasets.toy.means": list(range(1000))}))
    assert "[0, 1, 2, " in line
    assert len(line) < 200


# The folder


def test_a_home_folder_may_be_written_as_a_tilde(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Fault 20: wherever a path is given."""
    monkeypatch.setenv("HOME", str(tmp_path))
    changes = {"results": "~/out", "data_dir": "~", "datasets.mnist5k": {"kind": "folder", "path": "~/pictures"}}
    whole = study(changes)
    assert (whole.results, whole.data_dir) == (f"{tmp_path}/out", str(tmp_path))
    assert whole.datasets["mnist5k"].path == f"{tmp_path}/pictures"
    assert study({"data_dir": "./~"}).data_dir == "./~"


def test_a_results_folder_has_one_form_however_it_is_written() -> None:
    assert study({"results": "./out//a/"}).results == "out/a"


def test_the_results_folder_may_lie_below_folders_that_do_not_exist_yet(tmp_path: Path) -> None:
    place = tmp_path / "a" / "b" / "results"
    assert read_study(overrides={"results": str(place)}).results == str(place)
    assert not list(tmp_path.iterdir())


def results_fault(results: Path | str) -> str:
    with pytest.raises(BadSettings) as error:
        read_study(overrides={"results": str(results), "seed": -1})
    first, line, seed = str(error.value).splitlines()
    assert first.endswith("2 faults:")
    assert "--config: seed: " in seed
    return line


def test_a_results_folder_that_cannot_be_made_is_refused(tmp_path: Path) -> None:
    (tmp_path / "taken").write_text("mine")
    (tmp_path / "link").symlink_to("nowhere")
    for results in ("taken", "taken/below", "link", "/dev/null/out"):
        assert "is not a folder; name another one" in results_fault(results)
    assert (tmp_path / "taken").read_text() == "mine"


def as_nobody(action: Callable[[], str]) -> str:
    """What `action` returns in a process that may not write everywhere, as the superuser may."""
    reader, writer = os.pipe()
    child = os.fork()
    if child == 0:
        try:
            if os.getuid() == 0:
                os.setgroups([])
                os.setgid(65534)
                os.setuid(65534)
            os.write(writer, action().encode())
        finally:
            os._exit(0)
    os.close(writer)
    with os.fdopen(reader) as told:
        answer = told.read()
    os.waitpid(child, 0)
    return answer


@pytest.fixture
def sealed() -> Iterator[Path]:
    """A folder that everybody may read, and nobody write."""
    place = Path(tempfile.mkdtemp())
    place.chmod(0o555)
    yield place
    place.chmod(0o755)
    rmtree(place)


@pytest.mark.parametrize("below", ["", "results", "a/b"])
def test_a_results_folder_that_cannot_be_written_is_refused_beside_other_faults(sealed: Path, below: str) -> None:
    line = as_nobody(lambda: results_fault(sealed / below))
    assert f"results: cannot be written, as {sealed} is read-only for you; name another folder" in line


def test_a_finished_study_may_lie_where_nobody_can_write(sealed: Path) -> None:
    assert as_nobody(lambda: study({"results": str(sealed)}).results) == str(sealed)


# What is allowed


@pytest.mark.parametrize("path", CONFIGS, ids=lambda path: path.name)
def test_every_configuration_that_comes_with_the_package_is_valid(path: Path) -> None:
    assert study(path=path).grid()
    jsonschema.validate(settings(path), json.loads(SCHEMA.read_text()))


@pytest.mark.parametrize(
    "changes",
    [
        {"resuls": 1}, {"study[0].T": ["x"]}, {"sdes.vp.beta_min": -1}, {"datasets.toy.seeds": 0},
        {"figures.skip": ["fig5"]},
    ],
)  # fmt: skip
def test_editors_find_what_is_wrong_in_itself(changes: dict[str, Any]) -> None:
    with pytest.raises(jsonschema.ValidationError):
        jsonschema.validate(settings(changes=changes), json.loads(SCHEMA.read_text()))


def test_the_json_schema_is_in_step_with_the_settings() -> None:
    """`difftime schema > workflow/schemas/config.schema.json` puts it right."""
    assert CliRunner().invoke(app, ["schema"]).stdout == SCHEMA.read_text()


def test_every_key_has_a_description_in_the_schema_and_on_the_page() -> None:
    schema = json.loads(SCHEMA.read_text())
    text = page()
    for model in (schema, *schema["$defs"].values()):
        for key, value in model["properties"].items():
            assert value.get("description"), f"{model['title']}.{key}"
            assert f"`{key}`" in text


def test_every_link_of_the_page_leads_to_a_section() -> None:
    headings = {line.removeprefix("## ").lower() for line in page().splitlines() if line.startswith("## ")}
    assert {*re.findall(r"\(#(\w+)\)", page())} <= headings


def test_the_only_item_of_a_list_may_stand_without_brackets() -> None:
    block = {"dataset": "toy", "sde": "vp", "net": "mlp-32x2", "T": 0.6, "measure": "elbo"}
    bare = {"study": [block], "p_noise": "standard", "figures": {"skip": "fig4"}}
    listed = {
        "study": [{key: [value] for key, value in block.items()}],
        "p_noise": ["standard"],
        "figures": {"skip": ["fig4"]},
    }
    assert study(bare) == study(listed)


def test_a_number_that_yaml_takes_for_text_is_still_a_number() -> None:
    """YAML 1.1 reads 1e-5, without a point, as text."""
    sde = yaml.safe_load("{kind: vp, epsilon: 1e-5}")
    assert isinstance(sde["epsilon"], str)
    assert study({"sdes.vp": sde}) == study()


def test_numbers_as_means_and_stds_are_lists_of_one() -> None:
    data = study().cell("toy", "vp", "mlp-32x2", "0.6").data
    assert (data.means, data.stds) == (((1.0,), (3.0,)), ((0.1,), (0.5,)))


def test_images_have_training_defaults_of_their_own() -> None:
    changes = {"datasets.mnist5k": {"kind": "mnist5k"}, "nets.unet-16.training": {"steps": 9}}
    own = study(changes).cell("mnist5k", "vp", "unet-16", "0.6").training
    assert (own.weighting, own.batch, own.learning_rate, own.warmup, own.clip) == ("noise", 128, 2e-4, 1000, 1.0)
    assert (own.steps, own.ema) == (9, 0.9999)
    toy = study({"datasets.toy.training": {}}).cell("toy", "vp", "mlp-32x2", "0.6").training
    assert (toy.weighting, toy.batch, toy.warmup, toy.clip) == ("likelihood", 256, 0, None)


def test_the_kind_may_be_left_out_where_it_is_the_usual_one() -> None:
    assert study({"datasets.toy.kind": GONE, "nets.mlp-32x2.kind": GONE}).canonical() == study().canonical()


def test_flip_has_one_form_however_it_is_written() -> None:
    written = [study({"datasets.mnist5k.flip": flip}).canonical() for flip in (True, "yes", "on", 1)]
    assert len(set(written)) == 1
    assert study({"datasets.mnist5k.flip": False}).canonical() == study().canonical() != written[0]


def test_images_come_from_a_folder_or_a_file_by_configuration_alone() -> None:
    for data in ({"kind": "folder", "path": "pictures"}, {"kind": "npz", "path": "a.npz", "test_share": 0.2}):
        cell = study({"datasets.mnist5k": data}).cell("mnist5k", "vp", "unet-16", "0.6")
        assert cell.data.model_dump(exclude_defaults=True) == data


def test_the_networks_training_wins_over_the_data_sets_where_it_says_something() -> None:
    whole = study({
        "datasets.toy.training": {"steps": 100, "batch": 64, "ema": 0.5},
        "nets.mlp-16x1.training": {"steps": 3000, "weighting": "noise"},  # 3000 is also the default
    })  # fmt: skip
    own = whole.cell("toy", "vp", "mlp-16x1", "0.6").training
    assert (own.steps, own.weighting, own.batch, own.ema) == (3000, "noise", 64, 0.5)
    other = whole.cell("toy", "vp", "mlp-32x2", "0.6").training
    assert (other.steps, other.weighting, other.batch, other.ema) == (100, "likelihood", 64, 0.5)


# Measurements


def test_a_data_set_states_what_differs_in_its_measurements() -> None:
    whole = study({
        "samples": {"steps_per_unit_time": 300, "points": 99, "images": 7, "rtol": 1e-3},
        # 500 is also the default
        "datasets.mnist5k.measurements": {"samples": {"steps_per_unit_time": 500, "evaluations": [10, 20]}},
    })  # fmt: skip
    images, toy = (whole.measurement(name, "samples") for name in ("mnist5k", "toy"))
    few = {"evaluations": [10, 20], "samplers": ["sde", "ddim", "heun", "dpm_solver_2m"]}
    assert images == {"steps_per_unit_time": 500, "images": 7, "p_noise": ["standard", "matched", "full"]} | few
    assert (toy["steps_per_unit_time"], toy["points"], toy["rtol"]) == (300, 99, 1e-3)
    assert "images" not in toy


@pytest.mark.parametrize("measure", ["elbo", "likelihood", "samples"])
@pytest.mark.parametrize(("dataset", "family"), [("toy", "mixture"), ("mnist5k", "images")])
def test_a_measurements_settings_come_back_from_their_file(
    dataset: str, family: str, measure: str, tmp_path: Path
) -> None:
    whole = study({"elbo.pairs": 3, "elbo.times": 7, "likelihood.draws": 2, "samples.bins": 9})
    path = tmp_path / f"{measure}.json"
    path.write_text(json.dumps(whole.measurement(dataset, measure)))
    found = read_measurement(path, family, measure)
    assert found.settings == whole.measurement_settings(dataset, measure)
    assert found.p_noise == whole.noises(dataset)


@pytest.mark.parametrize("text", ["", "[]", '{"time_steps": 3}', '{"p_noise": ["standard"], "time_stesp": 3}'])
def test_a_damaged_file_of_a_measurement_is_named(text: str, tmp_path: Path) -> None:
    path = tmp_path / "elbo.json"
    path.write_text(text)
    with pytest.raises(BadSettings, match=r"elbo\.json"):
        read_measurement(path, "mixture", "elbo")


# What a cell is named by


def cell(changes: dict[str, Any] | None = None, T: str = "0.6") -> Cell:
    return study(changes).cell("toy", "vp", "mlp-32x2", T)


def rewritten(value: Any) -> Any:
    """The same settings with keys in another order and 1 written as 1.0."""
    if isinstance(value, dict):
        return {key: rewritten(value[key]) for key in reversed(value)}
    if isinstance(value, list):
        return [rewritten(item) for item in value]
    return float(value) if isinstance(value, int) and not isinstance(value, bool) else value


@pytest.mark.parametrize("path", CONFIGS, ids=lambda path: path.name)
def test_the_canonical_text_knows_neither_the_order_of_keys_nor_1_from_1_0(path: Path) -> None:
    one, other = study(path=path), parse(Study, rewritten(settings(path)), "other")
    assert one.canonical() == other.canonical()
    for keys, _ in one.grid():
        assert one.cell(**keys).canonical() == other.cell(**keys).canonical()


@pytest.mark.parametrize("path", CONFIGS, ids=lambda path: path.name)
def test_a_cell_comes_back_from_its_file_as_it_was(path: Path, tmp_path: Path) -> None:
    whole = study(path=path)
    for keys, _ in whole.grid():
        before = whole.cell(**keys)
        (tmp_path / "cell.json").write_text(before.canonical() + "\n")
        after = read_cell(tmp_path / "cell.json")
        assert after == before
        assert after.digest() == before.digest()
        assert after.keys == keys


def test_the_cells_of_a_study_have_digests_of_their_own() -> None:
    whole = study()
    assert len({whole.cell(**keys).digest() for keys, _ in whole.grid()}) == len(whole.grid())


IMAGES_TRAIN = {
    "seed": 1,
    "datasets.mnist5k.kind": "mnist", "datasets.mnist5k": {"kind": "npz", "path": "a.npz"},
    "datasets.mnist5k.flip": True, "datasets.mnist5k.seeds": 2, "datasets.mnist5k.training.steps": 9,
    "sdes.vp.beta_max": 19, "nets.unet-16.width": 32, "nets.unet-16.multipliers": [1, 2, 2], "nets.unet-16.blocks": 2,
    "nets.unet-16.attention": [7], "nets.unet-16.dropout": 0.2, "nets.unet-16.precision": "float32",
    "nets.unet-16.bottleneck_attention": False,
    "nets.unet-16.channels_last": False, "nets.unet-16.compile": True, "nets.unet-16.training": {"batch": 9},
}  # fmt: skip
IMAGES_MEASURE = {
    "datasets.mnist5k.gpu": 2, "datasets.mnist5k.threads": 2, "datasets.mnist5k.memory": 9,
    "datasets.mnist5k.minutes": 9, "datasets.mnist5k.measurements": {"elbo": {"pairs": 3}}, "elbo.pairs": 1,
    "likelihood.batch": 9, "data_dir": "elsewhere", "study[2].T": [0.6, 0.7],
}  # fmt: skip


@pytest.mark.parametrize("place", [*IMAGES_TRAIN, *IMAGES_MEASURE])
def test_what_determines_the_weights_of_an_image_cell_and_nothing_else_changes_its_digest(place: str) -> None:
    value = (IMAGES_TRAIN | IMAGES_MEASURE)[place]
    one, other = (study(change).cell("mnist5k", "vp", "unet-16", "0.6").digest() for change in ({}, {place: value}))
    assert (one != other) == (place in IMAGES_TRAIN)


TRAINS = {
    "seed": 1,
    "datasets.toy.weights": [0.4, 0.6], "datasets.toy.means": [1.0, 3.5], "datasets.toy.stds": [0.1, 0.6],
    "datasets.toy.samples": 4096, "datasets.toy.seeds": 4,
    "datasets.toy.training.weighting": "noise", "datasets.toy.training.time_sampling": "lambda",
    "datasets.toy.training.steps": 3001, "datasets.toy.training.batch": 255,
    "datasets.toy.training.learning_rate": 2e-3, "datasets.toy.training.warmup": 5,
    "datasets.toy.training.clip": 1.0, "datasets.toy.training.ema": 0.99,
    "datasets.toy.training.optimiser": "muon", "datasets.toy.training.decay": "cosine",
    "sdes.vp.beta_min": 0.2, "sdes.vp.beta_max": 19, "sdes.vp.epsilon": 1e-4,
    "nets.mlp-32x2.width": 33, "nets.mlp-32x2.depth": 3, "nets.mlp-32x2.activation": "tanh",
    "nets.mlp-32x2.time_features": "fourier", "nets.mlp-32x2.scale_input": True, "nets.mlp-32x2.predicts": "noise",
    "nets.mlp-32x2.training": {"batch": 128},
}  # fmt: skip
MEASURES = {
    "results": "elsewhere", "p_noise": ["matched", "standard"], "checkpoint_minutes": 1, "data_dir": "elsewhere",
    "study[0].T": [0.5, 0.6, 0.8, 1, 2], "study[0].measure": ["samples", "elbo"],
    "datasets.toy.p_noise": ["standard", "full"], "datasets.toy.measurements": {"elbo": {"points": 9}},
    "noise.mixture.components": 3, "noise.flow.steps": 9,
    "elbo.time_steps": 80, "elbo.points": 2, "elbo.times": 9, "elbo.images": 9, "elbo.pairs": 9, "elbo.batch": 9,
    "likelihood.points": 9, "likelihood.rtol": 1e-6, "likelihood.atol": 1e-6, "likelihood.max_evaluations": 99,
    "likelihood.grid_cells": 99, "likelihood.grid_steps": 99, "likelihood.images": 9, "likelihood.draws": 2,
    "likelihood.batch": 9,
    "samples.points": 9, "samples.steps_per_unit_time": 9, "samples.rtol": 1e-6, "samples.atol": 1e-6,
    "samples.max_evaluations": 99, "samples.bins": 9, "samples.images": 9,
    "samples.evaluations": [9], "samples.samplers": "heun",
    "optimum.resamples": 9, "optimum.confidence": 0.5, "optimum.loss": 0.5,
    "figures.width": 3, "figures.font_size": 9, "figures.skip": ["fig1"],
}  # fmt: skip
OTHERS = {
    "datasets.other": TOY, "sdes.ve.base": 24, "sdes.ve.epsilon": 1e-4, "nets.mlp-16x1.width": 17,
    "nets.mlp-64x3.training": {"steps": 9}, "nets.new": {"width": 8},
    "study[1].T": [0.2, 0.7], "study[1].sde": "ve",
}  # fmt: skip


@pytest.mark.parametrize("place", TRAINS)
def test_what_determines_the_weights_changes_the_digest(place: str) -> None:
    assert cell({place: TRAINS[place]}).digest() != cell().digest()


def test_another_time_is_another_digest() -> None:
    assert cell(T="0.5").digest() != cell(T="0.6").digest()


@pytest.mark.parametrize("place", [*MEASURES, *OTHERS])
def test_what_only_measures_or_belongs_to_another_cell_leaves_the_digest_alone(place: str) -> None:
    changes = {place: (MEASURES | OTHERS)[place]}
    assert settings(changes=changes) != settings()
    assert cell(changes).digest() == cell().digest()


def leaves(model: type[BaseModel], place: str) -> set[str]:
    return {f"{place}.{name}" for name in model.model_fields}


def test_the_two_lists_above_leave_out_no_setting() -> None:
    whole = study()
    listed = TRAINS.keys() | MEASURES.keys()
    trains = set().union(
        leaves(type(whole.datasets["toy"]), "datasets.toy"),
        leaves(type(whole.datasets["toy"].training), "datasets.toy.training"),
        leaves(type(whole.sdes["vp"]), "sdes.vp"),
        leaves(type(whole.nets["mlp-32x2"]), "nets.mlp-32x2"),
    )
    sections = ("elbo", "likelihood", "samples", "optimum", "figures")
    measures = set().union(*(leaves(type(getattr(whole, name)), name) for name in sections))
    only_one_choice = {"datasets.toy.kind", "datasets.toy.covariances", "sdes.vp.kind", "nets.mlp-32x2.kind"}
    assert trains - listed - only_one_choice == {"datasets.toy.training"}
    assert measures <= listed
    assert {re.split(r"[.\[]", place)[0] for place in listed} == set(Study.model_fields)


def test_a_cells_file_holds_no_setting_of_a_measurement() -> None:
    def keys(value: Any) -> set[str]:
        if isinstance(value, dict):
            return set(value).union(*map(keys, value.values()))
        return set().union(*map(keys, value)) if isinstance(value, list) else set()

    whole = study()
    measuring = {key for name in ("elbo", "likelihood", "samples") for key in type(getattr(whole, name)).model_fields}
    for name, net in (("toy", "mlp-32x2"), ("mnist5k", "unet-16")):
        found = keys(json.loads(whole.cell(name, "vp", net, "0.6").canonical()))
        assert found & (measuring | {"p_noise", "results", "measure", "measurements"}) <= {"batch"}


def test_settings_cannot_be_changed_once_read() -> None:
    with pytest.raises(ValueError, match="frozen"):
        cell().T = 1.0


# cell.json


@pytest.mark.parametrize("damage", ["cut short", b"", b"T = 0.6", b"\xff\xfe"])
def test_a_damaged_cell_file_is_named_with_its_remedy(tmp_path: Path, damage: bytes | str) -> None:
    path, whole = tmp_path / "cell.json", cell().canonical().encode()
    path.write_bytes(whole[: len(whole) // 2] if damage == "cut short" else damage)
    with pytest.raises(BadSettings) as error:
        read_cell(path)
    assert str(path) in str(error.value)
    assert "Delete it and run Snakemake" in str(error.value)


def test_a_cell_file_with_faults_tells_every_one_by_its_place(tmp_path: Path) -> None:
    path = tmp_path / "cell.json"
    values = json.loads(cell().canonical())
    values["diffusion"]["beta_min"] = -1
    values["data"]["weights"] = [1, 1]
    values["Tt"] = values.pop("T")
    path.write_text(json.dumps(values))
    with pytest.raises(BadSettings) as error:
        read_cell(path)
    first, *lines = str(error.value).splitlines()
    assert first == f"{path} has 4 faults:"
    for place in ("T: ", "data.weights: ", "diffusion.beta_min: ", "Tt: no such key"):
        assert any(line.startswith(f"  - {place}") for line in lines)
