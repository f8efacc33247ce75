"""Frames taken apart. A cell of a frame may hold anything: what comes out has the types of the table's schema."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pandas as pd


def rows_of(frame: pd.DataFrame) -> Iterator[Any]:
    """Every row, its values by the names of the columns."""
    return iter(frame.itertuples())


def of_networks(optimum: pd.DataFrame) -> pd.DataFrame:
    """The rows of the table optimum that predict nothing: of trained cells, and of pretrained networks."""
    return optimum[(optimum.method == "trained") | optimum.weighting.isna()]


def parts_of(frame: pd.DataFrame, by: str | list[str], sort: bool = False) -> dict[Any, pd.DataFrame]:
    """The rows of every value of a column, or of every combination of several."""
    return dict(iter(frame.groupby(by, sort=sort)))
