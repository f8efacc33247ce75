"""Steps of optimisers, with their state in the hands of the caller, so that it can be saved."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from jaxtyping import Float
from torch import Tensor

from difftime.training.nets.networks import Networks

SMALLEST = 8
"""Matrices with fewer rows or columns have no singular values worth to be made equal."""
COEFFICIENTS = (3.4445, -4.7750, 2.0315)
"""Of the polynomial a s + b s³ + c s⁵ that, applied five times, brings all singular values s in (0, 1] near 1."""


def adam(
    net: Networks, parameters: list[Tensor], gradients: list[Tensor], moments: list[list[Tensor]], count: Tensor,
    rate: float | Tensor,
) -> None:  # fmt: skip
    """Kingma and Ba (2015), with betas 0.9 and 0.999."""
    # the kernel itself: constructing torch.optim.Adam imports the compiler, for a second, and each of its steps takes
    # three times as long
    first, second = moments
    # it takes numbers as they lie in memory, and autograd lays those of a gradient as it likes
    gradients = [
        gradient if gradient.stride() == weight.stride() else torch.empty_like(weight).copy_(gradient)
        for weight, gradient in zip(parameters, gradients, strict=True)
    ]
    torch._fused_adam_(
        parameters, gradients, first, second, [], len(gradients) * [count], amsgrad=False, maximize=False,
        beta1=0.9, beta2=0.999, lr=rate, weight_decay=0.0, eps=1e-8,
    )  # fmt: skip


def muon(
    net: Networks, parameters: list[Tensor], gradients: list[Tensor], moments: list[list[Tensor]], count: Tensor,
    rate: float,
) -> None:  # fmt: skip
    """Muon (Jordan et al., 2024): the step of a matrix has equal singular values. Other weights take Adam's step.

    A convolution is a matrix with a row per output. The step is scaled to the size that Adam's usually has, so that
    both go by one learning rate (Liu et al., 2025).
    """
    models = zip(*(net.by_model(tensors) for tensors in (parameters, gradients, *moments)), strict=True)
    for own in models:
        rows = list(zip(*own, strict=True))
        matrices, others = ([row for row in rows if _is_matrix(row[0]) == wanted] for wanted in (True, False))
        vectors, slopes, *own_moments = ([row[k] for row in others] for k in range(4))
        adam(net, vectors, slopes, own_moments, count, rate)
        _orthogonal_steps([row[:3] for row in matrices], rate)


def _is_matrix(weight: Tensor) -> bool:
    return weight.ndim >= 2 and min(len(weight), weight[0].numel()) >= SMALLEST


def _orthogonal_steps(matrices: Sequence[tuple[Tensor, Tensor, Tensor]], rate: float) -> None:
    """Weights, gradients and their running means: those of one shape together, as there are many small ones."""
    shapes: dict[tuple[int, int], list[tuple[Tensor, Tensor, Tensor]]] = {}
    for row in matrices:
        shapes.setdefault((len(row[0]), row[0][0].numel()), []).append(row)
    for shape, of_shape in shapes.items():
        weights, gradients, means = (list(column) for column in zip(*of_shape, strict=True))
        torch._foreach_lerp_(means, gradients, 0.05)
        # Nesterov's look ahead
        ahead = torch._foreach_lerp(gradients, means, 0.95)
        steps = orthogonal(torch.stack([matrix.flatten(1) for matrix in ahead])) * (0.2 * max(shape) ** 0.5)
        torch._foreach_add_(weights, [step.view_as(of) for step, of in zip(steps, weights, strict=True)], alpha=-rate)


def orthogonal(matrices: Float[Tensor, "n rows columns"]) -> Float[Tensor, "n rows columns"]:
    """Matrices with the singular vectors of these, and all singular values near 1, by Newton–Schulz iterations."""
    tall = matrices.shape[1] > matrices.shape[2]
    x = matrices.mT if tall else matrices
    x = x / (x.norm(dim=(1, 2), keepdim=True) + 1e-30)
    a, b, c = COEFFICIENTS
    for _ in range(5):
        square = x @ x.mT
        x = torch.baddbmm(x, torch.baddbmm(square, square, square, beta=b, alpha=c), x, beta=a)
    return x.mT if tall else x
