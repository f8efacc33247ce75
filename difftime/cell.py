"""From a cell's settings to its objects: the only place where one becomes the other."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from difftime.checkpoint import load_weights
from difftime.config import Cell, SDESettings, VEExponentialSettings, VPSettings
from difftime.data import MixtureData
from difftime.mixture import Mixture
from difftime.nets.mlp import MLP
from difftime.score import NetScore
from difftime.sde import SDE, VE, VP, Gaussian, matched_noise, standard_noise
from difftime.streams import stream
from difftime.train import Recipe

WEIGHTS = "weights.safetensors"
RESUME = "resume.pt"


@dataclass(frozen=True)
class Problem:
    """What a cell is about, as objects. `seeds` are the names of its models' random streams."""

    name: str
    digest: str
    data: MixtureData
    sde: SDE
    epsilon: float
    T: float
    score: NetScore
    seeds: list[str]

    @property
    def density(self) -> Mixture:
        """p_data."""
        return self.data.density

    def load(self, folder: Path) -> Problem:
        """Put the weights in `folder` into the network. Raises BadFile if they are damaged or another cell's."""
        self.score.net.load_state_dict(load_weights(folder / WEIGHTS, self.digest))
        self.score.net.requires_grad_(False)
        return self

    def noise(self, name: str) -> Gaussian:
        """p_noise by its name in the configuration."""
        if name == "standard":
            return standard_noise(self.sde, self.T, (self.density.d,))
        return matched_noise(self.sde, self.T, self.density.mean, self.density.variance)


def build_sde(settings: SDESettings) -> SDE:
    if isinstance(settings, VPSettings):
        return VP(settings.beta_min, settings.beta_max)
    if isinstance(settings, VEExponentialSettings):
        return VE.exponential(settings.base)
    return VE(settings.sigma_min, settings.sigma_max, settings.from_zero)


def build(cell: Cell) -> Problem:
    """The objects of a cell, its networks freshly initialised."""
    density = Mixture.from_covariances(cell.data.weights, cell.data.means, cell.data.covariance_matrices())
    sde = build_sde(cell.diffusion)
    seeds = [f"{cell.seed}/{cell.dataset}/{k}" for k in range(cell.seeds)]
    network = cell.network
    net = MLP(
        density.d,
        network.width,
        network.depth,
        network.activation,
        network.time_features,
        [stream(seed, "initial weights") for seed in seeds],
    )
    score = NetScore(net, sde, network.predicts, network.scale_input, density.variance.mean().item())
    data = MixtureData(density, cell.data.samples)
    return Problem(cell.name, cell.digest(), data, sde, cell.diffusion.epsilon, cell.T, score, seeds)


def recipe(cell: Cell, checkpoint_minutes: float) -> Recipe:
    """How the cell's networks are trained."""
    return Recipe(**cell.training.model_dump(), checkpoint_minutes=checkpoint_minutes)
