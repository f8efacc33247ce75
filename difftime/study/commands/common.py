"""What the commands share."""

from __future__ import annotations

import hashlib
import logging
import math
import resource
import sys
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import torch
from jaxtyping import Int
from torch import Tensor

from difftime.diffusion.score import NetScore
from difftime.images.readers import ImageData
from difftime.study.cell import WEIGHTS, ImageProblem, noise_file
from difftime.study.registry import MEASUREMENTS
from difftime.study.settings import FITTED, BadSettings, Cell, Settings
from difftime.support.streams import stream
from difftime.tables.schema import Row, write_rows
from difftime.training.checkpoint import BadFile, load_resume
from difftime.training.parallel import ALONE, Group

log = logging.getLogger("difftime")


def device() -> str:
    """Where images are computed: on the GPU that the job was given, if there is one."""
    return "cuda" if torch.cuda.is_available() else "cpu"


def describe(place: torch.device, group: Group = ALONE) -> str:
    """A device by its name, for a table, and how many of its kind work together."""
    several = f"{group.size} × " if group.size > 1 else ""
    if place.type == "cuda":
        return several + torch.cuda.get_device_name(place)
    return f"{several}CPU, {torch.get_num_threads()} thread{'s' if torch.get_num_threads() > 1 else ''}"


def peak_memory(place: torch.device) -> float:
    """MB that this process has taken at most: on the GPU, if that is where it computes."""
    if place.type == "cuda":
        return torch.cuda.max_memory_allocated(place) / 2**20
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / (1024 if sys.platform == "linux" else 2**20)


@dataclass(frozen=True)
class Work:
    """What a command did, for the record of its run: seconds with those before a cut, and points or images a second."""

    seconds: float
    units_per_second: float | None


NO_MEMORY = ("DefaultCPUAllocator", "not enough memory", "out of memory")
"""What PyTorch says in a RuntimeError of no class of its own when memory is short."""


@contextmanager
def memory_for(setting: str, value: int) -> Iterator[None]:
    """Say which setting to lower where memory is short. Raises BadSettings in place of what PyTorch raises then."""
    try:
        yield
    except (RuntimeError, MemoryError) as error:
        of_memory = isinstance(error, MemoryError | torch.OutOfMemoryError)
        if not of_memory and not any(sign in str(error) for sign in NO_MEMORY):
            raise
        raise BadSettings(f"Memory does not suffice with {setting} = {value}. Set {setting} to less.") from error


def measured_images(images: ImageData, wanted: int | None) -> Int[Tensor, " n"]:
    """Indices of the test images that are measured: all, or as many as wanted, drawn once and for all.

    Not the first ones: data sets are often sorted by class. A larger number contains the smaller one's images. Raises
    BadSettings if there are fewer than wanted.
    """
    there = len(images.test)
    if wanted is not None and wanted > there:
        raise BadSettings(
            f"{wanted} test images are asked for, but {images.name} has {there}. Set elbo.images and likelihood.images "
            "to at most that, or to null for all."
        )
    if wanted is None or wanted == there:
        return torch.arange(there)
    return torch.randperm(there, generator=stream("test images", there))[:wanted]


def dequantised(problem: ImageProblem, streams: str, draw: int, part: Tensor) -> Tensor:
    """Test images as points x, [batch, d] on the problem's device; each has random numbers of its own."""
    u = torch.stack([
        torch.rand(problem.images.shape, generator=stream(streams, "dequantisation", draw, image))
        for image in part.tolist()
    ])  # fmt: skip
    return problem.scale.dequantised(problem.images.test[part], u).flatten(1).to(problem.device)


def bits_of(problem: ImageProblem, log_p: Tensor) -> Tensor:
    """Bits per dimension of 8-bit images, from log p(x) in nats of their dequantised x."""
    return problem.scale.bits_per_dimension(log_p, problem.d)


def evaluation(
    problem: ImageProblem, folder: Path, settings: Settings, p_noise: Sequence[str], code: str
) -> dict[str, str]:
    """A digest of each thing that determines what an evaluation of the cell in `folder` finds."""
    # a pretrained network is in the digest of the problem
    weights = [folder / WEIGHTS] if isinstance(problem.score, NetScore) else []
    files = [*weights, *(noise_file(folder, name) for name in p_noise if name in FITTED)]
    digests = [hashlib.sha256(path.read_bytes()).hexdigest() for path in files]
    said = {
        "settings": f"{settings.canonical()} {p_noise}", "weights": f"{problem.digest} {digests}", "data": problem.data,
        "code": code,
    }  # fmt: skip
    return {what: hashlib.sha256(text.encode()).hexdigest() for what, text in said.items()}


def resumed(path: Path, identity: Mapping[str, str]) -> tuple[list[dict[str, Tensor]], float]:
    """What a cut evaluation found in its batches, and the seconds that it took.

    Nothing if there was none, or if the state is damaged or another evaluation's, which the log says.
    """
    try:
        state = load_resume(path, identity)
    except BadFile as error:
        log.warning("%s Starting from the first image instead.", error)
        state = None
    return (state["batches"], state["seconds"]) if state else ([], 0.0)


def keys(cell: Cell) -> dict[str, object]:
    """The key columns that every table begins with."""
    return cell.keys | {"T": cell.T}


def write_tables(folder: Path, measurement: str, rows: Mapping[str, Sequence[Row]]) -> None:
    """Write every table of a measurement into a cell's folder; those that its kind of data has no rows of are empty."""
    made = MEASUREMENTS[measurement]
    for table in reversed((*made.tables, *made.units)):
        write_rows(folder / f"{table}.parquet", table, rows.get(table, ()))


def finite(value: Tensor | float) -> float | None:
    """A number for a table; None, which a table marks as missing, for NaN and infinity."""
    number = float(value)
    return number if math.isfinite(number) else None
