"""Networks on images behind the interface of networks on vectors: (seeds, batch, d) in, the same out."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal

import torch
from jaxtyping import Float
from torch import Tensor, nn

from difftime.training.nets.ncsnpp import NCSNpp
from difftime.training.nets.networks import Networks, Pullback

Precision = Literal["float32", "bfloat16"]


def usable(precision: Precision, device: torch.device) -> Precision:
    """The precision, or float32 on a CPU that has no instructions for bfloat16 (x86 before AVX-512).

    PyTorch convolves in bfloat16 there too, but ten times as slowly as in float32.
    """
    if device.type == "cpu" and not (
        torch.backends.mkldnn.is_available() and torch.ops.mkldnn._is_mkldnn_bf16_supported()
    ):
        return "float32"
    return precision


class ImageNets(Networks):
    """One network per seed, each on its own row of flattened images, one after another.

    `precision="bfloat16"` is mixed precision: convolutions and matrix products in bfloat16, weights, sums and the
    output in float32. `compiled` has torch.compile generate the code of every network; the weights keep their names.
    """

    def __init__(
        self,
        models: Sequence[nn.Module],
        shape: tuple[int, int, int],
        precision: Precision,
        channels_last: bool,
        compiled: bool,
    ) -> None:
        super().__init__()
        self.models = nn.ModuleList(models)
        self.shape, self.precision = shape, precision
        self.layout = torch.channels_last if channels_last else torch.contiguous_format
        self.to(memory_format=self.layout)  # type: ignore[call-overload]  # PyTorch's annotations lack this argument
        if compiled:
            for model in self.models:
                model.compile()

    def forward(
        self, x: Float[Tensor, "seeds batch d"], t: Float[Tensor, "seeds batch"]
    ) -> Float[Tensor, "seeds batch d"]:
        with torch.autocast(x.device.type, torch.bfloat16, enabled=self.precision == "bfloat16"):
            outputs = [
                model(images.unflatten(-1, self.shape).contiguous(memory_format=self.layout), times)
                for model, images, times in zip(self.models, x, t, strict=True)
            ]
        return torch.stack([output.float().flatten(1) for output in outputs])

    def pullback(
        self, x: Float[Tensor, "seeds batch d"], t: Float[Tensor, "seeds batch"]
    ) -> tuple[Float[Tensor, "seeds batch d"], Pullback]:
        """The output, and the function from a loss's gradient with respect to it to those of the parameters."""
        output, parameters = self(x, t), list(self.parameters())
        return output.detach(), lambda slope: list(torch.autograd.grad(output, parameters, slope))

    def resolutions(self) -> list[int]:
        """Pixels a side at the levels of the networks, which are all of one kind; none where that has no levels."""
        first = self.models[0]
        return first.sizes if isinstance(first, NCSNpp) else []

    def by_model(self, of_parameters: Sequence[Tensor]) -> list[list[Tensor]]:
        """Tensors shaped like the parameters, e.g. their gradients: one list per model."""
        left = iter(of_parameters)
        return [[next(left) for _ in model.parameters()] for model in self.models]
