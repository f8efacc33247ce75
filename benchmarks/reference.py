"""Images as the reference implementation of Song et al. (2021c) trains and evaluates them: the baseline of `images.py`.

float32 and contiguous images, one object per task: `torch.optim.Adam`, a gradient norm and an average taken parameter
by parameter; SciPy's RK45 on the host, float64 there and float32 in the network, which is run once for the drift and
once more for the divergence. VP only, and the network predicts the noise.
"""

from __future__ import annotations

import math

import numpy as np
import torch
from scipy.integrate import solve_ivp
from torch import Tensor, nn

BETA_MIN, BETA_MAX = 0.1, 20.0


def _marginal(t: Tensor) -> tuple[Tensor, Tensor]:
    """alpha_t and sigma_t, one a row, to multiply images."""
    B = BETA_MIN * t + 0.5 * (BETA_MAX - BETA_MIN) * t**2
    return torch.exp(-0.5 * B)[:, None, None, None], (-torch.expm1(-B)).sqrt()[:, None, None, None]


def train(
    net: nn.Module, images: Tensor, *, T: float, epsilon: float, steps: int, batch: int, learning_rate: float,
    warmup: int, clip: float, ema: float,
) -> list[Tensor]:  # fmt: skip
    """Predict the noise of `images`, uint8 [n, channels, height, width]; return the average of the weights."""
    net.to(memory_format=torch.contiguous_format).train()
    parameters = list(net.parameters())
    average = [parameter.detach().clone() for parameter in parameters]
    adam = torch.optim.Adam(parameters, lr=learning_rate)
    for step in range(steps):
        k = images[torch.randint(len(images), (batch,))]
        x0 = (k.float() + torch.rand(k.shape)) / 128 - 1
        t = epsilon + (T - epsilon) * torch.rand(batch)
        alpha, sigma = _marginal(t)
        z = torch.randn_like(x0)
        loss = (net(alpha * x0 + sigma * z, t) - z).square().mean()
        adam.zero_grad()
        loss.backward()
        for group in adam.param_groups:
            group["lr"] = learning_rate * min(1.0, (step + 1) / max(1, warmup))
        torch.nn.utils.clip_grad_norm_(parameters, clip)
        adam.step()
        decay = min(ema, (2 + step) / (11 + step))
        with torch.no_grad():
            for mean, parameter in zip(average, parameters, strict=True):
                mean.sub_((1 - decay) * (mean - parameter))
    return average


@torch.no_grad()
def log_likelihood(
    net: nn.Module, x: Tensor, probe: Tensor, *, T: float, epsilon: float, rtol: float, atol: float
) -> tuple[Tensor, int]:
    """log q(x_epsilon) in nats of images in float32 under the probability-flow ODE, and the NFE; p_noise is N(0, I)."""
    net.to(memory_format=torch.contiguous_format).eval()
    n, d = len(x), x[0].numel()

    def drift(x: Tensor, t: Tensor) -> Tensor:
        beta = (BETA_MIN + (BETA_MAX - BETA_MIN) * t)[:, None, None, None]
        score = -net(x, t) / _marginal(t)[1]
        return -0.5 * beta * x - 0.5 * beta * score

    def divergence(x: Tensor, t: Tensor) -> Tensor:
        with torch.enable_grad():
            x.requires_grad_(True)
            (product,) = torch.autograd.grad((drift(x, t) * probe).sum(), x)
        x.requires_grad_(False)
        return (product * probe).flatten(1).sum(1)

    def right_hand_side(t: float, y: np.ndarray) -> np.ndarray:
        x_t = torch.from_numpy(y[: n * d].reshape(x.shape)).float()
        times = torch.full((n,), t)
        dx = drift(x_t, times).numpy().reshape(-1)
        return np.concatenate([dx, divergence(x_t, times).numpy()])

    y0 = np.concatenate([x.numpy().reshape(-1), np.zeros(n)])
    solved = solve_ivp(right_hand_side, (epsilon, T), y0, method="RK45", rtol=rtol, atol=atol)
    end = torch.from_numpy(solved.y[:, -1]).float()
    x_T = end[: n * d].view(n, d)
    return end[n * d :] - 0.5 * (x_T.square() + math.log(2 * math.pi)).sum(1), solved.nfev
