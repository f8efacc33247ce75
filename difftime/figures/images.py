"""Images drawn from the reverse SDE at several diffusion times, from the `image_samples` table.

One row per diffusion time. All rows of a data set begin with the same random numbers, so that columns may be compared.
"""

from __future__ import annotations

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from difftime.figures import style
from difftime.study.settings import FigureSettings


def strip(rows: pd.DataFrame) -> np.ndarray:
    """The images of some rows beside each other, [height, width, 3] of uint8, a white pixel between them."""
    tiles = []
    for row in rows.itertuples():
        planes = np.frombuffer(row.pixels, np.uint8).reshape(row.channels, row.size, row.size)
        image = np.broadcast_to(planes.transpose(1, 2, 0), (row.size, row.size, 3))
        tiles.append(np.pad(image, ((1, 1), (1, 1), (0, 0)), constant_values=255))
    return np.concatenate(tiles, axis=1)


def _show(axes: Axes, rows: pd.DataFrame) -> None:
    axes.imshow(strip(rows), interpolation="nearest")
    axes.set_axis_off()
    first = rows.iloc[0]
    title = f"{first.dataset}, {style.sde_title(first.sde)}, {first.net}: $T = {first['T']:g}$, {first.steps} steps"
    axes.set_title(title, loc="left")


def draw(frame: pd.DataFrame, settings: FigureSettings) -> Figure:
    """One strip of `settings.images` images per data set, SDE, network and T, the first seed's."""
    rows = style.select(frame, p_noise=settings.p_noise, seed=0)
    rows = rows[rows.image < settings.images]
    lines = [line for _, line in rows.groupby(["dataset", "sde", "net", "T"], sort=False)]
    height = settings.width / min(settings.images, rows.image.max() + 1)
    figure, grid = style.panels(settings, len(lines), 1, 0.3 + len(lines) * (height + 0.25))
    for line, (axes,) in zip(lines, grid, strict=True):
        _show(axes, line)
    notes = [f"p_noise {settings.p_noise}", "reverse SDE, Euler–Maruyama", "not selected"]
    if failed := (rows.not_finite > 0).sum():
        notes.append(f"{failed} of {len(rows)} images have values that are not finite, in black")
    style.footer(figure, settings, notes)
    return figure
