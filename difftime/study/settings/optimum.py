"""The section `optimum`: how the best T, and the cheapest T that is as good, are found."""

from __future__ import annotations

from typing import Annotated

from pydantic import Field

from difftime.study.settings.base import AtLeast2, NotBool, Settings, Share


class OptimumSettings(Settings):
    """Which T is best, and which is the cheapest that surely loses little."""

    resamples: AtLeast2 = Field(default=1000, description="Bootstrap resamples of the seeds, or of the images")
    confidence: Share = Field(default=0.95, description="Nominal coverage of the interval of T*")
    loss: Annotated[float, Field(allow_inf_nan=False, ge=0), NotBool] = Field(
        default=0.01,
        description="What a cheaper choice may surely lose against the best: nats of mixtures, bits per dimension of "
        "images",
    )
