"""The public face, used as it is not meant to be: every answer is a right one or an error in words."""

import math
from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor

import difftime as dt

P = dt.Mixture.from_covariances([1.0], [[0.0]], [[[4.0]]])
VP = dt.VP()
SCORE = dt.Score.exact(P, VP)
X = P.sample(8, torch.Generator().manual_seed(0))
CURVE = dt.elbo_curve(SCORE, X, times=4)
STANDARD = dt.p_noise("standard", VP, 0.5, X)
MATCHED = dt.p_noise("matched", VP, 0.5, X)

REFUSED: dict[str, tuple[Callable[[], Any], str]] = {
    "no pairs": (lambda: dt.elbo(SCORE, X, pairs=0), "pairs"),
    "a batch of none": (lambda: dt.log_likelihood(SCORE, X, batch=0), "batch"),
    "an unknown divergence": (lambda: dt.log_likelihood(SCORE, X, divergence="hutchison"), "divergence"),
    "negative steps": (lambda: dt.sample(SCORE, 2, shape=(1,), steps=-5), "steps"),
    "a number as shape": (lambda: dt.sample(SCORE, 2, shape=1), "shape"),
    "another shape than that of p_noise": (lambda: dt.sample(SCORE, 2, 0.5, MATCHED, shape=(28, 28)), "shape"),
    "no times": (lambda: dt.elbo_curve(SCORE, X, times=0), "times"),
    "an empty list of times": (lambda: dt.elbo_curve(SCORE, X, times=[]), "times"),
    "a time beyond the curve": (lambda: CURVE.at(7.0), "times from"),
    "a confidence in per cent": (lambda: dt.best_T(CURVE, confidence=95), "confidence"),
    "no resamples": (lambda: dt.best_T(CURVE, resamples=0), "resamples"),
    "points of another shape in p_noise": (lambda: STANDARD.log_prob(X.repeat(1, 3)), r"\[n, 1\]"),
    "points without an axis in p_noise": (lambda: MATCHED.log_prob(X[:, 0]), r"\[n, 1\]"),
    "no components": (lambda: dt.p_noise("mixture", VP, 0.5, X, components=0), "components"),
    "components of a density": (lambda: dt.p_noise("mixture", VP, 0.5, P, components=3), "exact"),
    "points of another dimension": (lambda: P.log_prob(torch.zeros(4, 3)), "dimensions"),
    "points without an axis": (lambda: P.log_prob(torch.zeros(4)), "dimensions"),
    "weights that sum to 2": (lambda: dt.Mixture.from_stds([1.0, 1.0], [[0.0], [1.0]], [[1.0], [1.0]]), "sum"),
    "means without an axis": (lambda: dt.Mixture.from_covariances([1.0], [0.0], [[1.0]]), "means"),
    "a negative beta": (lambda: dt.VP(beta_min=-1.0), "beta"),
    "a falling beta": (lambda: dt.SubVP(20.0, 0.1), "beta"),
    "a beta that is no number": (lambda: dt.VP(beta_max=math.nan), "beta"),
    "sigma from 0": (lambda: dt.VE(0.0), "sigma"),
    "a base below 1": (lambda: dt.VE.exponential(0.5), "base"),
}  # fmt: skip


@pytest.mark.parametrize(("use", "word"), REFUSED.values(), ids=REFUSED)
def test_what_makes_no_sense_is_refused(use: Callable[[], Any], word: str) -> None:
    with pytest.raises(ValueError, match=word):
        use()


@pytest.mark.parametrize(("net", "sde"), [(torch.nn.Linear, VP), (lambda x, t: x, dt.VP), (lambda x, t: x, "vp")])
def test_a_class_is_no_network_and_no_diffusion(net: Any, sde: Any) -> None:
    with pytest.raises(TypeError):
        dt.Score(net, sde)


def halved(x: Tensor, t: Tensor) -> Tensor:
    return 0.5 * x + t[:, None]


def halved_in_place(x: Tensor, t: Tensor) -> Tensor:
    return x.mul_(0.5).add_(t.mul_(1.0)[:, None])


@pytest.mark.parametrize("predicts", ["noise", "v", "x0", "score"])
def test_a_network_may_compute_in_place(predicts: str) -> None:
    plain, in_place = (dt.Score(net, VP, predicts, epsilon=0.1) for net in (halved, halved_in_place))
    torch.testing.assert_close(in_place(X.clone(), 0.5), plain(X, 0.5), rtol=0, atol=0)
    drawn = [dt.sample(score, 3, shape=(1,), steps=4) for score in (plain, in_place)]
    torch.testing.assert_close(*drawn, rtol=0, atol=0)
    q = [dt.log_likelihood(score, X).log_q.values for score in (plain, in_place)]
    torch.testing.assert_close(*q, rtol=0, atol=0)


def test_the_mode_of_the_caller_changes_no_likelihood() -> None:
    usual = dt.log_likelihood(SCORE, X).log_q.values
    for mode in (torch.no_grad, torch.inference_mode):
        with mode():
            torch.testing.assert_close(dt.log_likelihood(SCORE, X).log_q.values, usual, rtol=0, atol=0)


@pytest.mark.parametrize("divergence", ["exact", "hutchinson"])
def test_a_network_without_derivatives_is_refused(divergence: Any) -> None:
    with pytest.raises(ValueError, match="autograd"):
        dt.log_likelihood(dt.Score(torch.no_grad()(halved), VP), X, divergence=divergence)
