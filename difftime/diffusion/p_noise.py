"""p_noise fitted to p(x, T): what makes a small T good, as KL[p(x,T) || p_noise] of Eq. 11 is all that a small T costs.

The score knows nothing of p_noise, so one trained model serves any number of them:

    full       the Gaussian with the mean and the covariance of x_T. It removes the lower end of the KL's bracket.
    mixture    Gaussians with full covariances, fitted to the data by expectation maximisation (scikit-learn); diffused
               to T they are Gaussians again, so the noise in x_T is known and is not fitted.
    flow       a neural spline flow (Durkan et al., 2019, as zuko has it) after the whitening of `full`, fitted to draws
               of x_T by maximum likelihood, and stopped where a held-out part of the training data is best described.

Of images, training images are all that a fit sees. Of a mixture, the moments are p_data's own, and the points are a
sample of the training set's size that no seed is trained on.
"""

from __future__ import annotations

import copy
import logging
import math
import warnings
from collections.abc import Callable
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any, NamedTuple

import torch
from jaxtyping import Float
from torch import Tensor, nn

from difftime.diffusion.mixture import Mixture
from difftime.diffusion.sde import SDE, Gaussian, Noise
from difftime.support.extras import lacks
from difftime.support.memory import available
from difftime.support.streams import stream

log = logging.getLogger("difftime")

REGULAR = 1e-6
"""Added to the variances of a mixture's components while they are fitted, as a share of the coordinates' mean one."""
LOOKS = 20
"""How often a flow in training looks at the held-out points."""

Draw = Callable[[Tensor, torch.Generator], Tensor]
"""A fresh x_T, in float64, of each of the training points with these indices."""


class BadNoise(Exception):
    """A p_noise cannot be fitted, or is another cell's; the message says why and what to do."""


@dataclass(frozen=True)
class FullGaussian(Noise):
    """A Gaussian with any covariance, `factor` `factor`ᵀ; `factor` is lower triangular."""

    mean: Float[Tensor, " d"]
    factor: Float[Tensor, "d d"]

    @classmethod
    def of(cls, mean: Float[Tensor, " d"], covariance: Float[Tensor, "d d"]) -> FullGaussian:
        """Raises BadNoise if the moments are not finite, or the covariance is not positive definite."""
        check_finite(mean, covariance)
        factor, failed = torch.linalg.cholesky_ex(covariance.double())
        if failed:
            raise BadNoise("The covariance of x_T is singular, so there is no Gaussian with it. Raise T.")
        return cls(mean.double(), factor)

    @property
    def spread(self) -> Tensor:
        return self.factor.square().sum(-1)

    def whitened(self, x: Float[Tensor, "*batch d"]) -> Float[Tensor, "*batch d"]:
        """The coordinates in which this is a standard normal."""
        flat = (x - self.mean).reshape(-1, x.shape[-1]).mT
        return torch.linalg.solve_triangular(self.factor.to(x.dtype), flat, upper=False).mT.reshape(x.shape)

    @property
    def log_volume(self) -> Tensor:
        """log |det dx/dy| of the coordinates y = whitened(x)."""
        return self.factor.diagonal().log().sum()

    def log_prob(self, x: Float[Tensor, "*batch d"]) -> Float[Tensor, "*batch"]:
        y = self.whitened(x)
        return -0.5 * (y.square() + math.log(2 * math.pi)).sum(-1) - self.log_volume

    def sample(self, *batch: int, generator: torch.Generator) -> Tensor:
        z = torch.randn(*batch, len(self.mean), dtype=torch.float64, generator=generator, device=generator.device)
        return self.mean + z @ self.factor.mT

    def prior(self, centre: Tensor, variance: Tensor, z: Tensor) -> Tensor:
        return self.log_prob(centre) - 0.5 * variance * self.inverse_trace

    @cached_property
    def inverse_trace(self) -> Tensor:
        """The trace of the inverse covariance."""
        identity = torch.eye(len(self.mean), dtype=self.factor.dtype, device=self.factor.device)
        return torch.linalg.solve_triangular(self.factor, identity, upper=False).square().sum()

    def to(self, device: torch.device | str) -> FullGaussian:
        return FullGaussian(self.mean.to(device), self.factor.to(device))


@dataclass(frozen=True)
class _Beyond(Noise):
    """A density that has `gaussian` beside it, from which its expectations differ by little."""

    gaussian: FullGaussian
    mean: Tensor = field(init=False, repr=False, compare=False)

    def __post_init__(self) -> None:
        object.__setattr__(self, "mean", self.gaussian.mean)

    @property
    def spread(self) -> Tensor:
        return self.gaussian.spread

    def prior(self, centre: Tensor, variance: Tensor, z: Tensor) -> Tensor:
        # the Gaussian's expectation is known, and with it most of what the draws scatter by
        x = centre + variance.sqrt() * z
        beyond = torch.stack([self.log_prob(one) - self.gaussian.log_prob(one) for one in x])
        return self.gaussian.prior(centre, variance, z) + beyond.mean(0)


@dataclass(frozen=True)
class MixtureNoise(_Beyond):
    """A mixture of Gaussians with full covariances; `gaussian` has its moments."""

    mixture: Mixture
    data: Mixture | None
    """The mixture that was fitted to the data, from which `mixture` is diffused; None where that is not so."""

    @classmethod
    def of(cls, mixture: Mixture, data: Mixture | None = None) -> MixtureNoise:
        return cls(FullGaussian.of(mixture.mean, mixture.covariance), mixture, data)

    def at(self, sde: SDE, t: float) -> MixtureNoise:
        """The p_noise that the same fit gives for another diffusion time. Raises BadNoise if the fit is not known."""
        if self.data is None:
            raise BadNoise("The fit that this mixture was diffused from is not known, so there is none of another T.")
        return self.of(self.data.diffused(sde, t), self.data)

    def log_prob(self, x: Float[Tensor, "*batch d"]) -> Float[Tensor, "*batch"]:
        return self.mixture.log_prob(x)

    def sample(self, *batch: int, generator: torch.Generator) -> Tensor:
        return self.mixture.sample(math.prod(batch), generator).reshape(*batch, self.mixture.d)

    def to(self, device: torch.device | str) -> MixtureNoise:
        return MixtureNoise(self.gaussian.to(device), _moved(self.mixture, device), self.data)


DIFFUSED = ("means", "variances")
"""What of a mixture depends on the diffusion time."""


def _parts(mixture: Mixture) -> dict[str, Tensor]:
    return {name: getattr(mixture, name) for name in ("weights", "means", "variances", "axes")}


def _moved(mixture: Mixture, device: torch.device | str) -> Mixture:
    return Mixture(**{name: part.to(device) for name, part in _parts(mixture).items()})


@dataclass(frozen=True)
class FlowNoise(_Beyond):
    """A flow of the coordinates that `gaussian` whitens; the moments are that Gaussian's, as the flow has none."""

    flow: nn.Module

    def log_prob(self, x: Float[Tensor, "*batch d"]) -> Float[Tensor, "*batch"]:
        with torch.no_grad():
            return self.flow().log_prob(self.gaussian.whitened(x.double())) - self.gaussian.log_volume

    def sample(self, *batch: int, generator: torch.Generator) -> Tensor:
        shape = (*batch, len(self.gaussian.mean))
        z = torch.randn(shape, dtype=torch.float64, generator=generator, device=generator.device)
        with torch.no_grad():
            y = self.flow().transform.inv(z)
        return self.gaussian.mean + y @ self.gaussian.factor.mT

    def to(self, device: torch.device | str) -> FlowNoise:
        return FlowNoise(self.gaussian.to(device), copy.deepcopy(self.flow).to(device))


def diffused_moments(
    sde: SDE, T: float, mean: Float[Tensor, " d"], covariance: Float[Tensor, "d d"]
) -> tuple[Float[Tensor, " d"], Float[Tensor, "d d"]]:
    """Mean and covariance of x_T, from those of the data: alpha m and alpha² C + sigma² I."""
    t = torch.tensor(T, dtype=torch.float64)
    alpha, covariance = sde.alpha(t), covariance.double()
    return alpha * mean.double(), alpha**2 * covariance + sde.variance(t) * torch.eye(len(mean), dtype=torch.float64)


def shrinkage(covariance: Float[Tensor, "d d"], n: int) -> float:
    """How far to move a covariance of `n` points towards a multiple of I: 0 if n > d, as it is not singular then.

    Else the oracle-approximating intensity of Chen et al. (2010), Eq. 23, which needs no more than the covariance.
    """
    d = len(covariance)
    if n > d:
        return 0.0
    square, trace2 = covariance.square().sum().item(), covariance.trace().item() ** 2
    rest = (n + 1 - 2 / d) * (square - trace2 / d)
    return 1.0 if rest <= 0 else min(1.0, ((1 - 2 / d) * square + trace2) / rest)


def shrunk(covariance: Float[Tensor, "d d"], n: int) -> Float[Tensor, "d d"]:
    """The covariance of the data, made regular where `n` points leave it singular, which the log says."""
    rho, d = shrinkage(covariance, n), len(covariance)
    if rho == 0:
        return covariance
    log.warning(
        "WARNING: %d points leave the covariance in %d dimensions singular. It is shrunk towards a multiple of the "
        "identity by %.3f.", n, d, rho,
    )  # fmt: skip
    target = covariance.trace() / d * torch.eye(d, dtype=covariance.dtype)
    return (1 - rho) * covariance + rho * target


def diffuse(x0: Float[Tensor, "n d"], sde: SDE, T: float, generator: torch.Generator) -> Float[Tensor, "n d"]:
    """One x_T for every point, both in float64."""
    t = torch.full((len(x0),), T, dtype=torch.float64)
    return sde.perturb(x0, t, torch.randn(x0.shape, dtype=torch.float64, generator=generator))


def check_enough(n: int, needed: int, what: str, setting: str) -> None:
    """Raise BadNoise unless `n` training points suffice."""
    if n < needed:
        raise BadNoise(f"{what} needs at least {needed} training points; there are {n}. {setting}")


def bracket_fits(d: int, limit: int | None = None) -> bool:
    """Whether the lower end of the KL's bracket, 4 d × d matrices (3.2 measured), fits `limit`, or what is there."""
    limit = available() if limit is None else limit
    return limit is None or 8 * 4 * d * d <= limit


def memory_needed(kind: str, d: int, n: int, components: int = 1) -> int:
    """Bytes that a p_noise of this kind takes in d dimensions from n points, when it is fitted or bracketed.

    Measured in d × d matrices of float64 and rounded up: 7.2 for `full`, which `flow` contains; for `mixture` 8.2 per
    component, and 2.1 times the points. `standard` and `matched` take no matrix.
    """
    numbers = {"full": 8 * d * d, "flow": 8 * d * d, "mixture": 9 * components * d * d + 3 * n * d}
    return 8 * numbers.get(kind, 0)


def check_memory(kind: str, d: int, n: int, components: int = 1, limit: int | None = None) -> None:
    """Raise BadNoise if a p_noise takes more than `limit`, by default what this process can have."""
    needed, limit = memory_needed(kind, d, n, components), available() if limit is None else limit
    if limit is not None and needed > limit:
        raise BadNoise(
            f"The p_noise {kind} in {d} dimensions takes some {needed / 1e9:.1f} GB, as it builds covariances of {d} × "
            f"{d}; {limit / 1e9:.1f} GB are there. Leave {kind} out of p_noise, make the images smaller, or have "
            "more memory (under Slurm, raise `memory` of the data set, in MB)."
        )


def check_finite(*values: Tensor) -> None:
    """Raise BadNoise unless all values of x_T, or of its moments, are finite."""
    if not all(value.isfinite().all() for value in values):
        raise BadNoise("x_T of this cell is not finite: the SDE's variance overflows at this T. Lower T.")


def fit_mixture(
    x0: Float[Tensor, "n d"], sde: SDE, T: float, *, components: int, iterations: int, seed: str
) -> MixtureNoise:
    """Expectation maximisation on data points, and what the SDE makes of the mixture until T.

    A component that no more points than coordinates belong to is shrunk. Raises BadNoise if that would be so of all, or
    if x_T is not finite.
    """
    try:
        from sklearn.exceptions import ConvergenceWarning
        from sklearn.mixture import GaussianMixture
    except ModuleNotFoundError as error:
        raise BadNoise(lacks("A p_noise of kind mixture", error, "study")) from error

    n, d = x0.shape
    what = f"A mixture of {components} Gaussians with full covariances in {d} dimensions"
    check_enough(n, components * (d + 1), what, "Lower noise.mixture.components, or leave this p_noise out.")
    check_finite(sde.variance(torch.tensor(T, dtype=torch.float64)))
    least = REGULAR * x0.var(0).mean().item()
    start = int(torch.randint(2**31 - 1, (), generator=stream(seed, "p_noise mixture")))
    model = GaussianMixture(components, tol=1e-6, reg_covar=least, max_iter=iterations, random_state=start)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ConvergenceWarning)
        fitted = model.fit(x0.numpy())
    log.info(
        "Mixture of %d: %d iterations, mean log density of the data %.4f nats", components, fitted.n_iter_,
        fitted.lower_bound_,
    )  # fmt: skip
    if not fitted.converged_:
        log.warning("WARNING: expectation maximisation has not converged: raise noise.mixture.iterations.")
    weights, means = torch.from_numpy(fitted.weights_), torch.from_numpy(fitted.means_)
    covariances = torch.from_numpy(fitted.covariances_)
    covariances = (covariances + covariances.mT) / 2 - least * torch.eye(d, dtype=torch.float64)
    regular = [shrunk(c, round(w * n)) for c, w in zip(covariances, weights.tolist(), strict=True)]
    variances, axes = torch.linalg.eigh(torch.stack(regular))
    of_data = Mixture(weights / weights.sum(), means, variances.clamp(min=0), axes)
    return MixtureNoise.of(of_data.diffused(sde, T), of_data)


def spline_flow(d: int, transforms: int, width: int) -> nn.Module:
    """The identity, as a flow with fresh weights from PyTorch's own generator. Raises BadNoise without zuko."""
    try:
        from zuko.flows import NSF
    except ModuleNotFoundError as error:
        raise BadNoise(lacks("A p_noise of kind flow", error, "flow")) from error
    flow = NSF(d, transforms=transforms, hidden_features=(width, width))
    for transform in flow.transform.transforms:
        # splines of equal bins and unit slopes
        for parameter in (transform.phi if d == 1 else transform.hyper[-1]).parameters():
            nn.init.zeros_(parameter)
    return flow


def fit_flow(
    draw: Draw,
    gaussian: FullGaussian,
    n: int,
    *,
    transforms: int,
    width: int,
    steps: int,
    batch: int,
    learning_rate: float,
    held_out: float,
    seed: str,
) -> FlowNoise:
    """Maximum likelihood by Adam on fresh x_T of a batch of the `n` training points at each step.

    The flow begins as the identity. Now and then the held-out points are looked at; the weights that describe them best
    are kept. Raises BadNoise for fewer than 20 points, and where the loss is no longer finite.
    """
    check_enough(n, 20, "A flow, which holds some of them out,", "Leave this p_noise out.")
    order = torch.randperm(n, generator=stream(seed, "p_noise flow, held out"))
    apart = min(max(1, round(held_out * n)), n - 1)
    known = order[apart:]
    # several x_T of each held-out point: their noise is not to decide
    y_apart = torch.cat([
        gaussian.whitened(draw(order[:apart], stream(seed, "p_noise flow, held out", k))) for k in range(4)
    ]).float()  # fmt: skip
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(stream(seed, "p_noise flow, initial weights").initial_seed())
        flow = spline_flow(len(gaussian.mean), transforms, width)
    optimiser = torch.optim.Adam(flow.parameters(), lr=learning_rate)
    schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimiser, steps)
    start = best = _described(flow, y_apart)
    best_step, weights = 0, {name: tensor.clone() for name, tensor in flow.state_dict().items()}
    for step in range(1, steps + 1):
        generator = stream(seed, "p_noise flow, step", step)
        points = known[torch.randint(len(known), (batch,), generator=generator)]
        loss = -flow().log_prob(gaussian.whitened(draw(points, generator)).float()).mean()
        if not loss.isfinite():
            raise BadNoise(f"The flow diverged: its loss at step {step} is {loss:g}. Lower noise.flow.learning_rate.")
        optimiser.zero_grad()
        loss.backward()
        optimiser.step()
        schedule.step()
        if step % max(1, steps // LOOKS) == 0 and (value := _described(flow, y_apart)) > best:
            best, best_step = value, step
            weights = {name: tensor.clone() for name, tensor in flow.state_dict().items()}
    log.info(
        "Flow: best at step %d of %d, %.4f nats above the Gaussian on held-out points", best_step, steps, best - start
    )
    if not best_step:
        log.warning(
            "WARNING: no step described held-out points better than the Gaussian: the flow is no more than that."
        )
    flow.load_state_dict(weights)
    return FlowNoise(gaussian, frozen(flow))


@torch.no_grad()
def _described(flow: nn.Module, y: Float[Tensor, "n d"]) -> float:
    """The mean log density of points in nats."""
    return torch.cat([flow().log_prob(part) for part in y.split(1024)]).mean().item()


def frozen(flow: nn.Module) -> nn.Module:
    """In float64, for evaluation alone."""
    return flow.double().requires_grad_(False).eval()


def tensors(noise: FullGaussian | MixtureNoise | FlowNoise) -> dict[str, Tensor]:
    """All that makes a fitted p_noise, by name."""
    if isinstance(noise, FullGaussian):
        return {"mean": noise.mean, "factor": noise.factor}
    if isinstance(noise, MixtureNoise):
        # a diffusion leaves the weights and the axes alone
        data = {f"data.{name}": getattr(noise.data, name) for name in DIFFUSED} if noise.data else {}
        return _parts(noise.mixture) | data
    flow = {f"flow.{name}": tensor for name, tensor in noise.flow.state_dict().items()}
    return tensors(noise.gaussian) | flow


def restored(name: str, parts: dict[str, Tensor], form: dict[str, Any]) -> FullGaussian | MixtureNoise | FlowNoise:
    """What `tensors` took apart; `form` has the sizes of a flow. Raises BadNoise without zuko."""
    if name == "mixture":
        own = {key: part for key, part in parts.items() if not key.startswith("data.")}
        known = "data.means" in parts
        data = Mixture(**own | {name: parts[f"data.{name}"] for name in DIFFUSED}) if known else None
        return MixtureNoise.of(Mixture(**own), data)
    gaussian = FullGaussian(parts["mean"], parts["factor"])
    if name == "full":
        return gaussian
    flow = frozen(spline_flow(len(gaussian.mean), form["transforms"], form["width"]))
    flow.load_state_dict({key.removeprefix("flow."): value for key, value in parts.items() if key.startswith("flow.")})
    return FlowNoise(gaussian, flow)


class Bracket(NamedTuple):
    """Two numbers with the truth between them, in nats per image; `lower` is NaN where memory did not allow it."""

    lower: float
    upper: float


def kl_upper(mean: Float[Tensor, " d"], variance: Float[Tensor, " d"], sde: SDE, T: float, noise: Gaussian) -> float:
    """E KL[q(x_T|x_0) || p_noise], the upper end of the bracket, from the mean and variance of each coordinate."""
    t = torch.tensor(T, dtype=torch.float64)
    alpha, spread, centre = sde.alpha(t).to(mean.device), noise.variance.flatten(), noise.mean.flatten()
    excess = sde.variance(t).to(mean.device) / spread - 1
    moved = (alpha**2 * variance + (alpha * mean - centre) ** 2) / spread
    return 0.5 * (excess - excess.log1p() + moved).sum().item()


def kl_bracket(
    mean: Float[Tensor, " d"], covariance: Float[Tensor, "d d"], sde: SDE, T: float, noise: Noise
) -> Bracket | None:
    """KL[p(x, T) || p_noise] of Eq. 11, which no score enters, between closed forms in the data's moments m and C.

    Upper: E KL[q(x_T|x_0) || p_noise], exact for a single data point. Lower: the KL of N(alpha m, alpha² C + sigma² I),
    the Gaussian with the moments of x_T, exact for Gaussian data, and 0 where p_noise is that Gaussian. The truth is
    the upper one less the information that x_T has about x_0, which is at most that of a Gaussian channel,
    ½ log det(I + (alpha/sigma)² C): their difference. None for a p_noise whose logarithm is not quadratic.
    """
    if not isinstance(noise, Gaussian | FullGaussian):
        return None
    t = torch.tensor(T, dtype=torch.float64)
    alpha, variance = sde.alpha(t).to(mean.device), sde.variance(t).to(mean.device)
    ratio = (alpha**2 / variance) * covariance
    ratio.diagonal().add_(1)
    gap = torch.linalg.cholesky(ratio).diagonal().log().sum().item()
    if isinstance(noise, Gaussian):
        upper = kl_upper(mean, covariance.diagonal(), sde, T, noise)
        return Bracket(max(upper - gap, 0.0), upper)
    lower = 0.5 * (_excess(noise, variance * ratio) + noise.whitened(alpha * mean).square().sum().item())
    return Bracket(max(lower, 0.0), lower + gap)


def _excess(noise: FullGaussian, covariance: Float[Tensor, "d d"]) -> float:
    """tr(S⁻¹ C) - d - log det(S⁻¹ C), S being the covariance of p_noise: each eigenvalue's e - 1 - log e."""
    half = torch.linalg.solve_triangular(noise.factor, covariance, upper=False)
    excess = torch.linalg.eigvalsh(torch.linalg.solve_triangular(noise.factor, half.mT, upper=False)) - 1
    return (excess - excess.log1p()).sum().item()
