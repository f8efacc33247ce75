"""**Images drawn at several diffusion times**: samples of the reverse SDE (Euler–Maruyama) of the first seed, one
strip per SDE, T and p_noise. A strip shows the first samples in the order in which they were drawn; none was selected.
All strips of an SDE begin with the same random numbers, so columns may be compared. At a small T, the standard p_noise
is not where the data are at T, and a p_noise fitted to them is closer. Values beyond the grey levels are cut to them;
values that are not finite are black, and the last line counts the images that have some.
"""

from __future__ import annotations

import math

import numpy as np
import pandas as pd
from matplotlib.figure import Figure

from difftime.figures import style
from difftime.figures.settings import FigureSettings
from difftime.tables.frames import rows_of

COUNT = 12
"""Images of a strip, at most."""
LABEL = 1.1
"""Inches left of the strips for what they are."""
GAP = 3
"""White pixels between the strips of two diffusion times."""


def strip(rows: pd.DataFrame, count: int) -> np.ndarray:
    """The images of some rows beside each other, [height, width, 3] of uint8, white around each and at missing ones."""
    tiles = []
    for row in rows_of(rows):
        planes = np.frombuffer(row.pixels, np.uint8).reshape(row.channels, row.size, row.size)
        image = np.broadcast_to(planes.transpose(1, 2, 0), (row.size, row.size, 3))
        tiles.append(np.pad(image, ((1, 1), (1, 1), (0, 0)), constant_values=255))
    blanks = [np.full_like(tiles[0], 255)] * (count - len(tiles))
    return np.concatenate([*tiles, *blanks], axis=1)


def strips(rows: pd.DataFrame) -> list[tuple[float, str, np.ndarray]]:
    """T, p_noise and picture of every strip of one SDE, from the largest T and the plainest p_noise on."""
    count = int(rows.groupby(["T", "p_noise"]).size().max())
    places = rows.groupby(["T", "p_noise"]).indices
    keys = [(T, name) for T in sorted(rows["T"].unique(), reverse=True) for name in style.noises_of(rows)]
    return [(T, name, strip(rows.iloc[places[T, name]], count)) for T, name in keys if (T, name) in places]


def picture(rows: pd.DataFrame) -> tuple[np.ndarray, list[float], list[str]]:
    """All strips of one SDE as one image, the height at which each has its middle, and what it is."""
    parts: list[np.ndarray] = []
    middles, labels, height, before = [], [], 0, math.nan
    for T, name, shown in strips(rows):
        if parts and before != T:
            parts.append(np.full((GAP, *shown.shape[1:]), 255, np.uint8))
            height += GAP
        parts.append(shown)
        middles.append(height + len(shown) / 2 - 0.5)
        labels.append(f"$T = {T:g}$, {name}")
        height, before = height + len(shown), T
    return np.concatenate(parts), middles, labels


def draw(frame: pd.DataFrame, settings: FigureSettings) -> Figure:
    """One panel per SDE, in it one strip per T and p_noise."""
    rows = style.select(frame, seed=[frame.seed.min()])
    rows = rows[rows.image < rows.image.min() + COUNT].sort_values("image", kind="stable")
    sdes = style.sdes_of(frame)
    shown = {sde: picture(rows[rows.sde == sde]) for sde in sdes}
    heights = [(settings.width - LABEL) * image.shape[0] / image.shape[1] for image, _, _ in shown.values()]
    figure, grid = style.panels(settings, len(sdes), 1, 0.3 + sum(heights) + 0.3 * len(sdes), height_ratios=heights)
    for (sde, (image, middles, labels)), (axes,) in zip(shown.items(), grid, strict=True):
        axes.imshow(image, interpolation="nearest")
        axes.set_anchor("NW")  # else the labels of an axes narrower than its place would leave the page
        axes.set_xticks([])
        axes.set_yticks(middles, labels)
        axes.tick_params(length=0)
        axes.grid(visible=False)
        axes.spines[:].set_visible(False)
        style.heading(axes, style.sde_title(sde, settings))
    said = [*style.settings_of(rows, "dataset", "net")[:2], "reverse SDE, Euler–Maruyama, first seed, not selected"]
    # a T that is no multiple of a step has one more: the ratio is least where it is the setting
    per_time = math.floor((rows.steps / rows["T"]).min() + 1e-6)
    said.append(f"{per_time} steps per unit of time")
    if failed := (rows.not_finite > 0).sum():
        said.append(f"{failed} of {len(rows)} images have values that are not finite, in black")
    style.footer(figure, settings, said)
    return figure
