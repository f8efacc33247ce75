"""Data sets. The toy of the paper is a Gaussian mixture, of which every seed draws its own sample."""

from __future__ import annotations

from dataclasses import dataclass

from jaxtyping import Float
from torch import Tensor

from difftime.mixture import Mixture
from difftime.streams import stream


@dataclass(frozen=True)
class MixtureData:
    """`size` training points per seed, drawn from a known density."""

    density: Mixture
    size: int

    def training(self, seed: str) -> Float[Tensor, "n d"]:
        """The sample that the model of this seed is trained on, float64."""
        return self.density.sample(self.size, stream(seed, "training data"))
