"""The grid of a study: its cells, and the tables and figures that are made of them, by the registry."""

from __future__ import annotations

import itertools
from collections.abc import Iterable, Iterator
from dataclasses import dataclass

from difftime.study import registry
from difftime.study.settings.blocks import Block, cell_name, grid
from difftime.study.settings.datasets import family
from difftime.study.settings.files import BadSettings
from difftime.study.settings.measures import Family
from difftime.study.settings.noise import FITTED, NoiseName

COLLECTED = (*(table for one in registry.MEASUREMENTS.values() for table in one.tables), *registry.TRAINING, "runs")
"""The tables that are collected from the cells."""


@dataclass(frozen=True)
class Grid:
    """The cells of a study, how they are measured, and what is made of it.

    By data set: its `kind`; where the reverse process of its cells starts; its dimensions `d`, None for images.
    """

    study: tuple[Block, ...]
    kinds: dict[str, str]
    p_noise: dict[str, tuple[NoiseName, ...]]
    d: dict[str, int | None]
    pretrained: frozenset[str] = frozenset()
    """Networks that are not trained here."""
    skip: tuple[str, ...] = ()

    def datasets(self) -> list[str]:
        """The data sets that cells are on, each once."""
        return [*dict.fromkeys(name for block in self.study for name in block.dataset)]

    def nets(self, dataset: str) -> list[str]:
        """The networks that some data meet, each once."""
        return [*dict.fromkeys(net for block in self.study if dataset in block.dataset for net in block.net)]

    def family(self, dataset: str) -> Family:
        return family(self.kinds[dataset])

    def measured(self, measure: str | None, only: Family | None = None) -> list[str]:
        """The names of the cells that are measured so, or of all; of both kinds of data, or only of one."""
        return [
            cell_name(keys)
            for keys, block in grid(self.study)
            if measure in (None, *block.measure) and only in (None, self.family(keys["dataset"]))
        ]

    def parts(self, table: str) -> list[str]:
        """The names of the cells whose folders hold a table: a collected one, or one of single images."""
        only = registry.ONLY_OF.get(table)
        if table == "history":
            return [cell_name(keys) for keys, _ in grid(self.study) if self._has_history(keys)]
        if table in (*registry.TRAINING, "runs"):
            return self.measured(None, only)
        for measurement in registry.MEASUREMENTS.values():
            if table in (*measurement.tables, *measurement.units):
                return self.measured(measurement.name, only)
        raise BadSettings(f"No cell has a table called {table}; the tables of cells are {', '.join(COLLECTED)}.")

    def _has_history(self, keys: dict[str, str]) -> bool:
        return self.family(keys["dataset"]) == registry.ONLY_OF["history"] and keys["net"] not in self.pretrained

    def files(self, table: str) -> list[str]:
        """The files below `cells/` that a table is collected from. Of `runs` there is one per command and cell."""
        if table == "runs":
            return [f"{cell}/run_{run}.parquet" for cell, run in self._runs()]
        return [f"{cell}/{table}.parquet" for cell in self.parts(table)]

    def _runs(self) -> Iterator[tuple[str, str]]:
        """Every cell and command that leaves a record in it."""
        for keys, block in grid(self.study):
            fitted = [f"noise_{name}" for name in self.p_noise[keys["dataset"]] if name in FITTED]
            trained = [] if keys["net"] in self.pretrained else ["train"]
            for run in (*trained, *fitted, *block.measure):
                yield cell_name(keys), run

    def tables(self) -> list[str]:
        """The tables of the whole study: those collected from its cells, and what is made of these."""
        there = [table for table in COLLECTED if self.parts(table)]
        families = {self.family(dataset) for dataset in self.datasets()}
        for name, derived in registry.DERIVED.items():
            if {*derived.needs} <= {*there} and registry.ONLY_OF.get(name) in (None, *families):
                there.append(name)
        return there

    def facts(self, dataset: str, net: str | None = None) -> registry.Facts:
        """What is known beforehand of the cells on some data, or of those with one network."""
        blocks = [block for block in self.study if dataset in block.dataset and net in (None, *block.net)]
        curves: dict[tuple[str, str], set[float]] = {}
        for block in blocks:
            for sde, own in itertools.product(block.sde, block.net):
                if net in (None, own):
                    curves.setdefault((sde, own), set()).update(block.T)
        return registry.Facts(
            mixture=self.family(dataset) == "mixture",
            d=self.d[dataset],
            measures=frozenset(itertools.chain.from_iterable(block.measure for block in blocks)),
            times=max(map(len, curves.values()), default=0),
            nets=len({own for _, own in curves}),
            sdes=len({sde for sde, _ in curves}),
            p_noises=len(self.p_noise[dataset]),
            trained=not {own for _, own in curves} <= self.pretrained,
        )

    def figures(self) -> list[tuple[str, str, str | None]]:
        """Every figure with its data set, and with its network or None: all that make sense, but for skipped ones."""
        return [
            (figure.name, dataset, net)
            for figure in registry.FIGURES.values()
            if figure.name not in self.skip
            for dataset in self.datasets()
            for net in self._nets_of(figure, dataset)
            if figure.when(self.facts(dataset, net))
        ]

    def _nets_of(self, figure: registry.Figure, dataset: str) -> Iterable[str | None]:
        return self.nets(dataset) if figure.each_net else [None]
