"""Every rule of a table's schema that is broken is found, with its count and the file."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pyarrow.parquet as pq
import pytest
from builders import frame

from difftime.tables.parquet import BadTable, check, collect, empty, missing, read, save, shaped
from difftime.tables.schema import TABLES, Column, write_rows

ROWS = 4
PLACE = {"dataset": "toy", "sde": "vp", "net": "n", "T": 0.5}


def whole(table: str) -> pd.DataFrame:
    return frame(table, [PLACE | {"seed": seed} for seed in range(ROWS)])


def breaches(column: Column) -> dict[str, Any]:
    """What may not stand in a column, by the rule that it breaks."""
    found: dict[str, Any] = {} if column.nullable else {"is null": None}
    if column.type in ("string", "binary", "bool"):
        return found | {f"is not of type {column.type}": 3}
    found |= {"is not finite": math.inf}
    if column.type == "int64":
        found["is not a whole number"] = 1.5
    if column.low is not None:
        found[f"is below {column.low:g}"] = column.low - 1
    if column.high is not None:
        found[f"is above {column.high:g}"] = column.high + 1
    return found


@pytest.mark.parametrize("table", TABLES)
def test_every_broken_rule_of_every_column_is_found_and_counted(table: str) -> None:
    sound = whole(table)
    assert check(sound, table, "a file") is sound
    for column in TABLES[table]:
        for rule, value in breaches(column).items():
            for count in (1, 2):
                values = [value] * count + sound[column.name].to_list()[count:]
                with pytest.raises(BadTable) as refused:
                    check(sound.assign(**{column.name: pd.Series(values, dtype=object)}), table, "a file")
                said = str(refused.value)
                assert f"- {column.name} {rule} ({count} row{'s' if count > 1 else ''})" in said
                assert said.count("  - ") == 1
                assert said.startswith("a file breaks the schema")


@pytest.mark.parametrize("table", TABLES)
def test_null_is_no_fault_where_it_may_stand(table: str) -> None:
    sound = whole(table)
    nullable = [column.name for column in TABLES[table] if column.nullable]
    check(sound.assign(**dict.fromkeys(nullable, None)), table, "a file")
    check(
        sound.assign(**{c.name: np.nan for c in TABLES[table] if c.nullable and c.type == "float64"}), table, "a file"
    )


def test_all_faults_are_said_at_once() -> None:
    rows = whole("elbo")
    broken = rows.assign(prior=[None, 1.0, math.inf, 1.0], kl_se=[-1.0, -2.0, 0.0, -3.0], seed=[0.5, 1, 2, 3])
    with pytest.raises(BadTable) as refused:
        check(broken, "elbo", "a file")
    said = str(refused.value)
    for fault in ("prior is null (1 row)", "prior is not finite (1 row)", "kl_se is below 0 (3 rows)",
                  "seed is not a whole number (1 row)"):  # fmt: skip
        assert fault in said
    assert said.count("  - ") == 4


@pytest.mark.parametrize("change", ["lacks", "adds", "another order"])
def test_other_columns_are_refused_by_name(change: str) -> None:
    rows = whole("training")
    other = {
        "lacks": rows.drop(columns="steps"), "adds": rows.assign(pace=1.0), "another order": rows[rows.columns[::-1]],
    }[change]  # fmt: skip
    with pytest.raises(BadTable, match={"lacks": "steps", "adds": "pace", "another order": "another order"}[change]):
        check(other, "training", "a file")


@pytest.mark.parametrize("table", TABLES)
def test_a_saved_table_comes_back_also_without_rows(tmp_path: Path, table: str) -> None:
    for name, rows in (("full", whole(table)), ("none", empty(table))):
        save(rows, table, tmp_path / f"{name}.parquet")
        pd.testing.assert_frame_equal(read(tmp_path / f"{name}.parquet", table), rows)
        lines = (tmp_path / f"{name}.md").read_text(encoding="utf-8").splitlines()
        assert len(lines) == 2 + len(rows)


def test_a_table_with_a_fault_is_not_saved_and_the_old_one_stays(tmp_path: Path) -> None:
    path = tmp_path / "training.parquet"
    save(whole("training"), "training", path)
    before = {one.name: one.read_bytes() for one in tmp_path.iterdir()}
    with pytest.raises(BadTable, match=str(path)):
        save(whole("training").assign(steps=-1), "training", path)
    assert {one.name: one.read_bytes() for one in tmp_path.iterdir()} == before


def parts(folder: Path, seeds: int = 3) -> list[Path]:
    paths = [folder / f"T={T}" / "history.parquet" for T in (0.7, 0.2, 0.5)]
    for path in paths:
        T = float(path.parent.name.removeprefix("T="))
        rows = [PLACE | {"T": T, "seed": seed, "step": 10, "loss": T + seed} for seed in range(seeds)]
        write_rows(path, "history", rows)
    return paths


def test_the_tables_of_cells_become_one_in_the_order_of_the_cells(tmp_path: Path) -> None:
    paths = parts(tmp_path)
    found = collect(paths, "history")
    pd.testing.assert_frame_equal(found, pd.concat([read(path, "history") for path in paths], ignore_index=True))
    assert found["T"].unique().tolist() == [0.7, 0.2, 0.5]
    pd.testing.assert_frame_equal(collect([], "history"), empty("history"))


def test_every_file_with_a_fault_is_named_with_its_count(tmp_path: Path) -> None:
    paths = parts(tmp_path)
    for path, step in ((paths[0], -1), (paths[2], -2)):
        pq.write_table(pq.read_table(path).set_column(5, "step", [[step, step, 1]]), path)
    with pytest.raises(BadTable) as refused:
        collect(paths, "history")
    said = str(refused.value)
    assert all(f"{path} breaks the schema" in said for path in (paths[0], paths[2]))
    assert str(paths[1]) not in said
    assert said.count("step is below 0 (2 rows)") == 2


@pytest.mark.parametrize("fault", ["absent", "empty", "cut", "a folder", "another table"])
def test_a_part_that_is_no_table_is_named(tmp_path: Path, fault: str) -> None:
    paths = parts(tmp_path)
    path = paths[1]
    content = path.read_bytes()
    path.unlink()
    if fault == "a folder":
        path.mkdir()
    elif fault == "another table":
        save(whole("training"), "training", path)
    elif fault != "absent":
        path.write_bytes(content[:-20] if fault == "cut" else b"")
    with pytest.raises(BadTable, match=str(path)):
        collect(paths, "history")


def test_what_is_missing_is_listed_by_its_cell(tmp_path: Path) -> None:
    path = tmp_path / "dataset=toy" / "sde=vp" / "net=n" / "T=0.7" / "elbo.parquet"
    assert missing([path]).to_dict("records") == [PLACE | {"T": 0.7, "file": "elbo.parquet"}]
    assert missing([]).empty


def test_rows_take_the_columns_and_types_of_their_table() -> None:
    made = shaped([PLACE | {"file": "a"}], "missing")
    assert check(made, "missing", "made").to_dict("records") == [PLACE | {"file": "a"}]
    assert made["T"].dtype == np.float64
