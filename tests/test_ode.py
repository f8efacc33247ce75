"""The solver counts, steps and ends like SciPy's RK45, and no system of a batch knows of the others."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import pytest
import torch
from scipy.integrate import solve_ivp
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode

from difftime.measures import rk45 as ode

TOLERANCES = [(1e-5, 1e-5), (1e-3, 1e-6), (1e-2, 1e-1), (1e-8, 1e-8), (1e-6, 0.0), (1e-10, 1e-3)]
Field = Callable[[Tensor, Tensor], Tensor]


@dataclass(frozen=True)
class Case:
    """A field of one system with its start, its times and its tolerance."""

    f: Field
    y0: Tensor
    t0: float
    t1: float
    rtol: float
    atol: float


def linear(rng: np.random.Generator, forward: float) -> tuple[Field, Tensor]:
    """Decaying and rotating, in 1 to 50 dimensions, when time runs in the direction of `forward`."""
    n = int(rng.integers(1, 51))
    noise = rng.normal(size=(n, n)) / math.sqrt(n)
    matrix = forward * torch.tensor(noise - noise.T - np.diag(rng.uniform(0.1, 20.0, n)))
    push = torch.tensor(rng.normal(size=n))
    return lambda t, y: (y @ matrix.T) + torch.sin(t)[:, None] * push, torch.tensor(rng.normal(size=n))


def scalar(rng: np.random.Generator, forward: float) -> tuple[Field, Tensor]:
    """Nonlinear and time dependent, with a different pace each time."""
    pace = rng.uniform(0.5, 5.0)
    return lambda t, y: forward * (torch.cos(pace * t[:, None]) * 3 - y**3), torch.tensor(rng.normal(size=1))


def van_der_pol(rng: np.random.Generator, forward: float) -> tuple[Field, Tensor]:
    """Moderately stiff: its steps are often rejected."""
    mu = rng.uniform(1.0, 15.0)

    def f(t: Tensor, y: Tensor) -> Tensor:
        position, velocity = y.unbind(1)
        return torch.stack([velocity, mu * (1 - position**2) * velocity - position], 1) * forward

    return f, torch.tensor(rng.normal(size=2))


def case(family: Callable, seed: int) -> Case:
    """Six seeds forward in time, then six backward; every six seeds go through all tolerances."""
    rng = np.random.default_rng(seed)
    forward = 1.0 if seed // 6 % 2 == 0 else -1.0
    f, y0 = family(rng, forward)
    t0 = rng.uniform(-1, 1)
    rtol, atol = TOLERANCES[seed % len(TOLERANCES)]
    return Case(f, y0, t0, t0 + forward * rng.uniform(0.3, 4.0), rtol, atol)


def ours(c: Case) -> ode.Solution:
    return ode.solve(c.f, c.y0[None], c.t0, c.t1, rtol=c.rtol, atol=c.atol)


def scipys(c: Case, **options):
    """SciPy on the very same field, so that not even its rounding differs."""

    def f(t: float, y: np.ndarray) -> np.ndarray:
        return c.f(torch.tensor([t], dtype=torch.float64), torch.tensor(y)[None])[0].numpy()

    return solve_ivp(f, (c.t0, c.t1), c.y0.numpy(), method="RK45", rtol=c.rtol, atol=c.atol, **options)


def solve_rate(rate: Tensor, y0: Tensor, t1: float = 1.0, **options) -> ode.Solution:
    """dy/dt = rate y, one rate per system."""
    options = {"rtol": 1e-5, "atol": 1e-5} | options
    return ode.solve(lambda t, y: rate[:, None] * y, y0, 0.0, t1, **options)


# A step sums its stages in another order than SciPy's BLAS: some 1e-16 each, which a linear field does not amplify.
# A nonlinear one can, through the step sizes (in SciPy too, when y0 is moved by one float64 spacing): 5e-5 of the
# tolerance was the most in 1,200 cases.
@pytest.mark.parametrize(("family", "share"), [(linear, 0.0), (scalar, 1e-3), (van_der_pol, 1e-3)])
def test_calls_steps_and_end_are_those_of_scipy(family, share):
    rejected = 0
    for seed in range(24):
        c = case(family, seed)
        mine, reference = ours(c), scipys(c)
        assert reference.success
        assert mine.success.all()
        assert mine.nfe.item() == reference.nfev, f"seed {seed}"
        assert mine.accepted.item() == len(reference.t) - 1, f"seed {seed}"
        allowed = {"rtol": 1e-12 + share * c.rtol, "atol": 1e-14 + share * c.atol}
        np.testing.assert_allclose(mine.y[0].numpy(), reference.y[:, -1], **allowed)
        rejected += mine.rejected.item()
    assert rejected > 0  # otherwise the rules after a rejection were not compared


def test_nfe_is_the_number_of_calls_of_a_system_alone():
    c, calls = case(van_der_pol, 0), []
    counted = Case(lambda t, y: calls.append(1) or c.f(t, y), c.y0, c.t0, c.t1, c.rtol, c.atol)
    assert ours(counted).nfe.item() == len(calls)


@pytest.mark.parametrize(
    ("f", "y0"),
    [
        (lambda t, y: 0 * y, [0.0, 0.0, 0.0]),
        (lambda t, y: 0 * y, [1.0, 2.0]),
        (lambda t, y: 1e3 * torch.cos(50 * t[:, None]) - y, [0.0]),
        (lambda t, y: 10 * torch.sin(5 * t[:, None]) * y, [1.0]),
        (lambda t, y: 1e4 - y, [1.0, 1e-3]),
        (lambda t, y: torch.where(y < 0.9915, math.nan, -100 * (y - 0.995)), [1.0]),
    ],
    ids=["zero", "resting", "from-zero", "from-rest", "fast", "Euler-point-outside-the-domain"],
)
def test_the_first_step_is_that_of_scipy(f, y0):
    c = Case(f, torch.tensor(y0, dtype=torch.float64), 0.0, 1.0, 1e-5, 1e-5)
    mine, reference = [], []
    ours(Case(lambda t, y: mine.append(t.item()) or f(t, y), c.y0, c.t0, c.t1, c.rtol, c.atol))
    scipys(Case(lambda t, y: reference.append(t.item()) or f(t, y), c.y0, c.t0, c.t1, c.rtol, c.atol))
    np.testing.assert_allclose(mine[:8], reference[:8], rtol=1e-12)
    assert len(mine) == len(reference)


@pytest.mark.parametrize("stop", [1e-7, -1e-7, 0.5, -0.5])
def test_f_is_never_called_outside_the_interval(stop):
    times = []
    y0 = torch.ones(1, 1, dtype=torch.float64)
    ode.solve(lambda t, y: times.append(t.item()) or 1e-4 * y, y0, 0.0, stop, rtol=1e-5, atol=1e-5)
    assert min(0, stop) <= min(times)
    assert max(times) <= max(0, stop)


def test_a_very_short_interval_costs_what_it_costs_scipy():
    c = Case(lambda t, y: -y, torch.ones(1, dtype=torch.float64), 1.0, 1.0 + 1e-15, 1e-5, 1e-5)
    assert ours(c).nfe.item() == scipys(c).nfev


def test_a_first_step_below_the_clock_s_resolution_is_raised_to_it_as_in_scipy():
    # from y0 = 0 the first guess is 1e-4, but ten spacings of a float64 time of 1e11 are 1.5e-4
    c = Case(lambda t, y: 1 - y, torch.zeros(1, dtype=torch.float64), 1e11, 1e11 + 1, 1e-3, 1e-3)
    mine, reference = ours(c), scipys(c)
    assert reference.success
    assert mine.success.all()
    assert mine.nfe.item() == reference.nfev


def test_a_trial_outside_the_domain_is_a_rejection_as_in_scipy():
    # from t = 0.2 the solution sinks towards 0.5 and stays above it, but the stages of a long step fall below
    c = Case(
        lambda t, y: -torch.sqrt(y - 0.5) * (1 + 40 * (t[:, None] > 0.2)) + 4 * (1 - y),
        torch.ones(1, dtype=torch.float64), 0.0, 3.0, 1e-2, 1e-2,
    )  # fmt: skip
    outside = []
    watched = Case(lambda t, y: outside.append(bool((y < 0.5).any())) or c.f(t, y), c.y0, c.t0, c.t1, c.rtol, c.atol)
    mine, reference = ours(watched), scipys(c)
    assert any(outside)
    assert mine.success.all()
    assert mine.nfe.item() == reference.nfev


@pytest.mark.parametrize("power", range(5))
def test_powers_of_time_up_to_the_fourth_are_integrated_exactly(power):
    solution = ode.solve(
        lambda t, y: (power + 1) * t[:, None] ** power + 0 * y,
        torch.zeros(1, 1, dtype=torch.float64), 0.0, 2.0, rtol=1e-2, atol=1e-2,
    )  # fmt: skip
    assert solution.y.item() == pytest.approx(2.0 ** (power + 1), rel=1e-14)


def test_the_error_falls_with_the_fifth_power_of_the_mean_step():
    y0 = torch.tensor([[1.0, 0.0]], dtype=torch.float64)
    turn = torch.tensor([[0.0, 1.0], [-1.0, 0.0]], dtype=torch.float64)
    exact = torch.tensor([math.cos(10.0), -math.sin(10.0)], dtype=torch.float64)
    steps, errors = [], []
    for tolerance in 10.0 ** -np.arange(4.0, 11.0):
        solution = ode.solve(lambda t, y: y @ turn.T, y0, 0.0, 10.0, rtol=tolerance, atol=tolerance)
        steps.append(10.0 / solution.accepted.item())
        errors.append((solution.y[0] - exact).norm().item())
    order = np.polyfit(np.log(steps), np.log(errors), 1)[0]
    assert order == pytest.approx(5.0, abs=0.25)


def test_a_tenfold_smaller_tolerance_never_gives_a_larger_error():
    rate, y0 = torch.tensor([-1.0], dtype=torch.float64), torch.ones(1, 1, dtype=torch.float64)
    errors = [abs(solve_rate(rate, y0, 3.0, rtol=r, atol=r).y.item() - math.exp(-3)) for r in 10.0 ** -np.arange(2, 11)]
    assert errors == sorted(errors, reverse=True)
    assert errors[-1] < 1e-9


def test_going_there_and_back_returns_to_the_start():
    f, y0 = van_der_pol(np.random.default_rng(1), 1.0)
    there = ode.solve(f, y0[None], 0.0, 0.5, rtol=1e-10, atol=1e-10)
    back = ode.solve(f, there.y, 0.5, 0.0, rtol=1e-10, atol=1e-10)
    # each way errs by some 1e-9, and the way back expands what the way there contracted
    torch.testing.assert_close(back.y, y0[None], rtol=0, atol=1e-6)


def test_a_batch_gives_each_system_what_it_gets_alone():
    rng = np.random.default_rng(0)
    rates = torch.tensor(rng.uniform(-60, 1, (12, 5)))
    y0 = torch.tensor(rng.normal(size=(12, 5)))
    paces = torch.tensor(rng.uniform(0.1, 50.0, (12, 1)))

    def field(chosen: slice) -> Field:
        return lambda t, y: rates[chosen] * y + torch.cos(paces[chosen] * t[:, None]) * y.roll(1, 1)

    together = ode.solve(field(slice(None)), y0, 1.0, 3.0, rtol=1e-5, atol=1e-5)
    assert together.success.all()
    assert together.nfe.unique().numel() > 6
    for i in range(12):
        alone = ode.solve(field(slice(i, i + 1)), y0[i : i + 1], 1.0, 3.0, rtol=1e-5, atol=1e-5)
        assert (together.nfe[i], together.accepted[i]) == (alone.nfe[0], alone.accepted[0])
        torch.testing.assert_close(together.y[i], alone.y[0], rtol=1e-12, atol=1e-14)


@pytest.mark.parametrize("poison", [math.nan, math.inf])
def test_a_finished_system_stands_still_and_does_not_mind_what_f_returns(poison):
    seen = []

    def f(t: Tensor, y: Tensor) -> Tensor:
        seen.append((t[0].item(), y[0].tolist()))
        slope = -y * torch.tensor([[0.1], [200.0]], dtype=torch.float64)
        arrived = (t[:, None] == 1.0) & (torch.arange(2)[:, None] == 0) & (len(seen) > 200)
        return torch.where(arrived, poison, slope)

    y0 = torch.ones(2, 3, dtype=torch.float64)
    solution = ode.solve(f, y0, 0.0, 1.0, rtol=1e-6, atol=1e-6)
    clean = solve_rate(torch.tensor([-0.1, -200.0], dtype=torch.float64), y0, rtol=1e-6, atol=1e-6)
    assert solution.nfe[0] < 200 < 260 < solution.nfe[1]
    assert torch.equal(solution.nfe, clean.nfe)
    assert torch.equal(solution.y, clean.y)
    assert solution.success.all()
    assert all(s == (1.0, solution.y[0].tolist()) for s in seen[200:])


def test_a_pole_is_flagged_and_does_not_disturb_its_neighbours():
    y0 = torch.tensor([[0.2], [1.0], [0.1]], dtype=torch.float64)
    options = {"rtol": 1e-5, "atol": 1e-5}
    solution = ode.solve(lambda t, y: y**2, y0, 0.0, 3.0, **options)  # 1 / (1/y0 - t): the second has a pole at 1
    reference = scipys(Case(lambda t, y: y**2, y0[1], 0.0, 3.0, **options))
    assert solution.success.tolist() == [True, False, True]
    assert solution.y[1].isnan().all()
    assert not reference.success
    assert solution.nfe[1].item() == reference.nfev
    neighbours = ode.solve(lambda t, y: y**2, y0[[0, 2]], 0.0, 3.0, **options)
    assert torch.equal(solution.nfe[[0, 2]], neighbours.nfe)
    torch.testing.assert_close(solution.y[[0, 2]], neighbours.y, rtol=1e-14, atol=0)


@pytest.mark.parametrize("poison", [math.nan, math.inf, -math.inf])
@pytest.mark.parametrize("since", [0.0, 0.4])
def test_a_derivative_that_is_not_finite_is_flagged_and_does_not_disturb_its_neighbours(poison, since):
    ill = torch.tensor([[False], [True], [False]])

    def f(t: Tensor, y: Tensor) -> Tensor:
        return torch.where(ill & (t[:, None] >= since), poison, -30 * y)

    y0 = torch.ones(3, 4, dtype=torch.float64)
    solution = ode.solve(f, y0, 0.0, 1.0, rtol=1e-5, atol=1e-5)
    neighbours = solve_rate(torch.full((2,), -30.0, dtype=torch.float64), y0[:2])
    assert solution.success.tolist() == [True, False, True]
    assert solution.y[1].isnan().all()
    assert (solution.nfe[1] == 2) == (since == 0)  # ill from the start: no step is tried
    assert torch.equal(solution.nfe[[0, 2]], neighbours.nfe)
    torch.testing.assert_close(solution.y[[0, 2]], neighbours.y, rtol=1e-14, atol=0)


@pytest.mark.parametrize("poison", [math.nan, math.inf])
@pytest.mark.parametrize("since", [0.0, 0.1])
def test_a_failed_system_is_shown_its_last_finite_state(poison, since):
    shown = []

    def f(t: Tensor, y: Tensor) -> Tensor:
        shown.append(y[0].clone())
        return torch.where(torch.tensor([[True], [False]]) & (t[:, None] >= since), poison, -50 * y)

    # stability limits the neighbour's steps to some 3 / 50: it goes on for hundreds of evaluations on every processor
    solution = ode.solve(f, torch.ones(2, 1, dtype=torch.float64), 0.0, 12.0, rtol=1e-8, atol=1e-8)
    assert solution.success.tolist() == [False, True]
    assert solution.nfe[0] + 60 < len(shown)
    last = torch.stack(shown[solution.nfe[0].item() :])
    assert last.isfinite().all()
    assert last.unique().numel() == 1


def test_a_state_that_is_not_finite_is_flagged_at_the_start():
    y0 = torch.tensor([[1.0], [math.nan], [math.inf]], dtype=torch.float64)
    solution = solve_rate(-torch.ones(3, dtype=torch.float64), y0)
    assert solution.success.tolist() == [True, False, False]
    assert solution.nfe[1:].tolist() == [2, 2]


def test_no_tolerance_at_all_is_flagged_at_the_start():
    y0 = torch.tensor([[0.0], [1.0]], dtype=torch.float64)
    solution = ode.solve(lambda t, y: 1 - y / 2, y0, 0.0, 1.0, rtol=1e-5, atol=0.0)
    assert solution.success.tolist() == [False, True]
    assert solution.nfe[0].item() == 2


def test_a_state_that_overflows_is_flagged_though_it_arrives():
    y0 = torch.ones(1, 1, dtype=torch.float64)
    solution = ode.solve(lambda t, y: torch.full_like(y, 1e307), y0, 0.0, 100.0, rtol=1e-2, atol=1e-2)
    assert not solution.success.item()
    assert solution.y.isnan().all()


def test_max_evaluations_is_a_bound_for_each_system_and_enough_if_just_met():
    rates, y0 = torch.tensor([-1.0, -500.0], dtype=torch.float64), torch.ones(2, 1, dtype=torch.float64)
    free = solve_rate(rates, y0)
    need = free.nfe[1].item()
    assert free.nfe[0] < need - 1
    enough, short = (solve_rate(rates, y0, max_evaluations=limit) for limit in (need, need - 1))
    assert enough.success.all()
    assert torch.equal(enough.y, free.y)
    assert short.success.tolist() == [True, False]
    assert short.y[1].isnan().all()
    assert short.nfe.tolist() == [free.nfe[0], need - 6]
    assert torch.equal(short.y[0], free.y[0])


def test_f_may_take_gradients_and_leaves_none_behind():
    def f(t: Tensor, y: Tensor) -> Tensor:
        with torch.enable_grad():
            y.requires_grad_()
            return torch.autograd.grad(-(y**2).sum() / 2, y, create_graph=True)[0]

    y0 = torch.ones(1, 2, dtype=torch.float64)
    solution = ode.solve(f, y0, 0.0, 1.0, rtol=1e-5, atol=1e-5)
    assert not solution.y.requires_grad
    assert not y0.requires_grad
    assert torch.equal(solution.y, solve_rate(torch.tensor([-1.0], dtype=torch.float64), y0).y)
    assert torch.equal(y0, torch.ones_like(y0))


def test_f_may_write_every_result_over_the_last_one():
    c, buffer = case(linear, 0), []

    def f(t: Tensor, y: Tensor) -> Tensor:
        buffer.append(torch.empty_like(y)) if not buffer else None
        return buffer[0].copy_(c.f(t, y))

    reused, fresh = ours(Case(f, c.y0, c.t0, c.t1, c.rtol, c.atol)), ours(c)
    assert torch.equal(reused.nfe, fresh.nfe)
    assert torch.equal(reused.y, fresh.y)


class Synchronisations(TorchDispatchMode):
    """Counts the operations that bring a value from the device to Python."""

    count = 0

    def __torch_dispatch__(self, operation, types, arguments=(), keywords=None):
        self.count += operation is torch.ops.aten._local_scalar_dense.default
        return operation(*arguments, **(keywords or {}))


def test_a_step_waits_for_the_device_once():
    rate, y0 = torch.tensor([-300.0], dtype=torch.float64), torch.ones(1, 2, dtype=torch.float64)
    with Synchronisations() as synchronisations:
        solution = solve_rate(rate, y0)
    steps = (solution.accepted + solution.rejected).item()
    assert steps > 50
    assert synchronisations.count == steps + 1  # before each step, and before none is left


GOOD = {"y0": torch.ones(2, 3, dtype=torch.float64), "t0": 0.0, "t1": 1.0, "rtol": 1e-5, "atol": 1e-5}


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"y0": torch.ones(2, 3)}, r"y0 must be float64.*float32.*\.double"),
        ({"y0": torch.ones(3, dtype=torch.float64)}, r"shape \(3,\).*reshape"),
        ({"y0": torch.ones(2, 0, dtype=torch.float64)}, r"shape \(2, 0\)"),
        ({"t1": 0.0}, "different, but are 0.0 and 0.0"),
        ({"t1": math.inf}, "finite.*inf"),
        ({"t0": math.nan}, "finite.*nan"),
        ({"rtol": 0.0}, "rtol must be.*but is 0.0"),
        ({"rtol": -1e-5}, "rtol must be.*but is -1e-05"),
        ({"rtol": 1e-14}, "rtol must be.*SciPy"),
        ({"rtol": math.nan}, "rtol must be.*nan"),
        ({"atol": -1.0}, "atol must be.*but is -1.0"),
        ({"atol": math.nan}, "atol must be.*nan"),
        ({"max_evaluations": 7}, r"one step, 2 \+ 6 calls, but is 7"),
    ],
)
def test_what_cannot_be_solved_is_refused_before_f_is_called(change, message):
    def f(t: Tensor, y: Tensor) -> Tensor:
        raise AssertionError("f was called")

    with pytest.raises(ValueError, match=message):
        ode.solve(f, **(GOOD | change))


@pytest.mark.parametrize(
    ("f", "found"),
    [
        (lambda t, y: y[:, :1], r"float64 of shape \(2, 1\)"),
        (lambda t, y: y[0], r"float64 of shape \(3,\)"),
        (lambda t, y: y.float(), r"float32 of shape \(2, 3\)"),
    ],
)
def test_a_derivative_unlike_the_state_is_refused(f, found):
    with pytest.raises(ValueError, match=rf"like y, torch.float64 of shape \(2, 3\), but returned torch.{found}"):
        ode.solve(f, **GOOD)


@pytest.mark.parametrize("call", [1, 2, 5])
def test_a_derivative_that_changes_shape_later_is_refused_too(call):
    calls = []

    def f(t: Tensor, y: Tensor) -> Tensor:
        calls.append(1)
        return y if len(calls) <= call else y[:1]

    with pytest.raises(ValueError, match="must return dy/dt like y"):
        ode.solve(f, **GOOD)


def test_times_and_states_reach_f_as_float64_one_per_system():
    kinds = set()

    def f(t: Tensor, y: Tensor) -> Tensor:
        kinds.add((t.dtype, tuple(t.shape), y.dtype, tuple(y.shape)))
        return -y

    ode.solve(f, **GOOD)
    assert kinds == {(torch.float64, (2,), torch.float64, (2, 3))}
