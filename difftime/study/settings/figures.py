"""The section `figures`: how they look. Every figure is drawn of all data that it makes sense of."""

from __future__ import annotations

from typing import Annotated

from pydantic import AfterValidator, Field

from difftime.study.registry import FIGURES
from difftime.study.settings.base import Distinct, Positive, Settings


def _a_figure(name: str) -> str:
    if name not in FIGURES:
        raise ValueError(f"no figure has this name; the figures are {', '.join(FIGURES)}")
    return name


FigureName = Annotated[str, AfterValidator(_a_figure), Field(json_schema_extra={"enum": [*FIGURES]})]


class FigureSettings(Settings):
    """How figures look, and which are not wanted."""

    width: Positive = Field(default=6.75, description="Inches; 6.75 are the two columns of an ICML page")
    font_size: Positive = Field(default=8.0, description="Points")
    skip: Distinct[FigureName] = Field(default=(), description="Figures that are not drawn")
