"""The one rule for what costs less and is as good: the cheapest choice that surely loses little. NumPy alone.

A choice is `behind` the one with the best value. It is good enough if even with ERRORS = 2 standard errors more it is
behind by no more than the stated loss. Of those good enough, the cheapest is taken, and the better one of two that cost
the same. The best itself is always good enough.

The standard error is of paired differences over seeds and, of images, over images; it is widened for few of these, as
Student's quantile is over the normal one. Where nothing shows it, as for a single seed of a known density, only the
best is sure. That the best of many is partly the luckiest is not taken into account.
"""

from __future__ import annotations

import numpy as np

from difftime.tables.statistics import ERRORS, Paired


def choose(
    quality: Paired, cost: np.ndarray, places: np.ndarray, loss: float
) -> tuple[int, int, float, float, int] | None:
    """The cheapest of `places` surely within `loss` of the best of them: its place and the best one's, how far it is
    behind and the standard error of that, and how many places have a finite value and cost. None if none has."""
    usable = places[np.isfinite(quality.mean[places]) & np.isfinite(cost[places])]
    if not len(usable):
        return None
    best = int(usable[quality.mean[usable].argmax()])
    behind, se = quality.behind(best)
    # an unknown error, NaN, is not sure
    sure = [place for place in usable.tolist() if behind[place] + ERRORS * se[place] <= loss or place == best]
    chosen = min(sure, key=lambda place: (cost[place], behind[place]))
    return chosen, best, float(behind[chosen]), float(se[chosen]), len(usable)
