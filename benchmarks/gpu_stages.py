"""What the GPU ticket (`gpu.py`) measures: a function for every stage, which returns the rows of its table.

Nothing here needs pydantic or Snakemake, which a lent GPU may lack: settings are read from `config/paper.yaml` as they
stand. On a CPU every stage does the same at a size that takes seconds.
"""

from __future__ import annotations

import platform
import statistics
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from functools import cached_property
from pathlib import Path
from typing import Any

import torch
import yaml
from torch import Tensor
from torch.utils.flop_counter import FlopCounterMode

from difftime.diffusion.score import Hutchinson, NetScore, rademacher
from difftime.diffusion.sde import VP, standard_noise
from difftime.images.pixels import CENTRED, bits_per_dimension, scaled
from difftime.images.readers import ImageData
from difftime.measures.image_elbo import image_elbo, over_images
from difftime.measures.likelihood import ode_likelihood
from difftime.measures.pixel_decoder import PixelDecoder
from difftime.support.streams import stream
from difftime.training.data import ImageSample
from difftime.training.graphed import Graphed
from difftime.training.nets.images import ImageNets, Precision, usable
from difftime.training.nets.ncsnpp import NCSNpp
from difftime.training.parallel import ALONE
from difftime.training.train import Recipe, _draw, _Run, stepwise

ROOT = Path(__file__).parent.parent
T, EPSILON, SDE = 0.6, 1e-5, VP()
STREAM, SEED = "0/mnist", "0/mnist/0"
"""The names of the random numbers of the study's own cell."""
OPTIONS = ("width", "multipliers", "blocks", "attention", "dropout")
BOUNDS = {"float32": 1e-4, "bfloat16": 0.05}
"""What CPU and GPU may differ by, in units of the largest value, or in bits per dimension.

TF32, where it ought to be off, passes the first: it keeps 11 binary digits. bfloat16 on a CPU had up to 0.015.
"""
SAME_TRAINING = 0.01
"""What the captured steps may lead elsewhere, in units of the way from the initial weights."""
SAME_LOSS = 0.1
"""What a form's loss may differ by from the first form's, whose batches it saw: they differ by dropout."""
Row = dict[str, Any]


@dataclass(frozen=True)
class Form:
    """How the network is trained. `tuned`: cuDNN chooses its algorithms by trial."""

    channels_last: bool = False
    tuned: bool = False
    compiled: bool = False
    graph: bool = False

    @property
    def name(self) -> str:
        return ", ".join(name.replace("_", "-") for name, value in asdict(self).items() if value) or "eager"


FORMS = (
    Form(), Form(channels_last=True), Form(tuned=True), Form(tuned=True, graph=True),
    Form(channels_last=True, tuned=True, graph=True), Form(channels_last=True, tuned=True, compiled=True),
    Form(channels_last=True, tuned=True, compiled=True, graph=True),
)  # fmt: skip
EVALUATED = (Form(), Form(channels_last=True), Form(tuned=True))
"""The forms of a network that is evaluated."""


@dataclass(frozen=True)
class Size:
    """The network and its training, and how much of everything is measured.

    `product` is the side of the matrices whose product is the measured peak, `blocks` are blocks of steps that are
    timed, `calls` are batches of the ODE's right-hand side; the ELBO and BPD are those of `images` test images, by
    `batch`.
    """

    network: Mapping[str, Any]
    recipe: Recipe
    product: int = 8192
    repeats: int = 10
    blocks: int = 10
    calls: tuple[int, ...] = (64, 256, 512)
    images: int = 256
    batch: int = 64
    pairs: int = 8
    tolerance: float = 1e-5
    forms: Sequence[Form] = field(default=FORMS)


def paper() -> Size:
    """The paper's MNIST network, as `config/paper.yaml` trains it."""
    settings = yaml.safe_load((ROOT / "config" / "paper.yaml").read_text(encoding="utf-8"))
    network, training = settings["nets"]["ncsnpp-mnist"], settings["datasets"]["mnist"]["training"]
    usual = {"time_sampling": "uniform", "optimiser": "adam", "decay": "none"}
    recipe = Recipe(**(usual | training), checkpoint_minutes=1.0, block=10)
    return Size({name: network[name] for name in OPTIONS}, recipe)


def small() -> Size:
    """The same in seconds on a CPU."""
    size = paper()
    return Size(
        size.network | {"width": 8, "blocks": 1}, replace(size.recipe, batch=4, block=2, warmup=10), product=256,
        repeats=3, blocks=2, calls=(2, 4), images=4, batch=2, pairs=1, tolerance=1e-2,
    )  # fmt: skip


@dataclass(frozen=True)
class Bench:
    """The cell whose speed is measured, and the device that it is measured on."""

    size: Size
    images: ImageData
    device: torch.device
    compiled: dict[tuple[bool, Precision], ImageNets] = field(default_factory=dict, init=False)
    """The networks that this process has compiled, by layout and precision: it takes minutes."""

    def score(self, form: Form, precision: Precision | None = None) -> NetScore:
        """A network with fresh weights, and cuDNN set for its form; in bfloat16 where the device is made for that."""
        torch.backends.cudnn.benchmark = form.tuned
        model = NCSNpp(
            self.images.shape[0], self.images.shape[1], **self.size.network, generator=stream(SEED, "initial weights")
        )
        precision = precision or usable("bfloat16", self.device)
        net = ImageNets([model], self.images.shape, precision, form.channels_last, form.compiled).to(self.device)
        if form.compiled:
            fresh, net = net.state_dict(), self.compiled.setdefault((form.channels_last, precision), net)
            net.load_state_dict(fresh)
        return NetScore(net, SDE, "noise", scale_input=False, data_variance=1.0)

    def frozen(self, form: Form, precision: Precision = "float32") -> NetScore:
        """A network that is evaluated: measurements are in float32."""
        score = self.score(form, precision)
        score.net.requires_grad_(False).eval()
        return score

    def data(self) -> ImageSample:
        return ImageSample(self.images.train.to(self.device), False)

    @cached_property
    def decoder(self) -> PixelDecoder:
        return PixelDecoder.of(self.images.train, CENTRED)

    @cached_property
    def part(self) -> Tensor:
        """The test images that are measured, by the study's own draw."""
        there = len(self.images.test)
        return torch.randperm(there, generator=stream("test images", there))[: self.size.images]

    def held_out(self, part: Tensor) -> Tensor:
        """Test images as points [n, d] on the CPU, dequantised by the study's own random numbers."""
        u = [
            torch.rand(self.images.shape, generator=stream(STREAM, "dequantisation", 0, image))
            for image in part.tolist()
        ]
        return scaled(self.images.test[part], torch.stack(u)).flatten(1)

    def probe(self, part: Tensor) -> Hutchinson:
        """The study's own signs of these images."""
        d = self.images.d
        signs = [rademacher((d,), stream(STREAM, "Hutchinson's probe", 0, image)) for image in part.tolist()]
        return Hutchinson(torch.stack(signs).to(self.device))

    @cached_property
    def flops(self) -> dict[str, float]:
        """FLOP an image of the network forward, of a training step, and of the ODE's right-hand side."""
        model = NCSNpp(*self.images.shape[:2], **self.size.network, generator=stream(SEED, "initial weights"))
        model = model.to("meta")
        x, t = torch.empty(1, *self.images.shape, device="meta"), torch.empty(1, device="meta")

        def count(backward: bool) -> float:
            with FlopCounterMode(display=False) as counter:
                output = model(x, t)
                if backward:
                    output.backward(torch.empty_like(output))
            return float(counter.get_total_flops())

        step, forward = count(backward=True), count(backward=False)
        model.requires_grad_(False)
        x.requires_grad_()
        return {"forward": forward, "step": step, "call": count(backward=True)}

    def seconds(self, work: Callable[[], object], repeats: int) -> list[float]:
        """What each of the repeats took, to the end of what it started on the device."""
        spent = []
        for _ in range(repeats):
            self.wait()
            start = time.perf_counter()
            work()
            self.wait()
            spent.append(time.perf_counter() - start)
        return spent

    def wait(self) -> None:
        if self.device.type == "cuda":
            torch.cuda.synchronize()

    def memory(self) -> str:
        """The most that the stage has taken of the GPU's memory, for the settings of a row."""
        if self.device.type != "cuda":
            return ""
        return f", {torch.cuda.max_memory_allocated() / 2**30:.1f} GiB"


def rate(what: str, unit: str, work: float, seconds: Sequence[float], settings: str, flops: float | None = None) -> Row:
    """A speed, `work` units in each of these seconds: the median and the quartiles over the repeats.

    `flops` are those of a unit.
    """
    low, median, high = statistics.quantiles([work / spent for spent in seconds], n=4, method="inclusive")
    row = {"what": what, "unit": unit, "median": median, "low": low, "high": high, "repeats": len(seconds)}
    return (
        row | {"settings": f"{settings}, {len(seconds)} repeats"} | ({} if flops is None else {"flops": median * flops})
    )


def device(bench: Bench) -> list[Row]:
    """The machine, and what runs on it."""
    facts = [f"Python {platform.python_version()}", f"torch {torch.__version__}"]
    if bench.device.type == "cuda":
        card = torch.cuda.get_device_properties(bench.device)
        facts += [f"CUDA {torch.version.cuda}", f"cuDNN {torch.backends.cudnn.version()}"]
        facts += [f"{card.total_memory / 2**30:.0f} GiB", f"{card.multi_processor_count} multiprocessors"]
    return [{"what": "made with", "settings": ", ".join(facts)}]


def peak(bench: Bench) -> list[Row]:
    """The speed of large matrix products of random numbers, which shares refer to, and of a copy in memory."""
    n, rows = bench.size.product, []
    for name in ("bfloat16", "float32"):
        a, b = torch.randn(2, n, n, device=bench.device, dtype=getattr(torch, name))
        for _ in range(bench.size.repeats):
            torch.mm(a, b)
        seconds = bench.seconds(lambda a=a, b=b: torch.mm(a, b), bench.size.repeats)
        settings = f"{n} × {n}, random" + (", without TF32" if name == "float32" else "")
        rows.append(rate(f"matrix product, {name}", "TFLOP/s", 2 * n**3 / 1e12, seconds, settings, flops=1e12))
    copy = torch.empty_like(a)
    copy.copy_(a)
    moved = 2 * a.numel() * a.element_size()
    seconds = bench.seconds(lambda: copy.copy_(a), bench.size.repeats)
    return [*rows, rate("copy, bytes read and written", "GB/s", moved / 1e9, seconds, f"{moved / 2**20:.0f} MiB")]


def difference(what: str, found: float, bound: float, unit: str, settings: str) -> Row:
    """A distance that must not pass its bound; one that is not a number has."""
    return {"what": what, "median": found, "unit": unit, "bound": bound, "within": found <= bound, "settings": settings}


def off(found: Tensor, reference: Tensor) -> float:
    """The largest difference in units of the largest value."""
    return ((found.cpu() - reference).abs().max() / reference.abs().max()).item()


def agreement(bench: Bench) -> list[Row]:
    """A small network with the same weights on the CPU and on the device; captured steps against others."""
    ours = replace(
        bench, size=replace(bench.size, network=bench.size.network | {"width": 16, "blocks": 1, "dropout": 0.0})
    )
    theirs = replace(ours, device=torch.device("cpu"))
    weights = random_weights(theirs)
    reference = findings(theirs, weights, "float32")
    rows = []
    for precision, bound in BOUNDS.items():
        found = findings(ours, weights, precision)
        for what in ("score", "gradient"):
            settings = f"{precision} against float32 on the CPU, largest difference over largest value"
            rows.append(difference(what, off(found[what], reference[what]), bound, "", settings))
        bits = (found["elbo"] - reference["elbo"]).abs().max().item()
        rows.append(difference("ELBO", bits, bound, "bits/dim", f"{precision} against float32 on the CPU, 8 images"))
    return [*rows, captured(ours), fresh_dropout(ours)]


def random_weights(bench: Bench) -> dict[str, Tensor]:
    """Of a network that does something: fresh ones return nearly 0."""
    generator = stream("agreement", "weights")
    state = bench.score(Form()).net.state_dict()
    return {name: value + 0.05 * torch.randn(value.shape, generator=generator) for name, value in state.items()}


def findings(bench: Bench, weights: Mapping[str, Tensor], precision: Precision) -> dict[str, Tensor]:
    """The score and the gradient of its square at some noisy images, and the ELBO of 8 of them in bits."""
    score = bench.score(Form(), precision)
    score.net.load_state_dict(weights)
    score.net.eval()
    part = torch.arange(8)
    x0 = bench.held_out(part)
    t = torch.linspace(0.01, T, len(part), dtype=torch.float64)
    z = torch.randn(x0.shape, generator=stream("agreement", "noise"), dtype=torch.float64)
    x, t = (value.to(bench.device)[None] for value in (SDE.perturb(x0, t, z), t))
    with torch.no_grad():
        s = score(x, t)
    output, gradients = score.net.pullback(x.float(), t.float())
    gradient = torch.cat([own.flatten() for own in gradients(output / output.numel())])
    bits = elbo_bits(bench, score, part, pairs=2)
    return {"score": s.cpu(), "gradient": gradient.cpu(), "elbo": bits}


def steps_of(
    bench: Bench, form: Form, recipe: Recipe, precision: Precision | None = None
) -> tuple[_Run, Callable[[int], Tensor]]:
    """A training, and the function that takes its block of this number and returns the losses, on the CPU."""
    score, data = bench.score(form, precision), bench.data()
    score.net.train()
    run = _Run(score, recipe, {}, None, ALONE)
    steps = (Graphed if form.graph else stepwise)(run, ALONE)

    def block(number: int) -> Tensor:
        batches = _draw(data, [SEED], number, score, T, EPSILON, recipe)
        torch.manual_seed(number)
        first = number * recipe.block
        return steps(range(first, first + recipe.block), batches).cpu()

    return run, block


def captured(bench: Bench) -> Row:
    """Where captured steps lead, against the same steps one by one, without dropout and in float32."""
    recipe = replace(bench.size.recipe, batch=8, block=5)
    ends = []
    for form in (Form(), Form(graph=True)):
        run, block = steps_of(bench, form, recipe, "float32")
        start = torch.cat([parameter.detach().flatten() for parameter in run.parameters])
        for number in range(4):
            block(number)
        ends.append(torch.cat([parameter.flatten() for parameter in run.average]))
    apart = ((ends[1] - ends[0]).norm() / (ends[0] - start).norm()).item()
    settings = "difference after 20 steps of 8 over their way, float32, no dropout"
    return difference("captured steps", apart, SAME_TRAINING, "", settings)


def fresh_dropout(bench: Bench) -> Row:
    """Whether every replay draws dropout anew: losses of one batch and one network, which does not learn."""
    recipe = replace(bench.size.recipe, batch=8, block=1, learning_rate=0.0)
    noisy = replace(bench, size=replace(bench.size, network=bench.size.network | {"dropout": 0.5}))
    run, _ = steps_of(noisy, Form(graph=True), recipe)
    run.net.load_state_dict(random_weights(replace(noisy, device=torch.device("cpu"))))
    batches = _draw(noisy.data(), [SEED], 0, noisy.score(Form()), T, EPSILON, recipe)
    steps = Graphed(run, ALONE)
    losses = {steps(range(1), batches).item() for _ in range(10)}
    return difference("replays that repeat their dropout", 10 - len(losses), 0, "of 10", "dropout 0.5, rate 0")


def training(bench: Bench, form: Form, first_loss: float | None) -> list[Row]:
    """Images per second of training, as `difftime train` does it: drawing included, losses read once a block."""
    recipe = bench.size.recipe
    run, block = steps_of(bench, form, recipe)
    start = time.perf_counter()
    for number in range(2):  # PyTorch generates code, cuDNN tries, steps are captured
        block(number)
    started = time.perf_counter() - start
    losses: list[Tensor] = []
    numbers = iter(range(2, 2 + bench.size.blocks))
    seconds = bench.seconds(lambda: losses.append(block(next(numbers))), bench.size.blocks)
    settings = (
        f"{run.net.precision}, batch {recipe.batch}, {recipe.block} steps a repeat, {started:.0f} s to start"
        f"{bench.memory()}"
    )
    row = rate(form.name, "images/s", recipe.block * recipe.batch, seconds, settings, bench.flops["step"])
    loss = torch.stack(losses).mean().item()
    apart = abs(loss / (loss if first_loss is None else first_loss) - 1)
    return [row | {"form": asdict(form), "start": started, "loss": loss, "within": apart <= SAME_LOSS}]


def elbo_bits(bench: Bench, score: NetScore, part: Tensor, pairs: int) -> Tensor:
    """The ELBO of test images in bits per dimension."""
    noise = standard_noise(SDE, T, (bench.images.d,))
    terms = image_elbo(
        score, SDE, [noise], bench.held_out(part), T, EPSILON, seeds=[SEED], indices=part, pairs=pairs, end_pairs=1,
        batch=bench.size.images, decoder=bench.decoder, device=bench.device,
    )  # fmt: skip
    return bits_per_dimension(terms.elbo_x0[0, 0], bench.images.d)


def elbo(bench: Bench) -> list[Row]:
    """Images per second of the ELBO, and of the network alone, which its random numbers keep waiting."""
    size, score = bench.size, bench.frozen(Form())
    evaluations = 2 * size.pairs + 2
    elbo_bits(bench, score, bench.part, 1)
    seconds = bench.seconds(lambda: elbo_bits(bench, score, bench.part, size.pairs), max(3, size.repeats // 3))
    settings = f"float32, batch {size.images}, {evaluations} evaluations an image"
    rows = [rate("ELBO", "images/s", size.images, seconds, settings, evaluations * bench.flops["forward"])]
    x = torch.randn(1, size.images, bench.images.d, device=bench.device)
    t = torch.full((1, size.images), T / 2, device=bench.device)
    for form in EVALUATED:
        score = bench.frozen(form)
        with torch.no_grad():
            score(x, t)
            seconds = bench.seconds(lambda score=score: score(x, t), size.repeats)
        settings = f"float32, batch {size.images}{bench.memory()}"
        rows.append(rate(f"score, {form.name}", "images/s", size.images, seconds, settings, bench.flops["forward"]))
    return rows


def bpd(bench: Bench) -> list[Row]:
    """Images per second of the ODE's right-hand side, a vector–Jacobian product included."""
    rows = []
    for form in EVALUATED:
        score = bench.frozen(form)
        for n in bench.size.calls:
            x = torch.randn(1, n, bench.images.d, device=bench.device, dtype=torch.float64)
            t = torch.full((1,), T / 2, device=bench.device, dtype=torch.float64)
            divergence = Hutchinson(torch.randn(n, bench.images.d, device=bench.device).sign())
            what = f"right-hand side of {n}, {form.name}"
            try:
                divergence(score, x, t)
                seconds = bench.seconds(lambda f=divergence, s=score, x=x, t=t: f(s, x, t), bench.size.repeats)
            except torch.OutOfMemoryError:
                rows.append({"what": what, "settings": "float32: memory does not suffice"})
                continue
            row = rate(what, "images/s", n, seconds, f"float32, batch {n}{bench.memory()}", bench.flops["call"])
            rows.append(row | {"batch": n, "form": asdict(form)})
    return rows


def bpd_bits(bench: Bench, score: NetScore, part: Tensor) -> tuple[Tensor, int]:
    """Bits per dimension of some test images under the ODE, and the NFE, as they are solved as one system."""
    solved = ode_likelihood(
        score, SDE, [standard_noise(SDE, T, (bench.images.d,))], bench.held_out(part).to(bench.device)[None], T,
        EPSILON, rtol=bench.size.tolerance, atol=bench.size.tolerance, max_evaluations=100_000,
        divergence=bench.probe(part),
    )  # fmt: skip
    return bits_per_dimension(solved.log_q[0, 0].cpu(), bench.images.d), int(solved.nfe)


def bits(elbo: Tensor, bpd: Tensor, nfe: Sequence[int], bench: Bench) -> list[Row]:
    """The rows of an evaluation: the ELBO of all images, BPD of those that were solved, and the paired difference."""
    size = bench.size
    rows = [estimate("ELBO", elbo, f"{len(elbo)} images, {2 * size.pairs + 2} evaluations each, float32")]
    if len(bpd):
        settings = (
            f"{len(bpd)} images by {size.batch}, NFE {', '.join(map(str, nfe))}, rtol = atol = {size.tolerance:g}"
        )
        rows.append(estimate("ODE", bpd, settings) | {"nfe": list(nfe)})
        rows.append(estimate("ODE - ELBO", bpd - elbo[: len(bpd)], "the same images and their noise, paired"))
    return rows


def estimate(what: str, values: Tensor, settings: str) -> Row:
    """A mean over images and its standard error."""
    found = over_images(values.double())
    return {"what": what, "mean": found.mean.item(), "se": found.se.item(), "unit": "bits/dim", "settings": settings}
