"""The section `datasets`: data, and what every cell on them shares."""

from __future__ import annotations

from typing import Annotated, Any, get_args

from pydantic import BeforeValidator, Field

from difftime.images.kinds import NotPlain, guessed
from difftime.study.settings.base import BY_KIND, Count, Listed, Settings, Whole
from difftime.study.settings.errors import fault, refuse
from difftime.study.settings.images import ImageSettings, ParquetSettings, TorchvisionSettings
from difftime.study.settings.measures import Family, ImageMeasurements, MixtureMeasurements
from difftime.study.settings.mixtures import MixtureSettings
from difftime.study.settings.nets import Net, Trained
from difftime.study.settings.noise import NoiseName
from difftime.study.settings.training import ImageTrainingSettings, TrainingSettings


class _Started(Settings):
    p_noise: Listed[NoiseName] | None = Field(
        default=None, description="Where the reverse process starts; null: as the study says"
    )


class MixtureDatasetSettings(MixtureSettings, _Started):
    """Data of known density, and what every cell on them shares."""

    seeds: Count = Field(default=8, description="Models per cell, trained as one batch")
    training: TrainingSettings = Field(default=TrainingSettings(), description="How every network is trained on them")
    measurements: MixtureMeasurements = Field(
        default=MixtureMeasurements(), description="How their measurements differ from the study's"
    )


class ImageDataset(_Started):
    """What every cell on some images shares."""

    seeds: Count = Field(default=1, description="Models per cell, trained side by side")
    training: ImageTrainingSettings = Field(
        default=ImageTrainingSettings(), description="How every network is trained on them"
    )
    measurements: ImageMeasurements = Field(
        default=ImageMeasurements(), description="How their measurements differ from the study's"
    )
    gpu: Whole = Field(
        default=0, description="GPUs that a job asks for; several share every batch of training, and the test images"
    )
    threads: Count = Field(default=1, description="CPU threads of a job")
    memory: Count = Field(default=4000, description="MB that a job asks for at its first attempt")
    minutes: Count = Field(default=60, description="Minutes that a job asks for at its first attempt")


class ImageDatasetSettings(ImageDataset, ImageSettings):
    """Images, and what every cell on them shares."""


class TorchvisionDatasetSettings(ImageDataset, TorchvisionSettings):
    """Images of a data set that torchvision knows, and what every cell on them shares."""


class ParquetDatasetSettings(ImageDataset, ParquetSettings):
    """Images in Parquet files, and what every cell on them shares."""


def _with_kind(values: Any) -> Any:
    """Fill in the kind where it is left out: by the path, if there is one; else data are a mixture."""
    if not isinstance(values, dict) or "kind" in values:
        return values
    if "path" not in values:
        return {"kind": "mixture"} | values
    path = values["path"]
    try:
        return {"kind": guessed(path) if isinstance(path, str) else "folder"} | values
    except (NotPlain, OSError) as error:
        refuse([fault(str(error), path, ("path",))])


Known = BeforeValidator(_with_kind)
Plain = MixtureSettings | ImageSettings | TorchvisionSettings | ParquetSettings
PlainData = Annotated[Plain, *BY_KIND, Known]
Dataset = MixtureDatasetSettings | ImageDatasetSettings | TorchvisionDatasetSettings | ParquetDatasetSettings
DatasetSettings = Annotated[Dataset, *BY_KIND, Known]


def family(kind: str) -> Family:
    """How data of a kind are measured."""
    return "mixture" if kind == "mixture" else "images"


def what_it_is(data: Plain) -> dict[str, Any]:
    """The settings that say what the data are, without what a study does with them."""
    (kind,) = (kind for kind in get_args(Plain) if isinstance(data, kind))
    return data.model_dump(mode="json", include=set(kind.model_fields))


def training_of(data: Dataset, network: Trained) -> TrainingSettings:
    """How a cell's networks are trained: what its network says of it wins over what its data set says."""
    own = network.training.model_dump(exclude_unset=True)
    return TrainingSettings.model_validate(data.training.model_dump() | own)


def asked_for(data: Dataset | None, network: Net | None, name: str, usual: int) -> int:
    """What a network, or else its data set, says of a job's resources; without either, the usual."""
    said = [getattr(network, name, None), getattr(data, name, None)]
    return next((value for value in said if value is not None), usual)
