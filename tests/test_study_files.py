"""Study files: laid over each other, every value with its file and line, whatever the place, locale or encoding."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from studies import ROOT

from difftime.study.settings import BadSettings, Study, read_files, read_study

RINGS = """\
results: results/mine
datasets: {rings: {weights: [0.5, 0.5], means: [[-1, 0], [1, 1]], stds: [0.4, 0.5]}}
study: [{dataset: rings, sde: vp, net: mlp-32x2, T: [0.2, 0.6, 1.0]}]
"""


@pytest.fixture(autouse=True)
def _elsewhere(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)


def read(*texts: str, overrides: dict[str, Any] | None = None) -> Study:
    """The study in config.yaml with files over it: 1.yaml, 2.yaml, ..."""
    paths = [Path(f"{k}.yaml") for k in range(1, len(texts) + 1)]
    for path, text in zip(paths, texts, strict=True):
        path.write_text(text, encoding="utf-8")
    return read_study(paths, overrides)


def refused(*texts: str, overrides: dict[str, Any] | None = None) -> list[str]:
    with pytest.raises(BadSettings) as error:
        read(*texts, overrides=overrides)
    return str(error.value).splitlines()


# What is laid over what


def test_three_lines_are_a_study() -> None:
    """Its data set, its grid and its results; SDEs, networks and measurements are config.yaml's."""
    whole = read(RINGS)
    assert len(whole.grid()) == 3
    assert {dataset for _, dataset, _ in whole.cells().figures()} == {"rings"}
    assert whole.elbo.time_steps == 160


def test_a_file_alone_needs_sdes_and_networks_of_its_own() -> None:
    Path("mine.yaml").write_text(RINGS)
    with pytest.raises(BadSettings) as error:
        read_study([Path("mine.yaml")], base=None)
    assert [line.split(": ")[0] for line in str(error.value).splitlines()[1:]] == ["  - sdes", "  - nets"]
    Path("mine.yaml").write_text(RINGS + "sdes: {vp: {kind: vp}}\nnets: {mlp-32x2: {}}\n")
    assert len(read_study([Path("mine.yaml")], base=None).grid()) == 3


def test_later_files_and_then_the_command_line_win_and_mappings_are_merged() -> None:
    whole = read("seed: 1\nelbo: {points: 7}\n", "seed: 2\nelbo: {times: 9}\n", overrides={"elbo": {"times": 8}})
    assert (whole.seed, whole.elbo.points, whole.elbo.times, whole.elbo.time_steps) == (2, 7, 8, 160)


def test_an_entry_of_another_kind_replaces_the_old_one() -> None:
    whole = read(
        "datasets: {toy: {kind: folder, path: here}}\nsdes: {ve: {kind: ve-geometric, sigma_min: 0.02}}\n"
        "nets: {mlp-32x2: {kind: ncsnpp, width: 8}}\n"
        "study: [{dataset: toy, sde: ve, net: mlp-32x2, T: 1}]\n"
    )
    assert (whole.datasets["toy"].seeds, whole.datasets["toy"].training.steps) == (1, 65_000)
    assert (whole.sdes["ve"].sigma_min, whole.nets["mlp-32x2"].width) == (0.02, 8)


def test_an_entry_of_the_same_kind_is_merged_whether_or_not_it_states_it() -> None:
    for kind in ("", "kind: mixture, "):
        assert read(f"datasets: {{toy: {{{kind}seeds: 3}}}}").datasets["toy"].weights == (0.3, 0.7)


def test_covariances_take_the_place_of_standard_deviations_and_the_other_way_round() -> None:
    covariances = "datasets: {toy: {covariances: [[[0.01]], [[0.25]]]}}"
    assert read(covariances).datasets["toy"].stds is None
    assert read(covariances, "datasets: {toy: {stds: [1, 2]}}").datasets["toy"].covariances is None
    assert len(refused("datasets: {toy: {stds: [1, 2], covariances: [[[1]], [[4]]]}}")) == 2


# Where a fault is from


def test_every_fault_names_the_file_and_the_line_of_its_value() -> None:
    line = 1 + (ROOT / "config.yaml").read_text().splitlines().index("    means: [1.0, 3.0]")
    _, *lines = refused(
        "seed: 3\ndatasets:\n  toy:\n    weights: [1.0]\n",
        "elbo:\n  points: 5\n  time_step: 80\n"
        "study:\n  - {dataset: toy, sde: vp, net: mlp-32x2,\n     T: [0.5, 1.0e-6]}\n",
        overrides={"seed": -1},
    )
    told = {place: origin.removeprefix("  - ") for origin, place, *_ in (one.split(": ") for one in lines)}
    assert told.pop("datasets.toy.means").endswith(f"config.yaml, line {line}")
    assert told.pop("datasets.toy.stds").endswith(f"config.yaml, line {line + 1}")
    assert told == {"seed": "--config", "elbo.time_step": "2.yaml, line 3", "study[0].T[1]": "2.yaml, line 6"}


def test_what_is_missing_is_told_with_the_line_of_what_it_is_missing_in() -> None:
    (_, line) = refused("results: out\ndatasets:\n  rings:\n    weights: [1]\n    stds: [1]\n")
    assert line.startswith("  - 1.yaml, line 3: datasets.rings.means: ")


def test_merge_keys_and_anchors_keep_their_lines() -> None:
    lines = refused(
        "datasets:\n  toy: &toy\n    seeds: 0\n"
        "  other:\n    <<: *toy\n    weights: [1]\n    means: [1]\n    stds: [1]\n"
    )
    assert [line.split(": ")[:2] for line in lines[1:]] == [
        ["  - 1.yaml, line 3", "datasets.toy.seeds"], ["  - 1.yaml, line 3", "datasets.other.seeds"],
    ]  # fmt: skip


def test_a_key_that_stands_twice_is_refused_with_its_line() -> None:
    lines = refused("results: a\nelbo:\n  points: 3\n  time_steps: 4\n  points: 5\nresults: b\n")
    assert [line.strip(" -") for line in lines[1:]] == [
        "1.yaml, line 6: results is given again", "1.yaml, line 5: points is given again",
    ]  # fmt: skip


# Files as they come


@pytest.mark.parametrize(
    ("content", "told"),
    [
        (b"study: [1\n  - {:", "line 2"),
        (b"results: a\n\tseed: 1\n", "line 2"),
        (b"- results\n- study\n", "keys at its top level"),
        (b"", "keys at its top level"),
        ("results: früh".encode("latin-1"), "not UTF-8, at byte 11"),
        (b"? [a]\n: 1\n", "unhashable"),
        (b"a: !!python/object/apply:os.system [touch harm]\n", "could not determine a constructor"),
    ],
)
def test_a_file_that_cannot_be_read_is_named(content: bytes, told: str) -> None:
    path = Path("mine.yaml")
    path.write_bytes(content)
    with pytest.raises(BadSettings) as error:
        read_files([path])
    assert "mine.yaml" in str(error.value)
    assert told in str(error.value)
    assert not Path("harm").exists()


def test_a_file_that_is_not_there_is_named() -> None:
    with pytest.raises(BadSettings, match=r"nowhere\.yaml cannot be read: No such file"):
        read_files([Path("nowhere.yaml")])


def test_json_may_be_indented_with_tabs_and_keeps_its_lines() -> None:
    """Fault 22."""
    Path("mine.json").write_text('{\n\t"results": "out",\n\t"elbo": {\n\t\t"points": 1e3,\n\t\t"times": -1\n\t}\n}\n')
    assert read_files([Path("mine.json")])["elbo"] == {"points": 1000.0, "times": -1}
    with pytest.raises(BadSettings, match=r"mine.json, line 5: elbo.times: "):
        read_study([Path("mine.json")])


@pytest.mark.parametrize("encoding", ["utf-8", "utf-8-sig"])
def test_files_are_utf8_whatever_the_locale(encoding: str) -> None:
    """Fault 13."""
    Path("mine.yaml").write_text("# Größe\nresults: ergebnisse-ü\n", encoding=encoding)
    code = "from pathlib import Path; from difftime.study.settings import read_study; "
    code += "print(ascii(read_study([Path('mine.yaml')]).results))"
    locale = {"LC_ALL": "C", "PYTHONUTF8": "0", "PYTHONCOERCECLOCALE": "0", "PYTHONPATH": str(ROOT)}
    found = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, env=os.environ | locale)
    assert found.stdout == ascii("ergebnisse-ü") + "\n", found.stderr


# Through Snakemake

SNAKEFILE = """\
from snakemake.exceptions import WorkflowError
from difftime.study.settings import BadSettings, read_study

given = workflow.config_settings
try:
    STUDY = read_study(given.configfiles, given.config, known=given.overwrite_config)
except BadSettings as error:
    raise WorkflowError(str(error)) from None
print(f"RESULTS {STUDY.results} SEED {STUDY.seed} CELLS {len(STUDY.grid())}")


rule all:
"""


def snakemake(command: str) -> tuple[int, str]:
    """What Snakemake says in a shell, in the folder of the test."""
    finished = subprocess.run(
        ["bash", "-c", command.replace("snakemake", f"{sys.executable} -m snakemake -n -s Snakefile")],
        capture_output=True, text=True, timeout=120,
        env=os.environ | {"PYTHONPATH": str(ROOT), "XDG_CACHE_HOME": str(Path("cache").absolute())},
    )  # fmt: skip
    return finished.returncode, finished.stdout + finished.stderr


@pytest.mark.parametrize(
    ("command", "found"),
    [
        ("snakemake --configfile mine.yaml", "RESULTS results/mine SEED 0 CELLS 3"),
        ("snakemake --configfile mine.yaml --config seed=7 results=there", "RESULTS there SEED 7 CELLS 3"),
        ("snakemake --configfile mine.yaml --directory sub", "RESULTS results/mine SEED 0 CELLS 3"),
        ("snakemake --configfile <(echo '{\"seed\": 5}')", "RESULTS results SEED 5 CELLS 52"),
    ],
    ids=["elsewhere", "values on the command line", "another directory", "a pipe"],
)
def test_snakemake_finds_the_defaults_and_the_users_files_wherever_it_is_started(command: str, found: str) -> None:
    """Faults 12 and 22: in a folder without a config.yaml; of a pipe, Snakemake itself reads JSON only."""
    Path("Snakefile").write_text(SNAKEFILE)
    Path("mine.yaml").write_text(RINGS)
    code, output = snakemake(command)
    assert code == 0, output
    assert found in output


def test_snakemake_stops_with_one_readable_message() -> None:
    Path("Snakefile").write_text(SNAKEFILE)
    Path("mine.yaml").write_text("sdes: {vp: {beta_min: -1}}\nelbo: {time_step: 80}\n")
    code, output = snakemake("snakemake --configfile mine.yaml")
    assert code != 0
    assert "The study has 2 faults:" in output
    assert "mine.yaml, line 1: sdes.vp.beta_min: " in output
    assert "mine.yaml, line 2: elbo.time_step: no such key; did you mean time_steps? (found: 80)" in output
    assert "Traceback" not in output
