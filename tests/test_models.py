"""Models that others trained: what they predict becomes a score on a clock, and what is unsafe or unfit is refused."""

import dataclasses
import importlib.util
import json
import math
import pickle
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file
from score_sde_form import Theirs

from difftime.diffusion.mixture import Mixture
from difftime.diffusion.score import ExactScore
from difftime.diffusion.sde import VE, VP, SubVP, expand, matched_noise
from difftime.diffusion.tabulated import Tabulated
from difftime.images.pixels import CENTRED, UNIT, Scale, bits_per_dimension, moments, scaled
from difftime.measures.few_steps import dpm_solver_2m, level_times
from difftime.measures.image_elbo import image_elbo, over_images
from difftime.measures.likelihood import ode_likelihood
from difftime.models import BadModel, ForeignModel, load_model
from difftime.models.diffusers_folder import IndexedNoise, import_unet
from difftime.models.foreign import Clock, NoiseScore

needs_diffusers = pytest.mark.skipif(importlib.util.find_spec("diffusers") is None, reason="needs difftime[models]")
LINEAR = {"_class_name": "DDPMScheduler", "beta_schedule": "linear", "num_train_timesteps": 1000}
UNET = {
    "sample_size": 8, "in_channels": 1, "out_channels": 1, "block_out_channels": (8, 8), "layers_per_block": 1,
    "down_block_types": ("DownBlock2D", "DownBlock2D"), "up_block_types": ("UpBlock2D", "UpBlock2D"),
    "norm_num_groups": 4, "attention_head_dim": 4,
}  # fmt: skip


def times(*t: float) -> torch.Tensor:
    return torch.tensor(t, dtype=torch.float64)


def images(shape: tuple[int, int, int], n: int = 2) -> torch.Tensor:
    return torch.randn(n, *shape, generator=torch.Generator().manual_seed(1))


def save(folder: Path, scheduler: dict[str, Any] | None = LINEAR, pipeline: bool = False, **changes: Any) -> Path:
    """A model of random weights, as diffusers saves it."""
    torch.manual_seed(0)
    unet = import_unet()(**(UNET | changes))
    unet.save_pretrained(folder / "unet" if pipeline else folder)
    if scheduler is not None:
        place = folder / "scheduler" if pipeline else folder
        place.mkdir(exist_ok=True)
        (place / "scheduler_config.json").write_text(json.dumps(scheduler))
    return folder


# scales and clocks


def test_the_usual_scales_are_those_of_pixels() -> None:
    k = torch.arange(256, dtype=torch.uint8)
    u = torch.rand(256, generator=torch.Generator().manual_seed(0))
    assert torch.allclose(CENTRED.dequantised(k, u), scaled(k, u))
    assert CENTRED.bits_per_dimension(-3.0, 4) == bits_per_dimension(-3.0, 4)
    assert (CENTRED.offset_bits, UNIT.offset_bits) == (7, 8)


def test_bits_do_not_depend_on_the_scale() -> None:
    """A density per unit of x changes by the width of a grey level, the offset by as much."""
    log_p_of_levels = -40.0
    bits = [
        scale.bits_per_dimension(log_p_of_levels - 9 * math.log(scale.width), 9)
        for scale in (CENTRED, UNIT, Scale.at_centres(-1.0, 1.0))
    ]
    assert bits == pytest.approx([40 / (9 * math.log(2))] * 3)


@pytest.mark.parametrize("scale", [CENTRED, UNIT, Scale.at_centres(-1.0, 1.0)])
def test_moments_and_levels_follow_the_scale(scale: Scale) -> None:
    k = torch.randint(0, 256, (50, 1, 2, 2), dtype=torch.uint8, generator=torch.Generator().manual_seed(0))
    on_scale = scale.moments(moments(k))
    centres = scale.dequantised(k, torch.full(k.shape, 0.5)).flatten(1).double()
    assert torch.allclose(on_scale.mean, centres.mean(0), atol=1e-6)
    blur = scale.width**2 / 12 * torch.eye(4, dtype=torch.float64)
    assert torch.allclose(on_scale.covariance, centres.T.cov(correction=0) + blur, atol=1e-6)
    assert torch.equal(scale.levels(scale.dequantised(k, torch.full(k.shape, 0.5))), k)


def test_to_tensor_puts_0_and_255_at_the_ends() -> None:
    ends = Scale.at_centres(-1.0, 1.0).dequantised(torch.tensor([0, 255], dtype=torch.uint8), torch.tensor([0.5, 0.5]))
    assert ends.tolist() == pytest.approx([-1, 1])


CLOCKS = {
    "linear": Clock(VP(), Tabulated.linear()),
    "cosine": Clock(Tabulated.cosine(), Tabulated.cosine()),
    "ve": Clock(VE(0.01, 50.0, from_zero=False), None),
}


@pytest.mark.parametrize("name", CLOCKS)
def test_the_hands_of_a_clock_are_inverse_to_each_other(name: str) -> None:
    clock = CLOCKS[name]
    t = torch.linspace(0.05, 0.95, 7, dtype=torch.float64)
    assert torch.allclose(clock.at_vp_time(clock.vp_time(t)), t)
    assert torch.allclose(clock.at_ratio(clock.ratio(t)), t)
    assert torch.allclose(clock.ratio(t), clock.sde.sigma(t) / clock.sde.alpha(t))
    if clock.table:
        assert torch.allclose(clock.at_index(clock.index(t)), t)
        assert clock.index(clock.at_index(times(0, 17, 998.5))).tolist() == pytest.approx([0, 17, 998.5], abs=1e-6)


def test_a_time_is_said_on_every_clock() -> None:
    assert CLOCKS["linear"].words(0.6) == "t = 0.6, index 598.0 of 1000, sigma/alpha = 6.097, VP(0.1, 20) time 0.6"


def test_continuous_time_has_no_index() -> None:
    with pytest.raises(BadModel, match="has no indices"):
        CLOCKS["ve"].index(times(0.5))


# what a network predicts


@dataclasses.dataclass
class Predicts:
    """A diffusers network that is exact for N(centre, variance) and predicts one of three things, and a range."""

    kind: str
    clock: Clock
    centre: float = 0.2
    variance: float = 0.3

    def __call__(self, x: torch.Tensor, index: torch.Tensor) -> Any:
        t = self.clock.at_index(index.double())
        alpha, sigma = (expand(part, x) for part in (self.clock.sde.alpha(t), self.clock.sde.sigma(t)))
        z_hat = sigma * (x - alpha * self.centre) / (alpha**2 * self.variance + sigma**2)
        x0_hat = (x - sigma * z_hat) / alpha
        out = {"epsilon": z_hat, "v_prediction": alpha * z_hat - sigma * x0_hat, "sample": x0_hat}[self.kind]
        return dataclasses.make_dataclass("Output", ["sample"])(torch.cat([out, torch.full_like(out, 9.0)], 1))


@pytest.mark.parametrize("table", ["linear", "cosine"])
@pytest.mark.parametrize("kind", ["epsilon", "v_prediction", "sample"])
def test_every_prediction_gives_the_exact_score_of_a_gaussian(kind: str, table: str) -> None:
    clock, shape = CLOCKS[table], (1, 2, 2)
    score = NoiseScore(IndexedNoise(Predicts(kind, clock), clock, kind, 1), clock.sde, shape)
    exact = ExactScore(Mixture.from_covariances([1.0], [[0.2] * 4], [(0.3 * torch.eye(4)).tolist()]), clock.sde)
    x = torch.randn(3, 5, 4, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    for t in (times(0.3).squeeze(), times(0.05, 0.4, 0.9)):
        assert torch.allclose(score(x, t), exact(x, t), rtol=1e-4, atol=1e-4)


def test_every_number_of_an_exact_model_is_its_closed_form() -> None:
    """ODE, ELBO and samples of a Gaussian, through the index of a table and a network in float32."""
    clock, shape, n = CLOCKS["linear"], (1, 4, 4), 40
    d, (epsilon, T) = math.prod(shape), clock.at_index(times(0, 700)).tolist()
    score = NoiseScore(IndexedNoise(Predicts("epsilon", clock), clock, "epsilon", 1), clock.sde, shape)
    noise = matched_noise(clock.sde, T, torch.full((d,), 0.2), torch.full((d,), 0.3))
    start = matched_noise(clock.sde, epsilon, torch.full((d,), 0.2), torch.full((d,), 0.3))

    x = start.sample(1, n, generator=torch.Generator().manual_seed(0))
    ode = ode_likelihood(score, clock.sde, [noise], x, T, epsilon, rtol=1e-5, atol=1e-5, max_evaluations=5000)
    assert torch.allclose(ode.log_q[0], start.log_prob(x), rtol=1e-4)

    x0 = 0.2 + 0.3**0.5 * torch.randn(n, d, generator=torch.Generator().manual_seed(1))
    elbo = image_elbo(
        score, clock.sde, [noise], x0, T, epsilon, seeds=["exact"], indices=torch.arange(n), pairs=64, end_pairs=16,
        batch=n,
    )  # fmt: skip
    r = clock.sde.noise_level(times(epsilon)).exp().item() / 0.3
    q = (x0.double() - 0.2) ** 2 / 0.3
    loss = 0.5 * (math.log1p(r) - (q * r**2 + r) / (1 + r) ** 2)
    truth = (-0.5 * (math.log(2 * math.pi * 0.3) + q) - loss).sum(-1)
    error = over_images(elbo.elbo_x0[0, 0] - truth)
    assert abs(error.mean) < 4 * error.se < 1

    z = noise.sample(1, n, generator=torch.Generator().manual_seed(2))
    along = (z - noise.mean) * (start.variance / noise.variance).sqrt() + start.mean
    drawn = dpm_solver_2m(score, clock.sde, z, level_times(clock.sde, T, epsilon, 200))
    assert torch.allclose(drawn, along, atol=2e-3)


# diffusers


@needs_diffusers
@pytest.mark.parametrize("pipeline", [False, True])
def test_a_diffusers_model_gives_its_noise_at_the_index_of_a_time(tmp_path: Path, pipeline: bool) -> None:
    model = load_model(save(tmp_path / "ddpm", pipeline=pipeline))
    assert (model.name, model.shape, model.sde) == ("ddpm", (1, 8, 8), VP(0.1, 20.0))
    assert [model.epsilon, model.T] == pytest.approx([9.165e-4, 1.00338], rel=1e-4)
    unet = import_unet().from_pretrained(tmp_path / "ddpm" / ("unet" if pipeline else ""))
    x = images(model.shape)
    for index in (0.0, 598.0, 700.25, 999.0):
        t = model.clock.at_index(times(index)).squeeze()
        with torch.no_grad():
            expected = -unet(x, torch.tensor(index)).sample.flatten(1) / model.sde.sigma(t)
        assert torch.allclose(model.score(x.flatten(1), t), expected.float(), rtol=1e-3, atol=1e-4)


@needs_diffusers
def test_the_first_level_is_said_to_be_the_decoders(tmp_path: Path) -> None:
    assert "decoder at the model's first noise level: t = 0.0009165, index 0.0" in load_model(save(tmp_path)).decoder


@needs_diffusers
def test_a_score_has_gradients_in_x_and_weights_have_none(tmp_path: Path) -> None:
    model = load_model(save(tmp_path))
    x = images(model.shape).flatten(1).requires_grad_()
    model.score(x, times(0.5).squeeze()).sum().backward()
    assert x.grad.abs().sum() > 0
    assert not any(parameter.requires_grad for parameter in model.net.parameters())


@needs_diffusers
@pytest.mark.parametrize(
    ("scheduler", "sde"),
    [
        ({"beta_schedule": "scaled_linear", "beta_start": 0.00085, "beta_end": 0.012}, Tabulated.scaled_linear()),
        ({"beta_schedule": "squaredcos_cap_v2"}, Tabulated.cosine()),
        ({"beta_schedule": "sigmoid"}, Tabulated.sigmoid()),
        ({"beta_schedule": "linear", "trained_betas": [0.1, 0.2]}, Tabulated.from_betas([0.1, 0.2])),
        ({"beta_schedule": "linear", "num_train_timesteps": 200, "beta_end": 0.1}, VP(0.02, 20.0)),
    ],
)
def test_the_noise_levels_are_those_of_the_scheduler(tmp_path: Path, scheduler: dict, sde: object) -> None:
    from diffusers import DDPMScheduler

    model = load_model(save(tmp_path, scheduler={"_class_name": "DDPMScheduler"} | scheduler))
    signal = DDPMScheduler(**scheduler).alphas_cumprod.double()
    assert model.sde == sde
    t = model.clock.at_index(torch.arange(len(signal), dtype=torch.float64))
    assert torch.allclose(model.clock.ratio(t), ((1 - signal) / signal).sqrt(), rtol=1e-3)
    assert t[-1].item() == pytest.approx(model.T)


@needs_diffusers
def test_a_learned_range_has_no_part_in_the_score(tmp_path: Path) -> None:
    model = load_model(save(tmp_path, out_channels=2))
    x, t = images(model.shape), times(0.5).squeeze()
    assert model.score(x.flatten(1), t).shape == (2, 64)
    index = model.clock.index(t).float()
    expected = -model.net(x, index).sample[:, :1].flatten(1) / model.sde.sigma(t).float()
    assert torch.allclose(model.score(x.flatten(1), t), expected)


@needs_diffusers
def test_score_sde_ve_returns_its_score_for_data_in_0_to_1(tmp_path: Path) -> None:
    settings = {"_class_name": "ScoreSdeVeScheduler", "sigma_min": 0.02, "sigma_max": 30.0}
    model = load_model(save(tmp_path, scheduler=settings, time_embedding_type="fourier"))
    assert (model.sde, model.scale.offset_bits, model.T) == (VE(0.02, 30.0, from_zero=False), 8, 1.0)
    x, t = images(model.shape), times(0.5).squeeze()
    expected = model.net(x, model.sde.sigma(t).float()).sample.flatten(1)
    assert torch.allclose(model.score(x.flatten(1), t), expected, rtol=1e-4)


@needs_diffusers
def test_the_digest_is_of_weights_and_settings(tmp_path: Path) -> None:
    first, other = load_model(save(tmp_path / "a")), load_model(save(tmp_path / "b", scheduler=LINEAR | {"a": 1}))
    assert load_model(tmp_path / "a").digest == first.digest != other.digest


# score_sde_pytorch

FORMS = {
    "VP NCSN++": {"fir": True, "pyramid": True, "fourier": False},
    "DDPM++": {"fir": False, "pyramid": False, "fourier": False},
    "VE NCSN++": {"fir": True, "pyramid": True, "fourier": True},
}


def checkpoint(path: Path, form: str, **changes: Any) -> tuple[Path, Theirs]:
    shape = {"channels": 2, "size": 8, "nf": 16, "multipliers": (1, 2), "blocks": 2, "attention": (4,)}
    theirs = Theirs(**(shape | FORMS[form] | changes))
    theirs(torch.zeros(1, theirs.channels, theirs.size, theirs.size), torch.ones(1))
    sigmas = torch.logspace(math.log10(0.02), math.log10(40), 5).flip(0)
    torch.save(theirs.checkpoint(sigmas), path)
    return path, theirs


@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize("changes", [{}, {"attention": ()}, {"attention": (8, 4), "blocks": 1}, {"multipliers": (1,)}])
def test_a_checkpoint_gives_the_score_of_its_form(tmp_path: Path, form: str, changes: dict) -> None:
    path, theirs = checkpoint(tmp_path / "checkpoint_8.pth", form, **changes)
    if not theirs.pyramid or len(theirs.multipliers) > 1:
        model = load_model(path, size=8)
        x, t = images(model.shape), times(0.2, 0.7)
        sigma = model.sde.sigma(t).float().reshape(2, 1, 1, 1)
        if form == "VE NCSN++":
            assert (model.sde.sigma_min, model.sde.sigma_max) == pytest.approx((0.02, 40.0))
            expected = theirs(x, sigma.flatten())
        else:
            expected = -theirs(x, 999 * t.float()) / sigma
        assert model.scale == (UNIT if theirs.fourier else CENTRED)
        assert torch.allclose(model.score(x.flatten(1), t), expected.flatten(1), rtol=1e-3, atol=1e-4)


def test_a_checkpoint_of_sub_vp_has_to_be_named(tmp_path: Path) -> None:
    path, _ = checkpoint(tmp_path / "a.pth", "DDPM++")
    assert load_model(path, size=8).sde == VP()
    assert load_model(path, size=8, sde="sub-vp").sde == SubVP()


# code of one's own


def test_a_factory_gives_the_score_of_its_denoiser(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The mean of x_0 given x for N(0.2, 0.3)."""
    code = "def gaussian():\n    return lambda x, s: 0.2 + (x - 0.2) * (0.3 / (0.3 + s**2))[:, None, None, None]\n"
    (tmp_path / "mine_gaussian.py").write_text(code)
    monkeypatch.syspath_prepend(tmp_path)
    model = load_model("mine_gaussian:gaussian", shape=(1, 2, 2))
    exact = ExactScore(Mixture.from_covariances([1.0], [[0.2] * 4], [(0.3 * torch.eye(4)).tolist()]), model.sde)
    x, t = torch.randn(6, 4, generator=torch.Generator().manual_seed(0)), times(0.5).squeeze()
    assert torch.allclose(model.score(x, t), exact(x, t), rtol=1e-3, atol=1e-5)
    assert model.clock.ratio(times(0, 1)).tolist() == pytest.approx([0.002, 80])
    del sys.modules["mine_gaussian"]


# refusals


class Harmful:
    def __reduce__(self) -> tuple[Callable, tuple[str]]:
        return print, ("this code ran",)


def latent(folder: Path) -> Path:
    (save(folder, pipeline=True) / "vae").mkdir()
    return folder


def of_class(folder: Path, name: str) -> Path:
    config = json.loads((save(folder) / "config.json").read_text())
    (folder / "config.json").write_text(json.dumps(config | {"_class_name": name}))
    return folder


def pickled(folder: Path) -> Path:
    (save(folder) / "diffusion_pytorch_model.safetensors").rename(folder / "diffusion_pytorch_model.bin")
    return folder


def without_a_weight(folder: Path) -> Path:
    path = save(folder) / "diffusion_pytorch_model.safetensors"
    weights = load_file(path)
    del weights["conv_in.bias"]
    save_file(weights, path, metadata={"format": "pt"})
    return folder


def cut(folder: Path) -> Path:
    path = save(folder) / "diffusion_pytorch_model.safetensors"
    path.write_bytes(path.read_bytes()[:-100])
    return folder


REFUSED = {
    "latent diffusion": (latent, "is a latent-diffusion model"),
    "text condition": (lambda f: of_class(f, "UNet2DConditionModel"), "the conditional model UNet2DConditionModel"),
    "class condition": (lambda f: save(f, num_class_embeds=10), "is a conditional model"),
    "learned times": (lambda f: save(f, time_embedding_type="learned", num_train_timesteps=9), "learned embedding"),
    "no scheduler": (lambda f: save(f, scheduler=None), "has no scheduler"),
    "other scheduler": (lambda f: save(f, scheduler={"_class_name": "EDMEulerScheduler"}), "EDMEulerScheduler has no"),
    "other betas": (lambda f: save(f, scheduler=LINEAR | {"beta_schedule": "laplace"}), "'laplace' is not known"),
    "other prediction": (lambda f: save(f, scheduler=LINEAR | {"prediction_type": "flow"}), "'flow' is not known"),
    "no last signal": (lambda f: save(f, scheduler=LINEAR | {"rescale_betas_zero_snr": True}), "without any signal"),
    "not square": (lambda f: save(f, sample_size=(8, 16)), "only square images"),
    "no size": (lambda f: save(f, sample_size=None), "does not say the size"),
    "pickle": (pickled, "a pickle, which can execute code"),
    "missing weight": (without_a_weight, "conv_in.bias"),
    "damaged weights": (cut, "cannot be read as a UNet2DModel"),
    "three outputs": (lambda f: save(f, out_channels=3), "3 channels come out where 1 go in"),
}


@needs_diffusers
@pytest.mark.parametrize("case", REFUSED)
def test_a_folder_that_cannot_be_measured_is_refused_with_one_message(tmp_path: Path, case: str) -> None:
    make, message = REFUSED[case]
    with pytest.raises(BadModel, match=message):
        load_model(make(tmp_path / "model"))


def test_a_pickle_that_holds_code_is_refused_and_not_run(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = tmp_path / "harmful.pth"
    torch.save({"model": Harmful()}, path)
    with pytest.raises(BadModel, match="a pickle that holds code"):
        load_model(path, size=8)
    assert capsys.readouterr().out == ""


def broken(content: dict, **changes: Any) -> dict:
    return content | changes


BROKEN: dict[str, tuple[Callable[[dict], Any], dict, str]] = {
    "no size": (lambda c: c, {}, "does not say the size"),
    "wrong size": (lambda c: c, {"size": 7}, "no network for 7 × 7"),
    "no averages": (lambda c: {"model": c["model"]}, {"size": 8}, "no checkpoint of score_sde_pytorch"),
    "a list": (lambda c: [1, 2], {"size": 8}, "no checkpoint of score_sde_pytorch"),
    "other averages": (
        lambda c: broken(c, ema={"shadow_params": c["ema"]["shadow_params"][1:]}),
        {"size": 8},
        "their shapes differ",
    ),
    "other names": (
        lambda c: broken(c, model={"head.weight": torch.zeros(2)}, ema={"shadow_params": [torch.zeros(2)]}),
        {"size": 8},
        "a weight called head.weight",
    ),
    "other SDE": (lambda c: c, {"size": 8, "sde": "ve"}, "no Fourier embedding"),
}


@pytest.mark.parametrize("case", BROKEN)
def test_a_checkpoint_that_is_not_known_is_refused_with_one_message(tmp_path: Path, case: str) -> None:
    change, options, message = BROKEN[case]
    path, _ = checkpoint(tmp_path / "a.pth", "DDPM++")
    torch.save(change(torch.load(path, weights_only=True)), path)
    with pytest.raises(BadModel, match=message):
        load_model(path, **options)


def test_a_file_that_is_no_checkpoint_is_refused(tmp_path: Path) -> None:
    (tmp_path / "a.pth").write_bytes(b"nothing of the kind")
    with pytest.raises(BadModel, match=r"cannot be read as a checkpoint|a pickle that holds code"):
        load_model(tmp_path / "a.pth", size=8)
    (tmp_path / "b.pth").write_bytes(pickle.dumps({"model": {}}))
    with pytest.raises(BadModel):
        load_model(tmp_path / "b.pth", size=8)


@pytest.mark.parametrize(
    ("source", "options", "message"),
    [
        ("nowhere", {}, "is no model"),
        ("no_such_module:factory", {"shape": (1, 2, 2)}, "was not found"),
        ("builtins:dict", {"shape": (1, 2, 2)}, "must return a function"),
        ("builtins:dict", {}, "give the shape"),
        ("builtins:dict", {"shape": (1, 2, 3)}, "only square images"),
    ],
)
def test_an_address_that_leads_to_no_denoiser_is_refused(source: str, options: dict, message: str) -> None:
    with pytest.raises(BadModel, match=message):
        load_model(source, **options)


def test_images_of_another_shape_are_refused() -> None:
    model = ForeignModel("ddpm", lambda x, t: x, VP(), 1e-3, 1.0, (3, 32, 32), CENTRED, CLOCKS["linear"], None, "")
    model.check_fits((3, 32, 32), "cifar10")
    with pytest.raises(BadModel, match="trained on images of 32 × 32 pixels with 3 channels, but mnist has images of"):
        model.check_fits((1, 28, 28), "mnist")


def test_a_missing_diffusers_names_the_extra(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "diffusers", None)
    with pytest.raises(BadModel, match=r"difftime\[models\]"):
        import_unet()
