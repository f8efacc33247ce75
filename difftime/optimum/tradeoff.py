"""Which T for which budget: what a choice of SDE, network, T and p_noise costs, and how good it is.

No weights between cost and quality are invented. A choice *surely* beats another if it costs no more, every quality of
it is at least as good even with two standard errors of the difference taken off, and one of these is strict; it
*possibly* does if that holds with the two standard errors added. So a choice that none possibly beats is efficient,
one that some choice surely beats is not, and the rest is undecided: more seeds, images or samples would tell.

The standard error of a difference is of paired values: seeds share their random numbers across cells, and all cells are
measured on the same images. It is widened for how few these are. Drawn images are not paired.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import pandas as pd
from scipy import stats

from difftime.tables.derived import LINE, across_seeds, empty, one_set_of_images
from difftime.tables.schema import TABLES

KEYS = [*LINE, "T"]
"""The columns that name a choice."""
ERRORS = 2.0
"""Standard errors of a difference that are granted."""
SOURCES = (
    "training", "elbo", "likelihood", "samples", "image_elbo", "image_elbo_images", "bpd", "bpd_images",
    "image_quality",
)  # fmt: skip
"""The tables that a trade-off is made from; a study need not have all of them."""


def _wider(n: int) -> float:
    """By how much the spread of n values is widened."""
    share = stats.norm.cdf(ERRORS)
    return stats.t.ppf(share, n - 1) / ERRORS


@dataclass(frozen=True)
class Quality:
    """One quality of some choices: the larger, the better; NaN where it is not known.

    `known` is the standard error that neither seeds nor units show, and NaN where nothing shows any.
    """

    values: np.ndarray
    """[choices, seeds, units]; the units are images, or a single one."""
    known: np.ndarray
    """[choices]"""

    @classmethod
    def of(cls, frame: pd.DataFrame, choices: pd.MultiIndex) -> Quality:
        """From the columns `value`, `unit` and `known` beside the keys and the seed."""
        # a mean would pass over a null, and does not pass over infinity
        filled = frame.assign(value=frame.value.fillna(np.inf))
        wide = filled.groupby([*KEYS, "seed", "unit"]).value.mean().unstack(["seed", "unit"]).sort_index(axis=1)
        shape = (len(choices), frame.seed.nunique(), frame.unit.nunique())
        known = frame.groupby(KEYS).known.mean().reindex(choices)
        values = wide.replace(np.inf, np.nan).reindex(choices).to_numpy()
        return cls(values.reshape(shape), known.to_numpy())

    @property
    def mean(self) -> np.ndarray:
        """[choices]"""
        return self.values.mean((1, 2))

    @property
    def se(self) -> np.ndarray:
        """The standard error of `mean`: over seeds, over units, and what is known beside them."""
        return np.sqrt(self._spread(self.values) + self.known**2)

    def difference_se(self) -> np.ndarray:
        """The standard error [choices, choices] of one mean less the other, widened for few seeds and units.

        By Student's quantile at ERRORS over the normal one, as the spread of a few is itself uncertain.
        """
        paired = np.array([self._spread(one - self.values, _wider) for one in self.values])
        found = np.sqrt(paired + self.known**2 + self.known[:, None] ** 2)
        np.fill_diagonal(found, 0)
        return found

    @staticmethod
    def _spread(values: np.ndarray, factor: Callable[[int], float] = lambda n: 1.0) -> np.ndarray:
        """The variance of the mean of [choices, seeds, units], as far as seeds and units show it."""
        total = np.zeros(len(values))
        for part in (values.mean(2), values.mean(1)):
            if (n := part.shape[1]) > 1:
                total += factor(n) ** 2 * part.var(1, ddof=1) / n
        return total

    def only(self, choices: np.ndarray) -> Quality:
        return Quality(self.values[choices], self.known[choices])


def verdicts(cost: np.ndarray, qualities: Sequence[Quality]) -> list[str | None]:
    """yes, no or undecided for each choice; None for one of which the cost or a quality is not known.

    A quality that no choice has is no criterion. A choice without a verdict beats none.
    """
    qualities = [quality for quality in qualities if np.isfinite(quality.mean).any()]
    judged = np.isfinite(cost) & np.logical_and.reduce([np.isfinite(quality.mean) for quality in qualities])
    found: list[str | None] = [None] * len(cost)
    if not qualities or not judged.any():
        return found
    own = cost[judged]
    surely = possibly = own[:, None] <= own
    strictly = perhaps = own[:, None] < own
    for quality in (quality.only(judged) for quality in qualities):
        lead, error = quality.mean[:, None] - quality.mean, ERRORS * quality.difference_se()
        surely, strictly = surely & (lead >= error), strictly | (lead > error)
        # an unknown error, NaN, rules nothing out
        possibly, perhaps = possibly & ~(lead < -error), perhaps | ~(lead <= -error)
    beaten, doubted = (surely & strictly).any(0), (possibly & perhaps).any(0)
    for k, row in enumerate(np.flatnonzero(judged)):
        found[row] = "no" if beaten[k] else "undecided" if doubted[k] else "yes"
    return found


def _long(frame: pd.DataFrame, value: pd.Series, known: pd.Series | float, unit: pd.Series | int = 0) -> pd.DataFrame:
    return frame[[*KEYS, "seed"]].assign(value=value, known=known, unit=unit)


def _over_seeds(frame: pd.DataFrame, known: pd.Series | float) -> pd.Series | float:
    """`known` for what is measured once per seed: a single seed says nothing of the spread of seeds."""
    return known if frame.seed.nunique() > 1 else math.nan


def _qualities(tables: Mapping[str, pd.DataFrame], choices: pd.MultiIndex) -> dict[str, Quality]:
    """The qualities of one data set's choices."""
    elbo, ode, sde = tables["elbo"], tables["likelihood"], tables["samples"].query("sampler == 'sde'")
    bound, bits, drawn = tables["image_elbo_images"], tables["bpd_images"], tables["image_quality"]
    # the spread of several seeds has the error of the drawn images in it
    of_images = drawn.wasserstein1_se if drawn.seed.nunique() == 1 else 0.0
    long = {
        "elbo": [_long(elbo, elbo.elbo, _over_seeds(elbo, elbo.elbo_se)), _long(bound, bound.elbo, 0.0, bound.image)],
        "likelihood": [_long(ode, ode.log_q_ode, _over_seeds(ode, 0.0)), _long(bits, -bits.bpd, 0.0, bits.image)],
        "distance": [
            _long(sde, -sde.wasserstein1, _over_seeds(sde, 0.0)),
            _long(drawn, -drawn.wasserstein1, of_images),
        ],
    }  # fmt: skip
    # a data set is a mixture or images: at most one of the two has rows
    return {name: Quality.of(part, choices) for name, parts in long.items() for part in parts if len(part)}


def _joined(*frames: pd.DataFrame) -> pd.DataFrame:
    """One below the other; those without rows would spoil the types of the columns."""
    return pd.concat([frame for frame in frames if len(frame)] or frames[:1])


def _nfe(tables: Mapping[str, pd.DataFrame], choices: pd.MultiIndex) -> pd.DataFrame:
    """The mean number of evaluations, and its standard deviation over the batches and over the seeds."""
    solved = _joined(tables["likelihood"].assign(nfe_sd=math.nan), tables["bpd"]).groupby(KEYS)
    spread = pd.concat([solved.nfe_sd.mean(), solved.nfe.std()], axis=1)
    spread = np.sqrt((spread**2).sum(axis=1, min_count=1))
    return pd.DataFrame({"nfe": solved.nfe.mean(), "nfe_sd": spread}).astype(float).reindex(choices)


def _shown(tables: Mapping[str, pd.DataFrame], qualities: dict[str, Quality], choices: pd.MultiIndex) -> pd.DataFrame:
    """The qualities as a table shows them: of images the bits per dimension, and distances that are positive."""
    shown = pd.DataFrame(index=choices)
    for name, quality in qualities.items():
        shown[name] = -quality.mean if name == "distance" else quality.mean
        shown[f"{name}_se"] = quality.se
    for name, table, column in (("elbo", "image_elbo", "elbo_bpd"), ("likelihood", "bpd", "bpd")):
        bits = {keys: across_seeds(own, column, f"{column}_se") for keys, own in tables[table].groupby(KEYS)}
        for keys, found in bits.items():
            complete = not math.isnan(shown.loc[keys, name])
            shown.loc[keys, [name, f"{name}_se"]] = found if complete else math.nan
    return shown


def _of_dataset(tables: Mapping[str, pd.DataFrame]) -> pd.DataFrame:
    """The rows of one data set."""
    measured = ("elbo", "likelihood", "samples", "image_elbo", "bpd", "image_quality")
    choices = pd.MultiIndex.from_frame(_joined(*(tables[name] for name in measured))[KEYS].drop_duplicates())
    qualities = _qualities(tables, choices)
    drawn = _joined(tables["samples"].query("sampler == 'sde'"), tables["image_quality"]).groupby(KEYS)
    frame = _shown(tables, qualities, choices).join(_nfe(tables, choices))
    frame["sde_steps"] = drawn.steps.mean().astype(float).reindex(choices)
    frame["distance_floor"] = drawn.wasserstein1_floor.mean().astype(float).reindex(choices)
    began = _joined(*(tables[name] for name in measured if "epsilon" in tables[name])).groupby(KEYS)
    frame["epsilon"] = began.epsilon.first().astype(float).reindex(choices)
    images = any(len(tables[name]) for name in ("image_elbo", "bpd", "image_quality"))
    frame["unit"] = "bits per dimension" if images else "nats"
    for name, cost, criteria in (("ode", "nfe", ["likelihood"]), ("sde", "sde_steps", ["elbo", "distance"])):
        verdict = np.full(len(choices), None, object)
        for places in frame.reset_index(drop=True).groupby("epsilon", dropna=False).groups.values():
            here = np.asarray(places)
            own = [qualities[one].only(here) for one in criteria if one in qualities]
            verdict[here] = verdicts(frame[cost].to_numpy()[here], own)
        frame[f"efficient_{name}"] = verdict
    return frame.reset_index()


def tradeoff(found: Mapping[str, pd.DataFrame]) -> pd.DataFrame:
    """The table `tradeoff` from the tables in SOURCES that a study has.

    Raises BadTable if cells of one data set were measured on different images.
    """
    tables = {name: found.get(name, empty(name)) for name in SOURCES}
    one_set_of_images(*(tables[name] for name in ("bpd", "image_elbo", "image_quality")))
    cost = tables["training"].rename(columns={"seconds": "training_seconds", "device": "training_device"})
    parts = []
    for dataset in cost.dataset.unique():
        own = {name: table[table.dataset == dataset] for name, table in tables.items()}
        parts.append(_of_dataset(own))
    cells = ["dataset", "sde", "net", "T"]
    rows = pd.concat(parts, ignore_index=True).merge(
        cost[[*cells, "training_seconds", "training_device", "seeds"]], on=cells, how="left", validate="many_to_one"
    )
    return rows.reindex(columns=[c.name for c in TABLES["tradeoff"]])
