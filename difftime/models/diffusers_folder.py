"""Models saved by diffusers: an unconditional `UNet2DModel` with its scheduler's settings, or an exported cell.

The folder is a pipeline's (unet/ and scheduler/), or holds config.json, the weights and scheduler_config.json itself.
The input of a DDPM's network is an index. The index of a time has the same noise level as the time, and may lie between
two whole indices. The time of index 0 is epsilon. Linear betas from b/N to B/N have the clock of VP(b, B), and other
tables have a clock of their own.
"""

from __future__ import annotations

import hashlib
import json
import logging
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from difftime.diffusion.sde import SDE, VE, VP, expand
from difftime.diffusion.tabulated import Tabulated
from difftime.images.pixels import CENTRED, UNIT, Scale
from difftime.models.exported_cell import KIND, read_exported
from difftime.models.foreign import BadModel, Clock, ForeignModel, NoiseScore, square
from difftime.support.extras import lacks
from difftime.support.torchvision import cure_torchvision

PREDICTIONS = ("epsilon", "v_prediction", "sample")
LATENT = ("vae", "vqvae", "movq")
CONDITIONS = ("text_encoder", "image_encoder", "tokenizer")


def read_diffusers(folder: Path, scale: Scale | None = None) -> ForeignModel:
    """The model in `folder`. Data are taken to lie in [-1, 1], or in [0, 1] for ScoreSdeVe; else give its `scale`.

    Raises BadModel for anything but an unconditional model of square images in safetensors with a known scheduler.
    """
    unet, scheduler = _parts(folder)
    config, settings = _json(unet / "config.json"), _json(scheduler)
    if config.get("_class_name") == KIND:
        cell = _load(unet, import_cell_unet())
        return read_exported(
            folder, config, cell, schedule(settings, folder)[1], scale, _digest(unet, config, settings)
        )
    shape = _check(folder, config)
    network = _load(unet, import_unet())
    if settings.get("_class_name") == "ScoreSdeVeScheduler":
        sde, epsilon, T, table, noise = _score_sde_ve(network, settings)
    else:
        sde, table = schedule(settings, folder)
        clock = Clock(sde, table)
        epsilon, T = (
            clock.at_index(torch.tensor(float(i), dtype=torch.float64)).item() for i in (0, clock.indices - 1)
        )
        noise = IndexedNoise(network, clock, _prediction(settings, folder), shape[0])
    return ForeignModel(
        name=folder.resolve().name, score=NoiseScore(noise, sde, shape), sde=sde, epsilon=epsilon, T=T, shape=shape,
        scale=scale or (CENTRED if table else UNIT), clock=Clock(sde, table), net=network,
        digest=_digest(unet, config, settings),
    )  # fmt: skip


def _digest(unet: Path, config: dict[str, Any], settings: dict[str, Any]) -> str:
    """Of the weights and of both settings."""
    digest = hashlib.sha256(json.dumps([config, settings], sort_keys=True).encode())
    for path in sorted(unet.glob("*.safetensors")):
        digest.update(path.read_bytes())
    return digest.hexdigest()


@dataclass(frozen=True)
class IndexedNoise:
    """z_hat of a network whose input is an index, from any of the three quantities that it may predict.

    A learned variance follows the prediction in `channels` further channels of the output. It is not part of the score.
    """

    network: Callable[[Tensor, Tensor], Any]
    clock: Clock
    predicts: str
    channels: int

    def __call__(self, x: Tensor, t: Tensor) -> Tensor:
        # where T was rounded, the index may lie beyond the last or before the first by as much
        index = self.clock.index(t).clamp(0, self.clock.indices - 1)
        output = self.network(x.float(), index.float()).sample[:, : self.channels].to(x.dtype)
        if self.predicts == "epsilon":
            return output
        alpha, sigma = (expand(part.to(x.dtype), x) for part in (self.clock.sde.alpha(t), self.clock.sde.sigma(t)))
        if self.predicts == "v_prediction":
            return alpha * output + sigma * x
        return (x - alpha * output) / sigma


def schedule(settings: dict[str, Any], folder: Path) -> tuple[SDE, Tabulated]:
    """The SDE and the table of a scheduler's settings. Raises BadModel if they have none, or none that is known."""
    try:
        return _schedule(settings, folder)
    except (TypeError, ValueError) as error:
        raise BadModel(f"{folder}: the settings of its scheduler give no noise levels. {error}") from error


def _schedule(settings: dict[str, Any], folder: Path) -> tuple[SDE, Tabulated]:
    kind = settings.get("_class_name", "its scheduler")
    if "beta_schedule" not in settings and not settings.get("trained_betas"):
        raise BadModel(
            f"{folder}: {kind} has no table of betas, so its noise levels are not known. Known are DDPM's schedulers "
            "and ScoreSdeVeScheduler; for EDM, give the model as package.module:factory."
        )
    if settings.get("rescale_betas_zero_snr"):
        raise BadModel(
            f"{folder}: {kind} rescales its betas to a last level without any signal (rescale_betas_zero_snr), for "
            "which no ELBO is finite."
        )
    n, start, stop = (
        settings.get(key, usual)
        for key, usual in (("num_train_timesteps", 1000), ("beta_start", 1e-4), ("beta_end", 0.02))
    )
    if settings.get("trained_betas"):
        table = Tabulated.from_betas(settings["trained_betas"])
        return table, table
    name = settings["beta_schedule"]
    if name == "linear":
        return VP(n * start, n * stop), Tabulated.linear(n, start, stop)
    tables: dict[str, Callable[[], Tabulated]] = {
        "scaled_linear": lambda: Tabulated.scaled_linear(n, start, stop),
        "squaredcos_cap_v2": lambda: Tabulated.cosine(n),
        "sigmoid": lambda: Tabulated.sigmoid(n, start, stop),
    }
    if name not in tables:
        raise BadModel(f"{folder}: the beta_schedule {name!r} is not known. Known are linear, {', '.join(tables)}.")
    table = tables[name]()
    return table, table


def _prediction(settings: dict[str, Any], folder: Path) -> str:
    predicts = settings.get("prediction_type", "epsilon")
    if predicts not in PREDICTIONS:
        raise BadModel(f"{folder}: the prediction_type {predicts!r} is not known. Known are {', '.join(PREDICTIONS)}.")
    return predicts


def _score_sde_ve(
    network: nn.Module, settings: dict[str, Any]
) -> tuple[SDE, float, float, None, Callable[[Tensor, Tensor], Tensor]]:
    """A network whose input is sigma and whose output is the score (Song et al., 2021c); data in [0, 1]."""
    sde = VE(settings.get("sigma_min", 0.01), settings.get("sigma_max", 1348.0), from_zero=False)

    def noise(x: Tensor, t: Tensor) -> Tensor:
        sigma = sde.sigma(t)
        return -expand(sigma.to(x.dtype), x) * network(x.float(), sigma.float()).sample.to(x.dtype)

    return sde, settings.get("sampling_eps", 1e-5), 1.0, None, noise


def _parts(folder: Path) -> tuple[Path, Path]:
    """The folder of the network and the file of the scheduler's settings."""
    if latent := [name for name in LATENT if (folder / name).exists()]:
        raise BadModel(
            f"{folder} is a latent-diffusion model ({latent[0]}/): its noise is on a code of the image, so it has no "
            "bits of pixels. Give a model that diffuses the pixels themselves."
        )
    if conditions := [name for name in CONDITIONS if (folder / name).exists()]:
        raise BadModel(f"{folder} is a conditional model ({conditions[0]}/). Give an unconditional one.")
    unet = folder / "unet" if (folder / "unet").is_dir() else folder
    if not (unet / "config.json").is_file():
        raise BadModel(f"{folder} is no model of diffusers: it has neither config.json nor unet/config.json.")
    places = [folder / "scheduler" / "scheduler_config.json", folder / "scheduler_config.json"]
    for place in places:
        if place.is_file():
            return unet, place
    raise BadModel(
        f"{folder} has no scheduler: scheduler_config.json is neither in scheduler/ nor beside config.json. Without it "
        "the noise levels are not known. Save it by `scheduler.save_pretrained`."
    )


def _json(path: Path) -> dict[str, Any]:
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
    except (ValueError, OSError) as error:
        raise BadModel(f"{path} cannot be read as JSON: {error}.") from error
    if not isinstance(content, dict):
        raise BadModel(f"{path} does not hold settings: keys and their values.")
    return content


def _check(folder: Path, config: dict[str, Any]) -> tuple[int, int, int]:
    """The shape of the data. Raises BadModel if the network is of a kind that cannot be measured."""
    kind = config.get("_class_name")
    if kind != "UNet2DModel":
        conditional = "Condition" in str(kind)
        raise BadModel(
            f"{folder} holds {'the conditional model ' if conditional else ''}{kind}; only the unconditional "
            "UNet2DModel is known."
        )
    if config.get("class_embed_type") or config.get("num_class_embeds"):
        raise BadModel(
            f"{folder} is a conditional model: its network wants a class beside the image (num_class_embeds or "
            "class_embed_type). Give an unconditional one."
        )
    if config.get("time_embedding_type") == "learned":
        raise BadModel(
            f"{folder}: the network has a learned embedding for every index (time_embedding_type: learned), and knows "
            "nothing of the noise levels between them."
        )
    if (outputs := config.get("out_channels", 3)) not in (inputs := config.get("in_channels", 3), 2 * inputs):
        raise BadModel(
            f"{folder}: {outputs} channels come out where {inputs} go in: neither a noise nor one with a range."
        )
    size = config.get("sample_size")
    if not size:
        raise BadModel(f"{folder}: config.json does not say the size of the images (sample_size).")
    height, width = (size, size) if isinstance(size, int) else size
    return square(config.get("in_channels", 3), height, width, str(folder))


def _load(unet: Path, kind: Any) -> Any:
    """The network, of a class of diffusers or of ours, in eval mode and without gradients of its weights."""
    if not list(unet.glob("*.safetensors")):
        pickled = [path.name for path in (*unet.glob("*.bin"), *unet.glob("*.pt"), *unet.glob("*.ckpt"))]
        raise BadModel(
            f"{unet} has no weights in safetensors"
            + (f", but {pickled[0]}, a pickle, which can execute code when it is read" if pickled else "")
            + ". Save it anew by `save_pretrained(..., safe_serialization=True)`."
        )
    try:
        network, found = kind.from_pretrained(
            unet, use_safetensors=True, local_files_only=True, low_cpu_mem_usage=False, output_loading_info=True
        )
    except Exception as error:  # damaged weights, wrong settings: diffusers fails in many ways
        raise BadModel(f"{unet} cannot be read as a {kind.__name__}: {error}") from error
    if missing := [*found["missing_keys"], *found["unexpected_keys"], *found["mismatched_keys"]]:
        raise BadModel(f"{unet}: the weights are not those of config.json; {missing[0]} and others do not match.")
    return network.float().eval().requires_grad_(False)


def import_unet() -> Any:
    """diffusers' UNet2DModel. Raises BadModel if diffusers is not installed."""
    cure_torchvision()
    try:
        from diffusers import UNet2DModel
    except ModuleNotFoundError as error:
        raise BadModel(lacks("A model of diffusers", error, "models")) from error
    logging.getLogger("diffusers").setLevel(logging.ERROR)
    return UNet2DModel


def import_cell_unet() -> Any:
    """Our own network in the form of diffusers. Raises BadModel if diffusers is not installed."""
    import_unet()
    from difftime.models.early_start.cell_unet import CellUNet

    return CellUNet
