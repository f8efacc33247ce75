"""cell.json: everything that determines the weights of one cell, and nothing else.

Of a model that somebody else trained this is where it is; what it is stands in model.json.
"""

from __future__ import annotations

import hashlib
import json
from pathlib import Path

from difftime.study.settings.base import Count, Positive, Settings, Whole, parse
from difftime.study.settings.blocks import cell_name
from difftime.study.settings.datasets import PlainData
from difftime.study.settings.files import BadSettings
from difftime.study.settings.nets import PlainNet
from difftime.study.settings.sdes import SDESettings
from difftime.study.settings.training import TrainingSettings


class Cell(Settings):
    """Everything that determines the weights of one cell, resolved. This is what cell.json holds."""

    dataset: str
    sde: str
    net: str
    T: Positive
    seed: Whole
    seeds: Count
    data: PlainData
    diffusion: SDESettings
    network: PlainNet
    training: TrainingSettings | None
    """None for a network that is not trained here."""

    @property
    def keys(self) -> dict[str, str]:
        """The cell's key columns as they stand in paths."""
        return {"dataset": self.dataset, "sde": self.sde, "net": self.net, "T": f"{self.T:g}"}

    @property
    def name(self) -> str:
        return cell_name(self.keys)

    def digest(self) -> str:
        """Names the settings in the files made with them."""
        return hashlib.sha256(self.canonical().encode()).hexdigest()


def read_cell(path: Path) -> Cell:
    """The settings in a cell.json. Raises BadSettings if it cannot be read."""
    try:
        content = json.loads(path.read_text("utf-8"))
    except FileNotFoundError:
        raise BadSettings(
            f"{path} does not exist. Snakemake writes it; name the cell.json in a cell's folder."
        ) from None
    except (OSError, ValueError) as error:
        raise BadSettings(
            f"{path} cannot be read as a cell's settings ({error}). Delete it and run Snakemake, which writes it anew."
        ) from None
    return parse(Cell, content, str(path))
