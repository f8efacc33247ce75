"""What the explorer shows of one data set: plain values of the tables summary, optimum and tradeoff, and pictures.

A choice is an SDE, a network, a p_noise and a T. All means and standard errors are the tables'; numbers are rounded to
six digits, as in the tables for people.
"""

from __future__ import annotations

import base64
import io
import json
import math
from collections.abc import Callable, Iterable, Iterator, Mapping
from typing import Any

import numpy as np
import pandas as pd
from PIL import Image

from difftime.tables.frames import of_networks, parts_of, rows_of
from difftime.tables.paired import CHOICE
from difftime.tables.schema import TABLES

Tables = Mapping[str, pd.DataFrame]
Plain = dict[str, Any]
OPTIMUM = (
    "sde", "net", "p_noise", "unit", "T_star", "T_star_low", "T_star_high", "confidence", "spacing", "interior",
    "elbo_star", "elbo_star_se", "seeds", "epsilon", "weighting",
)  # fmt: skip
COSTS = (
    "nfe", "sde_steps", "elbo", "elbo_se", "likelihood", "likelihood_se", "distance", "distance_se", "cheapest_ode",
    "cheapest_sde",
)  # fmt: skip
STRIPS = ((12, 64), (12, 32), (8, 32), (8, 24), (6, 16), (4, 16), (2, 16), (1, 16))
"""Images of a choice, and pixels of a side at most."""
MERGED = (1, 2, 3, 4, 6, 10, 20)
"""Bins of a histogram that are drawn as one."""


def short(value: Any) -> Any:
    """A number to six digits, None for what is not finite; anything else as it is."""
    if isinstance(value, float):
        return float(f"{value:.6g}") if math.isfinite(value) else None
    return value.item() if isinstance(value, np.generic) else value


def name_of(sde: str, net: str, p_noise: str, T: float) -> str:
    """A choice as one string, which is its key in the page."""
    return f"{sde}|{net}|{p_noise}|{T:.6g}"


def of_dataset(tables: Tables, kind: str) -> Plain:
    """Choices, quantities and T* of one data set, whose rows alone `tables` hold."""
    return {
        "kind": kind,
        "choices": [*_choices(tables["summary"], tables["tradeoff"])],
        "quantities": _quantities(tables["summary"]),
        "optima": [
            {name: short(getattr(row, name)) for name in OPTIMUM} for row in rows_of(of_networks(tables["optimum"]))
        ],
    }


def _choices(summary: pd.DataFrame, tradeoff: pd.DataFrame) -> Iterator[Plain]:
    costs = {keys: part.iloc[0] for keys, part in parts_of(tradeoff, CHOICE).items()}
    for keys, own in parts_of(summary, CHOICE).items():
        _, sde, net, p_noise, T = keys
        rows = own[["quantity", "mean", "se", "finite", "seeds"]].itertuples(index=False)
        yield {
            "id": name_of(sde, net, p_noise, T), "sde": sde, "net": net, "p_noise": p_noise, "T": short(T),
            "parameters": short(own.parameters.iloc[0]),
            "values": {name: [short(value) for value in values] for name, *values in rows},
            "cost": {name: short(costs[keys][name]) for name in COSTS} if keys in costs else {},
        }  # fmt: skip


def _quantities(summary: pd.DataFrame) -> Plain:
    """The unit of every quantity, and what it is."""
    columns = (column for table in ("elbo", "likelihood", "samples") for column in TABLES[table])
    described = {column.name: column.description for column in columns}
    units = dict(zip(summary.quantity, summary.unit, strict=True))
    return {name: {"unit": unit, "is": described[name.rpartition(":")[2]]} for name, unit in units.items()}


def pictures(tables: Tables, budget: int) -> Plain:
    """Images, a histogram or shares of modes of every choice, as fine as fits into `budget` characters of JSON."""
    if len(tables["images"]):
        return _first_that_fits((_strips(tables["images"], *size) for size in STRIPS), budget)
    if len(tables["histogram"]):
        return _first_that_fits((_histograms(tables["histogram"], merged) for merged in MERGED), budget)
    return _modes(tables["modes"])


def _first_that_fits(ever_smaller: Iterable[Plain], budget: int) -> Plain:
    """The last, where none fits."""
    found: Plain = {}
    for found in ever_smaller:
        if len(json.dumps(found)) <= budget:
            break
    return found


def _by_choice(frame: pd.DataFrame, made: Callable[[pd.DataFrame], Any]) -> Plain:
    return {name_of(*keys[1:]): made(own) for keys, own in parts_of(frame, CHOICE).items()}


def _strips(frame: pd.DataFrame, count: int, side: int) -> Plain:
    """The first images of the first seed, as they were drawn, beside each other in one PNG."""
    first = frame[(frame.seed == frame.seed.min()) & (frame.image < count)].sort_values("image")
    shown = {"kind": "images", "count": count, "size": int(frame["size"].max()), "side": side}
    return shown | {"of": _by_choice(first, lambda own: _png([_image(row, side) for row in rows_of(own)]))}


def _image(row: Any, side: int) -> Image.Image:
    planes = np.frombuffer(row.pixels, np.uint8).reshape(row.channels, row.size, row.size)
    image = Image.fromarray(planes[0] if row.channels == 1 else planes.transpose(1, 2, 0))
    return image if row.size <= side else image.resize((side, side), Image.Resampling.BOX)


def _png(images: list[Image.Image]) -> Plain:
    """The strip as a data URI, and how many images it has."""
    width, height = images[0].size
    strip = Image.new(images[0].mode, (len(images) * (width + 2) - 2, height), "white")
    for k, image in enumerate(images):
        strip.paste(image, (k * (width + 2), 0))
    strip.save(file := io.BytesIO(), "PNG", optimize=True)
    uri = f"data:image/png;base64,{base64.b64encode(file.getvalue()).decode()}"
    return {"uri": uri, "count": len(images), "width": strip.width, "height": strip.height}


def _histograms(frame: pd.DataFrame, merged: int) -> Plain:
    """Mean densities over seeds of both samplers with their standard errors, over the same bins for all choices."""
    bins = frame.groupby("left")[["right", "density_p_data"]].first().reset_index()
    starts = np.arange(0, len(bins), merged)
    widths = (bins.right - bins.left).to_numpy()

    def mean(density: np.ndarray) -> np.ndarray:
        return np.add.reduceat(density * widths, starts, axis=-1) / np.add.reduceat(widths, starts)

    def drawn(own: pd.DataFrame) -> Plain:
        by_seed = own.pivot(index="seed", columns="left", values="density").reindex(columns=bins.left)
        density = mean(by_seed.to_numpy(float))
        n = len(density)
        se = density.std(0, ddof=1) / math.sqrt(n) if n > 1 else np.full(density.shape[1], math.nan)
        return {"mean": list(map(_coarse, density.mean(0))), "se": list(map(_coarse, se))}

    return {
        "kind": "histogram", "merged": merged,
        "left": [short(x) for x in bins.left.to_numpy(float)[starts]], "right": short(float(bins.right.iloc[-1])),
        "p_data": list(map(_coarse, mean(bins.density_p_data.to_numpy(float)))),
        "of": _by_choice(frame, lambda own: {name: drawn(part) for name, part in parts_of(own, "sampler").items()}),
    }  # fmt: skip


def _coarse(value: float) -> float | None:
    """A density as a picture needs it."""
    return float(f"{value:.3g}") if math.isfinite(value) else None


def _modes(frame: pd.DataFrame) -> Plain:
    """The share of samples in each mode: mean and standard error over seeds, beside that under p_data."""

    def drawn(own: pd.DataFrame) -> list[Plain]:
        shares = own.groupby(["sampler", "mode"]).agg(
            share=("share", "mean"), se=("share", "sem"), single=("share_se", "mean"), p_data=("share_p_data", "mean")
        )
        shares["se"] = shares["se"].fillna(shares["single"])  # of a single seed the binomial one
        rows = shares.drop(columns="single").reset_index().to_dict("records")
        return [{str(name): short(value) for name, value in row.items()} for row in rows]

    return {"kind": "modes", "of": _by_choice(frame, drawn)}
