"""Collecting, averaging, and finding the optimal T."""

from __future__ import annotations

import math
import re
import subprocess
import sys
from pathlib import Path

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from difftime.study.settings import OptimumSettings
from difftime.tables import derived as tables
from difftime.tables.published import SOURCE, TABLE1
from difftime.tables.schema import TABLES, Column, arrow_schema, write_rows

TIMES = [0.05, 0.1, 0.2, 0.3, 0.4, 0.5, 0.6, 0.7, 0.8, 0.9, 1.0, 1.2, 1.5, 2.0]
SETTINGS = OptimumSettings(resamples=200)


def elbo_table(gap, kl, times=TIMES, seeds: int = 8, noise: float = 0.05) -> pd.DataFrame:
    """KL(T) = kl(T), G(T) = gap(T) times a factor per seed and a smaller one per cell, as trained models have."""
    rng = np.random.default_rng(1)
    factor = 1 + noise * rng.standard_normal(seeds)
    rows = []
    for T in times:
        for seed in range(seeds):
            G = gap(T) * factor[seed] * (1 + noise / 4 * rng.standard_normal())
            row = dict.fromkeys((c.name for c in TABLES["elbo"]), 0.0)
            rows.append(row | {
                "dataset": "toy", "sde": "vp", "net": "n", "T": T, "seed": seed, "p_noise": "standard",
                "kl": kl(T), "gap": G, "entropy": 0.8, "log_p_data": -0.8, "elbo": -0.8 - kl(T) - G,
                "epsilon": 1e-5, "weighting": "likelihood", "steps": 10,
            })  # fmt: skip
    return pd.DataFrame(rows)


def true_optimum(gap, kl) -> float:
    T = np.linspace(TIMES[0], TIMES[-1], 200_001)
    return T[np.argmin(gap(T) + kl(T))]


def gap(T):
    return 0.1 + 0.2 * T


def kl(T):
    return 4 * np.exp(-7 * T)


def test_the_optimum_is_where_the_slopes_of_kl_and_gap_cancel() -> None:
    found = tables.optimum(elbo_table(gap, kl, noise=1e-6), SETTINGS, seed=0).iloc[0]
    assert found.T_star == pytest.approx(true_optimum(gap, kl), abs=0.01)
    assert found.T_star not in TIMES
    assert found.spacing == pytest.approx(0.1)
    assert found.interior
    assert found.elbo_star == pytest.approx(-0.8 - gap(found.T_star) - kl(found.T_star), abs=1e-3)


def test_the_interval_covers_the_true_optimum() -> None:
    found = tables.optimum(elbo_table(gap, kl), SETTINGS, seed=0).iloc[0]
    assert found.T_star_low <= true_optimum(gap, kl) <= found.T_star_high
    assert found.T_star_low < found.T_star_high
    assert found.plateau_low <= found.T_star <= found.plateau_high


def test_more_noise_between_cells_widens_the_interval() -> None:
    widths = []
    for noise in (0.02, 0.2):
        found = tables.optimum(elbo_table(gap, kl, noise=noise), SETTINGS, seed=0).iloc[0]
        widths.append(found.T_star_high - found.T_star_low)
    assert widths[0] < widths[1]


def test_a_gap_that_falls_has_its_optimum_at_the_edge_and_says_so() -> None:
    found = tables.optimum(elbo_table(lambda T: 1 / (1 + T), kl), SETTINGS, seed=0).iloc[0]
    assert found.T_star == TIMES[-1]
    assert not found.interior


def test_times_at_which_a_seed_has_no_finite_gap_are_left_out_and_counted() -> None:
    frame = elbo_table(gap, kl)
    frame.loc[(frame["T"] == 2.0) & (frame.seed == 3), ["gap", "elbo"]] = math.nan
    found = tables.optimum(frame, SETTINGS, seed=0).iloc[0]
    assert (found.times, found.times_left_out, found.T_last) == (len(TIMES) - 1, 1, 1.5)


def test_fewer_than_three_times_have_no_optimum_and_the_study_goes_on(tmp_path: Path) -> None:
    frame = elbo_table(gap, kl, times=[0.2, 0.6])
    none = tables.optimum(frame, SETTINGS, seed=0)
    tables.save(none, "optimum", tmp_path / "tables" / "optimum.parquet")
    read = tables.read(tmp_path / "tables" / "optimum.parquet", "optimum")
    assert len(read) == 0
    assert "No T*" in tables.findings(tmp_path)
    summary = tables.summarise(frame, tables.empty("likelihood"), tables.empty("samples"), read)
    tables.save(summary, "summary", tmp_path / "summary.parquet")
    assert summary.T_star.isna().all()
    assert len(tables.optimum(elbo_table(gap, kl, times=[0.2, 0.6, 1.0]), SETTINGS, seed=0)) == 1


def test_a_single_seed_has_an_optimum_and_no_interval(tmp_path: Path) -> None:
    found = tables.optimum(elbo_table(gap, kl, seeds=1, noise=1e-6), SETTINGS, seed=0)
    row = found.iloc[0]
    assert row.T_star == pytest.approx(true_optimum(gap, kl), abs=0.01)
    assert row[["T_star_low", "T_star_high", "elbo_star_se", "plateau_low", "plateau_high"]].isna().all()
    tables.save(found, "optimum", tmp_path / "tables" / "optimum.parquet")
    assert "one seed: no interval" in tables.findings(tmp_path)


@pytest.mark.parametrize("seeds", [3, 8])
def test_the_interval_covers_the_true_optimum_as_often_as_it_says(seeds: int) -> None:
    """200 studies, so the share of hits has a standard error of 0.015; the times are close, so it is of seeds alone."""
    times = np.linspace(0.3, 1.1, 9).tolist()
    rng = np.random.default_rng(3)
    hits = 0
    for study in range(200):
        frame = elbo_table(gap, kl, times=times, seeds=seeds, noise=0)
        frame["gap"] *= np.exp(0.05 * rng.standard_normal(len(frame)))
        found = tables.optimum(frame, SETTINGS, seed=study).iloc[0]
        hits += found.T_star_low <= true_optimum(gap, kl) <= found.T_star_high
    assert hits / 200 == pytest.approx(SETTINGS.confidence, abs=0.05)


def test_monte_carlo_error_that_the_seeds_share_is_in_the_errors_of_the_mean() -> None:
    exact = elbo_table(gap, kl, noise=1e-6)
    for frame, error in ((exact, 0.0), (exact.assign(gap_se=0.01, elbo_se=0.01), 0.01)):
        best = tables.optimum(frame, SETTINGS, seed=0)
        assert best.elbo_star_se[0] == pytest.approx(error, rel=0.3, abs=1e-5)
        summary = tables.summarise(frame, tables.empty("likelihood"), tables.empty("samples"), best)
        assert summary[summary.quantity == "elbo"].se.to_numpy() == pytest.approx(error, rel=1e-3, abs=1e-5)
        assert summary[summary.quantity == "R"].se.to_numpy() == pytest.approx(0)


def test_the_mean_and_its_error_are_those_of_the_finite_seeds() -> None:
    values = pd.Series([1.0, 2.0, 4.0, math.nan, math.inf])
    found = tables._over_seeds(values)
    assert found["mean"] == pytest.approx(7 / 3)
    assert found["se"] == pytest.approx(np.std([1, 2, 4], ddof=1) / math.sqrt(3))
    assert (found["median"], found["seeds"], found["finite"]) == (2, 5, 3)


def test_a_broken_bound_is_found_and_one_within_the_error_is_not() -> None:
    frame = elbo_table(gap, kl, times=[0.6], seeds=3)
    likelihood = frame[["dataset", "sde", "net", "T", "seed", "p_noise"]].assign(
        log_q_sde=frame.elbo + np.array([0.01, -0.01, -0.01]), log_q_sde_error=[0.0, 0.0, 0.02], log_q_sde_lost=0.0
    )
    found = tables.bounds(frame, likelihood)
    assert found.verdict.tolist() == ["holds", "broken", "holds"]
    assert "holds in 2 of 3 rows" in tables.verdict(found)
    likelihood.log_q_sde = -frame.entropy + 0.1
    assert set(tables.bounds(frame, likelihood).verdict) == {"broken"}


def test_a_row_without_a_density_is_untested_and_counted_apart() -> None:
    frame = elbo_table(gap, kl, times=[0.6], seeds=3)
    likelihood = frame[["dataset", "sde", "net", "T", "seed", "p_noise"]].assign(
        log_q_sde=frame.elbo + np.array([0.01, math.nan, 0.01]),
        log_q_sde_error=0.0,
        log_q_sde_lost=[0.0, math.nan, 0.3],
    )
    found = tables.bounds(frame, likelihood)
    tables.check(found, "bounds", "bounds")
    assert found.verdict.tolist() == ["holds", "untested", "holds"]
    said = tables.verdict(found)
    assert "holds in 2 of 2 rows" in said
    assert "1 more were not tested" in said
    assert "In 1 rows more than 0.0001" in said


# Table 1


DEFAULTS = {"string": "none", "float64": 0.0, "int64": 1, "bool": True, "binary": b""}
VP = {"dataset": "mnist", "sde": "vp", "net": "unet_64", "p_noise": "standard"}


def frame_of(table: str, rows: list[dict]) -> pd.DataFrame:
    """A valid table from rows that say only what matters."""
    filled = {c.name: DEFAULTS[c.type] for c in TABLES[table]}
    known = [{key: value for key, value in row.items() if key in filled} for row in rows]
    return tables.check(pd.DataFrame([filled | row for row in known], columns=list(filled)), table, table)


def image_tables(bpd: list[dict], elbo: list[dict], times: list[float]) -> list[pd.DataFrame]:
    cost = {"parameters": 1234567, "steps": 800, "seeds": 2, "points_per_second": 99.5, "weighting": "noise"}
    training = [VP | {"T": T, "device": "CPU, 1 thread"} | cost for T in times]
    return [frame_of("bpd", bpd), frame_of("image_elbo", elbo), frame_of("training", training)]


def two_seeds(T: float, **changes) -> list[dict]:
    shared = {"bpd_se": 0.03, "nfe": 200.0, "nfe_sd": 4.0, "batch": 50, "images": 100}
    return [VP | shared | {"T": T, "seed": seed, "bpd": 1.2 + 0.08 * seed} | changes for seed in range(2)]


def two_bounds(T: float, **changes) -> list[dict]:
    shared = {"elbo_bpd_se": 0.01, "kl_low_bpd": 0.1, "kl_high_bpd": 0.2}
    return [VP | shared | {"T": T, "seed": seed, "elbo_bpd": 1.5 + 0.02 * seed} | changes for seed in range(2)]


def test_table1_combines_seeds_with_the_error_of_the_images_that_they_share() -> None:
    row = tables.table1(*image_tables(two_seeds(0.6), two_bounds(0.6), [0.6])).iloc[0]
    assert row.bpd == pytest.approx(1.24)
    # two seeds 0.08 apart: their standard error is 0.04; that of the images does not shrink with seeds
    assert row.bpd_se == pytest.approx(0.05)
    assert row.elbo_bpd == pytest.approx(1.51)
    assert row.elbo_bpd_se == pytest.approx(math.hypot(0.01, 0.01))
    assert (row.nfe, row.batch, row.images, row.seeds, row.parameters) == (200, 50, 100, 2, 1234567)
    assert (row.kl_low_bpd, row.kl_high_bpd) == pytest.approx((0.1, 0.2))


def test_table1_has_null_for_what_is_not_measured_or_not_finite() -> None:
    lost = two_seeds(0.2, bpd=math.nan, bpd_se=math.nan)
    half = two_seeds(0.4)
    half[1] |= {"bpd": math.nan, "bpd_se": math.nan}
    frame = tables.table1(*image_tables([*two_seeds(1.0), *half, *lost], two_bounds(0.6), [1.0, 0.6, 0.4, 0.2]))
    tables.check(frame, "table1", "table1")
    by_T = frame.set_index("T")
    assert [*by_T.index] == [1.0, 0.4, 0.2, 0.6]
    assert by_T.loc[[1.0, 0.4, 0.2], ["elbo_bpd", "elbo_bpd_se", "kl_low_bpd"]].isna().all(axis=None)
    assert by_T.loc[0.6, ["bpd", "bpd_se", "nfe", "batch", "images"]].isna().all()
    assert by_T.bpd.isna().to_dict() == {1.0: False, 0.4: False, 0.2: True, 0.6: True}
    assert (by_T.bpd[0.4], by_T.bpd_se[0.4]) == pytest.approx((1.2, 0.03))


def test_table1_stands_beside_the_papers_values_for_people_and_for_latex(tmp_path: Path) -> None:
    times = [0.2, 0.4, 0.6, 1.0]
    other = {"sde": "ve", "dataset": "mnist"}
    measured = [row for T in times for row in two_seeds(T)]
    bpd, elbo, training = image_tables(measured, two_bounds(1.0), times)
    frame = pd.concat([tables.table1(bpd, elbo, training), tables.table1(bpd, elbo, training).assign(**other)])
    path = tmp_path / "table1.parquet"
    tables.save_table1(frame.reset_index(drop=True), path)
    assert len(tables.read(path, "table1")) == 8
    header, _, *lines = [line for line in path.with_suffix(".md").read_text().splitlines() if line.startswith("|")]
    texts = [dict(zip(*([cell.strip() for cell in one.split("|")[1:-1]] for one in (header, line)), strict=True))
             for line in lines]  # fmt: skip
    of_vp = [text for text in texts if text["data"] == "mnist vp"]
    published = [row for row in TABLE1 if row.dataset == "mnist"]
    assert [text["T"] for text in of_vp] == ["1", "0.6", "0.4", "0.2"]
    assert [text["paper BPD"] for text in of_vp] == [f"{row.bpd:.2f}" for row in published]
    assert [text["paper NFE"] for text in of_vp] == [f"{row.nfe:g}" for row in published]
    assert {text["paper BPD"] for text in texts if text["data"] == "mnist ve"} == {""}
    assert of_vp[0]["BPD (ODE)"] == "1.240 ± 0.050 (2 failed)"
    assert [text["ELBO (bpd, SDE)"] for text in of_vp[:2]] == ["1.510 ± 0.014", "–"]
    assert SOURCE in path.with_suffix(".md").read_text()


def test_the_latex_table_is_balanced_escaped_and_its_rows_end(tmp_path: Path) -> None:
    frame = tables.table1(*image_tables(two_seeds(0.6), two_bounds(1.0), [0.6, 1.0]))
    tables.save_table1(frame, tmp_path / "table1.parquet")
    text = (tmp_path / "table1.tex").read_text()
    first, *body, last = text.splitlines()
    columns = re.fullmatch(r"\\begin\{tabular\}\{([lr]+)\}", first).group(1)
    assert last == r"\end{tabular}"
    assert [line for line in body if line.endswith("rule")] == [r"\toprule", r"\midrule", r"\bottomrule"]
    rows = [line for line in body if not line.endswith("rule")]
    assert len(rows) == 3
    for row in rows:
        assert row.endswith(r" \\")
        assert len(re.split(r"(?<!\\)&", row)) == len(columns) == len(tables.TABLE1_HEADER)
        assert row.count("$") % 2 == 0
        assert row.isascii()
    assert not re.search(r"(?<!\\)[_%#]", text)
    assert r"unet\_64" in text
    assert r"1.240 $\pm$ 0.050" in text


def test_a_saved_table_reads_back_with_units_in_its_fields(tmp_path: Path) -> None:
    frame = elbo_table(gap, kl, times=[0.6])[[c.name for c in TABLES["elbo"]]].astype({"steps": "int64"})
    path = tmp_path / "elbo.parquet"
    tables.save(frame, "elbo", path)
    pd.testing.assert_frame_equal(tables.read(path, "elbo"), frame)
    schema = pq.read_schema(path)
    assert schema.field("kl").metadata[b"unit"] == b"nats"
    assert all(schema.field(c.name).metadata[b"description"] for c in TABLES["elbo"])
    header = path.with_suffix(".md").read_text().splitlines()[0]
    assert "kl [nats]" in header
    assert "<table" in path.with_suffix(".html").read_text()


def test_the_page_of_a_long_table_says_what_it_leaves_out(tmp_path: Path) -> None:
    row = {"dataset": "a", "sde": "b", "net": "c", "T": 0.5, "seed": 0, "step": 100, "loss": 1.0}
    for rows, notices in ((tables.ROWS_SHOWN, 0), (tables.ROWS_SHOWN + 1, 1)):
        tables.save(pd.DataFrame([row] * rows), "history", tmp_path / "history.parquet")
        page = (tmp_path / "history.html").read_text()
        assert page.count("<tr") == tables.ROWS_SHOWN + 1
        assert page.count(f"of {rows} rows") == notices
        assert len(tables.read(tmp_path / "history.parquet", "history")) == rows


@pytest.mark.parametrize(
    ("column", "value", "rule"),
    [("kl_se", -1.0, "greater_than_or_equal_to"), ("kl", math.nan, "not_nullable"), ("prior", math.inf, "not finite")],
)
def test_values_that_break_the_schema_are_refused_by_name(column: str, value: float, rule: str) -> None:
    frame = elbo_table(gap, kl, times=[0.6])[[c.name for c in TABLES["elbo"]]].astype({"steps": "int64"})
    frame.loc[2, column] = value
    with pytest.raises(tables.BadTable, match=rf"(?s)a file.*{column}: .*{rule}"):
        tables.check(frame, "elbo", "a file")


def test_a_truncated_table_is_refused_by_name(tmp_path: Path) -> None:
    path = tmp_path / "history.parquet"
    row = {"dataset": "a", "sde": "b", "net": "c", "T": 0.5, "seed": 0, "step": 100, "loss": 1.0}
    write_rows(path, "history", [row])
    assert len(tables.read(path, "history")) == 1
    path.write_bytes(path.read_bytes()[:-20])
    with pytest.raises(tables.BadTable, match=r"history\.parquet"):
        tables.read(path, "history")


def test_rows_are_written_as_pyarrow_itself_would(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    types = {"s": "string", "b": "binary", "x": "float64", "n": "int64", "f": "bool"}
    monkeypatch.setitem(TABLES, "any", tuple(Column(name, type, "1", "any", True) for name, type in types.items()))
    full = {"s": "Größe, \n", "b": b"\x00\xff", "x": -0.1, "n": 2**53 + 1, "f": True}
    rows = [
        full, dict.fromkeys(types), full | {"x": math.nan, "s": "", "b": b""}, full | {"x": -math.inf, "f": False},
        full | {"x": 3, "n": np.int64(-1), "f": np.bool_(True)},
    ]  # fmt: skip
    for some in (rows, rows[:1], rows[1:2], 3 * rows, []):
        write_rows(tmp_path / "any.parquet", "any", some)
        found = pq.read_table(tmp_path / "any.parquet")
        found.validate(full=True)
        wanted = pa.Table.from_pylist(some, schema=arrow_schema("any"))
        pd.testing.assert_frame_equal(found.to_pandas(), wanted.to_pandas(), check_exact=True)
        assert found.schema.equals(wanted.schema, check_metadata=True)


@pytest.mark.parametrize(
    ("column", "value"), [("step", 1.5), ("step", "1"), ("loss", "1"), ("loss", b"1"), ("dataset", 1), ("loss", [1.0])]
)
def test_a_value_of_another_type_than_its_column_is_not_written(tmp_path: Path, column: str, value: object) -> None:
    row = {"dataset": "a", "sde": "b", "net": "c", "T": 0.5, "seed": 0, "step": 100, "loss": 1.0}
    with pytest.raises((TypeError, ValueError)):
        write_rows(tmp_path / "history.parquet", "history", [row | {column: value}])
    assert not list(tmp_path.iterdir())


def test_the_jobs_of_single_cells_do_not_import_pandas(tmp_path: Path) -> None:
    code = (
        "import sys; from pathlib import Path; from difftime.tables.schema import write_rows\n"
        "row = dict(dataset='a', sde='b', net='c', T=0.5, seed=0, step=100, loss=1.0)\n"
        "write_rows(Path(sys.argv[1]), 'history', [row, row])\n"
        "assert 'pandas' not in sys.modules"
    )
    subprocess.run([sys.executable, "-c", code, tmp_path / "history.parquet"], check=True)


def test_a_row_with_a_missing_or_unknown_column_is_not_written(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="loss"):
        write_rows(tmp_path / "history.parquet", "history", [{"dataset": "a"}])
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("table", TABLES)
def test_every_column_has_a_type_a_description_and_a_unit(table: str) -> None:
    names = [c.name for c in TABLES[table]]
    assert len(set(names)) == len(names)
    for column in TABLES[table]:
        assert column.description
        assert (column.unit == "") == (column.type in ("string", "bool"))
    assert arrow_schema(table).names == names


def choices(*rows: tuple[float, str, float, float]) -> pd.DataFrame:
    """A table 1 of these (T, p_noise, bpd, nfe), each BPD with a standard error of 0.03."""
    measured = [
        row
        for T, p_noise, bpd, nfe in rows
        for row in two_seeds(T, p_noise=p_noise, bpd=bpd, nfe=float(nfe), failed=0)
    ]  # fmt: skip
    bounds = [row for T, p_noise, *_ in rows for row in two_bounds(T, p_noise=p_noise)]
    return tables.table1(*image_tables(measured, bounds, sorted({T for T, *_ in rows})))


def test_table2_takes_the_fewest_evaluations_within_a_standard_error_of_the_best() -> None:
    frame = tables.table2(
        choices(
            (1.0, "standard", 1.90, 600), (0.6, "standard", 1.91, 400), (0.2, "standard", 2.40, 200),
            (0.4, "full", 1.80, 300), (0.2, "full", 1.82, 200), (0.1, "full", 1.84, 150),
        )
    )  # fmt: skip
    tables.check(frame, "table2", "table2")
    (row,) = frame.itertuples()
    assert (row.T, row.p_noise, row.bpd) == (0.2, "full", pytest.approx(1.82))
    assert (row.best_T, row.best_p_noise, row.standard_T, row.choices) == (0.4, "full", 0.6, 6)
    assert (row.nfe_saved, row.steps_saved) == pytest.approx((1 / 2, 2 / 3))


def test_table2_leaves_out_what_failed_and_says_nothing_of_a_standard_that_was_not_measured(tmp_path: Path) -> None:
    frame = choices((0.4, "full", 1.80, 300), (0.2, "full", 1.70, 200))
    frame.loc[frame["T"] == 0.2, "failed"] = 1.0
    found = tables.table2(frame)
    assert [*found["T"]] == [0.4]
    assert found[["standard_T", "standard_bpd", "nfe_saved", "steps_saved"]].isna().all(axis=None)
    tables.save_table2(found, tmp_path / "table2.parquet")
    assert "| T = 0.4, full | 1.800 ± 0.030 | 300 |" in (tmp_path / "table2.md").read_text()
    nothing = tables.table2(frame.assign(failed=1.0))
    tables.save_table2(nothing, tmp_path / "table2.parquet")
    assert len(tables.read(tmp_path / "table2.parquet", "table2")) == 0
