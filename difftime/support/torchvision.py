"""The cure of torchvision's import, for whatever imports torchvision: diffusers does, and so do our downloads."""

from __future__ import annotations

from functools import cache
from importlib import import_module

import torch

_declared: list[torch.library.Library] = []
"""Kept, because an operator lives no longer than the library that declares it."""


@cache
def cure_torchvision() -> None:
    """Make `import torchvision` work from now on, in this process, if torchvision is installed.

    Beside a build of torch that its compiled part does not match, the import fails for want of two operators. Nothing
    here or in diffusers calls them, so they are declared and the import is tried again.
    """
    try:
        import_module("torchvision")
    except ModuleNotFoundError:
        return
    except RuntimeError as error:
        if "torchvision::" not in str(error):
            raise
        _declared.append(torch.library.Library("torchvision", "DEF"))
        for operator in ("nms", "qnms"):
            _declared[0].define(f"{operator}(Tensor dets, Tensor scores, float iou_threshold) -> Tensor")
        import_module("torchvision")
