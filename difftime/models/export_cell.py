"""Export of a cell of images: its NCSN++ as a folder of diffusers that starts at T, and needs diffusers alone.

A cell has a network in continuous time. The folder has a DDPM: a table of noise levels that are equally far apart in
lambda, from epsilon to T, in scheduler/, and the network in unet/ with its own source. The last index is T, so that
the other schedulers of DDPM start at T too. x is scaled to alpha² + sigma² = 1, whatever the SDE.
"""

from __future__ import annotations

import ast
import inspect
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from types import ModuleType
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor, nn

from difftime.diffusion.p_noise import FullGaussian
from difftime.diffusion.score import NetScore
from difftime.diffusion.sde import SDE, Gaussian
from difftime.images import pixel_prior, pixels
from difftime.images.pixel_prior import PixelPrior
from difftime.images.pixels import CENTRED, Scale
from difftime.measures.few_steps import level_times
from difftime.models.diffusers_folder import import_cell_unet
from difftime.models.export import in_words, model_card, new_folder, save_index, save_prior, write_json
from difftime.models.foreign import BadModel, Clock
from difftime.training.nets import ncsnpp

INDICES = 1000
LEFT_OUT = ("__future__", "difftime", "jaxtyping")
"""Packages whose imports a bundled source has no need of."""


@dataclass(frozen=True)
class CellModel:
    """One model of a trained cell. `options` are those of NCSNpp, but for dropout."""

    name: str
    net: nn.Module
    options: Mapping[str, Any]
    score: NetScore
    """Of all models of the cell: what the network sees, and what is known beside it."""
    epsilon: float
    T: float
    shape: tuple[int, int, int]

    @property
    def sde(self) -> SDE:
        return self.score.sde

    def times(self, T: float) -> Float[Tensor, " indices"]:
        """t of every index. Raises BadModel for a T that the model was not trained up to."""
        if not self.epsilon < T <= self.T:
            raise BadModel(f"{self.name} was trained from {self.epsilon:g} to {self.T:g}, so T cannot be {T:g}.")
        return level_times(self.sde, T, self.epsilon, INDICES - 1).flip(0)


def export_cell(
    model: CellModel, T: float, noise: Gaussian | FullGaussian, folder: Path, card: Mapping[str, str]
) -> None:
    """Write the folder, whole or not at all; `noise` is p_noise at T. Raises BadModel if `folder` exists."""
    import_cell_unet()
    from difftime.models.early_start import cell_unet

    times = model.times(T)
    alpha, sigma = model.sde.alpha(times), model.sde.sigma(times)
    prior = model.score.prior
    known = {"black": prior.black, "white": prior.white} if isinstance(prior, PixelPrior) else {}
    variance = {"data_variance": model.score.data_variance} if model.score.scale_input else {}
    options = asdict(model.sde)  # type: ignore[call-overload]  # every SDE is a dataclass
    clock = {"sde": type(model.sde).__name__, "options": options, "epsilon": model.epsilon, "T": T}
    unet = cell_unet.CellUNet(
        model.shape[0], model.shape[1], **model.options, indices=INDICES, clock=clock, **known, **variance
    )
    unet.net.load_state_dict(model.net.state_dict())
    unet.table = torch.stack([times, alpha, sigma], 1).float()
    with new_folder(folder) as whole:
        unet.save_pretrained(whole / "unet")
        source = bundled(pixels, pixel_prior, ncsnpp, cell_unet)
        (whole / "unet" / "cell_unet.py").write_text(source, encoding="utf-8")
        (whole / "scheduler").mkdir()
        write_json(whole / "scheduler" / "scheduler_config.json", scheduler(model.sde, times))
        first, last = (alpha**2 + sigma**2).sqrt()[[0, -1]].tolist()
        scale = Scale(CENTRED.start / first, CENTRED.width / first)
        save_prior(whole / "prior", noise, model.shape, scale, INDICES - 1, last)
        save_index(whole, ["diffusers", "DDPMScheduler"], ["cell_unet", "CellUNet"])
        when = Clock(model.sde, None)
        rows = {"start": when.words(T), "end": when.words(model.epsilon), "p_noise": in_words(noise)}
        begins = (
            f"The reverse diffusion begins at T = {T:g} from a Gaussian p_noise. That is index {INDICES - 1}, the last "
            "one.\nThe network, NCSN++ of continuous time, is in `unet/cell_unet.py`."
        )
        (whole / "README.md").write_text(model_card(model.name, begins, rows | dict(card)), encoding="utf-8")


def scheduler(sde: SDE, times: Float[Tensor, " indices"]) -> dict[str, Any]:
    """The settings of a DDPMScheduler with these levels: beta_i = 1 - alpha_i²/alpha_{i-1}² at alpha² + sigma² = 1."""
    log_signal = -torch.nn.functional.softplus(sde.noise_level(times), threshold=50.0)
    betas = -torch.expm1(log_signal.diff(prepend=log_signal.new_zeros(1)))
    return {
        "_class_name": "DDPMScheduler", "num_train_timesteps": len(times), "trained_betas": betas.tolist(),
        "prediction_type": "epsilon", "clip_sample": False, "timestep_spacing": "trailing",
    }  # fmt: skip


def bundled(*modules: ModuleType) -> str:
    """The sources of modules, each of which may import from those before it, as one file without difftime.

    Annotations, which are texts, keep the shapes that jaxtyping would check.
    """
    parts = ["from __future__ import annotations"]
    for module in modules:
        source = inspect.getsource(module)
        lines = source.splitlines()
        for node in ast.parse(source).body:
            if isinstance(node, ast.ImportFrom) and (node.module or "").split(".")[0] in LEFT_OUT:
                taken = slice(node.lineno - 1, node.end_lineno)
                lines[taken] = [""] * len(lines[taken])
        parts.append("\n".join(lines).strip())
    return "\n\n\n".join(parts) + "\n"
