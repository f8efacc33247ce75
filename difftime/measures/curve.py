"""The running ELBO: what one model says of every diffusion time up to its own.

Only where the integrals of Eqs. 5 and 6 end, and the prior term, depend on the diffusion time. So a model trained up to
T has, in one pass and for every t <= T, the ELBO that it would have were t the diffusion time:

    ELBO(t) = prior(t) - I(t) + R(t),     prior(t) = E log p_noise(x_t),  p_noise being that of t.     Eq. 4

It is not the ELBO of a model that was trained up to t, which need not know the later times. At t = T it is the ELBO of
`elbo` and of `image_elbo`, from the same evaluations of the score.

Known densities. The integrands of K and G are known at the nodes of a quadrature on [epsilon, T]; the running integral
is that of the polynomial through them. As in `elbo`, the ELBO is by Eq. 11, whose terms have the smaller errors.

Images. `image_elbo` has two evaluations per image in each of equal cells of lambda, at places u and 1 - u, and u covers
[0, 1] evenly over the images. Between the cells' boundaries, for the part of a cell below lambda: the straight line
through all images' evaluations there is integrated exactly, and what an image's evaluations differ from it by counts
where it was found. That is unbiased, as u is uniform; at the boundaries the line drops out, as u and 1 - u have their
mean at the cell's middle.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from jaxtyping import Float, Int
from torch import Tensor

from difftime.diffusion.mixture import Mixture, gauss_legendre
from difftime.diffusion.p_noise import FullGaussian, MixtureNoise, diffused_moments
from difftime.diffusion.score import Score
from difftime.diffusion.sde import SDE, Gaussian, Noise, matched_noise, standard_noise
from difftime.measures.elbo import Integrands, entropy_term, noise_terms
from difftime.measures.image_elbo import ImageElbo, Loss, end_noise, gaussian, image_elbo, path_times

NoisesAt = Callable[[float], Sequence[Noise]]
"""The p_noises of a diffusion time."""


@dataclass(frozen=True)
class DensityCurve:
    """The running ELBO against a known density, in nats, with standard errors (0: by quadrature)."""

    t: Float[Tensor, " times"]
    prior: Float[Tensor, "noises times"]
    kl: Float[Tensor, "noises times"]
    kl_se: Float[Tensor, "noises times"]
    K: Float[Tensor, " times"]
    gap: Float[Tensor, "seeds times"]
    gap_se: Float[Tensor, "seeds times"]
    I_se: Float[Tensor, "seeds times"]
    R: Float[Tensor, " times"]
    entropy: float
    entropy_se: float

    @property
    def I(self) -> Float[Tensor, "seeds times"]:  # noqa: E743
        return self.K + self.gap

    @property
    def elbo(self) -> Float[Tensor, "noises seeds times"]:
        return -self.entropy - self.kl[:, None] - self.gap

    @property
    def elbo_se(self) -> Float[Tensor, "noises seeds times"]:
        return (self.entropy_se**2 + self.kl_se[:, None] ** 2 + self.gap_se**2).sqrt()


@dataclass(frozen=True)
class ImageCurve:
    """The running ELBO image by image, in nats."""

    t: Float[Tensor, " times"]
    prior: Float[Tensor, "noises times n"]
    I: Float[Tensor, "seeds times n"]  # noqa: E741
    R: Float[Tensor, " times"]
    residual: Float[Tensor, "seeds n"]

    @property
    def elbo_eps(self) -> Float[Tensor, "noises seeds times n"]:
        """As of `ImageElbo`, were t the diffusion time."""
        return self.prior[:, None] - self.I + self.R[:, None]

    @property
    def elbo_x0(self) -> Float[Tensor, "noises seeds times n"]:
        """As of `ImageElbo`, were t the diffusion time."""
        return self.elbo_eps + self.residual[:, None]


def noises_at(
    names: Sequence[str],
    sde: SDE,
    mean: Float[Tensor, " d"],
    variance: Float[Tensor, " d"],
    covariance: Float[Tensor, "d d"] | None = None,
    mixture: MixtureNoise | None = None,
) -> NoisesAt:
    """The p_noises of these names for every diffusion time, from what is known of the data.

    full takes the covariance, and mixture what was fitted for one T. A flow is fitted to x_T, and of no other time.
    Raises ValueError for a name of which too little is known.
    """
    known: dict[str, Callable[[float], Noise]] = {
        "standard": lambda t: standard_noise(sde, t, (len(mean),)),
        "matched": lambda t: matched_noise(sde, t, mean, variance),
    }
    if covariance is not None:
        known["full"] = lambda t: FullGaussian.of(*diffused_moments(sde, t, mean, covariance))
    if mixture is not None:
        known["mixture"] = lambda t: mixture.at(sde, t)
    if unknown := [name for name in names if name not in known]:
        raise ValueError(f"The p_noise {', '.join(unknown)} is known at one T alone. Ask for {', '.join(known)}.")
    return lambda t: [known[name](t) for name in names]


def density_curve(
    found: Integrands, p: Mixture, sde: SDE, noises: NoisesAt, times: Float[Tensor, " times"], T: float, epsilon: float,
    *, points: int, seed: str,
) -> DensityCurve:  # fmt: skip
    """The running ELBO from the integrands on [epsilon, T]. Raises ValueError unless `times` rise from there to T."""
    check_times(times, T, epsilon)
    start, stop = sde.noise_level(times.new_tensor([epsilon, T]))
    share = running_weights(found.weight.shape[-1], 2 * (sde.noise_level(times) - start) / (stop - start) - 1)
    # of a quadrature's weights on [-1, 1] the rest is what its nodes count for
    weight = share * (0.5 * (stop - start) * 0.5)
    mean = found.mean @ weight.mT
    se = (found.se.square() @ weight.square().mT).sqrt()
    ends = [noise_terms(p, sde, noises(t), t, points=points, seed=seed) for t in times.tolist()]
    shape = (len(times), len(ends[0]), 4)  # there may be no p_noise that is known at every time
    kl, kl_se, prior, _ = torch.tensor(ends, dtype=torch.float64).reshape(shape).permute(2, 1, 0)
    R = torch.tensor([p.d * sde.R(t, epsilon) for t in times.tolist()], dtype=torch.float64)
    entropy, entropy_se = entropy_term(p, sde, epsilon, points=points, seed=seed)
    return DensityCurve(
        t=times, prior=prior, kl=kl, kl_se=kl_se, K=mean[0, 0], gap=mean[1], gap_se=se[1], I_se=se[2], R=R,
        entropy=entropy, entropy_se=entropy_se,
    )  # fmt: skip


def running_weights(n: int, place: Float[Tensor, " places"]) -> Float[Tensor, "places n"]:
    """Weights with ∫ f from -1 to each place ≈ sum_j weight_j f(x_j), x_j being the Gauss–Legendre nodes on [-1, 1].

    Exact for polynomials of degree n - 1, as it integrates the one through the nodes. Up to 1, the quadrature's own.
    """
    one = torch.ones((), dtype=torch.float64)
    node, weight = gauss_legendre(-one, one, n)
    k = np.arange(n)
    at_nodes = np.polynomial.legendre.legvander(node.numpy(), n - 1) * (k + 0.5) * weight.numpy()[:, None]
    P = np.polynomial.legendre.legvander(place.numpy(), n)
    # the integral of P_k from -1 is (P_{k+1} - P_{k-1}) / (2k + 1), of P_0 = 1 it is P_1 + P_0
    lower = np.concatenate([-P[:, :1], P[:, : n - 1]], 1)
    return torch.from_numpy((P[:, 1:] - lower) / (2 * k + 1) @ at_nodes.T)


@torch.no_grad()
def image_curve(
    found: ImageElbo, sde: SDE, noises: NoisesAt, times: Float[Tensor, " times"], x0: Float[Tensor, "n d"], T: float,
    epsilon: float, *, seeds: Sequence[str], indices: Int[Tensor, " n"], end_pairs: int, batch: int,
) -> ImageCurve:  # fmt: skip
    """The running ELBO of images whose ELBO was `found`, from the arguments that it was found with.

    The network is not asked again. Raises ValueError unless `times` rise from epsilon to T.
    """
    check_times(times, T, epsilon)
    d = x0.shape[1]
    return ImageCurve(
        t=times,
        prior=prior_curve(sde, noises, times, x0, seeds[0], indices, end_pairs, batch),
        I=running_I(found, sde, times, T, epsilon, seeds=seeds, indices=indices),
        R=torch.tensor([d * sde.R(t, epsilon) for t in times.tolist()], dtype=torch.float64),
        residual=found.residual,
    )


def running_elbo(
    score: Score, sde: SDE, noises: NoisesAt, times: Float[Tensor, " times"], x0: Float[Tensor, "n d"], T: float,
    epsilon: float, *, seeds: Sequence[str], indices: Int[Tensor, " n"], pairs: int, end_pairs: int, batch: int,
    decoder: Loss = gaussian, device: torch.device | None = None,
) -> ImageCurve:  # fmt: skip
    """The running ELBO of points without a known density under any score, by `image_elbo` and its evaluations."""
    check_times(times, T, epsilon)
    found = image_elbo(
        score, sde, noises(T), x0, T, epsilon,
        seeds=seeds, indices=indices, pairs=pairs, end_pairs=end_pairs, batch=batch, decoder=decoder,
        device=device,
    )  # fmt: skip
    return image_curve(
        found, sde, noises, times, x0, T, epsilon, seeds=seeds, indices=indices, end_pairs=end_pairs, batch=batch
    )


def check_times(times: Float[Tensor, " times"], T: float, epsilon: float) -> None:
    """Raise ValueError unless `times` rise, and lie between epsilon and T."""
    if not (epsilon < times[0] and times[-1] <= T and (times.diff() > 0).all()):
        raise ValueError(
            f"The score is known from {epsilon:g} to {T:g}, not at {times.min():g} to {times.max():g}. Ask for times "
            "between, in rising order, or train the cell with a larger T."
        )


def prior_curve(
    sde: SDE, noises: NoisesAt, times: Float[Tensor, " times"], x0: Float[Tensor, "n d"], seed: str,
    indices: Int[Tensor, " n"], end_pairs: int, batch: int,
) -> Float[Tensor, "noises times n"]:  # fmt: skip
    """E log p_noise(x_t) for each image; where it has no closed form, from the draws of x_t that `image_elbo` takes."""
    at = [[noise.to("cpu") for noise in noises(t)] for t in times.tolist()]
    if not at[0]:
        return times.new_zeros(0, len(times), len(x0))
    closed = all(isinstance(noise, Gaussian | FullGaussian) for noise in at[0])
    alpha, variance = sde.alpha(times), sde.variance(times)
    parts = []
    for part in torch.arange(len(x0)).split(batch):
        x = x0[part.to(x0.device)].cpu().double()
        z = x[None] if closed else end_noise(x.shape[1], seed, indices.cpu()[part], end_pairs)
        parts.append(torch.stack([
            torch.stack([noise.prior(alpha[k] * x, variance[k], z) for noise in at_t]) for k, at_t in enumerate(at)
        ], 1))  # fmt: skip
    return torch.cat(parts, -1)


def running_I(
    found: ImageElbo, sde: SDE, times: Float[Tensor, " times"], T: float, epsilon: float, *, seeds: Sequence[str],
    indices: Int[Tensor, " n"],
) -> Float[Tensor, "seeds times n"]:  # fmt: skip
    """I(s, t) of each image from the evaluations that I(s, T) was estimated from."""
    start, stop = sde.noise_level(times.new_tensor([epsilon, T])).tolist()
    pairs = found.errors.shape[1] // 2
    level = sde.noise_level(path_times(sde, T, epsilon, seeds, indices, pairs))
    cell = torch.arange(pairs)[:, None]
    place = (pairs * (level - start) / (stop - start)).mT.unflatten(1, (pairs, 2)) - cell[..., None]
    errors = found.errors.unflatten(1, (pairs, 2))
    middle, slope = _line(place, errors)
    # the lines' integrals from the cell's beginning to v are (middle - slope/2) v + slope v²/2
    beyond = errors - (middle + slope * (place - 0.5))
    ends = (pairs * (sde.noise_level(times) - start) / (stop - start) - cell).clamp(0, 1).mT
    ends[times == T] = 1
    found_I = []
    for end in ends:
        v = end[:, None]
        of_line = (middle[..., 0] - slope[..., 0] / 2) * v + slope[..., 0] * v**2 / 2
        counted = torch.where((place < v[..., None]) | (v[..., None] == 1), beyond, 0).sum(2)
        found_I.append((of_line + 0.5 * counted).sum(1))
    return 0.5 * (stop - start) / pairs * torch.stack(found_I, 1)


def _line(
    place: Float[Tensor, "seeds pairs two n"], errors: Float[Tensor, "seeds pairs two n"]
) -> tuple[Float[Tensor, "seeds pairs 1 1"], Float[Tensor, "seeds pairs 1 1"]]:
    """Value at the middle and slope of the line through all images' finite errors in a cell, by least squares."""
    known = errors.isfinite().all(2, keepdim=True).expand_as(errors)
    offset, errors = torch.where(known, place - 0.5, 0), torch.where(known, errors, 0)
    square, count = offset.square().sum((2, 3), keepdim=True), known.sum((2, 3), keepdim=True)
    slope = torch.where(square > 0, (offset * errors).sum((2, 3), keepdim=True) / square, 0)
    return errors.sum((2, 3), keepdim=True) / count.clamp(min=1), slope
