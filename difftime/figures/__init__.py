"""One file per figure: a table in, a matplotlib Figure out; the file's docstring is the figure's caption."""

from __future__ import annotations

import ast
from importlib import import_module
from pathlib import Path

from difftime.figures.settings import FigureSettings


def caption(name: str) -> str:
    """The caption of a figure in reStructuredText: the docstring of its module, which is not imported for it."""
    source = Path(__file__).with_name(f"{name}.py").read_text(encoding="utf-8")
    return ast.get_docstring(ast.parse(source)) or ""


def draw(name: str, table: Path, output: Path, settings: FigureSettings, dataset: str, net: str | None = None) -> None:
    """Draw the figure `name` of one data set, or of one network of it; write the PDF `output` and a PNG beside it.

    `table` is the Parquet file of that data set, called after the table that the figure shows. A figure that finds
    nothing to draw in it says so in its place. Raises BadTable.
    """
    # matplotlib, seaborn and pandas take a second to import, and a plan asks for captions only
    from difftime.figures import style
    from difftime.tables.parquet import read

    frame = read(table, table.stem)
    rows = frame if net is None else frame[frame.net == net]
    with style.context(settings):
        try:
            figure = import_module(f"difftime.figures.{name}").draw(rows, settings)
        except style.NothingToDraw as nothing:
            asked = dataset if net is None else f"{dataset}, {net}"
            figure = style.blank(settings, f"{name} of {asked} has nothing to show:\n{nothing}")
        style.save(figure, output, settings.formats)
