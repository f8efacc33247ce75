"""The command line: it says what is wrong in a few words, ends with an error, and leaves what is there as it was."""

from __future__ import annotations

import json
import re
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import safetensors.torch
import torch
import typer.main
from typer.testing import CliRunner, Result

import difftime
from difftime.cli import app
from difftime.study.cell import WEIGHTS, build
from difftime.study.fingerprint import fingerprint
from difftime.study.registry import MEASUREMENTS
from difftime.study.settings import BadSettings, Cell, MixtureSettings, MLPSettings, TrainingSettings
from difftime.study.settings.sdes import VPSettings
from difftime.tables.parquet import BadTable, read
from difftime.training.checkpoint import BadFile, load_weights, save_weights

ROOT = Path(__file__).parents[1]
COMMANDS = typer.main.get_command(app).commands
PLACE = "cells/dataset=toy/sde=vp/net=mlp/T=0.5"
QUICK: dict[str, dict[str, Any]] = {
    "elbo": {"time_steps": 4, "times": 2},
    "likelihood": {"points": 4, "grid_cells": 256, "grid_steps": 4},
    "samples": {"points": 8, "steps_per_unit_time": 8, "rtol": 0.1, "atol": 0.1, "evaluations": 2},
}
BOTH = ["standard", "matched"]


def call(*arguments: object) -> Result:
    return CliRunner().invoke(app, [str(argument) for argument in arguments], env={"COLUMNS": "200"})


def plain(text: str) -> str:
    """What a person reads on a terminal, without colours, boxes and line breaks."""
    return " ".join(re.sub("\x1b\\[[0-9;]*m|[─-╿]", "", text).split())


def refusal(*arguments: object) -> str:
    """The message of a command that ends with exit code 1, not with a traceback."""
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
    """The folder of a trained cell in a study's results; it has older measurements."""
    folder = tmp_path / "results" / PLACE
    folder.mkdir(parents=True)
    (folder / "cell.json").write_text(settings().canonical())
    problem = build(settings())
    save_weights(folder / WEIGHTS, problem.score.net.state_dict(), problem.digest)
    for name, measurement in MEASUREMENTS.items():
        own = tmp_path / "results" / "settings" / "toy" / f"{name}.json"
        own.parent.mkdir(parents=True, exist_ok=True)
        own.write_text(json.dumps(QUICK[name] | {"p_noise": BOTH}))
        for table in (*measurement.tables, *measurement.units):
            (folder / f"{table}.parquet").write_bytes(b"an older measurement")
    return folder


def snapshot(folder: Path) -> dict[str, tuple[int, bytes]]:
    return {
        str(path.relative_to(folder)): (path.stat().st_mtime_ns, path.read_bytes())
        for path in folder.rglob("*") if path.is_file()
    }  # fmt: skip


@pytest.mark.parametrize("name", COMMANDS)
def test_every_command_explains_itself_and_its_options(name: str) -> None:
    result = call(name, "--help")
    assert result.exit_code == 0
    assert plain(COMMANDS[name].help) in plain(result.stdout)
    shown = [parameter for parameter in COMMANDS[name].params if not getattr(parameter, "hidden", False)]
    assert all(option in plain(result.stdout) for parameter in shown for option in parameter.opts)


def test_every_command_of_the_workflow_exists_with_its_options() -> None:
    text = "".join(
        path.read_text() for path in [ROOT / "workflow" / "Snakefile", *(ROOT / "workflow" / "rules").glob("*.smk")]
    )
    text = re.sub(r'"\s*\n\s*"', "", text)  # a command over several lines
    commands = re.findall(r'"difftime ([\w-]+) ([^"]*)"', text)
    assert {name for name, _ in commands} >= {"train", "fit-noise", *MEASUREMENTS, "partial"}
    for name, rest in commands:
        known = {option for parameter in COMMANDS[name].params for option in parameter.opts}
        assert set(re.findall(r"--[a-z0-9-]+", rest)) <= known


def test_the_version_is_the_packages() -> None:
    assert call("--version").stdout == f"{difftime.__version__}\n"


def test_the_program_is_installed_under_its_name() -> None:
    run = subprocess.run([Path(sys.executable).parent / "difftime", "--version"], capture_output=True, text=True)
    assert (run.returncode, run.stdout) == (0, f"{difftime.__version__}\n")


@pytest.mark.parametrize("package", ["typer", "pydantic", "yaml"])
@pytest.mark.parametrize("module", ["difftime", "difftime.cli"])
def test_without_the_extra_study_the_command_names_it_in_one_line(module: str, package: str) -> None:
    code = f"import runpy, sys; sys.modules[{package!r}] = None; runpy.run_module({module!r}, run_name='__main__')"
    run = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    wanted = f"needs the package {package}, which is not installed: pip install 'difftime[study]'"
    assert (run.returncode, run.stdout, run.stderr) == (1, "", f"The command difftime {wanted}\n")


def test_an_unknown_command_is_refused() -> None:
    assert call("tarin").exit_code == 2


def imported_by(lines: str, names: set[str]) -> str:
    code = f"import sys; {lines}; print(sorted({names!r} & sys.modules.keys()))"
    return subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout


def test_settings_tables_and_figures_never_import_torch() -> None:
    folder = ROOT / "difftime"
    modules = [
        f"difftime.{path.relative_to(folder).with_suffix('').as_posix().replace('/', '.')}"
        for package in ("study/settings", "tables", "figures")
        for path in sorted((folder / package).glob("[a-z]*.py"))
    ]
    # that the tables import pandas shows that the question is asked rightly
    assert imported_by(f"import {', '.join(modules)}", {"torch", "pandas"}) == "['pandas']\n"


def test_the_command_line_itself_imports_nothing_heavy() -> None:
    heavy = {"torch", "pandas", "pyarrow", "matplotlib", "seaborn", "scipy", "numpy", "snakemake"}
    assert imported_by("import difftime.cli", heavy) == "[]\n"


# A cell that is as it should be


def test_a_cell_is_trained_and_measured_through_the_command_line(cell: Path) -> None:
    (cell / WEIGHTS).unlink()
    assert call("train", cell).exit_code == 0
    for name, measurement in MEASUREMENTS.items():
        old = snapshot(cell)
        assert call(name, cell).exit_code == 0
        new = snapshot(cell)
        assert {file for file in new if new[file] != old.get(file)} == {
            f"{table}.parquet" for table in (*measurement.tables, *measurement.units, f"run_{name}")
        }
        assert set(read(cell / f"{name}.parquet", name).p_noise) == {*BOTH}


def test_a_cell_is_named_by_its_folder_or_by_its_cell_file(cell: Path) -> None:
    found = []
    for name in (cell, cell / "cell.json"):
        assert call("elbo", name).exit_code == 0
        found.append((cell / "elbo.parquet").read_bytes())
    assert found[0] == found[1]


@pytest.mark.parametrize("name", MEASUREMENTS)
def test_other_settings_can_be_given(cell: Path, tmp_path: Path, name: str) -> None:
    (tmp_path / "mine.json").write_text(json.dumps(QUICK[name] | {"p_noise": "matched"}))
    assert call(name, cell, "--settings", tmp_path / "mine.json").exit_code == 0
    assert set(read(cell / f"{name}.parquet", name).p_noise) == {"matched"}


@pytest.mark.parametrize("name", ["train", *MEASUREMENTS])
def test_code_that_was_not_planned_is_refused_in_one_line_and_that_which_was_is_run(cell: Path, name: str) -> None:
    before = snapshot(cell)
    own = fingerprint(f"study.commands.{name}")
    message = refusal(name, cell, "--planned", "0123456789ab")
    assert "\n" not in message
    assert all(word in message for word in ("0123456789ab", own, str(ROOT / "difftime"), "run snakemake again"))
    assert snapshot(cell) == before
    assert call(name, cell, "--planned", own).exit_code == 0


# Settings with faults


@pytest.mark.parametrize("name", MEASUREMENTS)
@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("{points: 3}", "cannot be read as settings"),
        ("", "cannot be read as settings"),
        ("[3]", "holds no settings"),
        ('{"points": 8}', "p_noise:"),
        ('{"poinst": 3, "p_noise": "standard"}', "poinst: no such key; did you mean points?"),
        ('{"points": 0.5, "p_noise": "standard"}', "points:"),
        ('{"points": NaN, "p_noise": "standard"}', "points:"),
        ('{"points": 8, "p_noise": "standart"}', "standart"),
        ('{"points": 8, "p_noise": ["standard", "standard"]}', "is listed twice"),
    ],
)
def test_faults_in_the_settings_are_said_before_anything_is_written(
    cell: Path, tmp_path: Path, name: str, text: str, expected: str
) -> None:
    (tmp_path / "mine.json").write_text(text)
    before = snapshot(cell)
    message = refusal(name, cell, "--settings", tmp_path / "mine.json")
    assert message.startswith(str(tmp_path / "mine.json"))
    assert expected in message
    assert snapshot(cell) == before


@pytest.mark.parametrize("name", [*MEASUREMENTS, "fit-noise"])
def test_settings_that_are_not_there_are_asked_for_by_name(cell: Path, tmp_path: Path, name: str) -> None:
    shutil.rmtree(tmp_path / "results" / "settings")
    options = ["--p-noise", "full"] if name == "fit-noise" else []
    file = "noise_full.json" if name == "fit-noise" else f"{name}.json"
    for place in (cell, tmp_path / "alone"):
        cell.rename(place)
        message = refusal(name, place, *options)
        assert f"settings/toy/{file} does not exist" in message
        assert "--settings" in message


@pytest.mark.parametrize("name", ["train", "elbo"])
def test_the_environment_s_word_on_devices_is_heard_by_hand_too(
    cell: Path, name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("DIFFTIME_DEVICE", "nonsense")
    assert refusal(name, cell) == "DIFFTIME_DEVICE is nonsense; it can be cpu, or not set at all."


def test_samples_are_not_drawn_on_two_gpus(cell: Path) -> None:
    result = call("samples", cell, "--gpus", 2)
    assert result.exit_code == 2
    assert "--gpus" in plain(result.stderr)


# Studies that are not finished


STUDY = {
    "datasets": {"toy": {"weights": [0.3, 0.7], "means": [1, 3], "stds": [0.1, 0.5], "samples": 64, "seeds": 2}},
    "sdes": {"vp": {"kind": "vp"}},
    "nets": {"mlp": {"width": 4, "depth": 1}},
    "study": [{"dataset": "toy", "sde": "vp", "net": "mlp", "T": [0.5, 0.7], "measure": "elbo"}],
}


@pytest.fixture
def half(cell: Path, tmp_path: Path) -> Path:
    """The results of a study of two cells, of which one is measured."""
    (tmp_path / "results" / "study.json").write_text(json.dumps(STUDY))
    assert call("elbo", cell).exit_code == 0
    return tmp_path / "results"


def test_a_partial_table_has_what_is_there_and_beside_it_what_is_missing(half: Path, tmp_path: Path) -> None:
    options = ["--results", half, "--output", tmp_path / "mine/elbo.parquet"]
    assert "T=0.7" in refusal("collect", "toy", "elbo", *options)
    result = call("collect", "toy", "elbo", *options, "--partial")
    assert result.exit_code == 0
    assert "1 of 2 parts of elbo are missing." in result.stderr
    assert set(read(tmp_path / "mine/elbo.parquet", "elbo")["T"]) == {0.5}
    missing = read(tmp_path / "mine/elbo-missing.parquet", "missing")
    assert missing.to_dict("records") == [
        {"dataset": "toy", "sde": "vp", "net": "mlp", "T": 0.7, "file": "elbo.parquet"}
    ]


def test_a_partial_table_never_takes_the_place_of_a_whole_one(half: Path) -> None:
    for place in ("tables/toy", "tables"):
        whole = half / place / "elbo.parquet"
        assert "another folder" in refusal("collect", "toy", "elbo", "--results", half, "--output", whole, "--partial")
        assert not whole.exists()


def test_a_partial_table_without_any_row_is_refused(half: Path, tmp_path: Path) -> None:
    shutil.rmtree(half / "cells")
    options = ["--results", half, "--output", tmp_path / "mine/elbo.parquet", "--partial"]
    assert refusal("collect", "toy", "elbo", *options) == "No cell has its part of the table elbo yet."


def test_a_table_is_not_written_to_a_folder(half: Path) -> None:
    for output in ("", half):
        assert call("collect", "toy", "elbo", "--results", half, "--output", output).exit_code == 2


def test_a_damaged_part_costs_a_partial_study_its_table_alone(half: Path) -> None:
    (half / PLACE / "curve.parquet").write_bytes(b"damaged")
    result = call("partial", half)
    assert result.exit_code == 0, result.exception
    assert "table toy/curve: " in result.stdout
    assert f"{PLACE}/curve.parquet" in result.stdout
    assert set(read(half / "partial/tables/toy/elbo.parquet", "elbo")["T"]) == {0.5}


def test_an_unknown_table_and_unknown_data_are_refused_with_the_known_ones(half: Path, tmp_path: Path) -> None:
    assert "toys; there are cells on toy" in refusal(
        "collect", "toys", "elbo", "--results", half, "--output", tmp_path / "mine.parquet"
    )
    message = refusal("collect", "toy", "elbos", "--results", half, "--output", tmp_path / "mine.parquet")
    assert "elbos" in message
    assert all(table in message for table in MEASUREMENTS["samples"].tables)


def test_an_unfinished_study_is_not_shown_as_finished(half: Path) -> None:
    message = refusal("show", half)
    assert message.startswith(f"The study in {half} is not complete")
    assert f"{PLACE.replace('0.5', '0.7')}/elbo.parquet" in message
    assert f"{PLACE}/elbo.parquet" not in message
    assert "tables/toy/optimum.parquet" in message
    assert f"difftime partial {half}" in message
    assert "snakemake --touch --forceall" in message


def test_what_there_is_of_a_study_becomes_tables_and_the_rest_a_list(half: Path) -> None:
    (half / PLACE / "training.parquet").unlink(missing_ok=True)
    result = call("partial", half)
    assert result.exit_code == 0, result.exception
    assert set(read(half / "partial/tables/toy/elbo.parquet", "elbo")["T"]) == {0.5}
    missing = read(half / "partial/tables/toy/missing.parquet", "missing")
    assert {(row["T"], row.file) for _, row in missing.iterrows()} >= {(0.7, "elbo.parquet"), (0.5, "training.parquet")}
    assert (0.5, "elbo.parquet") not in {(row["T"], row.file) for _, row in missing.iterrows()}
    assert not (half / "tables").exists()
    assert str(half / "partial") in refusal("show", half)


def test_the_next_T_is_suggested_from_what_there_is(half: Path) -> None:
    result = call("suggest", half)
    assert result.exit_code == 0, result.exception
    assert {line.partition(" p_noise: ")[0] for line in result.stdout.splitlines()} == {
        "toy vp mlp, standard", "toy vp mlp, matched",
    }  # fmt: skip
    shutil.rmtree(half / "cells")
    assert refusal("suggest", half) == f"No cell in {half} has its ELBO measured yet: run snakemake first."


@pytest.mark.parametrize("command", ["show", "partial", "suggest"])
def test_a_folder_without_a_study_and_a_damaged_study_are_named(tmp_path: Path, command: str) -> None:
    for content in (None, "", '{"study": ', "[1]", "{}"):
        if content is not None:
            (tmp_path / "study.json").write_text(content)
        assert str(tmp_path / "study.json") in refusal(command, tmp_path)
        assert [path.name for path in tmp_path.iterdir()] == (["study.json"] if content is not None else [])


# Files with faults


def test_a_folder_that_is_no_cell_is_refused_by_name(cell: Path) -> None:
    for place in (cell.parent, cell / "cells.json", cell.parent / "cell.json"):
        result = call("train", place)
        assert result.exit_code == 2
        assert "has no cell.json" in plain(result.stderr)


@pytest.mark.parametrize("name", ["train", *MEASUREMENTS])
@pytest.mark.parametrize(
    ("content", "expected", "remedy"),
    [
        ("", "cannot be read as a cell's settings", "Delete it and run Snakemake"),
        (settings().canonical()[:99], "cannot be read as a cell's settings", "Delete it and run Snakemake"),
        ("[]", "has a fault", "found: []"),
        (settings().canonical().replace('"T": 0.5', '"T": -0.5'), "has a fault", "T: "),
        (settings().canonical().replace('"mlp"', '"unet"'), "has a fault", "network: "),
    ],
    ids=["empty", "cut short", "a list", "negative T", "unknown network"],
)
def test_a_damaged_cell_file_is_named_with_its_remedy(
    cell: Path, name: str, content: str, expected: str, remedy: str
) -> None:
    (cell / "cell.json").write_text(content)
    before = snapshot(cell)
    message = refusal(name, cell)
    assert message.startswith(f"{cell / 'cell.json'} {expected}")
    assert remedy in message
    assert snapshot(cell) == before


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


@pytest.mark.parametrize("name", MEASUREMENTS)
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
    cell: Path, name: str, damage: Callable[[Path], None], expected: str, remedy: str
) -> None:
    weights = cell / WEIGHTS
    damage(weights)
    before = snapshot(cell)
    message = refusal(name, cell)
    assert message.startswith(f"{weights} {expected}")
    assert remedy in message
    assert "\n" not in message
    assert snapshot(cell) == before


def test_no_single_flipped_byte_of_the_weights_goes_unnoticed(cell: Path) -> None:
    """In the header every byte, in the values every 13th: whatever is read back is what was written."""
    weights, problem = cell / WEIGHTS, build(settings())
    whole = weights.read_bytes()
    header = 8 + int.from_bytes(whole[:8], "little")
    written = {name: tensor.clone() for name, tensor in problem.score.net.state_dict().items()}
    noticed = 0
    for place in [*range(header), *range(header, len(whole), 13)]:
        weights.write_bytes(whole[:place] + bytes([whole[place] ^ 1]) + whole[place + 1 :])
        try:
            read = load_weights(weights, problem.digest)
        except BadFile:
            noticed += 1
        else:
            assert read.keys() == written.keys()
            assert all(torch.equal(read[name], written[name]) for name in read)
    assert noticed > header / 2


@pytest.mark.parametrize("content", [b"", b"an older measurement"], ids=["empty", "damaged"])
def test_a_damaged_part_of_a_table_is_named_with_its_remedy(half: Path, content: bytes) -> None:
    part = half / PLACE / "elbo.parquet"
    part.write_bytes(content)
    before = snapshot(half)
    message = refusal("collect", "toy", "elbo", "--results", half, "--output", half / "mine.parquet", "--partial")
    assert message.startswith(f"{part} cannot be read as a Parquet table")
    assert "run again" in message
    assert snapshot(half) == before


def test_an_error_nobody_expected_keeps_its_traceback(cell: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """It is a fault of the program, and the traceback is what its author needs."""

    def broken(*_: object, **__: object) -> None:
        raise ZeroDivisionError

    monkeypatch.setattr("difftime.study.commands.elbo.run", broken)
    assert isinstance(call("elbo", cell).exception, ZeroDivisionError)


@pytest.mark.parametrize("error", [BadSettings, BadTable, OSError, BadFile])
def test_an_expected_error_is_its_message_alone(
    cell: Path, monkeypatch: pytest.MonkeyPatch, error: type[Exception]
) -> None:
    def broken(*_: object, **__: object) -> None:
        raise error("This is why.")

    monkeypatch.setattr("difftime.study.commands.elbo.run", broken)
    assert refusal("elbo", cell) == "This is why."


def test_the_program_itself_ends_with_one_line_on_standard_error(cell: Path) -> None:
    (cell / WEIGHTS).unlink()
    run = subprocess.run(
        [sys.executable, "-m", "difftime.cli", "elbo", cell], capture_output=True, text=True, check=False
    )
    assert run.returncode == 1
    assert run.stdout == ""
    assert run.stderr.startswith(f"difftime: {cell / WEIGHTS} does not exist")
    assert run.stderr.count("\n") == 1
