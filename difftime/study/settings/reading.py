"""From files to settings: a study, and the settings of a measurement."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from difftime.study.settings.base import Listed, Settings, parse
from difftime.study.settings.files import BadSettings, given_by, merged, read_file
from difftime.study.settings.measures import MEASUREMENTS, Family
from difftime.study.settings.noise import NoiseName
from difftime.study.settings.own import with_own
from difftime.study.settings.study import NewStudy, Study

CONFIG = Path(__file__).parents[3] / "config.yaml"
"""The default study of the clone that this package is in, over which other files are laid."""


def read_study(
    configfiles: Sequence[Path] = (),
    overrides: Mapping[str, Any] | None = None,
    base: Path | None = CONFIG,
    known: Mapping[str, Any] | None = None,
    said_by: str = "--config",
) -> Study:
    """The study that `configfiles` and then `overrides` make of `base`. Raises BadSettings.

    `said_by` is where the overrides are from, for a person who is told of a fault in them.

    `known` is what someone has read of the configuration files already. It counts where one of them is a pipe, which
    cannot be read twice.
    """
    piped = [path for path in configfiles if known is not None and not path.is_file()]
    own = [path for path in configfiles if path not in piped]
    first = [base] if base is not None and not any(base.resolve() == path.resolve() for path in own) else []
    layers = [read_file(path) for path in (*first, *own)]
    if piped:
        layers.append(given_by("a configuration file that is a pipe", known))
    layers.append(given_by(said_by, overrides or {}))
    return parse(NewStudy, with_own(merged(layers)), "The study")


@dataclass(frozen=True)
class Measurement:
    """How the cells on one data set are measured, and where their reverse process starts."""

    settings: Settings
    p_noise: tuple[NoiseName, ...]


class _Started(Settings):
    p_noise: Listed[NoiseName]


def read_measurement(path: Path, family: Family, name: str) -> Measurement:
    """The settings of a measurement, as `Study.measurement` gives them, from a file. Raises BadSettings."""
    try:
        plain = json.loads(path.read_text("utf-8"))
    except (OSError, ValueError) as error:
        raise BadSettings(
            f"{path} cannot be read as settings ({error}). Run Snakemake, which writes it anew."
        ) from None
    if not isinstance(plain, dict):
        raise BadSettings(f"{path} holds no settings. Delete it and run Snakemake, which writes it anew.")
    noises = {key: plain[key] for key in plain if key == "p_noise"}
    rest = {key: plain[key] for key in plain if key != "p_noise"}
    settings = parse(MEASUREMENTS[family][name], rest, str(path))
    return Measurement(settings, parse(_Started, noises, str(path)).p_noise)
