"""Tables on disk: read and checked against their schema, collected from cells, and written for machines and people."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq

from difftime.support.files import atomic
from difftime.tables.render import markdown, page
from difftime.tables.schema import TABLES, Column, arrow_schema

CELL = ["dataset", "sde", "net", "T"]
"""The columns that name a cell."""
CURVE = ["dataset", "sde", "net", "p_noise"]
"""The columns that name one curve over T."""


class BadTable(Exception):
    """A table is missing, damaged or breaks its schema; the message names the file and every fault."""


def read(path: Path, table: str) -> pd.DataFrame:
    """A table from its Parquet file, checked against its schema. Raises BadTable."""
    return check(_arrow(path).to_pandas(), table, str(path))


def collect(paths: Iterable[Path], table: str) -> pd.DataFrame:
    """The tables of single cells as one, in the order of the paths. Raises BadTable, naming every file with a fault."""
    parts = {path: _arrow(path) for path in paths}
    schema = arrow_schema(table)
    for path, part in parts.items():
        if part.schema.names != schema.names:
            check(part.to_pandas(), table, str(path))
    frame = pa.concat_tables([part.cast(schema) for part in parts.values()] or [schema.empty_table()]).to_pandas()
    try:
        return check(frame, table, "The collected table")
    except BadTable:
        faults = [fault for path in parts if (fault := _fault_of(path, table))]
        raise BadTable("\n".join(faults)) from None


def _fault_of(path: Path, table: str) -> str:
    try:
        read(path, table)
    except BadTable as error:
        return str(error)
    return ""


def _arrow(path: Path) -> pa.Table:
    try:
        return pq.ParquetFile(path).read()
    except (OSError, ValueError) as error:
        raise BadTable(f"{path} cannot be read as a Parquet table ({error}). Delete it and run again.") from error


def check(frame: pd.DataFrame, table: str, source: str) -> pd.DataFrame:
    """`frame` if it keeps the schema of `table`, else BadTable with every fault and how many rows have it."""
    names = [column.name for column in TABLES[table]]
    if list(frame.columns) != names:
        odd = sorted({*frame.columns} ^ {*names}) or "another order"
        raise BadTable(f"{source} is no table '{table}': it lacks or adds the columns {odd}.")
    found = [(column.name, rule, count) for column in TABLES[table] for rule, count in _broken(frame, column) if count]
    if found:
        lines = [f"  - {name} {rule} ({count} row{'s' if count > 1 else ''})" for name, rule, count in found]
        raise BadTable(f"{source} breaks the schema of the table '{table}':\n" + "\n".join(lines))
    return frame


def _broken(frame: pd.DataFrame, column: Column) -> list[tuple[str, int]]:
    """The rules of a column, and in how many rows each is broken."""
    values = frame[column.name]
    null = values.isna().to_numpy()
    there = values[~null]
    rules = [] if column.nullable else [("is null", int(null.sum()))]
    if column.type in ("string", "binary", "bool"):
        kind = {"string": (str,), "binary": (bytes,), "bool": (bool, np.bool_)}[column.type]
        return [*rules, (f"is not of type {column.type}", sum(not isinstance(value, kind) for value in there))]
    try:
        number = there.to_numpy(float)
    except (TypeError, ValueError):
        return [*rules, ("is not a number", len(there))]
    finite = np.isfinite(number)
    rules.append(("is not finite", int((~finite).sum())))
    number = number[finite]
    if column.type == "int64":
        rules.append(("is not a whole number", int((number != np.round(number)).sum())))
    if column.low is not None:
        rules.append((f"is below {column.low:g}", int((number < column.low).sum())))
    if column.high is not None:
        rules.append((f"is above {column.high:g}", int((number > column.high).sum())))
    return rules


def missing(paths: Iterable[Path]) -> pd.DataFrame:
    """The table `missing` for parts of cells that are not there: .../dataset=.../sde=.../net=.../T=.../file."""
    rows = []
    for path in paths:
        keys = dict(part.split("=", 1) for part in path.parts if "=" in part)
        rows.append({key: keys[key] for key in CELL[:3]} | {"T": float(keys["T"]), "file": path.name})
    return pd.DataFrame(rows) if rows else empty("missing")


def empty(table: str) -> pd.DataFrame:
    """A table without rows, for what a study does not measure."""
    return arrow_schema(table).empty_table().to_pandas()


def shaped(rows: Iterable[Mapping[Any, object]], table: str) -> pd.DataFrame:
    """Rows as a frame with the columns and types of a table; what a row lacks is null."""
    frame = pd.DataFrame(list(rows), columns=[column.name for column in TABLES[table]])
    arrays = [pa.array(frame[column.name], arrow.type, from_pandas=True) for column, arrow in _fields(table)]
    return pa.Table.from_arrays(arrays, names=list(frame.columns)).to_pandas()


def _fields(table: str) -> zip[tuple[Column, pa.Field]]:
    return zip(TABLES[table], arrow_schema(table), strict=True)


def save(frame: pd.DataFrame, table: str, path: Path) -> None:
    """Write a table as Parquet, and beside it as Markdown and as HTML for the report. Raises BadTable."""
    check(frame, table, str(path))
    arrays = [pa.array(frame[column.name], arrow.type, from_pandas=True) for column, arrow in _fields(table)]
    with atomic(path) as temporary:
        pq.write_table(pa.Table.from_arrays(arrays, schema=arrow_schema(table)), temporary)
    shown = labelled(frame, table)
    for suffix, text in ((".md", markdown(shown)), (".html", page(table, shown))):
        with atomic(path.with_suffix(suffix)) as temporary:
            temporary.write_text(text, encoding="utf-8")


def labelled(frame: pd.DataFrame, table: str) -> pd.DataFrame:
    """The same frame with the units in its header."""
    units = {column.name: column.unit for column in TABLES[table]}
    return frame.set_axis([f"{n} [{units[n]}]" if units[n] not in ("", "1") else n for n in frame.columns], axis=1)
