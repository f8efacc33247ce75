"""What a study need not say of a pretrained network: its SDE and its T, which stand in the files of the model.

Paths have T in them, so it is wanted before any job: it is read here, without PyTorch. The readers in `difftime.models`
find the same T; a job that would start above it is refused.
"""

from __future__ import annotations

import json
import math
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from difftime.study.settings.files import Items, Keys, given_by

OWN_SDE = "of-model"
"""The name of the SDE of pretrained networks in a study that does not name it."""


def with_own(settings: Keys) -> Keys:
    """Settings whose blocks of pretrained networks have a T and an SDE, where they do not say them."""
    nets, blocks = settings.get("nets"), settings.get("study")
    if not isinstance(nets, Mapping) or not isinstance(blocks, list):
        return settings
    paths = {
        name: net["path"] for name, net in nets.items()
        if isinstance(net, Mapping) and net.get("kind") == "pretrained" and isinstance(net.get("path"), str)
    }  # fmt: skip
    made, origins = [], []
    for block, origin in zip(blocks, getattr(blocks, "origins", [""] * len(blocks)), strict=True):
        named = block.get("net") if isinstance(block, Mapping) else None
        own = [named] if isinstance(named, str) else named
        parts = [block]
        if isinstance(own, list) and own and all(isinstance(name, str) and name in paths for name in own):
            said = {} if "sde" in block else {"sde": OWN_SDE}
            parts = [block | said] if "T" in block else [block | said | {"net": n, "T": own_T(paths[n])} for n in own]
        made += [Keys(part, getattr(block, "origins", {})) if isinstance(part, dict) else part for part in parts]
        origins += [origin] * len(parts)
    items = Items(made)
    items.origins = origins
    whole = Keys(settings | {"study": items}, settings.origins)
    if paths and isinstance(sdes := settings.get("sdes", {}), Mapping) and OWN_SDE not in sdes:
        whole["sdes"] = Keys(dict(sdes) | {OWN_SDE: given_by("", {"kind": "of-model"})}, getattr(sdes, "origins", {}))
    return whole


def own_T(path: str) -> float:
    """The diffusion time up to which a model was trained, with the six digits that a folder is named by.

    Only a DDPM of linear betas has another one than 1: it has the clock of VP, on which its last index lies elsewhere.
    What is no model is refused where it is read.
    """
    settings = _scheduler(Path(os.path.expanduser(path)))  # noqa: PTH111  (pathlib raises for an unknown home)
    if settings.get("beta_schedule") != "linear" or settings.get("trained_betas"):
        return 1.0
    usual = {"num_train_timesteps": 1000, "beta_start": 1e-4, "beta_end": 0.02}
    n, start, stop = (settings.get(key, value) for key, value in usual.items())
    try:
        B = -sum(math.log1p(-(start + (stop - start) * i / (n - 1))) for i in range(n))
        T = 2 * B / (n * start + math.sqrt((n * start) ** 2 + 2 * n * (stop - start) * B))
        return float(f"{T:g}")
    except (ArithmeticError, TypeError, ValueError):
        return 1.0


def _scheduler(path: Path) -> dict[str, Any]:
    """The settings of the scheduler of a diffusers folder; nothing where there are none that can be read."""
    for place in (path / "scheduler" / "scheduler_config.json", path / "scheduler_config.json"):
        try:
            found = json.loads(place.read_text(encoding="utf-8"))
        except (OSError, ValueError):
            continue
        return found if isinstance(found, dict) else {}
    return {}
