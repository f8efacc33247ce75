"""Training by denoising score matching, Eq. 3, for all seeds of a cell at once.

The random numbers of step n depend only on (seed, n), so a run that is cut and resumed gives the bits of one that
was not, and, but for dropout, a seed's model does not depend on how many others are trained beside it. Neither do they
depend on T or the SDE: cells share data, initial weights and noise (common random numbers), which steadies comparisons
between them.
"""

from __future__ import annotations

import logging
import math
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import torch
from jaxtyping import Float
from torch import Tensor

from difftime.diffusion.score import NetScore
from difftime.diffusion.sde import SDE
from difftime.support.progress import Progress
from difftime.support.signals import Interrupted, asked_to_stop
from difftime.support.streams import stream
from difftime.training.checkpoint import BadFile, load_resume, save_resume
from difftime.training.data import TrainingData
from difftime.training.nets.networks import Networks
from difftime.training.optimisers import adam, muon
from difftime.training.parallel import ALONE, Group

log = logging.getLogger("difftime")


@dataclass(frozen=True)
class Recipe:
    """How a score is trained.

    `weighting`: "likelihood" weighs the squared score error with g² (Eq. 3 itself); "noise" weighs the squared error
    of the predicted noise with 1 (the default of Song et al., 2021c). `time_sampling`: t is drawn uniformly on
    [epsilon, T], or uniformly in lambda = log(sigma²/alpha²), where a batch's times are a regular grid with one random
    shift (low discrepancy: Kingma et al., 2021); the loss is the same integral over t in both cases.
    The optimiser sees the loss per dimension and unit of time. Its gradient is clipped to the norm `clip`, per seed, so
    `clip` means the same at every T and for every D. The learning rate grows linearly over the first `warmup` steps,
    and falls to 0 at the last by a half cosine, if that is the `decay`.
    The random numbers of `block` steps are drawn together, and a resume state is always taken between blocks.
    """

    weighting: Literal["likelihood", "noise"]
    time_sampling: Literal["uniform", "lambda"]
    steps: int
    batch: int
    learning_rate: float
    warmup: int
    optimiser: Literal["adam", "muon"]
    decay: Literal["none", "cosine"]
    clip: float | None
    ema: float
    checkpoint_minutes: float
    block: int

    def rate(self, step: int) -> float:
        """The learning rate of a step."""
        left = (1 + math.cos(math.pi * step / self.steps)) / 2 if self.decay == "cosine" else 1.0
        return self.learning_rate * left * min(1.0, (step + 1) / max(1, self.warmup))

    def kept(self, step: int) -> float:
        """The share that the weights' average keeps in a step; after n steps it is min(ema, (1 + n) / (10 + n))."""
        return min(self.ema, (2 + step) / (11 + step))


@dataclass(frozen=True)
class Trained:
    """`weights` are the exponential moving averages; `loss` holds each seed's mean over a block of steps.

    `seconds` is the wall-clock time of all steps, also of those before the run was cut and resumed.
    """

    weights: dict[str, Tensor]
    step: list[int]
    loss: Float[Tensor, "blocks seeds"]
    seconds: float


class Diverged(Exception):
    """The loss stopped being a finite number; the message says where."""


@dataclass(frozen=True)
class _Batches:
    """A block of steps: what the network sees, its times, what it should output, and the weight in the loss.

    The mean of weight · ||output - target||² is Eq. 3 per unit of time, i.e. divided by T - epsilon.
    """

    inputs: Float[Tensor, "block seeds batch d"]
    t: Float[Tensor, "block seeds batch"]
    target: Float[Tensor, "block seeds batch d"]
    weight: Float[Tensor, "block seeds batch"]

    @property
    def factor(self) -> Float[Tensor, "block seeds batch 1"]:
        """What makes of the network's error the gradient of the loss per dimension and unit of time."""
        return 2 / (self.weight.shape[-1] * self.inputs.shape[-1]) * self.weight.unsqueeze(-1)


def _places(recipe: Recipe, generator: torch.Generator) -> Float[Tensor, "block batch"]:
    """Where in [0, 1] the times of a block of steps lie, float64; together those of a batch leave no gaps in lambda."""
    if recipe.time_sampling == "uniform":
        size = (recipe.block, recipe.batch)
        return torch.rand(size, dtype=torch.float64, generator=generator, device=generator.device)
    shift = torch.rand(recipe.block, 1, dtype=torch.float64, generator=generator, device=generator.device)
    return (shift + torch.arange(recipe.batch, device=generator.device) / recipe.batch) % 1


def _times(u: Tensor, sde: SDE, T: float, epsilon: float, recipe: Recipe) -> tuple[Tensor, Tensor]:
    """Times from uniform `u`, and the weight with which the mean of ||z_hat - z||² is the loss per unit of time."""
    if recipe.time_sampling == "uniform":
        t = epsilon + (T - epsilon) * u
        weight = torch.ones_like(t)
    else:
        start, stop = sde.noise_level(torch.tensor([epsilon, T], dtype=torch.float64))
        t = sde.time(start + (stop - start) * u)
        weight = (stop - start) / (T - epsilon) * sde.variance(t) / sde.diffusion_squared(t)
    likelihood = sde.diffusion_squared(t) / sde.variance(t)
    return t, weight * (likelihood if recipe.weighting == "likelihood" else 1.0)


def _draw(
    data: TrainingData,
    seeds: Sequence[str],
    block: int,
    score: NetScore,
    T: float,
    epsilon: float,
    recipe: Recipe,
    share: slice = slice(None),
) -> _Batches:
    """A block of steps in float32, but computed in the float64 of the times, on the device of `data`.

    Every process draws the whole batches and keeps its `share` of each, so that their number changes no draw.
    """
    size, parts = (recipe.block, recipe.batch), []
    # seed by seed: so its numbers stay in the cache
    for k, seed in enumerate(seeds):
        generator = stream(seed, "training noise", block, device=data.device)
        x0 = data.draw(k, size, generator)[:, share]
        u = _places(recipe, generator)[:, share]
        z = torch.randn(*size, data.d, generator=generator, device=data.device)[:, share]
        t, weight = _times(u, score.sde, T, epsilon, recipe)
        x = score.sde.perturb(x0, t, z)
        target, factor = score.regression(x, z, t)
        parts.append((score.inputs(x, t).float(), t.float(), target.float(), (weight * factor).float()))
    return _Batches(*(torch.stack(of_seeds, 1) for of_seeds in zip(*parts, strict=True)))


class _Run:
    """The state of a training that resumes: weights, their average, the moments of gradients, and the losses so far."""

    def __init__(
        self, score: NetScore, recipe: Recipe, identity: Mapping[str, str], resume: Path | None, group: Group
    ) -> None:
        if not isinstance(score.net, Networks):
            raise TypeError(f"Networks are trained, one per seed, but this is a {type(score.net).__name__}.")
        self.net, self.recipe, self.identity, self.resume, self.group = score.net, recipe, identity, resume, group
        self.parameters: list[Tensor] = list(self.net.parameters())
        self.average = [parameter.detach().clone() for parameter in self.parameters]
        self.moments = [[torch.zeros_like(p) for p in self.average] for _ in range(2)]
        self.count = torch.zeros((), device=self.average[0].device)
        self.block: int = 0
        self.losses: list[Tensor] = []
        self.seconds = 0.0
        self.started = self.saved = time.monotonic()
        if resume is not None:
            self._load(resume)
            group.agree(self.block, resume.parent)

    def _load(self, resume: Path) -> None:
        try:
            state = load_resume(resume, self.identity)
        except BadFile as error:
            log.warning("%s Starting from step 0 instead.", error)
            return
        if state is None:
            return
        self.net.load_state_dict(state["net"])
        # copied, so that they lie in memory as the weights do, also where those of the state lay otherwise
        for own, saved in zip([self.average, *self.moments], [state["average"], *state["moments"]], strict=True):
            torch._foreach_copy_(own, saved)
        self.count.copy_(state["count"])
        self.block, self.losses, self.seconds = state["block"], list(state["losses"]), state["seconds"]
        log.info("Resuming at step %d from %s", self.block * self.recipe.block, resume)

    def elapsed(self) -> float:
        """Seconds of training, with those of the runs before this one."""
        return self.seconds + time.monotonic() - self.started

    def save(self) -> None:
        """Write the resume state, if there is a place for it. It does not tell how many processes there are."""
        if self.resume is None or not self.group.first:
            return
        state = {
            "identity": dict(self.identity),
            "block": self.block,
            "net": self.net.state_dict(),
            "average": self.average,
            "moments": self.moments,
            "count": self.count,
            "losses": torch.stack(self.losses),
            "seconds": self.elapsed(),
        }
        save_resume(self.resume, state)
        self.saved = time.monotonic()

    @torch.no_grad()
    def step(self, number: int, gradients: list[Tensor]) -> None:
        """A step of the optimiser, then the weights' average."""
        self.descend(gradients, self.recipe.rate(number))
        torch._foreach_lerp_(self.average, self.parameters, 1 - self.recipe.kept(number))

    @torch.no_grad()
    def descend(self, gradients: list[Tensor], rate: float | Tensor) -> None:
        """A step of the optimiser at this learning rate, with the gradients cut to `clip`."""
        if self.recipe.clip is not None:
            for model in self.net.by_model(gradients):
                norm = torch.linalg.vector_norm(torch.stack(torch._foreach_norm(model)))
                # a factor of nan for a norm that is not finite: the loss is checked, and says so
                torch._foreach_mul_(model, (self.recipe.clip / norm).clamp(max=1.0))
        self.count += 1
        state = (self.net, self.parameters, gradients, self.moments, self.count)
        if self.recipe.optimiser == "muon":
            muon(*state, float(rate))
        else:
            adam(*state, rate)

    def weights(self) -> dict[str, Tensor]:
        names = [name for name, _ in self.net.named_parameters()]
        return dict(zip(names, self.average, strict=True))


Steps = Callable[[range, _Batches], Float[Tensor, "steps seeds"]]
"""Takes the steps with these numbers, and returns twice the loss per dimension and unit of time before each of them."""
Form = Callable[[_Run, Group], Steps]


def stepwise(run: _Run, group: Group) -> Steps:
    """One step after another, each as the operations that it consists of."""
    net = group.wrapped(run.net)

    def steps(numbers: range, batches: _Batches) -> Tensor:
        losses = []
        for number, x, t, target, factor in zip(
            numbers, batches.inputs, batches.t, batches.target, batches.factor, strict=False
        ):
            output, gradients = group.pullback(net, x, t)
            error = output - target
            slope = factor * error
            losses.append((slope * error).sum((1, 2)))
            run.step(number, gradients(slope))
        return torch.stack(losses)

    return steps


def _check(losses: Float[Tensor, "steps seeds"], first: int, history: list[Tensor], cell_name: str) -> None:
    """Raise Diverged at the first step whose loss is not finite."""
    bad = ~losses.isfinite()
    if not bad.any():
        return
    step, seed = bad.nonzero()[0].tolist()
    good = torch.cat([*([history[-1][None]] if history else []), losses[:step]])[:, seed]
    last = f"{good[-1].item():.6g}" if len(good) else "none"
    raise Diverged(
        f"Training of {cell_name} diverged: the loss of seed {seed} is {losses[step, seed].item()} "
        f"at step {first + step} (last good loss: {last}). Lower the learning rate, or change the network or T."
    )


def train(
    score: NetScore,
    data: TrainingData,
    *,
    T: float,
    epsilon: float,
    recipe: Recipe,
    seeds: Sequence[str],
    name: str,
    identity: Mapping[str, str],
    resume: Path | None = None,
    group: Group = ALONE,
    form: Form = stepwise,
) -> Trained:
    """Minimise Eq. 3 for the models of `score.net`, one per seed, on the device they and `data` are on.

    `name` is the cell's for messages, `identity` has a digest of each thing that determines the result. With `resume`,
    the state is saved there every `checkpoint_minutes` and when a signal asks to stop. The loss of a seed that is
    reported is Eq. 3, the mean over its batch; for the likelihood weighting it estimates twice I of Eq. 6, in nats per
    data point. The optimiser sees it divided by d (T - epsilon). Raises Diverged, or Interrupted on such a signal.

    The processes of `group` take equal shares of every batch. All have the same weights, the first one saves the state,
    and each has its own dropout. `form` is how steps are taken, which changes the result by rounding only.
    """
    run, share = _Run(score, recipe, identity, resume, group), group.share(recipe.batch)
    blocks, reported = math.ceil(recipe.steps / recipe.block), data.d * (T - epsilon)
    progress = Progress(
        f"train {name}", recipe.steps, "step", done=min(run.block * recipe.block, recipe.steps),
        inside=(data.unit, len(seeds) * recipe.batch),
    )  # fmt: skip
    score.net.train()
    steps = form(run, group)
    own: list[str | int] = [] if group.first else ["process", group.rank]
    with asked_to_stop() as stop:
        while run.block < blocks:
            first = run.block * recipe.block
            batches = _draw(data, seeds, run.block, score, T, epsilon, recipe, share)
            # dropout draws from PyTorch's own generator
            torch.manual_seed(stream(*seeds, "dropout", run.block, *own).initial_seed())
            numbers = range(first, min(first + recipe.block, recipe.steps))
            of_block = group.mean((0.5 * reported * steps(numbers, batches)).cpu())
            _check(of_block, first, run.losses, name)
            run.losses.append(of_block.mean(0))
            run.block += 1
            # the signal may reach the processes in different blocks; a terminal that is closed takes no more progress
            if any(group.gather(stop.is_set())):
                run.save()
                raise Interrupted(
                    f"Training of {name} was asked to stop; its state after step {run.block * recipe.block} is saved."
                )
            progress.advance(len(numbers), f"loss {run.losses[-1].mean():.4g}")
            if time.monotonic() - run.saved > 60 * recipe.checkpoint_minutes:
                run.save()
    progress.close()
    ends = [min((block + 1) * recipe.block, recipe.steps) for block in range(blocks)]
    return Trained(run.weights(), ends, torch.stack(run.losses), run.elapsed())
