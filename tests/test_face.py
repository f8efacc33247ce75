"""The public face: laws that hold through it, and what it refuses. Exact scores make every number known."""

import doctest
import math
import subprocess
import sys
import warnings
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor, nn
from torch.distributions import MultivariateNormal, kl_divergence

import difftime as dt
from difftime.diffusion.mixture import Mixture, nodes
from difftime.diffusion.sde import DIFFUSIONS, SDE, VarianceExploding
from difftime.support.streams import stream

T = 0.4
COVARIANCE = [[1.0, 0.6], [0.6, 0.5]]
MEAN = [0.5, -1.0]


def gaussian() -> Mixture:
    return dt.Mixture.from_covariances([1.0], [MEAN], [COVARIANCE])


def normal(p: Mixture) -> MultivariateNormal:
    return MultivariateNormal(p.mean, p.covariance)


def draw(p: Mixture, n: int) -> Tensor:
    return p.sample(n, stream("points"))


def pixels(n: int = 64, shape: tuple[int, ...] = (1, 4, 4)) -> Tensor:
    """Correlated 8-bit images."""
    common = torch.randn(n, *(1 for _ in shape), generator=stream("common"))
    own = torch.randn(n, *shape, generator=stream("own"))
    return (128 + 40 * common + 20 * own).clamp(0, 255).to(torch.uint8)


class Net(nn.Module):
    """An ordinary small network of images: whatever it says, it is a model."""

    def __init__(self, channels: int = 1) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.inner = nn.Conv2d(channels, 8, 3, padding=1)
        self.outer = nn.Conv2d(8, channels, 3, padding=1)
        self.dropout = nn.Dropout(0.5)

    def forward(self, x: Tensor, t: Tensor) -> Tensor:
        assert t.shape == x.shape[:1]
        return self.outer(self.dropout(torch.tanh(self.inner(x) + t[:, None, None, None])))


def test_importing_the_package_imports_no_torch() -> None:
    code = "import sys, difftime; assert dir(difftime).count('elbo') == 1; sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0


def test_importing_the_package_takes_no_time() -> None:
    code = "import time; start = time.perf_counter(); import difftime; print(time.perf_counter() - start)"
    runs = [
        float(subprocess.run([sys.executable, "-c", code], capture_output=True, text=True).stdout) for _ in range(3)
    ]
    assert min(runs) < 0.1


def test_every_public_name_is_there_and_documented() -> None:
    for name in dt.__all__:
        assert name == "__version__" or getattr(dt, name).__doc__
    with pytest.raises(AttributeError, match="nothing"):
        dt.nothing  # noqa: B018


def test_every_diffusion_of_a_study_is_public() -> None:
    kinds = {make for make in DIFFUSIONS.values() if isinstance(make, type)}
    assert kinds <= {getattr(dt, name) for name in dt.__all__}


def test_type_checkers_see_the_same_names() -> None:
    source = Path(dt.__file__).read_text(encoding="utf-8").split("if TYPE_CHECKING:")[1].split("__version__")[0]
    assert {line.split(" as ")[1] for line in source.strip().splitlines()} == {*dt.__all__} - {"__version__"}
    assert Path(dt.__file__).with_name("py.typed").exists()


@pytest.mark.parametrize("module", ["curve", "measures", "noise", "score"])
def test_the_examples_in_the_docstrings_run(module: str) -> None:
    found = __import__(f"difftime.face.{module}", fromlist=["_"])
    failed, attempted = doctest.testmod(found, optionflags=doctest.ELLIPSIS)
    assert attempted > 0
    assert not failed


def test_the_readmes_ten_lines_run(capsys: pytest.CaptureFixture) -> None:
    """On images made on the spot; the printed ELBO and bits are those of the same model."""
    readme = (Path(__file__).parent.parent / "README.md").read_text(encoding="utf-8")
    blocks = [part.split("```")[0] for part in readme.split("```python\n")[1:]]
    (code,) = (block for block in blocks if "dt.Score(" in block)
    names = {"net": Net(), "train": pixels(200), "test": pixels(48)}
    exec(code, names)
    assert "T* = " in capsys.readouterr().out
    e, q, curve = names["e"], names["q"], names["curve"]
    assert math.isfinite(q.bpd.mean)
    assert math.isfinite(e.bpd.mean)
    assert q.nfe > 20
    assert curve.at(0.5).mean == pytest.approx(e.elbo.mean, abs=4 * e.elbo.se)
    for term in (e.prior, e.I, e.R, e.elbo):
        assert term.values.shape == (48,)


# the ELBO


def test_the_elbo_of_the_exact_score_and_start_is_the_density(sde: SDE) -> None:
    p, x = gaussian(), draw(gaussian(), 1000)
    e = dt.elbo(dt.Score.exact(p, sde), x, T, dt.p_noise("full", sde, T, p))
    start = p.diffused(sde, 1e-5)
    assert abs(e.elbo.mean + normal(start).entropy()) < 4 * e.elbo.se
    assert abs(e.elbo_x0.mean - p.log_prob(x).mean()) < 4 * e.I.se + 0.02
    assert e.elbo.se < 0.2


def test_a_wrong_start_costs_its_kl() -> None:
    """The prior terms of two starts have closed forms, and their difference is that of their KL, point by point."""
    p, sde = gaussian(), dt.VP()
    x, score = draw(p, 2000), dt.Score.exact(gaussian(), dt.VP())
    full, usual = (dt.elbo(score, x, T, dt.p_noise(kind, sde, T, p), pairs=1) for kind in ("full", "standard"))
    end = normal(p.diffused(sde, T))
    kl = kl_divergence(end, MultivariateNormal(torch.zeros(2).double(), torch.eye(2).double()))
    lost = full.prior.values - usual.prior.values
    assert abs(lost.mean() - kl) < 4 * lost.std() / math.sqrt(len(x))
    assert kl > 0.1


def test_the_elbo_is_the_sum_of_its_terms() -> None:
    e = dt.elbo(dt.Score(Net(), dt.VP()), pixels(), T)
    assert torch.allclose(e.elbo.values, e.prior.values - e.I.values + e.R.values)
    assert torch.allclose(e.elbo_x0.values, e.elbo.values + e.decoder.values)
    assert e.R.mean == pytest.approx(16 * dt.VP().R(T, 1e-5))
    assert e.R.se == pytest.approx(0, abs=1e-9)
    for term in e[:-1]:
        assert term.values.shape == (64,)
        assert term.mean == pytest.approx(term.values.mean().item())
        assert term.se == pytest.approx(term.values.std().item() / 8, abs=1e-9)


def test_batches_change_no_number() -> None:
    score, x = dt.Score(Net(), dt.VP()), pixels()
    one, many = (dt.elbo(score, x, T, batch=batch).elbo.values for batch in (64, 7))
    assert torch.allclose(one, many, atol=1e-4)
    one, many = (dt.log_likelihood(score, x, T, batch=batch) for batch in (64, 32))
    assert torch.allclose(one.log_q.values, many.log_q.values, atol=1e-2)
    assert (len(one.nfe_of_batches), len(many.nfe_of_batches)) == (1, 2)
    assert many.nfe == sum(many.nfe_of_batches) / 2


# the same score, said in four ways


def predictor(p: Mixture, sde: SDE, predicts: str):
    def net(x: Tensor, t: Tensor) -> Tensor:
        alpha, sigma = sde.alpha(t)[:, None], sde.sigma(t)[:, None]
        s = p.score(x, sde.alpha(t), sde.variance(t))
        z = -sigma * s
        x0 = (x - sigma * z) / alpha
        return {"noise": z, "x0": x0, "score": s, "v": alpha * z - sigma * x0}[predicts]

    return net


@pytest.mark.parametrize("predicts", ["noise", "x0", "v", "score"])
def test_what_a_network_predicts_does_not_change_its_score(sde: SDE, toy: Mixture, predicts: str) -> None:
    x, times = draw(toy, 200), torch.linspace(1e-3, 1, 200, dtype=torch.float64)
    score = dt.Score(predictor(toy, sde, predicts), sde, predicts)
    exact = toy.score(x, sde.alpha(times), sde.variance(times))
    assert torch.allclose(score(x, times), exact, rtol=1e-8, atol=1e-8)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_a_network_sees_the_type_of_its_weights_and_points_of_their_own_shape(dtype: torch.dtype) -> None:
    class Spy(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.weight = nn.Parameter(torch.ones((), dtype=dtype))

        def forward(self, x: Tensor, t: Tensor) -> Tensor:
            assert (x.dtype, t.dtype) == (dtype, dtype)
            assert x.shape[1:] == (3, 2, 5)
            assert t.shape == x.shape[:1]
            return x * self.weight

    score, x = dt.Score(Spy(), dt.VP(), "score"), torch.randn(4, 3, 2, 5, generator=stream("x"))
    e, q = dt.elbo(score, x, T, pairs=1), dt.log_likelihood(score, x, T, rtol=1e-3, atol=1e-3)
    assert e.elbo.values.shape == q.log_q.values.shape == (4,)
    assert dt.sample(score, 3, T, shape=(3, 2, 5), steps=5).shape == (3, 3, 2, 5)
    assert score(x, 0.3).dtype == torch.float32


def test_a_network_is_measured_in_evaluation_mode_and_left_as_it_was() -> None:
    net = Net().train()
    net.inner.eval()
    modes = [module.training for module in net.modules()]
    first, second = (dt.elbo(dt.Score(net, dt.VP()), pixels(), T).elbo.values for _ in range(2))
    assert torch.equal(first, second)  # dropout would have made them differ
    assert [module.training for module in net.modules()] == modes
    assert all(parameter.requires_grad and parameter.grad is None for parameter in net.parameters())


# the likelihood


@pytest.mark.parametrize("kind", ["full", "standard"])
def test_the_ode_of_the_exact_score_has_the_density_of_a_gaussian(sde: SDE, kind: str) -> None:
    """From the true p(x, T) that of p(x, epsilon); from another Gaussian, that which the linear flow carries back."""
    p, x = gaussian(), draw(gaussian(), 50)
    q = dt.log_likelihood(dt.Score.exact(p, sde), x, T, dt.p_noise(kind, sde, T, p), rtol=1e-8, atol=1e-8)
    begin, end = p.diffused(sde, 1e-5), p.diffused(sde, T)
    # the flow maps x to m_T + A (x - m), A along the axes of the covariance
    ratio = (end.variances / begin.variances).sqrt()[0]
    y = end.mean + ((x - begin.mean) @ begin.axes[0] * ratio) @ begin.axes[0].mT
    variance = sde.variance(torch.tensor(T).double()) if isinstance(sde, VarianceExploding) else torch.ones(())
    standard = MultivariateNormal(torch.zeros(2).double(), variance.double() * torch.eye(2).double())
    expected = (end if kind == "full" else standard).log_prob(y) + ratio.log().sum()
    assert torch.allclose(q.log_q.values, expected, atol=1e-5)
    assert q.divergence == "exact"


def test_one_probe_estimates_the_divergence_without_bias() -> None:
    p, x = gaussian(), draw(gaussian(), 400)
    score = dt.Score.exact(p, dt.VP())
    start = dt.p_noise("full", dt.VP(), T, p)
    exact, guess = (dt.log_likelihood(score, x, T, start, divergence=kind) for kind in ("exact", "hutchinson"))
    difference = guess.log_q.values - exact.log_q.values
    assert abs(difference.mean()) < 4 * difference.std() / math.sqrt(len(x))
    assert difference.std() > 0.01


def test_a_solve_that_is_cut_has_no_mean() -> None:
    q = dt.log_likelihood(dt.Score.exact(gaussian(), dt.VP()), draw(gaussian(), 4), T, max_evaluations=20)
    assert math.isnan(q.log_q.mean)


def test_training_pixels_change_the_decoder_alone() -> None:
    """By their shares of black and white; without them, and for other data, the decoder is Gaussian."""
    score, train, test = dt.Score(Net(), dt.VP()), pixels(200), pixels(32)
    train[:, :, :2], test[:, :, :2] = 0, 0
    plain, known = dt.elbo(score, test), dt.elbo(score, test, data=train)
    for name in ("elbo", "prior", "I", "R"):
        assert torch.equal(getattr(plain, name).values, getattr(known, name).values)
    assert (known.decoder.values != plain.decoder.values).all()
    scaled = [dt.elbo(score, dt.Pixels(test, 0, 1), data=data) for data in (train, dt.Pixels(train, -5, 5))]
    assert torch.equal(scaled[0].decoder.values, scaled[1].decoder.values)  # the scale is that of what is measured
    for x, data in ((torch.randn(32, 1, 4, 4), train), (test, torch.randn(32, 1, 4, 4))):
        assert torch.equal(dt.elbo(score, x, data=data).decoder.values, dt.elbo(score, x).decoder.values)


# ELBO(T)


@pytest.mark.parametrize("kind", ["standard", "matched", "full", "mixture"])
def test_the_curve_at_the_models_t_is_its_elbo(kind: str) -> None:
    score, train, test = dt.Score(Net(), dt.VP(), T=0.8), pixels(200, (1, 2, 2)), pixels(32, (1, 2, 2))
    options = {"components": 2} if kind == "mixture" else {}
    curve = dt.elbo_curve(score, test, p_noise=kind, data=train, times=5, **options)
    start = dt.p_noise(kind, dt.VP(), 0.8, train, **options)
    assert torch.allclose(curve.elbo[:, -1], dt.elbo(score, test, 0.8, start).elbo.values, atol=1e-4)
    assert torch.allclose(curve.bpd[:, -1], dt.elbo(score, test, 0.8, start, data=train).bpd.values, atol=1e-4)
    assert curve.T.tolist() == pytest.approx([0.16, 0.32, 0.48, 0.64, 0.8])


def test_the_curve_of_the_exact_score_falls_short_by_the_kl_alone(sde: SDE) -> None:
    p, x = gaussian(), draw(gaussian(), 1000)
    score = dt.Score.exact(p, sde)
    curve = dt.elbo_curve(score, x, times=[0.1, 0.3, 1.0])
    tight = dt.elbo_curve(score, x, p_noise="full", data=p, times=[0.1, 0.3, 1.0])
    entropy = normal(p.diffused(sde, 1e-5)).entropy().item()
    assert ((tight.mean + entropy).abs() < 4 * tight.se).all()
    lost = tight.elbo - curve.elbo
    for k, T in enumerate(curve.T.tolist()):
        start = dt.p_noise("standard", sde, T, shape=(2,))
        kl, _ = dt.kl_bracket(start, p)
        assert abs(lost[:, k].mean() - kl) < 4 * lost[:, k].std() / math.sqrt(len(x)) + 1e-6


def test_the_best_t_of_the_exact_score_is_the_last_and_a_loss_buys_a_shorter_one() -> None:
    """From the standard p_noise only the KL is lost, which falls with T: the cheapest T is where it is the loss."""
    p = dt.Mixture.from_covariances([1.0], [[0.0]], [[[4.0]]])
    x = p.sample(4000, stream("x"))
    curve = dt.elbo_curve(dt.Score.exact(p, dt.VP()), x, times=100)
    found = dt.best_T(curve, loss=0.05)
    kl = {T: dt.kl_bracket(dt.p_noise("standard", dt.VP(), T, shape=(1,)), p)[0] for T in curve.T.tolist()}
    assert found.unit == "nats"
    assert found.cheapest < found.T
    assert kl[found.cheapest] < 0.05 + 0.05
    assert found.behind + 2 * found.behind_se <= 0.05
    assert dt.best_T(curve, loss=1.0).cheapest < found.cheapest
    assert dt.best_T(curve, loss=0.0).cheapest <= 1


def test_a_gap_makes_an_optimum_inside_that_its_interval_holds() -> None:
    """s = (1 + c) ∇ log p loses G(T) = c²/2 ∫ g² E||∇ log p||² dt: with KL(T) in closed form, T* is known."""
    p, sde, c = dt.Mixture.from_covariances([1.0], [[0.0]], [[[4.0]]]), dt.VP(), 0.3
    exact = dt.Score.exact(p, sde)
    score = dt.Score(lambda x, t: (1 + c) * exact(x, t), sde, "score")
    t = torch.linspace(1e-5, 1, 4001, dtype=torch.float64)
    variance = sde.alpha(t) ** 2 * 4 + sde.variance(t)
    gap = torch.cumulative_trapezoid(0.5 * c**2 * sde.diffusion_squared(t) / variance, t)
    kl = 0.5 * (variance - 1 - variance.log())[1:]
    true = t[1:][(gap + kl).argmin()].item()
    found = dt.best_T(dt.elbo_curve(score, p.sample(4000, stream("x"))))
    assert found.low <= true <= found.high
    assert found.interior
    assert found.high - found.low < 0.3


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        ({"p_noise": "flow", "data": pixels()}, "one T"),
        ({"p_noise": "full"}, "training data"),
        ({"p_noise": "fulll"}, "The kinds are"),
        ({"p_noise": "matched", "data": pixels(8, (1, 2, 2))}, "shape"),
        ({"times": [0.5, 1.5, 2.0]}, "not between"),
        ({"times": [0.5, 0.2, 1.0]}, "rising"),
    ],
)
def test_a_curve_that_makes_no_sense_is_refused(arguments: dict, words: str) -> None:
    with pytest.raises(ValueError, match=words):
        dt.elbo_curve(dt.Score(Net(), dt.VP()), pixels(), **arguments)


def test_a_best_t_needs_a_curve() -> None:
    curve = dt.elbo_curve(dt.Score(Net(), dt.VP()), pixels(), times=2)
    with pytest.raises(ValueError, match="three times"):
        dt.best_T(curve)
    with pytest.raises(ValueError, match="loss"):
        dt.best_T(dt.elbo_curve(dt.Score(Net(), dt.VP()), pixels(), times=3), loss=-1)


def test_the_best_T_needs_no_extra() -> None:
    """With what `pip install difftime` brings: PyTorch, NumPy, SciPy, and no tables."""
    code = """
import sys
sys.modules |= dict.fromkeys(("pandas", "pyarrow", "pydantic", "typer", "snakemake", "matplotlib", "sklearn"))
import difftime as dt, torch
p = dt.Mixture.from_covariances([1.0], [[3.0]], [[[0.25]]])
x = p.sample(50, torch.Generator().manual_seed(0))
best = dt.best_T(dt.elbo_curve(dt.Score.exact(p, dt.VP()), x, times=5), loss=0.1)
print(best.cheapest <= best.T)
"""
    run = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert (run.returncode, run.stdout) == (0, "True\n"), run.stderr


# models that others trained


def test_a_model_that_was_read_is_a_score_like_any_other(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A denoiser that is exact for N(0, 0.25 I) gives the ELBO of that Gaussian's exact score, bit for bit the data."""
    (tmp_path / "own_code.py").write_text(
        "def make():\n    return lambda x, sigma: x * 0.25 / (0.25 + sigma.reshape(-1, 1, 1, 1) ** 2)\n"
    )
    monkeypatch.syspath_prepend(tmp_path)
    model = dt.load_model("own_code:make", shape=(1, 4, 4))
    seen = model.pixels(pixels())
    assert (seen.low, seen.high) == pytest.approx((-1, 1))
    p = dt.Mixture.from_covariances([1.0], [[0.0] * 16], [(0.25 * torch.eye(16)).tolist()])
    x = p.sample(50, stream("x"))
    exact = dt.Score.exact(p, model.score.sde, T=model.score.T, epsilon=model.score.epsilon)
    found, known = dt.elbo(model.score, x.unflatten(1, (1, 4, 4)), 0.7), dt.elbo(exact, x, 0.7)
    assert torch.allclose(found.elbo.values, known.elbo.values, rtol=1e-4)
    assert "own_code" in repr(model)


# the bracket


@pytest.mark.parametrize("kind", ["standard", "matched", "full"])
def test_the_brackets_lower_end_is_the_kl_of_gaussian_data(sde: SDE, kind: str) -> None:
    p = gaussian()
    start = dt.p_noise(kind, sde, T, p)
    low, high = dt.kl_bracket(start, p)
    end = normal(p.diffused(sde, T))
    density = start.density
    covariance = density.factor @ density.factor.mT if kind == "full" else torch.diag(density.variance)
    assert low == pytest.approx(kl_divergence(end, MultivariateNormal(density.mean, covariance)).item(), abs=1e-9)
    assert high > low


def test_the_bracket_holds_the_kl_of_a_mixture(toy: Mixture) -> None:
    start = dt.p_noise("standard", dt.VP(), T, toy)
    low, high = dt.kl_bracket(start, toy)
    end = toy.diffused(dt.VP(), T)
    at = nodes(end, 0, torch.Generator())
    kl, _ = at.expectation(end.log_prob(at.x) - start.log_prob(at.x))
    assert low < kl < high


# bits per dimension


@pytest.mark.parametrize(("low", "high"), [(-1.0, 1.0), (0.0, 1.0), (-1 - 1 / 255, 1 + 1 / 255), (-3.0, 5.0)])
def test_bits_do_not_depend_on_the_interval_that_a_model_sees(low: float, high: float) -> None:
    """The exact score of a Gaussian on [-1, 1], and of the same one scaled to another interval."""
    images = pixels(400, (2,))
    unit = dt.Mixture.from_covariances([1.0], [[0.0, 0.1]], [[[0.1, 0.05], [0.05, 0.2]]])
    scale = (high - low) / 2
    p = dt.Mixture.from_covariances(
        [1.0], (low + (unit.means + 1) * scale).tolist(), (unit.covariance * scale**2)[None].tolist()
    )
    seen = dt.Pixels(images, low, high)
    q = dt.log_likelihood(dt.Score.exact(p, dt.VP()), seen, T, dt.p_noise("full", dt.VP(), T, p), rtol=1e-8, atol=1e-8)
    x = dt.Pixels(images).dequantised(stream(0, "dequantisation"))
    expected = -unit.log_prob(x).mean().item() / (2 * math.log(2)) + 7
    assert q.bpd.mean == pytest.approx(expected, abs=1e-3)


def test_bits_of_uniform_pixels_are_eight() -> None:
    """p uniform on [-1, 1] has 8 bits; here a wide Gaussian's bound is above them, and its formula is exact."""
    images = torch.randint(0, 256, (500, 3), generator=stream("uniform")).to(torch.uint8)
    p = dt.Mixture.from_covariances([1.0], [[0.0] * 3], [(torch.eye(3) / 3).tolist()])
    e = dt.elbo(dt.Score.exact(p, dt.VP()), images, T, dt.p_noise("full", dt.VP(), T, p))
    gaussian_bits = 0.5 * math.log2(2 * math.pi * math.e / 3) + 7  # cross entropy: the moments are those of the uniform
    assert abs(e.bpd.mean - gaussian_bits) < 4 * e.bpd.se + 1e-3
    assert gaussian_bits > 8


def test_bits_of_anything_but_pixels_are_refused() -> None:
    score, x = dt.Score(Net(), dt.VP()), pixels().float() / 128 - 1 + 1e-3 * torch.rand(64, 1, 4, 4)
    for result in (dt.elbo(score, x, T), dt.log_likelihood(score, x, T, rtol=1e-3, atol=1e-3)):
        with pytest.raises(dt.NotPixels, match="uint8"):
            result.bpd  # noqa: B018


def test_pixels_that_were_only_scaled_are_noticed() -> None:
    x = pixels(256).float() / 127.5 - 1
    with pytest.warns(UserWarning, match="distinct values"):
        dt.elbo(dt.Score(Net(), dt.VP()), x, T, pairs=1)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        dt.elbo(dt.Score(Net(), dt.VP()), pixels(256), T, pairs=1)


def test_arrays_are_as_good_as_tensors() -> None:
    score = dt.Score(Net(), dt.VP())
    tensor, array = (dt.elbo(score, data, T).bpd for data in (pixels(), pixels().numpy()))
    assert tensor.mean == array.mean
    x = np.random.default_rng(0).normal(size=(5, 1, 4, 4))
    assert math.isfinite(dt.elbo(score, x, T).elbo.mean)


# p_noise


def test_pixels_are_fitted_by_the_moments_of_their_dequantised_values() -> None:
    images = pixels(2000, (1, 2, 3))
    x = torch.cat([dt.Pixels(images).dequantised(stream(k)).flatten(1) for k in range(20)])
    t = torch.tensor(T).double()
    alpha, variance = dt.VP().alpha(t), dt.VP().variance(t)
    covariance = alpha**2 * torch.cov(x.mT) + variance * torch.eye(6)
    full, matched = (dt.p_noise(kind, dt.VP(), T, images).density for kind in ("full", "matched"))
    assert torch.allclose(full.factor @ full.factor.mT, covariance, atol=1e-4)
    assert torch.allclose(matched.variance, covariance.diagonal(), atol=1e-4)
    assert torch.allclose(full.mean, alpha * x.mean(0), atol=1e-4)
    assert torch.allclose(matched.mean, full.mean)


@pytest.mark.parametrize("options", [{}, {"components": 2}])
def test_a_mixture_fitted_to_points_is_nearly_the_density(toy: Mixture, options: dict) -> None:
    x = draw(toy, 4000)
    start = dt.p_noise("mixture", dt.VP(), T, x, **options)
    at = toy.diffused(dt.VP(), T).sample(1000, stream("x_T"))
    assert (toy.diffused(dt.VP(), T).log_prob(at) - start.log_prob(at)).mean().abs() < 0.01


def test_a_known_density_is_its_own_mixture(toy: Mixture) -> None:
    at = toy.diffused(dt.VP(), T).sample(100, stream("x_T"))
    exact = dt.p_noise("mixture", dt.VP(), T, toy)
    assert torch.allclose(exact.log_prob(at), toy.diffused(dt.VP(), T).log_prob(at))


def test_a_flow_begins_as_the_gaussian_and_keeps_its_shape() -> None:
    x = draw(gaussian(), 200)[:, None, :]
    flow = dt.p_noise("flow", dt.VP(), T, x, steps=2, transforms=1, width=4)
    assert flow.sample(7).shape == (7, 1, 2)
    assert flow.log_prob(flow.sample(7)).isfinite().all()


# samples


@pytest.mark.parametrize("sampler", ["sde", "ode"])
def test_samples_of_the_exact_score_have_the_moments_of_the_data(sampler: str) -> None:
    p, n = gaussian(), 1000
    x = dt.sample(
        dt.Score.exact(p, dt.VP()), n, T, dt.p_noise("full", dt.VP(), T, p), sampler=sampler, steps=300
    ).double()
    assert ((x.mean(0) - p.mean).abs() < 4 * (p.variance / n).sqrt()).all()
    assert torch.allclose(torch.cov(x.mT), p.covariance, atol=4 * math.sqrt(2 / n))


# what is refused


@pytest.mark.parametrize(
    ("T", "words"),
    [(1e-5, "not between"), (0.0, "not between"), (-1.0, "not between"), (1.5, "T=..."), (math.nan, "T")],
)
def test_a_time_that_the_score_does_not_know_is_refused(T: float, words: str) -> None:
    score = dt.Score(Net(), dt.VP())
    for measure in (dt.elbo, dt.log_likelihood):
        with pytest.raises(ValueError, match=words):
            measure(score, pixels(), T)
    with pytest.raises(ValueError, match=words):
        dt.sample(score, 2, T, shape=(1, 4, 4))


def test_a_longer_trained_score_may_be_asked_later() -> None:
    e = dt.elbo(dt.Score(Net(), dt.VP(), T=2.0), pixels(), 1.5)
    assert math.isfinite(e.elbo.mean)


@pytest.mark.parametrize("change", [{"T": 0.5}, {"sde": dt.VE()}, {"data": pixels(8, (1, 4, 5))}])
def test_a_p_noise_of_another_kind_of_x_is_refused(change: dict) -> None:
    made = dt.p_noise(**{"kind": "matched", "sde": dt.VP(), "T": T, "data": pixels()} | change)
    for measure in (dt.elbo, dt.log_likelihood):
        with pytest.raises(ValueError, match="another"):
            measure(dt.Score(Net(), dt.VP()), pixels(), T, made)


@pytest.mark.parametrize("kind", ["matched", "full", "mixture", "flow"])
def test_a_fit_without_data_is_refused(kind: str) -> None:
    with pytest.raises(ValueError, match="training data"):
        dt.p_noise(kind, dt.VP(), T)
    with pytest.raises(ValueError, match=r"data=\.\.\."):
        dt.elbo(dt.Score(Net(), dt.VP()), pixels(), T, kind)


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        ({"kind": "gaussian"}, "The kinds are standard"),
        ({"kind": "full", "data": [[1.0], [2.0]], "components": 3}, "no option components"),
        ({"kind": "mixture", "data": [[1.0], [2.0]], "component": 3}, "it has components, iterations"),
        ({"kind": "standard"}, "shape"),
        ({"kind": "standard", "data": [[1.0]], "shape": (1,)}, "either"),
        ({"kind": "standard", "shape": (1,), "T": 0.0}, "positive"),
        ({"kind": "standard", "shape": (1,), "T": math.inf}, "positive"),
    ],
)
def test_a_p_noise_that_makes_no_sense_is_refused(arguments: dict, words: str) -> None:
    with pytest.raises(ValueError, match=words):
        dt.p_noise(**{"sde": dt.VP(), "T": T} | arguments)


@pytest.mark.parametrize(
    ("data", "error", "words"),
    [
        (torch.arange(6).reshape(3, 2), TypeError, "int64"),
        (torch.zeros(3, 2, dtype=torch.complex64), TypeError, "complex"),
        (torch.zeros(5), ValueError, r"\[n, \*shape\]"),
        (torch.zeros(0, 2), ValueError, r"\[n, \*shape\]"),
        (torch.tensor([[1.0, math.nan]]), ValueError, "not finite"),
        (gaussian(), TypeError, "Draw some"),
        (torch.zeros(5, dtype=torch.uint8), ValueError, r"\[n, \*shape\]"),
    ],
)
def test_data_that_are_no_points_are_refused(data: object, error: type, words: str) -> None:
    with pytest.raises(error, match=words):
        dt.elbo(dt.Score.exact(gaussian(), dt.VP()), data, T)


@pytest.mark.parametrize(
    ("arguments", "error"),
    [
        ({"levels": torch.zeros(2, 3)}, TypeError),
        ({"levels": pixels(), "low": 1.0, "high": 1.0}, ValueError),
        ({"levels": pixels(), "high": math.inf}, ValueError),
    ],
)
def test_pixels_that_are_none_are_refused(arguments: dict, error: type) -> None:
    with pytest.raises(error):
        dt.Pixels(**arguments)


@pytest.mark.parametrize(
    ("arguments", "error", "words"),
    [
        ({"net": 3}, TypeError, "cannot be called"),
        ({"predicts": "eps"}, ValueError, "noise, v, x0, score"),
        ({"T": 0.0}, ValueError, "epsilon < T"),
        ({"epsilon": 0.0}, ValueError, "no noise at epsilon"),
        ({"net": Net().bfloat16()}, TypeError, r"net\.float\(\)"),
    ],
)
def test_a_score_that_makes_no_sense_is_refused(arguments: dict, error: type, words: str) -> None:
    with pytest.raises(error, match=words):
        dt.Score(**{"net": Net(), "sde": dt.VP()} | arguments)


@pytest.mark.parametrize("answer", [lambda x, t: x[:, :1], lambda x, t: (x, t), lambda x, t: x.sum(0)])
def test_a_network_that_returns_another_shape_is_named(answer) -> None:
    with pytest.raises(ValueError, match="returns the shape of x"):
        dt.elbo(dt.Score(answer, dt.VP()), draw(gaussian(), 5), T)


def test_the_kl_of_a_mixture_has_no_bracket(toy: Mixture) -> None:
    with pytest.raises(ValueError, match="no bracket"):
        dt.kl_bracket(dt.p_noise("mixture", dt.VP(), T, toy), toy)
    with pytest.raises(ValueError, match="shape"):
        dt.kl_bracket(dt.p_noise("full", dt.VP(), T, toy), gaussian())


def test_samples_need_a_shape_and_a_known_sampler() -> None:
    score = dt.Score(Net(), dt.VP())
    with pytest.raises(ValueError, match="shape"):
        dt.sample(score, 2)
    with pytest.raises(ValueError, match="samplers"):
        dt.sample(score, 2, shape=(1, 4, 4), sampler="ddim")
