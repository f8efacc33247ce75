"""Checkpoints of score_sde_pytorch (Song et al., 2021c): NCSN++ for VP, sub-VP and VE, and DDPM++, in continuous time.

A checkpoint holds no settings. The layers of the network follow from the shapes of its weights. The size of the images
does not follow from them, and has to be given. The averaged weights (EMA) are a list without names, in the order of the
parameters. The file is read with `weights_only=True`, so that a pickle with code is refused.
"""

from __future__ import annotations

import hashlib
import pickle
import re
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import torch
from torch import Tensor, nn

from difftime.diffusion.sde import SDE, VE, VP, SubVP
from difftime.images.pixels import CENTRED, UNIT, Scale
from difftime.models.foreign import BadModel, Clock, ForeignModel, NoiseScore
from difftime.training.nets.ncsnpp import NCSNpp, ResidualBlock

EPSILON = 1e-5
"""Where its authors' likelihood begins."""

MEMBER = re.compile(r"(?:module\.)?all_modules\.(\d+)\.(.+)")


def read_score_sde(
    path: Path, size: int | None = None, sde: Literal["vp", "sub-vp", "ve"] | None = None, scale: Scale | None = None
) -> ForeignModel:
    """The model in a .pth file, for images of `size` × `size` pixels.

    Without `sde`, a network with a Fourier embedding is taken for VE, and any other network for VP. The network of
    sub-VP cannot be told from that of VP. VP and sub-VP have beta from 0.1 to 20, as in all published settings.
    sigma_min and sigma_max of VE are in the file. Raises BadModel.
    """
    if size is None:
        raise BadModel(f"{path}: a checkpoint does not say the size of its images. Give it as `size`.")
    state, weights = _averaged(path)
    layers = _layers(path, weights)
    form = Form.of(path, layers, size)
    sde = sde or ("ve" if form.fourier else "vp")
    if form.fourier != (sde == "ve"):
        raise BadModel(f"{path} has {'a' if form.fourier else 'no'} Fourier embedding, so it is no network for {sde}.")
    network = _filled(path, form, layers)
    diffusion = _diffusion(path, sde, state)
    digest = hashlib.sha256(f"{sde} {size}".encode())
    for weight in weights.values():
        digest.update(weight.contiguous().numpy().tobytes())
    return ForeignModel(
        name=path.stem, score=NoiseScore(_noise(network, diffusion), diffusion, form.shape), sde=diffusion,
        epsilon=EPSILON, T=1.0, shape=form.shape, scale=scale or (UNIT if form.fourier else CENTRED),
        clock=Clock(diffusion, None), net=network, digest=digest.hexdigest(),
    )  # fmt: skip


def _noise(network: nn.Module, sde: SDE) -> Callable[[Tensor, Tensor], Tensor]:
    """z_hat: the output itself, whose score is -net/sigma, or minus the output for VE, whose score is net/sigma."""
    if isinstance(sde, VE):
        # the network for VE takes data in [0, 1] to [-1, 1] itself
        return lambda x, t: -network(2 * x.float() - 1, sde.sigma(t).log().float()).to(x.dtype)
    return lambda x, t: network(x.float(), t.float()).to(x.dtype)


def _diffusion(path: Path, sde: str, state: dict[str, Tensor]) -> SDE:
    if sde == "vp":
        return VP()
    if sde == "sub-vp":
        return SubVP()
    sigmas = next((tensor for name, tensor in state.items() if name.endswith("sigmas")), None)
    if sigmas is None:
        raise BadModel(f"{path} does not hold the noise levels of VE (sigmas).")
    return VE(sigmas.min().item(), sigmas.max().item(), from_zero=False)


def _averaged(path: Path) -> tuple[dict[str, Tensor], dict[str, Tensor]]:
    """The state of the network, and its averaged weights by name, without its buffers and fixed frequencies."""
    try:
        content = torch.load(path, weights_only=True, map_location="cpu")
    except pickle.UnpicklingError as error:
        raise BadModel(
            f"{path} is a pickle that holds code, which would be executed when it is read; it is refused. Save the "
            f"weights alone, as tensors. ({str(error).splitlines()[0]})"
        ) from error
    except Exception as error:  # what is no checkpoint can fail in any way
        raise BadModel(f"{path} cannot be read as a checkpoint of PyTorch: {error}") from error
    try:
        state, averages = content["model"], list(content["ema"]["shadow_params"])
        if not all(isinstance(tensor, Tensor) for tensor in (*state.values(), *averages)):
            raise TypeError("it holds other things than tensors")
    except (KeyError, TypeError, AttributeError) as error:
        raise BadModel(
            f"{path} is no checkpoint of score_sde_pytorch: it must hold `model` and `ema` with `shadow_params` "
            f"({error})."
        ) from error
    names = [name for name in state if not name.endswith("sigmas") and state[name].is_floating_point()]
    trained = [name for name in names if not _is_frequencies(name)]
    if [state[name].shape for name in trained] != [tensor.shape for tensor in averages]:
        raise BadModel(f"{path}: the averaged weights (ema) are not those of its model: their shapes differ.")
    weights = dict(zip(trained, averages, strict=True))
    return state, {name: weights.get(name, state[name]) for name in names}


def _is_frequencies(name: str) -> bool:
    """Whether this is the Fourier embedding's, which is not trained; weights of attention are called W, too."""
    return re.fullmatch(r"(?:module\.)?all_modules\.0\.W", name) is not None


@dataclass(frozen=True)
class Layer:
    """A member of the network's list: its weights by name, in order."""

    weights: dict[str, Tensor]

    @property
    def kind(self) -> str:
        shapes = {name: tensor.ndim for name, tensor in self.weights.items()}
        if shapes == {"W": 1}:
            return "frequencies"
        if "NIN_0.W" in shapes and "Conv_0.weight" not in shapes:
            return "attention"
        if "GroupNorm_0.weight" in shapes:
            return "block" if "Dense_0.weight" in shapes and "NIN_0.W" not in shapes else "unknown"
        if "Conv2d_0.weight" in shapes:
            return "pyramid"
        return {1: "norm", 2: "linear", 4: "conv"}.get(shapes.get("weight", 0), "unknown")

    @property
    def resamples(self) -> bool:
        """A block has a 1×1 convolution if its widths differ, or if it resamples."""
        c_out, c_in = self.weights["Conv_0.weight"].shape[:2]
        return c_in == c_out and "Conv_2.weight" in self.weights


def _layers(path: Path, weights: dict[str, Tensor]) -> list[Layer]:
    members: dict[int, dict[str, Tensor]] = {}
    for name, weight in weights.items():
        match = MEMBER.fullmatch(name)
        if match is None:
            raise BadModel(f"{path} is no NCSN++ of score_sde_pytorch: it has a weight called {name}.")
        members.setdefault(int(match[1]), {})[match[2]] = weight
    return [Layer(members[k]) for k in sorted(members)]


@dataclass(frozen=True)
class Form:
    """What an NCSN++ is made of."""

    channels: int
    size: int
    width: int
    multipliers: list[int]
    blocks: int
    attention: list[int]
    fourier: bool
    pyramid: bool

    @property
    def shape(self) -> tuple[int, int, int]:
        return self.channels, self.size, self.size

    @classmethod
    def of(cls, path: Path, layers: list[Layer], size: int) -> Form:
        """From the layers. Raises BadModel if these are not the layers of a network of that form."""
        kinds = [layer.kind for layer in layers]
        try:
            first = kinds.index("conv")
            width, channels = layers[first].weights["weight"].shape[:2]
            blocks = [layer for layer in layers if layer.kind == "block"]
            levels = 1 + sum(block.resamples for block in blocks) // 2
            # a level has `per_level` blocks down and one more up; two in the middle; two that resample between levels
            per_level = (len(blocks) - 2 - 2 * (levels - 1) - levels) // (2 * levels)
            widths, attention, down, seen = [], [], 0, 0
            for layer, after in zip(layers[first + 1 :], [*kinds[first + 2 :], "end"], strict=True):
                if layer.kind != "block" or down == levels:
                    continue
                if layer.resamples:
                    continue
                seen += 1
                if seen == 1:
                    widths.append(layer.weights["Conv_0.weight"].shape[0] // width)
                    attention += [size >> down] if after == "attention" else []
                if seen == per_level:
                    down, seen = down + 1, 0
        except (ValueError, KeyError, IndexError, ZeroDivisionError) as error:
            raise BadModel(f"{path} is no NCSN++ that is known here: {error}.") from error
        return cls(channels, size, width, widths, per_level, attention, kinds[0] == "frequencies", "pyramid" in kinds)

    def network(self) -> NCSNpp:
        """A network of this form. FIR leaves no trace in the weights; where there is a pyramid, it is used."""
        network = NCSNpp(
            self.channels, self.size, width=self.width, multipliers=self.multipliers, blocks=self.blocks,
            attention=self.attention, dropout=0.0, generator=torch.Generator(), fir=self.pyramid, pyramid=self.pyramid,
            embedding="fourier" if self.fourier else "positional",
        )  # fmt: skip
        return network.eval().requires_grad_(False)


def _ours(network: NCSNpp) -> Iterator[nn.Module]:
    """The layers of our network in the order of theirs; a block's attention is a layer of its own."""

    def parts(block: nn.Module) -> Iterator[nn.Module]:
        yield block
        if not isinstance(attention := block.get_submodule("attention"), nn.Identity):
            yield attention

    yield from (network.embed.first, network.embed.second, network.first)
    for k, level in enumerate(network.encoder):
        for block in level.children():
            yield from parts(block)
        if k < len(network.downs):
            yield network.downs[k]
            if network.pyramid:
                yield network.pyramid[k].get_submodule("1")
    for block in network.middle:
        yield from parts(block)
    for k, level in enumerate(network.decoder):
        if k > 0:
            yield network.ups[k - 1]
        for block in level.children():
            yield from parts(block)
    yield from (network.norm, network.last)


def _kind_of(layer: nn.Module) -> str:
    if isinstance(layer, ResidualBlock):
        return "block"
    if isinstance(layer, nn.Conv2d):
        return "pyramid" if layer.stride == (2, 2) else "conv"
    return {nn.Linear: "linear", nn.GroupNorm: "norm"}.get(type(layer), "attention")


def _filled(path: Path, form: Form, layers: list[Layer]) -> NCSNpp:
    """Our network of this form with their weights. Raises BadModel if these are of another form."""
    try:
        network = form.network()
    except ValueError as error:
        raise BadModel(f"{path} is no network for {form.size} × {form.size} pixels: {error}") from error
    if form.fourier:
        network.embed.get_buffer("frequency").copy_(layers[0].weights["W"])
        layers = layers[1:]
    ours = list(_ours(network))
    if [_kind_of(layer) for layer in ours] != [layer.kind for layer in layers]:
        raise BadModel(
            f"{path} is no NCSN++ that is known here. Known are those with BigGAN's residual blocks, with or without "
            "an input pyramid, and without a pyramid of the output."
        )
    for own, their in zip(ours, layers, strict=True):
        names = [name for name, _ in own.named_parameters() if not name.startswith("attention.")]
        # NIN multiplies from the other side
        weights = [weight.T if name.endswith(".W") else weight for name, weight in their.weights.items()]
        shapes = [own.get_parameter(name).shape for name in names]
        if shapes != [weight.shape for weight in weights]:
            raise BadModel(
                f"{path}: a layer has weights of the shapes {[tuple(weight.shape) for weight in weights]}, where "
                f"{[tuple(shape) for shape in shapes]} are known."
            )
        for name, weight in zip(names, weights, strict=True):
            own.get_parameter(name).copy_(weight)
    return network
