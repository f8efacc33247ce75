"""The section `sdes`: forward SDEs, and where the integrals over time begin."""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import Field, field_validator

from difftime.study.settings.base import BY_KIND, AtLeast2, Info, NotBool, Positive, Settings


class _Diffusion(Settings):
    epsilon: Positive = Field(default=1e-5, description="SDE time at which every integral over time begins")


class _LinearBeta(Settings):
    """beta(t) = beta_min + (beta_max - beta_min) t."""

    beta_min: Positive = Field(default=0.1, description="beta at t = 0")
    beta_max: Positive = Field(default=20.0, description="beta at t = 1")

    @field_validator("beta_max")
    @classmethod
    def _rising(cls, beta_max: float, info: Info) -> float:
        if beta_max < info.data.get("beta_min", 0):
            raise ValueError(f"must not be below beta_min = {info.data['beta_min']:g}")
        return beta_max


class VPSettings(_LinearBeta, _Diffusion):
    """Variance preserving."""

    kind: Literal["vp"] = Field(default="vp", description="Variance preserving, beta linear in t")


class SubVPSettings(_LinearBeta, _Diffusion):
    """Sub-variance preserving: alpha_t as for VP, sigma_t the square of VP's."""

    kind: Literal["sub-vp"] = Field(default="sub-vp", description="Sub-variance preserving, beta linear in t")


class TabulatedSettings(_Diffusion):
    """Variance preserving, with the noise levels of a model that steps from index to index; t = (index + 1)/steps."""

    kind: Literal["tabulated"] = Field(default="tabulated", description="Variance preserving, from a table of levels")
    schedule: Literal["linear", "scaled-linear", "cosine"] = Field(
        default="cosine", description="beta as for DDPM, its square root as for latent diffusion, or alpha² as a cosine"
    )
    steps: AtLeast2 = Field(default=1000, description="Levels of the table")


class VEExponentialSettings(_Diffusion):
    """Variance exploding with g(t) = base^t, hence sigma_t² = (base^{2t} - 1) / (2 ln base)."""

    kind: Literal["ve-exponential"] = Field(default="ve-exponential", description="Variance exploding, g(t) = base^t")
    base: Annotated[float, Field(allow_inf_nan=False, gt=1), NotBool] = Field(
        default=25.0, description="g at t = 1, which is 1 at t = 0"
    )


class VEGeometricSettings(_Diffusion):
    """Variance exploding with sigma_t = sigma_min (sigma_max / sigma_min)^t, or that variance less its value at 0."""

    kind: Literal["ve-geometric"] = Field(
        default="ve-geometric", description="Variance exploding, sigma geometric in t"
    )
    sigma_min: Positive = Field(default=0.01, description="sigma at t = 0")
    sigma_max: Positive = Field(default=50.0, description="sigma at t = 1")
    from_zero: bool = Field(default=True, description="Whether sigma_0 = 0 instead of sigma_min")

    @field_validator("sigma_max")
    @classmethod
    def _rising(cls, sigma_max: float, info: Info) -> float:
        if sigma_max <= info.data.get("sigma_min", 0):
            raise ValueError(f"must be above sigma_min = {info.data['sigma_min']:g}")
        return sigma_max


class OfModelSettings(Settings):
    """The forward SDE that a pretrained network was trained with, and its epsilon: nothing is to be said of it."""

    kind: Literal["of-model"] = Field(default="of-model", description="The SDE of a pretrained network")


SDESettings = Annotated[
    VPSettings | SubVPSettings | TabulatedSettings | VEExponentialSettings | VEGeometricSettings | OfModelSettings,
    *BY_KIND,
]


def epsilon_of(plain: Any) -> float:
    """Where the integrals of an SDE begin, from its plain settings, which may have faults; 0 if they leave it open."""
    try:
        return _Diffusion.model_validate({key: plain[key] for key in plain if key == "epsilon"}).epsilon
    except (TypeError, ValueError):
        return 0.0
