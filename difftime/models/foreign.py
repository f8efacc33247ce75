"""The result of every reader: the score of a model, on the clock and on the grey scale of its training."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from difftime.diffusion.score import Score
from difftime.diffusion.sde import SDE, VP, expand
from difftime.diffusion.tabulated import Tabulated
from difftime.images.pixels import Scale


class BadModel(Exception):
    """A model is missing, damaged, unsafe or of a kind that is not known; the message says what to do."""


@dataclass(frozen=True)
class Clock:
    """One noise level on every clock: the SDE's own time, VP(0.1, 20), the ratio sigma/alpha, the model's index."""

    sde: SDE
    table: Tabulated | None

    def vp_time(self, t: Tensor) -> Tensor:
        """The time at which VP(0.1, 20) has the noise level that the model has at t."""
        return VP().time(self.sde.noise_level(t))

    def at_vp_time(self, t: Tensor) -> Tensor:
        """The model's time with the noise level of VP(0.1, 20) at t."""
        return self.sde.time(VP().noise_level(t))

    def ratio(self, t: Tensor) -> Tensor:
        """sigma/alpha."""
        return (0.5 * self.sde.noise_level(t)).exp()

    def at_ratio(self, ratio: Tensor) -> Tensor:
        """The time with this sigma/alpha."""
        return self.sde.time(2 * ratio.log())

    def index(self, t: Tensor) -> Tensor:
        """The index in the model's table, which may lie between two. Raises BadModel if the model has no table."""
        table = self._has_table()
        # without a detour for the table's own time, which rounding would move off its indices
        return table.index(t if table is self.sde else table.time(self.sde.noise_level(t)))

    def at_index(self, index: Tensor) -> Tensor:
        """The time of an index, which may lie between two. Raises BadModel if the model has no table."""
        table = self._has_table()
        t = table.time_of_index(index)
        return t if table is self.sde else self.sde.time(table.noise_level(t))

    @property
    def indices(self) -> int:
        """How many indices the model's table has. Raises BadModel if the model has no table."""
        return len(self._has_table().integrals)

    def _has_table(self) -> Tabulated:
        if self.table is None:
            raise BadModel("The model was trained in continuous time and has no indices. Give t, or sigma/alpha.")
        return self.table

    def words(self, t: float) -> str:
        """A time on every clock, for messages and model cards."""
        time = torch.tensor(t, dtype=torch.float64)
        index = "" if self.table is None else f", index {self.index(time).item():.1f} of {self.indices}"
        return (
            f"t = {t:.4g}{index}, sigma/alpha = {self.ratio(time).item():.4g}, VP(0.1, 20) time "
            f"{self.vp_time(time).item():.4g}"
        )


@dataclass(frozen=True)
class NoiseScore:
    """s(x, t) = -z_hat/sigma_t for x of shape (*batch, d) and times whose axes lead those of x, in the type of x.

    `noise` estimates z from images [n, C, H, W] and times [n], float64; it runs its network in float32.
    """

    noise: Callable[[Tensor, Tensor], Tensor]
    sde: SDE
    shape: tuple[int, int, int]

    def __call__(self, x: Tensor, t: Tensor) -> Tensor:
        t = t.to(x.device, torch.float64).reshape(t.shape + (1,) * (x.ndim - 1 - t.ndim)).expand(x.shape[:-1])
        z_hat = self.noise(x.reshape(-1, *self.shape), t.reshape(-1)).reshape(x.shape).to(x.dtype)
        return -z_hat / expand(self.sde.sigma(t).to(x.dtype), x)


@dataclass(frozen=True)
class ForeignModel:
    """A model that was trained elsewhere, up to the time T, with data of this shape (channels, height, width).

    The model is not trained below `epsilon`, its first noise level. The bits of x_0 therefore include a decoder
    from epsilon to 0, which is the residual of `image_elbo`.
    """

    name: str
    score: Score
    sde: SDE
    epsilon: float
    T: float
    shape: tuple[int, int, int]
    scale: Scale
    clock: Clock
    net: nn.Module | None
    digest: str
    """Of the weights and of what gives them their meaning; of the user's own code its address is in it."""

    @property
    def d(self) -> int:
        """The dimension of x."""
        return math.prod(self.shape)

    @property
    def decoder(self) -> str:
        """Where the bits end, in words."""
        return f"bits of x_0 from the decoder at the model's first noise level: {self.clock.words(self.epsilon)}"

    def check_fits(self, shape: tuple[int, int, int], images: str) -> None:
        """Raises BadModel if images of this shape, called `images`, are not what the model was trained on."""
        if shape != self.shape:
            raise BadModel(
                f"{self.name} was trained on {said(self.shape)}, but {images} has {said(shape)}. Give images of "
                "the model's shape; nothing is resized or recoloured here."
            )

    def to(self, device: torch.device | str) -> ForeignModel:
        """The same model, whose network is moved to `device`."""
        if self.net is not None:
            self.net.to(device)
        return self


def said(shape: tuple[int, int, int]) -> str:
    """The shape of images in words."""
    channels, height, width = shape
    return f"images of {width} × {height} pixels with {channels} channel{'s' * (channels > 1)}"


def square(channels: int, height: int, width: int, name: str) -> tuple[int, int, int]:
    """The shape, refused if it is not that of square images."""
    if height != width:
        raise BadModel(f"{name} is made for {said((channels, height, width))}; only square images are supported.")
    return channels, height, width
