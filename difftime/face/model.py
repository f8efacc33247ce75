"""Models that somebody else trained, as scores."""

from __future__ import annotations

from pathlib import Path
from typing import Any, NamedTuple

from torch import Tensor, nn

from difftime.face.data import Pixels
from difftime.face.score import Score
from difftime.images.pixels import LEVELS
from difftime.models import load_model as read
from difftime.models.foreign import ForeignModel


class Model(NamedTuple):
    """A model that was trained elsewhere.

    Attributes:
        score: the score of the model, with the model's own epsilon and T.
        source: the model as it was read, with its clock and its scale.
    """

    score: Score
    source: ForeignModel

    def pixels(self, levels: Any) -> Pixels:
        """uint8 images on the interval of the model's training data."""
        scale = self.source.scale
        return Pixels(levels, scale.start, scale.start + LEVELS * scale.width)

    def __repr__(self) -> str:
        return f"Model({self.source.name}, T={self.source.T:g}, shape={list(self.source.shape)})"


class _Images(nn.Module):
    """The score as a module. The network is a submodule, so that its device and its mode can be read."""

    def __init__(self, source: ForeignModel) -> None:
        super().__init__()
        self.net, self.score = source.net, source.score

    def forward(self, x: Tensor, t: Tensor) -> Tensor:
        return self.score(x.flatten(1), t).reshape(x.shape)


def load_model(source: str | Path, **options: Any) -> Model:
    """Read a model that somebody else trained.

    Args:
        source: a folder of diffusers, a `.pth` of score_sde_pytorch, or `package.module:factory`. The last form runs
            code of your own. No other form executes code from a file.
        options: options of the reader: `size` and `sde` of a `.pth`, `shape`, `sigma_min` and `sigma_max` of a factory,
            `scale` of all.

    Returns:
        `Model`: `score` for `elbo`, `elbo_curve`, `log_likelihood` and `sample`; `pixels` puts uint8 images on the
        interval of the model's training data.

    Raises:
        BadModel: if the model is missing, damaged, unsafe, or of a kind that is not known.
    """
    found = read(source, **options)
    return Model(Score(_Images(found), found.sde, "score", T=found.T, epsilon=found.epsilon), found)
