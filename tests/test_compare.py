"""The comparison of two results folders finds what moved, says by how much, and knows what was renamed."""

from __future__ import annotations

import sys
from pathlib import Path

import pandas as pd
import pytest

sys.path.insert(0, str(Path(__file__).parent.parent))
from benchmarks.compare import compare, main

KEY = {"dataset": "toy", "sde": "vp", "net": "mlp", "p_noise": "standard", "T": 0.5}


def rows(**columns: list) -> pd.DataFrame:
    return pd.DataFrame([KEY | {"seed": k} for k in range(len(next(iter(columns.values()))))]).assign(**columns)


def test_equal_tables_are_equal_to_the_bit_in_any_order() -> None:
    one = rows(elbo=[1.0, None, 3.0], elbo_se=[0.1] * 3)
    found = compare("elbo", one, one.iloc[::-1])
    assert (found.differences, found.rows, found.columns) == ([], 3, 2)


def test_a_last_bit_is_found_and_counted_in_standard_errors() -> None:
    one, other = rows(elbo=[1.0, 2.0], elbo_se=[0.1, 0.2]), rows(elbo=[1.0, 2.1], elbo_se=[0.1, 0.2])
    (found,) = compare("elbo", one, other).differences
    assert (found.column, found.rows) == ("elbo", 1)
    assert (found.most, found.errors) == pytest.approx((0.1, 0.5))
    assert found.within(errors=1.0, relative=0)
    assert not found.within(errors=0.4, relative=1)
    bit = one.assign(elbo=one.elbo * (1 + 2.3e-16))
    assert compare("elbo", one, bit).differences


def test_null_on_one_side_and_other_words_are_beyond_any_error() -> None:
    one, other = rows(x=[1.0, None], verdict=["holds", "holds"]), rows(x=[1.0, 2.0], verdict=["holds", "broken"])
    found = compare("bounds", one, other).differences
    assert [part.column for part in found] == ["x", "verdict"]
    assert not any(part.within(errors=1e9, relative=1e9) for part in found)


def test_renamed_tables_and_columns_are_compared_with_what_they_became() -> None:
    old = rows(elbo=[5.0], elbo_epsilon=[4.0], residual=[1.0], images=[64]).assign(dataset="digits")
    became = rows(elbo_x0=[5.0], elbo=[4.0], decoder=[1.0], units=[64]).assign(dataset="digits")
    new = pd.concat([rows(elbo=[-1.0]), became])
    found = compare("image_elbo", old, new)
    assert (found.differences, found.rows, found.columns, found.only_new) == ([], 1, 4, 0)
    drawn = rows(wasserstein1=[0.1, 0.2])
    both = pd.concat([drawn.assign(sampler="sde"), drawn.assign(sampler="ode", wasserstein1=9.0)])
    assert compare("image_quality", drawn, both).differences == []


def test_costs_are_left_out() -> None:
    one, other = rows(seconds=[1.0], parameters=[9]), rows(seconds=[2.0], parameters=[9])
    assert compare("training", one, other).columns == 1


def test_the_exit_status_says_whether_something_moved(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    for name, frame in (("old", rows(elbo=[1.0, 2.0])), ("same", rows(elbo=[1.0, 2.0])), ("less", rows(elbo=[1.0]))):
        (tmp_path / name / "tables").mkdir(parents=True)
        frame.to_parquet(tmp_path / name / "tables" / "elbo.parquet")
    for other, status in (("same", 0), ("less", 1)):
        monkeypatch.setattr(sys, "argv", ["compare", str(tmp_path / "old"), str(tmp_path / other)])
        assert main() == status
    assert "1 rows only in the old" in capsys.readouterr().out
