"""A multilayer perceptron on [x, t], for a whole batch of seeds at once.

The seeds are a leading axis of every weight, so that eight models cost one process and one kernel call per layer.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from itertools import pairwise
from typing import Literal

import torch
from jaxtyping import Float
from torch import Tensor, nn

ACTIVATIONS = {"silu": nn.functional.silu, "tanh": torch.tanh, "relu": torch.relu, "gelu": nn.functional.gelu}


class MLP(nn.Module):
    """`depth` hidden layers of `width`, one model per generator in `generators`.

    `time_features="raw"` appends t itself; `"fourier"` appends sin and cos of 2^k pi t for k = 0..3.
    Weights and biases start uniform on ±1/sqrt(fan-in), PyTorch's own default for a linear layer.
    """

    def __init__(
        self,
        d: int,
        width: int,
        depth: int,
        activation: Literal["silu", "tanh", "relu", "gelu"],
        time_features: Literal["raw", "fourier"],
        generators: Sequence[torch.Generator],
    ) -> None:
        super().__init__()
        self.activation = ACTIVATIONS[activation]
        self.frequencies = math.pi * 2.0 ** torch.arange(4) if time_features == "fourier" else None
        widths = [d + (1 if self.frequencies is None else 8)] + depth * [width] + [d]
        self.weights, self.biases = nn.ParameterList(), nn.ParameterList()
        for fan_in, fan_out in pairwise(widths):
            draws = torch.stack([torch.rand(fan_in + 1, fan_out, generator=g) for g in generators])
            draws = (2 * draws - 1) / math.sqrt(fan_in)
            self.weights.append(nn.Parameter(draws[:, :fan_in].contiguous()))
            self.biases.append(nn.Parameter(draws[:, fan_in:].contiguous()))

    def forward(
        self, x: Float[Tensor, "seeds batch d"], t: Float[Tensor, "seeds batch"]
    ) -> Float[Tensor, "seeds batch d"]:
        t = t.unsqueeze(-1)
        if self.frequencies is not None:
            angle = t * self.frequencies.to(t)
            t = torch.cat([angle.sin(), angle.cos()], -1)
        h = torch.cat([x.mT, t.mT], 1).mT  # joined as whole rows: five times as fast
        for weight, bias in zip(self.weights[:-1], self.biases[:-1], strict=True):
            h = self.activation(torch.baddbmm(bias, h, weight))
        last = self.weights[-1]
        # for one output a matrix product and its gradients take four times as long as products and their sum
        output = (h * last.mT).sum(-1, keepdim=True) if last.shape[-1] == 1 else torch.bmm(h, last)
        return output + self.biases[-1]

    def by_model(self, of_parameters: Sequence[Tensor]) -> list[list[Tensor]]:
        """Views of tensors shaped like the parameters, e.g. their gradients: one list per model."""
        return [[tensor[k] for tensor in of_parameters] for k in range(len(self.weights[0]))]
