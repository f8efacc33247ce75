"""p_noise fitted to p(x, T): densities that integrate to one, closed forms, the split, and what is refused."""

from __future__ import annotations

import json
import logging
import math
import shutil
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from scipy.stats import multivariate_normal
from torch import Tensor
from torch.distributions import MultivariateNormal, kl_divergence
from typer.testing import CliRunner

from difftime.cli import app
from difftime.diffusion import p_noise as module
from difftime.diffusion.mixture import Mixture
from difftime.diffusion.p_noise import (
    BadNoise,
    FlowNoise,
    FullGaussian,
    MixtureNoise,
    diffused_moments,
    fit_flow,
    fit_mixture,
    frozen,
    kl_bracket,
    memory_needed,
    shrunk,
    spline_flow,
    tensors,
)
from difftime.diffusion.score import ExactScore
from difftime.diffusion.sde import SDE, VP, Gaussian, Noise, matched_noise, standard_noise
from difftime.measures.elbo import end_terms
from difftime.measures.image_elbo import image_elbo
from difftime.study.cell import build, fit_noise, load_noise, noise_file, p_noises, save_noise
from difftime.study.settings import Cell, FlowNoiseSettings, FullNoiseSettings, MixtureNoiseSettings
from difftime.training.checkpoint import BadFile, load_tensors, save_weights

QUICK = {
    "full": FullNoiseSettings(),
    "mixture": MixtureNoiseSettings(components=2),
    "flow": FlowNoiseSettings(transforms=2, width=16, steps=300, learning_rate=5e-3),
}
TOY = {"kind": "mixture", "weights": [0.3, 0.7], "means": [1.0, 3.0], "stds": [0.1, 0.5], "samples": 2000}
PLANE = {
    "kind": "mixture", "weights": [0.4, 0.6], "means": [[-1.0, 0.5], [1.0, 1.0]], "samples": 2000,
    "covariances": [[[0.2, 0.1], [0.1, 0.3]], [[0.5, -0.2], [-0.2, 0.3]]],
}  # fmt: skip
MLP = {"kind": "mlp", "width": 4, "depth": 1}


def normal(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(*shape, dtype=torch.float64, generator=torch.Generator().manual_seed(seed))


def gaussian(d: int) -> FullGaussian:
    root = normal(d, d, seed=1)
    return FullGaussian.of(normal(d, seed=2), root @ root.mT + 0.1 * torch.eye(d, dtype=torch.float64))


def flow(d: int) -> FlowNoise:
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        return FlowNoise(gaussian(d), frozen(spline_flow(d, 2, 8)))


def noise_of(kind: str, d: int) -> Noise:
    if kind == "full":
        return gaussian(d)
    if kind == "flow":
        return flow(d)
    means, spread = [[-1.0] * d, [1.5] * d], [np.eye(d) * 0.3, np.eye(d) * 0.6 + 0.2]
    return MixtureNoise.of(Mixture.from_covariances([0.3, 0.7], means, [one.tolist() for one in spread]))


def a_cell(data: dict[str, Any], T: float = 0.3, **changes: Any) -> Cell:
    plain = {
        "dataset": "data", "sde": "vp", "net": "net", "T": T, "seed": 0, "seeds": 2, "data": data,
        "diffusion": {"kind": "vp"}, "network": MLP, "training": {"steps": 3, "batch": 4},
    }  # fmt: skip
    return Cell.model_validate(plain | changes)


def pictures(place: Path, train: np.ndarray, test: np.ndarray) -> Cell:
    np.savez(place, train=train, test=test)
    network = {"kind": "ncsnpp", "width": 4, "multipliers": [1, 2], "blocks": 1}
    return a_cell({"kind": "npz", "path": str(place)}, network=network)


def grey(n: int, seed: int = 0, side: int = 4) -> np.ndarray:
    """Images whose pixels depend on each other."""
    rng = np.random.default_rng(seed)
    level = rng.integers(60, 200, size=(n, 1, 1)) + rng.integers(-50, 50, size=(n, side, side))
    return level.clip(0, 255).astype(np.uint8)


# Densities


@pytest.mark.parametrize("kind", ["full", "mixture", "flow"])
def test_a_density_integrates_to_one(kind: str) -> None:
    noise = noise_of(kind, 1)
    x = torch.linspace(-25, 25, 40_001, dtype=torch.float64)
    assert torch.trapezoid(noise.log_prob(x[:, None]).exp(), x).item() == pytest.approx(1, abs=2e-4)


@pytest.mark.parametrize("kind", ["full", "mixture", "flow"])
def test_draws_have_the_density(kind: str) -> None:
    """E under the draws of 1/p over a box is the box's volume, wherever the box is within the support."""
    noise = noise_of(kind, 2)
    x = noise.sample(4, 10_000, generator=torch.Generator().manual_seed(3)).flatten(0, 1)
    inside = ((x - noise.mean).abs() < noise.spread.sqrt()).all(-1)
    weight = torch.where(inside, torch.exp(-noise.log_prob(x)), 0.0)
    volume, se = weight.mean().item(), weight.std().item() / 200
    assert abs(volume - 4 * noise.spread.sqrt().prod().item()) < 4 * se


@pytest.mark.parametrize("kind", ["full", "mixture"])
def test_mean_and_spread_are_those_of_the_draws(kind: str) -> None:
    noise = noise_of(kind, 3)
    x = noise.sample(40_000, generator=torch.Generator().manual_seed(4))
    error = (x.mean(0) - noise.mean) / (noise.spread / 40_000).sqrt()
    assert error.abs().max() < 4
    assert torch.allclose(x.var(0), noise.spread, rtol=0.05)


def test_the_full_gaussian_is_scipys() -> None:
    noise, x = gaussian(4), normal(7, 4, seed=5)
    oracle = multivariate_normal(noise.mean.numpy(), (noise.factor @ noise.factor.mT).numpy())
    assert noise.log_prob(x).numpy() == pytest.approx(oracle.logpdf(x.numpy()))


@pytest.mark.parametrize("kind", ["full", "mixture", "flow"])
def test_the_prior_term_is_the_mean_of_log_p_noise_around_an_image(kind: str) -> None:
    noise, centre, variance = noise_of(kind, 3), normal(2, 3, seed=6), torch.tensor(0.3).double()
    few = noise.prior(centre, variance, normal(2000, 2, 3, seed=7))
    values = noise.log_prob(centre + variance.sqrt() * normal(20_000, 2, 3, seed=8))
    assert ((few - values.mean(0)).abs() < 4 * values.std(0) * math.sqrt(1 / 20_000 + 1 / 2000)).all()


# Theory


def test_the_full_covariance_removes_the_lower_end_of_the_bracket(sde: SDE) -> None:
    mean, root = normal(6, seed=9), normal(6, 6, seed=10)
    C = root @ root.mT
    for T in (0.05, 0.2, 1.0):
        noise = FullGaussian.of(*diffused_moments(sde, T, mean, C))
        lower, upper = kl_bracket(mean, C, sde, T, noise)
        before = kl_bracket(mean, C, sde, T, standard_noise(sde, T, (6,)))
        assert lower < 1e-9 * before.upper
        # what is left is the width that every bracket has
        assert upper == pytest.approx(before.upper - before.lower, rel=1e-6)


def test_the_lower_end_is_the_kl_of_two_gaussians(sde: SDE) -> None:
    mean, root, noise, T = normal(4, seed=11), normal(4, 4, seed=12), gaussian(4), 0.3
    C = root @ root.mT
    x_T = MultivariateNormal(*diffused_moments(sde, T, mean, C))
    oracle = MultivariateNormal(noise.mean, scale_tril=noise.factor)
    assert kl_bracket(mean, C, sde, T, noise).lower == pytest.approx(kl_divergence(x_T, oracle).item(), rel=1e-9)


def test_a_better_p_noise_has_the_smaller_kl_on_a_mixture(correlated: Mixture) -> None:
    problem = build(a_cell(PLANE, T=0.15))
    fitted = {name: fit_noise(problem, settings, "0") for name, settings in QUICK.items()}
    known = {name: problem.noise(name) for name in ("standard", "matched")}
    p, T = problem.density, problem.T
    found = {
        name: end_terms(p, problem.sde, noise, T, problem.epsilon, points=500, seed="0")
        for name, noise in (known | fitted).items()
    }
    ladder = [found[name] for name in ("standard", "matched", "full", "mixture")]
    for worse, better in pairwise(ladder):
        assert better.kl < worse.kl + 4 * math.hypot(better.kl_se, worse.kl_se)
    assert found["mixture"].kl < 0.1 * found["full"].kl
    assert found["flow"].kl < found["full"].kl


def test_the_elbo_of_gaussian_images_is_tight_under_the_full_covariance(tmp_path: Path) -> None:
    """With the exact score of Gaussian data and p_noise = p(x, T), the ELBO is the log-likelihood."""
    d, T, epsilon, sde = 5, 0.2, 1e-5, VP()
    root = normal(d, d, seed=13)
    data = Mixture.from_covariances([1.0], [normal(d, seed=14).tolist()], [(root @ root.mT + torch.eye(d)).tolist()])
    noises = [standard_noise(sde, T, (d,)), FullGaussian.of(*diffused_moments(sde, T, data.mean, data.covariance))]
    x0 = data.sample(400, torch.Generator().manual_seed(15))
    terms = image_elbo(
        ExactScore(data, sde), sde, noises, x0, T, epsilon,
        seeds=["0"], indices=torch.arange(400), pairs=64, end_pairs=8, batch=400,
    )  # fmt: skip
    short = (data.log_prob(x0) - terms.elbo_x0[:, 0]).mean(-1)
    se = (data.log_prob(x0) - terms.elbo_x0[:, 0]).std(-1) / 20
    kl = kl_divergence(
        MultivariateNormal(*diffused_moments(sde, T, data.mean, data.covariance)),
        MultivariateNormal(torch.zeros(d).double(), torch.eye(d).double()),
    )
    assert abs(short[1]) < 4 * se[1] + 1e-3
    assert abs(short[0] - kl) < 4 * se[0] + 1e-3


# Fitting


def test_a_mixture_finds_the_mixture_that_x_T_is() -> None:
    problem = build(a_cell(TOY | {"samples": 20_000}, T=0.1))
    fitted = fit_noise(problem, MixtureNoiseSettings(components=2), "0").mixture
    truth = problem.density.diffused(problem.sde, problem.T)
    order = fitted.means[:, 0].argsort()
    assert torch.allclose(fitted.weights[order], truth.weights, atol=0.02)
    assert torch.allclose(fitted.means[order], truth.means, atol=0.03)
    assert torch.allclose(fitted.variances[order], truth.variances, rtol=0.1)


@pytest.mark.parametrize("name", QUICK)
def test_a_fit_comes_out_the_same_again_and_survives_its_file(name: str, tmp_path: Path) -> None:
    problem, settings = build(a_cell(PLANE)), QUICK[name]
    first, again = (fit_noise(problem, settings, "0") for _ in range(2))
    form = settings.model_dump(include={"transforms", "width"})
    for k, noise in enumerate((first, again)):
        save_noise(tmp_path / f"{k}.safetensors", problem, name, noise, form)
    assert (tmp_path / "0.safetensors").read_bytes() == (tmp_path / "1.safetensors").read_bytes()
    x = normal(5, 2)
    assert torch.equal(load_noise(tmp_path / "0.safetensors", problem, name).log_prob(x), first.log_prob(x))


@pytest.mark.parametrize("name", QUICK)
def test_no_test_image_reaches_a_fit(name: str, tmp_path: Path) -> None:
    """Other test images change nothing; training images exchanged for test images, a broken split, would."""
    train, test = grey(80), grey(40, seed=1)
    settings = {"mixture": MixtureNoiseSettings(components=1), "flow": FlowNoiseSettings(steps=5)}
    fits = [
        fit_noise(build(pictures(tmp_path / f"{k}.npz", *split)), settings.get(name, QUICK["full"]), "0")
        for k, split in enumerate(((train, test), (train, grey(40, seed=2)), (test, train)))
    ]
    x = normal(3, 16)
    own, other_test, broken = (fit.log_prob(x) for fit in fits)
    assert torch.equal(own, other_test)
    assert not torch.allclose(own, broken)


def test_images_have_a_larger_elbo_under_their_own_covariance(tmp_path: Path) -> None:
    """On training data a p_noise that knows more of them is never worse: only the prior term differs."""
    problem = build(pictures(tmp_path / "images.npz", grey(200), grey(20, seed=1)))
    x0 = problem.known(torch.arange(200), torch.Generator().manual_seed(3))
    t = torch.tensor(problem.T).double()
    noises = [problem.noise("standard"), problem.noise("matched"), *(fit_noise(problem, QUICK[k], "0") for k in QUICK)]
    terms = torch.stack([
        noise.prior(problem.sde.alpha(t) * x0, problem.sde.variance(t), normal(64, 200, 16)) for noise in noises
    ])  # fmt: skip
    standard, matched, full, mixture, flow = terms.mean(1)
    assert standard < matched < full
    for better in (mixture, flow):
        assert better > standard + 4 * (terms[3:] - terms[0]).std(1).max() / math.sqrt(200)


def test_a_flow_is_chosen_by_points_it_has_not_seen(caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.INFO, "difftime"):
        problem = build(a_cell(TOY, T=0.1))
        noise = fit_noise(problem, QUICK["flow"], "0")
    assert "nats above the Gaussian on held-out points" in caplog.text
    truth = problem.density.diffused(problem.sde, problem.T)
    x = truth.sample(5000, torch.Generator().manual_seed(16))
    assert noise.log_prob(x).mean() > noise.gaussian.log_prob(x).mean() + 0.1


# What is refused


def test_too_few_images_are_shrunk_and_the_log_says_so(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    problem = build(pictures(tmp_path / "few.npz", grey(5), grey(3)))
    with caplog.at_level(logging.WARNING, "difftime"):
        noise = fit_noise(problem, QUICK["full"], "0")
    assert "5 points leave the covariance in 16 dimensions singular" in caplog.text
    assert noise.log_prob(normal(3, 16)).isfinite().all()


def test_a_component_of_few_images_is_shrunk_and_the_log_says_so(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """Two kinds of images, 30 dark and 10 bright ones of 16 pixels: enough for two components, not for the second."""
    train = np.concatenate([grey(30) // 4, 192 + grey(10, seed=2) // 4])
    problem = build(pictures(tmp_path / "two.npz", train, grey(3)))
    with caplog.at_level(logging.WARNING, "difftime"):
        noise = fit_noise(problem, QUICK["mixture"], "0")
    assert caplog.text.count("10 points leave the covariance in 16 dimensions singular") == 1
    assert "30 points" not in caplog.text
    assert noise.log_prob(normal(3, 16)).isfinite().all()


def test_shrinkage_keeps_the_trace_and_makes_the_covariance_regular() -> None:
    x = normal(4, 10)
    C = torch.cov(x.mT, correction=0)
    regular = shrunk(C, 4)
    assert regular.trace() == pytest.approx(C.trace().item())
    assert torch.linalg.eigvalsh(regular).min() > 0 > torch.linalg.eigvalsh(C).min() - 1e-12
    assert torch.equal(shrunk(C, 11), C)


def test_a_singular_covariance_is_refused() -> None:
    with pytest.raises(BadNoise, match="singular"):
        FullGaussian.of(torch.zeros(2).double(), torch.ones(2, 2).double())


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        (
            MixtureNoiseSettings(components=3),
            "needs at least 51 training points; there are 18. Lower noise",
        ),
        (FlowNoiseSettings(), "needs at least 20 training points; there are 18"),
    ],
)
def test_too_few_images_for_the_dimension_are_refused(settings, message: str, tmp_path: Path) -> None:
    problem = build(pictures(tmp_path / "few.npz", grey(18), grey(3)))
    with pytest.raises(BadNoise, match=message):
        fit_noise(problem, settings, "0")


@pytest.mark.parametrize(
    ("other", "what"),
    [
        ({"T": 0.4}, "other T than the cell's: 0.3, not 0.4"),
        ({"data": TOY | {"means": [1.0, 2.0]}}, "other data than the cell's"),
        ({"diffusion": {"kind": "vp", "beta_max": 10.0}}, "other SDE than the cell's"),
    ],
)
def test_a_p_noise_of_another_cell_is_refused_and_says_which(other: dict[str, Any], what: str, tmp_path: Path) -> None:
    own = build(a_cell(TOY))
    save_noise(noise_file(tmp_path, "full"), own, "full", fit_noise(own, QUICK["full"], "0"), {})
    with pytest.raises(BadNoise, match=what):
        p_noises(build(a_cell(**({"data": TOY} | other))), ["full"], tmp_path)


def test_a_network_of_another_width_may_use_the_same_p_noise(tmp_path: Path) -> None:
    own = build(a_cell(TOY))
    save_noise(noise_file(tmp_path, "full"), own, "full", fit_noise(own, QUICK["full"], "0"), {})
    (noise,) = p_noises(build(a_cell(TOY, network=MLP | {"width": 8})), ["full"], tmp_path)
    assert isinstance(noise, FullGaussian)


@pytest.mark.parametrize("kind", ["full", "mixture", "flow"])
def test_a_p_noise_is_wholly_where_it_is_moved(kind: str) -> None:
    """On the meta device nothing is computed, but what lies elsewhere is refused."""
    noise = noise_of(kind, 2)
    there = noise.to("meta")
    assert {part.device.type for part in tensors(there).values()} == {"meta"}
    assert there.log_prob(torch.zeros(3, 5, 2, dtype=torch.float64, device="meta")).shape == (3, 5)
    assert noise.log_prob(normal(5, 2)).isfinite().all(), "the original is moved too"


@pytest.mark.parametrize("name", QUICK)
def test_a_fitted_p_noise_is_known_at_its_own_T_only(name: str) -> None:
    with pytest.raises(BadNoise, match=f"{name} is not standard or matched: it is fitted to one T"):
        build(a_cell(TOY)).noise(name)


@pytest.mark.parametrize("name", QUICK)
def test_an_x_T_that_is_not_finite_is_refused(name: str) -> None:
    far = a_cell(TOY, T=150.0, diffusion={"kind": "ve-exponential", "base": 1e4})
    with pytest.raises(BadNoise, match="not finite"):
        fit_noise(build(far), QUICK[name], "0")


def test_a_flow_that_diverges_is_refused_with_the_step() -> None:
    def draw(points: Tensor, generator: torch.Generator) -> Tensor:
        x = torch.randn(len(points), 2, dtype=torch.float64, generator=generator)
        return x if len(points) < 8 else x * math.inf

    options = FlowNoiseSettings(transforms=1, width=4, batch=8).model_dump(exclude={"kind"})
    with pytest.raises(BadNoise, match=r"diverged: its loss at step 1 is (nan|inf)\..*learning_rate"):
        fit_flow(draw, gaussian(2), 20, **options, seed="0")


@pytest.mark.parametrize("share", [0.001, 0.9999])
def test_a_flow_keeps_a_point_on_either_side_of_the_split(share: float) -> None:
    settings = FlowNoiseSettings(transforms=1, width=4, steps=2, held_out=share)
    noise = fit_noise(build(a_cell(TOY | {"samples": 20})), settings, "0")
    assert noise.log_prob(normal(3, 1)).isfinite().all()


def test_a_mixture_that_did_not_converge_is_loud(caplog: pytest.LogCaptureFixture) -> None:
    fit_noise(build(a_cell(PLANE)), MixtureNoiseSettings(components=3, iterations=1), "0")
    assert "has not converged" in caplog.text


def test_a_mixture_does_not_depend_on_the_scale_of_x() -> None:
    points, options = normal(500, 2, seed=9), {"components": 2, "iterations": 200, "seed": "0"}
    small, large = (fit_mixture(scale * points, VP(), 0.0, **options) for scale in (1e-5, 1.0))
    x = normal(9, 2)
    assert torch.allclose(small.log_prob(1e-5 * x) + 2 * math.log(1e-5), large.log_prob(x), atol=1e-6)


def test_one_component_is_the_gaussian_with_the_moments_of_the_points() -> None:
    sde, T, points = VP(), 0.3, normal(500, 3, seed=9) @ normal(3, 3)
    one = fit_mixture(points, sde, T, components=1, iterations=200, seed="0")
    truth = FullGaussian.of(*diffused_moments(sde, T, points.mean(0), points.mT.cov(correction=0)))
    x = normal(9, 3)
    assert torch.allclose(one.log_prob(x), truth.log_prob(x), atol=1e-9)


def test_where_x_T_is_noise_a_mixture_of_few_points_is_the_standard_normal() -> None:
    """What is fitted is the data. Were the noise fitted too, 50 points in 20 dimensions would miss it by nats."""
    d, x = 20, normal(100, 20, seed=1)
    few = fit_mixture(normal(50, d, seed=9), VP(), 1.5, components=2, iterations=200, seed="0")
    assert torch.allclose(few.log_prob(x), standard_noise(VP(), 1.5, (d,)).log_prob(x), atol=1e-3)


@pytest.mark.parametrize(
    ("owner", "parts", "said"),
    [
        ("no JSON", {}, "does not say what it was fitted to"),
        ("null", {}, "does not say what it was fitted to"),
        (None, {"factor": None}, "does not hold what a p_noise called full is made of"),
        (None, {"mean": torch.tensor([math.nan]).double()}, "not finite"),
    ],
)
def test_a_file_that_is_no_p_noise_is_refused(owner, parts, said: str, tmp_path: Path) -> None:
    problem, path = build(a_cell(TOY)), tmp_path / "noise_full.safetensors"
    save_noise(path, problem, "full", fit_noise(problem, QUICK["full"], "0"), {})
    made_for, found = load_tensors(path, "")
    whole = {name: value for name, value in (found | parts).items() if value is not None}
    save_weights(path, whole, made_for if owner is None else owner)
    with pytest.raises(BadFile, match=said):
        load_noise(path, problem, "full")


def test_an_altered_owner_is_detected(tmp_path: Path) -> None:
    own, other = build(a_cell(TOY)), build(a_cell(TOY, T=0.4))
    path = tmp_path / "noise_full.safetensors"
    save_noise(path, own, "full", fit_noise(own, QUICK["full"], "0"), {})
    content = path.read_bytes()
    altered = content.replace(b'\\"T\\": \\"0.3\\"', b'\\"T\\": \\"0.4\\"')
    assert altered != content
    path.write_bytes(altered)
    with pytest.raises(BadFile, match="does not match its checksum"):
        load_noise(path, other, "full")


def call(*arguments: object) -> Any:
    return CliRunner().invoke(app, [str(argument) for argument in arguments], env={"COLUMNS": "200"})


def test_a_measurement_without_the_file_of_its_p_noise_says_how_to_make_it(tmp_path: Path) -> None:
    cell = tmp_path / "cell.json"
    cell.write_text(json.dumps(a_cell(TOY).model_dump(mode="json")))
    assert call("train", cell).exit_code == 0
    alone, both, how = (tmp_path / f"{name}.json" for name in ("alone", "both", "how"))
    alone.write_text(json.dumps({"p_noise": ["full"]}))
    both.write_text(json.dumps({"p_noise": ["full", "matched"]}))
    how.write_text("{}")
    result = call("elbo", cell, "--settings", alone)
    assert result.exit_code == 1
    assert "noise_full.safetensors does not exist: fit it by `difftime fit-noise" in result.stderr
    assert call("fit-noise", cell, "--p-noise", "full", "--settings", how).exit_code == 0
    assert call("elbo", cell, "--settings", both).exit_code == 0
    path = noise_file(tmp_path, "full")
    path.write_bytes(path.read_bytes()[:-8])
    shutil.copy(tmp_path / "elbo.parquet", tmp_path / "before")
    result = call("elbo", cell, "--settings", alone)
    assert result.exit_code == 1
    assert "noise_full.safetensors cannot be read as weights" in result.stderr
    assert (tmp_path / "elbo.parquet").read_bytes() == (tmp_path / "before").read_bytes()


def test_in_one_dimension_the_full_covariance_is_the_matched_p_noise() -> None:
    problem = build(a_cell(TOY))
    matched = matched_noise(problem.sde, problem.T, problem.density.mean, problem.density.variance)
    assert isinstance(matched, Gaussian)
    x = normal(9, 1)
    assert torch.allclose(fit_noise(problem, QUICK["full"], "0").log_prob(x), matched.log_prob(x), rtol=1e-12)


# Memory


def test_the_memory_of_a_p_noise_grows_as_its_covariances_do() -> None:
    assert [memory_needed(name, 1000, 10**6) for name in ("standard", "matched")] == [0, 0]
    for name in ("full", "flow", "mixture"):
        assert memory_needed(name, 2000, 0) == 4 * memory_needed(name, 1000, 0) > 3 * 8 * 2000**2
    assert memory_needed("mixture", 100, 0, 6) == 6 * memory_needed("mixture", 100, 0)


@pytest.mark.parametrize("name", ["standard", "matched", "flow"])
def test_what_needs_no_covariance_builds_none(name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Neither the p_noise itself nor, where memory is short, its bracket; the upper end stays what it is."""
    cell = pictures(tmp_path / "set.npz", grey(30), grey(9))
    problem, again = build(cell), build(cell)
    noise = flow(16) if name == "flow" else problem.noise(name)
    whole = problem.bracket(noise)

    def refused(*_: Any, **__: Any) -> None:
        raise AssertionError("a covariance is built")

    monkeypatch.setattr("difftime.study.cell.moments", refused)
    monkeypatch.setattr(module, "available", lambda: 8 * 16**2)
    bracket = again.bracket(noise if name == "flow" else again.noise(name))
    if name == "flow":
        assert bracket is whole is None
    else:
        assert math.isnan(bracket.lower)
        assert bracket.upper == whole.upper > whole.lower


@pytest.mark.parametrize("settings", [FullNoiseSettings(), MixtureNoiseSettings(components=1), FlowNoiseSettings()])
def test_a_fit_that_memory_does_not_allow_is_refused_before_it_begins(
    settings: FullNoiseSettings | MixtureNoiseSettings | FlowNoiseSettings, tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:  # fmt: skip
    problem = build(pictures(tmp_path / "set.npz", grey(30), grey(9)))
    monkeypatch.setattr(module, "available", lambda: 4 * 8 * 16**2)
    with pytest.raises(BadNoise, match=rf"p_noise {settings.kind} in 16 dimensions .* Leave {settings.kind} out"):
        fit_noise(problem, settings, "a seed")


def test_where_the_system_does_not_say_how_much_memory_there_is_nothing_is_refused(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(module, "available", lambda: None)
    module.check_memory("full", 10**6, 10**6)
    assert module.bracket_fits(10**6)
