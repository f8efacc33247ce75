"""The section `nets`: networks, and how their training and their jobs differ from what a data set says."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field

from difftime.study.settings.base import (
    BY_KIND,
    Count,
    Filled,
    HomePath,
    NotBool,
    Positive,
    Settings,
    Whole,
    usual_kind,
)
from difftime.study.settings.training import TrainingSettings


class MLPSettings(Settings):
    """A multilayer perceptron on [x, t], and how it is used."""

    kind: Literal["mlp"] = Field(default="mlp", description="A multilayer perceptron, for mixtures")
    width: Count = Field(default=32, description="Units of a hidden layer")
    depth: Count = Field(default=2, description="Hidden layers")
    activation: Literal["silu", "tanh", "relu", "gelu"] = Field(default="silu", description="Of the hidden layers")
    time_features: Literal["raw", "fourier"] = Field(default="raw", description="How the network sees t")
    scale_input: bool = Field(default=False, description="Divide x by the standard deviation of x_t")
    predicts: Literal["noise", "score"] = Field(default="score", description="What the output stands for")


Fourier = Annotated[int, Field(ge=0, le=16), NotBool]
"""In float32, 2^k x of a larger k has no digits left that tell noise from rounding."""


NCSNPP_SHAPE = ("width", "multipliers", "blocks", "attention", "bottleneck_attention", "fourier")
"""What of NCSN++'s settings a network that is not trained any more is built from."""


class NCSNppSettings(Settings):
    """The U-Net NCSN++ for images (Song et al., 2021c). It predicts the noise."""

    kind: Literal["ncsnpp"] = Field(description="A U-Net, for images")
    width: Count = Field(default=64, description="Channels of the finest level")
    multipliers: Filled[Count] = Field(default=(1, 2), description="Channels of every level, in widths")
    blocks: Count = Field(default=4, description="Residual blocks per level")
    attention: tuple[Count, ...] = Field(default=(), description="Resolutions at which attention applies")
    bottleneck_attention: bool = Field(
        default=True, description="Whether attention also applies between the way down and the way up, as published"
    )
    dropout: Annotated[float, Field(ge=0, lt=1), NotBool] = Field(
        default=0.1, description="Share of activations that a step of training leaves out"
    )
    fourier: tuple[Fourier, ...] = Field(
        default=(), description="k of the features sin and cos of 2^k pi x that the network sees beside x, e.g. [4, 5]"
    )
    pixel_prior: bool = Field(
        default=False,
        description="Whether the network starts from what each pixel by itself says of its noise, if it is black, "
        "white or anything in between, with the shares of these in the training images",
    )
    precision: Literal["float32", "bfloat16"] = Field(
        default="float32",
        description="In training; bfloat16: mixed, weights and sums stay in float32. Measurements are in float32, and "
        "so is, with a warning, training on a CPU without instructions for bfloat16",
    )
    channels_last: bool = Field(
        default=True, description="Memory layout of the images inside; float32 on the CPU is never channels_last"
    )
    compile: bool = Field(default=False, description="Whether torch.compile generates the network's code")
    scale_input: bool | None = Field(
        default=None,
        description="Divide x by the standard deviation of x_t; null: for VE, where it grows, and not for VP",
    )


class PretrainedSettings(Settings):
    """A model of images that somebody else trained: a network without training, and with an SDE of its own."""

    kind: Literal["pretrained"] = Field(description="A model that somebody else trained, for images of its shape")
    path: HomePath = Field(
        description="A folder of diffusers, a .pth of score_sde_pytorch, or package.module:factory, which alone runs "
        "code: your own"
    )
    pixels: Literal["cells", "centres"] = Field(
        default="cells",
        description="What the ends of the model's range are: those of the cells of grey levels, k/128 - 1, or levels 0 "
        "and 255, as ToTensor makes them",
    )
    sde: Literal["vp", "sub-vp", "ve"] | None = Field(default=None, description="Of a .pth; null: it is recognised")
    sigma_min: Positive | None = Field(default=None, description="Of a factory's model; null: EDM's 0.002")
    sigma_max: Positive | None = Field(default=None, description="Of a factory's model; null: EDM's 80")


class Trained(Settings):
    """A network that is trained here."""

    training: TrainingSettings = Field(
        default=TrainingSettings(), description="In place of what the data set says; only what differs is to be given"
    )


class NetMLPSettings(MLPSettings, Trained):
    """A network on vectors, and how its training differs from that of the data set it meets."""


class JobSettings(Settings):
    """What the jobs of a network on images ask for, in place of what the data set says; null: what that says."""

    gpu: Whole | None = Field(default=None, description="GPUs, in place of the data set's; null: what that says")
    threads: Count | None = Field(
        default=None, description="CPU threads, in place of the data set's; null: what that says"
    )
    memory: Count | None = Field(default=None, description="MB, in place of the data set's; null: what that says")
    minutes: Count | None = Field(default=None, description="In place of the data set's; null: what that says")


class NetNCSNppSettings(NCSNppSettings, JobSettings, Trained):
    """A network on images, and how its training and its jobs differ from what the data set it meets says."""


class NetPretrainedSettings(PretrainedSettings, JobSettings):
    """A model that somebody else trained, and how its jobs differ from what the data set it meets says."""


PlainNet = Annotated[MLPSettings | NCSNppSettings | PretrainedSettings, *BY_KIND, usual_kind("mlp")]
Net = NetMLPSettings | NetNCSNppSettings | NetPretrainedSettings
NetSettings = Annotated[Net, *BY_KIND, usual_kind("mlp")]
