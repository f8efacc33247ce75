"""Read a model that somebody else trained, and write down which one it is: what training is to other cells."""

from __future__ import annotations

import json
from pathlib import Path

from difftime.study.commands.common import keys, log
from difftime.study.opening import MODEL, read_model
from difftime.study.settings import read_cell
from difftime.support.files import atomic
from difftime.tables.schema import filled, write_rows


def run(folder: Path, *, data_dir: Path) -> None:
    """Read cell.json in `folder`; write model.json and training.parquet, which tells no training.

    Raises BadModel, BadImages or BadSettings.
    """
    cell = read_cell(folder / "cell.json")
    images, model = read_model(cell, data_dir)
    parameters = sum(p.numel() for p in model.net.parameters()) if model.net else None
    facts = filled("training", keys(cell) | {"seeds": cell.seeds, "parameters": parameters})
    write_rows(folder / "training.parquet", "training", [facts])
    found = {
        "model": model.name, "digest": model.digest, "sde": repr(model.sde), "epsilon": model.epsilon, "T": model.T,
        "shape": model.shape, "parameters": parameters, "decoder": model.decoder, "images": images.digest,
    }  # fmt: skip
    with atomic(folder / MODEL) as temporary:
        temporary.write_text(json.dumps(found, indent=2) + "\n", encoding="utf-8")
    log.info("%s: %s, epsilon = %.4g, T = %.6g; %s", cell.name, model.sde, model.epsilon, model.T, model.decoder)
