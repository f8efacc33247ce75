"""Samples of a cell of images: they are images, and their distance is that of what is written."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from of_images import CURVE, SIZE, TEST, files_of, measure, read, same_files
from scipy.stats import wasserstein_distance

from difftime.measures.quality import directions, perfect_sliced_wasserstein1, projections
from difftime.study.cell import build
from difftime.study.commands import samples as command
from difftime.study.settings import read_cell


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
