"""The objects of a cell that is measured, be its network trained here or by somebody else.

Not with those of a cell that is trained: what reads the models of others has no part in training, whose fingerprint
would change with it.
"""

from __future__ import annotations

import hashlib
import json
import logging
from pathlib import Path

import torch

from difftime.images.readers import ImageData
from difftime.models import BadModel, ForeignModel
from difftime.models.naming import model_for
from difftime.study.cell import ImageProblem, MixtureProblem, build, read_images, seed_names
from difftime.study.commands.common import device
from difftime.study.settings import BadSettings, Cell, PretrainedSettings, read_cell
from difftime.study.settings.images import AnyImageSettings
from difftime.training.checkpoint import BadFile

log = logging.getLogger("difftime")

MODEL = "model.json"
"""What a pretrained network was when it was last read."""


def open_cell(folder: Path, data_dir: Path) -> tuple[Cell, MixtureProblem | ImageProblem]:
    """A cell whose network is there; of images on the device there is.

    Raises BadSettings, BadImages, BadModel or BadFile.

    It computes in float32, whatever it was trained in: near epsilon sigma is smaller than what bfloat16, or TF32, keeps
    of x. With bfloat16 the bits per dimension of a small network moved by 0.13, and RK45 needed 1.7 times the steps.
    """
    torch.backends.cudnn.allow_tf32 = False
    cell = read_cell(folder / "cell.json")
    if isinstance(cell.network, PretrainedSettings):
        images, model = read_model(cell, data_dir)
        check_recorded(folder / MODEL, model)
        problem: MixtureProblem | ImageProblem = pretrained(cell, images, model, device())
    else:
        problem = build(cell, data_dir=data_dir, precision="float32", device=device())
        problem.load(folder)
    if isinstance(problem, ImageProblem):
        log.info("%s on %s", cell.name, problem.device)
    return cell, problem


def problem_of(cell: Cell, data_dir: Path) -> MixtureProblem | ImageProblem:
    """The objects of a cell for what asks no network, on the CPU. Raises BadSettings, BadImages or BadModel."""
    if isinstance(cell.network, PretrainedSettings):
        return pretrained(cell, *read_model(cell, data_dir), "cpu")
    return build(cell, data_dir=data_dir, precision="float32")


def read_model(cell: Cell, data_dir: Path) -> tuple[ImageData, ForeignModel]:
    """The images of a cell and its pretrained network. Raises BadSettings, BadImages or BadModel."""
    network = cell.network
    if not isinstance(network, PretrainedSettings) or not isinstance(cell.data, AnyImageSettings):
        raise BadSettings(f"{cell.name} is not a pretrained network on images.")
    images = read_images(cell.data, data_dir)
    model = model_for(
        images.shape, images.name, network.path,
        pixels=network.pixels, sde=network.sde, sigma_min=network.sigma_min, sigma_max=network.sigma_max,
    )  # fmt: skip
    if not model.epsilon < cell.T <= float(f"{model.T:g}"):  # folders are named by six digits
        raise BadModel(
            f"{cell.name}: {model.name} knows the times from {model.epsilon:.6g} to {model.T:.6g}, which T is outside."
        )
    return images, model


def pretrained(cell: Cell, images: ImageData, model: ForeignModel, place: str) -> ImageProblem:
    """The objects of a cell of a network that was not trained here."""
    assert isinstance(cell.data, AnyImageSettings)
    digest = hashlib.sha256(f"{cell.digest()} {images.digest} {model.digest}".encode()).hexdigest()
    return ImageProblem(
        name=cell.name, digest=digest, data=images.digest, sde=model.sde, epsilon=model.epsilon, T=cell.T,
        score=model.to(place).score, seeds=seed_names(cell), images=images, flip=cell.data.flip,
        device=torch.device(place), scale=model.scale,
    )  # fmt: skip


def check_recorded(path: Path, model: ForeignModel) -> None:
    """Raise BadFile unless the model is the one that was read when the study was last run."""
    try:
        digest = json.loads(path.read_text(encoding="utf-8"))["digest"]
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise BadFile(f"{path} cannot be read ({error}). Snakemake writes it: run it again.") from error
    if digest != model.digest:
        raise BadFile(
            f"{model.name} has changed since {path} was written. Run snakemake again, which reads it anew; "
            "a change of your own code it does not see: snakemake --forcerun model."
        )
