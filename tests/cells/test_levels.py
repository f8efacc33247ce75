"""The error of the score level by level: closed forms of a Gaussian, and sums that are the terms of the ELBO."""

from __future__ import annotations

import math
from pathlib import Path

import pandas as pd
import pytest
import torch
from builders import TOY, frame
from of_images import SIZE, read
from torch import Tensor

from difftime.diffusion.mixture import Mixture
from difftime.diffusion.score import ExactScore
from difftime.diffusion.sde import SDE, VP, standard_noise
from difftime.figures.levels import LINES, draw, over_seeds
from difftime.figures.settings import FigureSettings
from difftime.measures.elbo import Integrands, integrands, path_terms
from difftime.measures.image_elbo import image_elbo, over_images
from difftime.measures.levels import WIDTH, boundaries, density_levels, image_levels
from difftime.support.streams import stream

EPSILON, FACTOR = 1e-5, 1.3
VARIANCES = torch.tensor([0.3, 0.01], dtype=torch.float64)


def gaussian(variances: Tensor) -> Mixture:
    return Mixture.from_covariances([1.0], [[0.5] * len(variances)], [variances.diag().tolist()])


def spoiled(p: Mixture, sde: SDE):
    """The exact score of one seed, and FACTOR times that of the other."""
    return lambda x, t: ExactScore(p, sde)(x, t) * torch.tensor([1.0, FACTOR]).double()[:, None, None]


def closed_form(level: Tensor, variances: Tensor) -> tuple[Tensor, Tensor]:
    """Error and excess of both seeds in each interval, of y = x / alpha with the variances v + exp(lambda).

    The exact score's error is v / (v + exp(lambda)), and the excess (FACTOR - 1)² exp(lambda) / (v + exp(lambda)).
    """
    blurred = (variances[:, None] + level.exp()).log().diff().mean(0) / level.diff()
    excess = torch.stack([0 * blurred, (FACTOR - 1) ** 2 * blurred])
    return 1 - blurred + excess, excess


def found(score, p: Mixture, sde: SDE, T: float, points: int = 2, steps: int = 160) -> Integrands:
    return integrands(score, p, sde, T, EPSILON, seeds=2, time_steps=steps, points=points, seed="0")


@pytest.mark.parametrize("T", [0.1, 0.6, 1.0])
def test_of_a_gaussian_in_one_dimension_error_and_excess_are_the_closed_forms(T: float, sde: SDE) -> None:
    p, level = gaussian(VARIANCES[:1]), boundaries(sde, T, EPSILON)
    levels = density_levels(found(spoiled(p, sde), p, sde, T), level, 1)
    error, excess = closed_form(level, VARIANCES[:1])
    assert torch.allclose(levels.error, error, atol=1e-7)
    assert torch.allclose(levels.excess, excess, atol=1e-7)
    assert (levels.error_se == 0).all()


def test_in_two_dimensions_they_are_the_closed_forms_within_the_errors_of_the_points(sde: SDE) -> None:
    p, level = gaussian(VARIANCES), boundaries(sde, 1.0, EPSILON)
    levels = density_levels(found(spoiled(p, sde), p, sde, 1.0, points=400, steps=80), level, 2)
    error, excess = closed_form(level, VARIANCES)
    assert ((levels.error - error).abs() < 4 * levels.error_se).all()
    assert ((levels.excess - excess).abs()[1] < 4 * levels.excess_se[1]).all()
    assert levels.excess[0].abs().max() < 1e-9


def test_they_are_those_of_a_quadrature_of_each_interval_by_itself(sde: SDE, toy: Mixture) -> None:
    level = boundaries(sde, 0.8, EPSILON)
    levels = density_levels(found(spoiled(toy, sde), toy, sde, 0.8), level, 1)
    for k, (start, stop) in enumerate(sde.time(level).unfold(0, 2, 1).tolist()):
        own = path_terms(spoiled(toy, sde), toy, sde, stop, start, seeds=2, time_steps=20, points=2, seed="0")
        width = level[k + 1] - level[k]
        assert torch.allclose(levels.excess[:, k] * width / 2, own.gap, atol=1e-5)
        assert torch.allclose(levels.error[:, k] * width / 2, own.K + own.gap, atol=1e-5)


def test_all_levels_together_are_the_gap_and_I(sde: SDE, toy: Mixture) -> None:
    level, terms = boundaries(sde, 1.0, EPSILON), found(spoiled(toy, sde), toy, sde, 1.0)
    levels = density_levels(terms, level, 1)
    assert torch.allclose((levels.excess * level.diff()).sum(1) / 2, terms.path.gap, rtol=1e-10)
    assert torch.allclose((levels.error * level.diff()).sum(1) / 2, terms.path.K + terms.path.gap, rtol=1e-10)


@pytest.mark.parametrize("T", [1e-4, 0.1, 0.6, 2.0])
def test_intervals_meet_at_multiples_of_their_width_whatever_T_and_sde_are(T: float, sde: SDE) -> None:
    level = boundaries(sde, T, EPSILON)
    assert torch.equal(level[[0, -1]], sde.noise_level(torch.tensor([EPSILON, T], dtype=torch.float64)))
    assert torch.equal(level[1:-1] % WIDTH, torch.zeros(len(level) - 2, dtype=torch.float64))
    assert torch.equal(level[1:-1].diff(), torch.full((max(0, len(level) - 3),), WIDTH, dtype=torch.float64))
    whole = level[-1] - level[0]
    assert (level.diff() >= min(WIDTH / 2, whole)).all()
    assert (level.diff() <= 2 * WIDTH).all()


def test_of_images_the_error_is_the_closed_form_within_the_standard_errors_over_them(sde: SDE) -> None:
    variances = torch.logspace(-0.5, -2.5, 16, dtype=torch.float64)
    p, level, index = gaussian(variances), boundaries(sde, 1.0, EPSILON), torch.arange(600)
    seeds = {"seeds": ["a", "b"], "indices": index}
    terms = image_elbo(
        spoiled(p, sde), sde, [standard_noise(sde, 1.0, (16,))], p.sample(600, stream("x")), 1.0, EPSILON,
        pairs=6, end_pairs=1, batch=600, **seeds,
    )  # fmt: skip
    single = image_levels(terms, sde, level, 1.0, EPSILON, 16, **seeds)
    mean, se = over_images(single)
    assert ((mean - closed_form(level, variances)[0]).abs() < 4 * se).all()
    assert torch.allclose((single * level.diff()[:, None]).sum(1) * 16 / 2, terms.I, rtol=1e-10)


@pytest.mark.parametrize("pairs", [1, 6])
def test_repetitions_scatter_no_more_than_the_standard_errors_say(pairs: int, sde: SDE) -> None:
    """The scatter of 60 repetitions is itself known to 9 %, of which three are allowed."""
    variances, n = torch.logspace(-0.5, -2.5, 16, dtype=torch.float64), 40
    p, level = gaussian(variances), boundaries(sde, 1.0, EPSILON)
    seeds = {"seeds": [f"repetition {k}" for k in range(60)], "indices": torch.arange(n)}
    terms = image_elbo(
        ExactScore(p, sde), sde, [standard_noise(sde, 1.0, (16,))], p.sample(n, stream("x")), 1.0, EPSILON,
        pairs=pairs, end_pairs=1, batch=n, **seeds,
    )  # fmt: skip
    mean, se = over_images(image_levels(terms, sde, level, 1.0, EPSILON, 16, **seeds))
    assert (mean.std(0) < 1.27 * se.square().mean(0).sqrt()).all()


def test_a_score_that_fails_for_one_image_has_no_error_of_that_one_alone() -> None:
    p, sde, seeds = gaussian(VARIANCES), VP(), {"seeds": ["a"], "indices": torch.arange(3)}

    def score(x: Tensor, t: Tensor) -> Tensor:
        return torch.where(torch.arange(3)[:, None] == 1, torch.nan, ExactScore(p, sde)(x, t))

    terms = image_elbo(
        score, sde, [standard_noise(sde, 1.0, (2,))], p.sample(3, stream("x")), 1.0, EPSILON,
        pairs=2, end_pairs=1, batch=3, **seeds,
    )  # fmt: skip
    single = image_levels(terms, sde, boundaries(sde, 1.0, EPSILON), 1.0, EPSILON, 2, **seeds)
    assert single[..., [0, 2]].isfinite().all()


def test_the_levels_in_the_table_sum_to_I_of_the_table_of_the_elbo(measured: Path) -> None:
    rows, elbo = read(measured, "levels"), read(measured, "elbo").query("p_noise == 'standard'").set_index("seed")
    whole = (rows.error * (rows.high - rows.low)).groupby(rows.seed).sum() * SIZE * SIZE / 2
    assert whole[elbo.index].to_numpy() == pytest.approx(elbo.I.to_numpy())
    assert rows[["excess", "excess_se"]].isna().all(axis=None)
    assert (rows.error_se > 0).all()


TIMES = (0.1, 0.2, 0.4, 0.5, 0.6, 0.8, 1.0, 1.5, 2.0)


def table(seeds: int = 3) -> pd.DataFrame:
    """Every T from lambda = -12 to 10 T."""
    return frame("levels", [
        TOY | {"T": T, "seed": seed, "low": low, "high": low + 2, "error": T + seed - low, "excess": 100 * T + seed}
        for T in TIMES for seed in range(seeds) for low in range(-12, int(10 * T), 2)
    ])  # fmt: skip


@pytest.mark.parametrize(("kind", "column"), [("mixture", "excess"), ("mnist", "error")])
def test_the_figure_shows_the_excess_of_a_known_density_and_the_error_of_images(kind: str, column: str) -> None:
    rows, figure = table(), draw(table(), FigureSettings(sdes={"vp": "vp"}, kind=kind))
    shown = {line.get_label(): line for line in figure.axes[0].lines if line.get_gid() == "curve"}
    assert len(shown) == LINES
    for T in (TIMES[0], TIMES[-1]):
        means = rows[rows["T"] == T].groupby("low")[column].mean()
        assert shown[f"$T = {T:g}$"].get_ydata() == pytest.approx(means.to_numpy())
        assert [*shown[f"$T = {T:g}$"].get_xdata()] == [*means.index + 1]
    assert "per dimension [1]" in figure.axes[0].get_ylabel()
    assert "noise level" in figure.axes[-1].get_xlabel()
    assert len(figure.axes) == (1 if kind == "mixture" else 2), "of a mixture the excess itself is compared"


def test_the_figure_of_images_compares_each_time_with_the_largest_where_both_are_known() -> None:
    """0.99 and 1.02 times the error of T = 1. One interval is too uncertain, and one is no interval of T = 1."""
    ends = {"uncertain": (8, 10), "both": (-8, -6), "other": (-6, -5), "also both": (-12, -8)}
    errors = {0.4: {"both": 0.099, "other": 0.5, "also both": 0.51, "uncertain": 1e-4},
              1.0: {"both": 0.1, "also both": 0.5, "uncertain": 1e-4}}  # fmt: skip
    rows = [
        TOY | {"T": T, "seed": 0, "low": ends[name][0], "high": ends[name][1], "error": error, "error_se": 1e-4}
        for T, own in errors.items() for name, error in own.items()
    ]  # fmt: skip
    compared = draw(frame("levels", rows), FigureSettings(sdes={"vp": "vp"}, kind="mnist")).axes[1]
    (line,) = (line for line in compared.lines if line.get_gid() == "curve")
    assert line.get_xdata() == pytest.approx([-10, -7])
    assert line.get_ydata() == pytest.approx([2, -1])
    band = compared.collections[0].get_paths()[0].vertices
    assert band[:, 1].max() == pytest.approx(2 + 100 * math.hypot(1, 1.02) * 1e-4 / 0.5)
    assert "above that of $T = 1$ [%]" in compared.get_ylabel()


def test_the_figure_of_a_single_seed_has_the_errors_over_its_images() -> None:
    one = table(seeds=1).assign(error_se=0.25)
    assert (over_seeds(one[one["T"] == 0.6], "error").se == 0.25).all()
