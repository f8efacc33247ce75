"""Models that somebody else trained: readers that return a `ForeignModel`, and a check of the bits of such a model.

No reader executes code from a file: weights are safetensors or loaded with `weights_only=True`, settings are JSON. The
one exception is `package.module:factory`, which runs the user's own code.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

from difftime.models.foreign import BadModel, ForeignModel


def load_model(source: str | Path, **options: Any) -> ForeignModel:
    """Read a model: a folder of diffusers, a .pth of score_sde_pytorch, or the code named by `package.module:factory`.

    `options` are those of the reader: `difftime.models.{diffusers_folder, score_sde, factory}`. Raises BadModel.
    """
    path = Path(source)
    if path.is_dir():
        from difftime.models.diffusers_folder import read_diffusers

        return read_diffusers(path, **options)
    if path.is_file():
        from difftime.models.score_sde import read_score_sde

        return read_score_sde(path, **options)
    if ":" in str(source):
        from difftime.models.factory import read_factory

        return read_factory(str(source), **options)
    raise BadModel(
        f"{source} is no model: it is not a folder of diffusers, not a file, and not package.module:factory."
    )
