"""The user's own network as a score."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from itertools import chain
from typing import get_args

import torch
from torch import Tensor, nn

from difftime.diffusion.mixture import Mixture
from difftime.diffusion.score import ExactScore, Predicts, score_from
from difftime.diffusion.sde import SDE


@dataclass(frozen=True)
class Score:
    r"""s(x, t), the estimate of the gradient of log p(x, t), from a trained network.

    With :math:`x_t = \alpha_t x_0 + \sigma_t z` a network may predict the noise :math:`z`, :math:`x_0`, the score
    :math:`-z/\sigma_t`, or :math:`v = \alpha_t z - \sigma_t x_0`. It is called as `net(x, t)` with `x [n, *shape]` and
    `t [n]`, in the type of its weights and on their device. It returns a tensor of the shape of x. A function without
    weights is called with float64.
    During a measurement the network is in evaluation mode, and its convolutions compute without TF32.

    Args:
        net: a torch module or any function `(x, t) -> prediction`.
        sde: the forward diffusion that the network was trained with.
        predicts: `"noise"`, `"v"`, `"x0"` or `"score"`.
        T: the largest time that the network was trained for. The network is never called at a larger time.
        epsilon: the smallest time, at which every integral over time begins. The noise at epsilon must be positive, so
            epsilon = 0 is allowed only for an SDE whose sigma is positive at 0.

    Raises:
        TypeError: if the network cannot be called, or if its weights are in half precision, which does not resolve
            sigma_t near epsilon.
        ValueError: for an unknown prediction, for times out of order, or if there is no noise at epsilon.

    Example:
        >>> import difftime as dt, torch
        >>> score = dt.Score(lambda x, t: torch.zeros_like(x), dt.VP(), predicts="x0")
        >>> score(torch.ones(2, 3), 1.0)[0, 0].item()    # -x / sigma_t²
        -1.000043...
    """

    net: Callable[[Tensor, Tensor], Tensor]
    sde: SDE
    predicts: Predicts = "noise"
    T: float = 1.0
    epsilon: float = 1e-5

    def __post_init__(self) -> None:
        if not callable(self.net) or isinstance(self.net, type):
            what = f"the class {self.net.__name__}" if isinstance(self.net, type) else f"a {type(self.net).__name__}"
            raise TypeError(f"The network is called as net(x, t), but {what} cannot be called so.")
        if not isinstance(self.sde, SDE):
            raise TypeError(f"The SDE is one such as dt.VP(), but is {self.sde!r}.")
        if self.predicts not in get_args(Predicts):
            raise ValueError(f"predicts is one of {', '.join(get_args(Predicts))}, but is {self.predicts!r}.")
        if not 0 <= self.epsilon < self.T < math.inf:
            raise ValueError(f"Times need 0 <= epsilon < T, but epsilon = {self.epsilon} and T = {self.T}.")
        if not self.sde.variance(torch.tensor(self.epsilon, dtype=torch.float64)) > 0:
            raise ValueError(f"There is no noise at epsilon = {self.epsilon}, and the ELBO is infinite. Use 1e-5.")
        if self.dtype not in (torch.float32, torch.float64):
            raise TypeError(
                f"The network's weights are {self.dtype}. Near epsilon sigma_t is smaller than what that type keeps of "
                "x, so the numbers would be wrong: use net.float()."
            )

    @classmethod
    def exact(cls, p: Mixture, sde: SDE, *, T: float = 1.0, epsilon: float = 1e-5) -> Score:
        """The exact score of a Gaussian mixture, with which every estimate can be checked."""
        return cls(ExactScore(p, sde), sde, "score", T, epsilon)

    @property
    def _weights(self) -> Tensor | None:
        if not isinstance(self.net, nn.Module):
            return None
        return next((w for w in chain(self.net.parameters(), self.net.buffers()) if w.is_floating_point()), None)

    @property
    def dtype(self) -> torch.dtype:
        """Of the network's weights; float64 if it has none."""
        return torch.float64 if self._weights is None else self._weights.dtype

    @property
    def device(self) -> torch.device:
        """Of the network's weights; the CPU if it has none."""
        return torch.device("cpu") if self._weights is None else self._weights.device

    def __call__(self, x: Tensor, t: Tensor | float) -> Tensor:
        """s(x, t) of `x [n, *shape]` at the time t, a number or `[n]`, in the type of x and on its device."""
        t = torch.as_tensor(t, dtype=torch.float64, device=x.device).expand(len(x))
        # copies: a network may compute in place, and x is needed afterwards
        output = self.net(x.to(self.device, self.dtype, copy=True), t.to(self.device, self.dtype, copy=True))
        if not isinstance(output, Tensor) or output.shape != x.shape:
            found = list(output.shape) if isinstance(output, Tensor) else type(output).__name__
            raise ValueError(f"The network returns the shape of x, {list(x.shape)}, but returned {found}.")
        return score_from(output.to(x), x, t.to(x.dtype), self.sde, self.predicts)

    def time(self, T: float | None) -> float:
        """T, or the largest time of the score for None. Raises ValueError for a T outside the score's times."""
        if T is None:
            return self.T
        if not self.epsilon < T <= self.T:
            raise ValueError(
                f"T = {T} is not between epsilon = {self.epsilon:g} and {self.T:g}, the times this score is known for. "
                "If the network was trained for longer, say so: dt.Score(..., T=...)."
            )
        return float(T)

    @contextmanager
    def measuring(self) -> Iterator[None]:
        """Evaluation mode without TF32; the modes of before are restored afterwards."""
        modules = list(self.net.modules()) if isinstance(self.net, nn.Module) else []
        modes, tf32 = [module.training for module in modules], torch.backends.cudnn.allow_tf32
        try:
            torch.backends.cudnn.allow_tf32 = False
            for module in modules:
                module.training = False
            yield
        finally:
            torch.backends.cudnn.allow_tf32 = tf32
            for module, mode in zip(modules, modes, strict=True):
                module.training = mode


@dataclass(frozen=True)
class Flat:
    """A score in the form of the modules below: x `[1, n, d]`, t a scalar, `[1]` or `[1, n]`."""

    score: Score
    shape: tuple[int, ...]

    def __call__(self, x: Tensor, t: Tensor) -> Tensor:
        times = t.reshape(-1).expand(x.shape[1])
        return self.score(x[0].unflatten(-1, self.shape), times).reshape(x.shape)
