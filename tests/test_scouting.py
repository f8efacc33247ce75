"""The optimal T from a few cells: exact at the cells it is made from, right where the assumption holds, honest else."""

from __future__ import annotations

import json
import sys
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch
from typer.testing import CliRunner

from difftime import tables
from difftime.cell import build
from difftime.cli import app
from difftime.config import Cell, Grid, OptimumSettings
from difftime.elbo import end_terms, path_terms, running_gap
from difftime.mixture import Mixture
from difftime.schemas import TABLES
from difftime.score import ExactScore
from difftime.scouting import _Model, predicted_gap, scout
from difftime.sde import SDE, VP, standard_noise

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


def gap_at(t: float, T: float, seed: int) -> float:
    return 0.03 * harder(T) * (t + 0.2) * np.exp(0.05 * np.random.default_rng([seed, 7]).normal())


def kl_at(T: float) -> float:
    return 4 * np.exp(-0.1 * T - 9.95 * T**2) + 1e-9


def table(name: str, rows: list[dict]) -> pd.DataFrame:
    filled = {c.name: EMPTY[c.type] for c in TABLES[name]} | {"dataset": "toy", "sde": "vp", "net": "net"}
    frame = pd.DataFrame([filled | {"p_noise": "standard"} | row for row in rows], columns=list(filled))
    return tables.check(frame, name, name)


def running(seeds: int = SEEDS, scouts: tuple[float, ...] = SCOUTS) -> pd.DataFrame:
    return table("running", [
        {"T": T, "seed": seed, "t": t, "kl": kl_at(t), "gap": gap_at(t, T, seed), "entropy": -CEILING}
        for T in scouts for seed in range(seeds) for t in T * np.arange(1, 41) / 40
    ])  # fmt: skip


def elbo(seeds: int = SEEDS) -> pd.DataFrame:
    return table("elbo", [
        {"T": T, "seed": seed, "kl": kl_at(T), "gap": gap_at(T, T, seed), "entropy": -CEILING, "log_p_data": CEILING,
         "elbo": CEILING - kl_at(T) - gap_at(T, T, seed)}
        for T in TIMES for seed in range(seeds)
    ])  # fmt: skip


def found(**options) -> pd.Series:
    own = elbo(options.get("seeds", SEEDS))
    return scout(running(**options), own, tables.optimum(own, SETTINGS, 0), SETTINGS, 0)[0].iloc[0]


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
    best = tables.optimum(own, SETTINGS, 0)
    rows.loc[rows["T"] == 0.4, "gap"] = np.nan
    assert scout(rows, own, best, SETTINGS, 0)[0].iloc[0].scouts == "0.1, 1, 2"
    rows.loc[rows["T"] < 2, "gap"] = np.nan
    none, curves = scout(rows, own, best, SETTINGS, 0)
    assert len(none) == len(curves) == 0


def test_the_curves_hold_both_predictions_and_the_trained_cells() -> None:
    own = elbo()
    curves = scout(running(), own, tables.optimum(own, SETTINGS, 0), SETTINGS, 0)[1]
    tables.check(curves, "scout_curves", "the curves")
    trained = curves[curves.method == "trained"]
    assert [*trained.t] == list(TIMES)
    assert trained.elbo.to_numpy() == pytest.approx(own.groupby("T").elbo.mean().to_numpy())
    assert {*curves.method} == {"one model", "all models", "trained"}


@pytest.mark.parametrize(("cells", "scouts"), [(4, ["0.1", "0.5", "0.8", "2"]), (2, ["0.1", "2"]), (12, [])])
def test_scouts_are_spread_over_a_line_with_more_cells_than_these(cells: int, scouts: list[str]) -> None:
    block = {"dataset": "toy", "sde": "vp", "net": "net", "T": TIMES}
    grid = Grid.model_validate({"study": [block], "families": {"toy": "mixture"}, "scouts": cells})
    assert [name.rpartition("T=")[2] for name in grid.measured("running")] == scouts
    assert len(grid.parts("running")) == len(scouts)


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
