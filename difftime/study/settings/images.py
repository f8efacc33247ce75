"""Images: where they are from, and what a study needs of them."""

from __future__ import annotations

from typing import Literal, get_args

from pydantic import Field, model_validator

from difftime.study.settings.base import Count, HomePath, Settings, Share
from difftime.study.settings.nets import NCSNppSettings

ImageKind = Literal["mnist", "cifar10", "mnist5k", "folder", "npz"]
IMAGE_KINDS = get_args(ImageKind)


class ImageSettings(Settings):
    """Images of 8 bits per channel, dequantised and scaled to [-1, 1]."""

    kind: ImageKind = Field(description="mnist, cifar10 and mnist5k, which come by themselves; or one's own images")
    path: HomePath | None = Field(default=None, description="The folder or the .npz file; for these two kinds only")
    channels: Literal[1, 3] | None = Field(default=None, description="What the files must have; null: whatever it is")
    test_share: Share | None = Field(
        default=None, description="Share of the images held out, for a folder or a file without a split of its own"
    )
    flip: bool = Field(default=False, description="Mirror half of the training images left to right")

    @model_validator(mode="after")
    def _of_its_kind(self) -> ImageSettings:
        own = self.kind in ("folder", "npz")
        if own and self.path is None:
            raise ValueError(f"images of kind {self.kind} need a path")
        given = [key for key in ("path", "channels", "test_share") if getattr(self, key) is not None]
        if not own and given:
            raise ValueError(f"images of kind {self.kind} have no {' and no '.join(given)}")
        return self


class ImageNeeds(Settings):
    """What a study is going to do with some images, for a look whether they allow it before jobs start."""

    networks: dict[str, NCSNppSettings] = Field(default={}, description="By the names in the study")
    batches: tuple[Count, ...] = Field(default=(), description="Training images in a batch")
    test_images: tuple[Count, ...] = Field(default=(), description="Test images that are measured")
    p_noise: tuple[str, ...] = Field(default=(), description="Where the reverse process starts")
    components: Count = Field(default=1, description="Gaussians of the p_noise mixture")
    memory: Count = Field(default=1, description="MB that a job asks for")
