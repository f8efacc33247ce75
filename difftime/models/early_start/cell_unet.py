"""The network of a cell of images as a model of diffusers, for DDPM's schedulers: an index in, the noise out."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from diffusers import ConfigMixin, ModelMixin
from diffusers.configuration_utils import register_to_config
from diffusers.utils import BaseOutput
from torch import Tensor

from difftime.images.pixel_prior import PixelPrior
from difftime.training.nets.ncsnpp import NCSNpp


@dataclass
class NoiseOutput(BaseOutput):
    """`sample` is the estimate of the noise in x, [n, C, H, W]."""

    sample: Tensor


class CellUNet(ModelMixin, ConfigMixin):
    """NCSN++ on continuous time, and what single pixels say where the shares of `black` and `white` ones are given.

    `table` has t, alpha and sigma of the SDE for every index. The x that comes in has alpha² + sigma² = 1, as a DDPM's.
    With `data_variance` v the network sees x / sqrt(alpha² v + sigma²). `clock` names the SDE of the training, its
    parameters, and the first and the last time; it is for difftime, which reads the model in continuous time.
    """

    table: Tensor

    @register_to_config
    def __init__(
        self,
        in_channels: int,
        sample_size: int,
        width: int,
        multipliers: list,
        blocks: int,
        attention: list,
        fourier: list,
        indices: int,
        clock: dict,
        bottleneck_attention: bool = True,
        black: float | None = None,
        white: float | None = None,
        data_variance: float | None = None,
    ) -> None:
        super().__init__()
        self.net = NCSNpp(
            in_channels, sample_size, width=width, multipliers=multipliers, blocks=blocks, attention=attention,
            fourier=fourier, bottleneck_attention=bottleneck_attention, dropout=0.0, generator=torch.Generator(),
        )  # fmt: skip
        self.prior = None if black is None or white is None else PixelPrior(black, white)
        self.data_variance = data_variance
        self.register_buffer("table", torch.zeros(indices, 3))

    def forward(self, sample: Tensor, timestep: Tensor | float) -> NoiseOutput:
        """`timestep`: a whole index for all images, or one for each."""
        index = torch.as_tensor(timestep, device=sample.device).long().expand(len(sample))
        t, alpha, sigma = self.table[index].unbind(-1)
        alpha, sigma = (part[:, None, None, None] for part in (alpha, sigma))
        x = sample * (alpha**2 + sigma**2).sqrt()
        return NoiseOutput(sample=self.noise(x, t, alpha.double(), sigma.double()))

    def noise(self, x: Tensor, t: Tensor, alpha: Tensor, sigma: Tensor) -> Tensor:
        """The estimate at x = alpha x_0 + sigma z; t is [n], alpha and sigma are [n, 1, 1, 1] in float64."""
        seen = x
        if self.data_variance is not None:
            seen = x / (alpha**2 * self.data_variance + sigma**2).sqrt()
        noise = self.net(seen.float(), t.float())
        if self.prior is not None:
            noise = noise + self.prior.noise(x, alpha, sigma).to(noise)
        return noise
