"""NCSN++ in the form of score_sde_pytorch, written from its description: a forward pass that draws its own weights.

Layers are numbered and named as in its checkpoints, in the order in which they are used, which is that of its
parameters. Resampling is by convolutions, attention by einsum: nothing here is shared with `NCSNpp`.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, field

import numpy as np
import torch
from torch import Tensor
from torch.nn.functional import conv2d, group_norm, interpolate, pad, silu


@dataclass
class Theirs:
    channels: int
    size: int
    nf: int
    multipliers: tuple[int, ...]
    blocks: int
    attention: tuple[int, ...]
    fir: bool
    pyramid: bool
    fourier: bool
    state: dict[str, Tensor] = field(default_factory=dict)
    rng: np.random.Generator = field(default_factory=lambda: np.random.default_rng(0))

    def draw(self, name: str, *shape: int, scale: float | None = None) -> Tensor:
        scale = scale or 1 / math.sqrt(max(1, math.prod(shape[1:])))
        key = f"module.all_modules.{self.layer}.{name}"
        if key not in self.state:
            self.state[key] = torch.from_numpy(scale * self.rng.standard_normal(shape)).float()
        return self.state[key]

    def conv(self, x: Tensor, name: str, c_out: int, kernel: int = 3, **options: object) -> Tensor:
        weight = self.draw(f"{name}weight", c_out, x.shape[1], kernel, kernel)
        return conv2d(x, weight, self.draw(f"{name}bias", c_out, scale=0.1), **options)

    def linear(self, x: Tensor, name: str, c_out: int) -> Tensor:
        return x @ self.draw(f"{name}weight", c_out, x.shape[1]).T + self.draw(f"{name}bias", c_out, scale=0.1)

    def norm(self, x: Tensor, name: str) -> Tensor:
        c = x.shape[1]
        weight, bias = (self.draw(f"{name}{part}", c, scale=1.0) for part in ("weight", "bias"))
        return group_norm(x, min(c // 4, 32), weight, bias, eps=1e-6)

    def filtered(self, x: Tensor, padding: tuple[int, int], gain: float = 1.0, stride: int = 1) -> Tensor:
        taps = torch.tensor([1.0, 3.0, 3.0, 1.0])
        kernel = (gain * torch.outer(taps, taps) / 64).expand(x.shape[1], 1, 4, 4)
        return conv2d(pad(x, (*padding, *padding)), kernel, groups=x.shape[1], stride=stride)

    def down(self, x: Tensor) -> Tensor:
        return self.filtered(x, (1, 1), stride=2) if self.fir else x.unfold(2, 2, 2).unfold(3, 2, 2).mean((-1, -2))

    def up(self, x: Tensor) -> Tensor:
        if not self.fir:
            return interpolate(x, scale_factor=2, mode="nearest")
        zeros = x.new_zeros(*x.shape[:2], 2 * x.shape[2], 2 * x.shape[3])
        zeros[..., ::2, ::2] = x
        return self.filtered(zeros, (2, 1), gain=4.0)

    def block(self, x: Tensor, time: Tensor, c_out: int, resample: str = "") -> Tensor:
        h = silu(self.norm(x, "GroupNorm_0."))
        if resample:
            h, x = getattr(self, resample)(h), getattr(self, resample)(x)
        h = self.conv(h, "Conv_0.", c_out, padding=1)
        h = h + self.linear(silu(time), "Dense_0.", c_out)[:, :, None, None]
        h = self.conv(silu(self.norm(h, "GroupNorm_1.")), "Conv_1.", c_out, padding=1)
        if resample or x.shape[1] != c_out:
            x = self.conv(x, "Conv_2.", c_out, kernel=1)
        self.layer += 1
        return (x + h) / math.sqrt(2)

    def attend(self, x: Tensor) -> Tensor:
        c, h = x.shape[1], self.norm(x, "GroupNorm_0.")

        def nin(h: Tensor, name: str) -> Tensor:
            mixed = torch.einsum("bihw,io->bohw", h, self.draw(f"{name}.W", c, c))
            return mixed + self.draw(f"{name}.b", c, scale=0.1)[:, None, None]

        q, k, v = (nin(h, f"NIN_{i}").flatten(2) for i in range(3))
        weights = (torch.einsum("bci,bcj->bij", q, k) / math.sqrt(c)).softmax(-1)
        out = nin(torch.einsum("bij,bcj->bci", weights, v).unflatten(2, x.shape[2:]), "NIN_3")
        self.layer += 1
        return (x + out) / math.sqrt(2)

    def __call__(self, x: Tensor, condition: Tensor) -> Tensor:
        """`condition` is sigma for the Fourier embedding and 999 t for the other; data in [0, 1] and [-1, 1]."""
        self.layer = 0
        if self.fourier:
            angle = 2 * math.pi * condition.log()[:, None] * self.draw("W", self.nf, scale=16.0)
            time, self.layer = torch.cat([angle.sin(), angle.cos()], 1), 1
            x = 2 * x - 1
        else:
            half = self.nf // 2
            angle = condition[:, None] * torch.exp(-math.log(10_000) / (half - 1) * torch.arange(half))
            time = torch.cat([angle.sin(), angle.cos()], 1)
        time = self.linear(time, "", 4 * self.nf)
        self.layer += 1
        time = self.linear(silu(time), "", 4 * self.nf)
        self.layer += 1
        copy, skips = x, [self.conv(x, "", self.nf, padding=1)]
        self.layer += 1
        for k, multiplier in enumerate(self.multipliers):
            for _ in range(self.blocks):
                h = self.block(skips[-1], time, multiplier * self.nf)
                skips.append(self.attend(h) if h.shape[-1] in self.attention else h)
            if k + 1 < len(self.multipliers):
                h = self.block(skips[-1], time, skips[-1].shape[1], "down")
                if self.pyramid:
                    copy = self.conv(self.filtered(copy, (2, 2)), "Conv2d_0.", h.shape[1], stride=2)
                    h = copy = (copy + h) / math.sqrt(2)
                    self.layer += 1
                skips.append(h)
        c = skips[-1].shape[1]
        h = self.block(self.attend(self.block(skips[-1], time, c)), time, c)
        for k, multiplier in reversed(list(enumerate(self.multipliers))):
            for _ in range(self.blocks + 1):
                h = self.block(torch.cat([h, skips.pop()], 1), time, multiplier * self.nf)
            h = self.attend(h) if h.shape[-1] in self.attention else h
            h = self.block(h, time, h.shape[1], "up") if k > 0 else h
        h, self.layer = silu(self.norm(h, "")), self.layer + 1
        h = self.conv(h, "", self.channels, padding=1)
        return h / condition.reshape(-1, 1, 1, 1) if self.fourier else h

    def checkpoint(self, sigmas: Tensor) -> dict[str, object]:
        """What its training writes after a forward pass; the averages are the weights, the weights are others."""
        trained = [name for name in self.state if not name.endswith("all_modules.0.W")]
        moved = {name: tensor + (name in trained) for name, tensor in self.state.items()}
        averages = {"decay": 0.9999, "num_updates": 3, "shadow_params": [self.state[name] for name in trained]}
        return {"optimizer": {}, "model": {"module.sigmas": sigmas} | moved, "ema": averages, "step": 3}
