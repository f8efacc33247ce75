"""From a cell's settings to its objects: the only place where one becomes the other."""

from __future__ import annotations

import hashlib
from abc import ABC, abstractmethod
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

import torch

from difftime.checkpoint import load_weights
from difftime.config import (
    BadSettings,
    Cell,
    ImageSettings,
    MixtureSettings,
    MLPSettings,
    NCSNppSettings,
    SDESettings,
    VEExponentialSettings,
    VPSettings,
)
from difftime.data import ImageSample, MixtureSample, TrainingData
from difftime.images import BadImages, ImageData, check_batch, load_images
from difftime.mixture import Mixture
from difftime.nets.images import ImageNets, usable
from difftime.nets.mlp import MLP
from difftime.nets.ncsnpp import NCSNpp
from difftime.pixels import Moments, mean_variance, moments
from difftime.score import NetScore
from difftime.sde import SDE, VE, VP, Gaussian, matched_noise, standard_noise
from difftime.streams import stream
from difftime.train import Recipe

WEIGHTS = "weights.safetensors"
RESUME = "resume.pt"


@dataclass(frozen=True)
class Problem(ABC):
    """What a cell is about, as objects. `seeds` are the names of its models' random streams."""

    name: str
    digest: str
    sde: SDE
    epsilon: float
    T: float
    score: NetScore
    seeds: list[str]

    def load(self, folder: Path) -> None:
        """Put the weights in `folder` into the network. Raises BadFile if they are damaged or another cell's."""
        self.score.net.load_state_dict(load_weights(folder / WEIGHTS, self.digest))
        self.score.net.requires_grad_(False)
        self.score.net.eval()

    @abstractmethod
    def training(self) -> TrainingData:
        """What the models are trained on."""

    @abstractmethod
    def noise(self, name: str) -> Gaussian:
        """p_noise by its name in the configuration."""


@dataclass(frozen=True)
class MixtureProblem(Problem):
    """Data of known density p_data, of which every seed draws `size` training points."""

    density: Mixture
    size: int

    def training(self) -> MixtureSample:
        return MixtureSample.of(self.density, self.size, self.seeds)

    def noise(self, name: str) -> Gaussian:
        if name == "standard":
            return standard_noise(self.sde, self.T, (self.density.d,))
        return matched_noise(self.sde, self.T, self.density.mean, self.density.variance)


@dataclass(frozen=True)
class ImageProblem(Problem):
    """Images, which are kept where the network is."""

    images: ImageData
    flip: bool
    device: torch.device

    @cached_property
    def moments(self) -> Moments:
        """Mean and covariance of the dequantised training images."""
        return moments(self.images.train)

    def training(self) -> ImageSample:
        return ImageSample(self.images.train.to(self.device), self.flip)

    def noise(self, name: str) -> Gaussian:
        if name == "standard":
            return standard_noise(self.sde, self.T, (self.images.d,))
        return matched_noise(self.sde, self.T, self.moments.mean, self.moments.covariance.diagonal())


def build_sde(settings: SDESettings) -> SDE:
    if isinstance(settings, VPSettings):
        return VP(settings.beta_min, settings.beta_max)
    if isinstance(settings, VEExponentialSettings):
        return VE.exponential(settings.base)
    return VE(settings.sigma_min, settings.sigma_max, settings.from_zero)


def read_images(settings: ImageSettings, data_dir: Path) -> ImageData:
    """The images that the settings name. Raises BadImages."""
    options: dict[str, object] = {}
    if settings.kind in ("mnist", "cifar10"):
        options = {"data_dir": data_dir}
    elif settings.kind != "mnist5k":
        options = {
            "path": Path(str(settings.path)), "channels": settings.channels, "test_share": settings.test_share
        }  # fmt: skip
    return load_images(settings.kind, **options)


def image_nets(
    network: NCSNppSettings, images: ImageData, seeds: list[str], precision: str, device: torch.device
) -> ImageNets:
    """Networks with fresh weights. Raises BadImages or BadSettings if the images do not fit them."""
    channels, height, width = images.shape
    if height != width:
        raise BadImages(f"{images.name} has images of {width} × {height} pixels; the network takes square ones.")
    options = network.model_dump(include={"width", "multipliers", "blocks", "attention", "dropout"})
    try:
        models = [NCSNpp(channels, height, **options, generator=stream(seed, "initial weights")) for seed in seeds]
    except ValueError as error:
        raise BadSettings(f"The network does not fit {images.name}, {height} × {height} pixels: {error}") from error
    # PyTorch convolves and normalises contiguous float32 images faster on the CPU
    channels_last = network.channels_last and (device.type, precision) != ("cpu", "float32")
    return ImageNets(models, images.shape, precision, channels_last, network.compile).to(device)


def build(
    cell: Cell, *, data_dir: Path = Path("data"), precision: str | None = None, device: str = "cpu"
) -> MixtureProblem | ImageProblem:
    """The objects of a cell, its networks freshly initialised. Raises BadImages, or BadSettings if they do not fit.

    `data_dir`, `precision` and `device` are for images; mixtures stay on the CPU. Without a `precision` it is
    the network's own, or float32 where the device is not made for that.
    """
    sde = build_sde(cell.diffusion)
    seeds = [f"{cell.seed}/{cell.dataset}/{k}" for k in range(cell.seeds)]
    common = {
        "name": cell.name, "digest": cell.digest(), "sde": sde, "epsilon": cell.diffusion.epsilon, "T": cell.T,
        "seeds": seeds,
    }  # fmt: skip
    network = cell.network
    if isinstance(cell.data, MixtureSettings) and isinstance(network, MLPSettings):
        density = Mixture.from_covariances(cell.data.weights, cell.data.means, cell.data.covariance_matrices())
        generators = [stream(seed, "initial weights") for seed in seeds]
        net = MLP(
            density.d, network.width, network.depth, network.activation, network.time_features, generators
        )  # fmt: skip
        score = NetScore(net, sde, network.predicts, network.scale_input, density.variance.mean().item())
        return MixtureProblem(**common, score=score, density=density, size=cell.data.samples)
    if isinstance(cell.data, ImageSettings) and isinstance(network, NCSNppSettings):
        images, place = read_images(cell.data, data_dir), torch.device(device)
        check_batch(images, cell.training.batch)
        nets = image_nets(network, images, seeds, precision or usable(network.precision, place), place)
        scale = isinstance(sde, VE) if network.scale_input is None else network.scale_input
        variance = mean_variance(images.train) if scale else 1.0
        score = NetScore(nets, sde, "noise", scale_input=scale, data_variance=variance)
        # weights and resume states belong to the pixels too: a path says nothing of what is behind it
        common["digest"] = hashlib.sha256(f"{cell.digest()} {images.digest}".encode()).hexdigest()
        return ImageProblem(**common, score=score, images=images, flip=cell.data.flip, device=place)
    raise BadSettings(f"{cell.name}: a network of kind {network.kind} is not for data of kind {cell.data.kind}.")


def recipe(cell: Cell, checkpoint_minutes: float) -> Recipe:
    """How the cell's networks are trained. Blocks of images are short: their noise takes memory."""
    block = 100 if isinstance(cell.data, MixtureSettings) else 10
    return Recipe(**cell.training.model_dump(), checkpoint_minutes=checkpoint_minutes, block=block)
