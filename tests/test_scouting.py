"""The optimal T from a few cells: exact at the cells it is made from, right where the assumption holds, honest else."""

from __future__ import annotations

import json
import sys
from collections.abc import Callable
from functools import cache
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch
from typer.testing import CliRunner

from difftime.cli import app
from difftime.diffusion.mixture import Mixture
from difftime.diffusion.score import ExactScore
from difftime.diffusion.sde import SDE, VP, standard_noise
from difftime.measures.elbo import end_terms, path_terms, running_gap
from difftime.optimum.scouting import _Model, _predictions, decide, predicted_gap, refined, scout
from difftime.study.cell import build
from difftime.study.settings import Block, Cell, Decision, Grid, OptimumSettings, RefineSettings
from difftime.tables import derived as tables
from difftime.tables.schema import TABLES

SETTINGS = OptimumSettings(resamples=200)
SEEDS, SCOUTS = 8, (0.1, 0.4, 1.0, 2.0)
TIMES = (0.1, 0.2, 0.3, 0.4, 0.5, 0.6, 0.7, 0.8, 1.0, 1.2, 1.5, 2.0)
CEILING = -0.85
EMPTY = {"string": "none", "float64": 0.0, "int64": 1, "bool": True}
TOY = {"kind": "mixture", "weights": [0.3, 0.7], "means": [1.0, 3.0], "stds": [0.1, 0.5], "samples": 64}


def a_cell(T: float) -> Cell:
    return Cell.model_validate({
        "dataset": "toy", "sde": "vp", "net": "net", "T": T, "seed": 0, "seeds": 3, "data": TOY,
        "diffusion": {"kind": "vp"}, "network": {"kind": "mlp", "width": 4, "depth": 1},
        "training": {"steps": 3, "batch": 4},
    })  # fmt: skip


def untrained(sde: SDE, toy: Mixture):
    """A score that is wrong everywhere, of three seeds."""
    return lambda x, t: ExactScore(toy, sde)(x, t) * torch.tensor([0.9, 1.05, 1.2]).double()[:, None, None]


def test_the_running_integral_ends_where_the_elbo_does(sde: SDE, toy: Mixture) -> None:
    place = {"seeds": 3, "time_steps": 160, "points": 2, "seed": "0"}
    score, times = untrained(sde, toy), torch.linspace(0.05, 0.8, 16, dtype=torch.float64)
    running, se = running_gap(score, toy, sde, times, 0.8, 1e-5, **place)
    for k in (0, 7, 15):
        whole = path_terms(score, toy, sde, times[k].item(), 1e-5, **place)
        assert torch.allclose(running[:, k], whole.gap, rtol=1e-5)
    assert (running.diff(dim=1) > 0).all()
    assert (se == 0).all()


def test_an_exact_score_has_no_gap_at_any_time(sde: SDE, toy: Mixture) -> None:
    times = torch.tensor([0.1, 0.5, 1.0]).double()
    gap, _ = running_gap(ExactScore(toy, sde), toy, sde, times, 1.0, 1e-5, seeds=1, time_steps=20, points=2, seed="0")
    assert gap.abs().max() < 1e-9


@pytest.mark.parametrize("times", [[0.5, 1.2], [1e-6, 0.5]])
def test_a_time_at_which_the_model_was_not_trained_is_refused(times: list[float], toy: Mixture) -> None:
    with pytest.raises(ValueError, match="known from 1e-05 to 1, not at"):
        running_gap(
            ExactScore(toy, VP()), toy, VP(), torch.tensor(times).double(), 1.0, 1e-5,
            seeds=1, time_steps=20, points=2, seed="0",
        )  # fmt: skip


def harder(T: float) -> float:
    """By how much a model trained up to T knows every time less well."""
    return np.exp(0.9 * T)


@cache
def of_seed(seed: int) -> float:
    """A number of mean 0 and standard deviation 1."""
    return np.random.default_rng([seed, 7]).normal()


def gap_at(t: float, T: float, seed: int) -> float:
    return 0.03 * harder(T) * (t + 0.2) * np.exp(0.05 * of_seed(seed))


def kl_at(T: float) -> float:
    return 4 * np.exp(-0.1 * T - 9.95 * T**2) + 1e-9


def table(name: str, rows: list[dict]) -> pd.DataFrame:
    filled = {c.name: EMPTY[c.type] for c in TABLES[name]} | {"dataset": "toy", "sde": "vp", "net": "net"}
    frame = pd.DataFrame([filled | {"p_noise": "standard"} | row for row in rows], columns=list(filled))
    return tables.check(frame, name, name)


def running(seeds: int = SEEDS, scouts: tuple[float, ...] = SCOUTS) -> pd.DataFrame:
    return table("running", [
        {"T": T, "seed": seed, "t": t, "kl": kl_at(t), "gap": gap_at(t, T, seed), "entropy": -CEILING}
        for T in scouts for seed in range(seeds) for t in T * (np.arange(1, 41) / 40)
    ])  # fmt: skip


def elbo(seeds: int = SEEDS) -> pd.DataFrame:
    return table("elbo", [
        {"T": T, "seed": seed, "kl": kl_at(T), "gap": gap_at(T, T, seed), "entropy": -CEILING, "log_p_data": CEILING,
         "elbo": CEILING - kl_at(T) - gap_at(T, T, seed)}
        for T in TIMES for seed in range(seeds)
    ])  # fmt: skip


def runs(times: tuple[float, ...] = TIMES, **one) -> pd.DataFrame:
    """Trainings of half an hour each, on two threads."""
    return table("runs", [
        {"T": T, "verb": verb, "seconds": 1800.0, "device": "CPU, 2 threads", "settings": '{"threads": 2}',
         "peak_gpu_memory": np.nan} | one
        for T in times for verb in ("train", "elbo")
    ])  # fmt: skip


def scouted(rows: pd.DataFrame, own: pd.DataFrame, **other: pd.DataFrame) -> tuple[pd.DataFrame, pd.DataFrame]:
    best, trained = tables.optimum(own, SETTINGS, 0), other.get("runs", runs())
    return scout(rows, own, best, trained, other.get("whole", tables.empty("refined")), SETTINGS, 0)


def found(**options) -> pd.Series:
    return scouted(running(**options), elbo(options.get("seeds", SEEDS)))[0].iloc[0]


def truth() -> float:
    T = np.linspace(0.1, 2, 4001)
    return T[np.argmin([kl_at(x) + 0.03 * harder(x) * (x + 0.2) for x in T])]


def test_the_prediction_is_exact_at_the_cells_it_is_made_from() -> None:
    models = {T: _Model(rows) for T, rows in running().groupby("T")}
    gap = predicted_gap(models, np.array(SCOUTS))
    wanted = [[gap_at(T, T, seed) for T in SCOUTS] for seed in range(SEEDS)]
    assert gap == pytest.approx(np.array(wanted), rel=1e-6)


def test_where_longer_trainings_only_scale_the_gap_the_prediction_is_the_truth() -> None:
    row = found()
    assert row.T_star == pytest.approx(truth(), abs=0.01)
    assert row.trained_T_star == pytest.approx(truth(), abs=0.03)
    assert row.within == "yes"
    assert (row.scouts, row.cells, row.trained_share) == ("0.1, 0.4, 1, 2", 12, pytest.approx(1 / 3))


def test_one_model_does_not_see_what_a_longer_training_costs_at_all_times(monkeypatch: pytest.MonkeyPatch) -> None:
    """Where that is the same at all t, one model alone predicts too large a T; several models do not."""
    monkeypatch.setattr(sys.modules[__name__], "gap_at", lambda t, T, seed: 0.02 * (t + 0.2) + 0.1 * T)
    T = np.linspace(0.1, 2, 4001)
    best = T[np.argmin([kl_at(x) + 0.12 * x for x in T])]
    row = found()
    assert row.T_star == pytest.approx(best, abs=0.05)
    assert row.one_T_star > best + 0.1


def test_a_time_that_two_models_have_up_to_its_last_bit_is_one(monkeypatch: pytest.MonkeyPatch) -> None:
    """0.8 · 15/40 and 2 · 6/40 are 0.3 and its neighbour: a slope of log KL between the two would be rounding."""
    monkeypatch.setattr(sys.modules[__name__], "kl_at", lambda T: np.exp(-3 * T))
    rows = running(scouts=(0.05, 0.4, 0.8, 2.0))
    assert (np.diff(np.unique(rows.t)) < 1e-12).sum() > 2
    curve, _ = _predictions(rows, SETTINGS, 0)["all models"]
    assert np.log(curve.kl) == pytest.approx(-3 * curve.T, abs=1e-9)


def test_the_cells_worth_training_hold_the_optimum_between_them() -> None:
    row = found()
    worth = [float(T) for T in row.worth.split(", ")]
    assert min(worth) <= row.T_star <= max(worth)
    assert row.worth_cells == len(worth) < row.cells


def test_one_seed_has_a_prediction_without_an_interval() -> None:
    row = found(seeds=1)
    assert np.isfinite(row.T_star)
    assert np.isnan(row.T_star_low)
    assert row.within == "unknown"


def test_a_scouting_cell_that_diverged_is_left_out_and_two_must_remain() -> None:
    rows, own = running(), elbo()
    rows.loc[rows["T"] == 0.4, "gap"] = np.nan
    assert scouted(rows, own)[0].iloc[0].scouts == "0.1, 1, 2"
    rows.loc[rows["T"] < 2, "gap"] = np.nan
    none, curves = scouted(rows, own)
    assert len(none) == len(curves) == 0


def test_the_curves_hold_both_predictions_and_the_trained_cells() -> None:
    own = elbo()
    curves = scouted(running(), own)[1]
    tables.check(curves, "scout_curves", "the curves")
    trained = curves[curves.method == "trained"]
    assert [*trained.t] == list(TIMES)
    assert trained.elbo.to_numpy() == pytest.approx(own.groupby("T").elbo.mean().to_numpy())
    assert {*curves.method} == {"one model", "all models", "trained"}


@pytest.mark.parametrize(("cells", "scouts"), [(4, ["0.1", "0.5", "0.8", "2"]), (2, ["0.1", "2"]), (5, []), (None, [])])
def test_scouts_are_spread_over_lines_of_three_times_as_many_cells(cells: int | None, scouts: list[str]) -> None:
    block = {"dataset": "toy", "sde": "vp", "net": "net", "T": TIMES}
    grid = Grid.model_validate({"study": [block], "families": {"toy": "mixture"}, "scouts": cells})
    assert [name.rpartition("T=")[2] for name in grid.measured("running")] == scouts
    assert len(grid.parts("running")) == len(scouts)


def test_every_cell_of_a_refined_line_is_a_scout_the_added_ones_too() -> None:
    block = {"dataset": "toy", "sde": ["vp", "ve"], "net": "net", "T": [2.0, 0.1], "measure": "elbo"}
    grid = Grid.model_validate(
        {"study": [block | {"refine": {"tolerance": 0.1, "cells": 4}}], "families": {"toy": "mixture"}}
    ).extended(lambda line: {"vp": [0.8], "ve": [0.9, 0.85]}[line["sde"]])
    names = [name.removeprefix("dataset=toy/").replace("/net=net/", " ") for name in grid.measured("running")]
    assert names == ["sde=vp T=0.1", "sde=vp T=0.8", "sde=vp T=2"] + [f"sde=ve T={T}" for T in (0.1, 0.85, 0.9, 2)]
    assert grid.measured("elbo") == grid.measured("running")
    assert {part.rpartition("/")[2] for part in grid.parts("runs")} == {
        "run_train.parquet", "run_elbo.parquet", "run_running.parquet",
    }  # fmt: skip


def test_models_predict_nothing_outside_the_times_they_were_trained_to() -> None:
    models = {T: _Model(rows) for T, rows in running().groupby("T")}
    for T in (0.05, 2.5):
        with pytest.raises(tables.BadTable, match=f"trained up to T = 0.1 to 2 predict nothing at T = {T:g}"):
            predicted_gap(models, np.array([T]))
    with pytest.raises(tables.BadTable, match=r"toy vp net standard: .* up to T = 1, which says nothing of .* T = 2"):
        scouted(running(scouts=(0.1, 1.0)), elbo())


def test_a_model_says_nothing_below_its_smallest_running_time() -> None:
    models = {T: _Model(rows) for T, rows in running().groupby("T")}
    start = models[2.0].start
    with pytest.raises(tables.BadTable, match=rf"T = 2 begins at {start:g} .* Raise scout.times to"):
        models[2.0](np.array([start / 2]))
    assert np.isfinite(models[2.0](np.array([start]))).all()


@pytest.mark.parametrize("times", [6, 40])
@pytest.mark.parametrize("T", [0.1, 0.42, 0.81, 1.62, 2.0])
def test_the_last_running_time_is_the_models_own_to_the_bit(T: float, times: int, tmp_path: Path) -> None:
    cell = tmp_path / "cell.json"
    cell.write_text(json.dumps(a_cell(T).model_dump(mode="json")))
    settings = json.dumps({"times": times, "time_steps": 2})
    for arguments in (["train", cell], ["running", cell, "--p-noise", "standard", "--settings", settings]):
        result = CliRunner().invoke(app, [str(one) for one in arguments])
        assert result.exit_code == 0, result.output
    assert tables.read(tmp_path / "running.parquet", "running").t.max() == T


def test_a_running_elbo_under_a_fitted_p_noise_is_refused(tmp_path: Path) -> None:
    cell = tmp_path / "cell.json"
    cell.write_text(json.dumps(a_cell(0.5).model_dump(mode="json")))
    assert CliRunner().invoke(app, ["train", str(cell)]).exit_code == 0
    result = CliRunner().invoke(app, ["running", str(cell), "--p-noise", "full", "--settings", '{"times": 2}'])
    assert result.exit_code == 1
    assert "full is not standard or matched" in result.stderr
    assert not (tmp_path / "running.parquet").exists()


# Hours


def test_hours_are_those_of_the_cells_that_are_needed_times_their_threads() -> None:
    row, curves = (part.iloc[:] for part in scouted(running(), elbo()))
    assert (row.hours[0], row.line_hours[0], row.saved_hours[0], row.hours_of[0]) == (4.0, 12.0, 8.0, "CPU")
    assert dict(zip(curves.method, curves.hours, strict=True)) == {"one model": 1, "all models": 4, "trained": 12}
    assert set(curves.grid_hours) == {12.0}


@pytest.mark.parametrize(("device", "hours"), [("2 × NVIDIA H100", 4.0), ("NVIDIA H100", 2.0)])
def test_hours_on_gpus_count_these_and_no_threads(device: str, hours: float) -> None:
    row = scouted(running(), elbo(), runs=runs(device=device, peak_gpu_memory=9.0))[0].iloc[0]
    assert (row.hours, row.hours_of) == (hours, "GPU")


def test_hours_of_gpus_and_cpus_are_not_added_nor_are_those_of_some_cells_all() -> None:
    both = pd.concat([runs(TIMES[:5]), runs(TIMES[5:], peak_gpu_memory=9.0)], ignore_index=True)
    row = scouted(running(), elbo(), runs=both)[0].iloc[0]
    assert np.isnan(row.hours)
    assert row.hours_of == "mixed"
    row = scouted(running(), elbo(), runs=runs(TIMES[:5]))[0].iloc[0]
    assert np.isnan(row.line_hours)
    assert row.hours_of == "unknown"


def test_the_device_of_a_run_is_counted_as_it_is_described() -> None:
    from difftime.optimum.scouting import _devices
    from difftime.study.commands.common import describe
    from difftime.training.parallel import Group

    said = describe(torch.device("cpu"), Group(rank=0, size=3))
    assert said.startswith("3 × ")
    run = pd.Series({"device": said, "peak_gpu_memory": 1.0})
    assert _devices(run) == ("GPU", 3)


# Refinement


TOLERANCE = 0.1
REAL_GAP = gap_at


def loop(
    start: tuple[float, ...], cells: int, table: Callable = running, tolerance: float = TOLERANCE
) -> list[Decision]:
    """The decisions on a line whose cells are trained as they are asked for."""
    decided, T = [], [*start]
    while not decided or decided[-1].add is not None:
        frame = table(scouts=tuple(T))
        decided.append(decide(frame, RefineSettings(tolerance=tolerance, cells=cells), SETTINGS, 0))
        T.append(decided[-1].add)
    return decided


def additive(t: float, T: float, seed: int) -> float:
    """A longer training costs the same at all t: the ratio between models, taken as linear in T, is not."""
    return 0.02 * (t + 0.2) + 0.1 * T + 1e-3 * of_seed(seed)


def abrupt(t: float, T: float, seed: int) -> float:
    """What a longer training costs rises between two scouts, where none of them sees it."""
    return REAL_GAP(t, 0, seed) * (1 + 2 / (1 + np.exp(-(T - 0.6) / 0.05)))


@pytest.mark.parametrize("start", [(0.1, 2.0), (0.1, 0.5, 1.0, 2.0), (0.1, 0.3, 0.4, 1.7, 2.0)])
@pytest.mark.parametrize("gap", [REAL_GAP, additive, abrupt])
def test_refinement_ends_within_its_budget_with_the_optimum_between_near_cells(
    gap: Callable[[float, float, int], float], start: tuple[float, ...], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sys.modules[__name__], "gap_at", gap)
    T = np.linspace(0.1, 2, 4001)
    best = T[np.argmin([kl_at(x) + np.mean([gap(x, x, seed) for seed in range(SEEDS)]) for x in T])]
    decided = loop(start, 10)
    last = decided[-1]
    assert last.stopped == "narrow"
    assert abs(last.T_star - best) < TOLERANCE
    assert last.below < last.T_star < last.above <= last.below + TOLERANCE * (1 + 1e-9)
    assert len(last.trained) == len(start) + len(decided) - 1 <= 10


@pytest.mark.parametrize("tolerance", [0.3, 0.1, 0.04, 0.01])
def test_added_times_are_short_inside_and_never_trained_before(tolerance: float) -> None:
    decided = loop((0.1, 2.0), 12, tolerance=tolerance)
    added = [one.add for one in decided[:-1]]
    assert added
    assert len({*added, 0.1, 2.0}) == len(added) + 2
    assert all(0.1 < T < 2 and f"{T:g}" == f"{round(T, 3):g}" for T in added)


def test_the_same_cells_are_the_same_decision() -> None:
    assert [one.canonical() for one in loop((0.1, 2.0), 6)] == [one.canonical() for one in loop((0.1, 2.0), 6)]
    shuffled = running().sample(frac=1, random_state=0)
    refine = RefineSettings(tolerance=0.1, cells=9)
    assert decide(shuffled, refine, SETTINGS, 0).add == decide(running(), refine, SETTINGS, 0).add


@pytest.mark.parametrize(("start", "edge"), [((0.1, 0.5), 0.5), ((1.0, 1.5, 2.0), 1.0)])
def test_an_optimum_at_an_edge_ends_it_loudly_once_a_near_cell_confirms_it(
    start: tuple[float, ...], edge: float
) -> None:
    decided = loop(start, 12)
    last = decided[-1]
    assert (last.stopped, last.interior, last.T_star) == ("edge", False, edge)
    assert "EDGE" in last.why
    assert len(decided) == 2


def test_a_spent_budget_ends_it_and_says_how_far_apart_the_cells_are() -> None:
    decided = loop((0.1, 2.0), 3)
    assert (len(decided), len(decided[-1].trained), decided[-1].stopped) == (2, 3, "budget")
    assert "apart" in decided[-1].why
    assert loop((0.1, 2.0), 2)[-1].stopped == "budget"


def test_more_cells_are_not_spent_on_an_interval_that_only_seeds_can_narrow(monkeypatch: pytest.MonkeyPatch) -> None:
    def scattered(t: float, T: float, seed: int) -> float:
        return 0.03 * harder(T) * (t + 0.2) * np.exp(of_seed(seed))

    monkeypatch.setattr(sys.modules[__name__], "gap_at", scattered)
    last = loop((0.1, 2.0), 12)[-1]
    assert (last.stopped, last.above - last.below <= TOLERANCE * 1.001) == ("seeds", True)
    assert last.T_star_high - last.T_star_low > TOLERANCE
    assert len(last.trained) < 12


def test_an_interval_of_seeds_alone_is_not_trusted_where_cells_are_far_apart() -> None:
    first = loop((0.1, 2.0), 12)[0]
    assert first.T_star_high - first.T_star_low < TOLERANCE
    assert first.stopped is None


def test_cells_that_diverged_count_but_predict_nothing_and_are_not_trained_again() -> None:
    def diverging(scouts: tuple[float, ...]) -> pd.DataFrame:
        frame = running(scouts=scouts)
        frame.loc[(frame["T"] > 0.6) & (frame["T"] < 1), "gap"] = np.nan
        return frame

    last = loop((0.1, 2.0), 7, diverging)[-1]
    assert (len(last.trained), last.stopped) == (7, "budget")
    assert len({*last.left_out}) == len(last.left_out) > 0
    lost = running().assign(gap=np.nan)
    none = decide(lost, RefineSettings(tolerance=0.1, cells=9), SETTINGS, 0)
    assert (none.stopped, none.T_star, none.add) == ("diverged", None, None)


def test_no_place_is_left_where_every_short_time_has_diverged() -> None:
    fine = tuple(k / 10 for k in range(1, 21))
    frame = running(scouts=fine)
    frame.loc[~frame["T"].isin([0.1, 2.0]), "gap"] = np.nan
    assert decide(frame, RefineSettings(tolerance=1.0, cells=99), SETTINGS, 0).stopped == "place"


@pytest.mark.parametrize(
    ("frame", "said"),
    [
        (lambda: running(seeds=1), "A single seed tells no interval"),
        (
            lambda: pd.concat([running(), running().assign(sde="ve")]),
            "of one line and p_noise, but its tables are of 2",
        ),
        (lambda: pd.concat([running(), running(scouts=(0.4,))]), "of a T is given twice"),
        (lambda: running().iloc[:0], "tables are of 0"),
    ],
)
def test_tables_that_are_not_of_one_line_are_refused(frame: Callable[[], pd.DataFrame], said: str) -> None:
    with pytest.raises(tables.BadTable, match=said):
        decide(frame(), RefineSettings(tolerance=0.1, cells=9), SETTINGS, 0)


def test_the_table_of_refined_lines_says_how_it_went_and_what_a_grid_would_take() -> None:
    decided = loop((0.1, 2.0), 9)
    trained = tuple(decided[-1].trained)
    block = Block.model_validate(
        {"dataset": "toy", "sde": "vp", "net": "net", "T": [2.0, 0.1], "measure": "elbo",
         "refine": {"tolerance": 0.1, "cells": 9}}
    )  # fmt: skip
    own = elbo()
    frame = refined([block], lambda line: decided, runs(trained), tables.optimum(own, SETTINGS, 0))
    tables.check(frame, "refined", "the table")
    row = frame.iloc[0]
    assert (row.rounds, row.cells, row.budget) == (len(decided), len(trained), 9)
    assert (row.start, row.added) == ("0.1, 2", ", ".join(f"{one.add:g}" for one in decided[:-1]))
    assert (row.T_star, row.width) == (decided[-1].T_star, row.T_star_high - row.T_star_low)
    assert row.trained_T_star == pytest.approx(truth(), abs=0.03)
    assert (row.grid_cells, row.hours, row.grid_hours, row.grid_hours_se) == (20, len(trained), 20, 0)
    assert row.saved_hours == 20 - len(trained)
    none, curves = scouted(running(scouts=trained), own[own["T"].isin(trained)], runs=runs(trained), whole=frame)
    assert len(none) == 0
    assert set(curves.grid_hours) == {20.0}


def test_the_verbs_leave_what_the_closed_forms_say(tmp_path: Path) -> None:
    cell = tmp_path / "cell.json"
    cell.write_text(json.dumps(a_cell(0.5).model_dump(mode="json")))
    options = ["--p-noise", "standard", "--settings", '{"times": 4}']
    for arguments in (["train", cell], ["running", cell, *options], ["elbo", cell, *options[:2]]):
        result = CliRunner().invoke(app, [str(one) for one in arguments])
        assert result.exit_code == 0, result.output
    frame, whole = (tables.read(tmp_path / f"{name}.parquet", name) for name in ("running", "elbo"))
    assert sorted(frame.t.unique()) == [0.125, 0.25, 0.375, 0.5]
    last = frame[frame.t == 0.5].sort_values("seed")
    assert last.elbo.to_numpy() == pytest.approx(whole.sort_values("seed").elbo.to_numpy(), rel=1e-5)
    problem = build(a_cell(0.5))
    for t, rows in frame.groupby("t"):
        noise = standard_noise(problem.sde, t, (1,))
        ends = end_terms(problem.density, problem.sde, noise, t, problem.epsilon, points=2, seed="0")
        assert rows.kl.to_numpy() == pytest.approx(ends.kl)
