"""What a figure shows is what its table says: points, uncertainties, units, and what could not be computed."""

from __future__ import annotations

import math
import subprocess
import sys
from collections.abc import Callable
from importlib import import_module
from itertools import combinations, product
from pathlib import Path
from typing import Any

import matplotlib
import numpy as np
import pandas as pd
import pytest
from builders import Row, frame
from docutils.core import publish_doctree
from jinja2 import Environment, StrictUndefined
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.patches import StepPatch
from matplotlib.text import Text
from scipy.stats import norm

from difftime import figures
from difftime.figures import sensitivity, style
from difftime.figures.fig3 import by_parameters
from difftime.figures.fig4 import times
from difftime.figures.images import COUNT, strips
from difftime.figures.learning import STRETCHES, smoothed
from difftime.figures.settings import FigureSettings
from difftime.figures.table1 import PAPER, RISE
from difftime.figures.tradeoff import RING
from difftime.study.registry import FIGURES as REGISTRY
from difftime.tables import parquet
from difftime.tables.published import T_STAR
from difftime.tables.schema import CAPTIONS, TABLES

REPORT = Path(__file__).parent.parent / "workflow" / "report"
SDES, TIMES, SEEDS = ("vp", "ve"), (0.1, 0.2, 0.4, 0.5, 0.6, 0.8, 1.0, 1.5, 2.0), 4
KINDS = {"vp": "vp", "ve": "ve-exponential", "fast": "vp", "sub-vp": "sub-vp", "ve-2": "ve-geometric"}
SETTINGS = FigureSettings(sdes=KINDS, kind="mixture", paper_data=True)
OF_IMAGES = FigureSettings(sdes=KINDS, kind="mnist")
NETS = {"mlp-64x3": 0.8, "mlp-16x1": 1.3, "mlp-32x2": 1.0}
SIZES = {"mlp-16x1": 65, "mlp-32x2": 1185, "mlp-64x3": 8577}
CEILING = -0.852
STARTS = ("standard", "matched")


def noise(*key: Any) -> float:
    """A number of mean 0 and standard deviation 1 that belongs to `key`."""
    return np.random.default_rng([*repr(key).encode()]).normal()


def kl(sde: str, T: float) -> float:
    return 4.5 * math.exp(-0.1 * T - 9.95 * T**2) if sde == "vp" else 23.0 * math.exp(-6.4 * (T - 0.1))


def gap(net: str, T: float, seed: int = 0) -> float:
    return NETS[net] * (0.4 + 0.45 * T) * math.exp(0.15 * noise(net, T, seed))


def cells(**options: Any) -> list[Row]:
    keys = {"dataset": ("toy",), "sde": SDES, "net": ("mlp-32x2",), "T": TIMES, "p_noise": STARTS}
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
                "units": 4096, "nfe": math.ceil(500 * T) if cell["sampler"] == "sde" else 100 + 6 * cell["seed"],
                "log_p_data_median": median, "log_p_data_median_p_data": -0.7,
                "log_p_data_q025": 1.6 * median - 15 * (1 + T**2), "log_p_data_q975": 0.1 + 0.05 * jitter,
                "finite": 1.0, "wasserstein1": wrong * math.exp(jitter), "wasserstein1_floor": 0.024,
                "share_first": 0.3 - 0.1 * math.exp(-T) + 0.2 * jitter, "share_first_p_data": 0.3,
            }
        )  # fmt: skip
    return frame("samples", rows)


def _quantities(net: str, sde: str, T: float) -> dict[str, float]:
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
        best = {"T_star": 0.62, "T_star_low": 0.55, "T_star_high": 0.74, "parameters": SIZES[cell["net"]]}
        for quantity, mean in _quantities(cell["net"], cell["sde"], cell["T"]).items():
            se = 0.0 if quantity in ("kl", "log_p_data") else 0.05
            row = {"quantity": quantity, "unit": "nats", "mean": mean, "se": se, "seeds": SEEDS, "finite": SEEDS}
            rows.append(cell | best | row)
    return frame("summary", rows)


def summary_of_images() -> pd.DataFrame:
    rows = []
    for cell in image_cells(p_noise=("standard", "matched", "full")):
        best = {"T_star": 0.5, "T_star_low": 0.4, "T_star_high": 0.6, "parameters": 186_000, "se": 0.03}
        start = {"standard": 0.7, "matched": 0.5, "full": 0.05}[cell["p_noise"]]
        bits = 1.6 + start * math.exp(-9 * (cell["T"] - 0.2)) + 0.1 * cell["T"]
        study = {"quantity": "elbo_bpd", "unit": "bits per dimension", "mean": bits, "seeds": 1, "finite": 1}
        rows.append(cell | best | study)
    return frame("summary", rows)


def histogram() -> pd.DataFrame:
    edges = np.linspace(-0.5, 6.0, 61)
    middle, width = (edges[1:] + edges[:-1]) / 2, edges[1] - edges[0]
    p_data, rows = 0.3 * norm.pdf(middle, 1, 0.1) + 0.7 * norm.pdf(middle, 3, 0.5), []
    for cell in cells(seed=range(SEEDS), sampler=("sde", "ode")):
        noisy = p_data * (1 + 0.1 * np.cos(middle * (1 + cell["seed"])))
        density = 0.99 * noisy / (noisy.sum() * width)
        for left, right, mean, truth in zip(edges[:-1], edges[1:], density, p_data, strict=True):
            rows.append(cell | {"left": left, "right": right, "density": mean, "density_p_data": truth})
    return frame("histogram", rows)


def optimum() -> pd.DataFrame:
    rows = []
    for place, cell in enumerate(cells(net=(*NETS, "fourier"), T=(0.0,))):
        del cell["T"]
        T = (0.6 if cell["sde"] == "vp" else 0.8) - (0.4 if cell["p_noise"] == "matched" else 0) + 0.04 * (place % 4)
        spread = {"T_star_low": T - 0.06, "T_star_high": T + 0.1, "plateau_low": T - 0.15, "plateau_high": T + 0.2}
        study = {"confidence": 0.95, "seeds": SEEDS, "epsilon": 1e-5, "weighting": "likelihood", "unit": "nats"}
        found = {"T_star": T, "interior": cell["net"] != "fourier", "method": "trained"} | spread | study
        rows += [cell | found, cell | found | {"method": "curve", "T_star": T + 0.03}]
    return frame("optimum", rows)


IMAGE_TIMES = (0.2, 0.4, 0.6, 1.0)


def image_cells(**options: Any) -> list[Row]:
    return cells(dataset=("mnist",), net=("unet",), T=IMAGE_TIMES, **options)


def table1() -> pd.DataFrame:
    rows = []
    for cell in image_cells():
        T, cost = cell["T"], 1.2 + 0.5 * math.exp(-9 * cell["T"])
        values = {"bpd": cost, "bpd_se": 0.01, "elbo_bpd": 1.5 + 0.2 * T, "elbo_bpd_se": 0.02, "against_T": 1.0}
        values |= {"delta_bpd": cost - 1.2, "delta_bpd_se": 0.001, "delta_elbo_bpd": 0.2 * T - 0.2}
        values |= {"delta_elbo_bpd_se": 0.002}
        bracket = {"kl_low_bpd": 0.4 * math.exp(-9 * T), "kl_high_bpd": 0.6 * math.exp(-9 * T)}
        solver = {"nfe": 150 + 100 * T, "nfe_sd": 4.0, "batch": 50.0, "units": 100.0, "elbo_units": 80.0, "failed": 0.0}
        study = {"seeds": SEEDS, "iterations": 800, "weighting": "likelihood"}
        paper = {"paper_bpd": 1.1 + T / 10, "paper_nfe": 300.0 * T} if cell["sde"] == "vp" else {}
        rows.append(cell | values | bracket | solver | study | paper)
    return frame("table1", rows)


SIZE = 4


def images() -> pd.DataFrame:
    rows = []
    for cell in image_cells(seed=range(2)):
        for image in range(COUNT + 2):
            key = (cell["sde"], cell["T"], cell["seed"], cell["p_noise"], image)
            grey = np.random.default_rng([*repr(key).encode()]).integers(256, size=SIZE * SIZE, dtype=np.uint8)
            own = {"image": image, "steps": math.ceil(500 * cell["T"]), "size": SIZE, "pixels": grey.tobytes()}
            rows.append(cell | own | {"channels": 1, "not_finite": 0})
    return frame("images", rows)


def history() -> pd.DataFrame:
    rows = []
    for cell in image_cells(seed=range(SEEDS), p_noise=("standard",)):
        rows += [cell | {"step": 10 * k, "loss": (50 + cell["seed"]) / k + cell["T"]} for k in range(1, 201)]
    return frame("history", rows)


def prediction() -> pd.DataFrame:
    rows = []
    fine = {"t": np.linspace(0.05, 2.0, 40), "T": (0.0,)}
    for cell in cells(method=("curve", "one"), **fine) + cells(method=("trained",)):
        t = cell["t"] = cell.get("t", cell["T"])
        star = {"trained": 0.8, "curve": 0.7, "one": 0.6}[cell["method"]]
        best = {"T_star": star, "T_star_low": star - 0.1, "T_star_high": star + 0.1, "trained": "0.1, 0.6, 2"}
        loss = kl(cell["sde"], t) * (1 if cell["p_noise"] == "standard" else 0.3)
        elbo = CEILING - loss - 0.4 - 0.45 * t
        rows.append(cell | best | {"unit": "nats", "elbo": elbo, "elbo_se": 0.02})
    return frame("prediction", rows)


def tradeoff() -> pd.DataFrame:
    rows = []
    for cell in cells():
        T, sde = cell["T"], cell["sde"]
        start = 0.4 if cell["p_noise"] == "standard" else 0.1
        nats = CEILING - start * kl(sde, T) - gap("mlp-32x2", T)
        quality = {"elbo": nats, "elbo_se": 0.05, "likelihood": nats + 0.1, "likelihood_se": 0.05}
        quality |= {"distance": 0.1 - 0.05 * nats, "distance_se": 0.01, "distance_floor": 0.02}
        cost = {"nfe": 100 + 60 * T, "sde_steps": 500.0 * T, "seeds": SEEDS}
        best = cell["p_noise"] == "matched" and T == 0.5
        ring = {"cheapest_ode": best, "cheapest_sde": best and sde == "vp"}
        rows.append(cell | quality | cost | ring | {"unit": "nats"})
    return frame("tradeoff", rows)


def steps() -> pd.DataFrame:
    rows = []
    for cell in cells(sampler=tuple(style.FEW_STEPS), evaluations=(10, 50)):
        T = cell["T"]
        many = 0.03 + 2 * math.exp(-6 * T) + 0.05 * T
        own = many + (5 if cell["sampler"] == "heun" else 1) * T**2 / cell["evaluations"]
        row = {"wasserstein1": own, "wasserstein1_se": 0.1 * own, "wasserstein1_floor": 0.024, "many": "ode"}
        row |= {"many_wasserstein1": many, "many_wasserstein1_se": 0.1 * many, "many_finite": SEEDS}
        row |= {"nfe": cell["evaluations"], "units": 4096, "seeds": SEEDS, "finite": SEEDS, "against_T": 1.0}
        rows.append(cell | row)
    return frame("steps", rows)


FACTORY: dict[str, Callable[[], pd.DataFrame]] = {
    "samples": samples, "summary": summary, "histogram": histogram, "optimum": optimum, "prediction": prediction,
    "table1": table1, "images": images, "history": history, "tradeoff": tradeoff, "steps": steps,
}  # fmt: skip


def usual(table: str) -> pd.DataFrame:
    """Numbers that say nothing, for the figures whose own numbers are tested beside what they measure."""
    names = {column.name for column in TABLES[table]}
    several = {"p_noise": STARTS, "seed": range(SEEDS), "sampler": ("sde", "ode")}
    keys = {key: values for key, values in several.items() if key in names}
    numbers = [column.name for column in TABLES[table] if column.type == "float64"]
    return frame(table, [
        {name: 0.5 * math.exp(0.1 * noise(name, *cell.values())) for name in numbers}
        | cell | {"seeds": SEEDS, "epsilon": 1e-5}
        for cell in cells(**{"p_noise": ("standard",)} | keys)
    ])  # fmt: skip


FIGURES = tuple(REGISTRY)
IMAGE_FIGURES = ("table1", "images", "learning")
TOY_FIGURES = tuple(name for name in FIGURES if name not in IMAGE_FIGURES)


def table_of(name: str) -> pd.DataFrame:
    """The synthetic table of a figure."""
    table = REGISTRY[name].table
    return FACTORY[table]() if table in FACTORY else usual(table)


def rows_of(name: str, net: str | None = "mlp-32x2") -> pd.DataFrame:
    """The same, restricted to one network as the pipeline does."""
    table = table_of(name)
    return table[table.net == net] if REGISTRY[name].each_net and name not in IMAGE_FIGURES else table


def drawn(name: str, rows: pd.DataFrame | None = None, settings: FigureSettings | None = None) -> Figure:
    """A figure from a synthetic table or from `rows`, not laid out yet."""
    settings = settings or (OF_IMAGES if name in IMAGE_FIGURES else SETTINGS)
    with style.context(settings):
        return import_module(f"difftime.figures.{name}").draw(rows_of(name) if rows is None else rows, settings)


@pytest.fixture(scope="module")
def pictures() -> dict[str, Figure]:
    """Every figure, laid out."""
    shown = {name: drawn(name) for name in FIGURES}
    for figure in shown.values():
        lay_out(figure)
    return shown


def curves(axes: Axes) -> list[Line2D]:
    """The lines that show a column of the table, in the order in which they were drawn."""
    return [line for line in axes.lines if line.get_gid() == style.CURVE]


def marks(axes: Axes, *what: str) -> list[tuple[str, float]]:
    """Meaning and T of every mark on the border of a panel."""
    return [(str(line.get_gid()), T) for line in axes.lines if line.get_gid() in what for T in line.get_xdata()]


def legend_of(figure: Figure) -> set[str]:
    return {text.get_text() for text in figure.legends[0].get_texts()}


def words(figure: Figure) -> str:
    """Everything that is written in a figure."""
    return "\n".join(one.get_text() for one in figure.findobj(Text))


def means(frame: pd.DataFrame, column: str, **wanted: str) -> list[float]:
    """The mean over seeds of the rows with the values `wanted`, by T."""
    for key, value in wanted.items():
        frame = frame[frame[key] == value]
    return frame.groupby("T")[column].mean().to_list()


def without(frame: pd.DataFrame, columns: list[str], **where: Any) -> pd.DataFrame:
    """`frame` with nulls in `columns` of the rows with the values `where`."""
    frame = frame.copy()
    rows = np.logical_and.reduce([frame[key] == value for key, value in where.items()])
    frame.loc[rows, columns] = math.nan
    return frame


UNITS = {
    "fig1": ["[nats]", "diffusion time"],
    "fig2": ["[nats]", "diffusion time"],
    "fig3": ["[nats]", "diffusion time"],
    "fig4": ["[1 / units of $x$]", "[units of $x$]"],
    "quality": ["[units of $x$]", "[nats]", "[1]", "diffusion time"],
    "cost": ["[1]", "diffusion time"],
    "steps": ["[units of $x$]", "diffusion time"],
    "sensitivity": ["diffusion time $T^*$"],
    "noises": ["[nats]", "diffusion time"],
    "prediction": ["[nats]", "diffusion time"],
    "table1": ["bits per dimension", "NFE [1]", "diffusion time"],
    "images": [],
    "learning": ["[nats per image]", "training step"],
    "tradeoff": ["[nats]", "[units of $x$]", "NFE of the ODE [1]", "steps of the SDE [1]"],
}


@pytest.mark.parametrize("name", FIGURES)
def test_axes_carry_units_and_panels_name_their_sde(pictures: dict[str, Figure], name: str) -> None:
    axes = [one for one in pictures[name].axes if one.get_visible()]
    labels = " ".join(one.get_xlabel() + one.get_ylabel() for one in axes)
    titles = " ".join(one.get_title(place) for one in axes for place in ("left", "center")).casefold()
    assert all(unit in labels for unit in UNITS.get(name, ["["]))
    assert "vp" in titles
    assert "ve" in titles


@pytest.mark.parametrize("name", FIGURES)
def test_a_figure_is_as_wide_as_the_page_and_nothing_reaches_beyond_it(pictures: dict[str, Figure], name: str) -> None:
    figure = pictures[name]
    with style.context(SETTINGS):  # matplotlib makes ticks when it needs them, in the style of that moment
        box = figure.get_tightbbox()
    width, height = figure.get_size_inches()
    assert width == SETTINGS.width
    assert box.x0 >= 0
    assert box.y0 >= 0
    assert box.x1 <= width
    assert box.y1 <= height


@pytest.mark.parametrize("name", FIGURES)
def test_the_legend_and_the_settings_lie_outside_all_panels(pictures: dict[str, Figure], name: str) -> None:
    figure = pictures[name]
    outside = [shown.get_window_extent() for shown in (*figure.legends, figure.texts[0])]
    assert len(outside) == (1 if name == "images" else 2)
    panels = [one.get_tightbbox() for one in figure.axes if one.get_visible()]
    assert not any(box.overlaps(panel) for box in outside for panel in panels)


@pytest.mark.parametrize("name", FIGURES)
def test_a_figure_prints_the_data_network_and_seeds_it_was_made_with(pictures: dict[str, Figure], name: str) -> None:
    said = pictures[name].texts[0].get_text()
    assert f"dataset {'mnist' if name in IMAGE_FIGURES else 'toy'}" in said
    assert (f"{SEEDS} seeds" in said) == (name not in ("images", "prediction"))
    assert ("net mlp-32x2" in said) == (REGISTRY[name].each_net and name not in IMAGE_FIGURES)


@pytest.mark.parametrize(
    ("name", "counts", "said"),
    [
        ("prediction", {"units": 1e4}, ["10,000 test images"]),
        (
            "tradeoff", {"likelihood_units": 256.0, "elbo_units": 1e4, "distance_units": 32.0},
            ["256 test images of the ODE", "10,000 of the ELBO", "32 samples per seed"],
        ),
        ("levels", {"units": 512.0}, ["512 test images"]),
    ],
)  # fmt: skip
def test_a_figure_of_images_prints_how_many_are_behind_its_values(
    name: str, counts: dict[str, float], said: list[str]
) -> None:
    of_images = drawn(name, rows_of(name).assign(unit="bits per dimension", error=0.5, **counts), OF_IMAGES)
    printed = words(of_images)
    assert all(one in printed for one in said)
    assert "test images" not in words(drawn(name))


def test_a_kind_of_sde_has_one_line_style_whatever_the_user_calls_it(pictures: dict[str, Figure]) -> None:
    for name in ("fig1", "fig2", "fig3", "quality", "cost"):
        for axes in pictures[name].axes:
            expected = {"vp": "-", "ve": "--"}.get(axes.get_title("left"))
            assert expected is None or {line.get_linestyle() for line in curves(axes)} == {expected}
    assert style.line_style("fast", SETTINGS) == style.line_style("vp", SETTINGS) == "-"
    titles = [style.sde_title(sde, SETTINGS) for sde in ("vp", "ve", "sub-vp", "fast", "ve-2")]
    assert titles == ["vp", "ve", "sub-vp", "fast (VP)", "ve-2 (VE-geometric)"]


def test_kinds_of_sde_have_different_line_styles_also_those_that_have_none_of_their_own() -> None:
    others = ("cosine-vp", "of-model", "tabulated", "ve-linear")
    settings = FigureSettings(sdes={kind: kind for kind in (*style.LINE_STYLES, *others)})
    looks = [style.line_style(kind, settings) for kind in settings.sdes]
    assert len({*looks}) == len(looks) == 8
    assert [style.kind_title(kind) for kind in others] == ["cosine-VP", "of-model", "tabulated", "VE-linear"]


def test_fig1_shows_the_median_and_the_quantiles_averaged_over_seeds(pictures: dict[str, Figure]) -> None:
    frame = samples()
    for sde, axes in zip(SDES, pictures["fig1"].axes[:2], strict=True):
        wanted = {"sde": sde, "p_noise": "standard", "sampler": "sde"}
        assert curves(axes)[0].get_ydata() == pytest.approx(means(frame, "log_p_data_median", **wanted))
        corners = axes.collections[0].get_paths()[0].vertices[:, 1]
        for quantile in ("q025", "q975"):
            assert all(np.isclose(corners, mean).any() for mean in means(frame, f"log_p_data_{quantile}", **wanted))


def test_fig1_magnifies_only_what_has_times_enough() -> None:
    assert len(drawn("fig1").axes) == 4
    assert len(drawn("fig1", samples().query("T in (0.2, 0.6, 1.0)")).axes) == 2


def test_an_error_bar_reaches_one_standard_error_over_seeds(pictures: dict[str, Figure]) -> None:
    rows = samples().query("sde == 'vp' and p_noise == 'standard' and sampler == 'sde'")
    se = rows.groupby("T").wasserstein1.sem().to_numpy()
    bars = pictures["quality"].axes[0].collections[1].get_segments()
    assert [top - bottom for (_, bottom), (_, top) in bars] == pytest.approx(2 * se)


@pytest.mark.parametrize(("column", "quantities"), [(0, ["kl", "gap"]), (1, ["log_q_ode", "log_q_sde", "elbo"])])
def test_fig2_shows_the_means_of_the_table(pictures: dict[str, Figure], column: int, quantities: list[str]) -> None:
    rows = summary().query("net == 'mlp-32x2' and p_noise == 'standard'")
    for sde, axes in zip(SDES, pictures["fig2"].axes[column::2], strict=True):
        for quantity, line in zip(quantities, curves(axes), strict=True):
            expected = rows[(rows.sde == sde) & (rows.quantity == quantity)]["mean"]
            assert line.get_label() == style.QUANTITIES[quantity].label
            assert line.get_ydata() == pytest.approx(expected.to_numpy())


def found(axes: Axes) -> str:
    """What a panel says below its title."""
    return " ".join(text.get_text() for text in axes.texts)


def test_fig2_marks_the_optimum_with_its_interval_and_its_value(pictures: dict[str, Figure]) -> None:
    for axes in pictures["fig2"].axes:
        line = next(line for line in axes.lines if line.get_label() == style.OPTIMUM.label)
        (span,) = axes.patches
        assert line.get_xdata() == [0.62, 0.62]
        assert (span.get_x(), span.get_x() + span.get_width()) == pytest.approx((0.55, 0.74))
        assert "0.62 [0.55, 0.74]" in found(axes)


@pytest.mark.parametrize("name", ["fig2", "noises"])
def test_the_last_time_at_which_every_seed_is_finite_is_an_edge_and_no_optimum(name: str) -> None:
    *_, best, last = sorted(TIMES)
    frame = rows_of(name).assign(T_star=best, T_star_low=best, T_star_high=best)
    assert "edge" not in found(drawn(name, frame).axes[0])
    frame.loc[(frame["T"] == last) & (frame.quantity == "elbo"), "finite"] = SEEDS - 1
    assert "edge" in found(drawn(name, frame).axes[0])


def test_fig2_names_the_bounded_model_and_the_other_one_apart(pictures: dict[str, Figure]) -> None:
    names = {"ELBO (bounds reverse SDE)", "log-likelihood, reverse SDE", "log-likelihood, probability-flow ODE"}
    assert names <= legend_of(pictures["fig2"])


def test_fig2_shows_the_best_elbo_and_the_ceiling_and_marks_what_lies_below(pictures: dict[str, Figure]) -> None:
    for sde, axes in zip(SDES, pictures["fig2"].axes[1::2], strict=True):
        low, high = axes.get_ylim()
        elbo = curves(axes)[-1]
        below = {(style.BELOW, T) for T, value in zip(*elbo.get_data(), strict=True) if value < low}
        assert low < elbo.get_ydata().max() < CEILING < high
        assert below <= set(marks(axes, style.BELOW))
        assert sde != "ve" or below


def test_fig2_says_what_was_not_measured() -> None:
    figure = drawn("fig2", rows_of("fig2").query("quantity != 'log_q_sde'"))
    assert "no finite value of log_q_sde" in words(figure)
    assert style.QUANTITIES["log_q_sde"].label not in legend_of(figure)


def test_fig3_shows_all_networks_from_small_to_large(pictures: dict[str, Figure]) -> None:
    rows = summary().query("quantity == 'gap' and p_noise == 'standard'")
    assert by_parameters(rows) == SIZES
    for sde, axes in zip(SDES, pictures["fig3"].axes, strict=True):
        for (net, size), line in zip(SIZES.items(), curves(axes), strict=True):
            expected = rows[(rows.sde == sde) & (rows.net == net)]["mean"]
            assert line.get_label() == f"{net}: {size:,} parameters"
            assert line.get_ydata() == pytest.approx(expected.to_numpy())


def test_fig4_shows_the_papers_times_where_they_are_sampled_else_the_nearest() -> None:
    assert times(TIMES) == [0.5, 0.8, 1.0, 2.0]
    assert times((0.2, 0.6, 1.0)) == [0.2, 0.6, 1.0]
    assert times((0.1, 0.45, 0.5, 0.55, 3.0, 9.0)) == [0.45, 0.5, 0.55, 3.0]
    assert times((0.7,)) == [0.7]


def test_fig4_shows_the_mean_density_its_error_p_data_and_the_missing_share(pictures: dict[str, Figure]) -> None:
    places = product(SDES, (0.5, 0.8, 1.0, 2.0))
    table = histogram().query("sampler == 'sde' and p_noise == 'standard'")
    for (sde, T), axes in zip(places, pictures["fig4"].axes, strict=True):
        bins = table[(table.sde == sde) & (table["T"] == T)].groupby("left")
        mean, se = bins.density.mean().to_numpy(), bins.density.sem().to_numpy()
        filled, band = (patch for patch in axes.patches if isinstance(patch, StepPatch))
        assert filled.get_data().values == pytest.approx(mean)
        assert band.get_data().values - band.get_data().baseline == pytest.approx(2 * se)
        assert axes.lines[0].get_ydata() == pytest.approx(bins.density_p_data.first().to_numpy())
        assert axes.texts[0].get_text().startswith("1 % outside")


def test_fig4_keeps_p_data_readable_and_marks_a_bin_that_is_far_too_full() -> None:
    frame = histogram()
    first = frame.left == frame.left.min()
    frame.loc[first & (frame.sde == "vp") & (frame["T"] == 0.5), "density"] = 100.0
    axes = drawn("fig4", frame).axes[0]
    assert axes.get_ylim()[1] < 5
    assert len(marks(axes, style.ABOVE)) == 1


def test_quality_shows_both_samplers_beside_what_perfect_samples_have(pictures: dict[str, Figure]) -> None:
    columns = ("wasserstein1", "share_first", "log_p_data_median")
    for (sde, column), axes in zip(product(SDES, columns), pictures["quality"].axes, strict=True):
        for sampler, line in zip(("sde", "ode"), curves(axes), strict=True):
            wanted = {"sde": sde, "p_noise": "standard", "sampler": sampler}
            assert line.get_ydata() == pytest.approx(means(samples(), column, **wanted))
    for axes, value in zip(pictures["quality"].axes[:3], (0.024, 0.3, -0.7), strict=True):
        assert axes.lines[0].get_ydata() == pytest.approx([value, value])


def test_cost_shows_the_evaluations_of_both_samplers(pictures: dict[str, Figure]) -> None:
    for sde, axes in zip(SDES, pictures["cost"].axes, strict=True):
        for sampler, line in zip(("sde", "ode"), curves(axes), strict=True):
            wanted = {"sde": sde, "p_noise": "standard", "sampler": sampler}
            assert line.get_ydata() == pytest.approx(means(samples(), "nfe", **wanted))


def test_steps_shows_every_sampler_beside_many_evaluations_a_row_per_sde_and_p_noise(
    pictures: dict[str, Figure],
) -> None:
    table, figure = steps(), pictures["steps"]
    places = [(sde, p_noise, budget) for sde in SDES for p_noise in STARTS for budget in (10, 50)]
    for axes, (sde, p_noise, budget) in zip(figure.axes, places, strict=True):
        own = table.query(f"sde == '{sde}' and p_noise == '{p_noise}' and evaluations == {budget}")
        many, *lines = curves(axes)
        assert list(many.get_ydata()) == own[own.sampler == "ddim"].many_wasserstein1.to_list()
        for line, sampler in zip(lines, style.FEW_STEPS, strict=True):
            assert list(line.get_ydata()) == own[own.sampler == sampler].wasserstein1.to_list()
        assert f"{p_noise}, NFE ≤ {budget}" in words(figure)
    assert legend_of(figure) >= {look.label for look in style.FEW_STEPS.values()} | {"many evaluations: RK45"}


def test_steps_marks_a_sampler_that_misses_by_far_and_says_when_it_takes_fewer() -> None:
    rows = steps()
    far = (rows.sampler == "heun") & (rows["T"] == 2.0) & (rows.evaluations == 10)
    rows.loc[rows.evaluations == 10, "nfe"] = 9
    rows.loc[far, "wasserstein1"] = 228.0
    figure = drawn("steps", rows)
    lay_out(figure)
    assert figure.axes[0].get_ylim()[1] < 10
    assert (style.ABOVE, 2.0) in marks(figure.axes[0], style.ABOVE)
    assert "heun takes 9 of 10" in words(figure)


def test_sensitivity_shows_every_optimum_of_trained_cells_with_interval_and_plateau(
    pictures: dict[str, Figure],
) -> None:
    figure, table = pictures["sensitivity"], optimum().query("method == 'trained'")
    assert [text.get_text() for text in figure.axes[0].get_yticklabels()] == [*NETS, "fourier"]
    for sde, axes in zip(SDES, figure.axes, strict=True):
        shown = {line.get_gid(): line for line in axes.lines}
        rows = table[table.sde == sde]
        for row in rows.itertuples():
            mark = shown[f"{row.net} {row.p_noise}"]
            assert mark.get_xdata() == [row.T_star]
            assert (mark.get_markerfacecolor() == "white") == (not row.interior)
        for gid, column in ((style.INTERVAL, "T_star"), (sensitivity.PLATEAU, "plateau")):
            ends = [tuple(line.get_xdata()) for line in axes.lines if line.get_gid() == gid]
            assert ends == [*zip(rows[f"{column}_low"], rows[f"{column}_high"], strict=True)]


def test_sensitivity_shows_a_predicted_optimum_where_no_trained_one_is_and_says_so() -> None:
    rows = optimum()
    figure = drawn("sensitivity", rows[(rows.method == "curve") | (rows.net != "fourier")])
    shown = {line.get_gid(): line for line in figure.axes[0].lines}
    predicted = rows.query("method == 'curve' and net == 'fourier' and sde == 'vp' and p_noise == 'standard'")
    assert [*shown["fourier standard"].get_xdata()] == [*predicted.T_star]
    assert [text.get_text() for text in figure.axes[0].texts] == ["predicted"] * 2


def test_sensitivity_has_the_papers_value_by_kind_and_of_the_papers_data_only(pictures: dict[str, Figure]) -> None:
    for sde, axes in zip(SDES, pictures["sensitivity"].axes, strict=True):
        assert f"{T_STAR[sde]:g}" in axes.get_title("right")
        assert [T_STAR[sde]] * 2 in [[*line.get_xdata()] for line in axes.lines]
    renamed = drawn("sensitivity", optimum().replace({"sde": {"ve": "fast"}}))
    assert [axes.get_title("left") for axes in renamed.axes] == ["VP"]
    mine = drawn("sensitivity", settings=FigureSettings(sdes=KINDS))
    assert not any(axes.get_title("right") for axes in mine.axes)


def labelled(axes: Axes, label: str) -> list[Line2D]:
    return [line for line in axes.lines if line.get_label() == label]


def test_table1_shows_the_values_of_the_table(pictures: dict[str, Figure]) -> None:
    frame = table1().query("p_noise == 'standard'")
    shown = (("elbo_bpd", "bpd"), ("delta_elbo_bpd", "delta_bpd"), ("nfe",))
    panels = zip(product(SDES, shown), pictures["table1"].axes, strict=True)
    for (sde, columns), axes in panels:
        rows = frame[frame.sde == sde].sort_values("T")
        for line, column in zip(curves(axes), columns, strict=True):
            assert line.get_xdata() == pytest.approx(IMAGE_TIMES)
            assert line.get_ydata() == pytest.approx(rows[column].to_numpy())
    assert "minus those at $T = 1$" in pictures["table1"].axes[1].get_ylabel()


def test_table1_shows_what_kl_alone_adds_to_the_value_at_the_largest_T(pictures: dict[str, Figure]) -> None:
    rows = table1().query("sde == 'vp' and p_noise == 'standard'").sort_values("T")
    last = rows.iloc[-1]
    (band,) = [one for one in pictures["table1"].axes[0].collections if one.get_label() == RISE]
    corners = band.get_paths()[0].vertices[:, 1]
    for end, other in (("kl_low_bpd", "kl_high_bpd"), ("kl_high_bpd", "kl_low_bpd")):
        for expected in last.bpd + rows[end] - last[other]:
            assert np.isclose(corners, expected).any()


def test_table1_has_the_papers_marks_where_the_table_has_them(pictures: dict[str, Figure]) -> None:
    rows, panels = table1().query("sde == 'vp' and p_noise == 'standard'"), pictures["table1"].axes
    for axes, column in ((panels[0], "paper_bpd"), (panels[2], "paper_nfe")):
        (line,) = labelled(axes, PAPER)
        assert line.get_xydata() == pytest.approx(rows[["T", column]].to_numpy())
    assert not [line for axes in panels[3:] for line in labelled(axes, PAPER)]


def test_a_bpd_that_is_not_finite_is_marked_and_breaks_the_line() -> None:
    figure = drawn("table1", without(table1(), ["bpd", "bpd_se"], sde="vp", T=0.2))
    bits = figure.axes[0]
    shown = dict(zip(*curves(bits)[1].get_data(), strict=True))
    assert math.isnan(shown[0.2])
    assert marks(bits, style.NOT_FINITE) == [(style.NOT_FINITE, 0.2)]
    assert style.NOT_FINITE in legend_of(figure)
    assert [one for one in bits.collections if one.get_label() == RISE]


def test_table1_marks_failures_and_not_what_was_never_measured() -> None:
    unmeasured = without(table1(), ["bpd", "bpd_se", "nfe", "nfe_sd", "batch", "units"], sde="vp", T=0.2)
    assert not marks(drawn("table1", unmeasured).axes[0], style.NOT_FINITE)
    frame = table1()
    frame.loc[(frame.sde == "vp") & (frame["T"] == 0.2), "failed"] = 3.0
    assert marks(drawn("table1", frame).axes[0], style.NOT_FINITE) == [(style.NOT_FINITE, 0.2)]


@pytest.mark.parametrize(
    "columns",
    [
        ["bpd", "bpd_se", "delta_bpd", "delta_bpd_se", "nfe", "nfe_sd", "batch", "units", "failed"],
        ["elbo_bpd", "elbo_bpd_se", "delta_elbo_bpd", "delta_elbo_bpd_se", "kl_low_bpd", "kl_high_bpd", "elbo_units"],
        ["bpd_se", "elbo_bpd_se", "nfe_sd", "delta_bpd_se"],
        [c.name for c in TABLES["table1"] if c.nullable],
    ],
)
def test_table1_is_drawn_whatever_is_null(columns: list[str]) -> None:
    frame = table1()
    frame[columns] = math.nan
    lay_out(drawn("table1", frame))


def lay_out(figure: Figure) -> None:
    with style.context(SETTINGS):
        figure.draw_without_rendering()


def test_noises_shows_the_elbo_of_every_p_noise_with_its_optimum(pictures: dict[str, Figure]) -> None:
    frame = summary().query("net == 'mlp-32x2' and quantity == 'elbo'")
    for sde, axes in zip(SDES, pictures["noises"].axes, strict=True):
        for name, line in zip(STARTS, curves(axes), strict=True):
            rows = frame[(frame.sde == sde) & (frame.p_noise == name)].sort_values("T")
            assert line.get_ydata() == pytest.approx(rows["mean"].to_numpy())
            assert f"{name} {rows.T_star.iloc[0]:.2f}" in found(axes)


def test_noises_shows_images_in_bits_where_less_is_better() -> None:
    frame = summary_of_images()
    figure = drawn("noises", frame, OF_IMAGES)
    names = ("standard", "matched", "full")
    for sde, axes in zip(SDES, figure.axes, strict=True):
        for name, line in zip(names, curves(axes), strict=True):
            rows = frame[(frame.sde == sde) & (frame.p_noise == name)].sort_values("T")
            assert line.get_ydata() == pytest.approx(rows["mean"].to_numpy())
    assert "[bits per dimension]\nless is better" in figure.axes[0].get_ylabel()
    assert style.CEILING not in legend_of(figure)


def test_the_titles_of_panels_stay_apart_however_many_p_noises_and_sdes_there_are() -> None:
    one = rows_of("noises").query("p_noise == 'standard' and sde == 've'")
    frames = [one.assign(p_noise=name, sde=sde) for name in style.P_NOISES for sde in ("vp", "ve", "ve-2", "sub-vp")]
    with style.context(SETTINGS):
        figure = drawn("noises", pd.concat(frames, ignore_index=True))
        figure.draw_without_rendering()
        titles = [text for axes in figure.axes for text in (axes.texts[0], axes._left_title)]
        boxes = [text.get_window_extent() for text in titles]
    assert not any(one.overlaps(other) for one, other in combinations(boxes, 2))


def test_prediction_shows_the_trained_cells_and_the_prediction_with_both_optima(pictures: dict[str, Figure]) -> None:
    frame = prediction()
    for axes, (name, sde) in zip(pictures["prediction"].axes, product(STARTS, SDES), strict=True):
        rows = frame[(frame.sde == sde) & (frame.p_noise == name)].sort_values("t")
        for method, line in zip(("trained", "curve", "one"), curves(axes), strict=True):
            own = rows[rows.method == method]
            assert line.get_xydata() == pytest.approx(own[["t", "elbo"]].to_numpy())
        said = found(axes)
        assert "trained 0.80 [0.70, 0.90]" in said
        assert "all cells 0.70 [0.60, 0.80]" in said
        assert "one cell 0.60 [0.50, 0.70]" in said
        bars = [line for line in axes.lines if line.get_gid() == style.INTERVAL]
        assert np.ravel([bar.get_xdata() for bar in bars]) == pytest.approx([0.7, 0.9, 0.6, 0.8, 0.5, 0.7])
        heights = [bar.get_ydata()[0] for bar in bars]
        assert heights == sorted(heights)
        assert max(heights) < 0.2, "nats: more is better, so the bars are at the bottom"
    assert "all cells: T = 0.1, 0.6, 2" in words(pictures["prediction"])


def test_prediction_of_images_is_best_where_the_bits_are_fewest() -> None:
    bits = prediction().assign(unit="bits per dimension")
    bits["elbo"] = 1.0 - 0.1 * bits.elbo
    axes = drawn("prediction", bits, OF_IMAGES).axes[0]
    assert axes.get_ylim()[0] < bits.elbo.min() < axes.get_ylim()[1]
    assert "less is better" in axes.get_ylabel()
    assert set(marks(axes, style.ABOVE, style.BELOW)) <= {(style.ABOVE, T) for T in bits.t}


def test_marks_of_a_long_curve_beyond_the_axis_can_be_told_apart() -> None:
    rows = rows_of("prediction").query("method == 'curve' and sde == 've' and p_noise == 'standard'")
    many = pd.concat([rows.iloc[[0]].assign(t=t, elbo=-99.0 if t < 1 else -1.0) for t in np.linspace(0, 2, 1001)])
    axes = drawn("prediction", many).axes[0]
    shown = [T for _, T in marks(axes, style.BELOW)]
    assert 10 < len(shown) < 60
    assert (min(shown), max(shown)) == pytest.approx((0, 1), abs=0.05)


def test_images_shows_the_pixels_of_the_first_seed_in_order_a_strip_per_time_and_p_noise() -> None:
    frame = images().query("seed == 0 and sde == 'vp'")
    shown = strips(frame.query(f"image < {COUNT}"))
    keys = product(sorted(IMAGE_TIMES, reverse=True), STARTS)
    for (T, name), (T_shown, name_shown, picture) in zip(keys, shown, strict=True):
        assert (T, name) == (T_shown, name_shown)
        rows = frame[(frame["T"] == T) & (frame.p_noise == name)]
        for tile, row in zip(np.split(picture, COUNT, axis=1), rows.itertuples(), strict=False):
            grey = np.frombuffer(row.pixels, np.uint8).reshape(SIZE, SIZE)
            assert (tile[1:-1, 1:-1] == grey[..., None]).all()


def test_images_draws_every_strip_beside_its_name(pictures: dict[str, Figure]) -> None:
    frame = images().query(f"seed == 0 and image < {COUNT}")
    for sde, axes in zip(SDES, pictures["images"].axes, strict=True):
        shown = strips(frame[frame.sde == sde])
        labels = [text.get_text() for text in axes.get_yticklabels()]
        assert labels == [f"$T = {T:g}$, {name}" for T, name, _ in shown]
        whole = np.asarray(axes.images[0].get_array())
        for middle, (_, _, picture) in zip(axes.get_yticks(), shown, strict=True):
            start = round(middle + 0.5 - len(picture) / 2)
            assert (whole[start : start + len(picture)] == picture).all()


def test_images_shows_colours_as_they_are_and_counts_what_is_not_finite() -> None:
    rgb = np.random.default_rng(0).integers(256, size=(3, SIZE, SIZE), dtype=np.uint8)
    frame = images().assign(channels=3, pixels=rgb.tobytes())
    frame.loc[(frame.seed == 0) & (frame.image == 3) & (frame.sde == "vp"), "not_finite"] = 5
    figure = drawn("images", frame)
    shown = np.asarray(figure.axes[0].images[0].get_array())
    assert (shown[1 : SIZE + 1, 1 : SIZE + 1] == rgb.transpose(1, 2, 0)).all()
    failed = len(IMAGE_TIMES) * len(STARTS)
    assert f"{failed} of {2 * COUNT * failed} images have values that are not finite" in words(figure)


def test_images_of_a_p_noise_with_fewer_samples_leaves_their_places_white() -> None:
    frame = images().query("image < 5 or p_noise == 'standard'")
    shown = strips(frame.query(f"seed == 0 and sde == 'vp' and image < {COUNT}"))
    assert {picture.shape for _, _, picture in shown} == {shown[0][2].shape}
    assert (shown[1][2][:, 5 * (SIZE + 2) :] == 255).all()


def test_learning_shows_means_over_seeds_and_stretches_with_their_error(pictures: dict[str, Figure]) -> None:
    frame = history()
    for sde, axes in zip(SDES, pictures["learning"].axes, strict=True):
        for T, line in zip(IMAGE_TIMES, curves(axes), strict=True):
            rows = frame[(frame.sde == sde) & (frame["T"] == T)]
            wanted = smoothed(rows)
            first = rows[rows.step <= 40].loss
            assert line.get_ydata() == pytest.approx(wanted.loss.to_numpy())
            assert line.get_label() == f"$T = {T:g}$"
            assert len(wanted) == STRETCHES
            assert wanted.loss.iloc[0] == pytest.approx(first.mean())
            assert wanted.se.iloc[0] == pytest.approx(first.sem())


def test_a_T_has_one_colour_in_all_panels_of_learning() -> None:
    frame = history().query("sde == 'vp'")
    other = frame[frame["T"] > 0.3].assign(net="other")
    panels = drawn("learning", pd.concat([frame, other], ignore_index=True)).axes
    colours = [{line.get_label(): line.get_color() for line in axes.lines} for axes in panels]
    assert colours[1].items() < colours[0].items()


def test_tradeoff_shows_the_tables_values_a_row_per_sde(pictures: dict[str, Figure]) -> None:
    frame, axes = tradeoff(), pictures["tradeoff"].axes
    panels = [("nfe", "likelihood"), ("sde_steps", "elbo"), ("sde_steps", "distance")]
    for (sde, (cost, quality)), one in zip(product(SDES, panels), axes, strict=True):
        for line, p_noise in zip(curves(one), STARTS, strict=True):
            own = frame[(frame.sde == sde) & (frame.p_noise == p_noise)].sort_values("T")
            assert line.get_xydata() == pytest.approx(own[[cost, quality]].to_numpy())
            assert line.get_linestyle() == style.line_style(sde, SETTINGS)
            assert line.get_label() == style.P_NOISES[p_noise].label


def test_tradeoff_rings_what_the_table_calls_cheapest_and_nothing_else(pictures: dict[str, Figure]) -> None:
    frame = tradeoff()
    panels = [("nfe", "likelihood", "cheapest_ode"), ("sde_steps", "elbo", "cheapest_sde")]
    panels.append(("sde_steps", "distance", "cheapest_sde"))
    for (sde, (cost, quality, ring)), axes in zip(product(SDES, panels), pictures["tradeoff"].axes, strict=True):
        rows = frame[(frame.sde == sde) & frame[ring]]
        ringed = [tuple(xy) for line in axes.lines if line.get_gid() == RING for xy in line.get_xydata()]
        assert ringed == [*zip(rows[cost], rows[quality], strict=True)]
    assert RING in legend_of(pictures["tradeoff"])


def test_tradeoff_has_the_times_on_top_at_their_costs_and_apart(pictures: dict[str, Figure]) -> None:
    for axes, column in zip(pictures["tradeoff"].axes, 2 * ("nfe", "sde_steps", "sde_steps"), strict=True):
        costs = tradeoff().groupby("T")[column].mean()
        (top,) = axes.child_axes
        labels = [text.get_text() for text in top.get_xticklabels()]
        assert [costs[float(T)] for T in labels] == pytest.approx([*top.get_xticks()])
        assert {f"{min(TIMES):g}", f"{max(TIMES):g}"} <= set(labels)
        boxes = [text.get_window_extent() for text in top.get_xticklabels()]
        assert not any(one.overlaps(other) for one, other in combinations(boxes, 2))


def test_tradeoff_says_which_way_is_better_in_both_units(pictures: dict[str, Figure]) -> None:
    assert "more is better" in pictures["tradeoff"].axes[0].get_ylabel()
    bits = tradeoff().assign(unit="bits per dimension")
    likelihood, _, distance, *_ = drawn("tradeoff", bits, OF_IMAGES).axes
    assert "BPD" in likelihood.get_ylabel()
    assert "less is better" in likelihood.get_ylabel()
    assert "less is better" in distance.get_ylabel()


def test_tradeoff_leaves_out_what_was_not_measured_and_says_so() -> None:
    lacking = tradeoff().assign(distance=math.nan, distance_se=math.nan, distance_floor=math.nan)
    figure = drawn("tradeoff", lacking)
    assert len(figure.axes) == 4
    assert "no finite value of distance" in words(figure)
    part = without(tradeoff(), ["likelihood", "likelihood_se"], sde="ve", T=2.0)
    assert marks(drawn("tradeoff", part).axes[3], style.NOT_FINITE) == [(style.NOT_FINITE, 220.0)] * 2


def test_no_mark_on_a_border_looks_like_a_p_noise_a_network_or_a_quantity() -> None:
    frame = tradeoff()
    frame.loc[frame["T"] == 2.0, ["elbo", "likelihood"]] = -1e21
    frame.loc[frame["T"] == 1.5, "distance"] = 1e9
    figure = drawn("tradeoff", frame)
    lines = [line for axes in figure.axes for line in axes.lines if line.get_gid() in (style.BELOW, style.ABOVE)]
    used = {line.get_gid(): line.get_marker() for line in lines}
    looks = [*style.P_NOISES.values(), *style.QUANTITIES.values(), *style.networks([*"abcdefgh"]).values()]
    legend = figure.legends[0]
    shown = zip(legend.get_texts(), legend.legend_handles, strict=True)
    handles = {text.get_text(): handle.get_marker() for text, handle in shown if text.get_text() in used}
    assert used == handles
    assert len(set(used.values())) == 2
    assert not {*used.values()} & {look.marker for look in looks}


@pytest.mark.parametrize(
    ("name", "columns"),
    [("fig1", ["log_p_data_median", "log_p_data_q025", "log_p_data_q975"]), ("quality", ["wasserstein1"])],
)
def test_a_seed_that_is_not_finite_is_marked_and_not_averaged(name: str, columns: list[str]) -> None:
    whole = samples()
    broken = without(whole, columns, sde="vp", T=0.6, seed=1, sampler="sde", p_noise="standard")
    figure = drawn(name, broken)
    assert marks(figure.axes[0], style.NOT_FINITE) == [(style.NOT_FINITE, 0.6)]
    assert style.NOT_FINITE in legend_of(figure)
    rest = whole[whole.seed != 1]
    shown = dict(zip(*curves(figure.axes[0])[0].get_data(), strict=True))
    wanted = {"sde": "vp", "p_noise": "standard", "sampler": "sde"}
    assert shown[0.6] == pytest.approx(means(rest[rest["T"] == 0.6], columns[0], **wanted)[0])


def test_a_time_without_a_finite_value_breaks_the_line_and_is_marked() -> None:
    frame = without(rows_of("fig2"), ["mean", "se"], sde="ve", quantity="log_q_ode", T=1.5)
    frame.loc[frame["mean"].isna(), "finite"] = 0
    axes = drawn("fig2", frame).axes[3]
    shown = dict(zip(*curves(axes)[0].get_data(), strict=True))
    assert math.isnan(shown[1.5])
    assert marks(axes, style.NOT_FINITE) == [(style.NOT_FINITE, 1.5)]


def test_a_likelihood_of_minus_1e21_is_an_arrow_and_leaves_the_rest_readable() -> None:
    frame = rows_of("fig2")
    frame.loc[(frame.quantity == "log_q_ode") & (frame.sde == "ve") & (frame["T"] == 2.0), "mean"] = -1e21
    axes = drawn("fig2", frame).axes[3]
    assert (style.BELOW, 2.0) in marks(axes, style.BELOW)
    assert np.ptp(axes.get_ylim()) < 10


def test_a_gap_that_exploded_leaves_the_others_readable() -> None:
    frame = summary()
    frame.loc[(frame.quantity == "gap") & (frame.sde == "ve") & (frame["T"] == 2.0), "mean"] = 1e15
    axes = drawn("fig3", frame).axes[1]
    assert axes.get_ylim()[1] < 1e4
    assert set(marks(axes, style.ABOVE, style.BELOW)) == {(style.ABOVE, 2.0)}


NULLED = {
    "fig1": ["log_p_data_median", "log_p_data_q025", "log_p_data_q975"], "fig2": ["mean", "se"], "fig3": ["mean", "se"],
    "quality": ["wasserstein1", "log_p_data_median"], "steps": ["wasserstein1", "many_wasserstein1"],
    "noises": ["mean", "se"], "prediction": ["elbo", "elbo_se"],
    "table1": [c.name for c in TABLES["table1"] if c.nullable and c.name not in ("units", "elbo_units", "failed")],
}  # fmt: skip
"""What a diverged network leaves null in the table of a figure."""


@pytest.mark.parametrize("name", NULLED)
def test_a_study_in_which_nothing_is_finite_is_all_crosses_and_says_so(name: str) -> None:
    rows = rows_of(name).copy()
    known = rows.quantity.isin(["kl", "log_p_data"]) if "quantity" in rows else rows.index < 0
    rows.loc[~known, NULLED[name]] = math.nan
    if "T_star" in rows:
        rows[["T_star", "T_star_low", "T_star_high"]] = math.nan
    if "finite" in rows and name not in ("fig1", "quality"):
        rows.loc[~known, "finite"] = 0
    figure = drawn(name, rows)
    lay_out(figure)
    assert "no finite value" in words(figure)
    crossed = figure.axes[3 if name == "table1" else 0]
    assert name == "fig2" or marks(crossed, style.NOT_FINITE)


@pytest.mark.parametrize("name", FIGURES)
def test_one_seed_one_sde_one_network_and_one_T_make_a_figure_too(name: str) -> None:
    rows = rows_of(name).query("sde == 've'")
    for key, value in (("seed", 0), ("net", "mlp-32x2"), ("T", 0.6), ("t", 0.6)):
        if key in rows and (rows[key] == value).any():
            rows = rows[rows[key] == value]
    errors = [column for column in rows if column.endswith(("_se", "_low", "_high")) or column in ("se", "nfe_sd")]
    counts = {"seeds": 1, "finite": 1} if "seeds" in rows else {}
    rows = rows.assign(**counts, **dict.fromkeys(errors, math.nan))
    figure = drawn(name, rows)
    lay_out(figure)
    assert name in ("images", "prediction") or "1 seed" in words(figure)


@pytest.mark.parametrize("name", FIGURES)
def test_a_study_without_the_standard_p_noise_shows_the_plainest_it_has(name: str) -> None:
    rows = rows_of(name)
    if "p_noise" not in rows:
        pytest.skip("the training loss has no p_noise")
    flow = rows[rows.p_noise == "matched"].assign(p_noise="flow")
    figure = drawn(name, pd.concat([flow, rows[rows.p_noise == "matched"].assign(p_noise="full")]))
    assert "standard" not in words(figure)


@pytest.mark.parametrize("name", FIGURES)
def test_a_figure_without_a_row_says_so(name: str) -> None:
    with pytest.raises(style.NothingToDraw, match="no row"):
        drawn(name, parquet.empty(REGISTRY[name].table))


def test_a_study_without_rows_for_a_figure_has_words_in_its_place(tmp_path: Path) -> None:
    parquet.save(samples(), "samples", tmp_path / "samples.parquet")
    figures.draw("fig1", tmp_path / "samples.parquet", tmp_path / "a" / "fig1.pdf", SETTINGS, "toy", "mine")
    assert (tmp_path / "a" / "fig1.png").stat().st_size > 1000
    with style.context(SETTINGS):
        assert words(style.blank(SETTINGS, "no row of it")).strip() == "no row of it"


def write(name: str, folder: Path, settings: FigureSettings = SETTINGS) -> dict[str, bytes]:
    """The files of a figure by their suffix, as the pipeline writes them."""
    table, output = folder / f"{REGISTRY[name].table}.parquet", folder / f"{name}.pdf"
    parquet.save(table_of(name), REGISTRY[name].table, table)
    figures.draw(name, table, output, settings, "toy", "mlp-32x2" if REGISTRY[name].each_net else None)
    return {path.suffix: path.read_bytes() for path in folder.glob(f"{name}.*")}


def test_a_figure_shows_the_network_asked_for_alone(tmp_path: Path) -> None:
    parquet.save(summary().query("net == 'mlp-16x1'"), "summary", tmp_path / "summary.parquet")
    figures.draw("fig2", tmp_path / "summary.parquet", tmp_path / "part.pdf", SETTINGS, "toy", "mlp-16x1")
    parquet.save(summary(), "summary", tmp_path / "summary.parquet")
    figures.draw("fig2", tmp_path / "summary.parquet", tmp_path / "whole.pdf", SETTINGS, "toy", "mlp-16x1")
    assert (tmp_path / "part.png").read_bytes() == (tmp_path / "whole.png").read_bytes()


def test_drawing_twice_gives_the_same_bytes_without_a_date(tmp_path: Path) -> None:
    settings = FigureSettings(sdes=KINDS, formats=("svg",))
    first, second = write("sensitivity", tmp_path, settings), write("sensitivity", tmp_path, settings)
    assert first == second
    assert {*first} == {".pdf", ".png", ".svg"}
    assert b"CreationDate" not in first[".pdf"]
    assert b"dc:date" not in first[".svg"]


def test_a_users_matplotlibrc_changes_nothing(tmp_path: Path) -> None:
    plain = write("tradeoff", tmp_path)
    odd = {"lines.marker": "o", "savefig.bbox": "tight", "font.size": 30, "axes.prop_cycle": "cycler(color=['red'])"}
    odd |= {"figure.facecolor": "pink", "xtick.top": True, "image.cmap": "jet", "axes.formatter.useoffset": False}
    with matplotlib.rc_context(odd):
        assert write("tradeoff", tmp_path) == plain
        assert matplotlib.rcParams["font.size"] == 30


def test_the_pdf_embeds_truetype_fonts_only(tmp_path: Path) -> None:
    written = write("cost", tmp_path)
    assert b"/FontFile2" in written[".pdf"]
    assert b"/Type3" not in written[".pdf"]
    assert written[".png"].startswith(b"\x89PNG")
    assert {*written} == {".pdf", ".png"}


def test_drawing_needs_no_torch_and_a_caption_no_matplotlib() -> None:
    names = ", ".join(f"difftime.figures.{name}" for name in (*FIGURES, "style"))
    for code, module in (
        (f"import sys, {names}", "torch"),
        ("import sys; from difftime.figures import caption; caption('fig1')", "matplotlib"),
    ):
        command = f"{code}; sys.exit({module!r} in sys.modules)"
        assert subprocess.run([sys.executable, "-c", command], check=False).returncode == 0


def rendered(template: str, **known: Any) -> str:
    """A caption of Snakemake's report as text, rendered and parsed as Snakemake does, but refusing undefined names."""
    environment = Environment(trim_blocks=True, lstrip_blocks=True, undefined=StrictUndefined)
    text = environment.from_string((REPORT / template).read_text(encoding="utf-8")).render(snakemake=known)
    return publish_doctree(text, settings_overrides={"halt_level": 2, "report_level": 2}).astext()


CONFIG = {
    "datasets": {"toy": {"kind": "mixture", "means": [1.0, 3.0]}, "mine": {"kind": "folder", "path": "pictures"}},
    "sdes": {"vp": {"kind": "vp", "epsilon": 1e-5}, "ve": {"kind": "ve-exponential", "base": 25.0}},
    "nets": {
        "mlp-32x2": {"kind": "mlp", "width": 32},
        "other": {"kind": "mlp", "width": 5},
        "unet": {"kind": "ncsnpp", "width": 7},
    },
    "study": [
        {"dataset": "toy", "sde": ["vp"], "net": "mlp-32x2", "T": [0.5, 1.0]},
        {"dataset": ["toy", "mine"], "sde": "ve", "net": ["other"], "T": [0.5, 1.0]},
    ],
}


@pytest.mark.parametrize("name", FIGURES)
def test_a_figure_has_a_caption_of_at_most_ten_lines_which_the_report_shows(name: str) -> None:
    text = figures.caption(name)
    assert text.startswith("**")
    assert len(text.splitlines()) <= 10
    params = {"caption": text, "settings": {"width": 6.75, "font_size": 8.0}}
    whole = rendered("figure.rst", wildcards={"place": "toy", "figure": name}, params=params, config=CONFIG)
    assert publish_doctree(text).astext() in whole
    assert ("arrow" in whole) == (name not in ("images", "learning", "sensitivity"))


def test_the_report_shows_the_settings_of_the_cells_in_a_figure_and_of_no_other() -> None:
    params = {"caption": "**Said.**", "settings": {"width": 6.75}}
    known = {"params": params, "config": CONFIG}
    toy = rendered("figure.rst", wildcards={"place": "toy", "figure": "fig3"}, **known)
    for said in ("means [1.0, 3.0]", "epsilon 1e-05", "base 25.0", "width 32", "width 5"):
        assert said in toy
    assert "width 7" not in toy
    assert "pictures" not in toy
    one = rendered("figure.rst", wildcards={"place": "toy/mlp-32x2", "figure": "fig2"}, **known)
    assert "width 32" in one
    assert "width 5" not in one
    mine = rendered("figure.rst", wildcards={"place": "mine", "figure": "images"}, **known)
    assert "pictures" in mine
    assert "epsilon 1e-05" not in mine


@pytest.mark.parametrize("name", TABLES)
def test_a_table_has_a_caption_which_the_report_shows(name: str) -> None:
    assert CAPTIONS[name].startswith("**")
    whole = rendered("table.rst", params={"caption": CAPTIONS[name]})
    assert publish_doctree(CAPTIONS[name]).astext() in whole
    assert "Units stand in the header" in whole


def test_every_figure_of_the_registry_has_a_module_and_a_table() -> None:
    assert {REGISTRY[name].table for name in FIGURES} <= TABLES.keys()
    modules = {path.stem for path in Path(figures.__file__).parent.glob("*.py")} - {"__init__", "style", "settings"}
    assert modules == set(FIGURES)


def test_what_is_said_above_a_narrow_panel_is_broken_between_words() -> None:
    panels = Figure(figsize=(6.75, 2)).subplots(1, 3)
    said = ["$T^*$: standard none: too few finite times", "full none: too few finite times"]
    style.heading(panels[0], "geo (VE-geometric)", said)
    (shown,) = (text.get_text() for text in panels[0].texts)
    assert shown.split() == ", ".join(said).split()
