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

import numpy as np
import pandas as pd
import pytest
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
from difftime.figures.images import COUNT
from difftime.figures.learning import STRETCHES, smoothed
from difftime.figures.settings import FigureSettings
from difftime.figures.table1 import PAPER, RISE
from difftime.study.registry import FIGURES as REGISTRY
from difftime.tables import parquet
from difftime.tables.published import T_STAR
from difftime.tables.schema import TABLES
from tests.builders import Row, frame

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
                "units": 4096, "nfe": math.ceil(500 * T) if cell["sampler"] == "sde" else 100 + 60 * T // 1 + seed_of(cell),
                "log_p_data_median": median, "log_p_data_median_p_data": -0.7,
                "log_p_data_q025": 1.6 * median - 15 * (1 + T**2), "log_p_data_q975": 0.1 + 0.05 * jitter,
                "finite": 1.0, "wasserstein1": wrong * math.exp(jitter), "wasserstein1_floor": 0.024,
                "share_first": 0.3 - 0.1 * math.exp(-T) + 0.2 * jitter, "share_first_p_data": 0.3,
            }
        )  # fmt: skip
    return frame("samples", rows)


def seed_of(cell: Row) -> int:
    return 6 * cell["seed"]


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
    for cell in cells(t=np.linspace(0.05, 2.0, 40), method=("curve",), T=(0.0,)) + cells(method=("trained",)):
        t = cell["t"] = cell.get("t", cell["T"])
        star = 0.8 if cell["method"] == "trained" else 0.7
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


FACTORY: dict[str, Callable[[], pd.DataFrame]] = {
    "samples": samples, "summary": summary, "histogram": histogram, "optimum": optimum, "prediction": prediction,
    "table1": table1, "images": images, "history": history, "tradeoff": tradeoff,
}  # fmt: skip
FIGURES = tuple(REGISTRY)
IMAGE_FIGURES = ("table1", "images", "learning")
TOY_FIGURES = tuple(name for name in FIGURES if name not in IMAGE_FIGURES)


def rows_of(name: str, net: str | None = "mlp-32x2") -> pd.DataFrame:
    """The synthetic table of a figure, restricted to one network as the pipeline does."""
    table = FACTORY[REGISTRY[name].table]()
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
    with style.context(SETTINGS):
        for figure in shown.values():
            figure.draw_without_rendering()
    return shown


def curves(axes: Axes) -> list[Line2D]:
    """The lines over T, in the order in which they were drawn."""
    return [line for line in axes.lines if line.get_gid() == "curve"]


def marks(axes: Axes, what: str) -> list[tuple[str, float]]:
    """Marker and T of every mark on the border of a panel."""
    return [(line.get_marker(), T) for line in axes.lines if line.get_gid() == what for T in line.get_xdata()]


def legend_of(figure: Figure) -> set[str]:
    return {text.get_text() for text in figure.legends[0].get_texts()}


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
    "cost": ["[1]", "[s]", "diffusion time"],
    "sensitivity": ["diffusion time $T^*$"],
    "noises": ["[nats]", "diffusion time"],
    "scout": ["[nats]", "diffusion time"],
    "table1": ["bits per dimension", "NFE [1]", "diffusion time"],
    "table2": ["[bits per dimension]", "NFE [1]", "diffusion time"],
    "images": [],
    "learning": ["[nats per image]", "training step"],
    "tradeoff": ["[nats]", "[bits per dimension]", "[units of $x$]", "NFE of the ODE [1]", "steps of the SDE [1]"],
}


@pytest.mark.parametrize("name", FIGURES)
def test_axes_carry_units_and_panels_name_their_sde(pictures: dict[str, Figure], name: str) -> None:
    axes = [one for one in pictures[name].axes if one.get_visible()]
    labels = " ".join(one.get_xlabel() + one.get_ylabel() for one in axes)
    titles = " ".join(one.get_title(place) for one in axes for place in ("left", "center"))
    assert all(unit in labels for unit in UNITS[name])
    said = titles if name != "learning" else pictures[name].texts[0].get_text().upper()
    assert "VP" in said
    assert "VE" in said


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


@pytest.mark.parametrize("name", TOY_FIGURES)
def test_a_figure_prints_the_settings_it_was_made_with(pictures: dict[str, Figure], name: str) -> None:
    said = pictures[name].texts[0].get_text()
    assert "dataset toy" in said
    assert f"{SEEDS} seeds" in said
    assert ("net mlp-32x2" in said) == (name not in ("fig3", "sensitivity"))
    assert ("epsilon 1e-05" in said) == (name == "sensitivity")


def test_an_sde_has_the_same_line_style_in_every_figure(pictures: dict[str, Figure]) -> None:
    for name in ("fig1", "fig2", "fig3", "quality", "cost"):
        for axes in pictures[name].axes:
            expected = {"VP": "-", "VE": "--"}.get(axes.get_title("left"))
            assert expected is None or {line.get_linestyle() for line in curves(axes)} == {expected}
    assert [style.line_style(sde, ["ve-5", "vp", "ve", "ve-6"]) for sde in ("vp", "ve", "ve-5")] == ["-", "--", "-."]


def test_fig1_shows_the_median_and_the_quantiles_averaged_over_seeds(pictures: dict[str, Figure]) -> None:
    frame = samples()
    for sde, axes in zip(SDES, pictures["fig1"].axes[:2], strict=True):
        wanted = {"sde": sde, "p_noise": "standard", "sampler": "sde"}
        assert curves(axes)[0].get_ydata() == pytest.approx(means(frame, "log_p_data_median", **wanted))
        corners = axes.collections[0].get_paths()[0].vertices[:, 1]
        for quantile in ("q025", "q975"):
            assert all(np.isclose(corners, mean).any() for mean in means(frame, f"log_p_data_{quantile}", **wanted))


@pytest.mark.parametrize(("column", "quantities"), [(0, ["kl", "gap"]), (1, ["log_q_ode", "log_q_sde", "elbo"])])
def test_fig2_shows_the_means_of_the_table(pictures: dict[str, Figure], column: int, quantities: list[str]) -> None:
    rows = summary().query("net == 'mlp-32x2' and p_noise == 'standard'")
    for sde, axes in zip(SDES, pictures["fig2"].axes[column::2], strict=True):
        for quantity, line in zip(quantities, curves(axes), strict=True):
            expected = rows[(rows.sde == sde) & (rows.quantity == quantity)]["mean"]
            assert line.get_label() == style.QUANTITIES[quantity].label
            assert line.get_ydata() == pytest.approx(expected.to_numpy())


def test_fig2_marks_the_optimum_with_its_interval_and_its_value(pictures: dict[str, Figure]) -> None:
    for axes in pictures["fig2"].axes:
        line = next(line for line in axes.lines if line.get_label() == style.OPTIMUM.label)
        (span,) = axes.patches
        assert line.get_xdata() == [0.62, 0.62]
        assert (span.get_x(), span.get_x() + span.get_width()) == pytest.approx((0.55, 0.74))
        assert "0.62" in axes.get_title("right")


def test_fig2_does_not_call_the_last_time_an_optimum() -> None:
    frame = summary().assign(T_star=max(TIMES), T_star_low=max(TIMES), T_star_high=max(TIMES))
    assert "edge" in drawn("fig2", frame).axes[0].get_title("right")


@pytest.mark.parametrize("name", ["fig2", "noises"])
def test_the_last_time_at_which_every_seed_is_finite_is_an_edge_too(name: str) -> None:
    *_, best, last = sorted(TIMES)
    frame = summary().assign(T_star=best, T_star_low=best, T_star_high=best)
    assert "edge" not in drawn(name, frame).axes[0].get_title("right")
    frame.loc[(frame["T"] == last) & frame.quantity.isin(["gap", "elbo"]), "finite"] = SEEDS - 1
    assert "edge" in drawn(name, frame).axes[0].get_title("right")


def test_fig2_names_the_bounded_model_and_the_other_one_apart(pictures: dict[str, Figure]) -> None:
    names = {"ELBO (bounds reverse SDE)", "log-likelihood, reverse SDE", "log-likelihood, probability-flow ODE"}
    assert names <= legend_of(pictures["fig2"])


def test_fig2_shows_the_best_elbo_and_the_ceiling_and_marks_what_lies_below(pictures: dict[str, Figure]) -> None:
    for sde, axes in zip(SDES, pictures["fig2"].axes[1::2], strict=True):
        low, high = axes.get_ylim()
        elbo = curves(axes)[-1]
        below = {("v", T) for T, value in zip(elbo.get_xdata(), elbo.get_ydata(), strict=True) if value < low}
        assert low < elbo.get_ydata().max() < CEILING < high
        assert below <= set(marks(axes, style.OUTSIDE))
        assert sde != "ve" or below


def test_fig2_says_what_was_not_measured() -> None:
    frame = summary()
    figure = drawn("fig2", frame[frame.quantity != "log_q_sde"])
    assert "no finite value of log_q_sde" in figure.texts[0].get_text()
    assert style.QUANTITIES["log_q_sde"].label not in legend_of(figure)


def test_fig3_shows_one_line_per_network(pictures: dict[str, Figure]) -> None:
    rows = summary().query("quantity == 'gap' and p_noise == 'standard'")
    for sde, axes in zip(SDES, pictures["fig3"].axes, strict=True):
        assert [line.get_label() for line in curves(axes)] == list(SETTINGS.capacities)
        for line in curves(axes):
            expected = rows[(rows.sde == sde) & (rows.net == line.get_label())]["mean"]
            assert line.get_ydata() == pytest.approx(expected.to_numpy())


def test_fig4_shows_the_mean_density_its_error_p_data_and_the_missing_share(pictures: dict[str, Figure]) -> None:
    places = product(SDES, SETTINGS.histogram_T)
    table = histogram().query("sampler == 'sde' and p_noise == 'standard'")
    for (sde, T), axes in zip(places, pictures["fig4"].axes, strict=True):
        bins = table[(table.sde == sde) & (table["T"] == T)].groupby("left")
        mean, se = bins.density.mean().to_numpy(), bins.density.sem().to_numpy()
        filled, band = (patch for patch in axes.patches if isinstance(patch, StepPatch))
        assert filled.get_data().values == pytest.approx(mean)
        assert band.get_data().values - band.get_data().baseline == pytest.approx(2 * se)
        assert axes.lines[0].get_ydata() == pytest.approx(bins.density_p_data.first().to_numpy())
        assert axes.texts[0].get_text().startswith("1 % outside")


def test_fig4_says_which_time_is_not_in_the_table() -> None:
    frame = histogram()
    figure = drawn("fig4", frame[(frame.sde != "vp") | (frame["T"] != 0.8)])
    assert [text.get_text() for text in figure.axes[1].texts] == ["not in the table"]


def test_quality_shows_both_samplers_beside_what_perfect_samples_have(pictures: dict[str, Figure]) -> None:
    columns = ("wasserstein1", "share_first", "log_p_data_median")
    for (sde, column), axes in zip(product(SDES, columns), pictures["quality"].axes, strict=True):
        for sampler, line in zip(("sde", "ode"), curves(axes), strict=True):
            wanted = {"sde": sde, "p_noise": "standard", "sampler": sampler}
            assert line.get_ydata() == pytest.approx(means(samples(), column, **wanted))
    wasserstein, share = pictures["quality"].axes[:2]
    assert wasserstein.lines[0].get_ydata() == pytest.approx([0.024, 0.024])
    assert share.lines[0].get_ydata() == pytest.approx([0.3, 0.3])


def test_cost_shows_evaluations_and_seconds_of_both_samplers(pictures: dict[str, Figure]) -> None:
    for (column, sde), axes in zip(product(("nfe", "seconds"), SDES), pictures["cost"].axes, strict=True):
        for sampler, line in zip(("sde", "ode"), curves(axes), strict=True):
            wanted = {"sde": sde, "p_noise": "standard", "sampler": sampler}
            assert line.get_ydata() == pytest.approx(means(cost(), column, **wanted))


def test_sensitivity_shows_every_optimum_with_interval_and_plateau(pictures: dict[str, Figure]) -> None:
    figure, table = pictures["sensitivity"], optimum()
    assert [text.get_text() for text in figure.axes[0].get_yticklabels()] == [*NETS, "fourier"]
    for sde, axes in zip(SDES, figure.axes, strict=True):
        shown = {line.get_gid(): line for line in axes.lines}
        rows = table[table.sde == sde]
        for row in rows.itertuples():
            mark = shown[f"{row.net} {row.p_noise}"]
            assert mark.get_xdata() == [row.T_star]
            assert (mark.get_markerfacecolor() == "white") == (not row.interior)
        for gid, column in ((sensitivity.INTERVAL, "T_star"), (sensitivity.PLATEAU, "plateau")):
            ends = [tuple(line.get_xdata()) for line in axes.lines if line.get_gid() == gid]
            assert ends == [*zip(rows[f"{column}_low"], rows[f"{column}_high"], strict=True)]
        assert axes.lines[0].get_xdata() == [T_STAR[sde]] * 2
        assert f"{T_STAR[sde]:g}" in axes.get_title("right")


def labelled(axes: Axes, label: str) -> list[Line2D]:
    return [line for line in axes.lines if line.get_label() == label]


def test_table1_shows_the_values_of_the_table(pictures: dict[str, Figure]) -> None:
    frame = table1()
    panels = pictures["table1"].axes
    for sde, bits, calls in zip(SDES, panels[::2], panels[1::2], strict=True):
        rows = frame[(frame.sde == sde) & (frame.p_noise == "standard")].sort_values("T")
        for (axes, place), column in {(bits, 0): "elbo_bpd", (bits, 1): "bpd", (calls, 0): "nfe"}.items():
            assert curves(axes)[place].get_xdata() == pytest.approx(IMAGE_TIMES)
            assert curves(axes)[place].get_ydata() == pytest.approx(rows[column].to_numpy())


def test_table1_shows_what_kl_alone_adds_to_the_value_at_the_largest_T(pictures: dict[str, Figure]) -> None:
    rows = table1().query("sde == 'vp' and p_noise == 'standard'").sort_values("T")
    last = rows.iloc[-1]
    (band,) = [one for one in pictures["table1"].axes[0].collections if one.get_label() == RISE]
    corners = band.get_paths()[0].vertices[:, 1]
    smaller = rows.iloc[:-1]
    for end, other in (("kl_low_bpd", "kl_high_bpd"), ("kl_high_bpd", "kl_low_bpd")):
        for expected in last.bpd + smaller[end] - last[other]:
            assert np.isclose(corners, expected).any()


def test_table1_has_the_papers_marks_where_the_paper_has_these_data_and_vp() -> None:
    panels = drawn("table1").axes
    published = [row for row in TABLE1 if row.dataset == "mnist"]
    for axes, column in zip(panels[:2], ("bpd", "nfe"), strict=True):
        (line,) = labelled(axes, PAPER)
        assert [*line.get_xdata()] == [row.T for row in published]
        assert [*line.get_ydata()] == [getattr(row, column) for row in published]
        assert line.get_marker() == "x"
    assert not [line for axes in panels[2:] for line in labelled(axes, PAPER)]
    mine = drawn("table1", table1().assign(dataset="mine"))
    assert not [line for axes in mine.axes for line in labelled(axes, PAPER)]


def test_a_bpd_that_is_not_finite_is_marked_and_breaks_the_line() -> None:
    figure = drawn("table1", without(table1(), ["bpd", "bpd_se"], sde="vp", T=0.2))
    bits = figure.axes[0]
    shown = dict(zip(*curves(bits)[1].get_data(), strict=True))
    assert math.isnan(shown[0.2])
    assert marks(bits, style.NOT_FINITE) == [("x", 0.2)]
    assert style.NOT_FINITE in legend_of(figure)
    assert [one for one in bits.collections if one.get_label() == RISE]


def test_table1_marks_failures_and_not_what_was_never_measured() -> None:
    unmeasured = without(table1(), ["bpd", "bpd_se", "nfe", "nfe_sd", "batch", "images"], sde="vp", T=0.2)
    assert not marks(drawn("table1", unmeasured).axes[0], style.NOT_FINITE)
    frame = table1()
    frame.loc[(frame.sde == "vp") & (frame["T"] == 0.2), "failed"] = 3.0
    assert marks(drawn("table1", frame).axes[0], style.NOT_FINITE) == [("x", 0.2)]


@pytest.mark.parametrize(
    "columns",
    [
        ["bpd", "bpd_se", "nfe", "nfe_sd", "batch", "images"],
        ["elbo_bpd", "elbo_bpd_se", "kl_low_bpd", "kl_high_bpd"],
        ["bpd_se", "elbo_bpd_se", "nfe_sd"],
        [c.name for c in TABLES["table1"] if c.nullable],
    ],
)
def test_table1_is_drawn_whatever_is_null(columns: list[str], tmp_path: Path) -> None:
    frame = table1()
    frame[columns] = math.nan
    figure = drawn("table1", frame)
    with style.context(SETTINGS):
        style.save(figure, tmp_path / "table1.pdf")
    assert {line.get_label() for axes in figure.axes for line in axes.lines} >= {PAPER}


def test_table2_shows_every_p_noise_and_marks_the_cheapest_choice(pictures: dict[str, Figure]) -> None:
    frame = table1().query("sde == 'vp'")
    bits, bound, calls, trade = pictures["table2"].axes[:4]
    for k, name in enumerate(("standard", "matched")):
        rows = frame[frame.p_noise == name].sort_values("T")
        assert curves(bits)[k].get_ydata() == pytest.approx(rows.bpd.to_numpy())
        assert curves(bound)[k].get_ydata() == pytest.approx(rows.elbo_bpd.to_numpy())
    (cost,) = curves(calls)
    assert cost.get_ydata() == pytest.approx(frame[frame.p_noise == "standard"].sort_values("T").nfe.to_numpy())
    choice = tables.table2(frame).iloc[0]
    for axes, place in ((bits, (choice["T"], choice.bpd)), (trade, (choice.nfe, choice.bpd))):
        assert [tuple(line.get_xydata()[0]) for line in axes.lines if line.get_marker() == "*"] == [place]


def test_noises_shows_the_elbo_of_every_p_noise_with_its_optimum(pictures: dict[str, Figure]) -> None:
    frame = summary()
    for sde, axes in zip(SDES, pictures["noises"].axes, strict=True):
        for k, name in enumerate(("standard", "matched")):
            rows = frame[(frame.sde == sde) & (frame.net == "mlp-32x2") & (frame.p_noise == name)]
            rows = rows[rows.quantity == "elbo"].sort_values("T")
            assert curves(axes)[k].get_ydata() == pytest.approx(rows["mean"].to_numpy())
            assert f"{name} {rows.T_star.iloc[0]:.2f}" in axes.get_title("right")


def test_the_titles_of_noises_stay_apart_however_many_p_noises_there_are() -> None:
    frames = [summary().query("p_noise == 'standard'").assign(p_noise=name) for name in style.P_NOISES]
    with style.context(SETTINGS):
        figure = drawn("noises", pd.concat(frames, ignore_index=True))
        figure.draw_without_rendering()
        texts = [one for axes in figure.axes for one in axes.get_children() if isinstance(one, Text)]
        boxes = [one.get_window_extent() for one in texts if one.get_text()]
    assert len(boxes) == 2 * len(SDES)
    assert not any(one.overlaps(other) for one, other in combinations(boxes, 2))


def test_scout_shows_both_predictions_and_the_trained_cells(pictures: dict[str, Figure]) -> None:
    frame = scout_curves()
    for axes, (name, sde) in zip(pictures["scout"].axes, product(("standard", "matched"), SDES), strict=True):
        rows = frame[(frame.sde == sde) & (frame.p_noise == name)].sort_values("t")
        for method, label in (("all models", "all scouting"), ("one model", "alone")):
            (line,) = [line for line in axes.lines if label in str(line.get_label())]
            assert line.get_ydata() == pytest.approx(rows[rows.method == method].elbo.to_numpy())
        assert "trained 0.70, all models 0.80, one model 0.90" in axes.get_title("right")
        assert [text.get_text() for text in axes.texts] == ["training: 0.5 of 2 GPU-hours, 75 % saved"]


def test_scout_says_whose_hours_are_not_known() -> None:
    axes = drawn("scout", scout_curves().assign(hours=math.nan, grid_hours=math.nan, hours_of="mixed")).axes[0]
    assert [text.get_text() for text in axes.texts] == ["training: mixed, no sum"]


def test_images_shows_the_pixels_of_the_first_seed_in_order(pictures: dict[str, Figure]) -> None:
    frame = image_samples().query("seed == 0 and p_noise == 'standard'")
    for (sde, T), axes in zip(product(SDES, IMAGE_TIMES), pictures["images"].axes, strict=True):
        rows = frame[(frame.sde == sde) & (frame["T"] == T)]
        (shown,) = axes.images
        tiles = np.split(np.asarray(shown.get_array()), SETTINGS.images, axis=1)
        for tile, row in zip(tiles, rows.itertuples(), strict=False):
            grey = np.frombuffer(row.pixels, np.uint8).reshape(SIZE, SIZE)
            assert (tile[1:-1, 1:-1] == grey[..., None]).all()
        assert f"T = {T:g}" in axes.get_title("left")


def test_images_shows_colours_as_they_are() -> None:
    rgb = np.random.default_rng(0).integers(256, size=(3, SIZE, SIZE), dtype=np.uint8)
    frame = image_samples().assign(channels=3, pixels=rgb.tobytes())
    (shown,) = drawn("images", frame, FigureSettings(images=1)).axes[0].images
    assert (np.asarray(shown.get_array())[1:-1, 1:-1] == rgb.transpose(1, 2, 0)).all()


def test_learning_shows_means_over_seeds_and_stretches(pictures: dict[str, Figure]) -> None:
    (axes,) = pictures["learning"].axes
    frame = history()
    assert len(axes.lines) == len(SDES) * len(IMAGE_TIMES)
    for (sde, T), line in zip(product(SDES, IMAGE_TIMES), axes.lines, strict=True):
        rows = frame[(frame.sde == sde) & (frame["T"] == T)]
        wanted = smoothed(rows)
        assert line.get_ydata() == pytest.approx(wanted.loss.to_numpy())
        assert line.get_label() == f"$T = {T:g}$"
        assert len(wanted) == POINTS
        assert wanted.loss.iloc[0] == pytest.approx(rows[rows.step <= 40].loss.mean())


def test_a_T_has_one_colour_in_all_panels_of_learning() -> None:
    frame = history()
    other = frame[frame["T"] > 0.3].assign(dataset="other")
    panels = drawn("learning", pd.concat([frame, other], ignore_index=True)).axes
    colours = [{line.get_label(): line.get_color() for line in axes.lines} for axes in panels]
    assert colours[1].items() < colours[0].items()


@pytest.mark.parametrize("name", ["table1", "images"])
def test_a_figure_of_images_without_the_p_noise_asked_for_is_refused_with_what_there_is(name: str) -> None:
    frame = FACTORY[FIGURE_TABLE[name]]().query("p_noise == 'standard'")
    with pytest.raises(tables.BadTable, match=r"'matched'.*standard"):
        drawn(name, frame, FigureSettings(p_noise="matched"))


@pytest.mark.parametrize("name", IMAGE_FIGURES)
def test_a_figure_of_images_prints_the_settings_it_was_made_with(pictures: dict[str, Figure], name: str) -> None:
    said = pictures[name].texts[0].get_text()
    wanted = {
        "table1": ["images 100", "batch 50", "iterations 800", "weighting likelihood", "p_noise standard"],
        "table2": ["images 100", "batch 50", "iterations 800", "weighting likelihood"],
        "images": ["p_noise standard", "not selected"],
        "learning": ["SDE vp, ve"],
    }
    assert all(phrase in said for phrase in wanted[name])


@pytest.mark.parametrize(
    ("name", "columns"),
    [("fig1", ["log_p_data_median", "log_p_data_q025", "log_p_data_q975"]), ("quality", ["wasserstein1"])],
)
def test_a_seed_that_is_not_finite_is_marked_and_not_averaged(name: str, columns: list[str]) -> None:
    whole = samples()
    broken = without(whole, columns, sde="vp", T=0.6, seed=1, sampler="sde", p_noise="standard")
    figure = drawn(name, broken)
    assert marks(figure.axes[0], style.NOT_FINITE) == [("x", 0.6)]
    assert style.NOT_FINITE in legend_of(figure)
    rest = whole[whole.seed != 1]
    shown = dict(zip(*curves(figure.axes[0])[0].get_data(), strict=True))
    wanted = {"sde": "vp", "p_noise": "standard", "sampler": "sde"}
    assert shown[0.6] == pytest.approx(means(rest[rest["T"] == 0.6], columns[0], **wanted)[0])


def test_a_time_without_a_finite_value_breaks_the_line_and_is_marked() -> None:
    frame = without(summary(), ["mean", "se"], sde="ve", quantity="log_q_ode", T=1.5)
    frame.loc[frame["mean"].isna(), "finite"] = 0
    figure = drawn("fig2", frame)
    axes = figure.axes[3]
    shown = dict(zip(*curves(axes)[0].get_data(), strict=True))
    assert math.isnan(shown[1.5])
    assert marks(axes, style.NOT_FINITE) == [("x", 1.5)]
    assert style.NOT_FINITE in legend_of(figure)


def test_a_likelihood_of_minus_1e21_is_an_arrow_and_leaves_the_rest_readable() -> None:
    frame = summary()
    frame.loc[(frame.quantity == "log_q_ode") & (frame.sde == "ve") & (frame["T"] == 2.0), "mean"] = -1e21
    axes = drawn("fig2", frame).axes[3]
    assert ("v", 2.0) in marks(axes, style.OUTSIDE)
    assert np.ptp(axes.get_ylim()) < 10


def test_a_gap_that_exploded_leaves_the_others_readable() -> None:
    frame = summary()
    frame.loc[(frame.quantity == "gap") & (frame.sde == "ve") & (frame["T"] == 2.0), "mean"] = 1e15
    axes = drawn("fig3", frame).axes[1]
    assert axes.get_ylim()[1] < 1e4
    assert set(marks(axes, style.OUTSIDE)) == {("^", 2.0)}


@pytest.mark.parametrize(
    ("name", "columns"),
    [
        ("fig1", ["log_p_data_median", "log_p_data_q025", "log_p_data_q975"]),
        ("fig2", ["mean", "se"]),
        ("fig3", ["mean", "se"]),
        ("quality", ["wasserstein1", "log_p_data_median"]),
    ],
)
def test_a_study_in_which_nothing_is_finite_is_all_crosses(name: str, columns: list[str]) -> None:
    frame = FACTORY[FIGURE_TABLE[name]]()
    known = frame.quantity.isin(["kl", "log_p_data"]) if name == "fig2" else frame["T"] < 0
    frame.loc[~known, columns] = math.nan
    if "finite" in frame and name != "quality" and name != "fig1":
        frame.loc[~known, ["finite"]] = 0
        frame[["T_star", "T_star_low", "T_star_high"]] = math.nan
    figure = drawn(name, frame)
    if name == "fig2":
        assert "no finite value of elbo" in figure.texts[0].get_text()
        assert "no $T^*$" in figure.axes[0].get_title("right")
    else:
        assert {T for _, T in marks(figure.axes[0], style.NOT_FINITE)} == set(TIMES)


def test_infinities_never_reach_a_figure() -> None:
    frame = samples()
    frame.loc[0, "wasserstein1"] = math.inf
    with pytest.raises(tables.BadTable, match="wasserstein1"):
        tables.check(frame, "samples", "the table")


@pytest.mark.parametrize("name", TOY_FIGURES)
def test_a_table_without_the_rows_asked_for_is_refused_with_what_there_is(name: str) -> None:
    with pytest.raises(tables.BadTable, match=r"'mnist'.*toy"):
        drawn(name, settings=FigureSettings(dataset="mnist"))


@pytest.mark.parametrize("name", TOY_FIGURES)
def test_one_seed_one_sde_and_one_network_make_a_figure_too(name: str) -> None:
    frame = FACTORY[FIGURE_TABLE[name]]().query("sde == 've'")
    for key, value in (("seed", 0), ("net", "mlp-32x2")):
        if key in frame:
            frame = frame[frame[key] == value]
    if "seeds" in frame:
        frame = frame.assign(seeds=1, finite=1, se=math.nan) if "se" in frame else frame.assign(seeds=1)
    assert "1 seed" in drawn(name, frame).texts[0].get_text().replace("\n", " ").split(" · ")


def write(name: str, folder: Path) -> tuple[bytes, bytes]:
    """The PDF and the PNG of a figure, as the pipeline writes them."""
    table, output = folder / "table.parquet", folder / f"{name}.pdf"
    tables.save(FACTORY[FIGURE_TABLE[name]](), FIGURE_TABLE[name], table)
    figures.draw(name, table, output, SETTINGS)
    return output.read_bytes(), output.with_suffix(".png").read_bytes()


def test_drawing_twice_gives_the_same_bytes_without_a_date(tmp_path: Path) -> None:
    first, second = write("sensitivity", tmp_path), write("sensitivity", tmp_path)
    assert first == second
    assert b"CreationDate" not in first[0]


def test_the_pdf_embeds_truetype_fonts_only(tmp_path: Path) -> None:
    pdf, png = write("cost", tmp_path)
    assert b"/FontFile2" in pdf
    assert b"/Type3" not in pdf
    assert png.startswith(b"\x89PNG")
    assert sorted(path.suffix for path in tmp_path.glob("cost*")) == [".pdf", ".png"]


def test_drawing_needs_no_torch() -> None:
    names = ", ".join(f"difftime.figures.{name}" for name in (*FIGURES, "style"))
    command = f"import sys, {names}; sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", command], check=False).returncode == 0


def caption(template: str, **known: Any) -> str:
    """A caption of Snakemake's report as text, rendered and parsed as Snakemake does, but refusing undefined names."""
    environment = Environment(trim_blocks=True, lstrip_blocks=True, undefined=StrictUndefined)
    text = environment.from_string((REPORT / template).read_text()).render(snakemake=known)
    return publish_doctree(text, settings_overrides={"halt_level": 2, "report_level": 2}).astext()


CONFIG = {
    "datasets": {"toy": {"kind": "mixture", "means": [1.0, 3.0]}, "mine": {"kind": "folder", "path": "pictures"}},
    "sdes": {"vp": {"kind": "vp", "epsilon": 1e-5}},
    "nets": {
        "mlp-32x2": {"kind": "mlp", "width": 32},
        "other": {"kind": "mlp", "width": 5},
        "unet": {"kind": "ncsnpp", "width": 7},
    },
    "study": [{"dataset": "toy", "sde": ["vp"], "net": "mlp-32x2", "T": [0.5, 1.0]}],
}


def test_every_figure_has_a_caption_of_its_own_with_its_settings() -> None:
    captions = {
        name: caption(
            "figure.rst",
            wildcards={"figure": name},
            params={"settings": SETTINGS.of(name)},
            config=CONFIG,
            rule="figure",
        )
        for name in FIGURES
    }
    assert len({text.split(".")[0] for text in captions.values()}) == len(FIGURES)
    for name, text in captions.items():
        assert "p_noise: standard" in text
        assert "epsilon 1e-05" in text
        assert ("width 5" in text) == (name in ("sensitivity", "tradeoff"))
        assert ("width 7" in text) == (name in (*IMAGE_FIGURES, "sensitivity", "tradeoff"))
        assert ("path pictures" in text) == (name in (*IMAGE_FIGURES, "tradeoff"))
        assert ("means [1.0, 3.0]" in text) == (name not in IMAGE_FIGURES)


NOT_IN_THE_REPORT = {"missing", "bpd_images", "image_elbo_images"}


@pytest.mark.parametrize("name", [name for name in TABLES if name not in NOT_IN_THE_REPORT])
def test_every_table_has_a_caption(name: str) -> None:
    same = ("optimum", "bounds", "scout", "refined", "table1", "table2")
    rule = "summarise" if name == "summary" else name if name in same else None
    text = caption("table.rst", wildcards={} if rule else {"table": name}, rule=rule or "collect", params={})
    assert not text.startswith("Units")


def test_the_report_describes_the_grid() -> None:
    assert "T: [0.5, 1.0]" in caption("workflow.rst", config=CONFIG)


def test_tradeoff_has_a_row_of_panels_per_data_set_and_shows_the_tables_values(pictures: dict[str, Figure]) -> None:
    frame, axes = tradeoff(), pictures["tradeoff"].axes
    assert len(axes) == 6
    panels = [("nfe", "likelihood"), ("sde_steps", "elbo"), ("sde_steps", "distance")]
    for (dataset, (cost, quality)), one in zip(product(("toy", "mnist"), panels), axes, strict=True):
        shown = frame[frame.dataset == dataset]
        for line, (sde, p_noise) in zip(curves(one), product(SDES, ("standard", "matched")), strict=True):
            own = shown[(shown.sde == sde) & (shown.p_noise == p_noise)].sort_values("T")
            assert line.get_xdata() == pytest.approx(own[cost].to_numpy())
            assert line.get_ydata() == pytest.approx(own[quality].to_numpy())
            assert (line.get_linestyle(), line.get_label()) == (
                style.LINE_STYLES[sde], style.P_NOISES[p_noise].label,
            )  # fmt: skip


def test_tradeoff_rings_what_the_table_calls_efficient_and_nothing_else(pictures: dict[str, Figure]) -> None:
    frame = tradeoff().query("dataset == 'mnist' and T < 0.5")
    for one, verdict, cost in zip(
        pictures["tradeoff"].axes[3:], ("yes", "undecided", "undecided"), ("nfe", "sde_steps", "sde_steps"), strict=True
    ):
        ringed = [
            (line.get_gid(), x)
            for line in one.lines
            if line.get_gid() in ("yes", "undecided")
            for x in line.get_xdata()
        ]
        assert sorted(ringed) == sorted((verdict, x) for x in frame[cost])
    assert {"efficient", "efficiency not decided"} <= legend_of(pictures["tradeoff"])


def test_tradeoff_says_which_t_a_point_has_and_which_way_is_better(pictures: dict[str, Figure]) -> None:
    toy, *_, mnist = pictures["tradeoff"].axes[0], pictures["tradeoff"].axes[3]
    shown = [float(text.get_text()) for text in mnist.texts]
    assert shown == sorted(set(shown))
    assert min(IMAGE_TIMES) in shown
    assert {*shown} <= {*IMAGE_TIMES}
    assert len(shown) > 1
    assert "more is better" in toy.get_ylabel()
    assert "less is better" in mnist.get_ylabel()


def test_tradeoff_leaves_a_panel_empty_where_nothing_is_measured() -> None:
    lacking = without(tradeoff(), ["distance", "distance_se", "distance_floor"], dataset="mnist")
    axes = drawn("tradeoff", lacking).axes
    assert [bool(curves(one)) for one in axes] == [True] * 5 + [False]
    assert [text.get_text() for text in axes[5].texts] == ["not measured"]


def test_tradeoff_of_a_study_without_any_cost_is_refused() -> None:
    with pytest.raises(tables.BadTable, match="table is empty"):
        drawn("tradeoff", tradeoff().assign(nfe=math.nan, sde_steps=math.nan))
