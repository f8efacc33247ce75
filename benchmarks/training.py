"""Training all seeds of one cell as a batch, against one process per model.

Three ways to train the eight models of a toy cell, each as whole processes from start to saved weights, interleaved:
the cell as the pipeline trains it; the same verb once per seed; and one process per model in plain PyTorch (`plain.py`:
nn.Sequential, torch.optim.Adam as it comes, a batch drawn at every step).
"""

from __future__ import annotations

import os
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from difftime.study.settings import Cell, read_study
from difftime.tables.render import markdown_rows

ROOT = Path(__file__).parent.parent
ROUNDS = 5
ONE_CORE = os.environ | {"OMP_NUM_THREADS": "1"}


def _seconds(commands: list[list[str]]) -> float:
    start = time.perf_counter()
    for command in commands:
        subprocess.run(command, check=True, capture_output=True, env=ONE_CORE, cwd=ROOT)
    return time.perf_counter() - start


def _write(folder: Path, cell: Cell) -> str:
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "cell.json").write_text(cell.canonical())
    return str(folder / "cell.json")


def main() -> str:
    """A Markdown table of seconds per cell on one core, and the ratios to the batch with their range."""
    study = read_study()
    cell = study.cell("toy", "vp", "mlp-32x2", "0.6")
    times: dict[str, list[float]] = {"batch": [], "verb": [], "plain": []}
    with tempfile.TemporaryDirectory() as scratch:
        batch = _write(Path(scratch) / "batch", cell)
        single = _write(Path(scratch) / "single", cell.model_copy(update={"seeds": 1}))
        train = [str(Path(sys.executable).parent / "difftime"), "train"]
        for _ in range(ROUNDS):
            times["batch"].append(_seconds([[*train, batch]]))
            times["verb"].append(_seconds([[*train, single]] * cell.seeds))
            plain = [sys.executable, "-m", "benchmarks.plain", str(cell.training.steps), str(cell.training.batch)]
            times["plain"].append(_seconds([[*plain, str(seed)] for seed in range(cell.seeds)]))
    names = {
        "batch": f"`difftime train`, {cell.seeds} seeds as a batch",
        "verb": f"`difftime train`, {cell.seeds} processes of one seed",
        "plain": f"plain PyTorch, {cell.seeds} processes of one model",
    }
    rows = []
    for key, name in names.items():
        ratios = [a / b for a, b in zip(times[key], times["batch"], strict=True)]
        spread = f"{statistics.median(ratios):.1f} ({min(ratios):.1f} to {max(ratios):.1f})"
        rows.append([name, f"{statistics.median(times[key]):.1f}", spread])
    return markdown_rows([f"{cell.training.steps} steps of {cell.net}", "seconds", "ratio to the batch (range)"], rows)


if __name__ == "__main__":
    print(main())
