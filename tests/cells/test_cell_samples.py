"""Samples of a cell of images: they are images, and their distance is that of what is written."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from of_images import CURVE, SIZE, TEST, Cut, call, contents, files_of, measure, measurement, read, same_files
from scipy.stats import wasserstein_distance

from difftime.images.pixels import SCALE
from difftime.measures.few_steps import heun, level_times
from difftime.measures.quality import directions, perfect_sliced_wasserstein1, projections
from difftime.study.cell import build
from difftime.study.commands import samples as command
from difftime.study.settings import read_cell
from difftime.support.streams import stream


def test_samples_are_images_of_the_datas_shape_and_come_out_the_same_again(cell: Path, measured: Path) -> None:
    rows = read(measured, "images")
    assert rows.groupby(CURVE).image.apply(list).to_list() == [[0, 1, 2]] * 4
    assert {*zip(rows.channels, rows["size"], rows.pixels.map(len), strict=True)} == {(1, SIZE, SIZE * SIZE)}
    assert set(rows.steps) == {2}
    measure("samples", cell)
    assert same_files(cell, measured, *files_of("samples"))
    assert read(measured, "modes").empty
    assert read(measured, "histogram").empty


def test_the_distance_in_the_table_is_that_of_the_images_in_the_other_one(measured: Path) -> None:
    data = build(read_cell(measured / "cell.json")).images
    drawn, quality = read(measured, "images"), read(measured, "samples")
    floor, floor_se = perfect_sliced_wasserstein1(data.train, projections(data.test), 3)
    for keys, rows in drawn.groupby(CURVE):
        (row,) = quality[(quality[CURVE] == list(keys)).all(axis=1)].itertuples()
        pixels = np.stack([np.frombuffer(one, np.uint8).reshape(data.shape) for one in rows.pixels])
        both = (torch.from_numpy(pixels), data.test)
        points = [(k.flatten(1).double() / 128) @ directions(data.d).mT for k in both]
        oracle = np.mean([wasserstein_distance(a, b) for a, b in zip(*(p.mT.numpy() for p in points), strict=True)])
        assert row.wasserstein1 == pytest.approx(oracle, rel=1e-12)
        assert row.wasserstein1_se > 0
        assert (row.wasserstein1_floor, row.wasserstein1_floor_se) == (floor, floor_se)
        assert (row.units, row.steps, row.nfe, row.finite, row.sampler) == (3, 2, 2, 1.0, "sde")
    assert len(data.test) == TEST
    assert set(quality.data_digest) == {data.digest}


def test_samples_that_are_not_finite_are_counted_and_said(
    cell: Path, measured: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    whole = command.reverse_sde

    def broken(*arguments: Any, **options: Any) -> torch.Tensor:
        x = whole(*arguments, **options)
        x[1, 2, :5], x[1, 2, 5] = torch.nan, torch.inf
        return x

    monkeypatch.setattr(command, "reverse_sde", broken)
    measure("samples", cell)
    rows, sound = read(cell, "images"), read(measured, "images")
    assert set(sound.not_finite) == {0}
    failed = (rows.seed == 1) & (rows.image == 2)
    assert rows.not_finite.to_list() == [6 * one for one in failed]
    assert [pixels[:6] for pixels in rows.pixels[failed]] == [bytes(6)] * 2
    assert rows.pixels[~failed].equals(sound.pixels[~failed])
    assert "1 of 6 images have values that are not finite" in caplog.text
    quality, whole_quality = (read(one, "samples").sort_values(CURVE) for one in (cell, measured))
    assert quality.finite.to_list() == pytest.approx([1, 1, 2 / 3, 2 / 3])
    for column in ("wasserstein1", "wasserstein1_se"):
        assert quality[column].isna().to_list() == [False, False, True, True]
    assert quality.wasserstein1[:2].to_list() == whole_quality.wasserstein1[:2].to_list()


# In few steps


def test_every_sampler_has_a_row_for_every_budget_seed_and_p_noise(measured: Path) -> None:
    rows = read(measured, "few_steps")
    keys = rows[["seed", "p_noise", "sampler", "evaluations"]]
    assert len(keys) == len(keys.drop_duplicates()) == 2 * 2 * 4 * 2
    assert dict(zip(zip(rows.sampler, rows.evaluations, strict=True), rows.nfe, strict=True)) == {
        (sampler, budget): 2 if sampler == "heun" else budget
        for sampler in ("sde", "ddim", "heun", "dpm_solver_2m")
        for budget in (2, 3)
    }
    assert set(rows.units) == {3}
    samples = read(measured, "samples")
    assert set(rows.wasserstein1_floor) == set(samples.wasserstein1_floor)
    assert set(rows.data_digest) == set(samples.data_digest)


def test_the_distance_in_few_steps_is_that_of_the_sampler_from_the_same_draws(measured: Path) -> None:
    problem = build(read_cell(measured / "cell.json"), precision="float32")
    problem.load(measured)
    noise = problem.noise("standard")
    x = torch.stack([noise.sample(3, generator=stream(seed, "x_T")) for seed in problem.seeds])
    drawn = heun(problem.score, problem.sde, x, level_times(problem.sde, problem.T, problem.epsilon, 1))
    pixels = ((drawn + 1) * SCALE).clamp(0, 255).floor() / SCALE
    along = directions(problem.d).mT
    for seed, images in enumerate(pixels):
        row = read(measured, "few_steps").query(f"seed == {seed} and p_noise == 'standard' and sampler == 'heun'")
        ends = (images @ along, problem.images.test.flatten(1).double() / SCALE @ along)
        oracle = np.mean([wasserstein_distance(a, b) for a, b in zip(*(p.mT.numpy() for p in ends), strict=True)])
        assert row.wasserstein1.to_list() == pytest.approx([oracle] * 2, rel=1e-12)


def test_a_cut_leaves_nothing_behind_and_the_next_run_ends_with_the_same_bytes(
    cell: Path, measured: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    whole, calls = command.within, []

    def cut(*arguments: Any) -> Any:
        calls.append(arguments)
        if len(calls) == 9:
            raise Cut
        return whole(*arguments)

    before = contents(cell)
    with monkeypatch.context() as patch:
        patch.setattr(command, "within", cut)
        with pytest.raises(Cut):
            measure("samples", cell)
    assert contents(cell) == before
    measure("samples", cell)
    assert same_files(cell, measured, *files_of("samples"))


def test_a_sampler_that_blows_up_has_no_distance_and_its_share_says_so(
    cell: Path, measured: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    whole = command.within

    def broken(budget: int, sampler: str, *arguments: Any) -> Any:
        x, nfe = whole(budget, sampler, *arguments)
        if (budget, sampler) == (3, "ddim"):
            x[1, 0, 4] = torch.inf
        return x, nfe

    monkeypatch.setattr(command, "within", broken)
    measure("samples", cell)
    rows, sound = read(cell, "few_steps"), read(measured, "few_steps")
    failed = (rows.sampler == "ddim") & (rows.evaluations == 3) & (rows.seed == 1)
    assert rows.wasserstein1.isna().equals(failed)
    assert rows.finite[failed].to_list() == pytest.approx([2 / 3] * 2)
    assert rows[~failed].equals(sound[~failed])


@pytest.mark.parametrize(("key", "value"), [("evaluations", [1]), ("evaluations", []), ("samplers", ["rk45"])])
def test_settings_that_no_sampler_has_are_refused_and_nothing_is_lost(measured: Path, key: str, value: list) -> None:
    before = contents(measured)
    result = call(*measurement("samples", measured, **{key: value}))
    assert result.exit_code == 1
    assert f"- {key}" in result.stderr
    assert contents(measured) == before
