"""A likelihood to be believed: the machinery finds known bits, and every known mistake is found out."""

import dataclasses
import math
from collections.abc import Callable

import pytest
import torch
from torch import Tensor

from difftime.diffusion.score import Score
from difftime.diffusion.sde import VE, VP, Noise, SubVP
from difftime.diffusion.tabulated import Tabulated
from difftime.images.pixels import CENTRED, UNIT, Scale
from difftime.measures.image_elbo import ImageElbo
from difftime.models import check
from difftime.models.check import check_model, measured_bits
from difftime.models.foreign import Clock, ForeignModel

TABLE = Tabulated.linear()
START = Clock(VP(), TABLE).at_index(torch.tensor(0.0, dtype=torch.float64)).item()


def model(sde: object, epsilon: float, T: float, scale: Scale, table: Tabulated | None = None) -> ForeignModel:
    return ForeignModel("gaussian", lambda x, t: x, sde, epsilon, T, (1, 16, 16), scale, Clock(sde, table), None, "")


DDPM = model(VP(), START, 1.0034, CENTRED, TABLE)
MODELS = {
    "ddpm": DDPM,
    "ddpm, ToTensor": dataclasses.replace(DDPM, scale=Scale.at_centres(-1.0, 1.0)),
    "cosine": model(Tabulated.cosine(), 1 / 1000, 1.0, CENTRED, Tabulated.cosine()),
    "continuous VP": model(VP(), 1e-5, 0.4, CENTRED),
    "sub-VP": model(SubVP(), 1e-3, 1.0, CENTRED),
    "score_sde VE": model(VE(0.01, 50.0, from_zero=False), 1e-5, 1.0, UNIT),
    "EDM": model(VE(0.002, 80.0, from_zero=False), 0.0, 1.0, CENTRED),
}


@pytest.mark.parametrize("name", MODELS)
def test_the_machinery_finds_the_known_bits(name: str) -> None:
    found = check_model(MODELS[name], images=64)
    assert found.passed
    assert found.error_se < 0.01
    assert found.estimate == pytest.approx(found.truth + found.error)


def test_the_truth_is_the_code_length_of_a_gaussian_and_what_the_decoder_loses() -> None:
    """Far above a grey level, -log2 of a density in grey levels is the code length of the level itself."""
    mean, spread = torch.full((1,), 120.0).double(), torch.full((1,), 30.0).double()
    k = torch.arange(256, dtype=torch.uint8)[:, None]
    normal = torch.distributions.Normal(mean, spread)
    code = -(normal.cdf(k.double() + 1) - normal.cdf(k.double())).log2()[:, 0]
    truth = check.true_bits(model(VP(), 1e-7, 1.0, CENTRED), k, mean, spread)
    middle = slice(30, 210)
    assert torch.allclose(truth[middle], code[middle], atol=1e-3)


def without_dequantisation(m: ForeignModel, score: Score, noise: Noise, images: Tensor, seed: str) -> Tensor:
    class Raw(Scale):
        def dequantised(self, k: Tensor, u: Tensor) -> Tensor:
            return self.start + self.width * k.float()

    return measured_bits(dataclasses.replace(m, scale=Raw(m.scale.start, m.scale.width)), score, noise, images, seed)


def with_centred_grey_levels(m: ForeignModel, score: Score, noise: Noise, images: Tensor, seed: str) -> Tensor:
    """No dequantisation, but no shift of the mean either."""

    class Raw(Scale):
        def dequantised(self, k: Tensor, u: Tensor) -> Tensor:
            return self.start + self.width * (k.float() + 0.5)

    return measured_bits(dataclasses.replace(m, scale=Raw(m.scale.start, m.scale.width)), score, noise, images, seed)


def with_the_offset(bits: float) -> Callable[..., Tensor]:
    def measure(m: ForeignModel, score: Score, noise: Noise, images: Tensor, seed: str) -> Tensor:
        return measured_bits(m, score, noise, images, seed) - m.scale.offset_bits + bits

    return measure


MISTAKES = {
    "offset 8 for data in [-1, 1]": with_the_offset(8),
    "no dequantisation": without_dequantisation,
    "grey levels at their centres": with_centred_grey_levels,
}


@pytest.mark.parametrize("mistake", MISTAKES)
def test_a_known_mistake_is_found_out(mistake: str) -> None:
    found = check_model(DDPM, measure=MISTAKES[mistake])
    assert not found.passed


def test_an_offset_of_7_for_data_in_0_to_1_is_found_out() -> None:
    found = check_model(MODELS["score_sde VE"], images=64, measure=with_the_offset(7))
    assert not found.passed
    assert found.error == pytest.approx(-1, abs=0.02)


def test_a_dropped_decoder_entropy_is_found_out(monkeypatch: pytest.MonkeyPatch) -> None:
    """The decoder's own entropy, ½ log(2 pi e sigma²/alpha²), counts; a published code leaves it out."""
    right = ImageElbo.elbo_x0.fget
    ratio2 = DDPM.sde.noise_level(torch.tensor(START, dtype=torch.float64)).exp().item()
    entropy = DDPM.d * 0.5 * math.log(2 * math.pi * math.e * ratio2)
    monkeypatch.setattr(ImageElbo, "elbo_x0", property(lambda elbo: right(elbo) + entropy))
    found = check_model(DDPM, images=64)
    assert not found.passed


def test_a_bound_that_ends_at_epsilon_is_found_out(monkeypatch: pytest.MonkeyPatch) -> None:
    """The density of x_epsilon instead of that of x_0."""
    monkeypatch.setattr(ImageElbo, "elbo_x0", ImageElbo.elbo_eps)
    assert not check_model(DDPM, images=64).passed
