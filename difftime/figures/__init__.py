"""One file per figure: a table in, a matplotlib Figure out. No torch here: redrawing needs no GPU environment."""

from __future__ import annotations

from importlib import import_module
from pathlib import Path

from difftime.figures import style
from difftime.study.settings import FIGURE_TABLE, FigureName, FigureSettings
from difftime.tables.derived import read


def draw(name: FigureName, table: Path, output: Path, settings: FigureSettings) -> None:
    """Draw the figure called `name` from its table; write the PDF `output` and a PNG beside it. Raises BadTable."""
    frame = read(table, FIGURE_TABLE[name])
    with style.context(settings):
        figure = import_module(f"difftime.figures.{name}").draw(frame, settings)
        style.save(figure, output)
