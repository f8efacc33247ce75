"""Tables of noise levels: they are met at every index, and the clocks of schedules are translated through lambda."""

import math

import numpy as np
import pytest
import torch

from difftime.diffusion.sde import SDE, VE, VP, SubVP
from difftime.diffusion.tabulated import Tabulated
from difftime.study.cell import build_sde
from difftime.study.settings import SDESettings
from difftime.study.settings.sdes import (
    SubVPSettings,
    TabulatedSettings,
    VEExponentialSettings,
    VEGeometricSettings,
)

TABLES = {
    "linear": Tabulated.linear(),
    "scaled linear": Tabulated.scaled_linear(),
    "cosine": Tabulated.cosine(),
    "EDM": Tabulated.edm(),
    "one level": Tabulated.from_levels([-3.0]),
}


@pytest.fixture(params=TABLES)
def table(request: pytest.FixtureRequest) -> Tabulated:
    return TABLES[request.param]


def indices(table: Tabulated) -> torch.Tensor:
    return torch.arange(len(table.integrals), dtype=torch.float64)


def test_the_diffusion_passes_through_every_level_of_its_table(table: Tabulated) -> None:
    t = table.time_of_index(indices(table))
    assert torch.allclose(table.beta_integral(t), torch.tensor(table.integrals, dtype=torch.float64), rtol=1e-12)
    assert torch.allclose(table.index(table.time(table.noise_level(t))), indices(table), rtol=1e-9, atol=1e-9)


def test_the_noise_grows_at_every_time_between_the_levels(table: Tabulated) -> None:
    t = torch.linspace(0, 1.5, 20_001, dtype=torch.float64)[1:]
    assert (table.beta(t) > 0).all()
    assert (table.noise_level(t).diff() > 0).all()


def test_the_rate_is_continuous(table: Tabulated) -> None:
    """A rate with jumps would cost a step control rejected steps at each of them."""
    n = len(table.integrals)
    knots = torch.arange(1, 2 * n + 1, dtype=torch.float64) / (2 * n)
    below, above = table.beta(knots - 1e-10), table.beta(knots + 1e-10)
    assert torch.allclose(below, above, rtol=1e-4)


def test_linear_betas_are_the_levels_of_a_product() -> None:
    betas = np.linspace(1e-4, 0.02, 1000)
    signal = np.cumprod(1 - betas)
    levels = Tabulated.linear().noise_level(Tabulated.linear().time_of_index(indices(Tabulated.linear())))
    np.testing.assert_allclose(levels.numpy(), np.log((1 - signal) / signal), rtol=1e-9, atol=1e-9)


def test_edm_has_equal_steps_in_the_seventh_root_of_sigma() -> None:
    table = TABLES["EDM"]
    ratio = (0.5 * table.noise_level(table.time_of_index(indices(table)))).exp()
    assert ratio[[0, -1]].tolist() == pytest.approx([0.002, 80])
    assert (ratio ** (1 / 7)).diff().std() < 1e-9


def test_the_cosine_table_follows_its_formula_until_its_betas_are_cut() -> None:
    table, t = TABLES["cosine"], (indices(TABLES["cosine"]) + 1) / 1000
    formula = torch.cos(0.5 * math.pi * (t + 0.008) / 1.008) ** 2 / math.cos(0.5 * math.pi * 0.008 / 1.008) ** 2
    assert torch.allclose(table.alpha(t)[:990] ** 2, formula[:990], rtol=1e-9)
    assert table.integrals[-1] == pytest.approx(table.integrals[-2] - math.log(1 - 0.999))


@pytest.mark.parametrize(("index", "t"), [(0, 9.165e-4), (200, 0.20075), (598, 0.60002), (999, 1.00338)])
def test_the_indices_of_linear_betas_have_their_times_under_vp(index: int, t: float) -> None:
    """DDPM's table is VP(0.1, 20) but for the step of 1/1000: the noise level says which time an index is."""
    table = Tabulated.linear()
    level = table.noise_level(table.time_of_index(torch.tensor(float(index), dtype=torch.float64)))
    assert VP(0.1, 20.0).time(level).item() == pytest.approx(t, rel=1e-4)


def test_an_index_may_lie_between_two_others() -> None:
    table = Tabulated.linear()
    index = table.index(table.time(VP().noise_level(torch.tensor([0.2, 0.6, 1.0], dtype=torch.float64))))
    assert index.tolist() == pytest.approx([199.25, 597.98, 995.64], abs=0.01)


@pytest.mark.parametrize("levels", [[], [0.0, 0.0], [1.0, 0.5], [0.0, math.inf], [0.0, math.nan]])
def test_a_table_that_does_not_rise_is_refused(levels: list[float]) -> None:
    with pytest.raises(ValueError, match="must rise from index to index and stay finite"):
        Tabulated.from_levels(levels)


def test_a_table_of_edm_that_falls_is_refused() -> None:
    with pytest.raises(ValueError, match="must rise from above 0"):
        Tabulated.edm(sigma_min=80.0, sigma_max=0.002)


def test_two_tables_tell_themselves_apart() -> None:
    assert repr(Tabulated.linear()) == repr(Tabulated.linear())
    assert repr(Tabulated.linear()) != repr(Tabulated.linear(stop=0.0200001))


@pytest.mark.parametrize(
    ("settings", "sde"),
    [
        (SubVPSettings(beta_min=0.2, beta_max=10.0), SubVP(0.2, 10.0)),
        (VEExponentialSettings(base=20.0), VE.exponential(20.0)),
        (VEGeometricSettings(sigma_min=0.1, sigma_max=9.0, from_zero=False), VE(0.1, 9.0, from_zero=False)),
        (TabulatedSettings(), Tabulated.cosine()),
        (TabulatedSettings(schedule="linear", steps=500), Tabulated.linear(500)),
        (TabulatedSettings(schedule="scaled-linear"), Tabulated.scaled_linear()),
    ],
)
def test_settings_become_their_diffusion(settings: SDESettings, sde: SDE) -> None:
    assert build_sde(settings) == sde
