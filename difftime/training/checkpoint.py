"""Weights and resume states on disk. Both name the cell they belong to, and both are checked before use.

Nothing here can execute code when it is read: weights are safetensors, resume states load with `weights_only=True`.
"""

from __future__ import annotations

import hashlib
import io
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save
from torch import Tensor

from difftime.support.files import atomic


class BadFile(Exception):
    """A file is damaged, or belongs to something else; the message names it and says what to do."""


def _checksum(tensors: dict[str, Tensor], cell: str) -> str:
    digest = hashlib.sha256(cell.encode())
    for name in sorted(tensors):
        tensor = tensors[name]
        digest.update(f"{name} {tensor.dtype} {tuple(tensor.shape)}".encode())
        digest.update(tensor.contiguous().cpu().numpy().tobytes())
    return digest.hexdigest()


def save_weights(path: Path, tensors: dict[str, Tensor], cell: str) -> None:
    """Write `tensors` with a checksum and the digest of the cell they were trained for."""
    tensors = {name: tensor.detach().cpu().contiguous() for name, tensor in tensors.items()}
    # one entry: safetensors writes several in random order, and the same weights are to be the same bytes
    metadata = {"cell and sha256": f"{cell} {_checksum(tensors, cell)}"}
    with atomic(path) as temporary:
        temporary.write_bytes(save(tensors, metadata=metadata))


def load_weights(path: Path, cell: str) -> dict[str, Tensor]:
    """Read what `save_weights` wrote. Raises BadFile if there is none, or it is damaged or of another cell."""
    if not path.exists():
        raise BadFile(
            f"{path} does not exist: the cell is not trained. Run `difftime train` on the cell.json beside it."
        )
    remedy = f"Delete {path} and run again: the cell will be trained anew."
    trained_for, tensors = load_tensors(path, remedy)
    if trained_for != cell:
        raise BadFile(f"{path} was trained with other settings than those beside it, or on other images. {remedy}")
    return tensors


def load_tensors(path: Path, remedy: str) -> tuple[str, dict[str, Tensor]]:
    """What `save_weights` wrote, and for which cell. Raises BadFile, ending with the `remedy`, if it is damaged."""
    try:
        with safe_open(path, framework="pt") as file:
            made_for, _, checksum = (file.metadata() or {}).get("cell and sha256", "").rpartition(" ")
            tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118 (not a dict)
    except (SafetensorError, OSError) as error:
        raise BadFile(f"{path} cannot be read as weights ({error}). {remedy}") from error
    if checksum != _checksum(tensors, made_for):
        raise BadFile(f"{path} does not match its checksum: it was damaged or altered. {remedy}")
    return made_for, tensors


def save_resume(path: Path, state: dict[str, Any]) -> None:
    """Write a resume state (tensors and plain values) behind its own SHA-256."""
    buffer = io.BytesIO()
    torch.save(state, buffer)
    payload = buffer.getvalue()
    with atomic(path) as temporary:
        temporary.write_bytes(hashlib.sha256(payload).digest() + payload)


def load_resume(path: Path, identity: Mapping[str, str]) -> dict[str, Any] | None:
    """What `save_resume` wrote, or None if there is no file.

    `identity` has a digest of each thing that determines the state: settings, code, data. Raises BadFile if the file is
    damaged, or if another one of these things has left it, which the message names.
    """
    if not path.exists():
        return None
    content = path.read_bytes()
    if hashlib.sha256(content[32:]).digest() != content[:32]:
        raise BadFile(f"{path} does not match its checksum: it was cut short or altered.")
    try:
        state = torch.load(io.BytesIO(content[32:]), weights_only=True, map_location="cpu")
        others = [what for what, digest in identity.items() if dict(state["identity"]).get(what) != digest]
    except Exception as error:  # what is no such state can fail in any way
        raise BadFile(f"{path} is not a resume state of this program.") from error
    if others:
        raise BadFile(f"{path} was left by other {' and other '.join(others)}, so it is not used.")
    return state
