"""Tables on disk: what is written comes back, and what breaks its schema is refused by name."""

from __future__ import annotations

import math
import subprocess
import sys
from pathlib import Path

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from builders import TOY, frame

from difftime.study.saving import save_collected
from difftime.tables.parquet import BadTable, check, read, save
from difftime.tables.render import ROWS_SHOWN
from difftime.tables.schema import TABLES, Column, arrow_schema, write_rows


def an_elbo() -> pd.DataFrame:
    exact = dict.fromkeys(("kl", "kl_se", "gap", "gap_se", "elbo", "elbo_se"), 0.5)
    return frame("elbo", [TOY | exact | {"T": 0.6, "seed": seed} for seed in range(8)])


def test_a_saved_table_reads_back_with_units_in_its_fields(tmp_path: Path) -> None:
    frame = an_elbo()
    path = tmp_path / "elbo.parquet"
    save(frame, "elbo", path)
    pd.testing.assert_frame_equal(read(path, "elbo"), frame)
    schema = pq.read_schema(path)
    assert schema.field("kl").metadata[b"unit"] == b"nats"
    assert all(schema.field(c.name).metadata[b"description"] for c in TABLES["elbo"])
    header = path.with_suffix(".md").read_text().splitlines()[0]
    assert "kl [nats]" in header
    assert "<table" in path.with_suffix(".html").read_text()


def test_the_page_of_a_long_table_says_what_it_leaves_out(tmp_path: Path) -> None:
    row = {"dataset": "a", "sde": "b", "net": "c", "T": 0.5, "seed": 0, "step": 100, "loss": 1.0}
    for rows, notices in ((ROWS_SHOWN, 0), (ROWS_SHOWN + 1, 1)):
        save(pd.DataFrame([row] * rows), "history", tmp_path / "history.parquet")
        page = (tmp_path / "history.html").read_text()
        assert page.count("<tr") == ROWS_SHOWN + 1
        assert page.count(f"of {rows} rows") == notices
        assert len(read(tmp_path / "history.parquet", "history")) == rows


@pytest.mark.parametrize(
    ("column", "value", "rule"),
    [("kl_se", -1.0, "is below 0"), ("prior", math.nan, "is null"), ("prior", math.inf, "is not finite")],
)
def test_values_that_break_the_schema_are_refused_by_name(column: str, value: float, rule: str) -> None:
    frame = an_elbo()
    frame.loc[2, column] = value
    with pytest.raises(BadTable, match=rf"(?s)a file.*{column} {rule}"):
        check(frame, "elbo", "a file")


def test_a_truncated_table_is_refused_by_name(tmp_path: Path) -> None:
    path = tmp_path / "history.parquet"
    row = {"dataset": "a", "sde": "b", "net": "c", "T": 0.5, "seed": 0, "step": 100, "loss": 1.0}
    write_rows(path, "history", [row])
    assert len(read(path, "history")) == 1
    path.write_bytes(path.read_bytes()[:-20])
    with pytest.raises(BadTable, match=r"history\.parquet"):
        read(path, "history")


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


def test_a_residual_of_proposition_1_is_said_in_the_log_when_tables_are_collected(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    by_quadrature = dict.fromkeys(("prior_se", "I_se", "kl_se", "gap_se", "entropy_se"), 0.0)
    part = an_elbo().assign(residual=[1e-3] + [0.0] * 7, **by_quadrature)
    save(part, "elbo", tmp_path / "part.parquet")
    with caplog.at_level("WARNING", "difftime"):
        save_collected([tmp_path / "part.parquet"], "elbo", tmp_path / "elbo.parquet")
    assert "T = 0.6: Proposition 1 is off by 0.001 nats" in caplog.text
