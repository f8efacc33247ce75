"""From a cell's settings to its objects: the only place where one becomes the other."""

from __future__ import annotations

import hashlib
import json
import logging
import math
from abc import ABC, abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import torch
from jaxtyping import Float, Int
from torch import Tensor

from difftime.diffusion.mixture import Mixture
from difftime.diffusion.p_noise import (
    BadNoise,
    Bracket,
    FlowNoise,
    FullGaussian,
    MixtureNoise,
    bracket_fits,
    check_memory,
    diffuse,
    diffused_moments,
    fit_flow,
    fit_mixture,
    kl_bracket,
    kl_upper,
    restored,
    shrunk,
    tensors,
)
from difftime.diffusion.score import NetScore, Score
from difftime.diffusion.sde import (
    DIFFUSIONS,
    SDE,
    Gaussian,
    Noise,
    VarianceExploding,
    matched_noise,
    standard_noise,
)
from difftime.diffusion.tabulated import Tabulated
from difftime.images.kinds import KINDS
from difftime.images.pixel_prior import PixelPrior
from difftime.images.pixels import CENTRED, Moments, Scale, marginals, mean_variance, moments
from difftime.images.readers import BadImages, ImageData, check_batch, load_images
from difftime.measures.pixel_decoder import PixelDecoder
from difftime.study.settings import (
    FITTED,
    NCSNPP_SHAPE,
    AnyImageSettings,
    BadSettings,
    Cell,
    FlowNoiseSettings,
    FullNoiseSettings,
    MixtureNoiseSettings,
    MixtureSettings,
    MLPSettings,
    NCSNppSettings,
    OfModelSettings,
    PretrainedSettings,
    SDESettings,
    TabulatedSettings,
)
from difftime.support.files import expanded
from difftime.support.streams import stream
from difftime.training.checkpoint import BadFile, load_tensors, load_weights, save_weights
from difftime.training.data import ImageSample, MixtureSample, TrainingData
from difftime.training.nets.images import ImageNets, Precision, usable
from difftime.training.nets.mlp import MLP
from difftime.training.nets.ncsnpp import NCSNpp
from difftime.training.train import Recipe

log = logging.getLogger("difftime")

WEIGHTS = "weights.safetensors"
RESUME = "resume.pt"


def trained_here(score: Score) -> NetScore:
    """The score of a network of this package; a pretrained one is of another kind, and is not trained."""
    assert isinstance(score, NetScore)
    return score


@dataclass(frozen=True)
class Problem(ABC):
    """What a cell is about, as objects. `seeds` are the names of its models' random streams."""

    name: str
    digest: str
    data: str
    """Names the data: their settings, or their pixels."""
    sde: SDE
    epsilon: float
    T: float
    score: Score
    seeds: list[str]

    def load(self, folder: Path) -> None:
        """Put the weights in `folder` into the network. Raises BadFile if they are damaged or another cell's."""
        net = trained_here(self.score).net
        net.load_state_dict(load_weights(folder / WEIGHTS, self.digest))
        net.requires_grad_(False)
        net.eval()

    @abstractmethod
    def training(self) -> TrainingData:
        """What the models are trained on."""

    def noise(self, name: str) -> Gaussian:
        """A p_noise that is not fitted, by its name in the configuration. Raises BadNoise for any other name."""
        if name == "standard":
            return standard_noise(self.sde, self.T, (self.d,))
        if name == "matched":
            return matched_noise(self.sde, self.T, *self.marginals())
        raise BadNoise(f"The p_noise {name} is not standard or matched: it is fitted to one T, and known at no other.")

    @property
    @abstractmethod
    def d(self) -> int:
        """The dimension of x."""

    @abstractmethod
    def marginals(self) -> tuple[Float[Tensor, " d"], Float[Tensor, " d"]]:
        """Mean and variance of each coordinate of the data, or of the training images."""

    @abstractmethod
    def known_moments(self) -> Moments:
        """Mean and covariance of the data, or of the training images, made regular if they are too few."""

    @property
    @abstractmethod
    def points(self) -> int:
        """How many points a p_noise is fitted to."""

    @abstractmethod
    def known_from(self, by_moments: bool) -> str:
        """What a p_noise is made from, in words: moments or points."""

    @abstractmethod
    def known(self, points: Int[Tensor, " n"], generator: torch.Generator) -> Float[Tensor, "n d"]:
        """These points, in float64; images are dequantised afresh."""

    def noisy(self, points: Int[Tensor, " n"], generator: torch.Generator) -> Float[Tensor, "n d"]:
        """A fresh x_T, in float64, of each of these points."""
        return diffuse(self.known(points, generator), self.sde, self.T, generator)


@dataclass(frozen=True)
class MixtureProblem(Problem):
    """Data of known density p_data, of which every seed draws `size` training points."""

    density: Mixture
    size: int

    def training(self) -> MixtureSample:
        return MixtureSample.of(self.density, self.size, self.seeds)

    @property
    def d(self) -> int:
        return self.density.d

    def marginals(self) -> tuple[Tensor, Tensor]:
        return self.density.mean, self.density.variance

    def known_moments(self) -> Moments:
        return Moments(self.density.mean, self.density.covariance)

    @property
    def points(self) -> int:
        return self.size

    def known_from(self, by_moments: bool) -> str:
        return "the exact moments of x_T" if by_moments else f"{self.size} points that no seed is trained on"

    @cached_property
    def sample(self) -> Tensor:
        """Points for a p_noise, which is the same for all seeds: no seed's training points."""
        return self.density.sample(self.size, stream(self.seeds[0], "p_noise data"))

    def known(self, points: Tensor, generator: torch.Generator) -> Tensor:
        return self.sample[points]


@dataclass(frozen=True)
class ImageProblem(Problem):
    """Images, which are kept where the network is; x is on the `scale` that the network was trained on."""

    images: ImageData
    flip: bool
    device: torch.device
    scale: Scale = CENTRED

    @cached_property
    def moments(self) -> Moments:
        """Mean and covariance of the dequantised training images."""
        return self.scale.moments(moments(self.images.train))

    @cached_property
    def decoder(self) -> PixelDecoder:
        """From x_epsilon to the image, by the shares of black and white of the training images."""
        return PixelDecoder.of(self.images.train, self.scale)

    def training(self) -> ImageSample:
        images = self.images.train
        return ImageSample(images.to(self.device) if isinstance(images, Tensor) else images, self.flip, self.device)

    @property
    def d(self) -> int:
        return self.images.d

    def marginals(self) -> tuple[Tensor, Tensor]:
        return self.scale.marginals(marginals(self.images.train))

    def known_moments(self) -> Moments:
        return Moments(self.moments.mean, shrunk(self.moments.covariance, self.points))

    def bracket(self, noise: Noise) -> Bracket | None:
        """The bracket of KL[p(x, T) || p_noise]; without its lower end, which the log says, where memory is short."""
        if not isinstance(noise, Gaussian | FullGaussian):
            return None
        if isinstance(noise, Gaussian) and not bracket_fits(self.d):
            log.warning("WARNING: the lower end of the KL's bracket takes a covariance of %d: left out.", self.d)
            return Bracket(math.nan, kl_upper(*self.marginals(), self.sde, self.T, noise))
        return kl_bracket(*self.moments, self.sde, self.T, noise)

    @property
    def points(self) -> int:
        return len(self.images.train)

    def known_from(self, by_moments: bool) -> str:
        return f"{'the moments of ' if by_moments else ''}{self.points} training images"

    def known(self, points: Tensor, generator: torch.Generator) -> Tensor:
        images = self.images.train[points]
        return self.scale.dequantised(images, torch.rand(images.shape, generator=generator)).flatten(1).double()


def build_sde(settings: SDESettings) -> SDE:
    """Raises BadSettings for the SDE of a pretrained network, which is in the files of the model."""
    if isinstance(settings, OfModelSettings):
        raise BadSettings("An SDE of kind of-model is known from the files of a pretrained network alone.")
    if isinstance(settings, TabulatedSettings):
        tables = {"linear": Tabulated.linear, "scaled-linear": Tabulated.scaled_linear, "cosine": Tabulated.cosine}
        return tables[settings.schedule](settings.steps)
    return DIFFUSIONS[settings.kind](**settings.model_dump(exclude={"kind", "epsilon"}))


def build_mixture(settings: MixtureSettings) -> Mixture:
    if settings.stds is not None:
        return Mixture.from_stds(settings.weights, settings.means, settings.stds)
    return Mixture.from_covariances(settings.weights, settings.means, settings.covariances or ())


def read_images(settings: AnyImageSettings, data_dir: Path) -> ImageData:
    """The images that the settings name. Raises BadImages."""
    kind = KINDS[settings.kind]
    options = {name: getattr(settings, name) for name in (*kind.needs, *kind.may)}
    if options.get("path") is not None:
        options["path"] = expanded(options["path"])
    return load_images(settings.kind, **options, **({"data_dir": expanded(data_dir)} if kind.data_dir else {}))


def image_nets(
    network: NCSNppSettings, images: ImageData, seeds: list[str], precision: Precision, device: torch.device
) -> ImageNets:
    """Networks with fresh weights. Raises BadImages or BadSettings if the images do not fit them."""
    channels, height, width = images.shape
    if height != width:
        raise BadImages(f"{images.name} has images of {width} × {height} pixels; the network takes square ones.")
    options = network.model_dump(include={*NCSNPP_SHAPE, "dropout"})
    try:
        models = [NCSNpp(channels, height, **options, generator=stream(seed, "initial weights")) for seed in seeds]
    except ValueError as error:
        raise BadSettings(f"The network does not fit {images.name}, {height} × {height} pixels: {error}") from error
    # PyTorch convolves and normalises contiguous float32 images faster on the CPU
    channels_last = network.channels_last and (device.type, precision) != ("cpu", "float32")
    return ImageNets(models, images.shape, precision, channels_last, network.compile).to(device)


def seed_names(cell: Cell) -> list[str]:
    """The names of the random streams of a cell's models: those of the data set's other cells."""
    return [f"{cell.seed}/{cell.dataset}/{k}" for k in range(cell.seeds)]


def build(
    cell: Cell, *, data_dir: Path = Path("data"), precision: Precision | None = None, device: str = "cpu"
) -> MixtureProblem | ImageProblem:
    """The objects of a cell, its networks freshly initialised. Raises BadImages, or BadSettings if they do not fit.

    `data_dir`, `precision` and `device` are for images; mixtures stay on the CPU. Without a `precision` it is
    the network's own, or float32 where the device is not made for that.
    """
    network = cell.network
    if isinstance(network, PretrainedSettings) or isinstance(cell.diffusion, OfModelSettings) or not cell.training:
        raise BadSettings(f"{cell.name} is not trained: its network is a model that somebody else trained.")
    sde, seeds = build_sde(cell.diffusion), seed_names(cell)
    common: dict[str, Any] = {
        "name": cell.name, "digest": cell.digest(), "sde": sde, "epsilon": cell.diffusion.epsilon, "T": cell.T,
        "seeds": seeds,
    }  # fmt: skip
    if isinstance(cell.data, MixtureSettings) and isinstance(network, MLPSettings):
        density = build_mixture(cell.data)
        generators = [stream(seed, "initial weights") for seed in seeds]
        net = MLP(
            density.d, network.width, network.depth, network.activation, network.time_features, generators
        )  # fmt: skip
        score = NetScore(net, sde, network.predicts, network.scale_input, density.variance.mean().item())
        data = hashlib.sha256(cell.data.canonical().encode()).hexdigest()
        return MixtureProblem(**common, data=data, score=score, density=density, size=cell.data.samples)
    if isinstance(cell.data, AnyImageSettings) and isinstance(network, NCSNppSettings):
        images, place = read_images(cell.data, data_dir), torch.device(device)
        check_batch(images, cell.training.batch)
        nets = image_nets(network, images, seeds, precision or usable(network.precision, place), place)
        scale = isinstance(sde, VarianceExploding) if network.scale_input is None else network.scale_input
        variance = mean_variance(images.train) if scale else 1.0
        prior = PixelPrior.of(images.train) if network.pixel_prior else None
        score = NetScore(nets, sde, "noise", scale_input=scale, data_variance=variance, prior=prior)
        # weights and resume states belong to the pixels too: a path says nothing of what is behind it
        common["digest"] = hashlib.sha256(f"{cell.digest()} {images.digest}".encode()).hexdigest()
        return ImageProblem(**common, data=images.digest, score=score, images=images, flip=cell.data.flip, device=place)
    raise BadSettings(f"{cell.name}: a network of kind {network.kind} is not for data of kind {cell.data.kind}.")


def recipe(cell: Cell, checkpoint_minutes: float) -> Recipe:
    """How the cell's networks are trained. Blocks of images are short: their noise takes memory."""
    assert cell.training is not None
    block = 100 if isinstance(cell.data, MixtureSettings) else 10
    return Recipe(**cell.training.model_dump(), checkpoint_minutes=checkpoint_minutes, block=block)


Fitted = FullGaussian | MixtureNoise | FlowNoise


def noise_file(folder: Path, name: str) -> Path:
    """Where a cell's fitted p_noise is."""
    return folder / f"noise_{name}.safetensors"


def fit_noise(
    problem: Problem, settings: FullNoiseSettings | MixtureNoiseSettings | FlowNoiseSettings, seed: str
) -> Fitted:
    """A p_noise for x_T, from the training data. Raises BadNoise if they do not suffice, or are not finite."""
    options = settings.model_dump(exclude={"kind"})
    check_memory(settings.kind, problem.d, problem.points, getattr(settings, "components", 1))
    if isinstance(settings, MixtureNoiseSettings):
        x0 = problem.known(torch.arange(problem.points), stream(seed, "p_noise data"))
        return fit_mixture(x0, problem.sde, problem.T, **options, seed=seed)
    gaussian = FullGaussian.of(*diffused_moments(problem.sde, problem.T, *problem.known_moments()))
    if isinstance(settings, FullNoiseSettings):
        return gaussian
    return fit_flow(problem.noisy, gaussian, problem.points, **options, seed=seed)


def _fitted_to(problem: Problem) -> dict[str, str]:
    """What a p_noise is fitted to, in the words of an error."""
    return {"T": f"{problem.T:g}", "SDE": repr(problem.sde), "data": problem.data}


def save_noise(path: Path, problem: Problem, name: str, noise: Fitted, form: dict[str, int]) -> None:
    """Write a fitted p_noise with what it was fitted to; `form` has the sizes of a flow."""
    owner = _fitted_to(problem) | {"p_noise": name, "form": form}
    save_weights(path, tensors(noise), json.dumps(owner, sort_keys=True))


def load_noise(path: Path, problem: Problem, name: str) -> Fitted:
    """What `save_noise` wrote. Raises BadFile if it is damaged, BadNoise if it is absent or not of this cell's x_T."""
    if not path.exists():
        raise BadNoise(f"{path} does not exist: fit it by `difftime fit-noise cell.json --p-noise {name}`.")
    remedy = f"Delete {path} and run again: it will be fitted anew."
    owner, parts = load_tensors(path, remedy)
    if not all(part.isfinite().all() for part in parts.values()):
        raise BadFile(f"{path} holds numbers that are not finite. {remedy}")
    try:
        made = dict(json.loads(owner))
    except (ValueError, TypeError):
        raise BadFile(f"{path} does not say what it was fitted to, so it is no p_noise. {remedy}") from None
    for what, own in (_fitted_to(problem) | {"p_noise": name}).items():
        if made.get(what) != own:
            raise BadNoise(f"{path} was fitted to other {what} than the cell's: {made.get(what)}, not {own}. {remedy}")
    try:
        return restored(name, parts, made["form"])
    except (KeyError, TypeError, RuntimeError) as error:
        raise BadFile(f"{path} does not hold what a p_noise called {name} is made of ({error}). {remedy}") from error


def p_noises(problem: Problem, names: Sequence[str], folder: Path) -> list[Noise]:
    """The p_noises of these names, fitted ones from the cell's `folder`. Raises BadFile or BadNoise."""
    return [
        load_noise(noise_file(folder, name), problem, name) if name in FITTED else problem.noise(name) for name in names
    ]
