"""A whole study: what its files say, checked together, and what the pipeline needs of it."""

from __future__ import annotations

import itertools
import os
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Annotated, Any

from pydantic import AfterValidator, Field, field_validator, model_validator

from difftime.study import registry
from difftime.study.settings.base import Check, Filled, HomePath, Info, Listed, Name, Positive, Settings, Whole
from difftime.study.settings.blocks import Block, cell_name, grid
from difftime.study.settings.cell import Cell
from difftime.study.settings.datasets import DatasetSettings, asked_for, family, training_of, what_it_is
from difftime.study.settings.errors import fault, refuse
from difftime.study.settings.figures import FigureSettings
from difftime.study.settings.grid import Grid
from difftime.study.settings.images import ImageNeeds
from difftime.study.settings.measures import (
    MEASUREMENTS,
    ElboSettings,
    LikelihoodSettings,
    SampleSettings,
)
from difftime.study.settings.mixtures import MixtureSettings
from difftime.study.settings.nets import JobSettings, NCSNppSettings, NetSettings, PretrainedSettings, Trained
from difftime.study.settings.noise import FITTED, NoiseName, NoiseSettings
from difftime.study.settings.optimum import OptimumSettings
from difftime.study.settings.own import own_T
from difftime.study.settings.sdes import SDESettings
from difftime.tables import published


def _folder(path: str) -> str:
    """Refuse the name of a folder that Snakemake would take for a pattern, or a command for an option."""
    if not path.strip() or set(path) & set("{}"):
        raise ValueError("must be the path of a folder, without { and }")
    path = os.path.normpath(path)
    if path.startswith("-"):
        raise ValueError("must not begin with a dash, which commands take for an option; name another folder")
    return path


def _writable(path: str) -> str:
    """Refuse a folder that can neither be written nor made."""
    place = Path(path)
    while not os.path.lexists(place):
        place = place.parent
    if not place.is_dir():
        raise ValueError(f"cannot be made, as {place} is not a folder; name another one")
    if not os.access(place, os.W_OK | os.X_OK):
        raise ValueError(f"cannot be written, as {place} is read-only for you; name another folder")
    return path


Folder = Annotated[HomePath, AfterValidator(_folder)]


def _first_times(blocks: Iterable[Block], sdes: Mapping[str, Any]) -> set[tuple[str, str, float]]:
    """Data set, SDE and smallest T of the blocks whose ELBO is measured."""
    measured = [block for block in blocks if "elbo" in block.measure]
    pairs = [(pair, min(block.T)) for block in measured for pair in itertools.product(block.dataset, block.sde)]
    return {(dataset, sde, T) for (dataset, sde), T in pairs if sde in sdes}


class Study(Settings):
    """A whole configuration file."""

    results: Folder = Field(default="results", description="The folder that everything is written to")
    seed: Whole = Field(
        default=0,
        description="Every random number derives from it, but for what all studies share so that they compare: which "
        "test images are measured, directions and floors of Wasserstein distances, reference points of mode shares",
    )
    datasets: dict[Name, DatasetSettings] = Field(min_length=1, description="Data by name")
    sdes: dict[Name, SDESettings] = Field(min_length=1, description="Forward SDEs by name")
    nets: dict[Name, NetSettings] = Field(min_length=1, description="Networks by name")
    p_noise: Listed[NoiseName] = Field(
        default=("standard", "matched"), description="Where the reverse process starts; a data set may have its own"
    )
    noise: NoiseSettings = Field(default=NoiseSettings(), description="How each p_noise that is fitted is fitted")
    study: Filled[Block] = Field(description="The grid: every combination within a block is a cell")
    elbo: ElboSettings = Field(default=ElboSettings(), description="The measurement elbo")
    likelihood: LikelihoodSettings = Field(default=LikelihoodSettings(), description="The measurement likelihood")
    samples: SampleSettings = Field(default=SampleSettings(), description="The measurement samples")
    optimum: OptimumSettings = Field(default=OptimumSettings(), description="The best T, and the cheapest as good")
    figures: FigureSettings = Field(default=FigureSettings(), description="How figures look")
    data_dir: HomePath = Field(
        default="data", description="Where mnist, cifar10 and torchvision's data sets are, or are downloaded to"
    )
    checkpoint_minutes: Positive = Field(default=10.0, description="Minutes of training between saved resume states")

    @model_validator(mode="wrap")
    @classmethod
    def _together(cls, values: Any, check: Check, info: Info) -> Any:
        """Let the blocks see what the study defines, also where that has faults of its own."""
        if info.context is None:
            return cls.model_validate(values, context=values if isinstance(values, dict) else {})
        return check(values)

    @field_validator("study")
    @classmethod
    def _each_cell_once(cls, blocks: tuple[Block, ...]) -> tuple[Block, ...]:
        names = [[cell_name(keys) for keys, _ in grid([block])] for block in blocks]
        again = [[name for name in names[i] if name in itertools.chain(*names[:i])] for i in range(len(names))]
        refuse([fault("has cells of an earlier block", cells, (i,)) for i, cells in enumerate(again) if cells])
        return blocks

    @field_validator("study")
    @classmethod
    def _batches_divide(cls, blocks: tuple[Block, ...], info: Info) -> tuple[Block, ...]:
        datasets, nets = info.data.get("datasets", {}), info.data.get("nets", {})
        faults = []
        for i, block in enumerate(blocks):
            for dataset, net in itertools.product(block.dataset, block.net):
                data, network = datasets.get(dataset), nets.get(net)
                gpus = asked_for(data, network, "gpu", 0)
                if gpus < 2 or data is None or not isinstance(network, Trained):
                    continue
                if (batch := training_of(data, network).batch) % gpus:
                    text = f"{dataset} and {net} train with batches of {batch}, which its gpu = {gpus} does not divide"
                    faults.append(fault(f"{text}; change one of the two", [dataset, net], (i,)))
        refuse(faults)
        return blocks

    @field_validator("elbo")
    @classmethod
    def _running_past_epsilon(cls, elbo: ElboSettings, info: Info) -> ElboSettings:
        """The first time of every running ELBO lies behind the beginning of its integral."""
        faults = []
        for dataset, sde, T in _first_times(info.data.get("study", ()), info.data.get("sdes", {})):
            own = getattr(info.data.get("datasets", {}).get(dataset), "measurements", None)
            times = {"times": elbo.times} | (own.elbo.model_dump(exclude_unset=True) if own else {})
            # that of a pretrained network stands in its files, and is compared in the job
            if (first := T / times["times"]) <= getattr(info.data["sdes"][sde], "epsilon", 0.0):
                text = f"asks {dataset} for the ELBO at {first:g}, not above the epsilon of sde {sde}; take fewer times"
                faults.append(fault(text, times["times"], ("times",)))
        refuse(faults)
        return elbo

    def grid(self) -> list[tuple[dict[str, str], Block]]:
        """Every cell's key columns and the block it is from."""
        return grid(self.study)

    def cells(self) -> Grid:
        """The grid, with what it takes of the data sets that cells are on."""
        used = {name: self.datasets[name] for block in self.study for name in block.dataset}
        return Grid(
            study=self.study,
            kinds={name: data.kind for name, data in used.items()},
            p_noise={name: self.noises(name) for name in used},
            d={name: len(data.means[0]) if isinstance(data, MixtureSettings) else None for name, data in used.items()},
            pretrained=frozenset(self.pretrained()),
            skip=self.figures.skip,
        )

    def pretrained(self) -> list[str]:
        """The networks that somebody else trained."""
        return [name for name, network in self.nets.items() if isinstance(network, PretrainedSettings)]

    def facts(self, dataset: str, net: str | None = None) -> registry.Facts:
        """What is known beforehand of the cells on some data, or of those with one network."""
        return self.cells().facts(dataset, net)

    def plain(self, dataset: str) -> dict[str, Any]:
        """What the derived tables of some data are told of the study: nothing that belongs to other data."""
        return {
            "seed": self.seed,
            "optimum": self.optimum.model_dump(mode="json"),
            "kind": self.datasets[dataset].kind,
            "sdes": self._kinds_of_sdes(dataset),
            "pretrained": [name for name in self.cells().nets(dataset) if name in self.pretrained()],
        }

    def _kinds_of_sdes(self, dataset: str) -> dict[str, str]:
        """The SDEs that some data meet, and the kind of each."""
        names = dict.fromkeys(sde for block in self.study if dataset in block.dataset for sde in block.sde)
        return {name: self.sdes[name].kind for name in names}

    def style(self, dataset: str) -> dict[str, Any]:
        """What a figure of some data is told of the study: its size, and the kinds of the data and of the SDEs."""
        look = {"width": self.figures.width, "font_size": self.figures.font_size}
        data = self.datasets[dataset]
        paper_data = published.TOY.items() <= data.model_dump().items()
        return look | {"sdes": self._kinds_of_sdes(dataset), "kind": data.kind, "paper_data": paper_data}

    def noises(self, dataset: str) -> tuple[NoiseName, ...]:
        """Where the reverse process of the cells on some data starts."""
        return self.datasets[dataset].p_noise or self.p_noise

    def known_noises(self, dataset: str) -> tuple[NoiseName, ...]:
        """The same without those that are fitted, each of which is of one T."""
        return tuple(name for name in self.noises(dataset) if name not in FITTED)

    def measurement_settings(self, dataset: str, name: str) -> Settings:
        """How the cells on some data are measured: what the data set says of it wins over what the study says."""
        data = self.datasets[dataset]
        kind = MEASUREMENTS[family(data.kind)][name]
        common = getattr(self, name).model_dump(include=set(kind.model_fields))
        return kind.model_validate(common | getattr(data.measurements, name).model_dump(exclude_unset=True))

    def measurement(self, dataset: str, name: str) -> dict[str, Any]:
        """The same with the p_noises, in plain values: what a measurement's command reads."""
        settings = self.measurement_settings(dataset, name).model_dump(mode="json")
        return settings | {"p_noise": [*self.noises(dataset)]}

    def needs(self, dataset: str) -> ImageNeeds:
        """What the cells on some images are going to need of them."""
        cells = [self.cell(**keys) for keys, _ in self.grid() if keys["dataset"] == dataset]
        measured = self.facts(dataset).measures & {"elbo", "likelihood"}
        wanted = {getattr(self.measurement_settings(dataset, measure), "images", None) for measure in measured}
        return ImageNeeds(
            networks={cell.net: cell.network for cell in cells if isinstance(cell.network, NCSNppSettings)},
            batches=tuple(sorted({cell.training.batch for cell in cells if cell.training})),
            test_images=tuple(sorted(n for n in wanted if n is not None)),
            p_noise=tuple(self.noises(dataset)),
            components=self.noise.mixture.components,
            memory=max((self._memory(dataset, cell.net) for cell in cells), default=1),
        )

    def _memory(self, dataset: str, net: str) -> int:
        """MB that a job on some images asks for."""
        return asked_for(self.datasets[dataset], self.nets[net], "memory", 1)

    def cell(self, dataset: str, sde: str, net: str, T: str) -> Cell:
        """The resolved settings of one cell. Of a pretrained network there is one model, and no training."""
        data, network = self.datasets[dataset], self.nets[net]
        trained = network if isinstance(network, Trained) else None
        return Cell.model_validate({
            "dataset": dataset, "sde": sde, "net": net, "T": float(T), "seed": self.seed,
            "seeds": data.seeds if trained else 1,
            "data": what_it_is(data),
            "diffusion": self.sdes[sde],
            "network": network.model_dump(exclude={"training", *JobSettings.model_fields}),
            "training": training_of(data, trained).model_dump() if trained else None,
        })  # fmt: skip


class NewStudy(Study):
    """A study that is going to be run: its results can be written. Those of a finished study may be read-only."""

    results: Annotated[Folder, AfterValidator(_writable)] = "results"

    @field_validator("study")
    @classmethod
    def _within_their_own_T(cls, blocks: tuple[Block, ...], info: Info) -> tuple[Block, ...]:
        """A pretrained network knows nothing of times above its own T."""
        faults, nets = [], info.data.get("nets", {})
        for i, block in enumerate(blocks):
            for name in block.net:
                if isinstance(nets.get(name), PretrainedSettings) and max(block.T) > (T := own_T(nets[name].path)):
                    text = f"is above T = {T:g}, to which {name} was trained: it knows nothing of later times"
                    faults.append(fault(text, max(block.T), (i, "T")))
        refuse(faults)
        return blocks

    @field_validator("nets")
    @classmethod
    def _are_there(cls, nets: dict[str, NetSettings]) -> dict[str, NetSettings]:
        text = "is no model: it is not a folder of diffusers, not a file, and not package.module:factory"
        faults = [
            fault(text, network.path, (name, "path"))
            for name, network in nets.items()
            if isinstance(network, PretrainedSettings) and not (":" in network.path or Path(network.path).exists())
        ]
        refuse(faults)
        return nets
