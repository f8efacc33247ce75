"""**Images drawn at several diffusion times**: samples of the reverse SDE (Euler–Maruyama) of the first seed, one
strip per SDE, T and p_noise. A strip shows the first samples in the order in which they were drawn; none was selected.
All strips of an SDE begin with the same random numbers, so columns may be compared. At a small T, the standard p_noise
is not where the data are at T, and a p_noise fitted to them is closer. Values beyond the grey levels are cut to them;
values that are not finite are black, and the last line counts the images that have some.
"""

from __future__ import annotations

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from difftime.figures import style
from difftime.figures.settings import FigureSettings

COUNT = 12
"""Images of a strip, at most."""
LABEL = 1.25
"""Inches left of the strips for what they are."""


def strip(rows: pd.DataFrame) -> np.ndarray:
    """The images of some rows beside each other, [height, width, 3] of uint8, a white pixel around each."""
    tiles = []
    for row in rows.itertuples():
        planes = np.frombuffer(row.pixels, np.uint8).reshape(row.channels, row.size, row.size)
        image = np.broadcast_to(planes.transpose(1, 2, 0), (row.size, row.size, 3))
        tiles.append(np.pad(image, ((1, 1), (1, 1), (0, 0)), constant_values=255))
    return np.concatenate(tiles, axis=1)


def _show(axes: Axes, rows: pd.DataFrame) -> None:
    axes.imshow(strip(rows), interpolation="nearest")
    axes.set(xticks=[], yticks=[])
    axes.spines[:].set_visible(False)
    first = rows.iloc[0]
    axes.set_ylabel(f"$T = {first['T']:g}$\n{first.p_noise}", rotation=0, ha="right", va="center")


def draw(frame: pd.DataFrame, settings: FigureSettings) -> Figure:
    """One strip per SDE, T and p_noise, from the largest T to the smallest."""
    rows = style.select(frame, seed=[frame.seed.min()])
    rows = rows[rows.image < rows.image.min() + COUNT].sort_values("image", kind="stable")
    keys = [
        (sde, T, name)
        for sde in style.sdes_of(frame)
        for T in sorted(rows["T"].unique(), reverse=True)
        for name in style.noises_of(rows)
    ]
    of = {key: rows.iloc[place] for key, place in rows.groupby(["sde", "T", "p_noise"]).indices.items()}
    keys = [key for key in keys if key in of]
    height = (settings.width - LABEL) / max(map(len, of.values()))
    figure, grid = style.panels(settings, len(keys), 1, 0.35 + len(keys) * (height + 0.03) + 0.2 * rows.sde.nunique())
    before = None
    for key, (axes,) in zip(keys, grid, strict=True):
        _show(axes, of[key])
        if key[0] != before:
            style.heading(axes, style.sde_title(key[0], settings))
        before = key[0]
    said = [*style.settings_of(rows, "dataset", "net")[:2], "reverse SDE, Euler–Maruyama, first seed, not selected"]
    per_time = (rows.steps / rows["T"]).round(1)
    said.append(f"{', '.join(f'{v:g}' for v in per_time.unique())} steps per unit of time")
    if failed := (rows.not_finite > 0).sum():
        said.append(f"{failed} of {len(rows)} images have values that are not finite, in black")
    style.footer(figure, settings, said)
    return figure
