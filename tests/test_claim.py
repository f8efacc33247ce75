"""The paper's claim on trained networks of the default study: KL falls, G rises, the ELBO has an interior maximum.

The bands are wide: a prototype found them to hold for every four seeds it tried. Where exactly T* lies is a result of
the study, not a law.
"""

from __future__ import annotations

from pathlib import Path

import pandas as pd
import pytest
from builders import SETTINGS
from scipy.stats import spearmanr

from difftime.measures.elbo import end_terms, path_terms
from difftime.optimum.best import optimum
from difftime.study.cell import build, recipe
from difftime.study.settings import read_study
from difftime.tables.parquet import empty
from difftime.training.train import train

ROOT = Path(__file__).parent.parent
TIMES = ["0.2", "0.4", "0.6", "0.7", "0.8", "1", "1.5", "2"]
BANDS = {"vp": (0.5, 0.95), "ve": (0.65, 1.05)}


def trained(sde: str) -> pd.DataFrame:
    """KL and G of four seeds of the default network, for every T."""
    study = read_study(overrides={"datasets": {"toy": {"seeds": 4}}})
    rows = []
    for T in TIMES:
        cell = study.cell("toy", sde, "mlp-32x2", T)
        problem = build(cell)
        place = {"T": cell.T, "epsilon": problem.epsilon}
        weights = train(
            problem.score,
            problem.training(),
            **place,
            recipe=recipe(cell, 60.0),
            seeds=problem.seeds,
            name=cell.name,
            identity={},
        ).weights
        problem.score.net.load_state_dict(weights)
        ends = end_terms(problem.density, problem.sde, problem.noise("standard"), **place, points=1, seed="test")
        path = path_terms(
            problem.score, problem.density, problem.sde, **place, seeds=4, time_steps=100, points=1, seed="test"
        )
        for seed, gap in enumerate(path.gap.tolist()):
            rows.append({
                "dataset": "toy", "sde": sde, "net": "mlp-32x2", "p_noise": "standard", "T": cell.T, "seed": seed,
                "kl": ends.kl, "gap": gap, "entropy": ends.entropy, "log_p_data": -ends.entropy,
                "kl_se": 0.0, "gap_se": 0.0, "entropy_se": 0.0,
                "epsilon": problem.epsilon, "weighting": "likelihood", "data_digest": None,
            })  # fmt: skip
    return pd.DataFrame(rows)


@pytest.mark.parametrize("sde", BANDS)
def test_the_elbo_of_trained_networks_has_an_interior_maximum(sde: str) -> None:
    frame = trained(sde)
    means = frame.groupby("T")[["kl", "gap"]].mean()
    assert means.kl.is_monotonic_decreasing
    assert spearmanr(means.index, means.gap).statistic >= 0.85
    none = {name: empty(name) for name in ("curve", "elbo_units", "curve_units")}
    (found,) = optimum(none | {"elbo": frame}, SETTINGS).itertuples()
    assert found.interior
    low, high = BANDS[sde]
    assert low <= found.T_star <= high
    assert found.gain_over_last > 0.1
