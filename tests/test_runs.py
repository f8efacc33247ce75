"""Every job leaves a record of where its numbers come from, and nothing about the record can spoil the job."""

from __future__ import annotations

import json
import logging
import os
import subprocess
from datetime import datetime
from pathlib import Path

import pandas as pd
import pytest
import torch

from difftime import __version__
from difftime.study import runs
from difftime.study.runs import recorded
from difftime.study.settings import (
    Cell,
    MixtureLikelihoodSettings,
    MixtureSettings,
    MLPSettings,
    TrainingSettings,
)
from difftime.study.settings.sdes import VPSettings
from difftime.tables.parquet import read

CELL = Cell(
    dataset="toy", sde="vp", net="mlp", T=0.5, seed=0, seeds=2,
    data=MixtureSettings(weights=[1], means=[1], stds=[1]), diffusion=VPSettings(),
    network=MLPSettings(width=4, depth=1), training=TrainingSettings(steps=3, batch=8),
)  # fmt: skip


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    (tmp_path / "cell").mkdir()
    (tmp_path / "cell" / "cell.json").write_text(CELL.canonical())
    return tmp_path / "cell"


def git(place: Path, *arguments: str) -> str:
    who = {"GIT_AUTHOR_NAME": "a", "GIT_AUTHOR_EMAIL": "a@b", "GIT_COMMITTER_NAME": "a", "GIT_COMMITTER_EMAIL": "a@b"}
    run = subprocess.run(
        ["git", *arguments], cwd=place, env=os.environ | who, capture_output=True, text=True, check=True
    )
    return run.stdout.strip()


@pytest.fixture
def clone(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A repository of one commit that stands for the one that the code is in."""
    place = tmp_path / "clone"
    place.mkdir()
    git(place, "init", "--quiet")
    (place / "code.py").write_text("one\n")
    git(place, "add", "code.py")
    git(place, "commit", "--quiet", "--message", "First")
    monkeypatch.setattr(runs, "ROOT", place)
    return place


def row(folder: Path) -> pd.Series:
    with recorded(folder, "likelihood", MixtureLikelihoodSettings(points=3), p_noise=["matched"], threads=1):
        pass
    return read(folder / "run_likelihood.parquet", "runs").iloc[0]


def test_the_record_says_what_was_run_with_which_settings_where_and_when(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("SLURM_JOB_ID", "42")
    found = row(folder)
    settings = json.loads(found.settings)
    assert Cell.model_validate(settings["cell"]) == CELL
    assert MixtureLikelihoodSettings.model_validate(settings["measurement"]) == MixtureLikelihoodSettings(points=3)
    assert (settings["p_noise"], settings["threads"]) == (["matched"], 1)
    assert (found.dataset, found["T"], found.command, found.slurm_job) == ("toy", 0.5, "likelihood", "42")
    assert (found.difftime, found.torch, found.host) == (__version__, torch.__version__, os.uname().nodename)
    times = [datetime.fromisoformat(found[name]) for name in ("start", "end")]
    assert abs((times[1] - times[0]).total_seconds() - found.seconds) < 0.1
    assert found.peak_memory > 100


def test_the_commit_is_named_and_a_changed_file_is_told_from_an_unknown_one(folder: Path, clone: Path) -> None:
    commit = git(clone, "rev-parse", "HEAD")
    (clone / "notes.txt").write_text("mine\n")
    found = row(folder)
    assert (found.commit, found.tree) == (commit, "clean")
    (clone / "code.py").write_text("two\n")
    found = row(folder)
    assert (found.commit, found.tree) == (commit, "changed")


def test_a_git_that_fails_is_said_and_leaves_nulls(
    folder: Path, clone: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    def not_here(*_: object, **__: object) -> None:
        raise FileNotFoundError("No such file or directory: 'git'")

    (clone / ".git" / "HEAD").write_text("nonsense")
    with caplog.at_level(logging.WARNING):
        assert row(folder)[["commit", "tree"]].isna().all()
        monkeypatch.setattr(runs.subprocess, "Popen", not_here)
        assert row(folder)[["commit", "tree"]].isna().all()
        monkeypatch.setattr(runs, "ROOT", folder)
        assert row(folder)[["commit", "tree"]].isna().all()
    assert caplog.text.count("has no git commit") == 3
    for reason in ("not a git repository", "No such file or directory: 'git'", "is no git clone"):
        assert reason in caplog.text


def test_work_that_fails_leaves_no_record(folder: Path) -> None:
    with pytest.raises(ZeroDivisionError), recorded(folder, "train"):
        raise ZeroDivisionError
    assert [path.name for path in folder.iterdir()] == ["cell.json"]
