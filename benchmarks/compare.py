"""Compare the tables of two results folders, column by column: `python benchmarks/compare.py OLD NEW`.

For a change of the code that is not to move a number. Every table and column that both have is compared to the bit, row
by row by their key columns; what was renamed since is in RENAMED. Exceptions are listed with the largest difference,
and, where the column has a standard error beside it, with how many of those it is. The exit status is 1 if an old row
lacks in the new table, or a column differs by more than `--errors` of its standard errors, or has none and differs by
more than `--relative` of its largest value. Costs in time are left out.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Iterable
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import pandas as pd

KEYS = (
    "dataset", "sde", "net", "T", "seed", "p_noise", "sampler", "method", "model", "mode", "left", "t", "unit", "draw",
    "step", "image", "quantity", "command",
)  # fmt: skip
"""Columns that name a row, as far as a table has them."""


@dataclass(frozen=True)
class Renamed:
    """An older table as a part of a newer one: column by column, and the rows of the new one that it had."""

    new: str
    columns: dict[str, str] = field(default_factory=dict)
    rows: dict[str, str] = field(default_factory=dict)
    """Values that the new table's rows have in some columns."""


RENAMED = {
    "image_elbo": Renamed(
        "elbo",
        {
            "elbo": "elbo_x0", "elbo_se": "elbo_x0_se", "elbo_epsilon": "elbo", "elbo_epsilon_se": "elbo_se",
            "residual": "decoder", "residual_se": "decoder_se", "images": "units",
        },
    ),
    "image_elbo_images": Renamed(
        "elbo_units", {"elbo": "elbo_x0", "elbo_epsilon": "elbo", "residual": "decoder", "image": "unit"}
    ),
    "bpd": Renamed("likelihood", {"images": "units"}),
    "bpd_images": Renamed("likelihood_units", {"image": "unit"}),
    "likelihood": Renamed("likelihood", {"points": "units"}),
    "samples": Renamed("samples", {"points": "units"}),
    "image_quality": Renamed("samples", {"images": "units"}, {"sampler": "sde"}),
    "image_samples": Renamed("images"),
    "running": Renamed("curve"),
    "optimum": Renamed("optimum", {}, {"method": "trained"}),
    "table1": Renamed("table1", {"images": "units", "elbo_images": "elbo_units"}),
    "scout": Renamed("optimum", {}, {"method": "few"}),
}  # fmt: skip
"""What the first house's tables became. Those not named here have kept their name and columns."""
LEFT_OUT = {
    "runs": None, "cost": None, "training": ("seconds", "device", "points_per_second"),
    "history": ("seconds", "images_per_second", "points_per_second"),
    "table1": ("device", "images_per_second"),
    "tradeoff": ("training_seconds", "training_device"),
}  # fmt: skip
"""Costs, which differ from run to run: tables, or columns of one."""


@dataclass(frozen=True)
class Difference:
    """One column of one table; a difference in standard errors where there are any, and relative to the largest value.

    `most` is NaN for a column that is not of numbers.
    """

    table: str
    column: str
    rows: int
    most: float
    relative: float
    errors: float

    def __str__(self) -> str:
        size = "" if np.isnan(self.most) else f", by at most {self.most:.3g}"
        errors = "" if np.isnan(self.errors) else f", {self.errors:.2g} standard errors"
        return f"{self.table}.{self.column} differs in {self.rows} rows{size}{errors}"

    def within(self, errors: float, relative: float) -> bool:
        """Whether it is small enough."""
        return self.relative <= relative if np.isnan(self.errors) else self.errors <= errors


@dataclass(frozen=True)
class Compared:
    """What the comparison of two tables found."""

    table: str
    columns: int
    rows: int
    only_old: int
    only_new: int
    differences: list[Difference]

    def __str__(self) -> str:
        lack = f", {self.only_old} rows only in the old" if self.only_old else ""
        lack += f", {self.only_new} rows only in the new" if self.only_new else ""
        equal = self.columns - len(self.differences)
        return f"{self.table}: {equal} of {self.columns} columns equal to the bit in {self.rows} rows{lack}"


def read(folder: Path, table: str) -> pd.DataFrame | None:
    """A table of all data sets, or the same from all cells; None if there is none."""
    paths = sorted(folder.glob(f"tables/**/{table}.parquet")) or sorted(folder.glob(f"cells/**/{table}.parquet"))
    return pd.concat(map(pd.read_parquet, paths), ignore_index=True) if paths else None


def tables_in(folder: Path) -> list[str]:
    """The names of all tables in a results folder, those of single cells too."""
    return sorted({path.stem for path in [*folder.glob("tables/**/*.parquet"), *folder.glob("cells/**/*.parquet")]})


def compare(name: str, old: pd.DataFrame, new: pd.DataFrame) -> Compared:
    """An old table, with the old name, and the new one that it became."""
    renamed = RENAMED.get(name, Renamed(name))
    old = old.rename(columns=renamed.columns)
    for column, value in renamed.rows.items():
        if column in new:
            new = new[new[column] == value]
        if column in KEYS and column not in old and column in new:
            old = old.assign(**{column: value})
    keys = [key for key in KEYS if key in old and key in new]
    # of two old tables in one new one, each has its own rows there
    new = new[new.dataset.isin(old.dataset.unique())] if "dataset" in new else new
    both = old.merge(new, on=keys, how="outer", suffixes=("", " new"), indicator=True, validate="one_to_one")
    shared = [column for column in old if column in new and column not in keys]
    found = both[both["_merge"] == "both"]
    columns = [column for column in shared if column not in (LEFT_OUT.get(name) or ())]
    parts = [_column(name, column, found) for column in columns]
    count = both["_merge"].value_counts()
    return Compared(
        f"{name} → {renamed.new}" if renamed.new != name else name, len(columns), len(found),
        int(count.get("left_only", 0)), int(count.get("right_only", 0)), [part for part in parts if part],
    )  # fmt: skip


def _column(table: str, column: str, both: pd.DataFrame) -> Difference | None:
    old, new = both[column], both[f"{column} new"]
    same = (old == new) | (old.isna() & new.isna())
    if same.all():
        return None
    rows, none = int((~same).sum()), float("nan")
    if not all(pd.api.types.is_numeric_dtype(part) and not pd.api.types.is_bool_dtype(part) for part in (old, new)):
        return Difference(table, column, rows, none, np.inf, none)
    apart = (old.astype(float) - new.astype(float)).abs()
    # null in one of the two is any distance apart
    apart = apart.where(~same, 0.0).where(old.isna() == new.isna(), np.inf)
    most, largest = float(apart.max()), float(np.nanmax([old.abs().max(), 1e-300]))
    errors = none
    error = "se" if column == "mean" else f"{column}_se"
    if error in both and not column.endswith("_se"):
        se = both[error].astype(float)
        known = se > 0
        errors = float((apart[known] / se[known]).max()) if known.any() and not apart[~known].any() else none
    return Difference(table, column, rows, most, most / largest, errors)


def compared(old: Path, new: Path) -> Iterable[Compared | str]:
    """Every table of the old folder with the new one that it became, or the word that it has none."""
    for name in tables_in(old):
        if LEFT_OUT.get(name, ()) is None or name.startswith("run_"):
            continue
        left, right = read(old, name), read(new, RENAMED.get(name, Renamed(name)).new)
        if left is None or right is None:
            yield f"{name}: not in the new results"
        else:
            yield compare(name, left, right)


def main() -> int:
    """Print the comparison; 1 if something differs by more than it may."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("old", type=Path)
    parser.add_argument("new", type=Path)
    parser.add_argument("--errors", type=float, default=3.0, help="standard errors that a column may differ by")
    parser.add_argument("--relative", type=float, default=1e-12, help="of a column without a standard error")
    options = parser.parse_args()
    bad = False
    for found in compared(options.old, options.new):
        print(found)
        if isinstance(found, Compared):
            bad |= found.only_old > 0
            for one in found.differences:
                within = one.within(options.errors, options.relative)
                bad |= not within
                print(f"  {'' if within else 'BEYOND: '}{one}")
    return int(bad)


if __name__ == "__main__":
    sys.exit(main())
