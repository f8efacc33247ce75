"""Weights and resume states come back as they were written, or not at all; reading them executes nothing."""

from __future__ import annotations

import hashlib
import io
import json
import os
import pickle
import resource
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from difftime.training.checkpoint import BadFile, load_resume, load_weights, save_resume, save_weights

CELL = "digest of the cell"
IDENTITY = {"settings": "digest of the cell", "code": "digest of the code", "data": "digest of the data"}


def tensors() -> dict[str, Tensor]:
    generator = torch.Generator().manual_seed(0)
    return {
        "weights.0": torch.randn(3, 4, 5, generator=generator),
        "biases.0": torch.randn(5, dtype=torch.float64, generator=generator),
        "count": torch.tensor(7),
        "odd": torch.tensor([float("nan"), float("inf"), -0.0]),
        "empty": torch.zeros(0, 3),
    }


def same(one: Any, other: Any) -> bool:
    """Equality to the bit, in tensors within dictionaries and lists."""
    if isinstance(one, Tensor):
        if (one.dtype, one.shape) != (other.dtype, other.shape):
            return False
        return one.contiguous().numpy().tobytes() == other.contiguous().numpy().tobytes()
    if isinstance(one, dict):
        return one.keys() == other.keys() and all(same(one[key], other[key]) for key in one)
    if isinstance(one, list | tuple):
        return len(one) == len(other) and all(map(same, one, other))
    return one == other


# Weights


def test_weights_come_back_to_the_bit(tmp_path: Path) -> None:
    save_weights(tmp_path / "w.safetensors", tensors(), CELL)
    assert same(load_weights(tmp_path / "w.safetensors", CELL), tensors())


def test_weights_that_are_views_or_need_gradients_are_saved_by_value(tmp_path: Path) -> None:
    whole = torch.arange(12.0).reshape(3, 4).requires_grad_()
    save_weights(tmp_path / "w.safetensors", {"turned": whole.T, "row": whole[1]}, CELL)
    read = load_weights(tmp_path / "w.safetensors", CELL)
    assert same(read, {"turned": whole.detach().T, "row": whole.detach()[1]})
    assert not read["turned"].requires_grad


def test_the_same_weights_are_the_same_bytes(tmp_path: Path) -> None:
    for name in ("one", "other"):
        save_weights(tmp_path / name, tensors(), CELL)
    assert (tmp_path / "one").read_bytes() == (tmp_path / "other").read_bytes()


def test_weights_of_another_cell_are_refused(tmp_path: Path) -> None:
    path = tmp_path / "w.safetensors"
    save_weights(path, tensors(), CELL)
    with pytest.raises(BadFile, match=r"w\.safetensors was trained with other settings .* Delete .* and run again"):
        load_weights(path, "another")


def test_weights_that_are_not_there_are_asked_for(tmp_path: Path) -> None:
    with pytest.raises(BadFile, match=r"w\.safetensors does not exist: the cell is not trained"):
        load_weights(tmp_path / "w.safetensors", CELL)


def header_of(content: bytes) -> tuple[dict[str, Any], bytes]:
    size = int.from_bytes(content[:8], "little")
    return json.loads(content[8 : 8 + size]), content[8 + size :]


def with_header(header: dict[str, Any], values: bytes) -> bytes:
    text = json.dumps(header).encode()
    text += b" " * (-len(text) % 8)
    return len(text).to_bytes(8, "little") + text + values


@pytest.mark.parametrize("change", ["a value", "the type", "the shape", "the names"])
def test_weights_whose_meaning_was_altered_are_refused(tmp_path: Path, change: str) -> None:
    path = tmp_path / "w.safetensors"
    save_weights(path, {"a": torch.ones(2, 3), "b": torch.zeros(2, 3)}, CELL)
    header, values = header_of(path.read_bytes())
    path.write_bytes(with_header(header, values))
    load_weights(path, CELL)  # the layout of the header has no meaning
    if change == "a value":
        values = values[:-1] + bytes([values[-1] ^ 1])
    elif change == "the type":
        header["a"]["dtype"] = "I32"
    elif change == "the shape":
        header["a"]["shape"] = [3, 2]
    else:
        header["a"], header["b"] = header["b"], header["a"]
    path.write_bytes(with_header(header, values))
    with pytest.raises(BadFile, match="does not match its checksum"):
        load_weights(path, CELL)


@pytest.mark.parametrize("keep", [0, 7, 8, 50, -1])
def test_weights_that_were_cut_short_are_refused(tmp_path: Path, keep: int) -> None:
    path = tmp_path / "w.safetensors"
    save_weights(path, tensors(), CELL)
    path.write_bytes(path.read_bytes()[:keep])
    with pytest.raises(BadFile, match=r"w\.safetensors cannot be read as weights .* Delete .* and run again"):
        load_weights(path, CELL)


def test_a_folder_in_the_place_of_the_weights_is_refused(tmp_path: Path) -> None:
    with pytest.raises(BadFile, match="cannot be read as weights"):
        load_weights(tmp_path, CELL)


def test_weights_that_cannot_be_written_leave_the_old_ones(tmp_path: Path) -> None:
    path = tmp_path / "w.safetensors"
    save_weights(path, tensors(), CELL)
    with pytest.raises(AttributeError):
        save_weights(path, tensors() | {"text": "no tensor"}, CELL)
    assert same(load_weights(path, CELL), tensors())
    assert [*tmp_path.iterdir()] == [path]


# Resume states


@pytest.mark.parametrize(
    "save", [save_weights, lambda path, tensors, cell: save_resume(path, tensors | {"identity": {"settings": cell}})]
)
def test_a_disk_that_is_full_leaves_the_old_file(tmp_path: Path, save: Callable[..., None]) -> None:
    """A limit on the size of files stands in for the disk: both fail in the middle of the writing."""
    path = tmp_path / "old"
    save(path, tensors(), CELL)
    old = path.read_bytes()
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (len(old) // 2, hard))
    try:
        with pytest.raises(OSError, match="too large"):
            save(path, {"larger": torch.ones(10_000)}, CELL)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
    assert path.read_bytes() == old
    assert [*tmp_path.iterdir()] == [path]


def state() -> dict[str, Any]:
    parameter = torch.nn.Parameter(tensors()["weights.0"])
    adam = torch.optim.Adam([parameter], lr=1e-3)
    parameter.square().sum().backward()
    adam.step()
    return {
        "identity": IDENTITY, "block": 3, "net": tensors(), "average": [parameter.detach()],
        "adam": adam.state_dict(), "losses": torch.arange(6.0).reshape(3, 2),
    }  # fmt: skip


@pytest.fixture
def resume(tmp_path: Path) -> Path:
    save_resume(tmp_path / "resume.pt", state())
    return tmp_path / "resume.pt"


def test_a_resume_state_comes_back_to_the_bit(resume: Path) -> None:
    assert same(load_resume(resume, IDENTITY), state())


def test_where_there_is_no_resume_state_there_is_nothing_to_go_on_from(tmp_path: Path) -> None:
    assert load_resume(tmp_path / "resume.pt", IDENTITY) is None


@pytest.mark.parametrize("others", [["settings"], ["code"], ["data"], ["settings", "data"]])
def test_a_resume_state_of_other_settings_code_or_data_is_refused_with_the_reason(
    resume: Path, others: list[str]
) -> None:
    reason = " and ".join(f"other {what}" for what in others)
    with pytest.raises(BadFile, match=rf"resume\.pt was left by {reason}, so it is not used"):
        load_resume(resume, IDENTITY | dict.fromkeys(others, "another"))


@pytest.mark.parametrize("keep", [0, 1, 31, 32, 33, 1000, -1])
def test_a_resume_state_that_was_cut_short_is_refused(resume: Path, keep: int) -> None:
    resume.write_bytes(resume.read_bytes()[:keep])
    with pytest.raises(BadFile, match=r"resume\.pt does not match its checksum|is not a resume state"):
        load_resume(resume, IDENTITY)


@pytest.mark.parametrize("place", [0, 31, 32, 500, -1])
def test_a_resume_state_with_a_flipped_byte_is_refused(resume: Path, place: int) -> None:
    content = bytearray(resume.read_bytes())
    content[place] ^= 1
    resume.write_bytes(content)
    with pytest.raises(BadFile, match=r"resume\.pt does not match its checksum"):
        load_resume(resume, IDENTITY)


class Bomb:
    """Unpickling it makes a folder."""

    def __init__(self, place: Path) -> None:
        self.place = place

    def __reduce__(self) -> tuple[Any, ...]:
        return os.mkdir, (str(self.place),)


def saved(value: Any, **options: Any) -> bytes:
    buffer = io.BytesIO()
    torch.save(value, buffer, **options)
    return buffer.getvalue()


HOW = {
    "in torch's format": lambda bomb: saved(state() | {"extra": bomb}),
    "in torch's older format": lambda bomb: saved(
        state() | {"extra": bomb}, _use_new_zipfile_serialization=False
    ),
    "in place of the digest": lambda bomb: saved(state() | {"identity": bomb}),
    "as a plain pickle": pickle.dumps,
}  # fmt: skip


@pytest.mark.filterwarnings("ignore:Detected pickle protocol")
@pytest.mark.parametrize("how", HOW)
def test_a_resume_state_with_code_in_it_is_refused_and_its_code_not_run(resume: Path, tmp_path: Path, how: str) -> None:
    """The checksum is right: it guards against accidents, not against a person."""
    payload = HOW[how](Bomb(tmp_path / "boom"))
    resume.write_bytes(hashlib.sha256(payload).digest() + payload)
    with pytest.raises(BadFile, match=r"resume\.pt is not a resume state of this program"):
        load_resume(resume, IDENTITY)
    assert not (tmp_path / "boom").exists()
    with suppress(RuntimeError):  # it goes off before torch finds that the pickle is not in its format
        torch.load(io.BytesIO(payload), weights_only=False)
    assert (tmp_path / "boom").exists()  # the charge was live


@pytest.mark.parametrize(
    "payload",
    [b"", b"a", b"hello" * 30, saved([IDENTITY]), saved({"block": 3}), saved(state())[:-100]],
    ids=["empty", "a letter", "text", "a list", "no cell", "cut short before the checksum"],
)
def test_a_file_with_a_right_checksum_that_is_no_resume_state_is_refused(resume: Path, payload: bytes) -> None:
    resume.write_bytes(hashlib.sha256(payload).digest() + payload)
    with pytest.raises(BadFile, match=r"resume\.pt is not a resume state of this program"):
        load_resume(resume, IDENTITY)


def test_a_resume_state_that_cannot_be_written_leaves_the_old_one(resume: Path) -> None:
    with pytest.raises((AttributeError, pickle.PicklingError)):
        save_resume(resume, state() | {"extra": lambda: None})
    assert same(load_resume(resume, IDENTITY), state())
    assert [*resume.parent.iterdir()] == [resume]
