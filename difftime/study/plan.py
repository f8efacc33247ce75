"""What the rules ask of a study: the files of a job, its settings as parameters, and what it needs of the machine.

The rules bind these methods, which Snakemake calls with the wildcards of a job: its dataset, sde, net, T, table, ...
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable
from functools import cache
from pathlib import Path
from types import SimpleNamespace
from typing import Any

from difftime.explore import NEEDS, WANTS
from difftime.figures import caption
from difftime.images.kinds import KINDS
from difftime.images.listing import listing
from difftime.study.fingerprint import fingerprint
from difftime.study.registry import DERIVED, FIGURES, FINDINGS, MEASUREMENTS, OPENING
from difftime.study.settings import (
    FITTED,
    KEYS,
    PretrainedSettings,
    Study,
    asked_for,
    cell_name,
    plain_study,
    what_it_is,
)
from difftime.support.plain import flat
from difftime.tables.schema import CAPTIONS

Wildcards = Any
"""Snakemake's, or any object with such attributes."""
Parameters = dict[str, Callable[[Wildcards], str | None]]
MEASURED = (*MEASUREMENTS, *(f"noise_{name}" for name in FITTED))
"""What has a file of settings: every measurement, and every p_noise that is fitted."""


def parameters(of: Callable[[Wildcards], dict[str, str]], jobs: Iterable[Wildcards]) -> Parameters:
    """Parameters of a rule, one per setting that any of its jobs has: Snakemake names those that changed.

    A job without a setting has null there. One null is in every job: another data set in the study, with settings of
    its own, must be no change of a job that has none of them.
    """

    def parameter(name: str) -> Callable[[Wildcards], str | None]:
        def value(wildcards: Wildcards) -> str | None:
            found = of(wildcards)
            return f"{name} = {found[name]}" if name in found else None

        return value

    names = sorted({name for job in jobs for name in of(job)})
    absent: Parameters = {"absent": lambda wildcards: None}
    return absent | {name.replace(".", "_"): parameter(name) for name in names}


class Plan:
    """A study as the rules see it."""

    def __init__(self, study: Study) -> None:
        self.study, self.cells, self.results = study, study.cells(), study.results
        self._of_cell = cache(self._settings_of_cell)
        self._of_measurement = cache(self._settings_of_measurement)
        self._of_images = cache(self._settings_of_images)

    def is_mixture(self, dataset: str) -> bool:
        return self.cells.family(dataset) == "mixture"

    # settings

    def study_parameters(self) -> dict[str, str]:
        """The whole study, by numbers: the names of its settings may be none of parameters."""
        settings = sorted(flat(plain_study(self.study)).items())
        return {f"s{k}": f"{name} = {value}" for k, (name, value) in enumerate(settings)}

    def cell_parameters(self) -> Parameters:
        return parameters(self.of_cell, [SimpleNamespace(**keys) for keys, _ in self.study.grid()])

    def measurement_parameters(self) -> Parameters:
        jobs = [
            SimpleNamespace(dataset=dataset, measurement=name)
            for dataset in self.cells.datasets()
            for name in MEASURED
        ]  # fmt: skip
        return parameters(self.of_measurement, jobs)

    def images_parameters(self) -> Parameters:
        names = [name for name in self.cells.datasets() if not self.is_mixture(name)]
        return parameters(self.of_images, [SimpleNamespace(dataset=name) for name in names])

    def of_cell(self, wildcards: Wildcards) -> dict[str, str]:
        """What determines the weights of a cell, setting by setting."""
        return self._of_cell(wildcards.dataset, wildcards.sde, wildcards.net, wildcards.T)

    def of_measurement(self, wildcards: Wildcards) -> dict[str, str]:
        """What determines a measurement of the cells on some data, or how a p_noise is fitted, setting by setting."""
        return self._of_measurement(wildcards.dataset, wildcards.measurement)

    def of_images(self, wildcards: Wildcards) -> dict[str, str]:
        """What images these are, setting by setting, and what a cheap look says of the files."""
        return self._of_images(wildcards.dataset)

    def _settings_of_cell(self, dataset: str, sde: str, net: str, T: str) -> dict[str, str]:
        return flat(self.study.cell(dataset, sde, net, T).model_dump(mode="json"))

    def _settings_of_measurement(self, dataset: str, name: str) -> dict[str, str]:
        if name in MEASUREMENTS:
            return flat(self.study.measurement(dataset, name))
        return flat(getattr(self.study.noise, name.removeprefix("noise_")).model_dump(mode="json"))

    def _settings_of_images(self, dataset: str) -> dict[str, str]:
        data = self.study.datasets[dataset]
        path = getattr(data, "path", None)
        return flat({**what_it_is(data), "files": listing(Path(path)) if path and KINDS[data.kind].own else ""})

    # files

    def images(self, wildcards: Wildcards) -> list[str]:
        """The file that says that a cell's images are there, and which they are; none for a mixture."""
        return [] if self.is_mixture(wildcards.dataset) else [f"{self.results}/data/{wildcards.dataset}.json"]

    def fitted(self, wildcards: Wildcards) -> list[str]:
        """The files of the p_noises that are fitted."""
        names = [name for name in self.study.noises(wildcards.dataset) if name in FITTED]
        return [f"{self._cell(wildcards)}/noise_{name}.safetensors" for name in names]

    def model(self, wildcards: Wildcards) -> list[str]:
        """The file that says which model a pretrained network is; none for a network that is trained."""
        return [f"{self._cell(wildcards)}/model.json"] if wildcards.net in self.cells.pretrained else []

    def weights(self, wildcards: Wildcards) -> list[str]:
        """What says which network a cell has: its trained weights, or which model it is."""
        return self.model(wildcards) or [f"{self._cell(wildcards)}/weights.safetensors"]

    def pretrained(self) -> str:
        """A pattern of the pretrained networks; without any, one that no text has."""
        return "|".join(map(re.escape, self.study.pretrained())) or "(?!)"

    def trained(self) -> str:
        """A pattern of all other names."""
        return f"(?!(?:{self.pretrained()})/)[^/=]+"

    def files_of_model(self, wildcards: Wildcards) -> str:
        """The contents of a model's files; of one's own code, which is no file here, nothing."""
        network = self.study.nets[wildcards.net]
        return listing(Path(network.path)) if isinstance(network, PretrainedSettings) else ""

    def parts(self, wildcards: Wildcards) -> list[str]:
        """The tables of single cells that a table is collected from."""
        return self._parts(wildcards.dataset, wildcards.table)

    def sources(self, wildcards: Wildcards) -> dict[str, str | list[str]]:
        """The tables, by their names, that a derived table is made from, and the cells' values of each image."""
        entry, dataset = DERIVED[wildcards.table], wildcards.dataset
        planned = self.cells.tables(dataset)
        tables = [name for name in (*entry.needs, *entry.wants) if name in planned]
        units = {name: self._parts(dataset, name) for name in entry.units}
        return {name: self._table(dataset, name) for name in tables} | units

    def shown(self, wildcards: Wildcards) -> str:
        """The table that a figure shows."""
        return self._table(_dataset(wildcards), FIGURES[wildcards.figure].table)

    def tables(self) -> list[str]:
        """All tables of the study."""
        names = self.cells.datasets()
        return [self._table(dataset, table) for dataset in names for table in self.cells.tables(dataset)]

    def figures(self) -> list[str]:
        """All figures of the study."""
        return [f"{self._figure(*one)}.pdf" for one in self.cells.figures()]

    def told(self) -> list[str]:
        """The tables that the explorer and the findings are made of."""
        return [path for path in self.tables() if Path(path).stem in (*NEEDS, *WANTS, *FINDINGS)]

    def opening(self) -> list[str]:
        """The figures that the report opens with: of every data set one, of the first network where each has one."""
        first: dict[str, str] = {}
        for name, dataset, net in self.cells.figures():
            if name in OPENING:
                first.setdefault(dataset, f"{self._figure(name, dataset, net)}.png")
        return [*first.values()]

    def _cell(self, wildcards: Wildcards) -> str:
        """The folder of a cell."""
        return f"{self.results}/cells/{cell_name({key: getattr(wildcards, key) for key in KEYS})}"

    def _figure(self, name: str, dataset: str, net: str | None) -> str:
        """Where a figure lies, without its suffix."""
        return f"{self.results}/figures/{dataset}/{f'{net}/' if net else ''}{name}"

    def _parts(self, dataset: str, table: str) -> list[str]:
        return [f"{self.results}/cells/{part}" for part in self.cells.files(dataset, table)]

    def _table(self, dataset: str, table: str) -> str:
        return f"{self.results}/tables/{dataset}/{table}.parquet"

    # what tables and figures are told, and the code that makes them

    def plain(self, wildcards: Wildcards) -> dict[str, Any]:
        return self.study.plain(wildcards.dataset)

    def style(self, wildcards: Wildcards) -> dict[str, Any]:
        return self.study.style(_dataset(wildcards))

    def caption(self, wildcards: Wildcards) -> str:
        return caption(wildcards.figure)

    def said(self, wildcards: Wildcards) -> str:
        return CAPTIONS[wildcards.table]

    def made_by(self, wildcards: Wildcards) -> str:
        return fingerprint(DERIVED[wildcards.table].module)

    def drawn_by(self, wildcards: Wildcards) -> str:
        return fingerprint(f"figures.{wildcards.figure}")

    # the machine

    def memory(self, wildcards: Wildcards, attempt: int) -> int:
        """MB: PyTorch itself takes 300; a retry gets more."""
        return self._asked(wildcards, "memory", 1000) * attempt

    def minutes(self, wildcards: Wildcards, attempt: int) -> int:
        return self._asked(wildcards, "minutes", 30) * attempt

    def gpus(self, wildcards: Wildcards) -> int:
        return self._asked(wildcards, "gpu", 0)

    def one_gpu(self, wildcards: Wildcards) -> int:
        """For what is not shared among several."""
        return min(self.gpus(wildcards), 1)

    def cpus(self, wildcards: Wildcards) -> int:
        """At least one for each of the processes that share the work."""
        return max(self._asked(wildcards, "threads", 1), self.gpus(wildcards))

    def group(self, wildcards: Wildcards) -> str | None:
        """That of jobs that are too short for a submission of their own; images are in none."""
        return "cell" if self.is_mixture(wildcards.dataset) else None

    def _asked(self, wildcards: Wildcards, name: str, usual: int) -> int:
        """What the network of a cell, or else its data, say of a job; mixtures, and jobs of no cell, take the usual."""
        if not hasattr(wildcards, "net"):
            return usual
        return asked_for(self.study.datasets[wildcards.dataset], self.study.nets[wildcards.net], name, usual)


def _dataset(wildcards: Wildcards) -> str:
    """The data set of a figure, whose place is "dataset" or "dataset/net"."""
    return wildcards.place.partition("/")[0]
