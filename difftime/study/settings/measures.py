"""The sections `elbo`, `likelihood` and `samples`: how trained cells are measured.

A section has what both kinds of data need. A data set states under `measurements` what differs for it: two data sets of
one study may want other values of one key, such as the steps per unit of time of mixtures and of images.
"""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field

from difftime.study.settings.base import AtLeast2, Count, Listed, NotBool, Positive, Settings, Tolerance

Measure = Literal["elbo", "likelihood", "samples"]
Family = Literal["mixture", "images"]
"""Data whose density is known, or pixels: they are measured differently."""
FewStepSampler = Literal["sde", "ddim", "heun", "dpm_solver_2m"]


class CurveSettings(Settings):
    """Of the running ELBO."""

    times: AtLeast2 = Field(
        default=40, description="Times of the running ELBO, equally far apart, up to the T of the cell"
    )


class MixtureElboSettings(CurveSettings):
    """The ELBO of data of known density, term by term, at the cell's T and at all times before it."""

    time_steps: Count = Field(default=160, description="Mixtures: Gauss–Legendre nodes in lambda on [epsilon, T]")
    points: AtLeast2 = Field(
        default=1024, description="Mixtures: random points per node, for data of more than one dimension"
    )


class ImageElboSettings(CurveSettings):
    """The ELBO of test images."""

    images: Count | None = Field(default=None, description="Images: test images, drawn once for all; null: all")
    pairs: Count = Field(
        default=16, description="Images: antithetic pairs of noise, each at a time of its own, per image"
    )
    batch: Count = Field(default=256, description="Images: noisy images in the network at once")


class ElboSettings(ImageElboSettings, MixtureElboSettings):
    """The ELBO, term by term."""


class SolverSettings(Settings):
    """Of RK45, which solves the probability-flow ODE."""

    rtol: Tolerance = Field(default=1e-5, description="Relative tolerance of RK45")
    atol: Positive = Field(default=1e-5, description="Absolute tolerance of RK45, in units of x")
    max_evaluations: Annotated[int, Field(ge=8), NotBool] = Field(
        default=20_000,
        description="Function evaluations after which a solve has failed; RK45 takes 2 to start and 6 per step",
    )


class MixtureLikelihoodSettings(SolverSettings):
    """The likelihood of held-out points."""

    points: AtLeast2 = Field(default=2048, description="Mixtures: held-out points per seed")
    grid_cells: Annotated[int, Field(ge=16), NotBool] = Field(
        default=256, description="Mixtures: cells of the coarsest grid for the reverse SDE's density (1-D)"
    )
    grid_steps: AtLeast2 = Field(default=32, description="Mixtures: time steps of that grid")


class ImageLikelihoodSettings(SolverSettings):
    """Bits per dimension of test images."""

    images: Count | None = Field(default=None, description="Images: test images, drawn once for all; null: all")
    draws: Count = Field(default=1, description="Images: dequantised versions of each image")
    batch: Count = Field(default=100, description="Images: solved as one system; the NFE belongs to it")


class LikelihoodSettings(ImageLikelihoodSettings, MixtureLikelihoodSettings):
    """The likelihood under the probability-flow ODE, and its evaluations."""


class EulerMaruyamaSettings(Settings):
    """Of Euler–Maruyama, which solves the reverse SDE."""

    steps_per_unit_time: Count = Field(default=500, description="Euler–Maruyama steps per unit of T")


class FewStepSettings(Settings):
    """Of the samples in few steps."""

    evaluations: Listed[AtLeast2] = Field(
        default=(5, 10, 20, 50), description="Few steps: evaluations of the score that a sampler may take"
    )
    samplers: Listed[FewStepSampler] = Field(
        default=("sde", "ddim", "heun", "dpm_solver_2m"),
        description="Few steps: sde is Euler–Maruyama; the others solve the ODE in equal steps of lambda",
    )


class MixtureSampleSettings(EulerMaruyamaSettings, FewStepSettings, SolverSettings):
    """Samples of the reverse SDE and of the ODE, compared with the data's density."""

    points: AtLeast2 = Field(default=2048, description="Mixtures: samples per seed, sampler and p_noise")
    bins: Count = Field(default=120, description="Mixtures: bins of the histogram (1-D)")


class ImageSampleSettings(EulerMaruyamaSettings, FewStepSettings):
    """Images of the reverse SDE, compared with the test images."""

    images: Count = Field(
        default=64, description="Images: samples per seed and p_noise; all are compared with the test images"
    )


class SampleSettings(ImageSampleSettings, MixtureSampleSettings):
    """Samples, compared with the data."""


class MixtureMeasurements(Settings):
    """How the measurements of a mixture differ from the study's."""

    elbo: MixtureElboSettings = Field(default=MixtureElboSettings(), description="Only what differs is to be given")
    likelihood: MixtureLikelihoodSettings = Field(
        default=MixtureLikelihoodSettings(), description="Only what differs is to be given"
    )
    samples: MixtureSampleSettings = Field(
        default=MixtureSampleSettings(), description="Only what differs is to be given"
    )


class ImageMeasurements(Settings):
    """How the measurements of images differ from the study's."""

    elbo: ImageElboSettings = Field(default=ImageElboSettings(), description="Only what differs is to be given")
    likelihood: ImageLikelihoodSettings = Field(
        default=ImageLikelihoodSettings(), description="Only what differs is to be given"
    )
    samples: ImageSampleSettings = Field(default=ImageSampleSettings(), description="Only what differs is to be given")


MEASUREMENTS: dict[Family, dict[str, type[Settings]]] = {
    "mixture": {
        "elbo": MixtureElboSettings, "likelihood": MixtureLikelihoodSettings, "samples": MixtureSampleSettings,
    },
    "images": {"elbo": ImageElboSettings, "likelihood": ImageLikelihoodSettings, "samples": ImageSampleSettings},
}  # fmt: skip
"""The settings that a measurement of one kind of data has."""
