"""How networks are trained: the optimiser and the loss of Eq. 3."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field

from difftime.study.settings.base import Count, NotBool, Positive, Settings, Whole

Weighting = Literal["likelihood", "noise"]
Average = Annotated[float, Field(ge=0, lt=1), NotBool]
WEIGHTING = "likelihood: g², Eq. 3 itself; noise: the unweighted error of the predicted noise"


class TrainingSettings(Settings):
    """The optimiser and the loss of Eq. 3."""

    weighting: Weighting = Field(default="likelihood", description=WEIGHTING)
    time_sampling: Literal["uniform", "lambda"] = Field(
        default="uniform",
        description="How t is drawn: uniformly and independently; or uniformly in lambda = log(sigma²/alpha²), and "
        "stratified over the batch",
    )
    steps: Count = Field(default=3000, description="Steps of the optimiser")
    batch: Count = Field(default=256, description="Points, or images, per step and model")
    learning_rate: Positive = Field(default=5e-3, description="Of the optimiser")
    optimiser: Literal["adam", "muon"] = Field(
        default="adam", description="muon: steps of matrices with equal singular values (Jordan et al., 2024)"
    )
    warmup: Whole = Field(default=0, description="Steps over which the learning rate rises linearly")
    decay: Literal["none", "cosine"] = Field(
        default="none", description="cosine: the learning rate falls to 0 at the last step by a half cosine"
    )
    clip: Positive | None = Field(
        default=None,
        description="Norm that the gradient of the loss per dimension and unit of time is cut to; null: not at all",
    )
    ema: Average = Field(
        default=0.999, description="Decay of the weights' moving average, after n steps at most (1+n)/(10+n)"
    )


class ImageTrainingSettings(TrainingSettings):
    """The same, with the defaults of the paper's MNIST model (Song et al., 2021c, with a shorter warm-up)."""

    weighting: Weighting = Field(default="noise", description=WEIGHTING)
    steps: Count = Field(default=65_000, description="Steps of the optimiser")
    batch: Count = Field(default=128, description="Images per step and model")
    learning_rate: Positive = Field(default=2e-4, description="Of the optimiser")
    warmup: Whole = Field(default=1000, description="Steps over which the learning rate rises linearly")
    clip: Positive | None = Field(
        default=1.0,
        description="Norm that the gradient of the loss per dimension and unit of time is cut to; null: not at all",
    )
    ema: Average = Field(
        default=0.9999, description="Decay of the weights' moving average, after n steps at most (1+n)/(10+n)"
    )
