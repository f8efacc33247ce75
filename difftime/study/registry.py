"""What is measured, tabled and drawn: one entry each, read by the rules, by `collect`, by the report and by the docs.

A measurement is a command, a rule and a module of `study.commands` of the same name; it leaves tables in a cell's
folder. Those of all cells on some data are collected as one. A derived table is a function of other tables of the same
data set. A figure is a module of `figures` that draws one of them. No table is of two data sets: nothing compares them.
"""

from __future__ import annotations

from collections.abc import Callable, Collection
from dataclasses import dataclass
from typing import Literal


@dataclass(frozen=True)
class Measurement:
    """`tables` are collected from the cells; `units` have a row per image and stay in the cells."""

    name: str
    tables: tuple[str, ...]
    units: tuple[str, ...] = ()


@dataclass(frozen=True)
class Derived:
    """`function`, "module:name", makes a table of {table: frame} and of plain settings, all of one data set.

    A data set without one of the tables in `needs` has no such table; those in `wants`, and the cells' `units`, are
    handed over where the data set has them, and as tables without rows where it has not.
    """

    name: str
    function: str
    needs: tuple[str, ...]
    wants: tuple[str, ...] = ()
    units: tuple[str, ...] = ()
    texts: str | None = None
    """"module:name" of what makes {".md": text, ".tex": text} of it; None: all columns as they are."""

    def possible(self, there: Collection[str]) -> bool:
        """Whether it can be made of these tables, and has something to say."""
        return {*self.needs} <= {*there} and not {*self.needs, *self.wants}.isdisjoint(there)

    @property
    def module(self) -> str:
        """The module of the function, as `fingerprint` names it."""
        return self.function.partition(":")[0].removeprefix("difftime.")


@dataclass(frozen=True)
class Facts:
    """What the settings say of the cells that a figure would show: those of a data set, or of one network of it."""

    mixture: bool
    d: int | None
    """Dimensions of a mixture; None for images, which nobody has read yet."""
    measures: frozenset[str]
    times: int
    """How many T the curve of most T has."""
    nets: int
    sdes: int
    p_noises: int
    trained: bool
    """Whether any of their networks is trained here."""


@dataclass(frozen=True)
class Figure:
    """Drawn of every data set, and of every network of it for `each_net`, of which `when` holds."""

    name: str
    table: str
    each_net: bool
    when: Callable[[Facts], bool]


MEASUREMENTS = {
    one.name: one
    for one in (
        Measurement("elbo", ("elbo", "curve", "levels"), ("elbo_units", "curve_units")),
        Measurement("likelihood", ("likelihood",), ("likelihood_units",)),
        Measurement("samples", ("samples", "few_steps", "modes", "histogram", "images")),
    )
}
MEASURED_BY = {table: one.name for one in MEASUREMENTS.values() for table in (*one.tables, *one.units)}
"""The measurement that leaves a table in a cell."""
TRAINING = ("training", "history")
"""The tables that `train` leaves."""
ONLY_OF: dict[str, Literal["mixture", "images"]] = {
    "modes": "mixture", "histogram": "mixture", "bounds": "mixture",
    "images": "images", "history": "images", "table1": "images",
    "elbo_units": "images", "curve_units": "images", "likelihood_units": "images",
}  # fmt: skip
"""Tables that only one kind of data has."""

DERIVED = {
    one.name: one
    for one in (
        Derived("optimum", "difftime.optimum.best:optimum", ("elbo", "curve"), units=("elbo_units", "curve_units")),
        Derived(
            "prediction", "difftime.optimum.best:prediction", ("elbo", "curve", "optimum"),
            units=("elbo_units", "curve_units"),
        ),
        Derived("bounds", "difftime.tables.bounds:bounds", ("elbo", "likelihood")),
        Derived(
            "summary", "difftime.tables.summary:summary", ("elbo", "optimum", "training"), ("likelihood", "samples")
        ),
        Derived("steps", "difftime.tables.steps:steps", ("few_steps", "samples")),
        Derived(
            "table1", "difftime.tables.paper:table1", ("training",), ("elbo", "likelihood"),
            ("elbo_units", "likelihood_units"), "difftime.tables.paper:texts",
        ),
        Derived(
            "cheapest", "difftime.optimum.cheapest:cheapest", (), ("elbo", "likelihood", "samples"),
            ("elbo_units", "likelihood_units"), "difftime.optimum.cheapest:texts",
        ),
        Derived(
            "tradeoff", "difftime.optimum.tradeoff:tradeoff", ("training", "cheapest"),
            ("elbo", "likelihood", "samples"), ("elbo_units", "likelihood_units"),
        ),
    )
}  # fmt: skip

FIGURES = {
    one.name: one
    for one in (
        Figure("fig1", "samples", True, lambda of: of.mixture and "samples" in of.measures),
        Figure("fig2", "summary", True, lambda of: of.mixture and "elbo" in of.measures),
        Figure("fig3", "summary", False, lambda of: of.mixture and "elbo" in of.measures and of.nets > 1),
        Figure("fig4", "histogram", True, lambda of: of.d == 1 and "samples" in of.measures),
        Figure("quality", "samples", True, lambda of: of.mixture and "samples" in of.measures),
        Figure("steps", "steps", True, lambda of: "samples" in of.measures),
        Figure("cost", "samples", True, lambda of: of.mixture and "samples" in of.measures),
        Figure("noises", "summary", True, lambda of: "elbo" in of.measures and of.p_noises > 1),
        Figure("prediction", "prediction", True, lambda of: "elbo" in of.measures and (of.times > 1 or not of.trained)),
        Figure("levels", "levels", True, lambda of: "elbo" in of.measures),
        Figure(
            "sensitivity",
            "optimum",
            False,
            lambda of: "elbo" in of.measures and of.times > 1 and (of.nets > 1 or of.sdes > 2),
        ),
        Figure("table1", "table1", False, lambda of: not of.mixture and bool({"elbo", "likelihood"} & of.measures)),
        Figure("images", "images", True, lambda of: not of.mixture and "samples" in of.measures),
        Figure("learning", "history", False, lambda of: not of.mixture and of.trained),
        Figure("tradeoff", "tradeoff", True, lambda of: bool({"likelihood", "samples"} & of.measures)),
    )
}
COMMANDS = ("train", "model", "fit_noise", *MEASUREMENTS)
"""The commands that the rules call, each a module of `study.commands`."""
FINDINGS = ("optimum", "cheapest", "bounds", "elbo", "likelihood", "samples")
"""The tables that the findings are told from, with which the report opens."""
OPENING = ("fig2", "table1")
"""The figures beside them, of mixtures and of images."""


def modules() -> list[str]:
    """The modules whose fingerprints the rules name."""
    commands, figures = (f"study.commands.{name}" for name in COMMANDS), (f"figures.{name}" for name in FIGURES)
    tables = {entry.module for entry in DERIVED.values()}
    return [*commands, "study.pages", "tables.parquet", *sorted(tables), *figures]
