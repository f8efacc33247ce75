"""What is planned of a study: every cell once, and every table and figure that makes sense of its data."""

from __future__ import annotations

import itertools
from pathlib import Path
from typing import Any

import pytest
from studies import CONFIGS, settings, study

from difftime.study.registry import DERIVED, FIGURES, MEASUREMENTS, Facts
from difftime.study.settings import COLLECTED, BadSettings, Study, cell_name

PLANE = {
    "weights": [0.5, 0.5], "means": [[-1, 0], [1, 1]], "stds": [0.4, 0.5], "training": {"steps": 9},
}  # fmt: skip


def block(**changes: Any) -> dict[str, Any]:
    return {"dataset": "toy", "sde": "vp", "net": "mlp-32x2", "T": [0.2, 0.6]} | changes


def planned(*blocks: dict[str, Any], **changes: Any) -> set[tuple[str, str, str | None]]:
    found = study({"study": [*blocks], **changes}).cells().figures()
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
        "toy": {
            "elbo": [*toy, *capacities], "curve": [*toy, *capacities], "training": [*toy, *capacities],
            "likelihood": toy, "samples": toy, "modes": toy, "histogram": toy,
            "images": [], "elbo_units": [], "likelihood_units": [], "history": [],
        },
        "mnist5k": dict.fromkeys((
            "elbo", "curve", "likelihood", "samples", "images", "elbo_units", "likelihood_units", "training", "history",
        ), images) | {"modes": [], "histogram": []},
    }  # fmt: skip
    for dataset, tables in wanted.items():
        assert {table: whole.cells().parts(dataset, table) for table in tables} == tables
        assert whole.cells().files(dataset, "elbo") == [f"{cell}/elbo.parquet" for cell in tables["elbo"]]


def test_a_table_or_data_that_no_cell_has_are_refused_by_name() -> None:
    with pytest.raises(BadSettings, match="bpd; the tables of cells are elbo"):
        study().cells().parts("toy", "bpd")
    with pytest.raises(BadSettings, match="toys; there are cells on toy, mnist5k"):
        study().cells().parts("toys", "elbo")


def test_the_table_of_runs_has_every_command_of_every_cell() -> None:
    cells = study({"datasets.toy.p_noise": ["standard", "full", "flow"]}).cells()
    for dataset in ("toy", "mnist5k"):
        files = cells.files(dataset, "runs")
        assert len(files) == len({*files})
        for name in MEASUREMENTS:
            wanted = [file.replace(f"/{name}.parquet", f"/run_{name}.parquet") for file in cells.files(dataset, name)]
            assert [file for file in files if file.endswith(f"/run_{name}.parquet")] == wanted
        own = [cell_name(keys) for keys, _ in cells.cells(dataset)]
        assert [file for file in files if "run_train" in file] == [f"{cell}/run_train.parquet" for cell in own]
        fitted = own if dataset == "toy" else []
        assert [file for file in files if "noise_flow" in file] == [f"{cell}/run_noise_flow.parquet" for cell in fitted]


@pytest.mark.parametrize("path", CONFIGS, ids=lambda path: path.name)
def test_every_planned_table_comes_after_what_it_is_made_of(path: Path) -> None:
    cells = study(path=path).cells()
    for dataset in cells.datasets():
        tables = cells.tables(dataset)
        assert len({*tables}) == len(tables)
        for i, table in enumerate(tables):
            if table in DERIVED:
                assert {*DERIVED[table].needs} <= {*tables[:i]}
            else:
                assert cells.parts(dataset, table)
        assert {*COLLECTED} - {*tables} == {table for table in COLLECTED if not cells.parts(dataset, table)}


def test_a_data_set_has_the_tables_that_its_measurements_allow() -> None:
    def planned(**changes: Any) -> set[str]:
        one = block(**changes)
        return {*study({"study": [one]}).cells().tables(one["dataset"])}

    found = planned(measure="elbo")
    assert found >= {"elbo", "curve", "training", "runs", "optimum", "prediction", "summary", "cheapest", "tradeoff"}
    assert found.isdisjoint({*MEASUREMENTS["likelihood"].tables, *MEASUREMENTS["samples"].tables, "bounds", "steps"})
    assert "bounds" in planned(measure=["elbo", "likelihood"])
    assert "optimum" not in planned(measure="samples")


def test_a_data_set_has_the_tables_of_its_kind_whatever_stands_beside_it() -> None:
    """The toy has no Table 1, images have no histogram, and no bounds, as their density is not known."""
    cells = study().cells()
    toy, images = ({*cells.tables(name)} for name in ("toy", "mnist5k"))
    assert toy - images == {"modes", "histogram", "bounds"}
    assert images - toy == {"images", "history", "table1"}
    alone = study({"study": [block(dataset="mnist5k", net="unet-16")]}).cells()
    assert {*alone.tables("mnist5k")} == images


# Figures


@pytest.mark.parametrize("path", CONFIGS, ids=lambda path: path.name)
def test_every_planned_figure_has_its_table_and_a_data_set_and_network_of_the_study(path: Path) -> None:
    whole = study(path=path)
    cells, pairs = whole.cells(), {(keys["dataset"], keys["net"]) for keys, _ in whole.grid()}
    for figure, dataset, net in cells.figures():
        assert FIGURES[figure].table in cells.tables(dataset)
        assert (net is not None) == FIGURES[figure].each_net
        assert (dataset, net) in pairs or (net is None and dataset in {name for name, _ in pairs})


def test_the_smoke_study_draws_every_figure_and_makes_every_table() -> None:
    (path,) = (path for path in CONFIGS if path.name == "smoke.yaml")
    cells = study(path=path).cells()
    assert {figure for figure, _, _ in cells.figures()} == {*FIGURES}
    assert {table for dataset in cells.datasets() for table in cells.tables(dataset)} == {*COLLECTED, *DERIVED}


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
    assert whole.facts("toy") == Facts(True, 1, frozenset({"elbo", "likelihood", "samples"}), 5, 2, 2, 2, True)
    assert whole.facts("toy", "mlp-16x1") == Facts(True, 1, frozenset({"likelihood"}), 1, 1, 1, 2, True)
    images = study().facts("mnist5k")
    assert (images.mixture, images.d, images.p_noises) == (False, None, 3)


# What tables and figures are told


def test_tables_and_figures_are_told_kinds_and_not_names() -> None:
    """Fault 7: a mixture that is called mnist is no MNIST."""
    whole = study({
        "datasets.mnist": {"weights": [1], "means": [0], "stds": [1]}, "sdes.vp": {"kind": "sub-vp"},
        "study": [block(dataset="mnist"), block(sde="ve")], "optimum": {"loss": 0.5, "resamples": 9},
    })  # fmt: skip
    assert whole.plain("mnist") == {
        "seed": 0, "optimum": {"resamples": 9, "confidence": 0.95, "loss": 0.5},
        "kind": "mixture", "sdes": {"vp": "sub-vp"}, "pretrained": [],
    }  # fmt: skip
    assert whole.style("mnist") == {
        "width": 6.75, "font_size": 8.0, "sdes": {"vp": "sub-vp"}, "kind": "mixture", "paper_data": False,
    }  # fmt: skip
    assert whole.style("toy")["paper_data"]


def test_what_no_cell_of_some_data_is_of_is_told_to_none_of_their_tables_and_figures() -> None:
    """Another data set or SDE, defined or studied, changes neither."""
    defined = {"datasets.other": PLANE, "sdes.other": {"kind": "sub-vp"}}
    studied = defined | {"study": [*settings()["study"], block(dataset="other", sde="other")]}
    for changes in (defined, studied):
        for told in (Study.plain, Study.style):
            assert told(study(changes), "toy") == told(study(), "toy")
