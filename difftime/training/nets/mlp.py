"""A multilayer perceptron on [x, t], for a whole batch of seeds at once.

The seeds are a leading axis of every weight, so that eight models cost one process and one kernel call per layer.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import Any, Literal

import torch
from jaxtyping import Float
from torch import Tensor, nn
from torch.autograd.function import once_differentiable

from difftime.training.nets.networks import Networks, Pullback

Activation = Callable[[Tensor], tuple[Tensor, Callable[[], Tensor]]]
"""a, which it may overwrite, to h(a) and a function, to be called once, that computes the slope h'(a)."""


def _silu(a: Tensor) -> tuple[Tensor, Callable[[], Tensor]]:
    """h = a s(a) with the logistic function s; its slope is h + s (1 - h)."""
    s = a.sigmoid()
    h = a.mul_(s)
    # written over s: a buffer less to go through the cache
    return h, lambda: torch.lerp(h, h.new_ones(()), s, out=s)


def _tanh(a: Tensor) -> tuple[Tensor, Callable[[], Tensor]]:
    h = a.tanh_()
    return h, lambda: 1 - h * h


def _relu(a: Tensor) -> tuple[Tensor, Callable[[], Tensor]]:
    h = a.relu_()
    return h, lambda: (h > 0).to(h)


def _gelu(a: Tensor) -> tuple[Tensor, Callable[[], Tensor]]:
    """h = a Phi(a) with the standard normal Phi; its slope is Phi(a) + a phi(a)."""
    Phi = (a * math.sqrt(0.5)).erf_().add_(1).mul_(0.5)
    return a * Phi, lambda: torch.addcmul(Phi, a, (-0.5 * a * a).exp_(), value=1 / math.sqrt(2 * math.pi))


ACTIVATIONS: dict[str, Activation] = {"silu": _silu, "tanh": _tanh, "relu": _relu, "gelu": _gelu}


@dataclass(frozen=True)
class _Seen:
    """What a pass through the layers leaves for the gradient: every layer's input, and its activation's slope."""

    weights: Sequence[Tensor]
    inputs: Sequence[Float[Tensor, "seeds _ batch"]]
    slopes: Sequence[Float[Tensor, "seeds _ batch"]]

    def back(
        self, g: Float[Tensor, "seeds d_out batch"], of_parameters: bool = True
    ) -> tuple[Float[Tensor, "seeds width batch"], list[Tensor]]:
        """The chain rule, layer by layer; `g` is the gradient with respect to what a layer puts out.

        What is left of it at the first layer, and the gradients of all weights, then all biases, if they are wanted.
        """
        of_weights, of_biases = [], []
        for k in reversed(range(len(self.weights))):
            if of_parameters:
                of_weights.append(torch.bmm(self.inputs[k], g.mT))
                of_biases.append(g.sum(2).unsqueeze(1))
            if k > 0:
                g = torch.bmm(self.weights[k], g).mul_(self.slopes[k - 1])
        return g, [*reversed(of_weights), *reversed(of_biases)]


def _through(
    activation: Activation, h: Float[Tensor, "seeds d_in batch"], parameters: Sequence[Tensor], kept: bool
) -> tuple[Float[Tensor, "seeds d_out batch"], _Seen]:
    """All layers, and what they saw if it is to be kept; points are the last axis, weights come before biases."""
    weights, biases = parameters[: len(parameters) // 2], parameters[len(parameters) // 2 :]
    inputs, slopes = [h], []
    for weight, bias in zip(weights[:-1], biases[:-1], strict=True):
        h, slope = activation(torch.baddbmm(bias.mT, weight.mT, h))
        if kept:
            inputs.append(h)
            slopes.append(slope())
    return torch.baddbmm(biases[-1].mT, weights[-1].mT, h), _Seen(weights, inputs, slopes)


class _Layers(torch.autograd.Function):
    """All layers as one operation with the gradient written out: autograd's own costs more time than the arithmetic.

    The parameters want gradients all or none.
    """

    @staticmethod
    def forward(
        ctx: Any, activation: Activation, h: Float[Tensor, "seeds d_in batch"], *parameters: Tensor
    ) -> Float[Tensor, "seeds d_out batch"]:
        output, seen = _through(activation, h, parameters, kept=any(ctx.needs_input_grad))
        ctx.save_for_backward(*seen.weights, *seen.inputs, *seen.slopes)
        return output

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, g: Float[Tensor, "seeds d_out batch"]) -> tuple[Tensor | None, ...]:
        layers = (len(ctx.saved_tensors) + 1) // 3
        weights, inputs = ctx.saved_tensors[:layers], ctx.saved_tensors[layers : 2 * layers]
        _, of_input, *wanted = ctx.needs_input_grad
        seen = _Seen(weights, inputs, ctx.saved_tensors[2 * layers :])
        g, of_parameters = seen.back(g, any(wanted))
        unwanted: list[Tensor | None] = [None] * len(wanted)
        return None, torch.bmm(weights[0], g) if of_input else None, *(of_parameters or unwanted)


class MLP(Networks):
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
        return _Layers.apply(self.activation, self._inputs(x, t), *self.weights, *self.biases).mT

    @torch.no_grad()
    def pullback(
        self, x: Float[Tensor, "seeds batch d"], t: Float[Tensor, "seeds batch"]
    ) -> tuple[Float[Tensor, "seeds batch d"], Pullback]:
        """The output, and what its gradient makes of the parameters: as autograd does it, but without its bookkeeping.

        PyTorch's own would also import a library for symbolic mathematics at its first call, for half a second.
        """
        output, seen = _through(self.activation, self._inputs(x, t), [*self.weights, *self.biases], kept=True)
        return output.mT, lambda slope: seen.back(slope.mT)[1]

    def _inputs(
        self, x: Float[Tensor, "seeds batch d"], t: Float[Tensor, "seeds batch"]
    ) -> Float[Tensor, "seeds d_in batch"]:
        t = t.unsqueeze(-1)
        if self.frequencies is not None:
            angle = t * self.frequencies.to(t)
            t = torch.cat([angle.sin(), angle.cos()], -1)
        return torch.cat([x.mT, t.mT], 1)

    def by_model(self, of_parameters: Sequence[Tensor]) -> list[list[Tensor]]:
        """Views of tensors shaped like the parameters, e.g. their gradients: one list per model."""
        return [[tensor[k] for tensor in of_parameters] for k in range(len(self.weights[0]))]
