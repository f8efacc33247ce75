"""How good samples are, against a density that is known: their likelihood, what it cannot see, and their histogram.

A sampler that drops a mode can raise the median of log p_data: samples then sit in the mode that is left. So beside
the paper's Fig. 1 stand the Wasserstein distance to p_data and the share of samples in each mode. Images, whose density
is not known, are held against test images by the same distance.
"""

from __future__ import annotations

import math

import torch
from jaxtyping import Float
from torch import Tensor

from difftime.diffusion.mixture import Mixture, nodes
from difftime.images.mapped import Images, blocks
from difftime.images.pixels import SCALE
from difftime.support.streams import stream

REPRESENTATIVES = 1 << 17
"""Points that stand for a density where a quadrature of a step function would be rough."""
DIRECTIONS = 64
"""Random directions of the sliced Wasserstein distance; for d = 1 there is only one."""
RESAMPLES = 200
"""Of the bootstrap of a distance between two samples: its standard error is then known to 5 %."""
PERFECT_SETS = 32
"""Sets of training images, at most, that stand for perfect samples."""


def quantiles(p: Mixture, u: Float[Tensor, " n"]) -> Float[Tensor, " n"]:
    """The inverse of the distribution function of a one-dimensional mixture, to about 1e-12.

    A table of the function gives a first guess, and Newton steps the rest, kept between the neighbours in the table.
    """
    spread = p.variances.max().sqrt()
    x = torch.linspace((p.means.min() - 12 * spread).item(), (p.means.max() + 12 * spread).item(), 20_001).double()
    F = p.cdf(x)
    right = torch.searchsorted(F, u).clamp(1, len(x) - 1)
    low, high = x[right - 1], x[right]
    guess = low + (high - low) * ((u - F[right - 1]) / (F[right] - F[right - 1]).clamp(min=1e-300)).clamp(0, 1)
    for _ in range(4):
        guess = torch.clamp(guess - (p.cdf(guess) - u) / p.log_prob(guess.unsqueeze(-1)).exp(), low, high)
    return guess


def directions(d: int) -> Float[Tensor, "directions d"]:
    """The fixed unit vectors along which samples are compared."""
    if d == 1:
        return torch.ones(1, 1, dtype=torch.float64)
    vectors = torch.randn(DIRECTIONS, d, dtype=torch.float64, generator=stream("wasserstein directions", d))
    return vectors / vectors.norm(dim=1, keepdim=True)


def wasserstein1(x: Float[Tensor, "seeds n d"], p: Mixture) -> Float[Tensor, " seeds"]:
    """Wasserstein-1 distance between samples and `p`, in units of x; sliced (the mean over directions) for d > 1.

    W1 = ∫ |F_n^{-1}(u) - F^{-1}(u)| du (Vallender, 1974), by the midpoint rule with one node per sample, against the
    exact F of each projection. It is NaN for a seed with samples that are not finite.
    """
    u = (torch.arange(x.shape[1], dtype=torch.float64) + 0.5) / x.shape[1]
    distances = [
        ((x @ direction).sort(dim=1).values - quantiles(p.projected(direction), u)).abs().mean(1)
        for direction in directions(p.d)
    ]
    finite = x.isfinite().all(-1).all(-1)
    return torch.where(finite, torch.stack(distances).mean(0), torch.nan)


def wasserstein1_floor(p: Mixture, n: int) -> float:
    """The expected `wasserstein1` of `n` perfect samples: E ∫ |F_n - F| dx ≈ sqrt(2/(pi n)) ∫ sqrt(F(1-F)) dx."""
    total = 0.0
    for direction in directions(p.d):
        line = p.projected(direction)
        at = nodes(line, 0, torch.Generator())
        dx = at.weight / line.log_prob(at.x).exp()
        F = line.cdf(at.x[:, 0])
        total += (dx * (F * (1 - F)).clamp(min=0).sqrt()).sum().item()
    return math.sqrt(2 / (math.pi * n)) * total / len(directions(p.d))


def projections(images: Images, block: int = 1024) -> Float[Tensor, "n directions"]:
    """8-bit images along the fixed directions, in units of x = k / 128 - 1.

    Of `block` images at once: in float64 they take eight times their memory.
    """
    along = directions(images[0].numel()).mT
    return torch.cat([(part.flatten(1).double() / SCALE - 1) @ along for part in blocks(images, block)])


def _between(x: Float[Tensor, "n directions"], y: Float[Tensor, "m directions"]) -> float:
    """The mean over directions of W1 = ∫ |F^{-1}(u) - G^{-1}(u)| du between two samples, each direction sorted.

    Both functions are steps, constant between the multiples of 1/n and of 1/m; the ends of the pieces are counted in
    units of 1/(nm), so the integral is exact.
    """
    n, m = len(x), len(y)
    ends = torch.cat([torch.arange(1, n + 1) * m, torch.arange(1, m + 1) * n]).unique()
    width = ends.diff(prepend=ends.new_zeros(1)).double() / (n * m)
    apart = (x[(ends - 1) // m] - y[(ends - 1) // n]).abs()
    return (width @ apart).mean().item()


def sliced_wasserstein1(
    x: Float[Tensor, "n directions"], y: Float[Tensor, "m directions"], generator: torch.Generator
) -> tuple[float, float]:
    """The sliced Wasserstein-1 distance of samples to a reference, both projected, and its standard error.

    The error is a bootstrap over the samples x alone: the reference and the directions are the same for all that is
    compared. For samples as good as the reference it is too large, by at most 1 / sqrt(1 - 2/pi): a resample of W1 near
    its floor scatters like a signed difference, W1 itself like its absolute value.
    """
    y, n = y.sort(0).values, len(x)
    resampled = [_between(x[torch.randint(n, (n,), generator=generator)].sort(0).values, y) for _ in range(RESAMPLES)]
    return _between(x.sort(0).values, y), torch.tensor(resampled).std().item()


def perfect_sliced_wasserstein1(train: Images, y: Float[Tensor, "m directions"], n: int) -> tuple[float, float]:
    """What `n` perfect samples are expected to have: the mean distance of disjoint sets of `n` training images to `y`.

    Also its standard error over the sets: NaN for a single one. Both are NaN if there are fewer training images.
    """
    sets = min(PERFECT_SETS, len(train) // n)
    if sets == 0:
        return math.nan, math.nan
    order = torch.randperm(len(train), generator=stream("perfect images", len(train)))
    points, y = projections(train[order[: sets * n]]), y.sort(0).values
    found = torch.tensor([_between(part.sort(0).values, y) for part in points.split(n)], dtype=torch.float64)
    return found.mean().item(), found.std().item() / math.sqrt(sets) if sets > 1 else math.nan


def mode_shares(x: Float[Tensor, "seeds n d"], p: Mixture) -> Float[Tensor, "seeds components"]:
    """The share of samples that each component of `p` most probably produced; those not finite count for none."""
    label = torch.where(x.isfinite().all(-1), p.responsible(x.nan_to_num()), -1)
    return torch.stack([(label == k).double().mean(1) for k in range(len(p.weights))], 1)


def representatives(p: Mixture) -> Float[Tensor, "n d"]:
    """Many equally likely points: for d = 1 the midpoints of equal quantiles, else random draws."""
    if p.d == 1:
        return quantiles(p, (torch.arange(REPRESENTATIVES, dtype=torch.float64) + 0.5) / REPRESENTATIVES)[:, None]
    return p.sample(REPRESENTATIVES, stream("representatives", p.d))


def true_shares(p: Mixture) -> Float[Tensor, " components"]:
    """What `mode_shares` tends to for perfect samples (not quite the weights, where components overlap)."""
    return mode_shares(representatives(p)[None], p)[0]


def median_log_prob(p: Mixture) -> float:
    """The median of log p(x) in nats for x from `p` itself; half of perfect samples lie above it."""
    return p.log_prob(representatives(p)).median().item()


def compared(
    x: Float[Tensor, "seeds n d"], p: Mixture, shares: Float[Tensor, "seeds components"],
    truth: Float[Tensor, " components"],
) -> list[dict[str, float]]:  # fmt: skip
    """How good the samples of each seed are, by the columns of the table `samples`; NaN for what is not known.

    `shares` and `truth` are those of the modes.
    """
    log_p = p.log_prob(x)
    low, median, high = torch.quantile(log_p, torch.tensor([0.025, 0.5, 0.975], dtype=torch.float64), dim=1)
    distance, floor, typical = wasserstein1(x, p), wasserstein1_floor(p, x.shape[1]), median_log_prob(p)
    return [
        {
            "log_p_data_median": median[seed].item(), "log_p_data_median_p_data": typical,
            "log_p_data_q025": low[seed].item(), "log_p_data_q975": high[seed].item(),
            "log_p_data_mean": log_p[seed].mean().item(),
            "log_p_data_mean_se": log_p[seed].std().item() / math.sqrt(x.shape[1]),
            "finite": x[seed].isfinite().all(-1).double().mean().item(),
            "wasserstein1": distance[seed].item(), "wasserstein1_floor": floor,
            "share_first": shares[seed, 0].item(), "share_first_p_data": truth[0].item(),
        }
        for seed in range(len(x))
    ]  # fmt: skip


def histogram_edges(p: Mixture, bins: int) -> Float[Tensor, " edges"]:
    """Equal bins over a one-dimensional density: from quantile 1e-4 to 1 - 1e-4, and a quarter more on each side."""
    low, high = quantiles(p, torch.tensor([1e-4, 1 - 1e-4], dtype=torch.float64)).tolist()
    margin = 0.25 * (high - low)
    return torch.linspace(low - margin, high + margin, bins + 1, dtype=torch.float64)


def histogram(x: Float[Tensor, "seeds n"], edges: Float[Tensor, " edges"]) -> Float[Tensor, "seeds bins"]:
    """The share of samples in each bin; samples outside the edges, or not finite, count in none."""
    inside = (x >= edges[0]) & (x < edges[-1])
    index = torch.bucketize(x, edges, right=True) - 1
    return torch.stack([
        torch.bincount(row[ok], minlength=len(edges) - 1).double() / len(row)
        for row, ok in zip(index, inside, strict=True)
    ])  # fmt: skip
