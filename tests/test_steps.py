"""The table steps: means over seeds, and paired differences against more evaluations and against T = 1."""

from __future__ import annotations

import math
from itertools import product
from typing import Any

import numpy as np
import pandas as pd
import pytest
from builders import DIGITS, SETTINGS, TOY, frame

from difftime.tables.parquet import BadTable, check
from difftime.tables.steps import steps

Rows = list[dict[str, Any]]
SEEDS = 5
FLOOR = 0.03


def seed_of(seed: int) -> float:
    """What a seed adds everywhere: it falls out of every difference."""
    return 0.3 * math.sin(1 + seed)


def distance(T: float, p_noise: str, seed: int, budget: int, own: float = 0.01) -> float:
    """`own` is the spread of what a seed does not share with itself at another T."""
    return 1 + T / budget + (0.2 if p_noise == "standard" else 0) + seed_of(seed) + own * math.cos(7 * seed + 3 * T)


def measured(times: tuple[float, ...] = (0.4, 1.0), p_noises: tuple[str, ...] = ("standard", "matched")) -> dict:
    few: Rows = []
    many: Rows = []
    for T, p_noise, seed in product(times, p_noises, range(SEEDS)):
        key = TOY | {"T": T, "p_noise": p_noise, "seed": seed, "units": 64, "finite": 1.0, "wasserstein1_floor": FLOOR}
        for sampler, budget in product(("ddim", "heun"), (4, 8)):
            found = {"wasserstein1": distance(T, p_noise, seed, budget), "nfe": budget}
            few.append(key | {"sampler": sampler, "evaluations": budget} | found)
        for sampler, cost in (("sde", 500), ("ode", 90 + seed)):
            many.append(key | {"sampler": sampler, "nfe": cost, "wasserstein1": distance(T, p_noise, seed, cost)})
    return {"few_steps": frame("few_steps", few), "samples": frame("samples", many)}


def row_of(found: pd.DataFrame, **wanted: Any) -> Any:
    for key, value in wanted.items():
        found = found[found[key] == value]
    (row,) = found.itertuples()
    return row


def of_seeds(values: list[float]) -> tuple[float, float]:
    return float(np.mean(values)), float(np.std(values, ddof=1) / math.sqrt(len(values)))


def test_differences_are_paired_over_seeds() -> None:
    found = check(steps(measured(), SETTINGS), "steps", "steps")
    assert len(found) == 2 * 2 * 2 * 2
    row = row_of(found, T=0.4, p_noise="matched", sampler="ddim", evaluations=4)
    own = [distance(0.4, "matched", seed, 4) for seed in range(SEEDS)]
    usual = [distance(1.0, "standard", seed, 4) for seed in range(SEEDS)]
    many = [distance(0.4, "matched", seed, 90 + seed) for seed in range(SEEDS)]
    assert (row.wasserstein1, row.wasserstein1_se) == pytest.approx(of_seeds(own))
    assert (row.gain, row.gain_se) == pytest.approx(of_seeds([a - b for a, b in zip(usual, own, strict=True)]))
    assert (row.behind, row.behind_se) == pytest.approx(of_seeds([a - b for a, b in zip(own, many, strict=True)]))
    assert (row.many_wasserstein1, row.many_wasserstein1_se) == pytest.approx(of_seeds(many))
    assert (row.many, row.many_nfe, row.against_T, row.wasserstein1_floor) == ("ode", 92, 1.0, FLOOR)
    assert (row.seeds, row.finite, row.many_finite, row.units) == (SEEDS, SEEDS, SEEDS, 64)
    # what the seeds share has fallen out
    assert row.gain_se < 0.1 * row.wasserstein1_se


def test_the_start_that_all_is_compared_with_gains_nothing_over_itself() -> None:
    row = row_of(steps(measured(), SETTINGS), T=1.0, p_noise="standard", sampler="heun", evaluations=8)
    assert (row.gain, row.gain_se) == (0, 0)


def test_the_largest_T_stands_for_1_where_that_is_not_studied() -> None:
    assert set(steps(measured((0.2, 0.6)), SETTINGS).against_T) == {0.6}


def test_a_study_without_the_standard_p_noise_has_no_gain() -> None:
    found = steps(measured(p_noises=("matched",)), SETTINGS)
    assert found[["against_T", "gain", "gain_se"]].isna().all(axis=None)
    assert found.behind.notna().all()


def test_a_seed_that_is_not_finite_is_in_no_mean_and_in_no_difference() -> None:
    tables = measured()
    few = tables["few_steps"]
    few.loc[(few.seed == 2) & (few["T"] == 1.0), "wasserstein1"] = math.nan
    row = row_of(steps(tables, SETTINGS), T=0.4, p_noise="standard", sampler="ddim", evaluations=8)
    rest = [seed for seed in range(SEEDS) if seed != 2]
    gains = [distance(1.0, "standard", seed, 8) - distance(0.4, "standard", seed, 8) for seed in rest]
    assert (row.gain, row.gain_se) == pytest.approx(of_seeds(gains))
    assert row.finite == SEEDS
    assert row_of(steps(tables, SETTINGS), T=1.0, p_noise="standard", sampler="ddim", evaluations=8).finite == SEEDS - 1


def images(seeds: int) -> dict[str, pd.DataFrame]:
    few: Rows = []
    many: Rows = []
    for T, seed in product((0.4, 1.0), range(seeds)):
        key = DIGITS | {"T": T, "seed": seed, "data_digest": "a", "units": 32, "wasserstein1_se": 0.03 * T}
        few.append(key | {"sampler": "ddim", "evaluations": 5, "nfe": 5, "wasserstein1": 0.2 + 0.1 * T + 0.01 * seed})
        many.append(key | {"sampler": "sde", "nfe": 100, "wasserstein1": 0.1})
    return {"few_steps": frame("few_steps", few), "samples": frame("samples", many)}


def test_of_one_seed_of_images_the_error_is_the_bootstraps() -> None:
    row = row_of(steps(images(1), SETTINGS), T=0.4)
    assert (row.many, row.wasserstein1_se) == ("sde", pytest.approx(0.012))
    assert (row.gain, row.gain_se) == pytest.approx((0.06, math.hypot(0.012, 0.03)))
    assert (row.behind, row.behind_se) == pytest.approx((0.14, 0.012 * math.sqrt(2)))


def test_of_several_seeds_of_images_the_error_is_how_far_they_are_apart() -> None:
    row = row_of(steps(images(3), SETTINGS), T=0.4)
    assert row.wasserstein1_se == pytest.approx(0.01 / math.sqrt(3))
    assert row.gain_se == pytest.approx(0, abs=1e-12)


def test_one_seed_of_a_mixture_has_no_error() -> None:
    tables = {name: table[table.seed == 0] for name, table in measured().items()}
    found = steps(tables, SETTINGS)
    assert found.wasserstein1.notna().all()
    assert found[["wasserstein1_se", "behind_se", "gain_se"]].isna().all(axis=None)


def test_images_that_changed_between_the_measurements_are_refused() -> None:
    tables = images(1)
    tables["few_steps"].loc[0, "data_digest"] = "b"
    with pytest.raises(BadTable, match="images of digits changed"):
        steps(tables, SETTINGS)
