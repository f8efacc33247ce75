"""docs/theory-lambda.md: the ELBO depends on the forward process only through lambda = log(sigma²/alpha²)."""

import math
from dataclasses import dataclass

import pytest
import torch

from difftime.diffusion.mixture import Mixture
from difftime.diffusion.score import ExactScore
from difftime.diffusion.sde import SDE, VP, Gaussian
from difftime.diffusion.tabulated import Tabulated
from difftime.measures.elbo import end_terms, path_terms

TABLES = {"cosine": Tabulated.cosine(), "ddpm": Tabulated.linear(), "edm": Tabulated.edm()}
EXACT = pytest.mark.parametrize("exact", [True, False], ids=["exact score", "another score"])
START, STOP = -9.0, 2.0
WRONG = Mixture.from_covariances([0.5, 0.5], [[0.8], [2.5]], [[[0.3**2]], [[0.7**2]]])


@dataclass(frozen=True)
class Terms:
    """Of Eqs. 4 to 11 in nats, each for x divided by alpha_epsilon at epsilon and by alpha_T at T."""

    K: float
    gap: float
    kl: float
    prior_and_R: float
    elbo: float


def terms(sde: SDE, data: Mixture, model: Mixture) -> Terms:
    """Between the two levels, of the score that `model` would have, with p_noise = N(0.4, 6) for x_T/alpha_T."""
    epsilon, T = sde.time(torch.tensor([START, STOP], dtype=torch.float64)).tolist()
    alpha, alpha_T = sde.alpha(torch.tensor([epsilon, T], dtype=torch.float64))
    noise = Gaussian(
        mean=alpha_T * torch.full((1,), 0.4).double(), variance=alpha_T**2 * torch.full((1,), 6.0).double()
    )
    path = path_terms(
        ExactScore(model, sde), data, sde, T, epsilon, seeds=1, time_steps=64, points=0, seed="lambda"
    )  # fmt: skip
    ends = end_terms(data, sde, noise, T, epsilon, points=0, seed="lambda")
    prior_and_R = ends.prior + ends.R + alpha.log().item()
    K, gap = path.K.item(), path.gap.item()
    return Terms(K, gap, ends.kl, prior_and_R, prior_and_R - K - gap)


def check_every_term_is_that_of_vp(sde: SDE, exact: bool, toy: Mixture) -> None:
    model = toy if exact else WRONG
    reference, own = terms(VP(), toy, model), terms(sde, toy, model)
    assert vars(own) == pytest.approx(vars(reference), abs=1e-6)
    assert reference.gap == pytest.approx(0, abs=1e-9) if exact else reference.gap > 0.1


@EXACT
def test_every_term_of_the_elbo_is_the_same_for_every_sde(sde: SDE, exact: bool, toy: Mixture) -> None:
    check_every_term_is_that_of_vp(sde, exact, toy)


@EXACT
@pytest.mark.parametrize("table", TABLES)
def test_every_term_of_the_elbo_is_the_same_for_every_table(table: str, exact: bool, toy: Mixture) -> None:
    check_every_term_is_that_of_vp(TABLES[table], exact, toy)


def test_the_elbo_of_the_exact_score_falls_short_of_the_truth_by_the_kl(toy: Mixture) -> None:
    """-H of x_epsilon/alpha_epsilon - KL: what the common value of all schedules is."""
    sigma2 = math.exp(START)
    blurred = Mixture(toy.weights, toy.means, toy.variances + sigma2, toy.axes)
    x = blurred.sample(200_000, torch.Generator().manual_seed(0))
    log_p = blurred.log_prob(x)
    own = terms(VP(), toy, toy)
    assert own.elbo + own.kl == pytest.approx(log_p.mean().item(), abs=4 * log_p.std().item() / len(x) ** 0.5)
