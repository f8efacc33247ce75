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
        score: its score, for all functions that take one; it knows the model's own epsilon and T.
        source: what was read: its clocks, its scale, and what an export needs.
    """

    score: Score
    source: ForeignModel

    def pixels(self, levels: Any) -> Pixels:
        """uint8 images on the interval on which the model sees them."""
        scale = self.source.scale
        return Pixels(levels, scale.start, scale.start + LEVELS * scale.width)

    def __repr__(self) -> str:
        return f"Model({self.source.name}, T={self.source.T:g}, shape={list(self.source.shape)})"


class _Images(nn.Module):
    """The model's score of images; its network is a part, so that its device and its mode are known."""

    def __init__(self, source: ForeignModel) -> None:
        super().__init__()
        self.net, self.score = source.net, source.score

    def forward(self, x: Tensor, t: Tensor) -> Tensor:
        return self.score(x.flatten(1), t).reshape(x.shape)


def load_model(source: str | Path, **options: Any) -> Model:
    """Read a model that somebody else trained.

    Args:
        source: a folder of diffusers, a `.pth` of score_sde_pytorch, or `package.module:factory`, which runs code of
            your own; no other reader executes code from a file.
        options: those of the reader, such as `size` or `shape`.

    Returns:
        `Model`: `score` for `elbo`, `elbo_curve`, `log_likelihood` and `sample`; `pixels` puts uint8 images on the
        interval that the model sees.

    Raises:
        BadModel: if the model is missing, damaged, unsafe, or of a kind that is not known.
    """
    found = read(source, **options)
    return Model(Score(_Images(found), found.sde, "score", T=found.T, epsilon=found.epsilon), found)
