"""NCSN++ for images (Song et al., 2021c), as they use it for VP with continuous time.

A U-Net of BigGAN-style residual blocks. Each coarser level also receives a filtered copy of the image (the input
pyramid). Resampling filters along both axes with [1, 3, 3, 1] / 8 ("FIR"), so that nothing aliases.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from functools import partial
from typing import Literal

import torch
from jaxtyping import Float
from torch import Tensor, nn
from torch.nn.functional import scaled_dot_product_attention, silu
from torch.nn.utils import skip_init

TAPS = (1 / 8, 3 / 8, 3 / 8, 1 / 8)
"""The FIR kernel along one axis."""

BOX = (1 / 2, 1 / 2)
"""The kernel that averages two pixels, and repeats one on the way up: resampling without FIR, as in DDPM++."""

FEW = 256
"""Positions up to which plain products are the faster attention in bfloat16 on a CPU."""

NEAR_ZERO = 1e-10
"""The scale of the weights at the end of each residual branch and of the network: both start as nothing."""


def time_features(t: Float[Tensor, " batch"], width: int) -> Float[Tensor, "batch width"]:
    """[sin, cos] of 999 t f_i, with frequencies f_i that fall geometrically from 1 to 1/10000; t may be above 1."""
    half = width // 2
    frequency = torch.exp(torch.arange(half, dtype=t.dtype, device=t.device) * (-math.log(10_000) / (half - 1)))
    angle = 999 * t[:, None] * frequency
    return torch.cat([angle.sin(), angle.cos()], 1)


def _merge(x: Tensor, h: Tensor) -> Tensor:
    """(x + h) / √2, which keeps the variance of independent x and h."""
    return (x + h) * math.sqrt(0.5)


def _draw(layer: nn.Conv2d | nn.Linear, generator: torch.Generator, scale: float) -> None:
    """Variance scaling: weights uniform with variance scale / mean(fan-in, fan-out), biases 0."""
    fan = sum(layer.weight.shape[:2]) / 2 * math.prod(layer.weight.shape[2:])
    bound = math.sqrt(3 * scale / fan)
    nn.init.uniform_(layer.weight, -bound, bound, generator)
    if layer.bias is not None:
        nn.init.zeros_(layer.bias)


def _linear(c_in: int, c_out: int, generator: torch.Generator, scale: float = 1.0) -> nn.Linear:
    layer = skip_init(nn.Linear, c_in, c_out)
    _draw(layer, generator, scale)
    return layer


def _conv(
    c_in: int, c_out: int, generator: torch.Generator, *, kernel: int = 3, stride: int = 1, scale: float = 1.0
) -> nn.Conv2d:
    """A convolution that keeps the size at stride 1; at stride 2 it does not pad."""
    padding = kernel // 2 if stride == 1 else 0
    layer = skip_init(nn.Conv2d, c_in, c_out, kernel, stride=stride, padding=padding)
    _draw(layer, generator, scale)
    return layer


def _norm(channels: int) -> nn.GroupNorm:
    groups = min(channels // 4, 32)
    if groups == 0 or channels % groups:
        raise ValueError(
            f"NCSN++ has a layer of {channels} channels, which GroupNorm cannot divide into min({channels} // 4, 32) = "
            f"{groups} equal groups. Change `width` or `multipliers`: a width that is a multiple of 32 always fits."
        )
    return nn.GroupNorm(groups, channels, eps=1e-6)


def _normalise(norm: nn.GroupNorm, x: Float[Tensor, "batch c n n"]) -> Float[Tensor, "batch c n n"]:
    """norm(x), by a detour where that is faster."""
    if x.is_cpu and not x.is_contiguous():
        # in bfloat16 four times as fast as PyTorch's kernel for channels_last on the CPU, copies included
        return norm(x.contiguous()).contiguous(memory_format=torch.channels_last)
    return norm(x)


class FIR(nn.Module):
    """M x Mᵀ for every channel of x: filtering and resampling, with zeros beyond the border.

    M is banded and holds the taps. As dense matrix products this is faster than depthwise convolutions, which PyTorch
    computes slowly on the CPU in bfloat16; M's entries are exact in that type.
    """

    matrix: Tensor

    def __init__(self, matrix: Float[Tensor, "size_out size_in"]) -> None:
        super().__init__()
        self.register_buffer("matrix", matrix, persistent=False)

    @staticmethod
    def _matrix(size: int, stride: int, padding: int, taps: tuple[float, ...] = TAPS) -> Float[Tensor, "size_out size"]:
        rows = (size + 2 * padding - len(taps)) // stride + 1
        tap = torch.arange(size) + padding - stride * torch.arange(rows)[:, None]
        return torch.stack([(tap == k) * weight for k, weight in enumerate(taps)]).sum(0)

    @classmethod
    def down(cls, size: int, taps: tuple[float, ...] = TAPS) -> FIR:
        """From `size` to half of it."""
        return cls(cls._matrix(size, stride=2, padding=len(taps) // 2 - 1, taps=taps))

    @classmethod
    def up(cls, size: int, taps: tuple[float, ...] = TAPS) -> FIR:
        """From `size` to twice that: the transpose of `down`, times 4."""
        return cls(2 * cls.down(2 * size, taps).matrix.T.contiguous())

    @classmethod
    def blur(cls, size: int) -> FIR:
        """From `size` to `size` + 1, what a 3×3 convolution of stride 2 without padding takes to half of `size`."""
        return cls(cls._matrix(size, stride=1, padding=2))

    def forward(self, x: Float[Tensor, "batch channels n n"]) -> Float[Tensor, "batch channels m m"]:
        if x.is_contiguous():
            return self.matrix @ (x @ self.matrix.T)
        b, c, n, _ = x.shape
        x = self.matrix @ x.permute(0, 2, 3, 1).reshape(b, n, n * c)
        x = self.matrix @ x.reshape(-1, n, c)
        return x.unflatten(0, (b, -1)).permute(0, 3, 1, 2)


class TimeEmbedding(nn.Module):
    """What the blocks know of t: a perceptron on `time_features`, after a last SiLU."""

    def __init__(self, width: int, generator: torch.Generator) -> None:
        super().__init__()
        self.width = width
        self.first = _linear(width, 4 * width, generator)
        self.second = _linear(4 * width, 4 * width, generator)

    def forward(self, t: Float[Tensor, " batch"]) -> Float[Tensor, "batch c_time"]:
        return silu(self.second(silu(self.first(time_features(t, self.width)))))


class FourierEmbedding(nn.Module):
    """The same for VE, on [sin, cos] of 2 pi w_i t with random frequencies w_i ~ N(0, 16²); t is log sigma."""

    frequency: Tensor

    def __init__(self, width: int, generator: torch.Generator) -> None:
        super().__init__()
        self.register_buffer("frequency", 16 * torch.randn(width, generator=generator))
        self.first = _linear(2 * width, 4 * width, generator)
        self.second = _linear(4 * width, 4 * width, generator)

    def forward(self, t: Float[Tensor, " batch"]) -> Float[Tensor, "batch c_time"]:
        angle = 2 * math.pi * t[:, None] * self.frequency
        return silu(self.second(silu(self.first(torch.cat([angle.sin(), angle.cos()], 1)))))


def attend(
    query: Float[Tensor, "batch n c"], key: Float[Tensor, "batch n c"], value: Float[Tensor, "batch n c"]
) -> Float[Tensor, "batch n c"]:
    """softmax(query keyᵀ / √c) value, of one head."""
    if query.is_cpu and query.dtype == torch.bfloat16 and torch.is_grad_enabled() and query.shape[1] <= FEW:
        # the gradient of PyTorch's fused kernel has fixed costs there that few positions do not repay
        return torch.softmax(query @ key.mT * query.shape[-1] ** -0.5, -1) @ value
    return scaled_dot_product_attention(query[:, None], key[:, None], value[:, None])[:, 0]


class Attention(nn.Module):
    """(x + h) / √2, where h is one head of self-attention over the positions of x."""

    def __init__(self, channels: int, generator: torch.Generator) -> None:
        super().__init__()
        self.norm = _norm(channels)
        self.query, self.key, self.value = (_linear(channels, channels, generator, 0.1) for _ in range(3))
        self.out = _linear(channels, channels, generator, NEAR_ZERO)

    def forward(self, x: Float[Tensor, "batch c n n"]) -> Float[Tensor, "batch c n n"]:
        h = _normalise(self.norm, x).flatten(2).transpose(1, 2)
        h = self.out(attend(self.query(h), self.key(h), self.value(h)))
        return _merge(x, h.transpose(1, 2).unflatten(2, x.shape[2:]))


class ResidualBlock(nn.Module):
    """(shortcut(x) + h) / √2, where h is two convolutions of x, told the time in between; then attention, if wanted.

    `resample` changes the size of both branches first.
    """

    def __init__(
        self,
        c_in: int,
        c_out: int,
        *,
        c_time: int,
        dropout: float,
        generator: torch.Generator,
        resample: FIR | None = None,
        attention: bool = False,
    ) -> None:
        super().__init__()
        self.norm_in = _norm(c_in)
        self.resample = nn.Identity() if resample is None else resample
        self.conv_in = _conv(c_in, c_out, generator)
        self.time = _linear(c_time, c_out, generator)
        self.norm_out = _norm(c_out)
        self.dropout = nn.Dropout(dropout)
        self.conv_out = _conv(c_out, c_out, generator, scale=NEAR_ZERO)
        plain = c_in == c_out and resample is None
        self.shortcut = nn.Identity() if plain else _conv(c_in, c_out, generator, kernel=1)
        self.attention = Attention(c_out, generator) if attention else nn.Identity()

    def forward(
        self, x: Float[Tensor, "batch c_in n n"], time: Float[Tensor, "batch c_time"]
    ) -> Float[Tensor, "batch c_out m m"]:
        h = self.conv_in(self.resample(silu(_normalise(self.norm_in, x))))
        h = silu(_normalise(self.norm_out, h + self.time(time)[:, :, None, None]))
        return self.attention(_merge(self.shortcut(self.resample(x)), self.conv_out(self.dropout(h))))


class NCSNpp(nn.Module):
    """One model: an estimate of the noise in images x at times t. Weights are drawn from `generator` alone.

    Level i works on size / 2^i pixels a side with width · multipliers[i] channels and has `blocks` residual blocks on
    its way down and one more on its way up. Attention follows the blocks at the resolutions in `attention`, once a
    level on the way up; the bottleneck has it too, unless `bottleneck_attention` is False. Dropout draws from PyTorch's
    global generator.

    The first convolution also sees sin and cos of 2^k pi x for every k in `fourier` (Kingma et al., 2021): at little
    noise the network has to tell differences far below a grey level. The published network has none.

    `fir=False, pyramid=False` is DDPM++. `embedding="fourier"` is NCSN++ for VE, which sees log sigma instead of t.
    """

    def __init__(
        self,
        channels: int,
        size: int,
        *,
        width: int,
        multipliers: Sequence[int],
        blocks: int,
        attention: Sequence[int],
        dropout: float,
        fourier: Sequence[int] = (),
        generator: torch.Generator,
        bottleneck_attention: bool = True,
        fir: bool = True,
        pyramid: bool = True,
        embedding: Literal["positional", "fourier"] = "positional",
    ) -> None:
        super().__init__()
        _check(size, width, multipliers, blocks)
        conv = partial(_conv, generator=generator)
        block = partial(ResidualBlock, c_time=4 * width, dropout=dropout, generator=generator)
        self.sizes = sizes = [size >> i for i in range(len(multipliers))]
        widths = [width * multiplier for multiplier in multipliers]

        taps = TAPS if fir else BOX
        self.embed = (FourierEmbedding if embedding == "fourier" else TimeEmbedding)(width, generator)
        self.frequencies = [2**k * math.pi for k in fourier]
        self.first = conv((1 + 2 * len(fourier)) * channels, width)
        self.encoder, self.downs, self.pyramid = nn.ModuleList(), nn.ModuleList(), nn.ModuleList()
        c, c_pyramid, c_skips = width, channels, [width]
        for n, c_level in zip(sizes, widths, strict=True):
            if n < size:
                self.downs.append(block(c, c, resample=FIR.down(2 * n, taps)))
                if pyramid:
                    self.pyramid.append(nn.Sequential(FIR.blur(2 * n), conv(c_pyramid, c, stride=2)))
                    c_pyramid = c
                c_skips.append(c)
            c_ins = [c] + (blocks - 1) * [c_level]
            self.encoder.append(nn.ModuleList(block(c_in, c_level, attention=n in attention) for c_in in c_ins))
            c = c_level
            c_skips += blocks * [c]

        self.middle = nn.ModuleList([block(c, c, attention=bottleneck_attention), block(c, c)])
        self.decoder, self.ups = nn.ModuleList(), nn.ModuleList()
        for n, c_level in zip(reversed(sizes), reversed(widths), strict=True):
            if n > sizes[-1]:
                self.ups.append(block(c, c, resample=FIR.up(n // 2, taps)))
            level = nn.ModuleList()
            for last in blocks * [False] + [True]:
                level.append(block(c + c_skips.pop(), c_level, attention=last and n in attention))
                c = c_level
            self.decoder.append(level)
        self.norm = _norm(c)
        self.last = conv(c, channels, scale=NEAR_ZERO)

    def forward(
        self, x: Float[Tensor, "batch channels size size"], t: Float[Tensor, " batch"]
    ) -> Float[Tensor, "batch channels size size"]:
        time = self.embed(t)
        h, pyramid = self.first(self._features(x)), x
        skips = [h]
        for i, level in enumerate(self.encoder):
            if i > 0:
                h = self.downs[i - 1](h, time)
                if self.pyramid:
                    h = pyramid = _merge(self.pyramid[i - 1](pyramid), h)
                skips.append(h)
            for block in level.children():
                h = block(h, time)
                skips.append(h)
        for block in self.middle:
            h = block(h, time)
        for i, level in enumerate(self.decoder):
            if i > 0:
                h = self.ups[i - 1](h, time)
            for block in level.children():
                h = block(torch.cat([h, skips.pop()], 1), time)
        return self.last(silu(_normalise(self.norm, h)))

    def _features(self, x: Float[Tensor, "batch channels n n"]) -> Float[Tensor, "batch c n n"]:
        """x and its Fourier features, channel by channel."""
        waves = [wave(frequency * x) for frequency in self.frequencies for wave in (torch.sin, torch.cos)]
        return torch.cat([x, *waves], 1) if waves else x


def _check(size: int, width: int, multipliers: Sequence[int], blocks: int) -> None:
    """Refuse sizes that no network of this shape has."""
    if not multipliers or min(multipliers) < 1 or blocks < 1:
        raise ValueError(
            f"NCSN++ needs at least one level and one block a level; found multipliers {list(multipliers)} and "
            f"{blocks} blocks. Set `multipliers` to whole numbers of 1 or more, `blocks` to 1 or more."
        )
    halvings = len(multipliers) - 1
    if size % 2**halvings:
        raise ValueError(
            f"NCSN++ with {len(multipliers)} levels halves the images {halvings} times, but their size {size} is not "
            f"divisible by {2**halvings}. Give fewer `multipliers`, or pad the images."
        )
    if width % 2:
        raise ValueError(
            f"NCSN++'s time embedding is half sines, half cosines, so its width cannot be {width}: make `width` even."
        )
