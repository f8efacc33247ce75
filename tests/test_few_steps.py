"""Few-step samplers: their orders on an exact score, and the same steps as the schedulers of diffusers."""

import importlib.util
import math
from collections.abc import Callable

import numpy as np
import pytest
import torch

from difftime.diffusion.mixture import Mixture
from difftime.diffusion.score import ExactScore
from difftime.diffusion.sde import SDE, VP
from difftime.diffusion.tabulated import Tabulated
from difftime.measures.few_steps import SOLVERS, FewSteps, ddim, dpm_solver_2m, heun, level_times, within
from difftime.measures.quality import wasserstein1, wasserstein1_floor
from difftime.measures.samplers import reverse_ode
from difftime.support.streams import stream
from difftime.support.torchvision import cure_torchvision

T, EPSILON = 0.9, 1e-3
SAMPLERS = {"ddim": (ddim, 1, 1), "heun": (heun, 2, 2), "dpm_solver_2m": (dpm_solver_2m, 2, 1)}
STEPS = [40, 80, 160]


@pytest.fixture(params=SAMPLERS)
def sampler(request: pytest.FixtureRequest) -> tuple[FewSteps, int, int]:
    """A sampler, its order, and its evaluations a step."""
    return SAMPLERS[request.param]


@pytest.fixture
def smooth() -> Mixture:
    return Mixture.from_covariances([0.4, 0.6], [[-1.0], [1.0]], [[[0.4]], [[0.6]]])


def starts(sde: SDE) -> torch.Tensor:
    end = sde.variance(torch.tensor(T, dtype=torch.float64)).sqrt()
    return end * torch.linspace(-2, 2, 16, dtype=torch.float64).reshape(1, 16, 1)


def test_the_error_falls_with_the_samplers_order(sampler: tuple[FewSteps, int, int], sde: SDE, smooth: Mixture) -> None:
    """The slope of log error over log steps, between two halvings of the step."""
    solve, order, _ = sampler
    score, x = ExactScore(smooth, sde), starts(sde)
    exact, _ = reverse_ode(score, sde, x, T, EPSILON, rtol=1e-11, atol=1e-11, max_evaluations=100_000)
    errors = [
        (solve(score, sde, x, level_times(sde, T, EPSILON, steps)) - exact).square().mean().sqrt().item()
        for steps in STEPS
    ]
    slopes = -np.diff(np.log(errors)) / math.log(2)
    assert slopes == pytest.approx(order, abs=0.15)


def test_a_step_costs_what_is_said(sampler: tuple[FewSteps, int, int], smooth: Mixture) -> None:
    solve, _, evaluations = sampler
    sde, calls = VP(), []
    score = ExactScore(smooth, sde)
    solve(lambda x, t: (calls.append(t), score(x, t))[1], sde, starts(sde), level_times(sde, T, EPSILON, 7))
    assert len(calls) == 7 * evaluations


def test_a_gaussian_point_mass_is_reached_in_one_step(sampler: tuple[FewSteps, int, int], sde: SDE) -> None:
    """z_hat of a single point x_0 is constant along the flow, so that every step is exact."""
    x0 = torch.full((1, 1, 2), 0.3, dtype=torch.float64)

    def score(x: torch.Tensor, t: torch.Tensor) -> torch.Tensor:
        return (sde.alpha(t) * x0 - x) / sde.variance(t)

    ends = torch.tensor([T, EPSILON], dtype=torch.float64)
    z = torch.tensor([[[-1.2, 0.7]]], dtype=torch.float64)
    (x, expected) = (sde.perturb(x0, t.reshape(1), z) for t in ends)
    assert torch.allclose(sampler[0](score, sde, x, ends), expected, atol=1e-10)


def test_times_are_equal_steps_of_lambda_between_the_ends(sde: SDE) -> None:
    times = level_times(sde, T, EPSILON, 9)
    assert times[[0, -1]].tolist() == [T, EPSILON]
    steps = sde.noise_level(times).diff()
    assert torch.allclose(steps, steps.mean().expand(9), rtol=1e-6)


@pytest.mark.parametrize("times", [[0.5], [0.1, 0.5], [0.5, 0.5, 0.1], [0.5, math.nan]])
def test_times_that_do_not_fall_are_refused(sampler: tuple[FewSteps, int, int], times: list[float]) -> None:
    sde = VP()
    with pytest.raises(ValueError, match="must fall from T to epsilon"):
        sampler[0](lambda x, t: x, sde, starts(sde), torch.tensor(times, dtype=torch.float64))


# within a number of evaluations


@pytest.mark.parametrize("budget", [2, 5, 12])
@pytest.mark.parametrize("name", ["sde", *SOLVERS])
def test_a_budget_is_kept_and_every_call_of_the_score_counted(name: str, budget: int, smooth: Mixture) -> None:
    sde, calls = VP(), []
    score = ExactScore(smooth, sde)
    x, found = within(
        budget, name, lambda x, t: (calls.append(t), score(x, t))[1], sde, starts(sde), T, EPSILON, [stream("noise")]
    )
    assert found == len(calls)
    assert found == (budget // 2 * 2 if name == "heun" else budget)
    assert x.isfinite().all()


@pytest.mark.parametrize("name", ["sde", *SOLVERS])
def test_with_the_exact_score_the_distance_tends_to_that_of_perfect_samples(name: str, toy: Mixture) -> None:
    """From p(x, T) itself. Of an ODE also with the sampler's order: equal draws have equal floors."""
    sde, points, seeds, T = VP(), 512, 16, 0.6
    score = ExactScore(toy, sde)
    x = torch.stack([toy.diffused(sde, T).sample(points, stream(seed, "x_T")) for seed in range(seeds)])

    def distance(budget: int) -> torch.Tensor:
        generators = [stream(seed, "noise") for seed in range(seeds)]
        return wasserstein1(within(budget, name, score, sde, x, T, 1e-5, generators)[0], toy)

    many = distance(320 if name == "sde" else 160)
    assert abs(many.mean().item() - wasserstein1_floor(toy, points)) < 3 * many.std().item() / math.sqrt(seeds)
    assert distance(5).mean() > 3 * many.mean()
    if name != "sde":
        exact, _ = reverse_ode(score, sde, x, T, 1e-5, rtol=1e-9, atol=1e-9, max_evaluations=100_000)
        floor = wasserstein1(exact, toy)
        slope = math.log2((distance(40) - floor).abs().mean() / (many - floor).abs().mean()) / 2
        assert slope == pytest.approx(SAMPLERS[name][1], abs=0.25)


# beside diffusers


TABLES = {
    "linear": {"beta_start": 1e-4, "beta_end": 0.02},
    "scaled linear": {"beta_start": 0.00085, "beta_end": 0.012, "beta_schedule": "scaled_linear"},
    "cosine": {"beta_schedule": "squaredcos_cap_v2"},
}
needs_diffusers = pytest.mark.skipif(importlib.util.find_spec("diffusers") is None, reason="needs difftime[models]")


def theirs(scheduler: object, predict: Callable, x: torch.Tensor, last: int) -> torch.Tensor:
    """x after the scheduler's steps but the `last` ones."""
    for t in scheduler.timesteps[: len(scheduler.timesteps) - last]:
        x = scheduler.step(predict(scheduler.scale_model_input(x, t), t), t, x).prev_sample
    return x


# where sigma is 2e4, at the end of the cosine table, their Heun and DPM-Solver lose 1e-4 to the rounding of float32
@needs_diffusers
@pytest.mark.parametrize("steps", [10, 25])
@pytest.mark.parametrize(
    ("kind", "name"),
    [(kind, name) for kind in SAMPLERS for name in TABLES if kind == "ddim" or name != "cosine"],
)
def test_the_steps_are_those_of_diffusers(kind: str, name: str, steps: int, smooth: Mixture) -> None:
    """From the same start along the scheduler's own noise levels."""
    cure_torchvision()
    from diffusers import DDIMScheduler, DPMSolverMultistepScheduler, HeunDiscreteScheduler

    options = TABLES[name]
    signal = DDIMScheduler(**options).alphas_cumprod.double()
    sde = Tabulated.from_levels(((1 - signal) / signal).log())
    score = ExactScore(smooth, sde)

    def time(index: torch.Tensor | float) -> torch.Tensor:
        return sde.time_of_index(torch.as_tensor(index, dtype=torch.float64))

    def predict(x: torch.Tensor, index: torch.Tensor) -> torch.Tensor:
        t = time(index)
        return -sde.sigma(t) * score(x, t)

    x = torch.linspace(-2, 2, 16, dtype=torch.float64).reshape(1, 16, 1)
    if kind == "ddim":
        scheduler = DDIMScheduler(**options, set_alpha_to_one=False, clip_sample=False, timestep_spacing="trailing")
        scheduler.set_timesteps(steps)
        indices = torch.cat([scheduler.timesteps, torch.zeros(1)])
        theirs_end, times = theirs(scheduler, predict, x, 0), time(indices)
    elif kind == "heun":
        scheduler = HeunDiscreteScheduler(**options, timestep_spacing="linspace")
        scheduler.set_timesteps(steps)
        # its last step leaves the diffusion, at sigma = 0
        times = sde.time(2 * scheduler.sigmas[:-1].double().unique().flip(0).log())[:steps]
        scale = (1 + scheduler.sigmas[0].double() ** 2).sqrt()
        theirs_end = theirs(scheduler, predict, x * scale, 1) * sde.alpha(times[-1])
    else:
        scheduler = DPMSolverMultistepScheduler(**options, lower_order_final=False, final_sigmas_type="sigma_min")
        scheduler.set_timesteps(steps)
        times = sde.time(2 * scheduler.sigmas.double().log())
        theirs_end = theirs(scheduler, predict, x, 0)
    ours = SAMPLERS[kind][0](score, sde, x, times)
    assert torch.allclose(ours, theirs_end, atol=1e-5)
