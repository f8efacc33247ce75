"""A cell that was exported, as a model to be measured: its network in continuous time, from the folder alone."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from torch import Tensor

from difftime.diffusion.sde import DIFFUSIONS, SDE, expand
from difftime.diffusion.tabulated import Tabulated
from difftime.images.pixels import CENTRED, Scale
from difftime.models.foreign import BadModel, Clock, ForeignModel, NoiseScore, square

KIND = "CellUNet"
SDES = {kind.__name__: kind for kind in (*DIFFUSIONS.values(), Tabulated) if isinstance(kind, type)}


@dataclass(frozen=True)
class CellNoise:
    """z_hat of an exported network, a `CellUNet`, at any time of its SDE."""

    net: Any
    sde: SDE

    def __call__(self, x: Tensor, t: Tensor) -> Tensor:
        alpha, sigma = (expand(part, x) for part in (self.sde.alpha(t), self.sde.sigma(t)))
        return self.net.noise(x, t, alpha, sigma)


def read_exported(
    folder: Path, config: dict[str, Any], net: Any, table: Tabulated, scale: Scale | None, digest: str
) -> ForeignModel:
    """The model of a folder whose network was read. Raises BadModel if its settings do not say what its times are."""
    try:
        clock = config["clock"]
        sde = SDES[clock["sde"]](**clock["options"])
        epsilon, T = float(clock["epsilon"]), float(clock["T"])
        shape = square(config["in_channels"], config["sample_size"], config["sample_size"], str(folder))
    except (KeyError, TypeError, ValueError) as error:
        raise BadModel(f"{folder}: unet/config.json does not name the SDE of the network ({error}).") from error
    return ForeignModel(
        name=folder.resolve().name, score=NoiseScore(CellNoise(net, sde), sde, shape), sde=sde, epsilon=epsilon, T=T,
        shape=shape, scale=scale or CENTRED, clock=Clock(sde, table), net=net, digest=digest,
    )  # fmt: skip
