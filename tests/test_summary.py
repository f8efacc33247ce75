"""Means over seeds and images, the bounds and what is doubtful, and the paper's Table 1."""

from __future__ import annotations

import math
import re

import numpy as np
import pandas as pd
import pytest
from builders import DIGITS, OF_IMAGES, SETTINGS, TOY, frame, images, joined, mixture, tables

from difftime.optimum.best import optimum
from difftime.tables.bounds import bounds, doubts, verdict
from difftime.tables.paper import HEADER, table1, table1_rows, texts
from difftime.tables.parquet import BadTable, check
from difftime.tables.published import SOURCE, TABLE1
from difftime.tables.summary import summary

Rows = list[dict]


# Summary


def of_toy() -> dict[str, pd.DataFrame]:
    toy = mixture(lambda T: np.exp(-T), lambda t, T, seed: 0.1 * t + 0.01 * seed, [0.2, 0.6, 1.0], seeds=3, steps=2)
    found = tables(toy)
    return found | {"optimum": optimum(found, SETTINGS)}


def of_digits() -> dict[str, pd.DataFrame]:
    bits = images(lambda t, T, seed, unit: 1.2 + 0.1 * unit + 0.02 * seed, [0.2, 0.6], seeds=2, units=4, steps=2)
    cell = DIGITS | {"T": 0.6, "data_digest": "a"}
    drawn = [
        cell | {"seed": seed, "sampler": "sde", "wasserstein1": 0.3 + 0.1 * seed, "wasserstein1_se": 0.02, "nfe": 60}
        for seed in range(2)
    ]
    solved = [cell | {"seed": seed, "bpd": 1.1, "bpd_se": 0.03, "nfe": 200.0 + seed} for seed in range(2)]
    found = tables(joined(bits, {"samples": drawn, "likelihood": solved}))
    return found | {"optimum": optimum(found, OF_IMAGES)}


def test_the_summary_has_the_quantities_of_each_kind_of_data_with_their_errors() -> None:
    rows = check(summary(of_toy(), SETTINGS), "summary", "summary")
    gap = rows.set_index(["T", "quantity"]).loc[(0.6, "gap")]
    assert (gap["mean"], gap.se, gap["median"], gap.seeds) == pytest.approx((0.07, 0.01 / math.sqrt(3), 0.07, 3))
    assert "elbo_bpd" not in {*rows.quantity}
    row = check(summary(of_digits(), OF_IMAGES), "summary", "summary").set_index(["T", "quantity"])
    bits = row.loc[(0.6, "elbo_bpd")]
    over_images = np.std(0.1 * np.arange(4), ddof=1) / 2
    assert (bits["mean"], bits.se) == pytest.approx((1.36, math.hypot(over_images, 0.01)))
    assert bits.unit == "bits per dimension"
    # every seed draws samples of its own: their spread has the error of each in it
    assert row.loc[(0.6, "sde:wasserstein1")].se == pytest.approx(0.05)
    assert (row.loc[(0.6, "bpd")].se, row.loc[(0.6, "nfe")].se) == pytest.approx((0.03, 0.5))


def test_the_summary_has_the_optimum_of_trained_cells_and_the_parameters_of_its_cell() -> None:
    found = of_toy()
    found["training"]["parameters"] = [10 * k for k in range(len(found["training"]))]
    rows = summary(found, SETTINGS).set_index(["T", "quantity"])
    best = found["optimum"][found["optimum"].method == "trained"].iloc[0]
    assert rows.loc[(0.6, "kl")].T_star == best.T_star
    assert rows.loc[(0.6, "kl")].parameters == 10
    # two times have no T* of trained cells, though one is predicted
    found = of_digits()
    assert summary(found, OF_IMAGES).T_star.isna().all()
    assert len(found["optimum"])


def test_a_single_seed_has_no_error_of_a_known_density_and_that_of_the_images_else() -> None:
    none = {"optimum": frame("optimum", [])}
    toy = tables(mixture(lambda T: 1.0, lambda t, T, seed: 0.1, [0.2], seeds=1)) | none
    assert math.isnan(summary(toy, SETTINGS).set_index("quantity").loc["elbo"].se)
    digits = tables(images(lambda t, T, seed, unit: 1.0 + unit, [0.2], units=3)) | none
    assert summary(digits, OF_IMAGES).set_index("quantity").loc["elbo_bpd"].se == pytest.approx(1 / math.sqrt(3))


def test_data_with_one_measurement_have_a_summary() -> None:
    for rows, settings in (
        (mixture(lambda T: 1.0, lambda t, T, seed: 0.1, [0.2]), SETTINGS),
        (images(lambda t, T, seed, unit: 1.0 + unit, [0.2], units=3), OF_IMAGES),
    ):
        found = tables(rows) | {"optimum": frame("optimum", [])}
        assert set(summary(found, settings)["T"]) == {0.2}


# Bounds and doubts


def of_bounds(**changes: list[float]) -> dict[str, pd.DataFrame]:
    """Three seeds of one cell: ELBO -1, E log q -0.95, and a ceiling of -0.9."""
    cell = TOY | {"T": 0.6, "entropy": 0.9, "residual": 0.0, "elbo": -1.0, "elbo_se": 0.0, "log_q_ode": -0.95}
    cell |= {"log_q_sde": -0.95, "log_q_sde_error": 0.0, "log_q_sde_lost": 0.0}
    rows = [cell | {"seed": k} | {name: values[k] for name, values in changes.items()} for k in range(3)]
    return tables({"elbo": rows, "likelihood": rows})


def test_a_broken_bound_is_found_and_one_within_the_error_is_not() -> None:
    found = bounds(of_bounds(log_q_sde=[-0.99, -1.01, -1.01], log_q_sde_error=[0.0, 0.0, 0.02]), SETTINGS)
    check(found, "bounds", "bounds")
    assert found.verdict.tolist() == ["holds", "broken", "holds"]
    assert "holds in 2 of 3 rows" in verdict(found)
    assert {*bounds(of_bounds(log_q_sde=[-0.8] * 3), SETTINGS).verdict} == {"broken"}


def test_a_row_without_a_density_is_untested_and_counted_apart() -> None:
    lost = [0.0, math.nan, 0.3]
    found = bounds(of_bounds(log_q_sde=[-0.95, math.nan, -0.95], log_q_sde_lost=lost), SETTINGS)
    check(found, "bounds", "bounds")
    assert found.verdict.tolist() == ["holds", "untested", "holds"]
    said = verdict(found)
    assert "holds in 2 of 2 rows" in said
    assert "1 more were not tested" in said
    assert "In 1 row more than 0.0001" in said


def test_a_bound_that_no_row_tests_is_not_said_to_hold() -> None:
    said = verdict(bounds(of_bounds(log_q_sde=[math.nan] * 3), SETTINGS))
    assert "holds" not in said
    assert "tested in no row" in said


@pytest.mark.parametrize(
    ("residual", "error", "doubted"), [(1e-7, 0.0, False), (2e-6, 0.0, True), (0.01, 0.01, False), (0.05, 0.01, True)]
)
def test_proposition_1_off_by_more_than_its_error_is_doubted(residual: float, error: float, doubted: bool) -> None:
    """By more than 1e-6 nats, and four standard errors of Monte Carlo points."""
    said = doubts(of_bounds(residual=[0.0, -residual, 0.0], I_se=[error] * 3))
    assert len(said) == doubted
    assert not doubted or f"toy vp mlp, T = 0.6: Proposition 1 is off by {residual:.2g} nats" in said[0]


def test_values_that_are_not_finite_are_doubted_cell_by_cell() -> None:
    found = of_bounds(elbo=[-1.0, math.nan, -1.0])
    assert doubts(found) == ["toy vp mlp, T = 0.6: the table elbo has values that are not finite, of 1 of 3 seeds."]
    every = of_bounds(log_q_ode=[math.nan] * 3)
    assert "the table likelihood has values that are not finite, of 3 of 3 seeds" in doubts(every)[0]
    assert doubts({"elbo": found["elbo"].iloc[:0]}) == []
    found["likelihood"]["failed"] = [0, 2, 0]
    assert any("2 values of the table likelihood are not finite and in no mean" in line for line in doubts(found))


def test_data_are_not_doubted_for_the_nulls_of_columns_that_their_kind_has_not() -> None:
    assert doubts(of_toy()) == doubts(of_digits()) == []


# Table 1


def two_seeds(T: float, shift: float = 0.0, **changes: object) -> dict[str, Rows]:
    """The ODE's BPD of two seeds that are 0.08 apart, and of four images, 1.2 + the shift on average over both."""
    cell = DIGITS | {"T": T, "data_digest": "a", "bpd_se": 0.03, "nfe": 200.0, "nfe_sd": 4.0, "batch": 50, "units": 4}
    rows = [cell | {"seed": seed, "bpd": 1.16 + shift + 0.08 * seed, "failed": 0} | changes for seed in range(2)]
    own = [
        row | {"unit": unit, "draw": 0, "bpd": row["bpd"] + 0.1 * (unit - 1.5) + 0.001 * seed * unit}
        for seed, row in enumerate(rows)
        for unit in range(4)
    ]
    training = [cell | {"parameters": 1234567, "steps": 800, "seeds": 2, "weighting": "noise"} | changes]
    return {"likelihood": rows, "likelihood_units": own, "training": training}


def two_bounds(T: float, **changes: object) -> dict[str, Rows]:
    cell = DIGITS | {"T": T, "data_digest": "a", "elbo_bpd_se": 0.01, "kl_low_bpd": 0.1, "kl_high_bpd": 0.2, "units": 4}
    rows = [cell | {"seed": seed, "elbo_bpd": 1.5 + 0.02 * seed} | changes for seed in range(2)]
    return {"elbo": rows}


def made(*parts: dict[str, Rows], **settings: object) -> pd.DataFrame:
    found = tables(joined(*parts))
    found["training"] = found["training"].drop_duplicates(["dataset", "sde", "net", "T"])
    return check(table1(found, OF_IMAGES | settings), "table1", "table1")


def test_table1_combines_seeds_with_the_error_of_the_images_that_they_share() -> None:
    row = made(two_seeds(0.6), two_bounds(0.6)).iloc[0]
    assert row.bpd == pytest.approx(1.2)
    # two seeds 0.08 apart: their standard error is 0.04; that of the images does not shrink with seeds
    assert row.bpd_se == pytest.approx(0.05)
    assert row.elbo_bpd == pytest.approx(1.51)
    assert row.elbo_bpd_se == pytest.approx(math.hypot(0.01, 0.01))
    assert (row.nfe, row.batch, row.units, row.seeds, row.parameters) == (200, 50, 4, 2, 1234567)
    assert (row.kl_low_bpd, row.kl_high_bpd) == pytest.approx((0.1, 0.2))


def test_differences_are_paired_and_against_the_standard_p_noise_at_1_or_the_largest_T() -> None:
    frame = made(two_seeds(0.4, 0.3), two_seeds(1.0), two_seeds(2.0, 0.1), two_seeds(0.4, -0.05, p_noise="full"))
    row = frame.set_index(["T", "p_noise"])
    assert {*frame.against_T} == {1.0}
    assert row.loc[(0.4, "standard")].delta_bpd == pytest.approx(0.3)
    assert row.loc[(0.4, "full")].delta_bpd == pytest.approx(-0.05)
    # the seeds and images of all cells differ alike: nothing is left of their errors
    assert row.delta_bpd_se.to_numpy() == pytest.approx(np.zeros(4), abs=1e-12)
    assert (row.bpd_se > 0.04).all()
    assert row.loc[(1.0, "standard")].delta_bpd == 0
    assert {*made(two_seeds(0.2), two_seeds(0.6)).against_T} == {0.6}


def test_without_the_standard_p_noise_there_is_nothing_to_be_against() -> None:
    row = made(two_seeds(0.4, p_noise="full")).iloc[0]
    assert row[["against_T", "delta_bpd", "delta_bpd_se"]].isna().all()


def test_table1_has_null_for_what_is_not_measured_or_not_finite() -> None:
    half = two_seeds(0.4)
    half["likelihood"][1] |= {"bpd": math.nan, "bpd_se": math.nan}
    lost = two_seeds(0.2, bpd=math.nan, bpd_se=math.nan, failed=4)
    other = {"training": two_seeds(0.6)["training"]}
    by_T = made(two_seeds(1.0), half, lost, two_bounds(0.6), other).set_index("T")
    assert [*by_T.index] == [1.0, 0.4, 0.2, 0.6]
    assert by_T.loc[[1.0, 0.4, 0.2], ["elbo_bpd", "elbo_bpd_se", "kl_low_bpd"]].isna().all(axis=None)
    assert by_T.loc[0.6, ["bpd", "bpd_se", "nfe", "batch", "units"]].isna().all()
    assert by_T.bpd.isna().to_dict() == {1.0: False, 0.4: False, 0.2: True, 0.6: True}
    assert (by_T.bpd[0.4], by_T.bpd_se[0.4]) == pytest.approx((1.16, 0.03))
    assert (by_T.failed[0.2], math.isnan(by_T.delta_bpd[0.2])) == (8, True)


@pytest.mark.parametrize(
    ("kind", "sde", "shown"), [("mnist", "vp", True), ("folder", "vp", False), ("mnist", "ve-exponential", False)]
)
def test_the_papers_values_stand_beside_its_kind_of_data_and_sde_whatever_their_names(
    kind: str, sde: str, shown: bool
) -> None:
    times = [0.2, 0.4, 0.6, 1.0]
    cells = [two_seeds(T, p_noise=name) for T in times for name in ("standard", "full")]
    frame = made(*cells, kind=kind, sdes={"vp": sde})
    published = {row.T: row for row in TABLE1 if row.dataset == "mnist"}
    for row in frame.itertuples():
        beside = shown and row.p_noise == "standard"
        assert row.paper_bpd == published[row.T].bpd if beside else math.isnan(row.paper_bpd)
        assert row.paper_nfe == published[row.T].nfe if beside else math.isnan(row.paper_nfe)


def test_table1_for_people_has_the_largest_T_first_and_cites_the_paper() -> None:
    frame = made(two_seeds(0.2, 0.3), two_seeds(1.0), two_bounds(1.0), two_seeds(0.6, failed=1))
    rows = [dict(zip(HEADER, row, strict=True)) for row in table1_rows(frame)]
    assert [row["T"] for row in rows] == ["1", "0.6", "0.2"]
    assert rows[0]["BPD (ODE)"] == "1.200 ± 0.050"
    assert rows[1]["BPD (ODE)"] == "1.200 ± 0.050 (2 failed)"
    assert rows[2]["ΔBPD"] == "0.3000 ± 0.0000"
    assert [row["ELBO (bpd, SDE)"] for row in rows] == ["1.510 ± 0.014", "–", "–"]
    assert SOURCE in texts(frame)[".md"]


def test_the_latex_table_is_balanced_escaped_and_its_rows_end() -> None:
    text = texts(made(two_seeds(0.6, net="unet_64"), two_seeds(1.0, net="unet_64")))[".tex"]
    first, *body, last = text.splitlines()
    columns = re.fullmatch(r"\\begin\{tabular\}\{([lr]+)\}", first).group(1)
    assert last == r"\end{tabular}"
    assert [line for line in body if line.endswith("rule")] == [r"\toprule", r"\midrule", r"\bottomrule"]
    rows = [line for line in body if not line.endswith("rule")]
    assert len(rows) == 3
    for row in rows:
        assert row.endswith(r" \\")
        assert len(re.split(r"(?<!\\)&", row)) == len(columns) == len(HEADER)
        assert row.count("$") % 2 == 0
        assert row.isascii()
    assert not re.search(r"(?<!\\)[_%#]", text)
    assert r"unet\_64" in text


def test_table1_of_different_images_is_refused() -> None:
    with pytest.raises(BadTable, match="digits changed between"):
        made(two_seeds(0.6), two_seeds(1.0, data_digest="b"))
