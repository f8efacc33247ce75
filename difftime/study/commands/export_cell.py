"""Export a trained cell of images; its model card is written from the tables of the study that the cell is in."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path

import pandas as pd

from difftime.diffusion.p_noise import FullGaussian, check_memory, diffused_moments
from difftime.diffusion.score import NetScore
from difftime.diffusion.sde import Gaussian
from difftime.models.export_cell import CellModel, export_cell
from difftime.models.foreign import BadModel
from difftime.study.cell import ImageProblem
from difftime.study.opening import open_cell
from difftime.study.settings import NCSNPP_SHAPE, Cell
from difftime.tables.frames import rows_of
from difftime.tables.parquet import read
from difftime.tables.render import plus_minus
from difftime.training.nets.images import ImageNets


def run(folder: Path, T: float | None, p_noise: str, to: Path, seed: int, data_dir: Path) -> str:
    """Write the model of a seed as a folder of diffusers that starts at T, the cell's own if none is given.

    Raises BadModel for a mixture, or for a T or seed that the cell has not.
    """
    cell, problem = open_cell(folder, data_dir)
    if not isinstance(problem, ImageProblem):
        raise BadModel(f"{folder} is a cell of a mixture, whose network draws no images: it cannot be exported.")
    score = problem.score
    if not isinstance(score, NetScore) or not isinstance(score.net, ImageNets):
        raise BadModel(f"{folder} is a cell of a pretrained network: export the model itself, difftime export MODEL.")
    if seed >= cell.seeds:
        raise BadModel(f"{folder} has the models of seeds 0 to {cell.seeds - 1}; there is no seed {seed}.")
    T = cell.T if T is None else T
    options = cell.network.model_dump(mode="json", include=set(NCSNPP_SHAPE))
    model = CellModel(
        f"{cell.dataset}, {cell.net}, {cell.sde}", score.net.models[seed].cpu(), options, score,
        problem.epsilon, problem.T, problem.images.shape,
    )  # fmt: skip
    model.times(T)
    measured = measured_of(folder.resolve(), cell, T, p_noise)
    card = {"p_noise from": problem.known_from(True)} | measured | {"settings": f"`{cell.canonical()}`"}
    export_cell(model, T, noise_of(problem, T, p_noise), to, card)
    found = "" if measured else " No table of its study was found, so the model card has no measured numbers."
    return f"{to} starts at T = {T:g}, from the {p_noise} p_noise. {to / 'README.md'} says how it is used.{found}"


def noise_of(problem: ImageProblem, T: float, name: str) -> Gaussian | FullGaussian:
    """The p_noise with the moments of the training images, at T."""
    if name != "full":
        return replace(problem, T=T).noise(name)
    check_memory("full", problem.d, problem.points, 1)
    return FullGaussian.of(*diffused_moments(problem.sde, T, *problem.known_moments()))


def measured_of(folder: Path, cell: Cell, T: float, p_noise: str) -> dict[str, str]:
    """What the tables of the study around a cell's folder say of it; nothing where there are none.

    T* is the curve's. Bits and evaluations are of this T, and left out if that is not the cell's.
    """
    tables = folder.parents[min(4, len(folder.parents) - 1)] / "tables" / cell.dataset
    curve = {"sde": cell.sde, "net": cell.net, "p_noise": p_noise}
    card = {}
    for row in _rows(tables, "optimum", curve | {"method": "trained"}):
        card["T* (best bound)"] = f"{row.T_star:.4g} [{row.T_star_low:.4g}, {row.T_star_high:.4g}], {row.unit}"
    for row in _rows(tables, "table1", curve | {"T": T}):
        usual = f"more than from T = {row.against_T:g} and the standard p_noise"
        card |= {
            "bound on the bits per dimension": plus_minus(row.elbo_bpd, row.elbo_bpd_se, 4),
            f"{usual} (bound)": plus_minus(row.delta_elbo_bpd, row.delta_elbo_bpd_se, 4),
            "bits per dimension of the ODE": plus_minus(row.bpd, row.bpd_se, 4),
            f"{usual} (ODE)": plus_minus(row.delta_bpd, row.delta_bpd_se, 4),
            "evaluations of the ODE (NFE)": plus_minus(row.nfe, row.nfe_sd, 0),
            "measured on": f"{plus_minus(row.elbo_units, math.nan, 0)} test images (bound), "
            f"{plus_minus(row.units, math.nan, 0)} (ODE)",
        }
    return card


def _rows(tables: Path, name: str, wanted: Mapping[str, object]) -> list:
    """The rows of a table with these values; none if the table is not there. Raises BadTable if it is damaged."""
    path = tables / f"{name}.parquet"
    if not path.exists():
        return []
    frame = read(path, name)
    return list(rows_of(frame[pd.concat([frame[key] == value for key, value in wanted.items()], axis=1).all(axis=1)]))
