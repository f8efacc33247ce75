"""A network's score: its meaning under each parameterisation, and its divergence."""

import pytest
import torch

from difftime.mixture import Mixture
from difftime.nets.mlp import MLP
from difftime.score import ExactScore, NetScore, divergence
from difftime.sde import SDE
from difftime.streams import stream

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


def test_scaled_inputs_have_the_variance_of_x_t_divided_out(sde: SDE) -> None:
    model, x = net(), torch.randn(3, 5, 2, generator=stream("x"))
    std = (sde.alpha(T) ** 2 * 4.0 + sde.variance(T)).sqrt().float()
    scaled = NetScore(model, sde, "noise", scale_input=True, data_variance=4.0)(x, T)
    plain = NetScore(model, sde, "noise", scale_input=False, data_variance=4.0)(x / std, T)
    assert torch.allclose(scaled, plain, rtol=1e-4)


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
