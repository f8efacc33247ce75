"""Which choice is efficient: what costs no more and is better beats, beyond its errors or not at all."""

from __future__ import annotations

import math
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from difftime.optimum.tradeoff import KEYS, Quality, tradeoff, verdicts
from difftime.tables import derived as tables
from difftime.tables.schema import TABLES

DEFAULTS = {"string": "none", "float64": 0.0, "int64": 1, "bool": True, "binary": b""}
TOY = {"dataset": "toy", "sde": "vp", "net": "mlp", "p_noise": "standard"}
PICTURES = TOY | {"dataset": "pictures", "net": "unet"}
SEEDS = 4


def exact(*means: float) -> Quality:
    """Two seeds that agree: a quality without error."""
    return Quality(np.array(means)[:, None, None] * np.ones((1, 2, 1)), np.zeros(len(means)))


def noisy(means: list[float], error: float) -> Quality:
    """Samples of their own for every choice, each with this standard error."""
    return Quality(np.array(means, float)[:, None, None], np.full(len(means), error))


def test_a_choice_is_efficient_unless_another_costs_no_more_and_is_no_worse_in_everything() -> None:
    cost = np.array([1.0, 2.0, 3.0, 3.0])
    assert verdicts(cost, [exact(0, 1, 0.5, 2)]) == ["yes", "yes", "no", "yes"]
    assert verdicts(cost, [exact(0, 1, 0.5, 2), exact(0, 0, 1, 0)]) == ["yes"] * 4
    assert verdicts(cost, [exact(3, 2, 1, 0)]) == ["yes", "no", "no", "no"]


def test_ties_beat_each_other_only_where_one_is_strict() -> None:
    assert verdicts(np.array([1.0, 1.0]), [exact(2, 2)]) == ["yes", "yes"]
    assert verdicts(np.array([1.0, 2.0]), [exact(2, 2)]) == ["yes", "no"]
    assert verdicts(np.array([1.0, 1.0]), [exact(2, 3)]) == ["no", "yes"]
    assert verdicts(np.array([1.0, 1.0]), [exact(2, 3), exact(1, 0)]) == ["yes", "yes"]


@pytest.mark.parametrize(("lead", "dearer"), [(-2.1, "yes"), (-1.9, "undecided"), (1.9, "undecided"), (2.1, "no")])
def test_what_lies_within_two_standard_errors_of_a_difference_is_undecided(lead: float, dearer: str) -> None:
    """The cheap choice leads by so many standard errors of the difference, which is sqrt(2) times that of one."""
    error = 0.3
    assert verdicts(np.array([1.0, 2.0]), [noisy([lead * error * math.sqrt(2), 0.0], error)]) == ["yes", dearer]


def test_equal_costs_within_the_error_are_both_undecided() -> None:
    assert verdicts(np.array([1.0, 1.0]), [noisy([0.0, 0.1], 0.3)]) == ["undecided", "undecided"]


def test_an_unknown_error_leaves_all_but_the_cheapest_undecided() -> None:
    assert verdicts(np.array([1.0, 2.0, 3.0]), [noisy([0.0, 9.0, -9.0], math.nan)]) == ["yes", "undecided", "undecided"]


def test_what_is_not_known_is_neither_judged_nor_held_against_others() -> None:
    cost = np.array([1.0, 2.0, 3.0, math.nan])
    assert verdicts(cost, [exact(math.nan, 1, 0, 9)]) == [None, "yes", "no", None]
    assert verdicts(cost, [exact(5, 1, 2, 0), exact(*4 * [math.nan])]) == ["yes", "no", "no", None]
    assert verdicts(cost, []) == [None] * 4
    assert verdicts(np.full(4, math.nan), [exact(1, 2, 3, 4)]) == [None] * 4


def test_pairs_of_seeds_and_images_tell_more_than_their_spread() -> None:
    rng = np.random.default_rng(0)
    common = rng.normal(size=(1, SEEDS, 50))
    quality = Quality(np.concatenate([common, common + 0.05]), np.zeros(2))
    assert quality.se[0] > 0.05
    assert quality.difference_se() == pytest.approx(np.zeros((2, 2)), abs=1e-12)
    assert verdicts(np.array([1.0, 1.0]), [quality]) == ["no", "yes"]


@pytest.mark.parametrize(("seeds", "units"), [(2, 1), (8, 1), (1, 40)])
def test_two_standard_errors_of_a_difference_cover_it_as_often_as_those_of_a_normal(seeds: int, units: int) -> None:
    """Also of two seeds, as they are widened. 2,000 differences: the share has a standard error of 0.005."""
    rng, n = np.random.default_rng(1), 2000
    common = rng.normal(size=(n, 1, seeds, units))
    found = [Quality(values, np.zeros(2)) for values in common + 0.2 * rng.normal(size=(n, 2, seeds, units))]
    inside = [abs(one.mean[0] - one.mean[1]) < 2 * one.difference_se()[0, 1] for one in found]
    assert np.mean(inside) == pytest.approx(0.954, abs=0.02)


def test_seeds_and_images_both_count_for_the_error() -> None:
    rng = np.random.default_rng(2)
    difference = rng.normal(size=(1, 5, 1)) + rng.normal(size=(1, 1, 30))
    quality = Quality(np.concatenate([difference, np.zeros((1, 5, 30))]), np.zeros(2))
    apart = [np.std(difference.mean(axis), ddof=1) / math.sqrt(n) for axis, n in ((2, 5), (1, 30))]
    assert quality.se[0] == pytest.approx(math.hypot(*apart))
    assert quality.difference_se()[0, 1] > quality.se[0]


def frame_of(table: str, rows: list[dict]) -> pd.DataFrame:
    filled = {c.name: DEFAULTS[c.type] for c in TABLES[table]}
    return tables.check(pd.DataFrame([filled | row for row in rows], columns=list(filled)), table, table)


def toy_cell(T: float, elbo: float, nfe: int, **changes: object) -> dict[str, list[dict]]:
    """The rows of one cell of the toy: seeds scatter about their mean by a pattern that all cells share."""
    cell = TOY | {"T": T, "epsilon": 1e-5} | changes
    rows: dict[str, list[dict]] = {
        "training": [cell | {"seconds": 9.0, "seeds": SEEDS, "device": "CPU"}], "elbo": [], "likelihood": [],
        "samples": [],
    }  # fmt: skip
    for seed, s in enumerate((0.01, -0.01, 0.02, -0.02)):
        of_seed = cell | {"seed": seed}
        rows["elbo"].append(of_seed | {"elbo": elbo + s})
        rows["likelihood"].append(of_seed | {"log_q_ode": elbo + 0.1 - s, "nfe": nfe + seed})
        for sampler, more in (("sde", 0.0), ("ode", 1.0)):
            drawn = {"sampler": sampler, "steps": int(500 * T), "wasserstein1": 0.2 - 0.1 * elbo + s + more}
            rows["samples"].append(of_seed | drawn | {"wasserstein1_floor": 0.01})
    return rows


def study(*cells: dict[str, list[dict]]) -> dict[str, pd.DataFrame]:
    """The tables of all cells."""
    found = {}
    for name in {name: None for cell in cells for name in cell}:
        known = {c.name for c in TABLES[name]}
        rows = [row for cell in cells for row in cell.get(name, [])]
        found[name] = frame_of(name, [{key: value for key, value in row.items() if key in known} for row in rows])
    return found


def checked(found: dict[str, pd.DataFrame]) -> pd.DataFrame:
    frame = tradeoff(found)
    return tables.check(frame, "tradeoff", "tradeoff")


def picture_cell(T: float, bits: float, nfe: float, distance: float, **changes: object) -> dict[str, list[dict]]:
    """The rows of one cell of images: one seed, four images that differ by as much in every cell."""
    row = PICTURES | {"T": T, "seed": 0, "epsilon": 1e-5, "data_digest": "a"} | changes
    spread = (0.3, -0.3, 0.1, -0.1)
    return {
        "training": [row | {"seconds": 99.0, "device": "CPU"}],
        "bpd": [row | {"bpd": bits, "bpd_se": 0.13, "nfe": float(nfe), "nfe_sd": 4.0}],
        "bpd_images": [row | {"image": k, "draw": 0, "bpd": bits + s} for k, s in enumerate(spread)],
        "image_elbo": [row | {"elbo_bpd": bits - 0.1, "elbo_bpd_se": 0.14}],
        "image_elbo_images": [row | {"image": k, "elbo": -100 * (bits + s)} for k, s in enumerate(spread)],
        "image_quality": [
            row | {
                "wasserstein1": distance, "wasserstein1_se": 0.02, "wasserstein1_floor": 0.08, "steps": int(200 * T),
            }
        ],
    }  # fmt: skip


def test_means_errors_and_costs_of_a_mixture_are_those_over_its_seeds() -> None:
    row = checked(study(toy_cell(0.5, -1.0, 60))).iloc[0]
    spread = np.std([0.01, -0.01, 0.02, -0.02], ddof=1) / 2
    assert (row.elbo, row.elbo_se, row.likelihood, row.likelihood_se) == pytest.approx((-1, spread, -0.9, spread))
    assert (row.distance, row.distance_se, row.distance_floor) == pytest.approx((0.3, spread, 0.01))  # of the SDE alone
    assert (row.nfe, row.nfe_sd, row.sde_steps) == pytest.approx((61.5, np.std(range(4), ddof=1), 250))
    assert (row.unit, row.training_seconds, row.training_device, row.seeds) == ("nats", 9.0, "CPU", SEEDS)
    assert (row.efficient_ode, row.efficient_sde) == ("yes", "yes")


def test_a_dearer_and_worse_time_is_not_efficient_and_seeds_are_paired() -> None:
    """All lie within one standard error of each other, were they not paired."""
    frame = checked(study(toy_cell(0.5, -1.0, 60), toy_cell(1.0, -0.995, 80), toy_cell(2.0, -0.997, 90)))
    assert frame.efficient_ode.to_list() == frame.efficient_sde.to_list() == ["yes", "yes", "no"]
    assert frame.elbo_se.min() > 0.005


def test_bits_are_better_the_fewer_and_images_are_paired() -> None:
    frame = checked(
        study(picture_cell(0.2, 1.9, 170, 0.5), picture_cell(0.6, 1.8, 400, 0.3), picture_cell(1.0, 1.85, 600, 0.6))
    )
    assert frame.efficient_ode.to_list() == ["yes", "yes", "no"]
    assert frame.efficient_sde.to_list() == ["yes", "yes", "no"]
    first = frame.iloc[0]
    assert (first.unit, first.likelihood, first.likelihood_se, first.elbo, first.elbo_se) == (
        "bits per dimension", 1.9, 0.13, pytest.approx(1.8), 0.14,
    )  # fmt: skip
    assert (first.nfe, first.nfe_sd, first.sde_steps) == (170, 4, 40)
    assert (first.distance, first.distance_se, first.distance_floor) == (0.5, 0.02, 0.08)


def test_distances_within_two_standard_errors_leave_it_undecided() -> None:
    frame = checked(study(picture_cell(0.6, 1.8, 400, 0.5), picture_cell(1.0, 1.85, 600, 0.48)))
    assert frame.efficient_ode.to_list() == ["yes", "no"]
    assert frame.efficient_sde.to_list() == ["yes", "undecided"]


def test_a_failed_image_or_seed_has_null_and_no_verdict() -> None:
    found = study(
        picture_cell(0.2, 1.9, 170, 0.5),
        picture_cell(0.6, 1.8, 400, 0.3),
        toy_cell(0.5, -1.0, 60),
        toy_cell(0.4, -2.0, 70),
    )
    found["bpd_images"].loc[2, "bpd"] = math.nan
    found["elbo"].loc[1, "elbo"] = math.nan
    frame = checked(found).set_index(["dataset", "T"])
    failed = frame.loc[("pictures", 0.2)]
    assert failed[["likelihood", "likelihood_se", "efficient_ode"]].isna().all()
    assert (failed.efficient_sde, frame.loc[("pictures", 0.6)].efficient_ode) == ("yes", "yes")
    toy = frame.loc["toy"]
    assert toy.loc[0.5, ["elbo", "elbo_se", "efficient_sde"]].isna().all()
    assert toy.efficient_ode.to_dict() == {0.5: "yes", 0.4: "no"}


def test_only_equal_data_and_equal_epsilons_are_compared() -> None:
    worse = toy_cell(1.0, -5.0, 90)
    for change in ({"dataset": "other"}, {"epsilon": 1e-3, "sde": "vp-late"}):
        moved = {name: [row | change for row in rows] for name, rows in worse.items()}
        assert checked(study(toy_cell(0.5, -1.0, 60), moved)).efficient_ode.to_list() == ["yes", "yes"]
    assert checked(study(toy_cell(0.5, -1.0, 60), worse)).efficient_ode.to_list() == ["yes", "no"]


@pytest.mark.parametrize("measured", ["elbo", "likelihood", "samples", "bpd", "image_elbo", "image_quality"])
def test_a_study_that_measures_one_thing_only_has_a_table_of_it(measured: str, tmp_path: Path) -> None:
    whole = study(toy_cell(0.5, -1.0, 60), picture_cell(0.2, 1.9, 170, 0.5))
    found = {name: whole[name] for name in (measured, f"{measured}_images", "training") if name in whole}
    frame = checked(found)
    assert len(frame) == 1
    tables.save(frame, "tradeoff", tmp_path / "tradeoff.parquet")
    row = frame.iloc[0]
    shown = {
        "elbo": ["elbo"], "image_elbo": ["elbo"], "likelihood": ["nfe", "likelihood", "efficient_ode"],
        "bpd": ["nfe", "likelihood", "efficient_ode"], "samples": ["sde_steps", "distance", "efficient_sde"],
        "image_quality": ["sde_steps", "distance", "efficient_sde"],
    }  # fmt: skip
    columns = ["nfe", "sde_steps", "elbo", "likelihood", "distance", "efficient_ode", "efficient_sde"]
    assert [name for name in columns if not pd.isna(row[name])] == shown[measured]


def test_a_single_seed_of_a_mixture_has_no_error_and_no_verdict_beyond_the_cheapest() -> None:
    cells = [
        {name: rows[:1] if name != "samples" else rows[:2] for name, rows in toy_cell(T, -T, int(90 * T)).items()}
        for T in (0.5, 1.0)
    ]
    frame = checked(study(*cells))
    assert frame[["elbo_se", "likelihood_se", "distance_se", "nfe_sd"]].isna().all(axis=None)
    assert frame.efficient_ode.to_list() == frame.efficient_sde.to_list() == ["yes", "undecided"]


def test_different_images_of_one_data_set_are_refused() -> None:
    cells = picture_cell(0.2, 1.9, 170, 0.5), picture_cell(0.6, 1.8, 400, 0.3, data_digest="b")
    with pytest.raises(tables.BadTable, match="pictures changed between"):
        tradeoff(study(*cells))


def test_every_choice_has_one_row() -> None:
    both = [toy_cell(T, -1.0, 60, p_noise=p_noise) for T in (0.5, 1.0) for p_noise in ("standard", "matched")]
    for cell in both[1::2]:
        del cell["training"]
    frame = checked(study(*both))
    assert len(frame) == len(frame.drop_duplicates(KEYS)) == 4
