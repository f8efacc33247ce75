"""Train the networks of one cell."""

from __future__ import annotations

from pathlib import Path

from difftime.study.cell import RESUME, WEIGHTS, build, recipe, trained_here
from difftime.study.commands.common import Work, device, keys, log, memory_for
from difftime.study.fingerprint import fingerprint
from difftime.study.settings import read_cell
from difftime.support.files import discard
from difftime.tables.schema import write_rows
from difftime.training.checkpoint import save_weights
from difftime.training.nets.images import ImageNets
from difftime.training.parallel import ALONE, Group
from difftime.training.train import train


def run(folder: Path, *, checkpoint_minutes: float, data_dir: Path, group: Group = ALONE) -> Work | None:
    """Read cell.json in `folder`; write weights.safetensors, history.parquet and training.parquet.

    Returns None in all processes but the first. Raises Diverged, Interrupted, BadSettings (also where memory is
    short), BadImages or BadGroup.
    """
    cell = read_cell(folder / "cell.json")
    problem = build(cell, data_dir=data_dir, device=device())
    plan, score = recipe(cell, checkpoint_minutes), trained_here(problem.score)
    parameters = list(score.net.parameters())
    log.info("Training %s: %d seeds of %s with %s", cell.name, cell.seeds, cell.network, cell.training)
    wanted, precision = (getattr(of, "precision", "float32") for of in (cell.network, score.net))
    if precision != wanted:
        log.warning("WARNING: this CPU has no instructions for %s; %s is trained in %s.", wanted, cell.name, precision)
    levels = score.net.resolutions() if isinstance(score.net, ImageNets) else []
    unreached = [n for n in getattr(cell.network, "attention", ()) if n not in levels]
    if unreached:
        log.warning(
            "WARNING: attention is asked for at resolutions %s, which %s does not have (its levels: %s): no attention "
            "but the bottleneck's.", unreached, cell.net, levels,
        )  # fmt: skip
    # a state that other code has left is not gone on from: the end would be neither the old code's nor the new's
    identity = {
        "settings": cell.digest(), "data": problem.data, "precision": precision,
        "code": fingerprint("study.commands.train"),
    }  # fmt: skip
    with memory_for(f"datasets.{cell.dataset}.training.batch", plan.batch):
        trained = train(
            score, problem.training(), T=cell.T, epsilon=problem.epsilon, recipe=plan, seeds=problem.seeds,
            name=cell.name, identity=identity, resume=folder / RESUME, group=group,
        )  # fmt: skip
    if not group.first:
        return None
    rows = [
        keys(cell) | {"seed": seed, "step": step, "loss": loss.item()}
        for step, losses in zip(trained.step, trained.loss, strict=True)
        for seed, loss in enumerate(losses)
    ]
    write_rows(folder / "history.parquet", "history", rows)
    facts = {
        "seeds": cell.seeds, "steps": plan.steps, "batch": plan.batch, "weighting": plan.weighting,
        "parameters": sum(p.numel() for p in parameters) // cell.seeds, "precision": precision,
    }  # fmt: skip
    write_rows(folder / "training.parquet", "training", [keys(cell) | facts])
    save_weights(folder / WEIGHTS, trained.weights, problem.digest)
    discard(folder / RESUME)
    log.info("Trained in %.1f s: %s", trained.seconds, folder / WEIGHTS)
    return Work(trained.seconds, cell.seeds * plan.steps * plan.batch / trained.seconds)
