"""What the verbs share."""

from __future__ import annotations

import logging
import math
from pathlib import Path

from torch import Tensor

from difftime.cell import Problem, build
from difftime.config import Cell, read_cell

log = logging.getLogger("difftime")


def open_cell(folder: Path) -> tuple[Cell, Problem]:
    """A trained cell: its settings and its objects, weights loaded. Raises BadSettings or BadFile."""
    cell = read_cell(folder / "cell.json")
    return cell, build(cell).load(folder)


def keys(cell: Cell) -> dict[str, object]:
    """The key columns that every table begins with."""
    return cell.keys | {"T": cell.T}


def finite(value: Tensor | float) -> float | None:
    """A number for a table; None, which a table marks as missing, for NaN and infinity."""
    number = float(value)
    return number if math.isfinite(number) else None
