"""The ELBO, the likelihood and samples of a score."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Literal

import torch
from torch import Tensor

from difftime.diffusion.score import Hutchinson, divergence, rademacher
from difftime.face.data import check_counts, decoder, points
from difftime.face.noise import PNoise, p_noise, shape_of
from difftime.face.results import Elbo, Estimate, Likelihood
from difftime.face.score import Flat, Score
from difftime.measures.image_elbo import image_elbo
from difftime.measures.likelihood import ode_likelihood
from difftime.measures.samplers import reverse_ode, reverse_sde
from difftime.support.streams import stream

EXACT_UP_TO = 8
"""Dimensions up to which the divergence is exact by default: each dimension costs a vector–Jacobian product."""


def start_of(score: Score, T: float, shape: tuple[int, ...], start: PNoise | Literal["standard"]) -> PNoise:
    """The p_noise. Raises ValueError if it is of another T, SDE or shape, or if it is a name other than standard."""
    if isinstance(start, str):
        if start != "standard":
            raise ValueError(f"Only the standard p_noise needs no data. Use dt.p_noise({start!r}, sde, T, data=...).")
        return p_noise("standard", score.sde, T, shape=shape)
    for what, own, its in (("T", T, start.T), ("SDE", score.sde, start.sde), ("shape", shape, start.shape)):
        if own != its:
            raise ValueError(f"This p_noise was made for another {what}: {its}, not {own}. Make one by dt.p_noise.")
    return start


def elbo(
    score: Score,
    x: Any,
    T: float | None = None,
    p_noise: PNoise | Literal["standard"] = "standard",
    *,
    data: Any = None,
    pairs: int = 16,
    batch: int = 256,
    seed: int = 0,
) -> Elbo:
    """The ELBO of held-out data, term by term (Eq. 4). It bounds the likelihood of the reverse SDE.

    R and the prior term of a Gaussian p_noise have closed forms. I is a Monte Carlo estimate for each point, from
    antithetic noise at times that are uniform in log(sigma²/alpha²).

    Args:
        score: the score.
        x: held-out data: floating-point `[n, *shape]`, uint8 pixels, or `Pixels`.
        T: the diffusion time; None is the largest time of the score.
        p_noise: the density from which the reverse process starts, made by `p_noise` for the same T.
        data: training data. If they and x are 8-bit data, the decoder knows how often a pixel is black or white, and
            where a grey level ends. Else it is Gaussian, and the bound is looser: on [-1, 1], for VP from 1e-5 on, by a
            sixth of a bit for each pixel that is known to be black or white. Nothing else depends on them. Compare
            `bpd` with and without them, or with that of `elbo_curve`, as little as those of two models.
        pairs: antithetic pairs of evaluations for I of each point; the decoder takes 4 more evaluations. `I.se` shows
            whether the pairs suffice: data of few dimensions need more pairs than images.
        batch: points in the network at once.
        seed: the seed of all random numbers. The random numbers of a point do not depend on `batch`.

    Returns:
        `Elbo`: `elbo`, `prior`, `I`, `R`, `decoder`, `elbo_x0`, each with `values`, `mean` and `se`, and `bpd`.

    Raises:
        ValueError: for T outside the score's times, a p_noise of another T, SDE or shape, or unusable data.

    Example:
        >>> import difftime as dt, torch
        >>> p = dt.Mixture.from_covariances([1.0], [[0.0]], [[[4.0]]])       # N(0, 4), and its exact score
        >>> score = dt.Score.exact(p, dt.VP())
        >>> x = p.sample(1000, torch.Generator().manual_seed(0))
        >>> e = dt.elbo(score, x, T=0.5, p_noise=dt.p_noise("full", dt.VP(), T=0.5, data=p))
        >>> bool(abs(e.elbo.mean - p.log_prob(x).mean()) < 4 * e.elbo.se)    # tight: score and start are exact
        True
    """
    check_counts(pairs=pairs, batch=batch)
    T, flat = score.time(T), points(x, seed)
    start = start_of(score, T, flat.shape, p_noise)
    with score.measuring():
        terms = image_elbo(
            Flat(score, flat.shape), score.sde, [start.density], flat.x, T, score.epsilon, seeds=[str(seed)],
            indices=torch.arange(len(flat.x)), pairs=pairs, end_pairs=2, batch=batch,
            decoder=decoder(flat, data), device=score.device,
        )  # fmt: skip
    return Elbo(
        elbo=Estimate.of(terms.elbo_eps[0, 0]),
        prior=Estimate.of(terms.prior[0]),
        I=Estimate.of(terms.I[0]),
        R=Estimate.of(torch.full_like(terms.I[0], terms.R)),
        decoder=Estimate.of(terms.residual[0]),
        elbo_x0=Estimate.of(terms.elbo_x0[0, 0]),
        points=flat,
    )


@torch.inference_mode(False)  # the divergence needs autograd, whatever mode the caller is in
def log_likelihood(
    score: Score,
    x: Any,
    T: float | None = None,
    p_noise: PNoise | Literal["standard"] = "standard",
    *,
    rtol: float = 1e-5,
    atol: float = 1e-5,
    batch: int = 100,
    divergence: Literal["auto", "exact", "hutchinson"] = "auto",
    max_evaluations: int = 20_000,
    seed: int = 0,
) -> Likelihood:
    """The likelihood of held-out data under the probability-flow ODE, and its cost in function evaluations.

    The data are taken as x_epsilon. RK45 counts its calls as SciPy's RK45 does. The points of a batch are one system.

    Args:
        score: the score.
        x: held-out data: floating-point `[n, *shape]`, uint8 pixels, or `Pixels`.
        T: the diffusion time; None is the largest time of the score.
        p_noise: the density from which the reverse process starts, made by `p_noise` for the same T.
        rtol, atol: tolerances of RK45; the paper takes 1e-5.
        batch: points that are solved together as one system; the NFE is that of the system.
        divergence: `"exact"` costs a vector–Jacobian product for each dimension. `"hutchinson"` costs one product, with
            a random probe for each point. `"auto"` is exact up to 8 dimensions.
        max_evaluations: a batch that needs more calls has failed; its `log_q` is then NaN.
        seed: the seed of the dequantisation and the probes.

    Returns:
        `Likelihood`: `log_q` with `values`, `mean` and `se`, `nfe`, and `bpd`.

    Raises:
        ValueError: as `elbo` does.

    Example:
        >>> import difftime as dt, torch
        >>> p = dt.Mixture.from_covariances([1.0], [[0.0]], [[[4.0]]])
        >>> x = p.sample(100, torch.Generator().manual_seed(0))
        >>> q = dt.log_likelihood(dt.Score.exact(p, dt.VP()), x, T=0.5, p_noise=dt.p_noise("full", dt.VP(), 0.5, p))
        >>> bool((q.log_q.values - p.log_prob(x)).abs().max() < 1e-3)
        True
    """
    check_counts(batch=batch)
    if divergence not in ("auto", "exact", "hutchinson"):
        raise ValueError(f"The divergence is auto, exact or hutchinson, not {divergence!r}.")
    T, flat = score.time(T), points(x, seed)
    start = start_of(score, T, flat.shape, p_noise)
    if divergence == "auto":
        divergence = "exact" if flat.d <= EXACT_UP_TO else "hutchinson"
    log_q, nfe = [], []
    with score.measuring():
        for part in torch.arange(len(flat.x)).split(batch):
            solved = ode_likelihood(
                Flat(score, flat.shape), score.sde, [start.density], flat.x[part].to(score.device)[None], T,
                score.epsilon, rtol=rtol, atol=atol, max_evaluations=max_evaluations,
                divergence=_divergence(divergence, flat.d, part, seed, score.device),
            )  # fmt: skip
            log_q.append(solved.log_q[0, 0].cpu())
            nfe.append(int(solved.nfe[0]))
    return Likelihood(Estimate.of(torch.cat(log_q)), sum(nfe) / len(nfe), nfe, batch, divergence, flat)


def _divergence(kind: str, d: int, part: Tensor, seed: int, device: torch.device) -> Any:
    """The divergence of a batch. The probe of a point does not depend on its batch."""
    if kind == "exact":
        return divergence
    probes = [rademacher((d,), stream(seed, "Hutchinson's probe", index)) for index in part.tolist()]
    return Hutchinson(torch.stack(probes).double().to(device))


def sample(
    score: Score,
    n: int,
    T: float | None = None,
    p_noise: PNoise | Literal["standard"] = "standard",
    *,
    shape: Sequence[int] | None = None,
    sampler: Literal["sde", "ode"] = "sde",
    steps: int = 200,
    batch: int = 256,
    rtol: float = 1e-5,
    atol: float = 1e-5,
    seed: int = 0,
) -> Tensor:
    """Samples of the model: the reverse process from p_noise at T to epsilon.

    Args:
        score: the score.
        n: the number of samples.
        T: the diffusion time; None is the largest time of the score.
        p_noise: the density from which the reverse process starts, made by `p_noise` for the same T.
        shape: the shape of one point, for `"standard"`; a fitted p_noise has its own shape.
        sampler: `"sde"`: Eq. 2 by Euler–Maruyama in `steps` equal steps. `"ode"`: the probability-flow ODE by RK45.
        steps: the steps of `"sde"`; each is one evaluation of the network.
        batch: points in the network at once.
        rtol, atol: tolerances of `"ode"`.
        seed: the seed of all random numbers.

    Returns:
        `[n, *shape]`, float32 on the CPU; images are on the interval of the model's training data.

    Raises:
        ValueError: for T outside the score's times, a p_noise of another T or SDE, or a missing shape.

    Example:
        >>> import difftime as dt
        >>> p = dt.Mixture.from_covariances([1.0], [[3.0]], [[[0.25]]])
        >>> x = dt.sample(dt.Score.exact(p, dt.VP()), 1000, shape=(1,))
        >>> bool(abs(x.mean() - 3) < 0.1)
        True
    """
    check_counts(steps=steps, batch=batch)
    T = score.time(T)
    if shape is None:
        if not isinstance(p_noise, PNoise):
            raise ValueError("The shape of a point is needed: shape=(1, 28, 28), for example, or a fitted p_noise.")
        shape = p_noise.shape
    start = start_of(score, T, shape_of(shape), p_noise)
    x = start.sample(n, seed=seed).flatten(1)
    with score.measuring():
        parts = [
            _back(Flat(score, start.shape), part, T, sampler, steps, rtol, atol, f"{seed}/{k}")
            for k, part in enumerate(x.split(batch))
        ]
    return torch.cat(parts).unflatten(-1, start.shape).float()


def _back(
    flat: Flat, x: Tensor, T: float, sampler: str, steps: int, rtol: float, atol: float, seed: str
) -> Tensor:  # fmt: skip
    sde, epsilon = flat.score.sde, flat.score.epsilon
    if sampler == "ode":
        x = x.to(flat.score.device)
        return reverse_ode(flat, sde, x[None], T, epsilon, rtol=rtol, atol=atol, max_evaluations=20_000)[0][0].cpu()
    if sampler != "sde":
        raise ValueError(f"The samplers are sde and ode, not {sampler!r}.")
    generators = [stream(seed, "reverse SDE")]
    return reverse_sde(flat, sde, x[None], T, epsilon, steps=steps, generators=generators)[0]
