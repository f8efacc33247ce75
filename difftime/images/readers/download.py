"""Files with known checksums: downloaded if they are absent, and verified whenever they are read."""

from __future__ import annotations

import gzip
import hashlib
import socket
import tempfile
import zlib
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from importlib import import_module
from pathlib import Path
from types import ModuleType
from typing import NamedTuple

from difftime.images.data import BadImages
from difftime.support.extras import lacks
from difftime.support.torchvision import cure_torchvision


def torchvision_datasets() -> ModuleType:
    """torchvision.datasets, which knows where the files are and their checksums. Raises BadImages if it is absent."""
    cure_torchvision()
    try:
        return import_module("torchvision.datasets")
    except ModuleNotFoundError as error:
        raise BadImages(lacks("This data set", error, "study")) from error


@contextmanager
def _patience(seconds: float) -> Iterator[None]:
    """Give up a connection after some silence: where a firewall swallows packets, the system waits for minutes."""
    before = socket.getdefaulttimeout()
    socket.setdefaulttimeout(seconds)
    try:
        yield
    finally:
        socket.setdefaulttimeout(before)


def fetch(place: Path, addresses: Sequence[str], md5: str) -> None:
    """Download to `place` from the first address that works; the file appears there whole and verified, or not at all.

    Raises BadImages if no address works. Two processes may do it at once: each has a folder of its own.
    """
    failures = []
    place.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(prefix=".download-", dir=place.parent) as folder, _patience(30.0):
        for address in addresses:
            try:
                torchvision_datasets().utils.download_url(address, folder, place.name, md5)
            except Exception as error:  # a network can fail in any way
                failures.append(f"{address}: {error}")
            else:
                Path(folder, place.name).replace(place)
                return
    raise BadImages("; ".join(failures))


def obtain(name: str, download: Callable[[], None] | None, files: Sequence[Path]) -> None:
    """Call `download`, and turn its failure, or its absence, into one message: which files to put where."""
    wanted = f"Put {' and '.join(map(str, files))} there by hand, on a machine with network access if need be."
    if download is None:
        raise BadImages(f"{name} is not there and may not be downloaded here. {wanted}")
    try:
        download()
    except (BadImages, ImportError, OSError, RuntimeError) as error:
        raise BadImages(f"{name} is not there and cannot be downloaded ({error}). {wanted}") from error


class File(NamedTuple):
    """Where a file lies, where it is downloaded from, and the MD5 checksum of it."""

    path: Path
    addresses: Sequence[str]
    md5: str


def ensure(name: str, files: Sequence[File], download: bool) -> None:
    """Download those of the files that are absent. Raises BadImages if one cannot be had."""

    def get() -> None:
        for file in absent:
            fetch(file.path, file.addresses, file.md5)

    if absent := [file for file in files if not file.path.exists()]:
        obtain(name, get if download else None, [file.path for file in absent])


def original(file: File) -> bytes:
    """The content of a file that is there. Raises BadImages if it cannot be read or is not the original."""
    remedy = f"Delete {file.path} and run again: it will be downloaded anew."
    try:
        content = file.path.read_bytes()
    except OSError as error:
        raise BadImages(f"{file.path} cannot be read ({error}). {remedy}") from error
    return verified(content, f"md5:{file.md5}", file.path, remedy)


def verified(content: bytes, checksum: str, path: Path, remedy: str) -> bytes:
    """The content, if it has the checksum, written "algorithm:digits". Raises BadImages, with the remedy, if not."""
    algorithm, _, digits = checksum.partition(":")
    if hashlib.new(algorithm, content, usedforsecurity=False).hexdigest() != digits:
        raise BadImages(
            f"{path} is not the original file: its {algorithm} checksum is another, so it was cut short or altered. "
            + remedy
        )
    return content


def unpacked(path: Path, remedy: str) -> bytes:
    """A file's content, decompressed if its name ends in .gz. Raises BadImages, with the remedy, if it cannot be."""
    try:
        return gzip.decompress(path.read_bytes()) if path.suffix == ".gz" else path.read_bytes()
    except (OSError, EOFError, zlib.error) as error:
        raise BadImages(f"{path} cannot be read ({error}). {remedy}") from error
