"""Training a cell of images through the command line: cut anywhere, it ends with the same bits."""

from __future__ import annotations

import logging
import os
import random
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pandas as pd
import pytest
import torch
from of_images import (
    NETWORK,
    TRAIN,
    TRAINING,
    Cut,
    a_cell,
    call,
    contents,
    done,
    files_of,
    grey,
    images_in,
    measurement,
    read,
    refusal,
    same_files,
    shorten,
    weights_of,
    write,
)

from difftime.study.cell import RESUME, WEIGHTS, build
from difftime.study.commands import elbo, likelihood
from difftime.study.commands import train as command
from difftime.study.settings import read_cell
from difftime.support.progress import Progress
from difftime.training import train as training
from difftime.training.checkpoint import load_weights


def test_the_training_table_says_what_was_done(measured: Path) -> None:
    row = read(measured, "training").iloc[0]
    assert (row.steps, row.batch, row.seeds, row.weighting, row.precision) == (25, 4, 2, "noise", "float32")
    assert read(measured, "history").groupby("seed").step.apply(list).to_list() == [[10, 20, 25]] * 2


def test_a_cell_worked_on_in_pieces_has_the_bits_of_one_that_was_not(tmp_path: Path) -> None:
    """Training, likelihood and ELBO by their commands, each ended again and again, by SIGTERM or SIGKILL."""
    settings = a_cell(images_in(tmp_path), seeds=1, training=TRAINING | {"steps": 150})
    cell, whole = write(tmp_path / "pieces", settings), write(tmp_path / "whole", settings)
    for name, resume in {"train": RESUME, "likelihood": likelihood.RESUME, "elbo": elbo.RESUME}.items():
        own, other = (
            ["train", str(one), "--checkpoint-minutes", "0"] if name == "train" else measurement(name, one, batch=1)
            for one in (cell, whole)
        )
        started, state, codes = [sys.executable, "-m", "difftime.cli", *own], None, []
        for end in (signal.SIGTERM, signal.SIGKILL):
            process, before = subprocess.Popen(started, stderr=subprocess.DEVNULL), state
            while process.poll() is None and state == before:
                file = cell / resume
                state = file.stat().st_mtime_ns if file.exists() else before
                time.sleep(0.005)
            process.send_signal(end)
            codes.append(process.wait())
        assert 0 not in codes, name
        assert (cell / resume).exists()
        subprocess.run(started, check=True, stderr=subprocess.DEVNULL)
        done(*other)
    assert weights_of(cell) == weights_of(whole)
    assert same_files(cell, whole, *files_of("likelihood"), *files_of("elbo"))


def test_a_training_that_is_killed_at_random_moments_ends_with_the_same_bits(tmp_path: Path) -> None:
    """By SIGKILL, with dropout, and with a state after every block, so that some kills fall into its writing."""
    settings = a_cell(images_in(tmp_path), seeds=1, training=TRAINING | {"steps": 150})
    path, whole = write(tmp_path / "cut", settings), write(tmp_path / "whole", settings)
    command = [sys.executable, "-m", "difftime.cli", "train", path, "--checkpoint-minutes", "0"]
    state, cuts = path / RESUME, []
    for _ in range(2):
        before = state.stat().st_mtime_ns if state.exists() else 0
        process = subprocess.Popen(command, stderr=subprocess.PIPE)
        while process.poll() is None and not (state.exists() and state.stat().st_mtime_ns > before):
            time.sleep(0.01)
        time.sleep(random.uniform(0, 0.2))
        process.kill()
        process.communicate()
        cuts.append(process.returncode)
    assert cuts == [-signal.SIGKILL] * 2
    assert not (path / WEIGHTS).exists()
    finished = subprocess.run(command, capture_output=True, text=True, check=True)
    assert "Resuming at step" in finished.stderr
    done("train", whole)
    assert weights_of(path) == weights_of(whole)
    pd.testing.assert_frame_equal(read(path, "history"), read(whole, "history"), check_exact=True)
    assert contents(path).keys() == contents(whole).keys()


def test_sigterm_saves_at_once_and_the_next_run_goes_on(
    cell: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    wanted = weights_of(cell)
    (cell / WEIGHTS).unlink()
    draw = training._draw

    def signalled(*arguments: Any) -> Any:
        if arguments[2] == 1:
            os.kill(os.getpid(), signal.SIGTERM)
        return draw(*arguments)

    monkeypatch.setattr(training, "_draw", signalled)
    assert "its state after step 20 is saved" in refusal("train", cell, "--checkpoint-minutes", "60")
    assert (cell / RESUME).exists()
    monkeypatch.setattr(training, "_draw", draw)
    with caplog.at_level(logging.INFO):
        done("train", cell)
    assert "Resuming at step 20" in caplog.text
    assert weights_of(cell) == wanted


def test_a_damaged_state_of_a_training_is_named_and_not_used(
    cell: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    wanted = weights_of(cell)
    (cell / WEIGHTS).unlink()

    def cut(*_: Any) -> None:
        raise Cut

    with monkeypatch.context() as patched:
        patched.setattr(command, "save_weights", cut)
        patched.setattr(training.time, "monotonic", iter(range(0, 10**9, 10**6)).__next__)
        with pytest.raises(Cut):
            call("train", cell)
    shorten(cell / RESUME)
    done("train", cell)
    assert f"{cell / RESUME} does not match its checksum" in caplog.text
    assert "Starting from step 0" in caplog.text
    assert weights_of(cell) == wanted


def test_a_cpu_without_bfloat16_trains_in_float32_and_says_so(
    cell: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    before = read_cell(cell / "cell.json")
    wanted = load_weights(cell / WEIGHTS, build(before).digest)
    network = before.network.model_copy(update={"precision": "bfloat16"})
    settings = before.model_copy(update={"network": network})
    (cell / "cell.json").write_text(settings.canonical())
    monkeypatch.setattr(torch.ops.mkldnn, "_is_mkldnn_bf16_supported", lambda: False)
    (cell / WEIGHTS).unlink()
    done("train", cell)
    assert "no instructions for bfloat16" in caplog.text
    assert set(read(cell, "training").precision) == {"float32"}
    for name, weight in load_weights(cell / WEIGHTS, build(settings).digest).items():
        assert torch.equal(weight, wanted[name])


# Exploding variance


@pytest.mark.parametrize(("diffusion", "scaled"), [("vp", False), ("ve-exponential", True)])
def test_inputs_are_scaled_for_ve_and_not_for_vp(tmp_path: Path, diffusion: str, scaled: bool) -> None:
    data = images_in(tmp_path)
    usual = build(a_cell(data, diffusion={"kind": diffusion, "epsilon": 0.01})).score
    told = build(
        a_cell(data, diffusion={"kind": diffusion, "epsilon": 0.01}, network=NETWORK | {"scale_input": not scaled})
    ).score
    assert (usual.scale_input, told.scale_input) == (scaled, not scaled)
    x0 = torch.from_numpy(grey(TRAIN)).flatten(1).double() / 128 - 1
    z = torch.randn(x0.shape, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    for T in (0.01, 0.5, 1.0):
        t = torch.full((TRAIN,), T, dtype=torch.float64)
        x = usual.sde.perturb(x0, t, z)
        seen = usual.inputs(x, t)
        if scaled:  # of 768 values, of variance 1
            assert seen.std().item() == pytest.approx(1, abs=0.1)
        else:
            assert seen is x


# What is said


def test_attention_at_a_resolution_that_no_level_has_is_said_and_trained_all_the_same(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    data = images_in(tmp_path)
    done("train", write(tmp_path / "fits", a_cell(data, network=NETWORK | {"attention": [4]})))
    assert "WARNING" not in caplog.text
    done("train", write(tmp_path / "misses", a_cell(data, network=NETWORK | {"attention": [4, 5]})))
    assert "attention is asked for at resolutions [5]" in caplog.text
    assert "its levels: [8, 4]" in caplog.text


def test_the_log_of_a_training_has_images_a_second_and_the_time_left(caplog: pytest.LogCaptureFixture) -> None:
    progress = Progress("train it", 100, "step", done=20, inside=("image", 256), every=0.0)
    progress.start -= 10  # seconds ago
    with caplog.at_level(logging.INFO):
        progress.advance(40, "loss 1.5")
    assert "train it: step 60 of 100, loss 1.5, 4 steps/s, 1.02e+03 images/s, 10 s left" in caplog.text
