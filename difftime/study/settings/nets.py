"""The section `nets`: networks, and how their training and their jobs differ from what a data set says."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field

from difftime.study.settings.base import BY_KIND, Count, Filled, NotBool, Settings, usual_kind
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


class NCSNppSettings(Settings):
    """The U-Net NCSN++ for images (Song et al., 2021c). It predicts the noise."""

    kind: Literal["ncsnpp"] = Field(description="A U-Net, for images")
    width: Count = Field(default=64, description="Channels of the finest level")
    multipliers: Filled[Count] = Field(default=(1, 2), description="Channels of every level, in widths")
    blocks: Count = Field(default=4, description="Residual blocks per level")
    attention: tuple[Count, ...] = Field(default=(), description="Resolutions at which attention applies")
    dropout: Annotated[float, Field(ge=0, lt=1), NotBool] = Field(
        default=0.1, description="Share of activations that a step of training leaves out"
    )
    fourier: tuple[Fourier, ...] = Field(
        default=(), description="k of the features sin and cos of 2^k pi x that the network sees beside x, e.g. [4, 5]"
    )
    pixel_prior: bool = Field(
        default=False,
        description="Whether the network starts from what each pixel by itself says of its noise, if it is black, "
        "white or Gaussian with the shares and moments of the training images",
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


class Trained(Settings):
    """A network of a study."""

    training: TrainingSettings = Field(
        default=TrainingSettings(), description="In place of what the data set says; only what differs is to be given"
    )


class NetMLPSettings(MLPSettings, Trained):
    """A network on vectors, and how its training differs from that of the data set it meets."""


class NetNCSNppSettings(NCSNppSettings, Trained):
    """A network on images, and how its training and its jobs differ from what the data set it meets says."""

    memory: Count | None = Field(default=None, description="MB, in place of the data set's; null: what that says")
    minutes: Count | None = Field(default=None, description="In place of the data set's; null: what that says")


PlainNet = Annotated[MLPSettings | NCSNppSettings, *BY_KIND, usual_kind("mlp")]
NetSettings = Annotated[NetMLPSettings | NetNCSNppSettings, *BY_KIND, usual_kind("mlp")]
