"""What a model is trained on: points drawn from the data of a cell, as vectors of d coordinates."""

from __future__ import annotations

from dataclasses import dataclass
from functools import partial
from typing import Protocol, runtime_checkable

import torch
from jaxtyping import Float
from torch import Tensor

from difftime.diffusion.mixture import Mixture
from difftime.images.mapped import Images
from difftime.images.pixels import flip, scaled
from difftime.support.streams import stream

CPU = torch.device("cpu")


@runtime_checkable
class TrainingData(Protocol):
    """Training points of every seed, on one device."""

    @property
    def unit(self) -> str:
        """What one of them is called."""
        ...

    @property
    def d(self) -> int: ...

    @property
    def device(self) -> torch.device: ...

    def draw(self, seed: int, size: tuple[int, int], generator: torch.Generator) -> Tensor:
        """Points of the model with this index, drawn with replacement, [*size, d] in float32."""
        ...


@dataclass(frozen=True)
class MixtureSample:
    """A sample of its own for every seed, from a known density."""

    points: Float[Tensor, "seeds n d"]

    @classmethod
    def of(cls, density: Mixture, size: int, seeds: list[str]) -> MixtureSample:
        """`size` points per seed, drawn in float64 and kept in float32."""
        return cls(torch.stack([density.sample(size, stream(seed, "training data")) for seed in seeds]).float())

    @property
    def unit(self) -> str:
        return "point"

    @property
    def d(self) -> int:
        return self.points.shape[-1]

    @property
    def device(self) -> torch.device:
        return self.points.device

    def draw(self, seed: int, size: tuple[int, int], generator: torch.Generator) -> Tensor:
        points = self.points[seed]
        return points[torch.randint(len(points), size, generator=generator, device=self.device)]


@dataclass(frozen=True)
class ImageSample:
    """The training images, the same for all seeds, dequantised anew whenever they are drawn."""

    images: Images
    flip: bool
    device: torch.device = CPU
    """Where they are drawn to; images in memory are there already, mapped ones stay in their file."""

    @property
    def unit(self) -> str:
        return "image"

    @property
    def d(self) -> int:
        return self.images[0].numel()

    def draw(self, seed: int, size: tuple[int, int], generator: torch.Generator) -> Tensor:
        uniform = partial(torch.rand, generator=generator, device=self.device)
        n = size[0] * size[1]
        drawn = torch.randint(len(self.images), (n,), generator=generator, device=self.device)
        images = self.images[drawn.to(self.images.device)].to(self.device)
        if self.flip:
            images = flip(images, uniform(n) < 0.5)
        return scaled(images, uniform(images.shape)).view(*size, self.d)
