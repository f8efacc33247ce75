"""Several processes under torchrun do what one does: training within rounding, measurements to the bit.

Two processes on the CPU, by gloo. What torchrun starts takes some seconds, so a test starts it once.
"""

from __future__ import annotations

import io
import json
import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from types import ModuleType

import numpy as np
import pandas as pd
import pytest
import torch
from safetensors.torch import load_file
from torch import Tensor
from typer.testing import CliRunner

from difftime.cli import app
from difftime.study.cell import RESUME, WEIGHTS, build, recipe
from difftime.study.commands import likelihood
from difftime.study.devices import DEVICE
from difftime.study.registry import MEASUREMENTS
from difftime.study.settings import Cell, read_cell
from difftime.tables.parquet import read as read_table
from difftime.training import train
from difftime.training.parallel import ALONE, BadGroup, Group

ROUNDING = 1e-5
"""Weights move by 2e-2 in the training below; sums in another order move them by some 1e-7."""
PATIENCE = 300
"""Seconds after which something hangs, also on a machine with other work."""


@pytest.fixture(scope="module", autouse=True)
def without_gpus() -> Iterator[None]:
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv(DEVICE, "cpu")
        yield


def cell_in(folder: Path, steps: int = 25, dropout: float = 0.0) -> Path:
    """The folder of a cell of two models, whose gradients are clipped."""
    grey = np.random.default_rng(0).integers(256, size=(19, 8, 8), dtype=np.uint8)
    folder.mkdir()
    np.savez(folder / "images.npz", train=grey[:12], test=grey[12:])
    settings = {
        "dataset": "mine", "sde": "vp", "net": "unet", "T": 0.4, "seed": 0, "seeds": 2,
        "data": {"kind": "npz", "path": str(folder / "images.npz")}, "diffusion": {"kind": "vp", "epsilon": 0.01},
        "network": {"kind": "ncsnpp", "width": 4, "multipliers": [1, 2], "blocks": 1, "dropout": dropout},
        "training": {
            "steps": steps, "batch": 4, "learning_rate": 1e-3, "ema": 0.9, "clip": 1.0, "time_sampling": "lambda",
        },
    }  # fmt: skip
    (folder / "cell.json").write_text(Cell.model_validate(settings).canonical())
    return folder


def command(name: str, cell: Path, *options: object) -> list[str]:
    return [sys.executable, "-m", "difftime.cli", name, str(cell), *map(str, options), "--gpus", "2"]


def by_two(name: str, cell: Path, *options: object) -> str:
    """What two processes say while they do it."""
    run = subprocess.run(command(name, cell, *options), capture_output=True, text=True, timeout=PATIENCE, check=False)
    assert run.returncode == 0, run.stderr
    return run.stderr


def by_one(name: str, cell: Path, *options: object) -> None:
    result = CliRunner().invoke(app, [name, str(cell), *map(str, options)])
    assert result.exit_code == 0, result.stderr or result.exception


def weights(cell: Path) -> dict[str, Tensor]:
    return load_file(cell / WEIGHTS)


def apart(one: dict[str, Tensor], other: dict[str, Tensor]) -> float:
    return max((one[name] - other[name]).abs().max().item() for name in one)


def initial(cell: Path) -> dict[str, Tensor]:
    return dict(build(read_cell(cell / "cell.json")).score.net.named_parameters())


def read(cell: Path, file: str) -> pd.DataFrame:
    return read_table(cell / f"{file}.parquet", "runs" if file.startswith("run_") else file)


@pytest.fixture(scope="module")
def alone(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A cell that one process has trained."""
    cell = cell_in(tmp_path_factory.mktemp("alone") / "cell")
    by_one("train", cell)
    return cell


# Training


def test_two_processes_train_the_network_of_one_within_rounding(alone: Path, tmp_path: Path) -> None:
    cell = cell_in(tmp_path / "cell")
    by_two("train", cell)
    assert apart(weights(alone), initial(alone)) > 1000 * ROUNDING
    assert apart(weights(cell), weights(alone)) < ROUNDING
    assert read(cell, "history").loss.to_numpy() == pytest.approx(read(alone, "history").loss.to_numpy(), rel=1e-5)
    assert read(cell, "run_train").device.tolist() == ["2 × CPU, 1 thread"]
    assert {path.name for path in cell.iterdir()} == {path.name for path in alone.iterdir()}


class Cut(BaseException):
    """Stands for a SIGKILL."""


def cut(module: ModuleType, cell: Path, monkeypatch: pytest.MonkeyPatch, name: str, *options: object) -> None:
    """Run a command in this process until its module has saved the first state."""
    save = module.save_resume

    def once(*arguments: object) -> None:
        save(*arguments)
        raise Cut

    with monkeypatch.context() as patched:
        patched.setattr(module, "save_resume", once)
        with pytest.raises(Cut):
            CliRunner().invoke(app, [name, str(cell), *map(str, options)])


def test_two_processes_go_on_where_one_was_cut(alone: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    cell = cell_in(tmp_path / "cell")
    cut(train, cell, monkeypatch, "train", "--checkpoint-minutes", 0)
    assert "Resuming at step 10" in by_two("train", cell)
    assert apart(weights(cell), weights(alone)) < ROUNDING


def started(cell: Path, *options: object) -> subprocess.Popen[str]:
    return subprocess.Popen(command("train", cell, *options), stderr=subprocess.PIPE, text=True)


def wait_for(happened: Callable[[], bool]) -> None:
    deadline = time.monotonic() + PATIENCE
    while not happened():
        assert time.monotonic() < deadline
        time.sleep(0.01)


def test_the_death_of_one_process_ends_the_job_and_one_process_goes_on(tmp_path: Path) -> None:
    """With a state after every block, so that there is one to go on from."""
    cell, whole = cell_in(tmp_path / "cut", steps=60), cell_in(tmp_path / "whole", steps=60)
    job = started(cell, "--checkpoint-minutes", 0)
    wait_for((cell / RESUME).exists)
    listed = subprocess.run(["pgrep", "-P", str(job.pid)], capture_output=True, text=True, check=True)
    workers = [int(pid) for pid in listed.stdout.split()]
    assert len(workers) == 2
    os.kill(workers[1], signal.SIGKILL)
    assert job.wait(PATIENCE) != 0, job.communicate()
    assert not (cell / WEIGHTS).exists()
    assert not [pid for pid in workers if Path(f"/proc/{pid}").exists()]
    for path in (cell, whole):
        by_one("train", path)
    assert apart(weights(cell), weights(whole)) < ROUNDING


def test_sigterm_saves_one_state_for_all_and_ends_the_job(tmp_path: Path) -> None:
    """The signal goes to torchrun alone, which hands it on. The first state says that the processes listen."""
    cell = cell_in(tmp_path / "cell", steps=100_000)
    job = started(cell, "--checkpoint-minutes", 0.01)
    wait_for((cell / RESUME).exists)
    job.send_signal(signal.SIGTERM)
    said = job.communicate(timeout=PATIENCE)[1]
    assert job.returncode != 0
    state = torch.load(io.BytesIO((cell / RESUME).read_bytes()[32:]), weights_only=True)
    assert said.count(f"its state after step {10 * state['block']} is saved.") == 2, said


# Measurements


SETTINGS = {
    "likelihood": {"batch": 2, "draws": 2, "rtol": 0.03, "atol": 0.03},
    "elbo": {"batch": 2, "pairs": 1, "times": 4},
}


@pytest.fixture(scope="module")
def options(tmp_path_factory: pytest.TempPathFactory) -> dict[str, list[object]]:
    """What each measurement is told."""
    folder, found = tmp_path_factory.mktemp("settings"), {}
    for name, settings in SETTINGS.items():
        (folder / f"{name}.json").write_text(json.dumps(settings | {"p_noise": ["standard", "matched"]}))
        found[name] = ["--settings", folder / f"{name}.json"]
    return found


@pytest.fixture(scope="module")
def measured(alone: Path, options: dict[str, list[object]]) -> Path:
    """The same cell, measured by one process, in 8 and in 4 batches."""
    for name in SETTINGS:
        by_one(name, alone, *options[name])
    return alone


@pytest.fixture
def copy(measured: Path, tmp_path: Path) -> Path:
    """The trained cell in another place, not measured."""
    (tmp_path / "copy").mkdir()
    for name in ("cell.json", WEIGHTS):
        shutil.copy(measured / name, tmp_path / "copy" / name)
    return tmp_path / "copy"


def same_tables(one: Path, other: Path, measurement: str) -> bool:
    made = MEASUREMENTS[measurement]
    names = [f"{table}.parquet" for table in (*made.tables, *made.units)]
    return all((one / name).read_bytes() == (other / name).read_bytes() for name in names)


def test_two_processes_find_the_bits_per_dimension_of_one_to_the_bit_also_where_one_was_cut(
    copy: Path, measured: Path, options: dict[str, list[object]], monkeypatch: pytest.MonkeyPatch
) -> None:
    """One process is cut after the first batch, which leaves an odd number for two."""
    cut(likelihood, copy, monkeypatch, "likelihood", *options["likelihood"])
    assert (copy / likelihood.RESUME).exists()
    by_two("likelihood", copy, *options["likelihood"])
    assert same_tables(copy, measured, "likelihood")
    assert not (copy / likelihood.RESUME).exists()


def test_two_processes_find_the_elbo_of_one_to_the_bit(
    copy: Path, measured: Path, options: dict[str, list[object]]
) -> None:
    by_two("elbo", copy, *options["elbo"])
    assert same_tables(copy, measured, "elbo")


# The group


class Told(Group):
    """A process that is told what the others say, and does not ask them."""

    def gather(self, value: object) -> list[object]:
        return [value] * self.rank + [value] + ["another"] * (self.size - self.rank - 1)


@pytest.mark.parametrize("size", [1, 2, 3, 6])
def test_the_shares_of_a_batch_are_all_of_it_in_order(size: int) -> None:
    batch = list(range(12))
    assert [x for rank in range(size) for x in batch[Group(rank, size).share(12)]] == batch


def test_a_batch_that_does_not_divide_is_refused() -> None:
    with pytest.raises(BadGroup, match="A batch of 10 does not divide among 4 processes"):
        Group(0, 4).share(10)


def test_processes_that_read_different_states_are_refused() -> None:
    ALONE.agree(3, "a folder")
    with pytest.raises(BadGroup, match="different states in a folder"):
        Told(0, 2).agree(3, "a folder")


class Other(Group):
    """A process that is not the first, but works alone."""

    def share(self, n: int) -> slice:
        return slice(n)


def test_every_process_has_dropout_of_its_own(tmp_path: Path) -> None:
    cell = read_cell(cell_in(tmp_path / "cell", steps=5, dropout=0.5) / "cell.json")
    found = []
    for rank in (0, 0, 1, 2):
        problem = build(cell)
        trained = train.train(
            problem.score, problem.training(), T=cell.T, epsilon=problem.epsilon, recipe=recipe(cell, 60.0),
            seeds=problem.seeds, name="a cell", identity={}, group=Other(rank),
        )  # fmt: skip
        found.append(trained.weights)
    assert apart(found[0], found[1]) == 0
    assert min(apart(found[i], found[j]) for i, j in ((0, 2), (0, 3), (2, 3))) > 10 * ROUNDING
