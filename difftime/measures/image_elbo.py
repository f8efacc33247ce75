"""The ELBO image by image (section 2 of the paper), and what it says about the images themselves.

    E log q_SDE(x_epsilon) >= prior - I + R             Eq. 4, over the x_epsilon that come from one x_0
              log q(x_0)   >= prior - I + R + residual

Nothing but x_0 and the score enters, so every term has a value per image. R and, for a Gaussian p_noise, the prior term
E log p_noise(x_T) have closed forms; for another p_noise a few draws of x_T suffice (`Noise.prior`). I is a Monte Carlo
estimate, uniform in lambda = log(sigma²/alpha²), which makes the weight of Eq. 6 constant:
I = ½ ∫ E||z_hat - z||² d lambda, with z_hat = -sigma s, the score's estimate of z.

The residual leads from x_epsilon back to x_0, by any density p(x_0|x_epsilon), the decoder. By Jensen's inequality

    log q(x_0) >= E[log q_SDE(x_epsilon) + log p(x_0|x_epsilon) - log q(x_epsilon|x_0)]   over q(x_epsilon|x_0).

A decoder states what it loses, over a normal density around the true x_0:

    residual = ½ D + D log alpha - E loss,     loss = -log p(x_0|x_epsilon) - ½ D log(2 pi sigma²/alpha²).

`gaussian` is the decoder of any data: p(x_0|x_epsilon) = N(m, (sigma/alpha)² I), with Tweedie's mean
m = (x_epsilon + sigma² s)/alpha = x_0 + (sigma/alpha)(z - z_hat), loses ½ ||z_hat - z||². For Gaussian data and their
exact score that falls short of the truth by ½ sum_i [log(1 + r_i) - r_i/(1 + r_i)], where r_i = sigma²/(alpha² v_i)
compares the noise at epsilon with the data's variance along a principal axis. Of dequantised pixels that are known from
their surroundings it loses far more, as they are uniform inside a grey level: `measures.pixel_decoder`.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import NamedTuple

import torch
from jaxtyping import Float, Int
from torch import Tensor

from difftime.diffusion.score import Score
from difftime.diffusion.sde import SDE, Noise, expand
from difftime.support.streams import stream

Loss = Callable[[Tensor, Tensor, Tensor, Tensor, Tensor], Tensor]
"""A number per point from x_0, z, z_hat, alpha and sigma, of which the last two multiply x_0 and z."""


def squared_error(x0: Tensor, z: Tensor, z_hat: Tensor, alpha: Tensor, sigma: Tensor) -> Tensor:
    """||z_hat - z||², the integrand of I."""
    return (z_hat - z).square().sum(-1)


def gaussian(x0: Tensor, z: Tensor, z_hat: Tensor, alpha: Tensor, sigma: Tensor) -> Tensor:
    """The loss of N(m, (sigma/alpha)² I), m being Tweedie's mean."""
    return 0.5 * squared_error(x0, z, z_hat, alpha, sigma)


GOLDEN = (5**0.5 - 1) / 2
"""Its multiples, modulo 1, cover [0, 1] evenly however many one takes."""


@dataclass(frozen=True)
class ImageElbo:
    """The terms of the ELBO in nats per image: the prior term for each p_noise, I and the residual for each model."""

    prior: Float[Tensor, "noises n"]
    I: Float[Tensor, "seeds n"]  # noqa: E741
    R: float
    residual: Float[Tensor, "seeds n"]
    errors: Float[Tensor, "seeds evaluations n"]
    """||z_hat - z||² at each of the image's `path_times`, of which I is the mean times half the range of lambda."""

    @property
    def elbo_eps(self) -> Float[Tensor, "noises seeds n"]:
        """Bounds the mean of log q_SDE(x_epsilon) over the x_epsilon of an image."""
        return self.prior[:, None] - self.I + self.R

    @property
    def elbo_x0(self) -> Float[Tensor, "noises seeds n"]:
        """Bounds the log density of the dequantised image x_0: what `pixels.bits_per_dimension` takes."""
        return self.elbo_eps + self.residual


@torch.no_grad()
def image_elbo(
    score: Score,
    sde: SDE,
    noises: Sequence[Noise],
    x0: Float[Tensor, "n d"],
    T: float,
    epsilon: float,
    *,
    seeds: Sequence[str],
    indices: Int[Tensor, " n"],
    pairs: int,
    end_pairs: int,
    batch: int,
    decoder: Loss = gaussian,
    device: torch.device | None = None,
) -> ImageElbo:
    """The ELBO of dequantised images `x0` under each of the models in `score`, one per name in `seeds`.

    I is estimated from `pairs` pairs of evaluations of the network per image, the residual and the prior term from
    `end_pairs`, where that has no closed form. The
    network, on `device` (default: that of x0), sees `batch` images at once. The random numbers of an image depend on
    the model's name and on its place in the data set, `indices`: not on the batch, or on where a run was cut.
    """
    n, d = x0.shape
    ends = torch.tensor([epsilon, T], dtype=torch.float64)
    (start, stop), (alpha, alpha_T) = sde.noise_level(ends).tolist(), sde.alpha(ends).tolist()
    times = path_times(sde, T, epsilon, seeds, indices, pairs)
    at_epsilon = ends[0].expand(len(seeds), n, 2 * end_pairs)
    prior, path, end = [], [], []
    for part in torch.arange(n).split(batch):
        x, index = x0[part.to(x0.device)].cpu().double(), indices.cpu()[part]
        z = end_noise(d, seeds[0], index, end_pairs)
        prior.append(torch.stack([noise.to("cpu").prior(alpha_T * x, sde.variance(ends[1]), z) for noise in noises]))
        x = x.to(device or x0.device).expand(len(seeds), -1, -1)
        path.append(losses(score, sde, x, times[:, part], streams(seeds, "elbo path", index), squared_error))
        end.append(losses(score, sde, x, at_epsilon[:, part], streams(seeds, "elbo residual", index), decoder))
    errors = torch.cat(path, -1)
    return ImageElbo(
        prior=torch.cat(prior, 1),
        I=0.5 * (stop - start) * _mean(errors),
        R=d * sde.R(T, epsilon),
        residual=d / 2 + d * math.log(alpha) - _mean(torch.cat(end, -1)),
        errors=errors,
    )


def _mean(errors: Float[Tensor, "seeds evaluations n"]) -> Float[Tensor, "seeds n"]:
    """Over an image's evaluations, added one by one, as the order of a sum is in its last digit."""
    return sum(errors.unbind(1), start=torch.zeros(())) / errors.shape[1]


def path_times(
    sde: SDE, T: float, epsilon: float, seeds: Sequence[str], indices: Int[Tensor, " n"], pairs: int
) -> Float[Tensor, "seeds n evaluations"]:
    """Times uniform in lambda: `pairs` equal cells, and in each two times at mirrored places, the same in every cell.

    Their mean is exact for an integrand that is linear within a cell. On a regular grid with one random shift the fall
    of E||z_hat - z||², from about D at epsilon to about 0 at T, would leave most of the error. The places shift from
    image to image, so that all images together leave no gaps.
    """
    start, stop = sde.noise_level(torch.tensor([epsilon, T], dtype=torch.float64)).tolist()
    first = torch.stack([torch.rand(1, dtype=torch.float64, generator=stream(seed, "elbo times")) for seed in seeds])
    shift = (first + GOLDEN * indices.cpu()) % 1
    place = torch.arange(pairs)[:, None] + torch.stack([shift, 1 - shift], -1).unsqueeze(-2)
    return sde.time(start + (stop - start) * place.flatten(-2) / pairs)


def streams(seeds: Sequence[str], name: str, indices: Int[Tensor, " batch"]) -> list[list[torch.Generator]]:
    """A random stream for every model and image."""
    return [[stream(seed, name, index) for index in indices.tolist()] for seed in seeds]


def losses(
    score: Score,
    sde: SDE,
    x0: Float[Tensor, "seeds batch d"],
    times: Float[Tensor, "seeds batch evaluations"],
    generators: list[list[torch.Generator]],
    loss: Loss,
) -> Float[Tensor, "seeds evaluations batch"]:
    """The loss at each of an image's times, on the CPU. The two times of a pair see opposite noise."""
    found = []
    for pair in times.to(x0.device).split(2, -1):
        drawn = normal(x0.shape[2], generators)
        for t, z in zip(pair.unbind(-1), (drawn.to(x0.device), opposite(drawn).to(x0.device)), strict=True):
            alpha, sigma = expand(sde.alpha(t), z), expand(sde.sigma(t), z)
            z_hat = -sigma * score(sde.perturb(x0, t, z), t)
            found.append(loss(x0, z, z_hat, alpha, sigma))
    return torch.stack(found, 1).cpu()


def end_noise(d: int, seed: str, indices: Int[Tensor, " n"], pairs: int) -> Float[Tensor, "draws n d"]:
    """Antithetic z of x_T, the same for all models of a cell, as the prior term is."""
    generators = streams([seed], "elbo prior", indices)
    drawn = [normal(d, generators)[0] for _ in range(pairs)]
    return torch.stack([z for one in drawn for z in (one, opposite(one))])


def normal(d: int, generators: list[list[torch.Generator]]) -> Float[Tensor, "seeds batch d"]:
    """z ~ N(0, I), a draw from each generator."""
    draws = [[torch.randn(d, dtype=torch.float64, generator=generator) for generator in row] for row in generators]
    return torch.stack([torch.stack(row) for row in draws])


def opposite(z: Float[Tensor, "*batch d"]) -> Float[Tensor, "*batch d"]:
    """A z' ~ N(0, I) in the direction of -z, whose length is at the opposite quantile of its distribution.

    -z itself has the length of z, and where a score cannot tell the noise, ||z||² is nearly all of the error: such
    pairs would be worse than independent draws. Here ||z||² + ||z'||² is 2 D but for a little skewness.
    """
    from scipy.special import gammainc, gammainccinv  # 0.1 s, which a mixture has no need of

    square, half = z.square().sum(-1, keepdim=True), z.shape[-1] / 2
    mirrored = torch.from_numpy(2 * gammainccinv(half, gammainc(half, square.numpy() / 2)))
    return -(mirrored / square).sqrt() * z


class Estimate(NamedTuple):
    """A mean over images and its standard error."""

    mean: Tensor
    se: Tensor


def over_images(values: Float[Tensor, "*groups n"], image: Int[Tensor, " n"] | None = None) -> Estimate:
    """The mean over the last axis, and its standard error if images are independent; NaN for a single one.

    `image` says whose each value is, where an image has several, as after two dequantisations. They may depend on each
    other in any way.
    """
    n = values.shape[-1]
    label = torch.arange(n) if image is None else image.unique(return_inverse=True)[1]
    images = len(label.unique())
    mean = values.mean(-1)
    totals = values.new_zeros(*values.shape[:-1], images).index_add(-1, label, values - mean[..., None])
    return Estimate(mean, (totals.square().sum(-1) * images / (images - 1)).sqrt() / n)
