"""What every figure is told beside its table. Light, so that a plan of the study imports no matplotlib."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field


@dataclass(frozen=True)
class FigureSettings:
    """The style of a figure, and what its data and SDEs are."""

    width: float = 6.75
    """Inches: the two columns of an ICML page."""
    font_size: float = 8.0
    """Points."""
    sdes: Mapping[str, str] = field(default_factory=dict)
    """The kind of every SDE by the name that the user gave it."""
    kind: str = "mixture"
    """The kind of the data set."""
    paper_data: bool = False
    """Whether the data set is the paper's toy, 0.3 N(1, 0.1²) + 0.7 N(3, 0.5²): the paper's T* holds for no other."""
    formats: tuple[str, ...] = ()
    """Further formats that matplotlib writes, such as "svg", beside PDF and PNG."""
