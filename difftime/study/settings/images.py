"""Images: where they are from, and what a study needs of them."""

from __future__ import annotations

from difflib import get_close_matches
from typing import Annotated, Any, Literal

from pydantic import BeforeValidator, ConfigDict, Field, model_validator

from difftime.images.kinds import KINDS, TORCHVISION
from difftime.study.settings.base import Count, HomePath, Settings, Share
from difftime.study.settings.nets import NCSNppSettings

IMAGE_KINDS = tuple(KINDS)


def _not_required(schema: dict[str, Any]) -> None:
    """For editors: the kind may be left out, as the path tells it."""
    schema["required"] = [key for key in schema["required"] if key != "kind"]


def _or_column(schema: dict[str, Any]) -> None:
    """For editors: so it may for Parquet, which a column gives away; without one it looks like any other path."""
    _not_required(schema)
    schema["anyOf"] = [{"required": ["kind"]}, {"required": ["column"]}]


class AnyImageSettings(Settings):
    """Images of 8 bits per channel, dequantised and scaled to [-1, 1]."""

    kind: str
    path: HomePath | None = Field(default=None, description="Where they lie")
    flip: bool = Field(default=False, description="Mirror half of the training images left to right")

    @model_validator(mode="after")
    def _of_its_kind(self) -> AnyImageSettings:
        kind = KINDS[self.kind]
        if lacking := [key for key in kind.needs if getattr(self, key) is None]:
            raise ValueError(f"images of kind {self.kind} need a {' and a '.join(lacking)}")
        given = [key for key in ("path", "channels", "test_share") if getattr(self, key, None) is not None]
        if strange := [key for key in given if key not in (*kind.needs, *kind.may)]:
            raise ValueError(f"images of kind {self.kind} have no {' and no '.join(strange)}")
        return self


class _Shared(AnyImageSettings):
    channels: Literal[1, 3] | None = Field(default=None, description="What the files must have; null: whatever it is")
    test_share: Share | None = Field(
        default=None, description="Share of the images held out, for a folder or a file without a split of its own"
    )


class ImageSettings(_Shared):
    """Images of a kind that has a path at most."""

    model_config = ConfigDict(json_schema_extra=_not_required)

    kind: Literal["mnist", "cifar10", "mnist5k", "folder", "npz", "npy"] = Field(
        description="mnist, cifar10 and mnist5k come by themselves; of one's own images, the path tells it"
    )


def _known(name: Any) -> Any:
    """Refuse a data set of torchvision's that is not read, with what to do instead."""
    if isinstance(name, str) and name not in TORCHVISION:
        if name.lower() in KINDS:
            raise ValueError(f"is a kind of its own; write kind: {name.lower()}")
        near = get_close_matches(name, TORCHVISION, n=1)
        hint = f"did you mean {near[0]}?" if near else "of another one make a folder of images, or a .npy"
        raise ValueError(f"is not read from torchvision, {', '.join(TORCHVISION)} are; {hint}")
    return name


class TorchvisionSettings(AnyImageSettings):
    """Images of a data set that torchvision knows."""

    kind: Literal["torchvision"] = Field(description="By its name in torchvision, downloaded if it is absent")
    name: Annotated[
        Literal["CIFAR100", "FashionMNIST", "KMNIST", "QMNIST", "STL10", "SVHN"], BeforeValidator(_known)
    ] = Field(description="torchvision's class")
    path: HomePath | None = Field(default=None, description="torchvision's root folder; null: data_dir")
    extra: bool = Field(
        default=False, description="Also train on the extra images of SVHN, or the unlabelled ones of STL10"
    )

    @model_validator(mode="after")
    def _extra_where_there_is(self) -> TorchvisionSettings:
        if self.extra and self.name not in ("STL10", "SVHN"):
            raise ValueError(f"{self.name} has no extra images; leave extra out")
        return self


class ParquetSettings(_Shared):
    """Images in Parquet files."""

    model_config = ConfigDict(json_schema_extra=_or_column)

    kind: Literal["parquet"] = Field(description="A Parquet file, or a folder of such files")
    column: str | None = Field(
        default=None, description="The column of PNG or JPEG images; null: image, img, or the only one"
    )


class ImageNeeds(Settings):
    """What a study is going to do with some images, for a look whether they allow it before jobs start."""

    networks: dict[str, NCSNppSettings] = Field(default={}, description="By the names in the study")
    batches: tuple[Count, ...] = Field(default=(), description="Training images in a batch")
    test_images: tuple[Count, ...] = Field(default=(), description="Test images that are measured")
    p_noise: tuple[str, ...] = Field(default=(), description="Where the reverse process starts")
    components: Count = Field(default=1, description="Gaussians of the p_noise mixture")
    memory: Count = Field(default=1, description="MB that a job asks for")
