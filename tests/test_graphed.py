"""Steps of training as a CUDA graph: all but the capture, which only a GPU can show (`benchmarks/gpu.py` does)."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager, nullcontext
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

from difftime.diffusion.mixture import Mixture
from difftime.diffusion.score import NetScore
from difftime.diffusion.sde import VP
from difftime.support.streams import stream
from difftime.training import train as module
from difftime.training.data import ImageSample, MixtureSample, TrainingData
from difftime.training.graphed import Graphed
from difftime.training.nets.images import ImageNets
from difftime.training.nets.mlp import MLP
from difftime.training.nets.ncsnpp import NCSNpp
from difftime.training.parallel import ALONE, Group
from difftime.training.train import Recipe, Trained, train

SEEDS = ["0/a", "0/b"]
RECIPE = Recipe(
    weighting="noise", time_sampling="uniform", steps=13, batch=4, learning_rate=2e-3, warmup=5, optimiser="adam",
    decay="cosine", clip=0.5, ema=0.5, checkpoint_minutes=60.0, block=5,
)  # fmt: skip
OPTIONS: dict[str, Any] = {
    "T": 0.6, "epsilon": 1e-3, "seeds": SEEDS, "name": "a cell", "identity": {"cell": "digest"}
}  # fmt: skip


def of_images(channels_last: bool = False, dropout: float = 0.2) -> tuple[NetScore, TrainingData]:
    models = [
        NCSNpp(
            1, 8, width=8, multipliers=(1, 2), blocks=1, attention=(4,), dropout=dropout,
            generator=stream(seed, "initial weights"),
        )
        for seed in SEEDS
    ]  # fmt: skip
    pixels = torch.randint(0, 256, (20, 1, 8, 8), dtype=torch.uint8, generator=stream("pixels"))
    net = ImageNets(models, (1, 8, 8), "float32", channels_last, False)
    return NetScore(net, VP(), "noise", scale_input=False, data_variance=1.0), ImageSample(pixels, False)


def of_points() -> tuple[NetScore, TrainingData]:
    net = MLP(1, 8, 2, "silu", "raw", [stream(seed, "initial weights") for seed in SEEDS])
    mixture = Mixture.from_stds([0.5, 0.5], [[1.0], [3.0]], [[0.1], [0.5]])
    score = NetScore(net, VP(), "noise", scale_input=False, data_variance=1.0)
    return score, MixtureSample.of(mixture, 100, SEEDS)


MAKERS = {"images": of_images, "points": of_points}


def flat(weights: dict[str, Tensor]) -> Tensor:
    return torch.cat([weight.detach().flatten() for weight in weights.values()])


def apart(one: Trained, other: Trained, start: dict[str, Tensor]) -> float:
    """How far two trainings end from each other, in units of the way of the second."""
    ends = flat(one.weights), flat(other.weights)
    return ((ends[0] - ends[1]).norm() / (ends[1] - flat(start)).norm()).item()


@pytest.mark.parametrize("make", MAKERS.values(), ids=MAKERS)
def test_steps_out_of_buffers_lead_where_the_others_lead(make: Callable[[], tuple[NetScore, TrainingData]]) -> None:
    """Dropout, clipping, warm-up, decay, the average and a last block that is not whole included."""
    score, data = make()
    start = {name: weight.detach().clone() for name, weight in score.net.named_parameters()}
    plain = train(score, data, recipe=RECIPE, **OPTIONS)
    graphed = train(make()[0], data, recipe=RECIPE, form=Graphed, **OPTIONS)
    # rounding: learning rates and shares are float32, and Adam makes full steps of gradients that are nearly 0
    assert apart(graphed, plain, start) < 1e-4
    assert graphed.step == plain.step
    assert torch.allclose(graphed.loss, plain.loss, rtol=1e-4)


@pytest.mark.parametrize("change", [{"ema": 0.4}, {"clip": 0.4}, {"warmup": 4}, {"decay": "none"}])
def test_another_recipe_leads_elsewhere(change: dict[str, Any]) -> None:
    """So the test above sees every part of a step."""
    score, data = of_points()
    start = {name: weight.detach().clone() for name, weight in score.net.named_parameters()}
    plain = train(score, data, recipe=RECIPE, **OPTIONS)
    other = train(of_points()[0], data, recipe=replace(RECIPE, **change), form=Graphed, **OPTIONS)
    assert apart(other, plain, start) > 1e-3


class Card:
    """Stands for a GPU: what is done while a graph is captured has no effect before its replays."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.events = events = list[str]()
        step, capturing = Graphed.step, []

        def seen(steps: Graphed) -> None:
            events.append("capture" if capturing else "step")
            if capturing:
                capturing.append(lambda: step(steps))
            else:
                step(steps)

        class Graph:
            def replay(self) -> None:
                events.append("replay")
                self.work()

        @contextmanager
        def capture(graph: Any) -> Iterator[None]:
            capturing.append(None)
            yield
            graph.work = capturing.pop()
            capturing.clear()

        monkeypatch.setattr(Graphed, "step", seen)
        monkeypatch.setattr("torch.cuda.CUDAGraph", Graph)
        monkeypatch.setattr("torch.cuda.graph", capture)
        for name in ("Stream", "current_stream"):
            monkeypatch.setattr(f"torch.cuda.{name}", lambda: SimpleNamespace(wait_stream=lambda other: None))
        monkeypatch.setattr("torch.cuda.stream", lambda stream: nullcontext())

    @staticmethod
    def form(run: Any, group: Group) -> Graphed:
        steps = Graphed(run, group)
        steps.captures = True
        return steps


def test_every_step_is_taken_once_whether_it_warms_up_is_captured_or_replayed(monkeypatch: pytest.MonkeyPatch) -> None:
    score, data = of_points()
    start = {name: weight.detach().clone() for name, weight in score.net.named_parameters()}
    plain = train(score, data, recipe=RECIPE, **OPTIONS)
    card = Card(monkeypatch)
    captured = train(of_points()[0], data, recipe=RECIPE, form=card.form, **OPTIONS)
    assert card.events == 3 * ["step"] + ["capture"] + 10 * ["replay"]
    assert apart(captured, plain, start) < 1e-4


def test_a_training_goes_on_in_another_form_and_layout_where_it_was_cut(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    # dropout's masks are drawn in the order of the memory
    score, data = of_images(dropout=0.0)
    start = {name: weight.detach().clone() for name, weight in score.net.named_parameters()}
    whole = train(score, data, recipe=RECIPE, **OPTIONS)
    draw, often = module._draw, replace(RECIPE, checkpoint_minutes=1e-9)

    class Cut(BaseException):
        """Stands for a SIGKILL."""

    def cut(*arguments: object) -> object:
        if arguments[2] == 2:
            raise Cut
        return draw(*arguments)

    monkeypatch.setattr(module, "_draw", cut)
    with pytest.raises(Cut):
        train(of_images(dropout=0.0)[0], data, recipe=often, resume=tmp_path / "resume.pt", form=Graphed, **OPTIONS)
    monkeypatch.setattr(module, "_draw", draw)
    last = of_images(channels_last=True, dropout=0.0)[0]
    resumed = train(last, data, recipe=often, resume=tmp_path / "resume.pt", **OPTIONS)
    assert apart(resumed, whole, start) < 1e-3


class Watch(TorchDispatchMode):
    """Sees every operation, and raises where one of them involves the CPU."""

    def __init__(self) -> None:
        super().__init__()
        self.seen: list[str] = []

    def __torch_dispatch__(self, operation: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        result = operation(*args, **(kwargs or {}))
        tensors = [leaf for leaf in tree_leaves((args, kwargs, result)) if isinstance(leaf, Tensor)]
        assert not any(tensor.is_cpu for tensor in tensors), f"{operation} involves the CPU"
        self.seen.append(str(operation))
        return result


@pytest.fixture
def without_data(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Let training run on tensors that have a shape and no data: whoever asks for a number gets an error."""
    monkeypatch.setattr("torch.autocast", lambda *args, **options: nullcontext())
    # the one kernel of a step that PyTorch has no form of without data; its learning rate is a tensor
    library = torch.library.Library("aten", "IMPL", "Meta")
    library.impl("_fused_adam_.tensor_lr", lambda *args, **options: None)
    yield
    library._destroy()


def graphed_on_nothing(recipe: Recipe = RECIPE) -> Graphed:
    score, _ = of_images()
    score.net.to("meta").train()
    steps = Graphed(module._Run(score, recipe, {}, None, ALONE), ALONE)
    shape = (recipe.block, len(SEEDS), recipe.batch)
    image, point = torch.zeros(*shape, 64, device="meta"), torch.zeros(shape, device="meta")
    steps.fill(range(recipe.block), module._Batches(image, point, image, point))
    return steps


@pytest.mark.usefixtures("without_data")
def test_a_step_asks_the_device_for_nothing_and_tells_it_nothing() -> None:
    steps = graphed_on_nothing()
    with Watch() as watch:
        steps.step()
        first = watch.seen.copy()
        steps.step()
    assert "aten._fused_adam_.tensor_lr" in first
    # all that changes from step to step lies in buffers: the second one is the same sequence of operations
    assert watch.seen[len(first) :] == first


@pytest.mark.usefixtures("without_data")
@pytest.mark.parametrize(
    "wrong", [lambda x: x.sum().item(), lambda x: x.cpu(), lambda x: x + torch.ones(()), lambda x: x[x > 0]]
)
def test_a_step_that_waits_for_the_device_would_be_seen(wrong: Callable[[Tensor], object]) -> None:
    steps = graphed_on_nothing()
    steps.run.net.models[0].register_forward_hook(lambda model, inputs, output: wrong(output) and None)
    with Watch(), pytest.raises((RuntimeError, NotImplementedError, AssertionError)):
        steps.step()


@pytest.mark.parametrize(
    ("recipe", "group"), [(replace(RECIPE, optimiser="muon"), ALONE), (RECIPE, Group(rank=0, size=2))]
)
def test_what_cannot_be_captured_is_refused(recipe: Recipe, group: Group) -> None:
    score, _ = of_points()
    with pytest.raises(ValueError, match="Train step by step"):
        Graphed(module._Run(score, recipe, {}, None, ALONE), group)


def test_the_weights_that_are_trained_are_the_networks_own() -> None:
    score, data = of_points()
    before = [parameter.detach().clone() for parameter in score.net.parameters()]
    train(score, data, recipe=RECIPE, form=Graphed, **OPTIONS)
    assert all(not torch.equal(a, b) for a, b in zip(before, score.net.parameters(), strict=True))
