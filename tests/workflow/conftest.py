"""Finished tiny studies, made once for all tests of this folder, and copies of them that a test may change."""

from pathlib import Path

import clones
import pytest
from clones import LINE, STUDY, Clone, clone_of, copy_of


@pytest.fixture(scope="module")
def fresh(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A copy of the repository in which nothing was run."""
    return clone_of(tmp_path_factory.mktemp("fresh") / "clone", LINE).path


@pytest.fixture(scope="session")
def finished(tmp_path_factory: pytest.TempPathFactory) -> Clone:
    return clones.finished_study(tmp_path_factory.mktemp("study") / "clone", STUDY)


@pytest.fixture
def clone(finished: Clone, tmp_path: Path) -> Clone:
    return copy_of(finished, tmp_path / "clone")


@pytest.fixture(scope="session")
def finished_line(tmp_path_factory: pytest.TempPathFactory) -> Clone:
    return clones.finished_study(tmp_path_factory.mktemp("line") / "clone", LINE)


@pytest.fixture
def line(finished_line: Clone, tmp_path: Path) -> Clone:
    """The smallest study."""
    return copy_of(finished_line, tmp_path / "clone")
