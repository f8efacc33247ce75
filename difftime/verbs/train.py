"""Train the networks of one cell."""

from __future__ import annotations

import time
from pathlib import Path

import torch

from difftime.cell import RESUME, WEIGHTS, build, recipe
from difftime.checkpoint import save_weights
from difftime.config import read_cell
from difftime.files import discard
from difftime.schemas import write_rows
from difftime.source import fingerprint
from difftime.train import train
from difftime.verbs.common import keys, log


def run(folder: Path, *, checkpoint_minutes: float) -> None:
    """Read cell.json in `folder`; write weights.safetensors and history.parquet. Raises Diverged, Interrupted."""
    start = time.monotonic()
    cell = read_cell(folder / "cell.json")
    problem = build(cell)
    log.info("Training %s: %d seeds of %s with %s", cell.name, cell.seeds, cell.network, cell.training)
    trained = train(
        problem.score,
        torch.stack([problem.data.training(seed) for seed in problem.seeds]),
        T=cell.T,
        epsilon=problem.epsilon,
        recipe=recipe(cell, checkpoint_minutes),
        seeds=problem.seeds,
        name=cell.name,
        # a state that other code has left is not gone on from: the end would be neither the old code's nor the new's
        cell=f"{problem.digest} {fingerprint('verbs.train')}",
        resume=folder / RESUME,
    )
    rows = [
        keys(cell) | {"seed": seed, "step": step, "loss": loss.item()}
        for step, losses in zip(trained.step, trained.loss, strict=True)
        for seed, loss in enumerate(losses)
    ]
    write_rows(folder / "history.parquet", "history", rows)
    save_weights(folder / WEIGHTS, trained.weights, problem.digest)
    discard(folder / RESUME)
    log.info("Trained in %.1f s: %s", time.monotonic() - start, folder / WEIGHTS)
