"""Muon: the step of a matrix has the singular vectors of its averaged gradient, and nearly equal singular values."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from difftime.support.streams import stream
from difftime.training.nets.mlp import MLP
from difftime.training.optimisers import adam, muon, orthogonal


@pytest.mark.parametrize("shape", [(1, 8, 8), (3, 16, 144), (2, 40, 9)])
def test_all_singular_values_come_near_1_and_the_vectors_stay(shape: tuple[int, int, int]) -> None:
    """The polynomial takes values from 0.01 of the norm on to between 0.6 and 1.3."""
    n, rows, columns = shape
    rank = min(rows, columns)
    U = torch.linalg.qr(torch.randn(n, rows, rank, generator=stream("U")))[0]
    V = torch.linalg.qr(torch.randn(n, columns, rank, generator=stream("V")))[0]
    values = torch.linspace(0.05, 1, rank)
    made = orthogonal(U * values @ V.mT * 7e-4)
    core = U.mT @ made @ V
    diagonal = core.diagonal(dim1=1, dim2=2)
    assert diagonal.min() > 0.6
    assert diagonal.max() < 1.3
    assert torch.allclose(core, torch.diag_embed(diagonal), atol=1e-4)
    assert torch.allclose(made, U @ core @ V.mT, atol=1e-4)


def test_a_gradient_of_0_makes_no_step() -> None:
    assert torch.equal(orthogonal(torch.zeros(1, 8, 8)), torch.zeros(1, 8, 8))


def state(net: MLP) -> tuple[list[Tensor], list[Tensor], list[list[Tensor]]]:
    parameters = list(net.parameters())
    gradients = [torch.randn(p.shape, generator=stream("gradients", i)) for i, p in enumerate(parameters)]
    return parameters, gradients, [[torch.zeros_like(p) for p in parameters] for _ in range(2)]


def network(seeds: list[str]) -> MLP:
    return MLP(1, 12, 2, "silu", "raw", [stream(seed) for seed in seeds])


@torch.no_grad()
def test_the_first_step_is_the_orthogonal_factor_of_the_gradient_scaled_to_adams_size() -> None:
    net = network(["a"])
    parameters, gradients, moments = state(net)
    before = [p.clone() for p in parameters]
    muon(net, parameters, gradients, moments, torch.ones(()), 0.01)
    step, gradient = before[1][0] - parameters[1][0], gradients[1][0]
    U, _, Vh = torch.linalg.svd(gradient)
    values = (U.mT @ step @ Vh.mT).diagonal() / (0.01 * 0.2 * 12**0.5)
    assert values.median().item() == pytest.approx(1, abs=0.3)
    # 0.2 is about the root mean square of Adam's steps, in learning rates
    assert step.square().mean().sqrt().item() == pytest.approx(0.2 * 0.01, rel=0.3)


@torch.no_grad()
def test_vectors_and_thin_matrices_take_adams_step() -> None:
    nets = [network(["a", "b"]) for _ in range(2)]
    for net, optimiser in zip(nets, (adam, muon), strict=True):
        parameters, gradients, moments = state(net)
        optimiser(net, parameters, gradients, moments, torch.ones(()), 0.01)
    equal = {name for name, one in nets[0].named_parameters() if torch.equal(one, nets[1].get_parameter(name))}
    # 2 × 12 and 12 × 1 are thin
    assert equal == {"weights.0", "weights.2", "biases.0", "biases.1", "biases.2"}


@torch.no_grad()
def test_a_models_step_does_not_depend_on_the_others() -> None:
    both, alone = network(["a", "b"]), network(["a"])
    parameters, gradients, moments = state(both)
    muon(both, parameters, gradients, moments, torch.ones(()), 0.01)
    own = [g[:1].clone() for g in gradients]
    muon(
        alone,
        list(alone.parameters()),
        own,
        [[torch.zeros_like(g) for g in own] for _ in range(2)],
        torch.ones(()),
        0.01,
    )
    for one, other in zip(both.parameters(), alone.parameters(), strict=True):
        assert torch.allclose(one[:1], other, rtol=1e-5, atol=1e-7)


@torch.no_grad()
@pytest.mark.parametrize("rate", [0.01, torch.tensor(0.01)])
def test_adams_step_does_not_depend_on_how_a_gradient_lies_in_memory(rate: float | Tensor) -> None:
    """Autograd gives that of a convolution in channels_last, or not, as its kernel pleases."""
    gradient, found = torch.randn(8, 6, 3, 3, generator=stream("gradient")), []
    for layout in (torch.contiguous_format, torch.channels_last):
        weight = torch.ones(8, 6, 3, 3).to(memory_format=torch.channels_last)
        moments = [[torch.zeros_like(weight)] for _ in range(2)]
        adam(network(["a"]), [weight], [gradient.to(memory_format=layout)], moments, torch.ones(()), rate)
        found.append(weight)
        # Kingma and Ba, their first step
        assert torch.allclose(weight, 1 - 0.01 * gradient / (gradient.abs() + 1e-8), atol=1e-6)
    assert torch.equal(*found)
