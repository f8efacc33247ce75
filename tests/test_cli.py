"""The command line: it says what is wrong in a few words, ends with an error, and leaves what is there as it was."""

from __future__ import annotations

import json
import re
import shutil
import subprocess
import sys
from pathlib import Path
from typing import get_args

import pytest
import safetensors.torch
import torch
import typer.main
from typer.testing import CliRunner, Result

import difftime
from difftime.cli import app
from difftime.study.cell import WEIGHTS, build
from difftime.study.settings import (
    MEASURED_BY,
    BadSettings,
    Cell,
    CollectedName,
    FigureSettings,
    MixtureSettings,
    MLPSettings,
    TrainingSettings,
    VPSettings,
)
from difftime.tables import derived as tables
from difftime.tables.derived import BadTable
from difftime.training.checkpoint import save_weights

ROOT = Path(__file__).parents[1]
COMMANDS = typer.main.get_command(app).commands
MEASURES = ("elbo", "likelihood", "samples")
OUTPUTS = {"elbo": ["elbo"], "likelihood": ["likelihood"], "samples": ["samples", "modes", "histogram", "cost"]}


def call(*arguments: object) -> Result:
    return CliRunner().invoke(app, [str(argument) for argument in arguments], env={"COLUMNS": "200"})


def plain(text: str) -> str:
    """What a person reads on a terminal, without colours, boxes and line breaks."""
    return " ".join(re.sub("\x1b\\[[0-9;]*m|[─-╿]", "", text).split())


def refusal(*arguments: object) -> str:
    """The message of a verb that ends with exit code 1, not with a traceback."""
    result = call(*arguments)
    assert isinstance(result.exception, SystemExit), result.exception
    assert result.exit_code == 1
    assert result.stdout == ""
    assert "Traceback" not in result.stderr
    assert result.stderr.startswith("difftime: ")
    return result.stderr.removeprefix("difftime: ").removesuffix("\n")


def settings(seed: int = 0) -> Cell:
    return Cell(
        dataset="toy", sde="vp", net="mlp", T=0.5, seed=seed, seeds=2,
        data=MixtureSettings(weights=[0.3, 0.7], means=[1, 3], stds=[0.1, 0.5], samples=64), diffusion=VPSettings(),
        network=MLPSettings(width=4, depth=1), training=TrainingSettings(steps=3, batch=8),
    )  # fmt: skip


@pytest.fixture
def cell(tmp_path: Path) -> Path:
    """The cell.json of a trained cell; beside it lie the weights and older measurements."""
    (tmp_path / "cell.json").write_text(settings().canonical())
    problem = build(settings())
    save_weights(tmp_path / WEIGHTS, problem.score.net.state_dict(), problem.digest)
    for table in MEASURED_BY:
        (tmp_path / f"{table}.parquet").write_bytes(b"an older measurement")
    return tmp_path / "cell.json"


def snapshot(folder: Path) -> dict[str, tuple[int, bytes]]:
    return {path.name: (path.stat().st_mtime_ns, path.read_bytes()) for path in folder.iterdir()}


@pytest.mark.parametrize("verb", COMMANDS)
def test_every_verb_explains_itself_and_its_options(verb: str) -> None:
    result = call(verb, "--help")
    assert result.exit_code == 0
    assert plain(COMMANDS[verb].help) in plain(result.stdout)
    assert all(option in plain(result.stdout) for parameter in COMMANDS[verb].params for option in parameter.opts)


def test_every_command_of_the_workflow_exists_with_its_options() -> None:
    text = "".join(path.read_text() for path in (ROOT / "workflow" / "rules").glob("*.smk"))
    text = re.sub(r'"\s*\n\s*"', "", text)  # a command over several lines
    commands = re.findall(r'"difftime ([\w-]+) ([^"]*)"', text)
    assert {verb for verb, _ in commands} >= {"train", *MEASURES, "collect", "optimum", "bounds", "summarise", "figure"}
    for verb, rest in commands:
        known = {option for parameter in COMMANDS[verb].params for option in parameter.opts}
        assert set(re.findall(r"--[a-z0-9-]+", rest)) <= known


def test_the_version_is_the_packages() -> None:
    assert call("--version").stdout == f"{difftime.__version__}\n"


def test_the_program_is_installed_under_its_name() -> None:
    told = subprocess.run([Path(sys.executable).parent / "difftime", "--version"], capture_output=True, text=True)
    assert (told.returncode, told.stdout) == (0, f"{difftime.__version__}\n")


def test_an_unknown_verb_is_refused() -> None:
    assert call("tarin").exit_code == 2


LIGHT = [
    "cli", "config", "source", "schemas", "tables", "figures",
    *(f"figures.{path.stem}" for path in sorted((ROOT / "difftime" / "figures").glob("[a-z]*.py"))),
]  # fmt: skip


def test_settings_tables_and_figures_never_import_torch() -> None:
    lines = "; ".join(f"import difftime.{name}" for name in LIGHT)
    found = subprocess.run(
        [sys.executable, "-c", f"import sys; {lines}; print(sorted({{'torch', 'pandas'}} & sys.modules.keys()))"],
        capture_output=True, text=True, check=True,
    )  # fmt: skip
    assert found.stdout == "['pandas']\n"  # that tables imports it shows that the question is asked rightly


def test_the_command_line_itself_imports_nothing_heavy() -> None:
    heavy = {"torch", "pandas", "pyarrow", "matplotlib", "seaborn", "scipy", "numpy", "snakemake"}
    found = subprocess.run(
        [sys.executable, "-c", f"import sys, difftime.cli; print(sorted({heavy!r} & sys.modules.keys()))"],
        capture_output=True, text=True, check=True,
    )  # fmt: skip
    assert found.stdout == "[]\n"


# A cell that is as it should be


def test_a_cell_is_trained_and_measured_through_the_command_line(cell: Path) -> None:
    (cell.parent / WEIGHTS).unlink()
    quick = {
        "elbo": {"time_steps": 4}, "likelihood": {"points": 4, "grid_cells": 256, "grid_steps": 4},
        "samples": {"points": 8, "steps_per_unit_time": 8, "rtol": 0.1, "atol": 0.1},
    }  # fmt: skip
    assert call("train", cell).exit_code == 0
    for verb in MEASURES:
        old = snapshot(cell.parent)
        result = call(
            verb, cell, "--p-noise", "standard", "--p-noise", "matched", "--settings", json.dumps(quick[verb])
        )
        assert result.exit_code == 0
        new = snapshot(cell.parent)
        assert {name for name in new if new[name] != old.get(name)} == {
            f"{name}.parquet" for name in (*OUTPUTS[verb], f"run_{verb}")
        }


# Settings with faults


@pytest.mark.parametrize("verb", MEASURES)
@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("{points: 3}", "--settings is not JSON: Expecting property name"),
        ("", "--settings is not JSON: Expecting value"),
        ('{"poinst": 3}', "--settings has a fault:\n  - poinst: no such key; did you mean points? (found: 3)"),
        ('{"points": 0.5}', "--settings has a fault:\n  - points: must be a whole number (found: 0.5)"),
        ('{"points": NaN, "x": 1}', "--settings has 2 faults:\n  - points: must be a finite number"),
        ("[3]", "--settings has a fault:\n  - must be keys and their values (found: [3])"),
    ],
)
def test_faults_in_the_settings_are_told_before_anything_is_written(
    cell: Path, verb: str, text: str, expected: str
) -> None:
    before = snapshot(cell.parent)
    assert refusal(verb, cell, "--p-noise", "standard", "--settings", text).startswith(expected)
    assert snapshot(cell.parent) == before


@pytest.mark.parametrize("verb", MEASURES)
def test_an_unknown_p_noise_is_refused_not_taken_for_another(cell: Path, verb: str) -> None:
    before = snapshot(cell.parent)
    result = call(verb, cell, "--p-noise", "standart")
    assert result.exit_code == 2
    assert "'standart' is not one of 'standard', 'matched'" in plain(result.stderr)
    assert snapshot(cell.parent) == before


@pytest.mark.parametrize("verb", MEASURES)
def test_a_p_noise_given_twice_is_refused_not_counted_twice(cell: Path, verb: str) -> None:
    before = snapshot(cell.parent)
    assert "given twice" in refusal(verb, cell, "--p-noise", "standard", "--p-noise", "standard")
    assert snapshot(cell.parent) == before


def test_a_running_elbo_below_epsilon_is_refused(cell: Path) -> None:
    before = snapshot(cell.parent)
    options = ("--p-noise", "standard", "--settings", '{"times": 100000}')
    assert "not above epsilon" in refusal("running", cell, *options)
    assert snapshot(cell.parent) == before


@pytest.mark.parametrize("verb", ["train", "elbo"])
def test_the_environment_s_word_on_devices_is_heard_by_hand_too(
    cell: Path, verb: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("DIFFTIME_DEVICE", "nonsense")
    options = () if verb == "train" else ("--p-noise", "standard")
    assert refusal(verb, cell, *options) == "DIFFTIME_DEVICE is nonsense; it can be cpu, or not set at all."


def test_images_are_not_drawn_on_two_gpus(cell: Path) -> None:
    result = call("image-samples", cell, "--p-noise", "standard", "--gpus", 2)
    assert result.exit_code == 2
    assert "less than or equal to 1" in plain(result.stderr)


@pytest.mark.parametrize("arguments", [("figure", "fig5", "--table"), ("collect", "elbos", "--cells")])
def test_an_unknown_figure_or_table_is_refused_with_the_known_ones(cell: Path, arguments: tuple[str, ...]) -> None:
    before = snapshot(cell.parent)
    result = call(*arguments, cell.parent / "elbo.parquet", "--output", cell.parent / "out.pdf")
    assert result.exit_code == 2
    assert f"'{arguments[1]}' is not one of" in plain(result.stderr)
    assert snapshot(cell.parent) == before


def test_every_table_that_is_collected_has_a_measurement() -> None:
    assert {*MEASURED_BY, "runs"} == set(get_args(CollectedName))


# Studies that are not finished


@pytest.fixture
def half(cell: Path, tmp_path: Path) -> Path:
    """The results of a study of two cells, of which one is measured."""
    grid = {
        "study": [{"dataset": "toy", "sde": "vp", "net": "mlp", "T": [0.5, 0.7], "measure": "elbo"}],
        "families": {"toy": "mixture"},
    }
    results = tmp_path / "results"
    measured = results / "cells/dataset=toy/sde=vp/net=mlp/T=0.5"
    measured.mkdir(parents=True)
    (results / "cells.json").write_text(json.dumps(grid))
    for name in ("cell.json", WEIGHTS):
        shutil.copy(cell.parent / name, measured)
    assert (
        call("elbo", measured / "cell.json", "--p-noise", "standard", "--settings", '{"time_steps": 8}').exit_code == 0
    )
    return results


def test_a_partial_table_has_what_is_there_and_beside_it_what_is_missing(half: Path, tmp_path: Path) -> None:
    options = ["--cells", half / "cells.json", "--output", tmp_path / "partial/elbo.parquet"]
    assert "T=0.7" in refusal("collect", "elbo", *options)
    result = call("collect", "elbo", *options, "--partial")
    assert result.exit_code == 0
    assert "1 of 2 parts of elbo are missing." in result.stderr
    assert set(tables.read(tmp_path / "partial/elbo.parquet", "elbo")["T"]) == {0.5}
    missing = tables.read(tmp_path / "partial/elbo-missing.parquet", "missing")
    assert missing.to_dict("records") == [
        {"dataset": "toy", "sde": "vp", "net": "mlp", "T": 0.7, "file": "elbo.parquet"}
    ]


def test_a_partial_table_never_takes_the_place_of_a_whole_one(half: Path) -> None:
    (half / "tables").mkdir()
    whole = half / "tables/elbo.parquet"
    message = refusal("collect", "elbo", "--cells", half / "cells.json", "--output", whole, "--partial")
    assert "another folder" in message
    assert not whole.exists()


def test_a_partial_table_without_any_row_is_refused(half: Path, tmp_path: Path) -> None:
    shutil.rmtree(half / "cells")
    options = ["--cells", half / "cells.json", "--output", tmp_path / "partial/elbo.parquet", "--partial"]
    assert refusal("collect", "elbo", *options) == "No cell has its part of the table elbo yet."


def test_an_unfinished_study_is_not_shown_as_finished(half: Path) -> None:
    message = refusal("show", half)
    assert message.startswith(f"The study in {half} is not complete")
    assert "cells/dataset=toy/sde=vp/net=mlp/T=0.7/elbo.parquet" in message
    assert "T=0.5/elbo.parquet" not in message
    assert "tables/optimum.parquet" in message


def test_a_refinement_that_goes_on_is_collected_partially_only_and_says_so(half: Path, tmp_path: Path) -> None:
    grid = json.loads((half / "cells.json").read_text())
    grid["study"][0]["refine"] = {"tolerance": 0.01, "cells": 5}
    (half / "cells.json").write_text(json.dumps(grid))
    decision = half / "refine/dataset=toy/sde=vp/net=mlp/round=1.json"
    decision.parent.mkdir(parents=True)
    found = {"T_star": 0.6, "T_star_low": 0.6, "T_star_high": 0.6, "below": 0.5, "above": 0.7, "interior": True}
    said = {"p_noise": "standard", "trained": [0.5, 0.7], "left_out": [], "add": 0.6, "stopped": None, "why": "any"}
    decision.write_text(json.dumps(found | said))
    options = ["--cells", half / "cells.json", "--output", tmp_path / "partial/elbo.parquet"]
    assert "round=2.json does not exist: the refinement of this line has not come to its end" in refusal(
        "collect", "elbo", *options
    )
    assert "round=2.json" in refusal("show", half)
    result = call("collect", "elbo", *options, "--partial")
    assert result.exit_code == 0
    assert "WARNING: cells may be to come" in result.stderr
    assert set(tables.read(tmp_path / "partial/elbo-missing.parquet", "missing")["T"]) == {0.6, 0.7}
    decision.write_text("{")
    assert "round=1.json is damaged" in refusal("collect", "elbo", *options, "--partial")


def test_what_to_refine_to_has_no_default(tmp_path: Path) -> None:
    place = ["--p-noise", "standard", "--output", tmp_path / "round=1.json"]
    message = refusal("refine", tmp_path / "running.parquet", *place, "--settings", '{"cells": 3}')
    assert "tolerance: is missing" in message


# Files with faults


@pytest.mark.parametrize("verb", ["train", *MEASURES])
@pytest.mark.parametrize(
    ("content", "expected", "remedy"),
    [
        (None, "does not exist", "Snakemake writes it"),
        ("", "cannot be read as a cell's settings", "Delete it and run Snakemake"),
        (settings().canonical()[:99], "cannot be read as a cell's settings", "Delete it and run Snakemake"),
        ("[]", "has a fault", "must be keys and their values"),
        (settings().canonical().replace('"T": 0.5', '"T": -0.5'), "has a fault", "T: must be greater than 0"),
        (settings().canonical().replace('"mlp"', '"unet"'), "has a fault", "network: kind must be 'mlp', 'ncsnpp'"),
    ],
    ids=["missing", "empty", "cut short", "a list", "negative T", "unknown network"],
)
def test_a_missing_or_damaged_cell_file_is_named_with_its_remedy(
    cell: Path, verb: str, content: str | None, expected: str, remedy: str
) -> None:
    cell.unlink()
    if content is not None:
        cell.write_text(content)
    before = snapshot(cell.parent)
    message = refusal(verb, cell, *(["--p-noise", "standard"] if verb != "train" else []))
    assert message.startswith(f"{cell} {expected}")
    assert remedy in message
    assert snapshot(cell.parent) == before


def cut(path: Path) -> None:
    path.write_bytes(path.read_bytes()[:-40])


def cut_to_nothing(path: Path) -> None:
    path.write_bytes(b"")


def flip_a_value(path: Path) -> None:
    content = bytearray(path.read_bytes())
    content[-7] ^= 1
    path.write_bytes(content)


def read_as_another_type(path: Path) -> None:
    path.write_bytes(path.read_bytes().replace(b'"F32"', b'"I32"'))


def train_elsewhere(path: Path) -> None:
    other = build(settings(seed=1))
    save_weights(path, other.score.net.state_dict(), other.digest)


def write_without_checksum(path: Path) -> None:
    problem = build(settings())
    safetensors.torch.save_file(problem.score.net.state_dict(), path, metadata={"cell": problem.digest})


def pickle_them(path: Path) -> None:
    torch.save(build(settings()).score.net.state_dict(), path)


@pytest.mark.parametrize("verb", MEASURES)
@pytest.mark.parametrize(
    ("damage", "expected", "remedy"),
    [
        (Path.unlink, "does not exist", "Run `difftime train`"),
        (cut, "cannot be read as weights", "run again"),
        (cut_to_nothing, "cannot be read as weights", "run again"),
        (pickle_them, "cannot be read as weights", "run again"),
        (flip_a_value, "does not match its checksum", "run again"),
        (read_as_another_type, "does not match its checksum", "run again"),
        (write_without_checksum, "does not match its checksum", "run again"),
        (train_elsewhere, "was trained with other settings", "run again"),
    ],
    ids=lambda value: value.__name__.replace("_", " ") if callable(value) else "",
)
def test_weights_that_are_missing_damaged_or_another_cells_are_named_in_one_line_with_the_remedy(
    cell: Path, verb: str, damage, expected: str, remedy: str
) -> None:
    weights = cell.parent / WEIGHTS
    damage(weights)
    before = snapshot(cell.parent)
    message = refusal(verb, cell, "--p-noise", "standard")
    assert message.startswith(f"{weights} {expected}")
    assert remedy in message
    assert "\n" not in message
    assert snapshot(cell.parent) == before


def test_no_single_flipped_byte_of_the_weights_goes_unnoticed(cell: Path) -> None:
    """In the header every byte, in the values every 13th: whatever is read back is what was written."""
    weights, problem = cell.parent / WEIGHTS, build(settings())
    whole = weights.read_bytes()
    header = 8 + int.from_bytes(whole[:8], "little")
    written = {name: tensor.clone() for name, tensor in problem.score.net.state_dict().items()}
    noticed = 0
    for place in [*range(header), *range(header, len(whole), 13)]:
        weights.write_bytes(whole[:place] + bytes([whole[place] ^ 1]) + whole[place + 1 :])
        try:
            read = difftime.training.checkpoint.load_weights(weights, problem.digest)
        except difftime.training.checkpoint.BadFile:
            noticed += 1
        else:
            assert read.keys() == written.keys()
            assert all(torch.equal(read[name], written[name]) for name in read)
    assert noticed > header / 2


@pytest.mark.parametrize(
    "arguments",
    [
        ("optimum", "--elbo"),
        ("bounds", "--likelihood", "{missing}", "--elbo"),
        ("summarise", "--optimum", "{missing}", "--elbo"),
        ("figure", "fig1", "--table"),
    ],
    ids=lambda arguments: arguments[0],
)
@pytest.mark.parametrize("content", [None, b"", b"an older measurement"], ids=["missing", "empty", "damaged"])
def test_a_missing_or_damaged_table_is_named_with_its_remedy(
    tmp_path: Path, arguments: tuple[str, ...], content: bytes | None
) -> None:
    table = tmp_path / "table.parquet"
    if content is not None:
        table.write_bytes(content)
    filled = [argument.format(missing=tmp_path / "missing.parquet") for argument in arguments]
    before = snapshot(tmp_path)
    message = refusal(*filled, table, "--output", tmp_path / "out.parquet")
    assert message.startswith(f"{table} cannot be read as a Parquet table")
    assert "run again" in message
    assert snapshot(tmp_path) == before


def test_a_damaged_list_of_cells_is_named(tmp_path: Path) -> None:
    cells = tmp_path / "cells.json"
    cells.write_text('[{"dataset": ')
    assert refusal("collect", "elbo", "--cells", cells, "--output", tmp_path / "elbo.parquet").startswith(
        f"{cells} is not JSON"
    )
    cells.unlink()
    assert str(cells) in refusal("collect", "elbo", "--cells", cells, "--output", tmp_path / "elbo.parquet")
    assert not list(tmp_path.iterdir())


def test_a_folder_that_cannot_be_made_is_named(cell: Path) -> None:
    taken = cell.parent / "taken"
    taken.write_text("a file")
    grid = {
        "study": [{"dataset": "toy", "sde": "vp", "net": "mlp", "T": 0.5}],
        "families": {"toy": "mixture"},
    }
    (cell.parent / "cells.json").write_text(json.dumps(grid))
    before = snapshot(cell.parent)
    message = refusal("collect", "elbo", "--cells", cell.parent / "cells.json", "--output", taken / "elbo.parquet")
    assert "cells/dataset=toy/sde=vp/net=mlp/T=0.5/elbo.parquet" in message
    assert snapshot(cell.parent) == before


def test_an_error_nobody_expected_keeps_its_traceback(cell: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """It is a fault of the program, and the traceback is what its author needs."""

    def broken(*_: object, **__: object) -> None:
        raise ZeroDivisionError

    monkeypatch.setattr("difftime.study.commands.elbo.run", broken)
    result = call("elbo", cell, "--p-noise", "standard")
    assert isinstance(result.exception, ZeroDivisionError)


@pytest.mark.parametrize("error", [BadSettings, BadTable, OSError, difftime.training.checkpoint.BadFile])
def test_an_expected_error_is_its_message_alone(
    cell: Path, monkeypatch: pytest.MonkeyPatch, error: type[Exception]
) -> None:
    def broken(*_: object, **__: object) -> None:
        raise error("This is why.")

    monkeypatch.setattr("difftime.study.commands.elbo.run", broken)
    assert refusal("elbo", cell, "--p-noise", "standard") == "This is why."


def test_the_program_itself_ends_with_one_line_on_standard_error(tmp_path: Path) -> None:
    told = subprocess.run(
        [sys.executable, "-m", "difftime.cli", "elbo", tmp_path / "cell.json", "--p-noise", "standard"],
        capture_output=True, text=True,
    )  # fmt: skip
    assert told.returncode == 1
    assert told.stdout == ""
    assert told.stderr.startswith(f"difftime: {tmp_path / 'cell.json'} does not exist.")
    assert told.stderr.count("\n") == 1
    assert not list(tmp_path.iterdir())


def test_figure_settings_pass_through_the_command_line_unchanged() -> None:
    text = FigureSettings(width=3).of("fig3")
    assert FigureSettings.model_validate(json.loads(text)).of("fig3") == text
