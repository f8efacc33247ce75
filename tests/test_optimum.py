"""The optimal T: found where slopes cancel, with an honest interval; predicted exactly where the assumption holds."""

from __future__ import annotations

import math
from collections.abc import Callable
from functools import cache

import numpy as np
import pandas as pd
import pytest
from builders import CEILING, OF_IMAGES, SETTINGS, images, joined, mixture, of_seed, tables

from difftime.optimum.best import curves_of, optimum, prediction, said
from difftime.optimum.curves import _Gap, predicted_curves, predicted_gap
from difftime.optimum.suggest import Suggestion, blocks, suggest
from difftime.tables.frames import of_networks
from difftime.tables.parquet import BadTable, check, save

TIMES = [0.05, 0.1, 0.2, 0.3, 0.4, 0.5, 0.6, 0.7, 0.8, 0.9, 1.0, 1.2, 1.5, 2.0]
SCOUTS = (0.1, 0.4, 1.0, 2.0)
SPREAD = {"resamples": 200, "confidence": 0.95, "loss": 0.01}


def plain_gap(T: float) -> float:
    return 0.1 + 0.2 * T


def plain_kl(T: float) -> float:
    return 4 * np.exp(-7 * T)


def noisy(gap: Callable[[float], float], noise: float) -> Callable[[float, float, int], float]:
    """A gap times a factor per seed and a smaller one per cell, as trained models have."""

    def of(t: float, T: float, seed: int) -> float:
        own = np.random.default_rng([seed, round(1e6 * T)]).normal()
        return gap(t) * (1 + noise * of_seed(seed)) * (1 + noise / 4 * own)

    return of


def study(noise: float = 0.05, gap=plain_gap, kl=plain_kl, times=TIMES, **options) -> dict[str, pd.DataFrame]:
    return tables(mixture(kl, noisy(gap, noise), times, **options))


def best(found: dict[str, pd.DataFrame], method: str = "trained", **settings) -> pd.Series:
    rows = optimum(found, SETTINGS | settings)
    check(rows, "optimum", "optimum")
    return rows[rows.method == method].iloc[0]


def true_optimum(gap=plain_gap, kl=plain_kl) -> float:
    T = np.linspace(TIMES[0], TIMES[-1], 200_001)
    return T[np.argmin(gap(T) + kl(T))]


# Trained cells of a known density


def test_the_optimum_is_where_the_slopes_of_kl_and_gap_cancel() -> None:
    found = best(study(noise=1e-6))
    assert found.T_star == pytest.approx(true_optimum(), abs=0.01)
    assert found.T_star not in TIMES
    assert found.spacing == pytest.approx(0.1)
    assert found.interior
    assert found.elbo_star == pytest.approx(CEILING - plain_gap(found.T_star) - plain_kl(found.T_star), abs=1e-3)
    assert found.loss_at_star == pytest.approx(CEILING - found.elbo_star)
    assert (found.unit, found.seeds, found.times) == ("nats", 8, len(TIMES))


def test_more_noise_between_cells_widens_the_interval() -> None:
    rows = [best(study(noise=noise)) for noise in (0.02, 0.2)]
    widths = [row.T_star_high - row.T_star_low for row in rows]
    assert 0 < widths[0] < widths[1]
    assert all(row.plateau_low <= row.T_star <= row.plateau_high for row in rows)


def test_a_gap_that_falls_has_its_optimum_at_the_edge_and_says_so() -> None:
    found = study(gap=lambda T: 1 / (1 + T))
    assert best(found).T_star == TIMES[-1]
    assert not best(found).interior
    assert "at the edge" in said(optimum(found, SETTINGS))[0]


def test_times_at_which_a_seed_has_no_finite_gap_are_left_out_and_counted() -> None:
    found = study()
    found["elbo"].loc[(found["elbo"]["T"] == 2.0) & (found["elbo"].seed == 3), ["gap", "elbo"]] = math.nan
    row = best(found)
    assert (row.times, row.times_left_out, row.T_last) == (len(TIMES) - 1, 1, 1.5)


@pytest.mark.parametrize(("times", "known"), [([0.2, 0.6], False), ([0.2, 0.6, 1.0], True)])
def test_fewer_than_three_trained_times_have_no_optimum_of_their_own(times: list[float], known: bool) -> None:
    rows = optimum(study(times=times), SETTINGS)
    assert ("trained" in {*rows.method}) == known
    assert "curve" in {*rows.method}


def test_a_study_without_a_finite_value_has_an_empty_table_and_says_so(tmp_path) -> None:
    found = study(times=[0.2, 0.6])
    for name in ("elbo", "curve"):
        found[name]["gap"] = math.nan
    rows = optimum(found, SETTINGS)
    save(rows, "optimum", tmp_path / "optimum.parquet")
    assert len(rows) == 0
    assert "No T*" in said(rows)[0]


def test_a_single_seed_has_an_optimum_and_no_interval() -> None:
    found = study(noise=1e-6, seeds=1)
    row = best(found)
    assert row.T_star == pytest.approx(true_optimum(), abs=0.01)
    assert row[["T_star_low", "T_star_high", "elbo_star_se", "plateau_low", "plateau_high"]].isna().all()
    assert "one seed: no interval" in said(optimum(found, SETTINGS))[0]


@pytest.mark.parametrize("seeds", [3, 8])
def test_the_interval_covers_the_true_optimum_as_often_as_it_says(seeds: int) -> None:
    """200 studies, so the share of hits has a standard error of 0.015; the times are close, so it is of seeds alone."""
    times = np.linspace(0.3, 1.1, 9).tolist()
    found = study(times=times, seeds=seeds, noise=0, steps=2)
    found["curve"], exact = found["curve"].iloc[:0], found["elbo"].gap.to_numpy()
    rng, hits = np.random.default_rng(3), 0
    for seed in range(200):
        found["elbo"]["gap"] = exact * np.exp(0.05 * rng.standard_normal(len(exact)))
        row = best(found, seed=seed)
        hits += row.T_star_low <= true_optimum() <= row.T_star_high
    assert hits / 200 == pytest.approx(0.95, abs=0.05)


def test_monte_carlo_error_that_the_seeds_share_is_in_the_error_of_the_optimum() -> None:
    for error in (0.0, 0.01):
        found = study(noise=1e-6)
        found["elbo"] = found["elbo"].assign(gap_se=error)
        assert best(found).elbo_star_se == pytest.approx(error, rel=0.3, abs=1e-5)


# Prediction from running ELBOs of a known density


def harder(T: float) -> float:
    """By how much a model trained up to T knows every time less well."""
    return np.exp(0.9 * T)


def gap_at(t: float, T: float, seed: int) -> float:
    return 0.03 * harder(T) * (t + 0.2) * np.exp(0.05 * of_seed(seed))


def additive(t: float, T: float, seed: int) -> float:
    """A longer training costs the same at all t."""
    return (0.02 * (t + 0.2) + 0.1 * T) * np.exp(1e-3 * of_seed(seed))


def kl_at(T: float) -> float:
    return 4 * np.exp(-0.1 * T - 9.95 * T**2) + 1e-9


def truth(gap: Callable[[float, float, int], float] = gap_at, kl=kl_at) -> float:
    T = np.linspace(0.1, 2, 4001)
    values = [np.mean([gap(x, x, seed) for seed in range(8)]) + kl(x) for x in T]
    return T[np.argmin(values)]


@cache
def running(times: tuple[float, ...] = SCOUTS, gap=gap_at, seeds: int = 8) -> dict[str, pd.DataFrame]:
    return tables(mixture(kl_at, gap, times, seeds))


def gaps(found: dict[str, pd.DataFrame]) -> dict[float, _Gap]:
    return {T: _Gap(rows) for T, rows in found["curve"].groupby("T")}


def test_the_prediction_is_exact_at_the_cells_it_is_made_from() -> None:
    found = predicted_gap(gaps(running()), np.array(SCOUTS))
    wanted = [[gap_at(T, T, seed) for T in SCOUTS] for seed in range(8)]
    assert found == pytest.approx(np.array(wanted), rel=1e-6)


def test_where_longer_trainings_only_scale_the_gap_the_prediction_is_the_truth() -> None:
    row = best(running(), "curve")
    assert row.T_star == pytest.approx(truth(), abs=0.01)
    assert row.T_star_low <= row.T_star <= row.T_star_high
    assert row.trained == "0.1, 0.4, 1, 2"


def test_one_model_does_not_see_what_a_longer_training_costs_at_all_times() -> None:
    """Where that is the same at all t, one model alone predicts too large a T; several models do not."""
    found = running(gap=additive)
    assert best(found, "curve").T_star == pytest.approx(truth(additive), abs=0.05)
    one = best(found, "one")
    assert one.trained == "2"
    assert one.T_star > truth(additive) + 0.1


def test_a_few_of_many_cells_predict_as_much_as_they_know() -> None:
    found = running(times=(0.1, 0.2, 0.3, 0.4, 0.5, 0.6, 0.7, 0.8, 1.0, 1.2, 1.5, 2.0))
    row = best(found, "few")
    assert row.trained == "0.1, 0.5, 0.8, 2"
    assert row.T_star == pytest.approx(truth(), abs=0.02)
    assert {*optimum(running(), SETTINGS).method} == {"trained", "curve", "one"}


def test_a_single_model_has_a_prediction_from_its_smallest_time_on() -> None:
    rows = optimum(running(times=(1.0,)), SETTINGS)
    assert [*rows.method] == ["curve"]
    assert rows.T_star[0] == pytest.approx(truth(lambda t, T, seed: gap_at(t, 1.0, seed)), abs=0.02)
    assert rows.spacing[0] == pytest.approx(1 / 40)


def test_a_time_that_two_models_have_up_to_its_last_bit_is_one() -> None:
    """0.8 · 15/40 and 2 · 6/40 are 0.3 and its neighbour: a slope of log KL between the two would be rounding."""
    found = tables(mixture(lambda T: np.exp(-3 * T), gap_at, (0.05, 0.4, 0.8, 2.0)))
    assert (np.diff(np.unique(found["curve"].t)) < 1e-12).sum() > 2
    (_, own), *_ = curves_of(found)
    curve = predicted_curves(own["curve"], own["elbo"], own["curve_units"])["curve"]
    assert np.log(curve.kl) == pytest.approx(-3 * curve.T, abs=1e-9)


def test_a_model_that_diverged_is_left_out_of_the_prediction() -> None:
    found = {name: frame.copy() for name, frame in running().items()}
    found["curve"].loc[found["curve"]["T"] == 0.4, "gap"] = np.nan
    row = best(found, "curve")
    assert (row.trained, row.times_left_out) == ("0.1, 1, 2", 1)


def test_models_whose_curves_do_not_meet_are_not_joined() -> None:
    """The running ELBO of T = 2 begins at 0.05, above T = 0.01: nothing is known of the longer model there."""
    row = best(running(times=(0.01, 0.5, 2.0)), "curve")
    assert row.trained == "0.5, 2"


# Images: bits per dimension, image by image


@cache
def of_unit(unit: int) -> float:
    """A number of mean 0 and standard deviation 1."""
    return float(np.random.default_rng([unit, 3]).normal())


def bits_at(t: float, T: float, seed: int, unit: int) -> float:
    """An image's own level, the KL, and a gap that a longer training raises at all t by what it costs more."""
    own = of_unit(unit)
    return 1.3 + 0.2 * own + 0.5 * kl_at(t) + 0.01 * (1 + 0.1 * own) * t + 0.02 * T + 1e-4 * of_seed(seed)


def image_truth() -> float:
    T = np.linspace(0.1, 2, 4001)
    return T[np.argmin([np.mean([bits_at(x, x, 0, unit) for unit in range(30)]) for x in T])]


IMAGE_TIMES = (0.2, 0.4, 0.6, 0.8, 1.0)


@cache
def pictures(times: tuple[float, ...] = IMAGE_TIMES, bracket: bool = True, **options) -> dict[str, pd.DataFrame]:
    kl = (lambda T: 0.5 * kl_at(T)) if bracket else None
    return tables(images(bits_at, times, kl=kl, **options))


def test_the_optimum_of_images_is_where_their_bits_are_fewest() -> None:
    row = best(pictures(times=(0.2, 0.3, 0.4, 0.5, 0.6, 0.7, 0.8, 1.0)))
    assert row.unit == "bits per dimension"
    assert row.T_star == pytest.approx(image_truth(), abs=0.02)
    assert row.elbo_star == pytest.approx(
        np.mean([bits_at(row.T_star, row.T_star, 0, unit) for unit in range(30)]), abs=2e-4
    )
    assert math.isnan(row.loss_at_star)
    assert row.gain_over_last > 0
    assert row.gain_over_1 == pytest.approx(row.gain_over_last)


def test_a_gain_s_error_is_paired_over_images() -> None:
    """Their own levels cancel: what is left is a thousandth of them times the difference of times, but for the KL."""
    row = best(pictures())
    wanted = 0.001 * (1 - row.T_star) * np.std([of_unit(unit) for unit in range(30)], ddof=1) / math.sqrt(30)
    assert row.gain_over_last_se == pytest.approx(wanted, rel=0.15)
    assert row.gain_over_1_se == row.gain_over_last_se < row.elbo_star_se / 50


def test_a_gain_s_error_is_that_of_the_difference_between_trained_times() -> None:
    """Seeds whose gaps are one curve times a factor: the difference is that of the gaps times their spread."""
    found = study(noise=0.05)
    row = best(found, optimum=SPREAD | {"resamples": 4000})
    gaps = found["elbo"].pivot(index="seed", columns="T", values="gap")
    nearest = min(TIMES, key=lambda T: abs(T - row.T_star))
    expected = (gaps[nearest] - gaps[2.0]).std() / math.sqrt(len(gaps))
    assert row.gain_over_last_se == pytest.approx(expected, rel=0.25)


def test_the_bracket_of_the_kl_finds_the_optimum_between_distant_times() -> None:
    """Where the times are far apart, a curve through the bits alone misses it by more."""
    errors = [abs(best(pictures(bracket=bracket)).T_star - image_truth()) for bracket in (True, False)]
    assert errors[0] < 0.05
    assert errors[0] <= errors[1]


def test_images_are_paired_so_their_own_levels_do_not_widen_the_interval() -> None:
    row = best(pictures())
    assert row.elbo_star_se == pytest.approx(0.2 / math.sqrt(30), rel=0.5)
    assert row.T_star_high - row.T_star_low < 0.1
    assert row.T_star_low <= row.T_star <= row.T_star_high


def test_the_running_bounds_of_images_predict_what_longer_trainings_add() -> None:
    """The excess of a longer training is linear in T and the same at all t: the prediction is exact."""
    found = pictures(times=(0.2, 1.0))
    assert best(found, "curve").T_star == pytest.approx(image_truth(), abs=0.02)
    assert best(found, "one").T_star > image_truth() + 0.05


def test_the_prediction_of_images_is_exact_at_the_trained_times() -> None:
    (_, own), *_ = curves_of(pictures())
    curve = predicted_curves(own["curve"], own["elbo"], own["curve_units"])["curve"]
    wanted = [np.mean([bits_at(T, T, 0, unit) for unit in range(30)]) for T in IMAGE_TIMES]
    assert -np.interp(IMAGE_TIMES, curve.fine, curve.elbo()) == pytest.approx(wanted, abs=1e-5)


def test_several_seeds_of_images_are_resampled_too() -> None:
    row = best(pictures(seeds=3))
    assert row.seeds == 3
    assert row.T_star_low <= row.T_star <= row.T_star_high


@pytest.mark.parametrize("units", [20, 60])
def test_the_interval_of_images_covers_the_true_optimum_as_often_as_it_says(units: int) -> None:
    """150 studies: the share of hits has a standard error of 0.018."""
    times, hits = tuple(np.linspace(0.3, 0.9, 7)), 0
    found = tables(images(lambda t, T, s, u: 0.0, times, units=units, steps=1, kl=lambda T: 0.5 * kl_at(T)))
    found |= {name: found[name].iloc[:0] for name in ("curve", "curve_units")}
    frame, rng = found["elbo_units"], np.random.default_rng(5)
    exact = 0.5 * frame["T"].map(kl_at) + 0.03 * frame["T"]
    T = np.linspace(0.3, 0.9, 6001)
    star = T[np.argmin([0.5 * kl_at(x) + 0.03 * x for x in T])]
    for seed in range(150):
        frame["elbo_bpd"] = 1.3 + exact + 0.01 * rng.standard_normal(len(frame))
        row = best(found, seed=seed)
        hits += row.T_star_low <= star <= row.T_star_high
    assert hits / 150 == pytest.approx(0.95, abs=0.055)


def test_a_T_with_an_image_that_is_not_finite_is_left_out_and_counted() -> None:
    found = {name: frame.copy() for name, frame in pictures().items()}
    found["elbo_units"].loc[found["elbo_units"]["T"] == 0.2, "elbo_bpd"] = [*[0.0] * 29, np.nan]
    row = best(found)
    assert (row.times, row.times_left_out) == (4, 1)


def alike(t: float, T: float, seed: int, unit: int) -> float:
    """Of a network that is the same at every T, with its fewest bits near t = 0.3."""
    return 2 + 3 * (t - 0.3) ** 2 + 0.1 * of_unit(unit)


@pytest.mark.parametrize("times", [(0.5, 1.0), (0.4, 0.5, 0.8, 1.0)])
def test_a_pretrained_network_has_the_curve_of_its_largest_T_whatever_else_was_measured(
    times: tuple[float, ...],
) -> None:
    """Also below the smallest T at which it was measured, and as what it is and no prediction."""
    one, more = (tables(images(alike, at, weighting=None)) for at in ((1.0,), times))
    best_of_one, best_of_more = (optimum(found, OF_IMAGES) for found in (one, more))
    pd.testing.assert_frame_equal(best_of_one, best_of_more)
    (row,) = of_networks(best_of_more).to_dict("records")
    assert (row["method"], row["trained"], row["interior"]) == ("curve", "1", True)
    assert row["T_star"] == pytest.approx(0.3, abs=0.01)
    rows = prediction(more | {"optimum": best_of_more}, OF_IMAGES)
    assert [*rows[rows.method == "trained"].t] == [*times]
    assert rows[rows.method == "curve"].t.min() < 0.1


def test_different_images_of_one_data_set_are_refused() -> None:
    found = tables(joined(images(bits_at, (0.2,), units=2), images(bits_at, (0.4,), units=2, data_digest="b")))
    with pytest.raises(BadTable, match="digits changed between"):
        optimum(found, SETTINGS)


# The table of predictions


@pytest.mark.parametrize("found", [running(), pictures()], ids=["mixture", "images"])
def test_the_table_prediction_holds_the_trained_cells_and_what_was_predicted(found: dict[str, pd.DataFrame]) -> None:
    stars = optimum(found, SETTINGS)
    frame = prediction(found | {"optimum": stars}, SETTINGS)
    check(frame, "prediction", "prediction")
    assert {*frame.method} == {"trained", "curve", "one"}
    trained = frame[frame.method == "trained"]
    column = "elbo" if trained.unit.iloc[0] == "nats" else "elbo_bpd"
    assert trained.elbo.to_numpy() == pytest.approx(found["elbo"].groupby("T")[column].mean().to_numpy())
    assert (frame.elbo_se > 0).all()
    images = found["elbo_units"].unit.nunique()
    assert frame.units.isna().all() if images == 0 else {*frame.units} == {images}
    for method, rows in frame.groupby("method"):
        assert {*rows.T_star} == {*stars[stars.method == method].T_star}


# What to train next


def loop(gap, start: tuple[float, ...], tolerance: float = 0.1) -> tuple[list[Suggestion], list[float]]:
    """The suggestions for a curve whose cells are trained as they are asked for."""
    found, T = [], [*start]
    while not found or found[-1].T is not None:
        (one,) = suggest(running(times=tuple(sorted(T)), gap=gap), SETTINGS, tolerance)
        found.append(one)
        if one.T is not None:
            assert one.T not in T
            T.append(one.T)
        assert len(found) < 15
    return found, sorted(T)


def abrupt(t: float, T: float, seed: int) -> float:
    """What a longer training costs rises between two cells, where none of them sees it."""
    return gap_at(t, 0, seed) * (1 + 2 / (1 + np.exp(-(T - 0.6) / 0.05)))


@pytest.mark.parametrize("start", [(2.0,), (0.1, 2.0), (0.1, 0.5, 1.0, 2.0), (0.1, 0.3, 0.4, 1.7, 2.0)])
@pytest.mark.parametrize("gap", [gap_at, additive, abrupt])
def test_suggestions_end_with_the_optimum_between_near_cells(gap: Callable, start: tuple[float, ...]) -> None:
    found, T = loop(gap, start)
    assert "enough: T* = " in found[-1].why
    star = truth(gap)
    below, above = max(x for x in T if x <= star), min(x for x in T if x >= star)
    assert above - below <= 0.1 * (1 + 1e-9) + 0.02
    assert len(T) - len(start) <= 6


@pytest.mark.parametrize("tolerance", [0.3, 0.1, 0.03])
def test_suggested_times_have_short_names(tolerance: float) -> None:
    found, _ = loop(gap_at, (0.1, 2.0), tolerance)
    for one in found[:-1]:
        assert float(f"{one.T:g}") == one.T
        assert len(f"{one.T:g}") <= 5


def test_an_optimum_at_the_edge_is_looked_for_beyond() -> None:
    found = study(gap=lambda T: 1 / (1 + T), times=[0.2, 0.6, 1.0])
    (one,) = suggest(found, SETTINGS)
    assert one.T == 1.5
    assert "the best may lie beyond" in one.why
    early = study(gap=lambda T: T, kl=lambda T: 1e-3 * np.exp(-T), times=[0.2, 0.6, 1.0])
    assert suggest(early, SETTINGS)[0].T == 0.13


def test_an_edge_that_is_flat_within_its_error_is_enough() -> None:
    def flat(t: float, T: float, seed: int) -> float:
        return (0.1 - 1e-4 * t) * (1 + 0.2 * of_seed(seed))

    found = tables(mixture(lambda T: 1e-9, flat, [0.9, 0.95, 1.0]))
    (one,) = suggest(found, SETTINGS)
    assert one.T is None
    assert "flat" in one.why


def test_images_have_suggestions_too() -> None:
    (one,) = suggest(pictures(times=(0.2, 1.0)), SETTINGS)
    assert abs(one.T - image_truth()) < 0.1
    assert "the cells beside it are 0.8 apart" in one.why
    (done,) = suggest(pictures(), SETTINGS, tolerance=0.25)
    assert done.T is None
    assert done.why.startswith("enough: T* = ")


def test_a_curve_of_which_nothing_is_known_says_so() -> None:
    found = study(times=[0.2, 0.6])
    found["curve"]["gap"] = np.nan
    (one,) = suggest(found, SETTINGS)
    assert one.T is None
    assert "none of its 2 cells" in one.why
    (other,) = suggest(found | {"curve": found["curve"].iloc[:0]}, SETTINGS)
    assert "no running ELBO" in other.why


def test_the_blocks_to_add_measure_what_the_study_measures_there() -> None:
    found = [
        Suggestion("toy", "vp", "mlp", "standard", 0.65, ""), Suggestion("toy", "vp", "mlp", "matched", 0.6, ""),
        Suggestion("toy", "ve", "mlp", "standard", None, ""), Suggestion("digits", "vp", "unet", "full", 0.65, ""),
    ]  # fmt: skip
    whole = [{"dataset": "toy", "sde": ["vp", "ve"], "net": "mlp", "T": [0.2, 1.0], "measure": "elbo"}]
    assert blocks(found, whole) == [
        {"dataset": "toy", "sde": "vp", "net": "mlp", "T": [0.6, 0.65], "measure": "elbo"},
        {"dataset": "digits", "sde": "vp", "net": "unet", "T": [0.65]},
    ]
    assert blocks(found[2:3]) == []
