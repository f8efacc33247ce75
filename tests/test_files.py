"""Files appear whole or not at all, whatever happens to the process that writes them."""

from __future__ import annotations

import errno
import os
import resource
import signal
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path
from shutil import rmtree

import pytest

from difftime.support.files import atomic, discard, expanded

OLD, NEW = b"what was there before", b"what is to be there now" * 10


@pytest.fixture
def path(tmp_path: Path) -> Path:
    place = tmp_path / "table.parquet"
    place.write_bytes(OLD)
    return place


def write(path: Path) -> None:
    with atomic(path) as temporary:
        temporary.write_bytes(NEW)


def only(path: Path, content: bytes) -> bool:
    """Whether the folder holds this file with this content, and nothing else, hidden or not."""
    return [*path.parent.iterdir()] == [path] and path.read_bytes() == content


def test_a_new_file_takes_the_place_of_the_old_one_and_leaves_nothing_else(path: Path) -> None:
    write(path)
    assert only(path, NEW)


def test_the_folders_above_a_file_are_made(tmp_path: Path) -> None:
    write(tmp_path / "a" / "b" / "table.parquet")
    assert only(tmp_path / "a" / "b" / "table.parquet", NEW)


def test_inside_the_block_the_old_file_is_still_whole(path: Path) -> None:
    with atomic(path) as temporary:
        temporary.write_bytes(NEW)
        assert path.read_bytes() == OLD
        assert temporary.parent == path.parent  # a rename is atomic within one file system only


def test_the_temporary_file_keeps_the_ending_that_writers_go_by(path: Path) -> None:
    with atomic(path) as temporary:
        temporary.write_bytes(NEW)
        assert temporary.suffix == path.suffix
        assert temporary.name.startswith(".")


@pytest.mark.parametrize("error", [ValueError, KeyboardInterrupt, SystemExit])
def test_an_error_in_the_block_leaves_the_old_file_and_no_other(path: Path, error: type[BaseException]) -> None:
    def half() -> None:
        with atomic(path) as temporary:
            temporary.write_bytes(NEW[:5])
            raise error

    with pytest.raises(error):
        half()
    assert only(path, OLD)


def test_a_block_that_writes_nothing_is_an_error_and_leaves_the_old_file(path: Path) -> None:
    with pytest.raises(FileNotFoundError), atomic(path):
        pass
    assert only(path, OLD)


KILLED = """
import os, signal, sys
from pathlib import Path
from difftime.support.files import atomic
with atomic(Path(sys.argv[1])) as temporary:
    with temporary.open("wb") as file:
        file.write(b"half")
        file.flush()
        os.kill(os.getpid(), signal.SIGKILL)
"""


def test_a_killed_writer_leaves_the_old_file_and_the_next_one_cleans_up(path: Path) -> None:
    killed = subprocess.run([sys.executable, "-c", KILLED, path], check=False)
    assert killed.returncode == -signal.SIGKILL
    assert path.read_bytes() == OLD
    (left,) = set(path.parent.iterdir()) - {path}
    assert left.read_bytes() == b"half"
    write(path)
    assert only(path, NEW)


def test_two_processes_that_write_one_file_are_told_so_and_harm_nothing(path: Path) -> None:
    with atomic(path) as temporary:
        temporary.write_bytes(NEW)
        other = subprocess.run([sys.executable, "-c", KILLED, path], capture_output=True, text=True, check=False)
        assert other.returncode != 0
        assert f"Another process is writing {path}" in other.stderr
        assert path.read_bytes() == OLD
    assert only(path, NEW)


def test_a_discarded_file_leaves_nothing_of_a_killed_writer(path: Path) -> None:
    subprocess.run([sys.executable, "-c", KILLED, path], check=False)
    discard(path)
    assert not list(path.parent.iterdir())
    discard(path)


def test_a_full_disk_is_an_os_error_and_leaves_the_old_file(path: Path) -> None:
    """A limit on the size of files stands in for the disk: both fail in the middle of the writing."""
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (len(NEW) // 2, hard))
    try:
        with pytest.raises(OSError, match="too large") as error:
            write(path)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
    assert error.value.errno == errno.EFBIG
    assert error.value.filename == str(path)
    assert only(path, OLD)


def test_no_space_left_is_said_with_the_path_and_leaves_the_old_file(path: Path) -> None:
    """The writers' own errors name no file, as the system does not when a write fails."""
    with pytest.raises(OSError, match=rf"No space left on device: '{path}'"), atomic(path):
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
    assert only(path, OLD)


def test_an_error_that_names_its_file_keeps_it(path: Path) -> None:
    with pytest.raises(FileNotFoundError, match="another"), atomic(path):
        (path.parent / "another").read_bytes()


def test_a_tilde_is_the_home_folder_and_only_at_the_beginning(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HOME", "/somewhere")
    assert expanded("~/data") == expanded(Path("~/data")) == Path("/somewhere/data")
    assert expanded("a~b/~") == Path("a~b/~")
    with pytest.raises(FileNotFoundError, match="~nobody-of-this-name/x"):
        expanded("~nobody-of-this-name/x")


def without_privileges(action: Callable[[], None]) -> int:
    """The errno that `action` fails with, or 0, in a process that is not the superuser's."""
    child = os.fork()
    if child == 0:
        outcome = 255
        try:
            if os.getuid() == 0:
                os.setgroups([])
                os.setgid(65534)
                os.setuid(65534)
            action()
            outcome = 0
        except OSError as error:
            outcome = error.errno or 254
        finally:
            os._exit(outcome)
    return os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])


@pytest.fixture
def open_path() -> Iterator[Path]:
    """An old file in a folder that every user may reach and write."""
    folder = Path(tempfile.mkdtemp())
    folder.chmod(0o777)
    (folder / "table.parquet").write_bytes(OLD)
    yield folder / "table.parquet"
    rmtree(folder)


def test_a_read_only_folder_is_an_os_error_and_leaves_the_old_file(open_path: Path) -> None:
    assert without_privileges(lambda: write(open_path)) == 0
    assert only(open_path, NEW)
    open_path.parent.chmod(0o555)
    assert without_privileges(lambda: write(open_path)) == errno.EACCES
    open_path.parent.chmod(0o755)
    assert only(open_path, NEW)


def test_a_folder_that_cannot_be_made_is_an_os_error(path: Path) -> None:
    with pytest.raises(OSError, match=path.name):
        write(path / "below")
    assert only(path, OLD)
