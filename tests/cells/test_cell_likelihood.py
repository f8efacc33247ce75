"""Bits per dimension of a cell of images: what is written is right, and an evaluation that was cut goes on."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from of_images import BOTH, CURVE, QUICK, SIZE, TEST, Cut, alter, files_of, measure, read, same_files

from difftime.images.pixels import bits_per_dimension
from difftime.measures.likelihood import OdeLikelihood, ode_likelihood
from difftime.study.cell import WEIGHTS, build
from difftime.study.commands import likelihood as command
from difftime.study.settings import Cell
from difftime.training.checkpoint import load_weights, save_weights

BATCH, DRAWS = QUICK["likelihood"]["batch"], QUICK["likelihood"]["draws"]
FILES = files_of("likelihood")


def test_every_image_and_draw_is_evaluated_exactly_once_with_an_incomplete_last_batch(measured: Path) -> None:
    assert TEST % BATCH
    wanted = sorted((unit, draw) for unit in range(TEST) for draw in range(DRAWS))
    curves = read(measured, "likelihood_units").groupby(CURVE)
    assert len(curves) == 4
    for _, rows in curves:
        assert sorted(zip(rows.unit, rows.draw, strict=True)) == wanted


def test_the_means_are_those_of_the_images(measured: Path) -> None:
    units, rows = read(measured, "likelihood_units"), read(measured, "likelihood").set_index(CURVE)
    single = units.groupby(CURVE)
    assert single.bpd.mean()[rows.index].to_numpy() == pytest.approx(rows.bpd.to_numpy())
    assert single.log_q_ode.mean()[rows.index].to_numpy() == pytest.approx(rows.log_q_ode.to_numpy())
    assert bits_per_dimension(rows.log_q_ode, SIZE * SIZE).to_numpy() == pytest.approx(rows.bpd.to_numpy())
    assert set(rows.units) == {TEST}
    assert set(rows.failed) == {0}
    # two draws of one image are no independent images: the error is that of the means per image
    per_image = units.groupby([*CURVE, "unit"]).bpd.mean().groupby(CURVE).sem()
    assert per_image[rows.index].to_numpy() == pytest.approx(rows.bpd_se.to_numpy(), rel=1e-6)


def test_images_have_null_where_only_a_known_density_has_a_value(measured: Path) -> None:
    rows = read(measured, "likelihood")
    assert rows[["log_p_points", "log_q_sde", "log_q_sde_error", "log_q_sde_lost"]].isna().all(axis=None)
    assert rows.data_digest.notna().all()


def test_the_nfe_is_the_mean_over_batches_whatever_their_size(measured: Path) -> None:
    single = read(measured, "likelihood_units")
    per_batch = single.assign(batch=single.unit // BATCH).groupby([*CURVE, "draw", "batch"]).nfe
    assert (per_batch.nunique() == 1).all()
    rows = read(measured, "likelihood").set_index(CURVE)
    nfe = per_batch.first().groupby(CURVE)
    assert nfe.mean()[rows.index].to_numpy() == pytest.approx(rows.nfe.to_numpy())
    assert nfe.std()[rows.index].to_numpy() == pytest.approx(rows.nfe_sd.to_numpy())
    assert (2 + 6 * (rows.accepted + rows.rejected)).to_numpy() == pytest.approx(rows.nfe.to_numpy())


def test_the_first_images_are_measured_alike_where_fewer_are_asked_for(cell: Path, measured: Path) -> None:
    measure("likelihood", cell, images=BATCH, draws=1)
    one, other = read(cell, "likelihood_units"), read(measured, "likelihood_units")
    both = one.merge(other[other.draw == 0], on=[*CURVE, "unit"], suffixes=("", "_all"), validate="one_to_one")
    assert len(both) == len(one) == 4 * BATCH
    # another batch, another control of the steps: within the tolerance, not to the bit
    assert both.bpd.to_numpy() == pytest.approx(both.bpd_all.to_numpy(), abs=0.05)


# An evaluation that is cut


@pytest.fixture
def solves(monkeypatch: pytest.MonkeyPatch) -> Callable[[int | None], list[int]]:
    """Counts the batches that are solved from now on, and cuts the run before the one with the given number."""

    def watch(last: int | None = None) -> list[int]:
        calls: list[int] = []

        def solve(*arguments: Any, **options: Any) -> OdeLikelihood:
            if len(calls) == last:
                raise Cut
            calls.append(arguments[3].shape[1])
            return ode_likelihood(*arguments, **options)

        monkeypatch.setattr(command, "ode_likelihood", solve)
        return calls

    return watch


@pytest.mark.parametrize("batches", [1, 4])
def test_an_evaluation_that_is_killed_goes_on_and_ends_with_the_same_files(
    cell: Path, measured: Path, solves, batches: int
) -> None:
    solves(batches)
    with pytest.raises(Cut):
        measure("likelihood", cell)
    assert (cell / command.RESUME).exists()
    assert not (cell / "likelihood.parquet").exists()
    rest = solves()
    measure("likelihood", cell)
    assert rest == ([3, 3, 1] * 2)[batches:]
    assert same_files(cell, measured, *FILES)
    assert not (cell / command.RESUME).exists()


def test_a_damaged_state_of_an_evaluation_is_named_and_all_images_are_evaluated_anew(
    cell: Path, measured: Path, solves, caplog: pytest.LogCaptureFixture
) -> None:
    solves(2)
    with pytest.raises(Cut):
        measure("likelihood", cell)
    alter(cell / command.RESUME)
    calls = solves()
    measure("likelihood", cell)
    assert len(calls) == 6
    assert f"{cell / command.RESUME} does not match its checksum" in caplog.text
    assert same_files(cell, measured, *FILES)


@pytest.mark.parametrize("change", [{"rtol": 2e-2}, {"batch": 2}, {"atol": 2e-2}, {"p_noise": "standard"}])
def test_the_state_of_an_evaluation_with_other_settings_is_not_gone_on_from_and_the_log_says_why(
    cell: Path, solves, caplog: pytest.LogCaptureFixture, change: dict[str, Any]
) -> None:
    few = {"images": 6, "draws": 1}
    solves(1)
    with pytest.raises(Cut):
        measure("likelihood", cell, **few)
    calls = solves()
    measure("likelihood", cell, **(few | change))
    assert sum(calls) == 6
    assert "was left by other settings" in caplog.text


# Values that are not finite


def test_an_image_without_a_finite_value_is_counted_and_not_averaged(
    cell: Path, measured: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def solve(*arguments: Any, **options: Any) -> OdeLikelihood:
        solved = ode_likelihood(*arguments, **options)
        log_q = solved.log_q.clone()
        if log_q.shape[2] == 1:  # image 6, alone in the last batch
            log_q[:, 0] = torch.nan
        return replace(solved, log_q=log_q)

    monkeypatch.setattr(command, "ode_likelihood", solve)
    measure("likelihood", cell)
    rows, whole = read(cell, "likelihood").set_index(CURVE), read(measured, "likelihood_units")
    rest = whole[(whole.unit != 6) | (whole.seed != 0)].groupby(CURVE).bpd
    assert rows.failed.to_dict() == {(s, p): 2 * (s == 0) for s in (0, 1) for p in BOTH}
    assert rows.bpd.to_numpy() == pytest.approx(rest.mean()[rows.index].to_numpy())
    single = read(cell, "likelihood_units")
    assert len(single) == len(whole)
    assert single[single.bpd.isna()][["seed", "unit"]].drop_duplicates().to_numpy().tolist() == [[0, 6]]


def test_a_solver_that_gives_up_leaves_nulls_and_not_numbers(cell: Path) -> None:
    measure("likelihood", cell, max_evaluations=8, rtol=1e-9, atol=1e-9)
    rows = read(cell, "likelihood")
    assert (rows.failed == TEST * DRAWS).all()
    assert rows[["bpd", "bpd_se", "log_q_ode"]].isna().all(axis=None)
    assert read(cell, "likelihood_units").bpd.isna().all()


def test_a_network_trained_in_bfloat16_is_measured_in_float32(cell: Path, measured: Path) -> None:
    """The same weights under another name of their precision: nothing of the measurement changes."""
    settings = json.loads((cell / "cell.json").read_text())
    before = Cell.model_validate(settings)
    settings["network"]["precision"] = "bfloat16"
    low = Cell.model_validate(settings)
    weights = load_weights(cell / WEIGHTS, build(before).digest)
    (cell / "cell.json").write_text(low.canonical())
    save_weights(cell / WEIGHTS, weights, build(low).digest)
    measure("likelihood", cell)
    assert same_files(cell, measured, *FILES)
