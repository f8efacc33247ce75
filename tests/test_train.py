"""Training minimises Eq. 3, and a run that is cut anywhere ends with the bits of one that is not."""

import math
import os
import signal
from dataclasses import replace
from pathlib import Path

import pytest
import torch

from difftime.diffusion.mixture import Mixture
from difftime.diffusion.score import ExactScore, NetScore
from difftime.diffusion.sde import SDE, VP
from difftime.measures.elbo import path_terms
from difftime.support.signals import Interrupted
from difftime.support.streams import stream
from difftime.training import train as module
from difftime.training.data import MixtureSample
from difftime.training.nets.mlp import MLP
from difftime.training.train import Diverged, Recipe, Trained, train

RECIPE = Recipe(
    weighting="likelihood",
    time_sampling="uniform",
    steps=350,
    batch=32,
    learning_rate=1e-3,
    warmup=0,
    optimiser="adam",
    decay="none",
    clip=None,
    ema=0.999,
    checkpoint_minutes=60.0,
    block=100,
)
BLOCK = RECIPE.block
SEEDS = ["0/a", "0/b", "0/c"]
ARGUMENTS = {"T": 0.6, "epsilon": 1e-3, "name": "a cell", "identity": {"settings": "a", "code": "b"}}


def score(seeds: list[str], sde: SDE | None = None) -> NetScore:
    net = MLP(1, 8, 2, "silu", "raw", [stream(seed, "initial weights") for seed in seeds])
    return NetScore(net, sde or VP(), "noise", scale_input=False, data_variance=1.0)


def run(toy: Mixture, seeds: list[str] = SEEDS, recipe: Recipe = RECIPE, **changes) -> Trained:
    return train(score(seeds), MixtureSample.of(toy, 500, seeds), recipe=recipe, seeds=seeds, **(ARGUMENTS | changes))


def equal(a: Trained, b: Trained) -> bool:
    return a.weights.keys() == b.weights.keys() and all(torch.equal(a.weights[k], b.weights[k]) for k in a.weights)


@pytest.mark.parametrize("weighting", ["likelihood", "noise"])
def test_both_ways_to_sample_t_estimate_the_same_loss(toy: Mixture, sde: SDE, weighting: str) -> None:
    """The mean of weight · ||z_hat - z||² over batches is one mean over t, whatever the density of t."""
    estimates = []
    for sampling in ("uniform", "lambda"):
        recipe = replace(RECIPE, weighting=weighting, time_sampling=sampling, batch=2000)
        data = MixtureSample.of(toy, 4000, ["s"])
        batches = module._draw(data, ["s"], 0, score(["s"], sde), 0.8, 0.05, recipe)
        z_hat = (
            -ExactScore(toy, sde)(batches.inputs.double(), batches.t.double())
            * sde.sigma(batches.t.double())[..., None]
        )
        values = (batches.weight * (z_hat - batches.target).square().sum(-1)).flatten()
        estimates.append((values.mean().item(), values.std().item() / math.sqrt(len(values))))
    (a, a_se), (b, b_se) = estimates
    assert abs(a - b) < 4 * math.hypot(a_se, b_se)


def test_the_likelihood_weighted_loss_of_the_exact_score_is_twice_K(toy: Mixture, sde: SDE) -> None:
    exact = ExactScore(toy, sde)
    K = path_terms(exact, toy, sde, 0.8, 0.05, seeds=1, time_steps=100, points=1, seed="test").K.item()
    recipe = replace(RECIPE, time_sampling="lambda", batch=2000)
    batches = module._draw(MixtureSample.of(toy, 20_000, ["s"]), ["s"], 0, score(["s"], sde), 0.8, 0.05, recipe)
    z_hat = -exact(batches.inputs.double(), batches.t.double()) * sde.sigma(batches.t.double())[..., None]
    values = (0.8 - 0.05) * (batches.weight * (z_hat - batches.target).square().sum(-1)).flatten()
    # the 20,000 data points are drawn with replacement 200,000 times: their own error dominates
    assert values.mean().item() == pytest.approx(2 * K, abs=4 * values.std().item() / math.sqrt(20_000))


def test_training_closes_most_of_the_gap(toy: Mixture) -> None:
    model = score(SEEDS)
    gap = {"seeds": len(SEEDS), "time_steps": 60, "points": 1, "seed": "test"}
    before = path_terms(model, toy, model.sde, 0.6, 1e-3, **gap).gap
    model.net.load_state_dict(
        run(toy, recipe=Recipe(**{**RECIPE.__dict__, "steps": 1000, "learning_rate": 1e-2})).weights
    )
    assert (path_terms(model, toy, model.sde, 0.6, 1e-3, **gap).gap < 0.5 * before).all()


def test_a_seeds_model_does_not_depend_on_the_others_beside_it(toy: Mixture) -> None:
    """Within rounding: a batched product may sum in another order."""
    together, alone = run(toy), run(toy, SEEDS[1:2])
    for name, weight in alone.weights.items():
        assert torch.allclose(together.weights[name][1:2], weight, rtol=1e-3, atol=1e-4)


def test_the_same_run_gives_the_same_bits(toy: Mixture) -> None:
    assert equal(run(toy), run(toy))


class Cut(BaseException):
    """Stands for a SIGKILL."""


@pytest.mark.parametrize("block", [0, 1, 2, 3])
def test_a_run_that_is_killed_and_resumed_ends_with_the_same_bits(
    toy: Mixture, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, block: int
) -> None:
    resume = tmp_path / "resume.pt"
    recipe = Recipe(**{**RECIPE.__dict__, "checkpoint_minutes": 1e-9})  # a state after every block
    draw = module._draw

    def cut(*arguments):
        if arguments[2] == block:
            raise Cut
        return draw(*arguments)

    monkeypatch.setattr(module, "_draw", cut)
    with pytest.raises(Cut):
        run(toy, recipe=recipe, resume=resume)
    monkeypatch.setattr(module, "_draw", draw)
    assert resume.exists() == (block > 0)
    resumed, whole = run(toy, recipe=recipe, resume=resume), run(toy)
    assert equal(resumed, whole)
    assert torch.equal(resumed.loss, whole.loss)


@pytest.mark.parametrize("asked", [signal.SIGTERM, signal.SIGINT, signal.SIGHUP])
def test_a_signal_that_asks_to_stop_saves_a_state_at_once(
    toy: Mixture, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, asked: signal.Signals
) -> None:
    resume = tmp_path / "resume.pt"
    draw, before = module._draw, signal.signal(asked, signal.SIG_DFL)

    def signalled(*arguments):
        if arguments[2] == 1:
            os.kill(os.getpid(), asked)
        return draw(*arguments)

    monkeypatch.setattr(module, "_draw", signalled)
    with pytest.raises(Interrupted, match=f"after step {2 * BLOCK}"):
        run(toy, resume=resume)
    assert signal.signal(asked, before) is signal.SIG_DFL
    monkeypatch.setattr(module, "_draw", draw)
    assert equal(run(toy, resume=resume), run(toy))


def test_a_damaged_resume_state_is_reported_and_training_starts_anew(
    toy: Mixture, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    resume = tmp_path / "resume.pt"
    resume.write_bytes(b"x" * 1000)
    assert equal(run(toy, resume=resume), run(toy))
    assert str(resume) in caplog.text
    assert "step 0" in caplog.text


@pytest.mark.parametrize("other", ["settings", "code"])
def test_a_resume_state_of_other_settings_or_code_is_not_used_and_the_log_says_why(
    toy: Mixture, tmp_path: Path, caplog: pytest.LogCaptureFixture, other: str
) -> None:
    resume = tmp_path / "resume.pt"
    run(toy, recipe=Recipe(**{**RECIPE.__dict__, "checkpoint_minutes": 1e-9}), resume=resume)
    assert equal(run(toy, resume=resume, identity=ARGUMENTS["identity"] | {other: "c"}), run(toy))
    assert f"{resume} was left by other {other}, so it is not used. Starting from step 0 instead." in caplog.text


def test_divergence_names_the_step_the_cell_and_the_last_good_loss(
    toy: Mixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    draw = module._draw

    def poisoned(*arguments):
        batches = draw(*arguments)
        if arguments[2] == 1:
            batches.weight[7, 2] = math.nan
        return batches

    monkeypatch.setattr(module, "_draw", poisoned)
    with pytest.raises(
        Diverged, match=rf"a cell diverged: the loss of seed 2 is nan at step {BLOCK + 7} .last good loss: \d"
    ):
        run(toy)


def test_the_average_warms_up(toy: Mixture) -> None:
    """After n steps the decay is min(ema, (1+n)/(10+n)), so early weights are forgotten."""
    recipe = Recipe(**{**RECIPE.__dict__, "steps": 3, "ema": 0.9999})
    trained = run(toy, recipe=recipe)
    model = score(SEEDS)
    data = MixtureSample.of(toy, 500, SEEDS)
    parameters = list(model.net.parameters())
    average = [p.detach().clone() for p in parameters]
    adam = torch.optim.Adam(parameters, lr=recipe.learning_rate)
    batches = module._draw(data, SEEDS, 0, model, 0.6, 1e-3, recipe)
    for n in range(3):
        loss = (
            batches.weight[n] * (model.net(batches.inputs[n], batches.t[n]) - batches.target[n]).square().sum(-1)
        ).mean(1)
        adam.zero_grad()
        loss.sum().backward()
        adam.step()
        decay = (2 + n) / (11 + n)
        average = [decay * a + (1 - decay) * p.detach() for a, p in zip(average, parameters, strict=True)]
    for weight, expected in zip(trained.weights.values(), average, strict=True):
        assert torch.allclose(weight, expected, rtol=1e-4, atol=1e-6)


@pytest.mark.parametrize("clip", [None, 1.0])
def test_a_seeds_model_does_not_depend_on_the_others(toy: Mixture, clip: float | None) -> None:
    recipe = replace(RECIPE, clip=clip, steps=30)
    one, three = run(toy, seeds=SEEDS[:1], recipe=recipe), run(toy, recipe=recipe)
    for name, weight in one.weights.items():
        assert torch.allclose(weight[0], three.weights[name][0], rtol=1e-4, atol=1e-6)


def test_the_gradient_of_every_seed_is_cut_to_the_norm_by_itself(toy: Mixture) -> None:
    model = score(SEEDS)
    gradients = [torch.randn_like(p) * 100 for p in model.net.parameters()]
    for k, own in enumerate(model.net.by_model(gradients)):
        assert all(torch.equal(part, whole[k]) for part, whole in zip(own, gradients, strict=True))
        torch._foreach_mul_(own, 0.0)
        assert not any(whole[k].any() for whole in gradients)
