"""The table tradeoff: what a choice of SDE, network, T and p_noise costs, and how good it is.

No weights between cost and quality are invented, and no verdict is given but one: whether the table cheapest has it.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import pandas as pd

from difftime.optimum.cheapest import MEASURED, choices_of, costs_of, networks, qualities_of
from difftime.tables.paired import CHOICE, one_set_of_images
from difftime.tables.parquet import CELL, shaped

Tables = Mapping[str, pd.DataFrame]


def tradeoff(tables: Tables, settings: Mapping[str, Any]) -> pd.DataFrame:
    """Costs and qualities of every T and p_noise; null where a quality is not measured, or not of every unit.

    Raises BadTable if cells were measured on different images.
    """
    one_set_of_images(*(tables[name] for name in MEASURED))
    parts = [_measured(own, settings["kind"] == "mixture") for _, own in networks(tables)]
    if not parts:
        return shaped([], "tradeoff")
    rows = pd.concat(parts, ignore_index=True)
    rows = rows.merge(tables["training"][[*CELL, "seeds"]], on=CELL, how="left", validate="many_to_one")
    for model in ("ode", "sde"):
        of_model = tables["cheapest"][tables["cheapest"].model == model]
        taken = {*of_model[CHOICE].itertuples(index=False, name=None)}
        rows[f"cheapest_{model}"] = [key in taken for key in rows[CHOICE].itertuples(index=False, name=None)]
    return shaped(rows.to_dict("records"), "tradeoff")


def _measured(tables: Tables, known: bool) -> pd.DataFrame:
    """What was measured of every choice of one SDE and network. `known`: the density of the data."""
    choices = choices_of(tables)
    frame = costs_of(tables, choices)
    for name, quality in qualities_of(tables, choices, known).items():
        fewer_is_better = name == "distance" or not known
        frame[name] = -quality.mean if fewer_is_better else quality.mean
        frame[f"{name}_se"] = quality.se
    drawn = tables["samples"].query("sampler == 'sde'")
    for name, of in (("elbo", tables["elbo"]), ("likelihood", tables["likelihood"]), ("distance", drawn)):
        frame[f"{name}_units"] = of.groupby(CHOICE).units.first().astype(float).reindex(choices)
    frame["distance_floor"] = drawn.groupby(CHOICE).wasserstein1_floor.mean().astype(float).reindex(choices)
    began = pd.concat([tables[name][[*CHOICE, "epsilon"]] for name in ("elbo", "likelihood")]).groupby(CHOICE)
    frame["epsilon"] = began.epsilon.first().astype(float).reindex(choices)
    frame["unit"] = "nats" if known else "bits per dimension"
    return frame.reset_index()
