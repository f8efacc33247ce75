"""Where to start a model that somebody else trained: its ELBO at every T up to its own, in one pass.

The bound in bits per dimension is measured on held-out images, for each p_noise at many T, which are equally far apart
in the time of VP(0.1, 20). Every T is compared with the usual start, the model's own T from the standard p_noise, image
by image.

T is chosen on one half of the images and judged on the other half. The best of many T is partly the best by chance, so
its bits on the images that choose T are too low. The other half has no part in the choice. The choosing half gives T*,
its interval (a bootstrap over images), and the smallest T whose loss, with 2 standard errors of the paired difference
added, is at most the allowed loss. The judging half gives all bits, differences and standard errors. The halves share
one thing: inside an interval of lambda the running integral follows a straight line through all images' evaluations.

The curve is that of the model at hand. A model that was trained for a shorter T alone might be better at that T.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import torch
from jaxtyping import Float, Int
from torch import Tensor

from difftime.diffusion.score import Hutchinson, Score, rademacher
from difftime.diffusion.sde import Noise
from difftime.images.mapped import Images
from difftime.images.pixels import marginals, moments
from difftime.images.readers import BadImages
from difftime.measures.curve import NoisesAt, noises_at, running_elbo
from difftime.measures.image_elbo import over_images
from difftime.measures.likelihood import ode_likelihood
from difftime.measures.pixel_decoder import PixelDecoder
from difftime.models.foreign import BadModel, Clock, ForeignModel
from difftime.support.memory import available
from difftime.support.progress import Progress
from difftime.support.streams import stream

P_NOISES = ("standard", "matched", "full")
LOSSES = (0.01, 0.02)
"""Bits per dimension that a shorter T may lose."""
SURE = 2.0
"""Standard errors of a difference that are added to it."""
FEWEST = 32
"""Images; of fewer, the halves' standard errors say little."""
END_PAIRS = 2
RESAMPLES = 1000
TOLERANCE = 1e-5
MOST_EVALUATIONS = 20_000


@dataclass(frozen=True)
class Bits:
    """Bits per dimension: a mean over images and its standard error."""

    mean: float
    se: float


@dataclass(frozen=True)
class Place:
    """A diffusion time on every clock."""

    T: float
    vp_time: float
    index: float | None
    ratio: float
    """sigma/alpha"""

    @classmethod
    def of(cls, clock: Clock, T: float) -> Place:
        t = torch.tensor(T, dtype=torch.float64)
        index = None if clock.table is None else clock.index(t).item()
        return cls(T, clock.vp_time(t).item(), index, clock.ratio(t).item())


@dataclass(frozen=True)
class Judged:
    """A start, its bound on the bits per dimension, and by how much that is more than the usual start's."""

    place: Place
    bits: Bits
    behind: Bits


@dataclass(frozen=True)
class Within:
    """The smallest T that surely loses at most `loss`; None if no T does."""

    loss: float
    start: Judged | None


@dataclass(frozen=True)
class Curve:
    """The curve of one p_noise: T* and its interval, the smallest T within each loss, and every T of the curve."""

    p_noise: str
    best: Judged
    low: Place
    high: Place
    interior: bool
    """Whether T* lies between the smallest and the largest T of the curve."""
    within: tuple[Within, ...]
    starts: tuple[Judged, ...]


@dataclass(frozen=True)
class Solved:
    """The probability-flow ODE from one start; `bits` and `behind` are None if the solver failed for any image."""

    p_noise: str
    place: Place
    bits: Bits | None
    behind: Bits | None
    """More bits than from the usual start, image by image."""
    nfe: float
    """Evaluations of the network, mean over batches: a batch is one system."""
    images: int
    batch: int


@dataclass(frozen=True)
class Scouting:
    """What one pass over a model found."""

    model: str
    digest: str
    decoder: str
    usual: Judged
    curves: tuple[Curve, ...]
    ode: tuple[Solved, ...]
    spacing: float
    """Of the curve's times, in the time of VP(0.1, 20)."""
    choosing: int
    judging: int
    evaluations: int
    """Of the network for the curves, all images together."""

    def curve(self, p_noise: str) -> Curve | None:
        """The curve of a p_noise, if it was asked for."""
        return next((curve for curve in self.curves if curve.p_noise == p_noise), None)

    @property
    def chosen(self) -> tuple[str, Place] | None:
        """The p_noise and the smallest T of all that surely lose at most the first of LOSSES."""
        return shortest(self.curves)


def shortest(curves: Sequence[Curve]) -> tuple[str, Place] | None:
    """The p_noise and the smallest T of all that surely lose at most the first of LOSSES.

    Of several p_noises with that T it is the last one of P_NOISES, which describes x_T best.
    """
    found = [(curve.p_noise, curve.within[0].start.place) for curve in curves if curve.within[0].start]
    return min(found, key=lambda one: (one[1].T, -P_NOISES.index(one[0])), default=None)


@dataclass(frozen=True)
class Counted:
    """A score that reports its evaluations to a progress bar."""

    score: Score
    progress: Progress

    def __call__(self, x: Tensor, t: Tensor) -> Tensor:
        s = self.score(x, t)
        self.progress.advance(math.prod(x.shape[:-1]))
        return s


def scout(
    model: ForeignModel, train: Images, test: Images, *,
    images: int = 256, pairs: int = 16, p_noise: Sequence[str] = P_NOISES, times: int = 50, bpd: int = 0,
    batch: int = 64, seed: str = "scout", device: torch.device | None = None,
) -> Scouting:  # fmt: skip
    """The ELBO of `images` of the images `test` at every T, under each p_noise with the moments of the images `train`.

    `pairs`: of evaluations of the network per image. `bpd`: how many of the judging images the ODE is solved for, at
    the usual start and at the shortest one within the first of LOSSES. Raises BadModel, BadImages or BadNoise.
    """
    check(model, train, test, images, bpd)
    index = torch.randperm(len(test), generator=stream("test images", len(test)))[:images]
    x0 = points(model, test, index, seed)
    noises, at = noises_of(model, train, p_noise), times_of(model, times)
    evaluations = images * 2 * (pairs + END_PAIRS)
    progress = Progress(f"ELBO of {model.name}", evaluations, "evaluation")
    found = running_elbo(
        Counted(model.score, progress), model.sde, noises, at, x0, model.T, model.epsilon, seeds=[seed], indices=index,
        pairs=pairs, end_pairs=END_PAIRS, batch=batch, decoder=PixelDecoder.of(train, model.scale),
        device=device,
    )  # fmt: skip
    progress.close()
    bits = model.scale.bits_per_dimension(found.elbo_x0[:, 0], model.d)
    if lost := int((~bits.isfinite().all(1).all(0)).sum()):
        raise BadModel(f"{model.name}: the ELBO of {lost} of {images} images is not finite. Is it the model's data?")
    half = torch.arange(images) % 2 == 0
    behind = bits - bits[:1, -1:]
    places = [Place.of(model.clock, t) for t in at.tolist()]
    judged = [
        tuple(map(Judged, places, estimates(of_noise), estimates(less)))
        for of_noise, less in zip(bits[..., ~half], behind[..., ~half], strict=True)
    ]
    curves = tuple(
        curve_of(name, judged[k], bits[k][:, half], behind[k][:, half], seed)
        for k, name in enumerate(names_of(p_noise)) if name in p_noise
    )  # fmt: skip
    starts = [start for start in (("standard", places[-1]), shortest(curves)) if start]
    ode = solved(model, starts, noises, p_noise, x0[~half][:bpd], batch, seed, device) if bpd else ()
    return Scouting(
        model=model.name, digest=model.digest, decoder=model.decoder, usual=judged[0][-1], curves=curves,
        ode=ode, spacing=places[-1].vp_time - places[-2].vp_time, choosing=int(half.sum()),
        judging=int((~half).sum()), evaluations=evaluations,
    )  # fmt: skip


def check(model: ForeignModel, train: Images, test: Images, images: int, bpd: int) -> None:
    """Raises BadModel or BadImages for what cannot be measured."""
    for part, name in ((train, "the training data"), (test, "the test data")):
        channels, height, width = part.shape[1:]
        model.check_fits((channels, height, width), name)
    if not FEWEST <= images <= len(test):
        raise BadImages(
            f"{images} images are to be measured, of {len(test)} test images. Measure at least {FEWEST}, half of which "
            "choose T and half of which judge it, and at most all."
        )
    if bpd == 1 or bpd > images // 2:
        raise BadImages(
            f"The ODE is to be solved for {bpd} images, but {images // 2} of the {images} judge T. Solve it for at "
            "least 2 and at most these, or measure more images."
        )


def points(model: ForeignModel, test: Images, index: Int[Tensor, " n"], seed: str) -> Tensor:
    """Dequantised test images [n, d] on the model's scale. The random numbers are those of an image, not of its row."""
    u = [torch.rand(model.shape, generator=stream(seed, "dequantisation", i)) for i in index.tolist()]
    return model.scale.dequantised(test[index], torch.stack(u)).flatten(1)


def names_of(p_noise: Sequence[str]) -> list[str]:
    """The standard p_noise, of the usual start, and those that are asked for."""
    return [*dict.fromkeys(["standard", *p_noise])]


def noises_of(model: ForeignModel, train: Images, p_noise: Sequence[str]) -> NoisesAt:
    """The p_noises with the moments of the training images. Raises BadModel for a name that is not known."""
    if unknown := [name for name in p_noise if name not in P_NOISES]:
        raise BadModel(f"The p_noise {unknown[0]!r} is not known here. Known are {', '.join(P_NOISES)}.")
    if "full" not in p_noise:
        mean, variance = model.scale.marginals(marginals(train))
        return noises_at(names_of(p_noise), model.sde, mean, variance)
    needed, there = 5 * 8 * model.d**2, available()
    if there is not None and needed > there:
        raise BadModel(
            f"The covariance of {model.d} dimensions takes {needed / 2**30:.0f} GB of memory, where "
            f"{there / 2**30:.0f} GB are free. Leave the full p_noise out: --p-noise standard --p-noise matched."
        )
    mean, covariance = model.scale.moments(moments(train))
    return noises_at(names_of(p_noise), model.sde, mean, covariance.diagonal(), covariance)


def times_of(model: ForeignModel, times: int) -> Float[Tensor, " times"]:
    """The model's times, equally far apart in the time of VP(0.1, 20), from after epsilon to its T."""
    first, last = model.clock.vp_time(torch.tensor([model.epsilon, model.T], dtype=torch.float64)).tolist()
    at = model.clock.at_vp_time(torch.linspace(first, last, times + 1, dtype=torch.float64)[1:])
    at[-1] = model.T
    return at


def estimates(values: Float[Tensor, "times n"]) -> list[Bits]:
    """Of each time, over the images."""
    mean, se = over_images(values)
    return list(map(Bits, mean.tolist(), se.tolist()))


def known(values: Float[Tensor, " n"]) -> Bits | None:
    """Of one quantity over the images; None if any value is not finite."""
    return estimates(values[None])[0] if bool(values.isfinite().all()) else None


def curve_of(
    p_noise: str, starts: tuple[Judged, ...], bits: Float[Tensor, "times n"], behind: Float[Tensor, "times n"],
    seed: str,
) -> Curve:  # fmt: skip
    """T chosen by these images, as judged by the others."""
    best = int(bits.mean(1).argmin())
    low, high = interval(bits, seed)
    mean, se = over_images(behind)
    within = []
    for loss in LOSSES:
        sure = (mean + SURE * se <= loss).nonzero().flatten().tolist()
        within.append(Within(loss, starts[sure[0]] if sure else None))
    return Curve(
        p_noise=p_noise, best=starts[best], low=starts[min(low, best)].place, high=starts[max(high, best)].place,
        interior=0 < best < len(starts) - 1, within=tuple(within), starts=starts,
    )  # fmt: skip


def interval(bits: Float[Tensor, "times n"], seed: str) -> tuple[int, int]:
    """Where the best time of a resample of the images lies in all but 2.5 in 100 cases on either side."""
    n = bits.shape[1]
    drawn = torch.randint(n, (RESAMPLES, n), generator=stream(seed, "bootstrap"))
    weight = torch.zeros(RESAMPLES, n, dtype=torch.float64).scatter_add_(
        1, drawn, torch.ones(RESAMPLES, n, dtype=torch.float64)
    )
    best = (weight @ bits.double().mT).argmin(1).double()
    return int(best.quantile(0.025).floor()), int(best.quantile(0.975).ceil())


def solved(
    model: ForeignModel, starts: Sequence[tuple[str, Place]], noises: NoisesAt, p_noise: Sequence[str],
    x: Float[Tensor, "n d"], batch: int, seed: str, device: torch.device | None,
) -> tuple[Solved, ...]:  # fmt: skip
    """The ODE from each start, of which the first is the usual one."""
    found: list[Solved] = []
    usual = torch.zeros(len(x), dtype=torch.float64)
    for name, place in starts:
        noise = noises(place.T)[names_of(p_noise).index(name)]
        progress = Progress(f"ODE from T = {place.T:.4g}, {name} p_noise", len(x), "image")
        bits, nfe = solve(model, place.T, noise, x, batch, seed, device, progress)
        progress.close()
        usual = bits if not found else usual
        found.append(Solved(name, place, known(bits), known(bits - usual), nfe, len(x), min(batch, len(x))))
    return tuple(found)


def solve(
    model: ForeignModel, T: float, noise: Noise, x: Float[Tensor, "n d"], batch: int, seed: str,
    device: torch.device | None, progress: Progress,
) -> tuple[Float[Tensor, " n"], float]:  # fmt: skip
    """Bits per dimension of dequantised images, which enter at epsilon without noise (Song et al., 2021c), and NFE."""
    log_q, nfe = [], []
    for k, part in enumerate(x.split(batch)):
        part = part.to(device or part.device)
        probe = rademacher(tuple(part.shape), stream(seed, "Hutchinson's probe", k)).to(part.device)
        found = ode_likelihood(
            model.score, model.sde, [noise], part[None], T, model.epsilon, rtol=TOLERANCE, atol=TOLERANCE,
            max_evaluations=MOST_EVALUATIONS, divergence=Hutchinson(probe),
        )  # fmt: skip
        log_q.append(found.log_q[0, 0].cpu())
        nfe.append(found.nfe.double().mean().item())
        progress.advance(len(part), f"NFE {nfe[-1]:.0f}")
    return model.scale.bits_per_dimension(torch.cat(log_q), model.d), sum(nfe) / len(nfe)
