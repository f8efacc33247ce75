"""The cheapest choice within a stated loss, and the table of costs and qualities it is marked in."""

from __future__ import annotations

import math

import numpy as np
import pandas as pd
import pytest
from builders import DIGITS, OF_IMAGES, SETTINGS, TOY, frame, joined, tables

from difftime.optimum.cheapest import cheapest, texts
from difftime.optimum.choice import choose
from difftime.optimum.tradeoff import tradeoff
from difftime.tables.paired import difference
from difftime.tables.parquet import BadTable, check
from difftime.tables.statistics import ERRORS, Paired, over_seeds, wider

SEEDS, LOSS = 4, 0.01


def exact(*means: float) -> Paired:
    """Two seeds that agree: a quality without error."""
    return Paired(np.array(means)[:, None, None] * np.ones((1, 2, 1)), np.zeros(len(means)))


def independent(means: list[float], error: float) -> Paired:
    """Samples of their own for every choice, each with this standard error."""
    return Paired(np.array(means, float)[:, None, None], np.full(len(means), error))


def chosen(quality: Paired, cost: list[float], loss: float = LOSS) -> int | None:
    found = choose(quality, np.array(cost), np.arange(len(cost)), loss)
    return None if found is None else found[0]


# The rule


def test_the_cheapest_within_the_loss_is_taken_and_the_better_of_two_that_cost_the_same() -> None:
    assert chosen(exact(1.0, 0.995, 0.98), [3, 2, 1]) == 1
    assert chosen(exact(1.0, 0.995, 0.98), [3, 2, 1], loss=0.021) == 2
    assert chosen(exact(1.0, 0.995, 0.997), [3, 2, 2]) == 2
    assert chosen(exact(1.0, 0.995), [1, 2]) == 0


@pytest.mark.parametrize(("room", "taken"), [(1.9, "the best"), (2.1, "the cheaper")])
def test_two_standard_errors_of_the_difference_more_must_be_within_the_loss(room: float, taken: str) -> None:
    """The room up to the loss, in standard errors of the difference: sqrt(2) times that of one."""
    error = 0.001
    behind = LOSS - room * error * math.sqrt(2)
    place = chosen(independent([0.0, -behind], error), [2, 1])
    assert ("the best", "the cheaper")[place] == taken


def test_an_unknown_error_leaves_the_best_alone() -> None:
    assert chosen(independent([0.0, -1e-9], math.nan), [2, 1]) == 0


def test_what_is_not_known_is_no_choice() -> None:
    assert chosen(exact(math.nan, 1.0, 0.999), [1, 3, 2]) == 2
    assert chosen(exact(1.0, 0.999, 0.999), [3, math.nan, 2]) == 2
    assert chosen(exact(math.nan, math.nan), [1, 2]) is None


def test_pairs_of_seeds_and_images_tell_more_than_their_spread() -> None:
    common = np.random.default_rng(0).normal(size=(1, SEEDS, 50))
    quality = Paired(np.concatenate([common, common - 0.005]), np.zeros(2))
    assert quality.se[0] > 0.05
    behind, se = quality.behind(0)
    assert behind == pytest.approx([0, 0.005])
    assert se == pytest.approx(np.zeros(2), abs=1e-12)
    assert chosen(quality, [2, 1]) == 1


@pytest.mark.parametrize(("seeds", "units"), [(2, 1), (8, 1), (1, 40)])
def test_two_standard_errors_of_a_difference_cover_it_as_often_as_those_of_a_normal(seeds: int, units: int) -> None:
    """Also of two seeds, as they are widened. 2,000 differences: the share has a standard error of 0.005."""
    rng, n = np.random.default_rng(1), 2000
    common = rng.normal(size=(n, 1, seeds, units))
    values = common + 0.2 * rng.normal(size=(n, 2, seeds, units))
    found = [Paired(one, np.zeros(2)).behind(0) for one in values]
    inside = [abs(behind[1]) < ERRORS * se[1] for behind, se in found]
    assert np.mean(inside) == pytest.approx(0.954, abs=0.02)
    assert wider(2) > wider(8) > 1


def test_seeds_and_images_both_count_for_the_error() -> None:
    rng = np.random.default_rng(2)
    values = rng.normal(size=(1, 5, 1)) + rng.normal(size=(1, 1, 30))
    quality = Paired(np.concatenate([values, np.zeros((1, 5, 30))]), np.zeros(2))
    apart = [np.std(values.mean(axis), ddof=1) / math.sqrt(n) for axis, n in ((2, 5), (1, 30))]
    assert quality.se[0] == pytest.approx(math.hypot(*apart))
    assert quality.behind(0)[1][1] > quality.se[0]


def test_a_difference_leaves_out_the_units_that_are_not_finite_in_either() -> None:
    index = pd.MultiIndex.from_product([[0, 1], range(5)], names=["seed", "unit"])
    one = pd.Series(np.arange(10.0), index)
    other = one - 0.5
    assert difference(one, other) == (pytest.approx(0.5), pytest.approx(0, abs=1e-12))
    other[0, 2], one[1, 3] = math.inf, math.inf
    assert difference(one, other).mean == pytest.approx(0.5)
    assert np.isnan(difference(one, None)).all()
    assert np.isnan(difference(one * math.inf, other)).all()


def test_the_mean_and_its_error_are_those_of_the_finite_seeds() -> None:
    mean, se = over_seeds([1.0, 2.0, 4.0, math.nan, math.inf], 0.1)
    assert mean == pytest.approx(7 / 3)
    assert se == pytest.approx(math.hypot(np.std([1, 2, 4], ddof=1) / math.sqrt(3), 0.1))
    assert over_seeds([2.0], 0.1) == (2.0, 0.1)
    assert np.isnan(over_seeds([2.0]).se)
    assert np.isnan(over_seeds([math.nan], 0.1)).all()


# The tables


def toy_cell(T: float, elbo: float, nfe: int, seeds: int = SEEDS, **changes: object) -> dict[str, list[dict]]:
    """The rows of one cell of the toy: seeds scatter about their mean by a pattern that all cells share."""
    cell = TOY | {"T": T, "epsilon": 1e-5} | changes
    rows: dict[str, list[dict]] = {"training": [cell | {"seeds": seeds}], "elbo": [], "likelihood": [], "samples": []}
    for seed, s in enumerate((0.01, -0.01, 0.02, -0.02)[:seeds]):
        of_seed = cell | {"seed": seed}
        rows["elbo"].append(of_seed | {"elbo": elbo + s, "elbo_se": 0.0})
        rows["likelihood"].append(of_seed | {"log_q_ode": elbo + 0.1 - s, "nfe": nfe + seed})
        for sampler, more in (("sde", 0.0), ("ode", 1.0)):
            drawn = {"sampler": sampler, "steps": int(500 * T), "wasserstein1": 0.2 - 0.1 * elbo + s + more}
            rows["samples"].append(of_seed | drawn | {"wasserstein1_floor": 0.01})
    return rows


def picture_cell(T: float, bits: float, nfe: float, distance: float, **changes: object) -> dict[str, list[dict]]:
    """The rows of one cell of images: one seed, four images that differ by as much in every cell."""
    row = DIGITS | {"T": T, "seed": 0, "epsilon": 1e-5, "data_digest": "a", "sampler": "sde", "units": 4} | changes
    spread = (0.3, -0.3, 0.1, -0.1)
    return {
        "training": [row | {"seeds": 1}],
        "likelihood": [row | {"bpd": bits, "bpd_se": 0.13, "nfe": float(nfe), "nfe_sd": 4.0}],
        "likelihood_units": [row | {"unit": k, "draw": 0, "bpd": bits + s} for k, s in enumerate(spread)],
        "elbo": [row | {"elbo_bpd": bits + 0.1, "elbo_bpd_se": 0.13}],
        "elbo_units": [row | {"unit": k, "elbo_bpd": bits + 0.1 + s} for k, s in enumerate(spread)],
        "samples": [
            row | {
                "wasserstein1": distance, "wasserstein1_se": 0.02, "wasserstein1_floor": 0.08, "steps": int(200 * T),
            }
        ],
    }  # fmt: skip


def study(*cells: dict[str, list[dict]]) -> dict[str, pd.DataFrame]:
    return tables(joined(*cells))


def both(found: dict[str, pd.DataFrame], **optimum: float) -> tuple[pd.DataFrame, pd.DataFrame]:
    of = OF_IMAGES if {"digits"} == {*found["training"].dataset} else SETTINGS
    settings = of | {"optimum": of["optimum"] | optimum}
    rows = check(cheapest(found, settings), "cheapest", "cheapest")
    return rows, check(tradeoff(found | {"cheapest": rows}, settings), "tradeoff", "tradeoff")


def test_a_cheaper_choice_within_the_loss_of_the_best_is_found_as_seeds_are_paired() -> None:
    """All lie within one standard error of each other, were they not paired."""
    found = study(toy_cell(0.5, -1.004, 60), toy_cell(1.0, -1.0, 80), toy_cell(2.0, -1.002, 90))
    rows, shown = both(found)
    ode, sde = (rows[rows.model == model].iloc[0] for model in ("ode", "sde"))
    assert (ode["T"], ode.best_T, ode.choices, ode.unit) == (0.5, 1.0, 3, "nats")
    assert (ode.value, ode.best_value, ode.behind) == pytest.approx((-0.904, -0.9, 0.004))
    assert (ode.cost, ode.best_cost, sde.cost, sde.best_cost) == (61.5, 81.5, 250, 500)
    assert ode.behind_se == pytest.approx(0, abs=1e-12)
    assert ode.value_se > 0.005
    assert shown.set_index("T").cheapest_ode.to_dict() == {0.5: True, 1.0: False, 2.0: False}
    strict, _ = both(found, loss=0.003)
    assert {*strict["T"]} == {1.0}


def test_a_matched_p_noise_is_compared_with_what_the_standard_one_alone_allows() -> None:
    cells = [toy_cell(1.0, -1.0, 80), toy_cell(0.5, -1.3, 60), toy_cell(0.5, -1.003, 60, p_noise="matched")]
    row = both(study(*cells[:2], {k: v for k, v in cells[2].items() if k != "training"}))[0].iloc[0]
    assert (row["T"], row.p_noise, row.standard_T) == (0.5, "matched", 1.0)
    assert row.saved == pytest.approx(1 - 61.5 / 81.5)
    alone = study(toy_cell(0.5, -1.003, 60, p_noise="matched"))
    assert both(alone)[0][["standard_T", "standard_value", "saved"]].isna().all(axis=None)


def test_bits_are_better_the_fewer_and_images_are_paired() -> None:
    found = study(
        picture_cell(0.2, 1.9, 170, 0.5), picture_cell(0.6, 1.805, 400, 0.3), picture_cell(1.0, 1.8, 600, 0.6)
    )
    rows, shown = both(found)
    ode, sde = (rows[rows.model == model].iloc[0] for model in ("ode", "sde"))
    assert (ode["T"], ode.best_T, ode.unit) == (0.6, 1.0, "bits per dimension")
    assert (ode.value, ode.behind, sde.value, sde.cost) == pytest.approx((1.805, 0.005, 1.905, 120))
    first = shown.iloc[0]
    se = np.std([0.3, -0.3, 0.1, -0.1], ddof=1) / 2
    assert (first.likelihood, first.likelihood_se, first.elbo, first.elbo_se) == pytest.approx((1.9, se, 2.0, se))
    assert (first.nfe, first.nfe_sd, first.sde_steps, first.distance, first.distance_se, first.distance_floor) == (
        170, 4, 40, 0.5, 0.02, 0.08,
    )  # fmt: skip


def test_means_errors_and_costs_of_a_mixture_are_those_over_its_seeds() -> None:
    row = both(study(toy_cell(0.5, -1.0, 60)))[1].iloc[0]
    spread = np.std([0.01, -0.01, 0.02, -0.02], ddof=1) / 2
    assert (row.elbo, row.elbo_se, row.likelihood, row.likelihood_se) == pytest.approx((-1, spread, -0.9, spread))
    assert (row.distance, row.distance_se, row.distance_floor) == pytest.approx((0.3, spread, 0.01))  # of the SDE alone
    assert (row.nfe, row.nfe_sd, row.sde_steps) == pytest.approx((61.5, np.std(range(4), ddof=1), 250))
    assert (row.unit, row.seeds, row.epsilon) == ("nats", SEEDS, 1e-5)


def test_a_failed_image_or_seed_has_null_and_is_no_choice() -> None:
    found = study(picture_cell(0.2, 1.7, 170, 0.5), picture_cell(0.6, 1.8, 400, 0.3))
    found["likelihood_units"].loc[2, "bpd"] = math.nan
    rows, shown = both(found)
    assert shown.set_index("T").loc[0.2, ["likelihood", "likelihood_se"]].isna().all()
    assert rows[rows.model == "ode"]["T"].tolist() == [0.6]
    found = study(toy_cell(0.5, -1.0, 60), toy_cell(0.4, -2.0, 70))
    found["elbo"].loc[found["elbo"].seed == 1, "elbo"] = math.nan
    assert both(found)[0].model.tolist() == ["ode"]


def test_a_single_seed_of_a_mixture_has_no_error_and_only_the_best_is_sure() -> None:
    rows, shown = both(study(*(toy_cell(T, -1 - 1e-6 / T, int(90 * T), seeds=1) for T in (0.5, 1.0))))
    assert shown[["elbo_se", "likelihood_se", "distance_se", "nfe_sd"]].isna().all(axis=None)
    assert rows["T"].tolist() == [1.0, 1.0]


@pytest.mark.parametrize("measured", ["elbo", "likelihood", "samples"])
def test_a_study_that_measures_one_thing_only_has_tables_of_it(measured: str) -> None:
    for cell in (toy_cell(0.5, -1.0, 60), picture_cell(0.2, 1.9, 170, 0.5)):
        rows, shown = both(study({name: cell.get(name, []) for name in (measured, f"{measured}_units", "training")}))
        columns = {"elbo": ["elbo"], "likelihood": ["nfe", "likelihood"], "samples": ["sde_steps", "distance"]}
        every = ["nfe", "sde_steps", "elbo", "likelihood", "distance"]
        assert [name for name in every if not pd.isna(shown.iloc[0][name])] == columns[measured]
        assert rows.model.tolist() == (["ode"] if measured == "likelihood" else [])


def test_different_images_of_one_data_set_are_refused() -> None:
    cells = picture_cell(0.2, 1.9, 170, 0.5), picture_cell(0.6, 1.8, 400, 0.3, data_digest="b")
    for function in (cheapest, tradeoff):
        with pytest.raises(BadTable, match="digits changed between"):
            function(study(*cells) | {"cheapest": frame("cheapest", [])}, OF_IMAGES)


def test_every_choice_has_one_row_of_the_tradeoff() -> None:
    cells = [toy_cell(T, -1.0, 60, p_noise=p_noise) for T in (0.5, 1.0) for p_noise in ("standard", "matched")]
    for cell in cells[1::2]:
        del cell["training"]
    shown = both(study(*cells))[1]
    assert len(shown) == len(shown.drop_duplicates(["dataset", "sde", "net", "T", "p_noise"])) == 4


def test_the_tradeoff_has_how_many_images_and_samples_are_behind_each_quality() -> None:
    cell = picture_cell(0.6, 1.805, 400, 0.3)
    for table, units in (("elbo", 10_000), ("likelihood", 1_000), ("samples", 32)):
        cell[table][0]["units"] = units
    found = [*both(study(cell))[1][["elbo_units", "likelihood_units", "distance_units"]].to_numpy()[0]]
    assert found == [10_000, 1_000, 32]


def test_the_table_for_people_names_the_loss_and_the_choice() -> None:
    rows, _ = both(study(picture_cell(0.6, 1.805, 400, 0.3), picture_cell(1.0, 1.8, 600, 0.6)))
    found = texts(rows)
    assert "| T = 0.6, standard | 1.805 ± " in found[".md"]
    assert "by at most 0.01" in found[".md"]
    assert found[".tex"].isascii()
    assert "the loss" in texts(rows.iloc[:0])[".md"]
