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

    def cells(self, dataset: str) -> list[tuple[dict[str, str], Block]]:
        """The key columns of the cells on some data, and the block that each is from."""
        return [(keys, block) for keys, block in grid(self.study) if keys["dataset"] == dataset]

    def parts(self, dataset: str, table: str) -> list[str]:
        """The names of the cells on some data whose folders hold a table: a collected one, or one of single images.

        Raises BadSettings for a data set that no cell is on, and for a table that no cell can have.
        """
        if dataset not in self.datasets():
            raise BadSettings(f"No cell is on data called {dataset}; there are cells on {', '.join(self.datasets())}.")
        if table in (*registry.TRAINING, "runs"):
            measure = None
        elif (measure := registry.MEASURED_BY.get(table)) is None:
            raise BadSettings(f"No cell has a table called {table}; the tables of cells are {', '.join(COLLECTED)}.")
        cells = self.cells(dataset) if self._has(dataset, table) else []
        without = self.pretrained if table == "history" else ()
        return [
            cell_name(keys) for keys, block in cells
            if measure in (None, *block.measure) and keys["net"] not in without
        ]  # fmt: skip

    def _has(self, dataset: str, table: str) -> bool:
        """Whether data of this kind have such a table."""
        return registry.ONLY_OF.get(table) in (None, self.family(dataset))

    def files(self, dataset: str, table: str) -> list[str]:
        """The files below `cells/` that a table is collected from. Of `runs` there is one per command and cell."""
        if table == "runs":
            return [f"{cell}/run_{run}.parquet" for cell, run in self._runs(dataset)]
        return [f"{cell}/{table}.parquet" for cell in self.parts(dataset, table)]

    def _runs(self, dataset: str) -> Iterator[tuple[str, str]]:
        """Every cell on some data, and every command that leaves a record in it."""
        fitted = [f"noise_{name}" for name in self.p_noise[dataset] if name in FITTED]
        for keys, block in self.cells(dataset):
            trained = [] if keys["net"] in self.pretrained else ["train"]
            for run in (*trained, *fitted, *block.measure):
                yield cell_name(keys), run

    def tables(self, dataset: str) -> list[str]:
        """The tables of a data set: those collected from its cells, and what is made of these."""
        there = [table for table in COLLECTED if self.parts(dataset, table)]
        for name, derived in registry.DERIVED.items():
            if derived.possible(there) and self._has(dataset, name):
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
