"""Fit one p_noise to one cell's x_T. No score enters, so the cell need not be trained."""

from __future__ import annotations

from pathlib import Path

from difftime.study.cell import fit_noise, noise_file, save_noise
from difftime.study.commands.common import log
from difftime.study.opening import problem_of
from difftime.study.settings import FittedName, FlowNoiseSettings, FullNoiseSettings, MixtureNoiseSettings, read_cell


def run(
    folder: Path,
    settings: FullNoiseSettings | MixtureNoiseSettings | FlowNoiseSettings,
    name: FittedName,
    *,
    data_dir: Path,
) -> None:
    """Read cell.json in `folder`; write noise_<name>.safetensors.

    Raises BadNoise, BadSettings, BadImages or BadModel.
    """
    cell = read_cell(folder / "cell.json")
    problem = problem_of(cell, data_dir)
    noise = fit_noise(problem, settings, f"{cell.seed}/{cell.dataset}/{name}")
    path = noise_file(folder, name)
    save_noise(path, problem, name, noise, settings.model_dump(include={"transforms", "width"}))
    log.info("p_noise %s from %s: %s", name, problem.known_from(name == "full"), path)
