"""Schedules that are tables: the noise levels at which a model was trained, one per index, and the SDE through them.

A model that steps from index to index knows alpha and sigma only there. Any variance preserving SDE that passes
through the table's lambda_i = log(sigma_i²/alpha_i²) has the model's noise levels, and by `docs/theory-lambda.md` it
does not matter to the ELBO which one. Here beta(t) is continuous and piecewise linear, so that B(t) and its inverse
have closed forms, as for VP, which is the case of a single piece.
"""

from __future__ import annotations

import hashlib
import math
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property

import torch
from jaxtyping import Float
from torch import Tensor

from difftime.diffusion.sde import VariancePreserving, where_integral_is


@dataclass(frozen=True, repr=False)
class Tabulated(VariancePreserving):
    """alpha_t² + sigma_t² = 1, with given noise levels at the times t_i = (i + 1)/N of the indices i = 0 … N - 1.

    t = 0 is the data. Past t = 1, where the table ends, beta(t) stays what it is there.
    `integrals` are B(t_i) = -log alpha_i², which must rise from above 0.
    """

    integrals: tuple[float, ...]

    def __post_init__(self) -> None:
        rises = all(low < high for low, high in zip((0.0, *self.integrals), self.integrals, strict=False))
        if not self.integrals or not rises or not math.isfinite(self.integrals[-1]):
            raise ValueError(
                "A table of noise levels must rise from index to index and stay finite. Found none, a fall, or a last "
                "level without any signal (alpha = 0); leave such a level out."
            )

    @classmethod
    def from_betas(cls, betas: Sequence[float] | Float[Tensor, " n"]) -> Tabulated:
        """alpha_i² = (1 - beta_0) … (1 - beta_i) (Ho et al., 2020)."""
        terms = torch.as_tensor(betas, dtype=torch.float64)
        return cls(tuple((-torch.log1p(-terms)).cumsum(0).tolist()))

    @classmethod
    def from_levels(cls, levels: Sequence[float] | Float[Tensor, " n"]) -> Tabulated:
        """From lambda_i, which rise."""
        terms = torch.as_tensor(levels, dtype=torch.float64)
        return cls(tuple(torch.nn.functional.softplus(terms, threshold=50.0).tolist()))

    @classmethod
    def linear(cls, n: int = 1000, start: float = 1e-4, stop: float = 0.02) -> Tabulated:
        """beta_i from `start` to `stop` in equal steps (Ho et al., 2020)."""
        return cls.from_betas(torch.linspace(start, stop, n, dtype=torch.float64))

    @classmethod
    def scaled_linear(cls, n: int = 1000, start: float = 0.00085, stop: float = 0.012) -> Tabulated:
        """The square roots of beta_i in equal steps (Rombach et al., 2022)."""
        return cls.from_betas(torch.linspace(start**0.5, stop**0.5, n, dtype=torch.float64) ** 2)

    @classmethod
    def sigmoid(cls, n: int = 1000, start: float = 1e-4, stop: float = 0.02) -> Tabulated:
        """beta_i along a sigmoid from -6 to 6 (Xu et al., 2022)."""
        step = torch.linspace(-6, 6, n, dtype=torch.float64).sigmoid()
        return cls.from_betas(start + (stop - start) * step)

    @classmethod
    def cosine(cls, n: int = 1000, offset: float = 0.008, largest: float = 0.999) -> Tabulated:
        """alpha² as cos²(½ pi (t + offset)/(1 + offset)), no beta_i above `largest` (Nichol & Dhariwal, 2021)."""
        t = torch.arange(n + 1, dtype=torch.float64) / n
        alpha2 = torch.cos(0.5 * math.pi * (t + offset) / (1 + offset)) ** 2
        return cls.from_betas((1 - alpha2[1:] / alpha2[:-1]).clamp(max=largest))

    @classmethod
    def edm(cls, n: int = 18, sigma_min: float = 0.002, sigma_max: float = 80.0, rho: float = 7.0) -> Tabulated:
        """sigma_i/alpha_i with equal steps of its `rho`-th root (Karras et al., 2022), x scaled to alpha² + sigma² = 1.

        Raises ValueError unless 0 < sigma_min < sigma_max.
        """
        if not 0 < sigma_min < sigma_max:
            raise ValueError(f"EDM's sigma must rise from above 0: found {sigma_min:g} to {sigma_max:g}.")
        ratios = torch.linspace(sigma_min ** (1 / rho), sigma_max ** (1 / rho), n, dtype=torch.float64) ** rho
        return cls.from_levels(2 * ratios.log())

    def __repr__(self) -> str:
        digest = hashlib.sha256(torch.tensor(self.integrals, dtype=torch.float64).numpy().tobytes()).hexdigest()
        return f"Tabulated({len(self.integrals)} levels, {digest[:16]})"

    def index(self, t: Tensor) -> Tensor:
        """The index whose noise level is that of time t: fractional between indices, below 0 before the first."""
        return t * len(self.integrals) - 1

    def time_of_index(self, index: Tensor) -> Tensor:
        """The inverse of `index`."""
        return (index + 1) / len(self.integrals)

    @cached_property
    def _pieces(self) -> tuple[Tensor, Tensor, Tensor]:
        """beta, its slope and B at the start of each piece, [2N + 1]; the last piece has no end.

        A step of the table is two pieces, at whose ends beta is half the sum of the mean beta of the two steps that
        meet there, so that beta is a straight line where the table's is. B determines beta at the middle of the step.
        It is positive because the ends stay between ½ and 3/2 of the mean.
        """
        B = torch.tensor((0.0, *self.integrals), dtype=torch.float64)
        mean = B.diff() * len(self.integrals)
        slope = mean.diff() if len(mean) > 1 else torch.zeros_like(mean)
        before, after = torch.cat([mean[:1], mean]), torch.cat([mean, mean[-1:]])
        ends = before + 0.5 * torch.cat([-slope[:1], mean.diff(), slope[-1:]])
        ends = torch.minimum(ends.clamp(min=0.5 * torch.minimum(before, after)), 1.5 * torch.minimum(before, after))
        middle = 2 * mean - 0.5 * (ends[1:] + ends[:-1])
        beta = torch.cat([torch.stack([ends[:-1], middle], 1).flatten(), ends[-1:]])
        half = 0.5 / len(self.integrals)
        at_middle = B[:-1] + 0.5 * half * (ends[:-1] + middle)
        B = torch.cat([torch.stack([B[:-1], at_middle], 1).flatten(), B[-1:]])
        return beta, torch.cat([beta.diff() / half, beta.new_zeros(1)]), B

    def _at(self, t: Tensor) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        """beta, its slope and B at the start of the piece that t lies in, and how far into the piece it lies."""
        twice = 2 * len(self.integrals)
        k = (t.detach() * twice).long().clamp(0, twice)
        beta, slope, B = (part.to(t)[k] for part in self._pieces)
        return beta, slope, B, t - k.to(t.dtype) / twice

    def beta(self, t: Tensor) -> Tensor:
        beta, slope, _, u = self._at(t)
        return beta + slope * u

    def beta_integral(self, t: Tensor) -> Tensor:
        beta, slope, B, u = self._at(t)
        return B + (beta + 0.5 * slope * u) * u

    def time_of_integral(self, B: Tensor) -> Tensor:
        beta, slope, start = (part.to(B) for part in self._pieces)
        k = (torch.searchsorted(start, B.detach().contiguous(), right=True) - 1).clamp(min=0)
        return k.to(B.dtype) / (2 * len(self.integrals)) + where_integral_is(B - start[k], beta[k], slope[k])
