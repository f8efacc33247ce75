"""p_noise of an early start: the Gaussian that x_T is drawn from."""

import math

import torch
from diffusers import ConfigMixin, ModelMixin
from diffusers.configuration_utils import register_to_config


class Prior(ModelMixin, ConfigMixin):
    """x_T = mean + factor z for z ~ N(0, I); `factor` is a vector, or a lower triangular matrix if `full`.

    `index` is that of T in the scheduler's table. Grey level k of the data lies at start + width (k + ½).
    """

    @register_to_config
    def __init__(self, shape: list, full: bool, index: int, start: float, width: float) -> None:
        super().__init__()
        d = math.prod(shape)
        self.mean = torch.nn.Parameter(torch.zeros(d), requires_grad=False)
        self.factor = torch.nn.Parameter(torch.zeros(d, d) if full else torch.zeros(d), requires_grad=False)

    def forward(self, z: torch.Tensor) -> torch.Tensor:
        """x_T from z [n, *shape]."""
        flat = z.flatten(1)
        return (self.mean + (flat @ self.factor.T if self.config["full"] else self.factor * flat)).reshape(z.shape)
