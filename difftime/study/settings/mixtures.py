"""Data from a Gaussian mixture: what the data are."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Annotated, Any, Literal

from pydantic import AfterValidator, Field, field_validator

from difftime.study.settings.base import Count, Filled, Info, Number, Positive, Settings, Vector


def _covariance(matrix: Sequence[Sequence[float]]) -> Any:
    """Refuse a matrix that is not a covariance; a symmetric one is if it has a Cholesky factor."""
    n = len(matrix)
    if any(len(row) != n for row in matrix):
        raise ValueError("a covariance must be a square matrix")
    if any(matrix[i][j] != matrix[j][i] for i in range(n) for j in range(i)):
        raise ValueError("a covariance must be symmetric")
    factor = [[0.0] * n for _ in range(n)]
    for i in range(n):
        for j in range(i + 1):
            rest = matrix[i][j] - sum(factor[i][k] * factor[j][k] for k in range(j))
            if i == j and rest <= 0:
                raise ValueError("a covariance must be positive definite")
            factor[i][j] = rest**0.5 if i == j else rest / factor[j][j]
    return matrix


Matrix = Annotated[Filled[Filled[Number]], AfterValidator(_covariance)]


def _are(n: int) -> str:
    return "there is 1" if n == 1 else f"there are {n}"


class MixtureSettings(Settings):
    """Data from a Gaussian mixture in any dimension d."""

    kind: Literal["mixture"] = Field(default="mixture", description="A Gaussian mixture")
    weights: Filled[Positive] = Field(description="One per component, summing to 1")
    means: Filled[Vector[Number]] = Field(description="One per component: a number, or a list of d numbers")
    stds: Filled[Vector[Positive]] | None = Field(
        default=None, description="One per component: a number for all coordinates, or a list of d numbers"
    )
    covariances: Filled[Matrix] | None = Field(
        default=None, description="Instead of stds: one d × d matrix per component"
    )
    samples: Count = Field(default=8192, description="Training points that each seed draws for itself")

    @field_validator("weights")
    @classmethod
    def _sum_to_1(cls, weights: tuple[float, ...]) -> tuple[float, ...]:
        if abs(sum(weights) - 1) > 1e-9:
            raise ValueError(f"the weights must sum to 1, but sum to {sum(weights):.10g}")
        return weights

    @field_validator("means", "stds", "covariances")
    @classmethod
    def _one_per_component(cls, values: Any, info: Info) -> Any:
        weights = info.data.get("weights")
        if None not in (values, weights) and len(values) != len(weights):
            raise ValueError(f"must have one item for each weight; {_are(len(weights))}, not {len(values)}")
        return values

    @field_validator("means")
    @classmethod
    def _of_one_length(cls, means: tuple[tuple[float, ...], ...]) -> tuple[tuple[float, ...], ...]:
        if len({len(mean) for mean in means}) > 1:
            raise ValueError("the means must all be numbers, or all be lists of the same length")
        return means

    @field_validator("stds", "covariances")
    @classmethod
    def _as_long_as_means(cls, spreads: Any, info: Info) -> Any:
        if spreads is None or "means" not in info.data:
            return spreads
        d, stds = len(info.data["means"][0]), info.field_name == "stds"
        if any(len(spread) not in ((1, d) if stds else (d,)) for spread in spreads):
            number = "one number" if d == 1 else f"one number, or a list of {d} numbers"
            size = number if stds else f"a {d} × {d} matrix"
            coordinates = f"{d} coordinate{'s' if d > 1 else ''}"
            raise ValueError(f"each item must be {size}, as each of the means has {coordinates}")
        return spreads

    @field_validator("covariances")
    @classmethod
    def _instead_of_stds(cls, covariances: Any, info: Info) -> Any:
        if (info.data.get("stds", "faulty") is None) == (covariances is None):
            raise ValueError("give either stds or covariances, and only one of the two")
        return covariances
