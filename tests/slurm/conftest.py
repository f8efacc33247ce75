"""A cluster for all tests of this folder, a small study that nobody disturbed, and copies of it without results."""

import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

sys.path[:0] = [str(Path(__file__).parent), str(Path(__file__).parent.parent.parent)]
from cluster import Cluster, missing  # noqa: E402
from running import SMALL, Run  # noqa: E402

from benchmarks.kills import clone  # noqa: E402


@pytest.fixture(scope="session")
def cluster() -> Iterator[Cluster]:
    if reason := missing():
        pytest.skip(reason)
    cluster = Cluster()
    try:
        cluster.up()
        yield cluster
    finally:
        cluster.down()


@pytest.fixture(scope="session")
def expected(cluster: Cluster, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The results of the small study by `snakemake --cores 2`, without Slurm."""
    run = Run(clone(tmp_path_factory.mktemp("expected") / "clone", SMALL), cluster)
    assert run.snakemake("--cores", "2").wait(200) == 0, run.said()
    return run.results


@pytest.fixture
def run(cluster: Cluster, tmp_path: Path) -> Iterator[Run]:
    run = Run(clone(tmp_path / "clone", SMALL), cluster)
    yield run
    run.end()
