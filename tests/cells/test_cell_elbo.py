"""The ELBO of a cell of images: what is written is whole and right, and an evaluation that was cut goes on."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
from of_images import CURVE, QUICK, SIZE, TEST, Cut, alter, files_of, measure, read, same_files

from difftime.images.pixels import bits_per_dimension
from difftime.measures.image_elbo import ImageElbo
from difftime.study.commands import elbo as command


def test_the_table_is_the_mean_of_its_images(measured: Path) -> None:
    single, rows = read(measured, "elbo_units").groupby(CURVE), read(measured, "elbo").set_index(CURVE)
    assert all(sorted(one.unit) == [*range(TEST)] for _, one in single)
    for column in ("elbo", "elbo_x0", "I", "prior", "decoder", "elbo_bpd"):
        assert single[column].mean()[rows.index].to_numpy() == pytest.approx(rows[column].to_numpy())
        assert single[column].sem()[rows.index].to_numpy() == pytest.approx(rows[f"{column}_se"].to_numpy())
    assert (rows.prior - rows.I + rows.R).to_numpy() == pytest.approx(rows.elbo.to_numpy())
    assert (rows.elbo + rows.decoder).to_numpy() == pytest.approx(rows.elbo_x0.to_numpy())
    assert bits_per_dimension(rows.elbo_x0, SIZE * SIZE).to_numpy() == pytest.approx(rows.elbo_bpd.to_numpy())
    assert (rows.kl_low <= rows.kl_high).all()
    assert set(rows.units) == {TEST}


def test_images_have_null_where_only_a_known_density_has_a_value(measured: Path) -> None:
    of_density = ["kl", "kl_se", "gap", "gap_se", "K", "K_se", "entropy", "entropy_se", "log_p_data", "residual"]
    assert read(measured, "elbo")[of_density].isna().all(axis=None)


def test_the_running_elbo_is_that_of_its_images_and_ends_where_the_elbo_is(measured: Path) -> None:
    rows, units = read(measured, "curve"), read(measured, "curve_units")
    times = 0.4 * np.arange(1, QUICK["elbo"]["times"] + 1) / QUICK["elbo"]["times"]
    assert all(one.t.to_numpy() == pytest.approx(times) for _, one in rows.groupby(CURVE))
    means = units.groupby([*CURVE, "t"])
    both = rows.set_index([*CURVE, "t"])
    for column in ("elbo", "elbo_bpd"):
        assert means[column].mean()[both.index].to_numpy() == pytest.approx(both[column].to_numpy())
    assert (rows.prior - rows.I + rows.R).to_numpy() == pytest.approx(rows.elbo.to_numpy())
    last, whole = rows[rows.t == rows.t.max()].set_index(CURVE), read(measured, "elbo").set_index(CURVE)
    apart = (last.elbo[whole.index] - whole.elbo).abs()
    assert (apart <= 4 * np.hypot(last.elbo_se[whole.index], whole.elbo_se)).all()


def test_the_elbo_of_an_image_does_not_depend_on_its_batch(cell: Path, measured: Path) -> None:
    measure("elbo", cell, batch=2)
    one, other = read(cell, "elbo_units"), read(measured, "elbo_units")
    pd.testing.assert_frame_equal(one, other, rtol=1e-4)  # float32 sums in another order


@pytest.mark.parametrize("damage", [None, alter])
def test_an_elbo_that_is_killed_goes_on_and_ends_with_the_same_files(
    cell: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture, damage
) -> None:
    whole = command.image_elbo
    undisturbed = Path(shutil.copytree(cell, cell.with_name("whole")))
    measure("elbo", undisturbed, batch=3)
    sizes: list[int] = []

    def cut(*arguments: Any, **options: Any) -> ImageElbo:
        if len(sizes) == 1:
            raise Cut
        sizes.append(len(arguments[3]))
        return whole(*arguments, **options)

    monkeypatch.setattr(command, "image_elbo", cut)
    with pytest.raises(Cut):
        measure("elbo", cell, batch=3)
    assert not (cell / "elbo.parquet").exists()
    if damage:
        damage(cell / command.RESUME)
    counted: list[int] = []
    monkeypatch.setattr(command, "image_elbo", lambda *a, **o: counted.append(len(a[3])) or whole(*a, **o))
    measure("elbo", cell, batch=3)
    assert counted == ([3, 3, 1] if damage else [3, 1])
    assert (f"{cell / command.RESUME} does not match its checksum" in caplog.text) == bool(damage)
    assert same_files(cell, undisturbed, *files_of("elbo"))
    assert {path.name for path in cell.iterdir()} == {path.name for path in undisturbed.iterdir()}
