"""What a figure shows is what its table says: every point, its uncertainty, its unit, and what could not be computed."""

from __future__ import annotations

import math
import subprocess
import sys
from collections.abc import Callable
from importlib import import_module
from itertools import product
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
from docutils.core import publish_doctree
from jinja2 import Environment, StrictUndefined
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.patches import StepPatch

from difftime import figures, tables
from difftime.config import FIGURE_TABLE, FigureSettings
from difftime.figures import sensitivity, style
from difftime.schemas import TABLES

REPORT = Path(__file__).parent.parent / "workflow" / "report"
SDES, TIMES, SEEDS = ("vp", "ve"), (0.1, 0.2, 0.4, 0.5, 0.6, 0.8, 1.0, 1.5, 2.0), 4
NETS = {"mlp-16x1": 1.3, "mlp-32x2": 1.0, "mlp-64x3": 0.8}
SETTINGS = FigureSettings()
CEILING = -0.852
DEFAULTS = {"string": "none", "float64": 0.0, "int64": 1, "bool": True}
Row = dict[str, Any]


def table(name: str, rows: list[Row]) -> pd.DataFrame:
    """A valid table from rows that say only what matters."""
    filled = {c.name: DEFAULTS[c.type] for c in TABLES[name]}
    frame = pd.DataFrame([filled | row for row in rows], columns=list(filled))
    return tables.check(frame, name, f"the synthetic {name}")


def noise(*key: Any) -> float:
    """A number of mean 0 and standard deviation 1 that belongs to `key`."""
    return float(np.random.default_rng([abs(hash(part)) if isinstance(part, int) else sum(map(ord, str(part))) for part in key]).normal())  # fmt: skip


def kl(sde: str, T: float) -> float:
    return 4.5 * math.exp(-0.1 * T - 9.95 * T**2) if sde == "vp" else 23.0 * math.exp(-6.4 * (T - 0.1))


def gap(net: str, T: float, seed: int = 0) -> float:
    return NETS[net] * (0.4 + 0.45 * T) * math.exp(0.15 * noise(net, T, seed))


def cells(**options: Any) -> list[Row]:
    keys = {"dataset": ("toy",), "sde": SDES, "net": ("mlp-32x2",), "T": TIMES, "p_noise": ("standard", "matched")}
    keys |= options
    return [dict(zip(keys, values, strict=True)) for values in product(*keys.values())]


def samples() -> pd.DataFrame:
    rows = []
    for cell in cells(seed=range(SEEDS), sampler=("sde", "ode")):
        T, wrong = cell["T"], 2.3 * math.exp(-4 * cell["T"]) + 0.5 * cell["T"] ** 2
        jitter = 0.1 * noise(cell["sde"], T, cell["seed"], cell["sampler"])
        median = -2.3 - 16 * math.exp(-9 * T) - 0.3 * T + jitter
        rows.append(
            cell
            | {
                "points": 4096, "log_p_data_median": median, "log_p_data_q025": median - 20 - 30 * T**2,
                "log_p_data_q975": 0.1 + 0.05 * jitter, "finite": 1.0, "wasserstein1": wrong * math.exp(jitter),
                "wasserstein1_floor": 0.024, "share_first": 0.3 - 0.1 * math.exp(-T) + 0.2 * jitter,
                "share_first_p_data": 0.3,
            }
        )  # fmt: skip
    return table("samples", rows)


def _lines(net: str, sde: str, T: float) -> dict[str, float]:
    """The quantities of the summary at one T."""
    loss, mean = kl(sde, T), float(np.mean([gap(net, T, seed) for seed in range(SEEDS)]))
    elbo = CEILING - loss - mean
    return {
        "elbo": elbo, "kl": loss, "gap": mean, "log_p_data": CEILING,
        "log_q_sde": elbo + 0.1 * loss + 0.2, "log_q_ode": elbo + 0.15 + 0.1 * noise("ode", T),
    }  # fmt: skip


def summary() -> pd.DataFrame:
    rows = []
    for cell in cells(net=tuple(NETS)):
        best = {"T_star": 0.62, "T_star_low": 0.55, "T_star_high": 0.74}
        for quantity, mean in _lines(cell["net"], cell["sde"], cell["T"]).items():
            se = 0.0 if quantity in ("kl", "log_p_data") else 0.05
            row = {"quantity": quantity, "unit": "nats", "mean": mean, "se": se, "seeds": SEEDS, "finite": SEEDS}
            rows.append(cell | best | row)
    return table("summary", rows)


def histogram() -> pd.DataFrame:
    edges = np.linspace(-0.5, 6.0, 61)
    middle, width = (edges[1:] + edges[:-1]) / 2, edges[1] - edges[0]
    normal = [w * np.exp(-(((middle - m) / s) ** 2) / 2) / (s * math.sqrt(2 * math.pi)) for w, m, s in ((0.3, 1, 0.1), (0.7, 3, 0.5))]  # fmt: skip
    p_data, rows = sum(normal), []
    for cell in cells(seed=range(SEEDS), T=SETTINGS.histogram_T, sampler=("sde", "ode")):
        noisy = p_data * (1 + 0.1 * np.cos(middle * (1 + cell["seed"])))
        density = 0.99 * noisy / (noisy.sum() * width)
        for left, right, mean, truth in zip(edges[:-1], edges[1:], density, p_data, strict=True):
            rows.append(cell | {"left": left, "right": right, "density": mean, "density_p_data": truth})
    return table("histogram", rows)


def cost() -> pd.DataFrame:
    rows = []
    for cell in cells(sampler=("sde", "ode")):
        nfe = math.ceil(500 * cell["T"]) if cell["sampler"] == "sde" else 100 + 60 * cell["T"]
        spread = 0.0 if cell["sampler"] == "sde" else 4.0
        rows.append(cell | {"points": 4096, "seeds": SEEDS, "nfe": nfe, "nfe_se": spread, "seconds": 0.004 * nfe})
    return table("cost", rows)


def optimum() -> pd.DataFrame:
    rows = []
    for place, cell in enumerate(cells(net=(*NETS, "fourier"), T=(0.0,))):
        del cell["T"]
        T = (0.6 if cell["sde"] == "vp" else 0.8) - (0.4 if cell["p_noise"] == "matched" else 0) + 0.04 * (place % 4)
        spread = {"T_star_low": T - 0.06, "T_star_high": T + 0.1, "plateau_low": T - 0.15, "plateau_high": T + 0.2}
        study = {"confidence": 0.95, "seeds": SEEDS, "epsilon": 1e-5, "weighting": "likelihood"}
        rows.append(cell | {"T_star": T, "interior": cell["net"] != "fourier"} | spread | study)
    return table("optimum", rows)


FACTORY: dict[str, Callable[[], pd.DataFrame]] = {
    "samples": samples, "summary": summary, "histogram": histogram, "cost": cost, "optimum": optimum,
}  # fmt: skip
FIGURES = tuple(FIGURE_TABLE)


def drawn(name: str, frame: pd.DataFrame | None = None, settings: FigureSettings = SETTINGS) -> Figure:
    """A figure, laid out, from a synthetic table or from `frame`."""
    with style.context(settings):
        figure = import_module(f"difftime.figures.{name}").draw(
            FACTORY[FIGURE_TABLE[name]]() if frame is None else frame, settings
        )
        figure.draw_without_rendering()
    return figure


@pytest.fixture(scope="module")
def pictures() -> dict[str, Figure]:
    return {name: drawn(name) for name in FIGURES}
