"""Where the reverse process starts, and the section `noise`: how a p_noise is fitted."""

from __future__ import annotations

from typing import Literal, get_args

from pydantic import Field

from difftime.study.settings.base import Count, Positive, Settings, Share

FittedName = Literal["full", "mixture", "flow"]
NoiseName = Literal["standard", "matched", "full", "mixture", "flow"]
FITTED: tuple[FittedName, ...] = get_args(FittedName)
"""The p_noises that are fitted for x_T, and lie in a file of the cell."""


class FullNoiseSettings(Settings):
    """The Gaussian with the mean and the covariance of x_T."""

    kind: Literal["full"] = Field(default="full", description="The Gaussian with the mean and the covariance of x_T")


class MixtureNoiseSettings(Settings):
    """Gaussians with full covariances, by expectation maximisation."""

    kind: Literal["mixture"] = Field(default="mixture", description="Gaussians with full covariances")
    components: Count = Field(default=4, description="Gaussians")
    iterations: Count = Field(default=500, description="Of expectation maximisation, at most")


class FlowNoiseSettings(Settings):
    """A neural spline flow, by maximum likelihood."""

    kind: Literal["flow"] = Field(default="flow", description="A neural spline flow")
    transforms: Count = Field(default=3, description="One after the other")
    width: Count = Field(default=64, description="Of the two hidden layers of each transform")
    steps: Count = Field(default=1000, description="Steps of the optimiser")
    batch: Count = Field(default=256, description="Points per step")
    learning_rate: Positive = Field(default=1e-3, description="Of Adam")
    held_out: Share = Field(default=0.1, description="Share of the training points by which the best step is chosen")


class NoiseSettings(Settings):
    """How each p_noise that is fitted is fitted."""

    full: FullNoiseSettings = Field(default=FullNoiseSettings(), description="How `full` is fitted")
    mixture: MixtureNoiseSettings = Field(default=MixtureNoiseSettings(), description="How `mixture` is fitted")
    flow: FlowNoiseSettings = Field(default=FlowNoiseSettings(), description="How `flow` is fitted")
