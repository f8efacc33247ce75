"""What a user's own images are, found without decoding them, so that a study sees whether they are others.

Two things are asked of it. Images that are replaced by others of equal size under the same path are other images, so
names and sizes do not suffice. And a study that was copied has the same images, so times do not count. Both hold for a
digest of the contents. To read them takes a second per 300 MB, or per 8,000 small files, so the digest is remembered,
beside the user's other caches, for as long as no size and no time of any file changes.

No torch here: Snakemake asks whenever it plans.
"""

from __future__ import annotations

import hashlib
import json
import os
import time
import zipfile
from collections.abc import Callable, Iterator
from contextlib import suppress
from pathlib import Path

from difftime.support.files import atomic

SETTLED = 2.0
"""Seconds after its last change from which on a file's times tell whether it changes again, on any clock."""


def listing(path: Path) -> str:
    """A digest of the images at `path`, a folder or a file; empty if nothing is there."""
    if not path.exists():
        return ""
    if zipfile.is_zipfile(path):  # an .npz, which holds a checksum of every array
        with zipfile.ZipFile(path) as archive:
            return _digest([(one.filename, one.file_size, one.CRC) for one in archive.infolist()])
    return remembered(path, lambda: _digest([(str(file.relative_to(path)), _content(file)) for file in _there(path)]))


def remembered(path: Path, find: Callable[[], str], what: str = "content") -> str:
    """What `find` says of the files at a path, a text in ASCII; it is asked only after one of them has changed."""
    stats = [(str(file), file.stat()) for file in _there(path)]
    times = [(name, stat.st_size, stat.st_mtime_ns, stat.st_ctime_ns) for name, stat in stats]
    place = _caches() / _digest([str(path.resolve()), times, what])
    with suppress(OSError):
        return place.read_text(encoding="ascii")
    found = find()
    if time.time() - max((stat.st_ctime for _, stat in stats), default=0.0) > SETTLED:
        with suppress(OSError), atomic(place) as temporary:  # what is not remembered is found again
            temporary.write_text(found, encoding="ascii")
    return found


def _there(path: Path) -> list[Path]:
    """The files that exist; what a reader finds to lack is said where it is read."""
    return [file for file in _files(path) if file.exists()]


def _files(path: Path) -> Iterator[Path]:
    """The files that a reader of images may open: hidden ones are passed over."""
    if path.is_file():
        yield path
        return
    for folder, folders, names in os.walk(path):
        folders[:] = sorted(name for name in folders if not name.startswith("."))
        yield from (Path(folder, name) for name in sorted(names) if not name.startswith("."))


def _caches() -> Path:
    home = os.environ.get("XDG_CACHE_HOME") or Path("~/.cache").expanduser()
    return Path(home, "difftime", "images")


def _content(file: Path) -> str:
    with file.open("rb") as opened:
        return hashlib.file_digest(opened, "sha256").hexdigest()


def _digest(seen: list) -> str:
    return hashlib.sha256(json.dumps(seen).encode()).hexdigest()
