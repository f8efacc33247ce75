"""Cells of tiny images, worked on through the command line. The networks are barely trained: the laws hold for any."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from typer.testing import CliRunner, Result

from difftime.cli import app
from difftime.study.cell import WEIGHTS
from difftime.study.registry import MEASUREMENTS
from difftime.study.settings import Cell, ImageSettings, MixtureSettings
from difftime.tables import parquet

SIZE, TRAIN, TEST = 8, 12, 7
TRAINING = {"steps": 25, "batch": 4, "learning_rate": 1e-3, "ema": 0.9, "weighting": "noise", "time_sampling": "lambda"}
NETWORK = {"kind": "ncsnpp", "width": 4, "multipliers": [1, 2], "blocks": 1, "dropout": 0.3}
BOTH = ["standard", "matched"]
QUICK: dict[str, dict[str, Any]] = {
    "elbo": {"pairs": 1, "times": 4},
    "likelihood": {"batch": 3, "draws": 2, "rtol": 3e-2, "atol": 3e-2},
    "samples": {"images": 3, "steps_per_unit_time": 5, "evaluations": [2, 3]},
}
CURVE = ["seed", "p_noise"]


class Cut(BaseException):
    """Stands for a SIGKILL."""


def grey(n: int, size: tuple[int, ...] = (SIZE, SIZE), seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).integers(256, size=(n, *size), dtype=np.uint8)


def images_in(place: Path) -> ImageSettings:
    """Training and test images of their own, as configuration alone names them."""
    np.savez(place / "images.npz", train=grey(TRAIN), test=grey(TEST, seed=1))
    return ImageSettings(kind="npz", path=str(place / "images.npz"))


def a_cell(data: ImageSettings | MixtureSettings, **changes: Any) -> Cell:
    settings = {
        "dataset": "mine", "sde": "vp", "net": "unet", "T": 0.4, "seed": 0, "seeds": 2, "data": data.model_dump(),
        "diffusion": {"kind": "vp", "epsilon": 0.01}, "network": NETWORK, "training": TRAINING,
    }  # fmt: skip
    return Cell.model_validate(settings | changes)


def write(folder: Path, cell: Cell) -> Path:
    folder.mkdir(exist_ok=True)
    (folder / "cell.json").write_text(cell.canonical())
    return folder


def call(*arguments: object) -> Result:
    return CliRunner().invoke(app, [str(argument) for argument in arguments], env={"COLUMNS": "200"})


def done(*arguments: object) -> Result:
    result = call(*arguments)
    assert result.exit_code == 0, result.stderr or result.exception
    return result


def measurement(name: str, cell: Path, **settings: Any) -> list[str]:
    """The command of a measurement, with a file of its settings beside the cell's folder."""
    path = cell.with_name(f"{cell.name}-{name}.json")
    path.write_text(json.dumps({"p_noise": BOTH} | QUICK[name] | settings))
    return [name, str(cell), "--settings", str(path)]


def measure(name: str, cell: Path, **settings: Any) -> None:
    done(*measurement(name, cell, **settings))


def refusal(*arguments: object) -> str:
    """The message of a command that ends with exit code 1, not with a traceback."""
    result = call(*arguments)
    assert isinstance(result.exception, SystemExit), result.exception
    assert result.exit_code == 1
    (line,) = [line for line in result.stderr.splitlines() if line.startswith("difftime: ")]
    return line.removeprefix("difftime: ")


def files_of(name: str) -> list[str]:
    """The tables of a measurement, whose bytes do not depend on when and how it ran."""
    return [f"{table}.parquet" for table in (*MEASUREMENTS[name].tables, *MEASUREMENTS[name].units)]


def same_files(one: Path, other: Path, *names: str) -> bool:
    return all((one / name).read_bytes() == (other / name).read_bytes() for name in names)


def read(cell: Path, table: str) -> pd.DataFrame:
    return parquet.read(cell / f"{table}.parquet", table)


def contents(folder: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in folder.iterdir()}


def weights_of(cell: Path) -> bytes:
    return (cell / WEIGHTS).read_bytes()


def shorten(path: Path) -> None:
    path.write_bytes(path.read_bytes()[:-100])


def alter(path: Path) -> None:
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 1
    path.write_bytes(content)
