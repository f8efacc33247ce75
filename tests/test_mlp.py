"""The perceptron's gradient, which is written out, is the one that autograd finds."""

from itertools import product

import pytest
import torch
from torch import Tensor
from torch.nn import functional

from difftime.support.streams import stream
from difftime.training.nets.mlp import ACTIVATIONS, MLP, _Layers

ORACLES = {"silu": functional.silu, "tanh": torch.tanh, "relu": torch.relu, "gelu": functional.gelu}
CASES = list(product(ACTIVATIONS, (1, 3), ("raw", "fourier")))


def plain(net: MLP, activation: str, x: Tensor, t: Tensor) -> Tensor:
    """The same network as a composition of PyTorch's own functions."""
    angle = t[..., None] * (1 if net.frequencies is None else net.frequencies)
    h = torch.cat([x, angle] if net.frequencies is None else [x, angle.sin(), angle.cos()], -1)
    for weight, bias in zip(net.weights[:-1], net.biases[:-1], strict=True):
        h = ORACLES[activation](h @ weight + bias)
    return h @ net.weights[-1] + net.biases[-1]


def network(activation: str, d: int, time_features: str) -> tuple[MLP, Tensor, Tensor]:
    net = MLP(d, 5, 2, activation, time_features, [stream("mlp", k) for k in range(2)]).double()
    x = torch.randn(2, 7, d, dtype=torch.float64, generator=stream("x")).requires_grad_()
    return net, x, torch.rand(2, 7, dtype=torch.float64, generator=stream("t"))


@pytest.mark.parametrize(("activation", "d", "time_features"), CASES)
def test_output_and_gradients_are_those_of_the_plain_composition(activation: str, d: int, time_features: str) -> None:
    net, x, t = network(activation, d, time_features)
    output, expected = net(x, t), plain(net, activation, x, t)
    assert torch.allclose(output, expected, rtol=1e-12, atol=1e-14)
    of, weights = [x, *net.parameters()], torch.randn(output.shape, dtype=torch.float64, generator=stream("g"))
    for _ in range(2):  # a graph that is kept serves twice, as for a divergence in several dimensions
        found = torch.autograd.grad(output, of, weights, retain_graph=True)
        for a, b in zip(found, torch.autograd.grad(expected, of, weights, retain_graph=True), strict=True):
            assert torch.allclose(a, b, rtol=1e-10, atol=1e-13)


@pytest.mark.parametrize("activation", ACTIVATIONS)
def test_the_gradient_is_the_limit_of_differences(activation: str) -> None:
    net, x, _ = network(activation, 2, "raw")
    h = torch.cat([x.detach().mT, torch.ones(2, 1, 7, dtype=torch.float64)], 1).requires_grad_()
    assert torch.autograd.gradcheck(
        lambda *inputs: _Layers.apply(ACTIVATIONS[activation], *inputs), (h, *net.weights, *net.biases)
    )


@pytest.mark.parametrize(("activation", "d", "time_features"), CASES)
def test_the_pullback_is_to_the_bit_what_autograd_finds(activation: str, d: int, time_features: str) -> None:
    net, x, t = network(activation, d, time_features)
    output, pullback = net.pullback(x, t)
    expected = net(x, t)
    slope = torch.randn(output.shape, dtype=torch.float64, generator=stream("g"))
    assert torch.equal(output, expected)
    assert not output.requires_grad
    for a, b in zip(pullback(slope), torch.autograd.grad(expected, list(net.parameters()), slope), strict=True):
        assert torch.equal(a, b)


@pytest.mark.parametrize("activation", ACTIVATIONS)
def test_slopes_are_finite_and_right_far_out(activation: str) -> None:
    a = torch.tensor([-200.0, -30.0, -9.0, 0.0, 9.0, 30.0, 200.0], requires_grad=True)
    h = ORACLES[activation](a)
    (expected,) = torch.autograd.grad(h.sum(), a)
    value, slope = ACTIVATIONS[activation](a.detach().clone())
    assert torch.allclose(value, h.detach(), atol=1e-6)
    assert torch.allclose(slope(), expected, atol=1e-6)


def test_frozen_weights_leave_the_gradient_of_the_input() -> None:
    net, x, t = network("silu", 3, "raw")
    (expected,) = torch.autograd.grad(net(x, t).sum(), x)
    net.requires_grad_(False)
    assert torch.equal(torch.autograd.grad(net(x, t).sum(), x)[0], expected)
    assert not net(x.detach(), t).requires_grad
