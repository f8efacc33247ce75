"""What is planned of a study: every cell once, and every table and figure that makes sense of its data."""

from __future__ import annotations

import itertools
from pathlib import Path
from typing import Any

import pytest
from studies import CONFIGS, settings, study

from difftime.study.registry import DERIVED, FIGURES, MEASUREMENTS, Facts
from difftime.study.settings import COLLECTED, BadSettings, cell_name

PLANE = {
    "weights": [0.5, 0.5], "means": [[-1, 0], [1, 1]], "stds": [0.4, 0.5], "training": {"steps": 9},
}  # fmt: skip


def block(**changes: Any) -> dict[str, Any]:
    return {"dataset": "toy", "sde": "vp", "net": "mlp-32x2", "T": [0.2, 0.6]} | changes


def planned(*blocks: dict[str, Any], **changes: Any) -> set[tuple[str, str, str | None]]:
    found = study({"study": [*blocks], **changes}).figures_planned()
    assert len({*found}) == len(found)
    return {*found}


def test_the_grid_is_the_product_of_every_block_each_cell_once() -> None:
    first, second, third = (block["T"] for block in settings()["study"])
    wanted = [
        *itertools.product(["toy"], ["vp", "ve"], ["mlp-32x2"], first),
        *itertools.product(["toy"], ["vp", "ve"], ["mlp-16x1", "mlp-64x3"], second),
        *itertools.product(["mnist5k"], ["vp"], ["unet-16"], third),
    ]
    found = [(k["dataset"], k["sde"], k["net"], float(k["T"])) for k, _ in study().grid()]
    assert found == wanted
    assert len(set(found)) == len(found)


# Tables


def test_cells_have_the_tables_of_the_measurements_of_their_block_and_of_their_kind_of_data() -> None:
    whole = study()
    toy, capacities, images = ([cell_name(keys) for keys, block in whole.grid() if block == one] for one in whole.study)
    wanted = {
        "elbo": [*toy, *capacities, *images], "curve": [*toy, *capacities, *images],
        "likelihood": [*toy, *images], "samples": [*toy, *images],
        "modes": toy, "histogram": toy, "images": images, "elbo_units": images, "likelihood_units": images,
        "training": [*toy, *capacities, *images], "history": images,
    }  # fmt: skip
    assert {table: whole.parts(table) for table in wanted} == wanted
    assert whole.cells().files("elbo") == [f"{cell}/elbo.parquet" for cell in wanted["elbo"]]


def test_a_table_that_no_cell_has_is_refused_by_its_name() -> None:
    with pytest.raises(BadSettings, match="bpd; the tables of cells are elbo"):
        study().parts("bpd")


def test_the_table_of_runs_has_every_command_of_every_cell() -> None:
    whole = study({"datasets.toy.p_noise": ["standard", "full", "flow"]})
    files = whole.cells().files("runs")
    assert len(files) == len({*files})
    for name in MEASUREMENTS:
        wanted = [file.replace(f"/{name}.parquet", f"/run_{name}.parquet") for file in whole.cells().files(name)]
        assert [file for file in files if file.endswith(f"/run_{name}.parquet")] == wanted
    cells = [cell_name(keys) for keys, _ in whole.grid()]
    assert [file for file in files if "run_train" in file] == [f"{cell}/run_train.parquet" for cell in cells]
    toy = [f"{cell}/run_noise_flow.parquet" for cell in cells if cell.startswith("dataset=toy/")]
    assert [file for file in files if "noise_flow" in file] == toy


@pytest.mark.parametrize("path", CONFIGS, ids=lambda path: path.name)
def test_every_planned_table_comes_after_what_it_is_made_of(path: Path) -> None:
    whole = study(path=path)
    tables = whole.tables_planned()
    assert len({*tables}) == len(tables)
    for i, table in enumerate(tables):
        if table in DERIVED:
            assert {*DERIVED[table].needs} <= {*tables[:i]}
        else:
            assert whole.parts(table)
    assert {*COLLECTED} - {*tables} == {table for table in COLLECTED if not whole.parts(table)}


def test_a_study_has_the_tables_that_its_measurements_allow() -> None:
    alone = {*study({"study": [block(measure="elbo")]}).tables_planned()}
    assert alone & {"elbo", "curve", "optimum", "likelihood", "bounds", "samples", "table1"} == {
        "elbo",
        "curve",
        "optimum",
    }
    assert "bounds" in study({"study": [block(measure=["elbo", "likelihood"])]}).tables_planned()
    assert "optimum" not in study({"study": [block(measure="samples")]}).tables_planned()
    assert "table1" in study({"study": [block(dataset="mnist5k", net="unet-16")]}).tables_planned()


# Figures


@pytest.mark.parametrize("path", CONFIGS, ids=lambda path: path.name)
def test_every_planned_figure_has_its_table_and_a_data_set_and_network_of_the_study(path: Path) -> None:
    whole = study(path=path)
    tables, pairs = whole.tables_planned(), {(keys["dataset"], keys["net"]) for keys, _ in whole.grid()}
    for figure, dataset, net in whole.figures_planned():
        assert FIGURES[figure].table in tables
        assert (net is not None) == FIGURES[figure].each_net
        assert (dataset, net) in pairs or (net is None and dataset in {name for name, _ in pairs})


def test_the_smoke_study_draws_every_figure_and_makes_every_table() -> None:
    (path,) = (path for path in CONFIGS if path.name == "smoke.yaml")
    whole = study(path=path)
    assert {figure for figure, _, _ in whole.figures_planned()} == {*FIGURES}
    assert {*whole.tables_planned()} == {*COLLECTED, *DERIVED}


def test_figures_are_drawn_of_every_data_set_and_of_every_network_that_they_show() -> None:
    found = planned(
        block(net=["mlp-16x1", "mlp-32x2"]), block(dataset="plane"), block(dataset="mnist5k", net="unet-16"),
        **{"datasets.plane": PLANE},
    )  # fmt: skip
    assert {one for one in found if one[0] == "fig1"} == {
        ("fig1", "toy", "mlp-16x1"), ("fig1", "toy", "mlp-32x2"), ("fig1", "plane", "mlp-32x2"),
    }  # fmt: skip
    assert {one for one in found if one[0] == "fig3"} == {("fig3", "toy", None)}
    assert {one for one in found if one[0] == "images"} == {("images", "mnist5k", "unet-16")}
    assert {dataset for figure, dataset, _ in found if figure == "tradeoff"} == {"toy", "plane", "mnist5k"}


def test_a_histogram_is_planned_in_one_dimension_only() -> None:
    """Fault 16: it failed after everything was trained."""
    found = planned(block(), block(dataset="plane"), **{"datasets.plane": PLANE})
    assert {dataset for figure, dataset, _ in found if figure == "fig4"} == {"toy"}


def test_a_figure_of_what_is_not_measured_is_not_planned() -> None:
    found = planned(block(measure="elbo"), block(net="mlp-16x1"))
    assert {net for figure, _, net in found if figure in ("fig1", "quality", "cost")} == {"mlp-16x1"}
    assert {net for figure, _, net in found if figure == "fig2"} == {"mlp-16x1", "mlp-32x2"}


def test_skipped_figures_are_not_planned_and_no_other_is_lost() -> None:
    whole, less = planned(block()), planned(block(), **{"figures.skip": ["fig1", "cost"]})
    assert whole - less == {one for one in whole if one[0] in ("fig1", "cost")} != set()
    assert less <= whole


def test_facts_are_of_one_network_or_of_all() -> None:
    whole = study({"study": [
        block(sde=["vp", "ve"], T=[0.2, 0.6], measure="elbo"), block(T=[1, 2, 3], measure="samples"),
        block(net="mlp-16x1", T=0.5, measure="likelihood"),
    ]})  # fmt: skip
    assert whole.facts("toy") == Facts(True, 1, frozenset({"elbo", "likelihood", "samples"}), 5, 2, 2, 2)
    assert whole.facts("toy", "mlp-16x1") == Facts(True, 1, frozenset({"likelihood"}), 1, 1, 1, 2)
    images = study().facts("mnist5k")
    assert (images.mixture, images.d, images.p_noises) == (False, None, 3)


# What tables and figures are told


def test_tables_and_figures_are_told_kinds_and_not_names() -> None:
    """Fault 7: a mixture that is called mnist is no MNIST."""
    whole = study({
        "datasets.mnist": {"weights": [1], "means": [0], "stds": [1]}, "sdes.vp": {"kind": "sub-vp"},
        "study": [block(dataset="mnist"), block(sde="ve")], "optimum": {"loss": 0.5, "resamples": 9},
    })  # fmt: skip
    assert whole.plain() == {
        "seed": 0, "optimum": {"resamples": 9, "confidence": 0.95, "loss": 0.5},
        "kinds": {"mnist": "mixture", "toy": "mixture"}, "sdes": {"vp": "sub-vp", "ve": "ve-exponential"},
        "p_noise": {"mnist": ["standard", "matched"], "toy": ["standard", "matched"]},
    }  # fmt: skip
    assert whole.style("mnist") == {
        "width": 6.75, "font_size": 8.0, "sdes": {"vp": "sub-vp", "ve": "ve-exponential"}, "kind": "mixture",
        "paper_data": False,
    }  # fmt: skip
    assert whole.style("toy")["paper_data"]


def test_what_no_cell_is_of_is_told_to_no_table() -> None:
    """Another data set or SDE that is only defined changes no table."""
    changes = {"datasets.other": PLANE, "sdes.other": {"kind": "sub-vp"}}
    assert study(changes).plain() == study().plain()
