"""The shapes and types written in the package's annotations are checked while the tests run.

Not so in the public face, which has errors of its own for what people pass.
"""

import pkgutil
from collections.abc import Iterator
from functools import partial
from http.server import ThreadingHTTPServer
from pathlib import Path
from threading import Thread
from typing import get_args

from jaxtyping import install_import_hook

import difftime

CHECKED = [f"difftime.{module.name}" for module in pkgutil.iter_modules(difftime.__path__) if module.name != "face"]
install_import_hook(CHECKED, "beartype.beartype")

import pytest  # noqa: E402
import torch  # noqa: E402
from image_files import Quiet, Site  # noqa: E402

from difftime.diffusion.mixture import Mixture  # noqa: E402
from difftime.diffusion.sde import SDE, VE  # noqa: E402
from difftime.diffusion.tabulated import Tabulated  # noqa: E402
from difftime.study.cell import build_sde  # noqa: E402
from difftime.study.settings import OfModelSettings, SDESettings  # noqa: E402

torch.set_num_threads(1)

OF_STUDIES = [kind() for kind in get_args(get_args(SDESettings)[0]) if kind is not OfModelSettings]
SDES = {settings.kind: build_sde(settings) for settings in OF_STUDIES} | {
    "tabulated": Tabulated.linear(100, 0.001, 0.12),  # of few levels, between which the laws hold too
    "ve-from-sigma-min": VE(0.01, 50.0, from_zero=False),
}
"""Every kind of SDE that a study can name, with its usual settings, and another convention."""


@pytest.fixture(params=SDES)
def sde(request: pytest.FixtureRequest) -> SDE:
    return SDES[request.param]


@pytest.fixture
def toy() -> Mixture:
    """p_data of the paper's toy example."""
    return Mixture.from_covariances([0.3, 0.7], [[1.0], [3.0]], [[[0.1**2]], [[0.5**2]]])


@pytest.fixture
def correlated() -> Mixture:
    """A mixture in two dimensions with correlated coordinates."""
    return Mixture.from_covariances(
        [0.4, 0.6], [[-1.0, 0.5], [1.0, 1.0]], [[[0.2, 0.1], [0.1, 0.3]], [[0.5, -0.2], [-0.2, 0.3]]]
    )


@pytest.fixture
def site(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Site]:
    monkeypatch.setenv("no_proxy", "*")
    place = tmp_path / "site"
    place.mkdir()
    with ThreadingHTTPServer(("127.0.0.1", 0), partial(Quiet, directory=place)) as server:
        Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01}, daemon=True).start()
        yield Site(f"http://127.0.0.1:{server.server_port}", place)
        server.shutdown()
