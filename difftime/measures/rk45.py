"""Runge-Kutta 5(4) for the probability-flow ODE, with SciPy's step control, on the device of the state.

The number of right-hand-side calls (NFE) is one of the paper's results and was counted with SciPy's RK45, so it is
only comparable if every accepted and every rejected step is the same. Here the formula is that of Dormand & Prince
(1980), the starting step and the error control those of Hairer, Nørsett & Wanner (Solving ODEs I, Sec. II.4), and
every constant and tie-break that of `scipy.integrate.solve_ivp(method="RK45")`, for many independent systems at once:
each has its own time, its own step and its own count. State, time and error are float64 and never leave the device;
a step waits for the device once, to ask whether any system is still running.

Sums are rounded in another order than in SciPy's BLAS. Under a loose tolerance and a strong forcing the step sizes can
amplify that until a step more or less is taken, and so can SciPy's own when y0 is moved by one float64 spacing.
One departure: where dy/dt is NaN at the start, SciPy never returns; here the system fails after two calls.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass, replace

import torch
from jaxtyping import Bool, Float64, Int64
from torch import Tensor

# Dormand & Prince (1980), Table 2. The last row of A is the fifth-order formula itself: its end point is the last
# stage and, once accepted, the first stage of the next step. ERROR is the fifth-order row minus the fourth-order one.
C = (0.0, 1 / 5, 3 / 10, 4 / 5, 8 / 9, 1.0, 1.0)
A = (
    (),
    (1 / 5,),
    (3 / 40, 9 / 40),
    (44 / 45, -56 / 15, 32 / 9),
    (19372 / 6561, -25360 / 2187, 64448 / 6561, -212 / 729),
    (9017 / 3168, -355 / 33, 46732 / 5247, 49 / 176, -5103 / 18656),
    (35 / 384, 0.0, 500 / 1113, 125 / 192, -2187 / 6784, 11 / 84),
)
ERROR = (71 / 57600, 0.0, -71 / 16695, 71 / 1920, -17253 / 339200, 22 / 525, -1 / 40)

SAFETY, MIN_FACTOR, MAX_FACTOR = 0.9, 0.2, 10.0
CALLS_TO_START, CALLS_PER_STEP = 2, 6
SMALLEST_RTOL = 100 * torch.finfo(torch.float64).eps


@dataclass(frozen=True)
class Solution:
    """Where every system ended, and what it cost. A system that failed has NaN for its state."""

    y: Float64[Tensor, " systems n"]
    nfe: Int64[Tensor, " systems"]
    accepted: Int64[Tensor, " systems"]
    rejected: Int64[Tensor, " systems"]
    success: Bool[Tensor, " systems"]


@dataclass(frozen=True)
class Problem:
    """What is solved, and how precisely: dy/dt = f(t, y) up to t = `stop`. Direction is +1 or -1."""

    f: Callable[[Tensor, Tensor], Tensor]
    stop: Float64[Tensor, " systems"]
    direction: float
    rtol: float
    atol: float
    max_evaluations: int
    nodes: Float64[Tensor, "7 1"]
    weights: tuple[Tensor, ...]

    def derivative(self, t: Float64[Tensor, " systems"], y: Float64[Tensor, " systems n"]) -> Tensor:
        """f(t, y), refused if it is not of the kind of y."""
        slope = self.f(t, y)
        if slope.shape != y.shape or slope.dtype != y.dtype:
            raise ValueError(
                f"f(t, y) must return dy/dt like y, {y.dtype} of shape {tuple(y.shape)}, but returned {slope.dtype} "
                f"of shape {tuple(slope.shape)}. Reshape or convert (`.double()`) inside f."
            )
        return slope

    def norm(self, x: Float64[Tensor, " systems n"], size: Float64[Tensor, " systems n"]) -> Tensor:
        """Root mean square of x per system, in units of the tolerance atol + rtol * size."""
        scaled = x / (self.atol + size * self.rtol)
        return torch.linalg.vector_norm(scaled, dim=1) / x.shape[1] ** 0.5


@dataclass(frozen=True)
class State:
    """Where every system is. `K` is a buffer of the stages, overwritten by each step; K[0] = f(t, y)."""

    t: Float64[Tensor, " systems"]
    y: Float64[Tensor, " systems n"]
    K: Float64[Tensor, "7 systems n"]
    h_abs: Float64[Tensor, " systems"]
    retry: Bool[Tensor, " systems"]
    running: Bool[Tensor, " systems"]
    accepted: Int64[Tensor, " systems"]
    rejected: Int64[Tensor, " systems"]

    @property
    def nfe(self) -> Int64[Tensor, " systems"]:
        """The calls that a solver of this system alone would have made."""
        return CALLS_TO_START + CALLS_PER_STEP * (self.accepted + self.rejected)


# y0 has no shape in its type: a wrong one deserves the letter in `check_request`
@torch.no_grad()
def solve(
    f: Callable[[Tensor, Tensor], Tensor],
    y0: Tensor,
    t0: float,
    t1: float,
    *,
    rtol: float,
    atol: float,
    max_evaluations: int = 100_000,
) -> Solution:
    """Integrate dy/dt = f(t, y) from y(t0) = y0, float64 [systems, n], to t1, which may lie before t0.

    f takes times [systems] and states [systems, n], and must not let one system depend on another. It is called
    without gradients; an f that needs a vector-Jacobian product enables them inside. A system fails if its step falls
    below the spacing of floating-point times, as it does at a pole or where f stays NaN, or if another step would take
    more than `max_evaluations` calls. Finished systems are still shown to f, at their last time and state.
    """
    check_request(y0, t0, t1, rtol, atol, max_evaluations)
    problem = Problem(
        f=f,
        stop=torch.full_like(y0[:, 0], t1),
        direction=math.copysign(1.0, t1 - t0),
        rtol=rtol,
        atol=atol,
        max_evaluations=max_evaluations,
        nodes=torch.tensor(C, dtype=y0.dtype, device=y0.device)[:, None],
        weights=tuple(torch.tensor(row, dtype=y0.dtype, device=y0.device) for row in (*A, ERROR)),
    )
    state = admit(problem, start(problem, y0.detach(), t0))
    while bool(state.running.any()):
        state = admit(problem, step(problem, state))
    success = (state.t == problem.stop) & state.y.isfinite().all(dim=1)
    y = torch.where(success[:, None], state.y, math.nan)
    return Solution(y=y, nfe=state.nfe, accepted=state.accepted, rejected=state.rejected, success=success)


def start(problem: Problem, y0: Float64[Tensor, " systems n"], t0: float) -> State:
    """The state before the first step, at the price of two calls; over at once where the derivative is not finite."""
    t = torch.full_like(problem.stop, t0)
    slope = problem.derivative(t, y0)
    healthy = slope.isfinite().all(dim=1)
    K = y0.new_zeros(7, *y0.shape)
    K[0] = torch.where(healthy[:, None], slope, 0.0)
    none = torch.zeros_like(t, dtype=torch.int64)
    return State(
        t=t,
        y=y0,
        K=K,
        h_abs=initial_step(problem, t, y0, K[0]),  # not `slope`: f may write its next result over it
        retry=torch.zeros_like(healthy),
        running=healthy,
        accepted=none,
        rejected=none,
    )


def initial_step(
    problem: Problem,
    t: Float64[Tensor, " systems"],
    y: Float64[Tensor, " systems n"],
    slope: Float64[Tensor, " systems n"],
) -> Float64[Tensor, " systems"]:
    """A first step whose error is about a hundredth of the tolerance (Hairer, Nørsett & Wanner, Sec. II.4)."""
    size = y.abs()
    d0, d1 = problem.norm(y, size), problem.norm(slope, size)
    h0 = torch.where((d0 < 1e-5) | (d1 < 1e-5), 1e-6, 0.01 * d0 / d1).minimum((problem.stop - t).abs())
    signed = h0 * problem.direction
    bend = problem.derivative(t + signed, y + signed[:, None] * slope) - slope
    d2 = problem.norm(bend, size) / h0
    # not torch.maximum: where only the Euler point is outside f's domain, d2 is NaN and SciPy goes on with d1
    steepest = torch.where(d2 > d1, d2, d1)
    flat = (d1 <= 1e-15) & (d2 <= 1e-15)
    h1 = torch.where(flat, (h0 * 1e-3).clamp(min=1e-6), (0.01 / steepest) ** (1 / 5))
    return (100 * h0).minimum(h1)


def admit(problem: Problem, state: State) -> State:
    """Decide who takes another step. A fresh step is raised to the smallest possible one; a retry below it fails."""
    min_step = 10 * (torch.nextafter(state.t, problem.stop) - state.t).abs()
    h_abs = torch.where(state.retry, state.h_abs, state.h_abs.maximum(min_step))
    affordable = state.nfe <= problem.max_evaluations - CALLS_PER_STEP
    # a NaN step, as where atol and y0 are 0, is not >= min_step
    running = state.running & (state.t != problem.stop) & (h_abs >= min_step) & affordable
    return replace(state, h_abs=h_abs, running=running)


def step(problem: Problem, state: State) -> State:
    """Try one step of every running system; keep it where its error is within the tolerance."""
    t = state.t + state.h_abs * problem.direction
    t = torch.where(problem.direction * (t - problem.stop) > 0, problem.stop, t)
    t = torch.where(state.running, t, state.t)
    h = t - state.t
    y = fill_stages(problem, state, h)
    error = combine(problem.weights[7], state.K) * h[:, None]
    norm = problem.norm(error, state.y.abs().maximum(y.abs()))
    accept = state.running & (norm < 1)
    torch.where(accept[:, None], state.K[6], state.K[0], out=state.K[0])
    return replace(
        state,
        t=torch.where(accept, t, state.t),
        y=torch.where(accept[:, None], y, state.y),
        h_abs=h.abs() * step_factor(norm, state.retry),
        retry=~accept,
        accepted=state.accepted + accept,
        rejected=state.rejected + (state.running & ~accept),
    )


def fill_stages(problem: Problem, state: State, h: Float64[Tensor, " systems"]) -> Float64[Tensor, " systems n"]:
    """Evaluate stages 1 to 6 into K and return the fifth-order end point, where the last of them is taken.

    In a finished system h and these stages are 0: it is shown to f where it is, even if f is NaN there.
    """
    running, column, zero = state.running[:, None], h[:, None], h.new_zeros(())
    times = (state.t + problem.nodes * h).unbind()
    for stage in range(1, 7):
        trial = state.y + combine(problem.weights[stage], state.K[:stage]) * column
        torch.where(running, problem.derivative(times[stage], trial), zero, out=state.K[stage])
    return trial


def combine(weights: Float64[Tensor, " stages"], K: Float64[Tensor, "stages systems n"]) -> Tensor:
    """The weighted sum of stages, as one matrix-vector product."""
    return torch.mv(K.flatten(1).T, weights).view(K.shape[1:])


def step_factor(norm: Float64[Tensor, " systems"], retry: Bool[Tensor, " systems"]) -> Float64[Tensor, " systems"]:
    """The change of step size after an error of `norm` tolerances; the step that follows a rejection may not grow.

    A NaN error shrinks the step like an infinite one, so a trial outside f's domain is a rejection, not the end.
    """
    factor = (SAFETY * norm.nan_to_num(nan=math.inf, posinf=math.inf) ** (-1 / 5)).clamp(MIN_FACTOR, MAX_FACTOR)
    return torch.where(retry, factor.clamp(max=1.0), factor)


def check_request(y0: Tensor, t0: float, t1: float, rtol: float, atol: float, max_evaluations: int) -> None:
    """Refuse what cannot be solved, or what SciPy would silently alter."""
    if y0.dtype != torch.float64 or y0.ndim != 2 or y0.numel() == 0:
        raise ValueError(
            f"y0 must be float64 of shape [systems, n], neither of them 0, but is {y0.dtype} of shape "
            f"{tuple(y0.shape)}. For one system use `y0.double().reshape(1, -1)`."
        )
    if not (math.isfinite(t0) and math.isfinite(t1) and t0 != t1):
        raise ValueError(f"t0 and t1 must be finite and different, but are {t0} and {t1}. Check epsilon and T.")
    if not SMALLEST_RTOL <= rtol < math.inf:
        raise ValueError(
            f"rtol must be finite and at least {SMALLEST_RTOL:.3g} (100 float64 spacings; SciPy would raise it to "
            f"that), but is {rtol}. The paper's is 1e-5."
        )
    if not 0 <= atol < math.inf:
        raise ValueError(f"atol must be finite and not negative, but is {atol}. The paper's is 1e-5.")
    if max_evaluations < CALLS_TO_START + CALLS_PER_STEP:
        raise ValueError(
            f"max_evaluations must allow one step, {CALLS_TO_START} + {CALLS_PER_STEP} calls, but is "
            f"{max_evaluations}. Leave it out for 100,000."
        )
