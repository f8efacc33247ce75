"""What the optimiser sees is the loss per dimension and unit of time, as in the code that the paper builds on.

The oracle is a plain loop: the mean over the batch of the mean over dimensions of (z_hat - z)², autograd, a cut of the
norm, torch.optim.Adam. It shares the weights, x_0, z and t with the trainer, and nothing else.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from itertools import chain
from pathlib import Path
from typing import Literal

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from difftime.diffusion.mixture import Mixture
from difftime.diffusion.score import NetScore
from difftime.diffusion.sde import SDE, VE, VP
from difftime.support.streams import stream
from difftime.training import train as module
from difftime.training.data import ImageSample, MixtureSample, TrainingData
from difftime.training.nets.images import ImageNets
from difftime.training.nets.mlp import MLP
from difftime.training.nets.ncsnpp import NCSNpp
from difftime.training.train import Recipe, train

SEEDS = ["0/a", "0/b"]
T, EPSILON = 0.6, 1e-3
RECIPE = Recipe(
    weighting="noise",
    time_sampling="uniform",
    steps=30,
    batch=16,
    learning_rate=1e-3,
    warmup=10,
    optimiser="adam",
    decay="none",
    clip=1.0,
    ema=0.9,
    checkpoint_minutes=60.0,
    block=100,
)


def toy_mlp(predicts: Literal["noise", "score"] = "noise") -> tuple[NetScore, TrainingData]:
    toy = Mixture.from_covariances([0.3, 0.7], [[1.0], [3.0]], [[[0.1**2]], [[0.5**2]]])
    net = MLP(1, 8, 2, "silu", "raw", [stream(seed, "weights") for seed in SEEDS])
    return NetScore(net, VP(), predicts, scale_input=False, data_variance=1.0), MixtureSample.of(toy, 100, SEEDS)


def image_nets() -> tuple[NetScore, TrainingData]:
    """Networks with noise on their weights: at the start most gradients of NCSN++ are near 0."""
    shape = {"width": 4, "multipliers": (1, 2), "blocks": 1, "attention": (), "dropout": 0.0}
    models = [NCSNpp(1, 8, **shape, generator=stream(seed, "weights")) for seed in SEEDS]
    nets = ImageNets(models, (1, 8, 8), "float32", channels_last=False, compiled=False)
    for parameter in nets.parameters():
        parameter.data += 0.05 * torch.randn(parameter.shape, generator=stream(str(parameter.shape)))
    grey = np.random.default_rng(0).integers(256, size=(12, 1, 8, 8), dtype=np.uint8)
    score = NetScore(nets, VP(), "noise", scale_input=False, data_variance=1.0)
    return score, ImageSample(torch.from_numpy(grey), flip=False)


MAKERS: dict[str, Callable[[], tuple[NetScore, TrainingData]]] = {
    "toy": toy_mlp,
    "toy, score": lambda: toy_mlp("score"),
    "images": image_nets,
}


def by_model(net: nn.Module, tensors: Sequence[Tensor]) -> list[Tensor]:
    """All numbers of each model, in one vector."""
    return [torch.cat([tensor.flatten() for tensor in own]) for own in net.by_model(tensors)]


@dataclass
class Plain:
    """The plain loop, and what it saw at each step."""

    losses: list[Tensor] = field(default_factory=list)
    gradients: list[list[Tensor]] = field(default_factory=list)
    cut: list[list[Tensor]] = field(default_factory=list)
    average: list[Tensor] = field(default_factory=list)


def plain_loop(score: NetScore, data: TrainingData, recipe: Recipe) -> Plain:
    """Train as one would write it down from the reference's formulas, for VP and uniform times."""
    net, seen, draws = score.net, Plain(), []
    for k, seed in enumerate(SEEDS):
        generator, size = stream(seed, "training noise", 0), (recipe.block, recipe.batch)
        x0, u = data.draw(k, size, generator), torch.rand(size, dtype=torch.float64, generator=generator)
        draws.append((x0, EPSILON + (T - EPSILON) * u, torch.randn(*size, data.d, generator=generator)))
    parameters = list(net.parameters())
    adam = torch.optim.Adam(parameters, lr=recipe.learning_rate)
    seen.average = [parameter.detach().clone() for parameter in parameters]
    for n in range(recipe.steps):
        x0, t, z = (torch.stack([draw[i][n] for draw in draws]) for i in range(3))
        B = 0.1 * t + 0.5 * 19.9 * t**2
        sigma = (-torch.expm1(-B)).sqrt()[..., None]
        x_t = (-0.5 * B).exp()[..., None] * x0 + sigma * z
        output = net(x_t.float(), t.float())
        z_hat = output if score.predicts == "noise" else -sigma * output
        weight = (0.1 + 19.9 * t) / sigma[..., 0] ** 2 if recipe.weighting == "likelihood" else torch.ones_like(t)
        loss = (weight * (z_hat - z).square().mean(-1)).mean(1)
        adam.zero_grad()
        loss.sum().backward()
        gradients = [parameter.grad for parameter in parameters]
        seen.losses.append(loss.detach())
        seen.gradients.append(by_model(net, gradients))
        for own in net.by_model(gradients):
            norm = math.sqrt(sum(part.double().square().sum().item() for part in own))
            for part in own:
                part.mul_(min(1.0, recipe.clip / norm) if recipe.clip else 1.0)
        seen.cut.append(by_model(net, gradients))
        for group in adam.param_groups:
            group["lr"] = recipe.learning_rate * min(1.0, (n + 1) / max(1, recipe.warmup))
        adam.step()
        decay = min(recipe.ema, (2 + n) / (11 + n))
        seen.average = [decay * a + (1 - decay) * p.detach() for a, p in zip(seen.average, parameters, strict=True)]
    return seen


@pytest.mark.parametrize("weighting", ["noise", "likelihood"])
@pytest.mark.parametrize("kind", MAKERS)
def test_the_optimiser_sees_the_gradients_of_a_plain_loop_and_cuts_them_alike(
    kind: str, weighting: Literal["noise", "likelihood"], monkeypatch: pytest.MonkeyPatch
) -> None:
    score, data = MAKERS[kind]()
    seen, cut, step = [], [], module._Run.step

    def spied(run: object, number: int, gradients: list[Tensor]) -> None:
        seen.append([own.clone() for own in by_model(score.net, gradients)])
        step(run, number, gradients)
        cut.append([own.clone() for own in by_model(score.net, gradients)])

    monkeypatch.setattr(module._Run, "step", spied)
    # the norms of the first few steps lie on both sides of it
    plain = plain_loop(*MAKERS[kind](), replace(RECIPE, weighting=weighting, clip=None))
    clip = torch.stack([own.norm() for of_step in plain.gradients for own in of_step]).median().item()
    recipe = replace(RECIPE, weighting=weighting, clip=clip)
    plain = plain_loop(*MAKERS[kind](), recipe)
    trained = train(score, data, T=T, epsilon=EPSILON, recipe=recipe, seeds=SEEDS, name="a cell", identity={})
    norms = torch.stack([own.norm() for of_step in plain.gradients for own in of_step])
    assert (norms > 1.01 * clip).any()
    assert (norms < 0.99 * clip).any()
    for ours, theirs in ((seen, plain.gradients), (cut, plain.cut)):
        for own, other in zip(chain(*ours), chain(*theirs), strict=True):
            # both run in float32, and drift apart by rounding from step to step
            assert (own - other).norm() < 1e-3 * other.norm()
    for own, other in zip(seen[0] + cut[0], plain.gradients[0] + plain.cut[0], strict=True):
        assert (own - other).norm() < 1e-5 * other.norm()
    start, end, other = (
        torch.cat([part.detach().flatten() for part in tensors])
        for tensors in (MAKERS[kind]()[0].net.parameters(), trained.weights.values(), plain.average)
    )
    # Adam turns the rounding of a gradient that is nearly 0 into a step of full length
    assert (end - other).norm() < 1e-3 * (other - start).norm()


@pytest.mark.parametrize("kind", MAKERS)
def test_the_reported_loss_is_in_nats(kind: str) -> None:
    """D (T - epsilon) times what the optimiser sees."""
    recipe = replace(RECIPE, steps=5)
    plain = plain_loop(*MAKERS[kind](), recipe)
    score, data = MAKERS[kind]()
    trained = train(score, data, T=T, epsilon=EPSILON, recipe=recipe, seeds=SEEDS, name="a cell", identity={})
    expected = data.d * (T - EPSILON) * torch.stack(plain.losses).mean(0)
    assert trained.loss[0].numpy() == pytest.approx(expected.numpy(), rel=1e-4)


def test_the_cut_does_not_depend_on_the_number_of_dimensions_or_on_T() -> None:
    """For a network whose output is 0, the loss per dimension and unit of time is that of z itself, about 1."""
    for size, T_own in ((8, 0.2), (8, 2.0), (16, 0.6)):
        grey = np.zeros((4, 1, size, size), dtype=np.uint8)
        score, data = image_nets()[0], ImageSample(torch.from_numpy(grey), False)
        recipe = replace(RECIPE, batch=200, block=1)
        batches = module._draw(data, SEEDS, 0, score, T_own, EPSILON, recipe)
        seen = (batches.weight * batches.target.square().mean(-1)).mean()
        # 400 points of at least 64 coordinates each
        assert seen.item() == pytest.approx(1, abs=4 * math.sqrt(2 / (400 * 64)))


def test_the_learning_rate_falls_to_0_by_a_half_cosine_after_its_rise() -> None:
    recipe = replace(RECIPE, decay="cosine", steps=200, warmup=10, learning_rate=3.0)
    rates = [recipe.rate(step) for step in range(200)]
    cosine = [1.5 * (1 + math.cos(math.pi * step / 200)) for step in range(200)]
    assert rates[9:] == pytest.approx(cosine[9:])
    assert rates[:10] == pytest.approx([(step + 1) / 10 * of for step, of in enumerate(cosine[:10])])
    assert 0 < rates[-1] < 1e-3
    assert replace(recipe, decay="none").rate(199) == 3.0


@pytest.mark.parametrize("optimiser", ["adam", "muon"])
def test_a_decaying_run_that_is_resumed_has_the_bits_of_one_that_was_not(
    tmp_path: Path, optimiser: Literal["adam", "muon"]
) -> None:
    recipe = replace(
        RECIPE, optimiser=optimiser, decay="cosine", time_sampling="lambda", block=10, checkpoint_minutes=1e-9
    )
    options = {"T": T, "epsilon": EPSILON, "seeds": SEEDS, "name": "a cell", "identity": {"cell": "digest"}}
    score, data = image_nets()
    whole = train(score, data, recipe=recipe, **options)
    draw, resume = module._draw, tmp_path / "resume.pt"

    class Cut(BaseException):
        """Stands for a SIGKILL."""

    def cut(*arguments: object) -> object:
        if arguments[2] == 2:
            raise Cut
        return draw(*arguments)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(module, "_draw", cut)
        with pytest.raises(Cut):
            train(image_nets()[0], data, recipe=recipe, resume=resume, **options)
    resumed = train(image_nets()[0], data, recipe=recipe, resume=resume, **options)
    assert all(torch.equal(resumed.weights[name], weight) for name, weight in whole.weights.items())


@pytest.mark.parametrize("batch", [1, 7, 16])
def test_the_times_of_a_batch_leave_no_gaps_in_lambda(sde: SDE, batch: int) -> None:
    """Every of `batch` equal parts of lambda's range has one of them; over steps they are uniform."""
    recipe = replace(RECIPE, time_sampling="lambda", batch=batch, block=2000)
    data = toy_mlp()[1]
    score = replace(toy_mlp()[0], sde=sde)
    batches = module._draw(data, SEEDS, 0, score, T, 0.05, recipe)
    start, stop = sde.noise_level(torch.tensor([0.05, T], dtype=torch.float64))
    place = (sde.noise_level(batches.t.double()) - start) / (stop - start)
    gaps = place.sort(-1).values.diff()
    # times are kept in float32
    assert ((gaps - 1 / batch).abs() < 1e-3).all()
    mean, count = place[..., 0].mean().item(), place[..., 0].numel()
    assert mean == pytest.approx(0.5, abs=4 * math.sqrt(1 / 12 / count))
    assert not torch.equal(place[:, 0], place[:, 1])


def test_cells_of_every_T_and_SDE_share_their_places_in_lambda() -> None:
    recipe, places = replace(RECIPE, time_sampling="lambda"), []
    for sde, T_own in ((VP(), 0.3), (VP(), 2.0), (VE.exponential(25.0), 1.0)):
        score, data = toy_mlp()
        batches = module._draw(data, SEEDS, 0, replace(score, sde=sde), T_own, 0.05, recipe)
        start, stop = sde.noise_level(torch.tensor([0.05, T_own], dtype=torch.float64))
        places.append((sde.noise_level(batches.t.double()) - start) / (stop - start))
    # times are kept in float32
    assert max((place - places[0]).abs().max().item() for place in places) < 1e-4


def test_the_processes_of_a_group_share_the_times_of_a_batch() -> None:
    recipe = replace(RECIPE, time_sampling="lambda")
    score, data = toy_mlp()
    whole, *halves = (
        module._draw(data, SEEDS, 0, score, T, EPSILON, recipe, share).t
        for share in (slice(None), slice(0, 8), slice(8, 16))
    )
    assert torch.equal(torch.cat(halves, -1), whole)
