"""A network's score: its meaning under each parameterisation, and its divergence."""

from itertools import product

import pytest
import torch
from torch import Tensor, nn

from difftime.diffusion.mixture import Mixture
from difftime.diffusion.score import ExactScore, Hutchinson, NetScore, divergence, rademacher
from difftime.diffusion.sde import SDE, VP
from difftime.support.streams import stream
from difftime.training.nets.mlp import MLP

T = torch.tensor(0.4, dtype=torch.float64)


def net(seeds: int = 3, d: int = 2, time_features: str = "raw") -> MLP:
    return MLP(d, 16, 2, "tanh", time_features, [stream("score", k) for k in range(seeds)])


def test_a_network_that_predicts_noise_gives_the_score_minus_net_over_sigma(sde: SDE) -> None:
    model, x = net(), torch.randn(3, 5, 2, generator=stream("x"))
    output = model(x, torch.full((3, 5), T.item()))
    score = NetScore(model, sde, "noise", scale_input=False, data_variance=1.0)(x, T)
    assert torch.allclose(score, -output / sde.sigma(T).float(), rtol=1e-5)


def test_a_network_that_predicts_the_score_gives_its_output(sde: SDE) -> None:
    model, x = net(), torch.randn(3, 5, 2, generator=stream("x"))
    score = NetScore(model, sde, "score", scale_input=False, data_variance=1.0)
    assert torch.allclose(score(x, T), model(x, torch.full((3, 5), T.item())), rtol=1e-5)


def test_the_network_sees_its_times_where_x_is(sde: SDE) -> None:
    """A time on the CPU, as samplers give it, beside an x on another device."""

    class Sum(nn.Module):
        def forward(self, x: Tensor, t: Tensor) -> Tensor:
            return x + t[..., None]

    x = torch.zeros(3, 5, 2, device="meta")
    assert NetScore(Sum(), sde, "noise", scale_input=True, data_variance=1.0)(x, T).device == x.device


def test_scaled_inputs_have_the_variance_of_x_t_divided_out(sde: SDE) -> None:
    model, x = net(), torch.randn(3, 5, 2, generator=stream("x"))
    std = (sde.alpha(T) ** 2 * 4.0 + sde.variance(T)).sqrt().float()
    scaled = NetScore(model, sde, "noise", scale_input=True, data_variance=4.0)(x, T)
    plain = NetScore(model, sde, "noise", scale_input=False, data_variance=4.0)(x / std, T)
    assert torch.allclose(scaled, plain, rtol=1e-4)


@pytest.mark.parametrize("predicts", ["noise", "score"])
def test_the_regression_weighs_the_networks_error_as_that_of_the_noise(sde: SDE, predicts: str) -> None:
    score = NetScore(net(), sde, predicts, scale_input=True, data_variance=4.0)
    x0, z = torch.randn(2, 3, 5, 2, dtype=torch.float64, generator=stream("x"))
    t = torch.rand(3, 5, dtype=torch.float64, generator=stream("t")) + 0.01
    x = sde.perturb(x0, t, z)
    target, factor = score.regression(x, z, t)
    error = score.net(score.inputs(x, t).float(), t.float()) - target
    z_hat = -sde.sigma(t)[..., None] * score(x, t)
    assert torch.allclose(factor * error.square().sum(-1), (z_hat - z).square().sum(-1), rtol=1e-5)


@pytest.mark.parametrize("time_features", ["raw", "fourier"])
def test_one_time_for_all_is_the_same_as_a_time_per_point(sde: SDE, time_features: str) -> None:
    score = NetScore(net(time_features=time_features), sde, "noise", scale_input=True, data_variance=1.0)
    x = torch.randn(3, 5, 2, generator=stream("x"))
    assert torch.equal(score(x, T), score(x, T.expand(3, 5)))
    assert torch.equal(score(x, T), score(x, T.expand(3)))


def test_the_time_input_is_not_rescaled_past_1(sde: SDE) -> None:
    seen = []
    model = net()
    model.register_forward_pre_hook(lambda _, inputs: seen.append(inputs[1]))
    score = NetScore(model, sde, "noise", scale_input=False, data_variance=1.0)
    score(torch.zeros(3, 1, 2), torch.tensor(1.7))
    assert seen[0].unique().tolist() == pytest.approx([1.7])


def test_each_seed_is_a_network_of_its_own() -> None:
    model, x = net(), torch.randn(3, 5, 2, generator=stream("x"))
    t = torch.full((3, 5), 0.3)
    alone = MLP(2, 16, 2, "tanh", "raw", [stream("score", 1)])
    assert torch.allclose(model(x, t)[1], alone(x[1:2], t[1:2])[0], atol=1e-6)


def test_the_divergence_is_the_trace_of_the_jacobian(sde: SDE, correlated: Mixture) -> None:
    x = correlated.sample(6, stream("x")).reshape(2, 3, 2)
    for score in (ExactScore(correlated, sde), NetScore(net(2), sde, "noise", scale_input=False, data_variance=1.0)):
        s, div = divergence(score, x, T)
        assert torch.allclose(s, score(x, T))
        jacobian = torch.autograd.functional.jacobian(lambda x, score=score: score(x, T).sum((0, 1)), x)
        trace = torch.stack([jacobian[i, ..., i] for i in range(2)]).sum(0)
        assert torch.allclose(div, trace, rtol=1e-5, atol=1e-8)


def linear(d: int):
    """x ↦ A x for a matrix A that is not symmetric."""
    A = torch.randn(d, d, dtype=torch.float64, generator=stream("A"))
    return A, lambda x, t: x @ A.mT


def test_over_all_probes_hutchinson_s_estimate_is_the_trace() -> None:
    A, score = linear(5)
    probes = torch.tensor(list(product([-1.0, 1.0], repeat=5)))[None]
    x = torch.randn(1, 32, 5, dtype=torch.float64, generator=stream("x"))
    s, estimate = Hutchinson(probes)(score, x, T)
    assert torch.equal(s, score(x, T))
    assert torch.allclose(estimate.mean(), A.trace())
    assert estimate.std() > 0.1


def test_of_a_diagonal_jacobian_one_probe_finds_the_exact_divergence() -> None:
    x = torch.randn(2, 7, 16, dtype=torch.float64, generator=stream("x"))
    probe = Hutchinson(rademacher(x.shape, stream("probe")))
    for found, exact in zip(probe(lambda x, t: x**3, x, T), divergence(lambda x, t: x**3, x, T), strict=True):
        assert torch.allclose(found, exact)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_in_one_dimension_hutchinson_s_estimate_is_exact(sde: SDE, dtype: torch.dtype) -> None:
    score = NetScore(net(3, 1), sde, "noise", scale_input=True, data_variance=1.0)
    x = torch.randn(3, 5, 1, dtype=dtype, generator=stream("x"))
    s, estimate = Hutchinson(rademacher((5, 1), stream("probe")))(score, x, T)
    exact_s, exact = divergence(score, x, T)
    assert s.dtype == estimate.dtype == dtype
    assert torch.equal(s, exact_s)
    assert torch.allclose(estimate, exact, rtol=1e-5)


def test_hutchinson_costs_one_forward_pass_and_one_product() -> None:
    forward, backward = [], []

    def score(x: Tensor, t: Tensor) -> Tensor:
        forward.append(1)
        s = x.sin()
        s.register_hook(lambda _: backward.append(1))
        return s

    x = torch.ones(1, 3, 16)
    with torch.no_grad():
        s, estimate = Hutchinson(rademacher(x.shape, stream("probe")))(score, x, T)
    assert (len(forward), len(backward)) == (1, 1)
    assert not s.requires_grad
    assert not estimate.requires_grad
    assert not x.requires_grad


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_the_network_may_compute_in_bfloat16_under_hutchinson(dtype: torch.dtype) -> None:
    layer = nn.Linear(16, 16).requires_grad_(False)
    layer.weight.copy_(torch.randn(16, 16, generator=stream("weight")))
    seen = []

    class Bfloat16(nn.Module):
        def forward(self, x: Tensor, t: Tensor) -> Tensor:
            with torch.autocast("cpu", torch.bfloat16):
                output = layer(x)
            seen.append(output.dtype)
            return output

    score = NetScore(Bfloat16(), VP(), "score", scale_input=False, data_variance=1.0)
    x = torch.randn(1, 64, 16, dtype=dtype, generator=stream("x"))
    probe = rademacher(x.shape, stream("probe"))
    s, estimate = Hutchinson(probe)(score, x, T)
    full = torch.einsum("...i,ij,...j->...", probe, layer.weight, probe).to(dtype)
    assert seen == [torch.bfloat16]
    assert s.dtype == estimate.dtype == dtype
    # 256 terms of size 1, each rounded to 8 bits
    assert (estimate - full).abs().max() < 16 * 4 * 2**-8


def test_a_rademacher_probe_has_fair_signs_that_its_stream_fixes() -> None:
    probe = rademacher((100, 1000), stream("probe"))
    assert probe.unique().tolist() == [-1, 1]
    assert abs(probe.mean().item()) < 4 / 100_000**0.5
    assert torch.equal(probe, rademacher((100, 1000), stream("probe")))
