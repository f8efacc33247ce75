"""Files appear whole or not at all, and where a person means them to be."""

from __future__ import annotations

import errno
import fcntl
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path


def expanded(path: str | Path) -> Path:
    """The path with `~` and `~user` replaced by the home folder. Raises FileNotFoundError where that is not known."""
    try:
        return Path(path).expanduser()
    except RuntimeError:
        raise FileNotFoundError(errno.ENOENT, "The home folder that ~ stands for is not known", str(path)) from None


def _temporary(path: Path) -> Path:
    return path.with_name(f".{path.name}.partial{path.suffix}")


@contextmanager
def atomic(path: Path) -> Iterator[Path]:
    """A path to write to; it takes the name `path` only when the block ends without an error.

    The temporary name is fixed, so what a killed process leaves is overwritten by the next attempt; a lock on it, which
    dies with its process, keeps two of them apart. Raises OSError where the folder cannot be written or the disk is
    full, BlockingIOError where another process is writing the same file, and FileNotFoundError if the block wrote
    nothing.
    """
    temporary = _temporary(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    descriptor = _locked(temporary, path)
    try:
        try:
            os.truncate(descriptor, 0)
            yield temporary
            if not temporary.stat().st_size:
                raise FileNotFoundError(f"Nothing was written to {path}.")
            os.fsync(descriptor)
            temporary.replace(path)
        except BaseException as error:
            temporary.unlink(missing_ok=True)
            if isinstance(error, OSError) and error.filename is None and error.errno is not None:
                raise OSError(error.errno, error.strerror, str(path)) from error
            raise
    finally:
        os.close(descriptor)


def _locked(temporary: Path, path: Path) -> int:
    """A descriptor of the temporary file that this process alone holds."""
    while True:
        descriptor = os.open(temporary, os.O_RDWR | os.O_CREAT, 0o666)
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            os.close(descriptor)
            raise BlockingIOError(f"Another process is writing {path} now. Wait for it, or stop it.") from None
        except OSError:  # a file system without locks: two writers at once are not told apart
            return descriptor
        # between opening and locking, another process may have given the file its final name
        if _is(descriptor, temporary):
            return descriptor
        os.close(descriptor)


def _is(descriptor: int, path: Path) -> bool:
    try:
        return os.path.samestat(os.fstat(descriptor), path.stat())
    except FileNotFoundError:
        return False


def discard(path: Path) -> None:
    """Remove a file, and what a killed process may have left of it, if they are there."""
    path.unlink(missing_ok=True)
    _temporary(path).unlink(missing_ok=True)
