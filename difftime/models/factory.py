"""Any model behind a function of your own: `package.module:factory`.

The factory has no arguments and returns denoiser(x, sigma) -> x0_hat, the mean of the data given x = x_0 + sigma z, for
images x [n, C, H, W] in float32 and sigma [n]. This is the convention of EDM and k-diffusion (Karras et al., 2022).
This reader runs your code, as `import` does. No other reader does.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from importlib import import_module

import torch
from torch import Tensor, nn

from difftime.diffusion.sde import VE, expand
from difftime.images.pixels import CENTRED, Scale
from difftime.models.foreign import BadModel, Clock, ForeignModel, NoiseScore, square

Denoiser = Callable[[Tensor, Tensor], Tensor]


def read_factory(
    address: str,
    shape: tuple[int, int, int] | None = None,
    sigma_min: float = 0.002,
    sigma_max: float = 80.0,
    scale: Scale = CENTRED,
) -> ForeignModel:
    """The denoiser that the factory returns, for data of this shape (channels, height, width).

    The model is VE between `sigma_min` and `sigma_max`, EDM's by default, on the clock t = 0 … 1 with equal steps of
    log sigma. Raises BadModel if the factory is not found, or if what it returns is no denoiser.
    """
    if shape is None or not 0 < sigma_min < sigma_max:
        raise BadModel(
            f"{address}: give the shape of the data (channels, height, width), and 0 < sigma_min < sigma_max; found "
            f"{shape}, {sigma_min:g} and {sigma_max:g}."
        )
    shape = square(*shape, address)
    denoiser = _call(address)
    sde = VE(sigma_min, sigma_max, from_zero=False)

    def noise(x: Tensor, t: Tensor) -> Tensor:
        sigma = sde.sigma(t)
        return (x - denoiser(x.float(), sigma.float()).to(x.dtype)) / expand(sigma.to(x.dtype), x)

    model = ForeignModel(
        name=address, score=NoiseScore(noise, sde, shape), sde=sde, epsilon=0.0, T=1.0, shape=shape, scale=scale,
        clock=Clock(sde, None), net=denoiser if isinstance(denoiser, nn.Module) else None,
        digest=_digest(f"{address} {shape} {sde}", denoiser),
    )  # fmt: skip
    _try(address, denoiser, shape)
    return model


def _digest(said: str, denoiser: Denoiser) -> str:
    """The digest of the address, and of the weights of a torch module. Changes of the code do not change it."""
    digest = hashlib.sha256(said.encode())
    if isinstance(denoiser, nn.Module):
        for name, weight in sorted(denoiser.state_dict().items()):
            digest.update(f"{name} {weight.dtype} {tuple(weight.shape)}".encode())
            digest.update(weight.detach().cpu().reshape(-1).view(torch.uint8).numpy().tobytes())
    return digest.hexdigest()


def _call(address: str) -> Denoiser:
    module, _, name = address.partition(":")
    try:
        factory = getattr(import_module(module), name)
    except (ImportError, AttributeError, ValueError) as error:
        raise BadModel(
            f"{address} was not found ({error}). It must be package.module:factory, and importable: is its folder on "
            "PYTHONPATH?"
        ) from error
    denoiser = factory()
    if not callable(denoiser):
        raise BadModel(f"{address} must return a function denoiser(x, sigma), but returned {type(denoiser).__name__}.")
    return denoiser.eval().requires_grad_(False) if isinstance(denoiser, nn.Module) else denoiser


def _try(address: str, denoiser: Denoiser, shape: tuple[int, int, int]) -> None:
    """Raises BadModel if the denoiser does not return images of the shape of its input."""
    x = torch.zeros(2, *shape)
    try:
        with torch.no_grad():
            out = denoiser(x, torch.ones(2))
    except Exception as error:  # the user's own code
        raise BadModel(f"{address}: denoiser(x, sigma) failed for images of shape {shape}: {error}") from error
    if not isinstance(out, Tensor) or out.shape != x.shape:
        found = tuple(out.shape) if isinstance(out, Tensor) else type(out).__name__
        raise BadModel(f"{address}: denoiser(x, sigma) must return the shape of x, {tuple(x.shape)}, not {found}.")
