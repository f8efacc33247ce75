"""The section `study`: blocks of the grid, whose combinations are cells."""

from __future__ import annotations

import itertools
from collections.abc import Iterable
from typing import Annotated, Any

from pydantic import AfterValidator, ConfigDict, Field

from difftime.study.settings.base import Info, Listed, Positive, Settings, Text
from difftime.study.settings.images import IMAGE_KINDS
from difftime.study.settings.measures import Measure
from difftime.study.settings.sdes import epsilon_of

KEYS = ("dataset", "sde", "net", "T")


def _defined(name: str, info: Info) -> str:
    """Refuse a name that the study around a block, which is the context, does not define."""
    defined = (info.context or {}).get(f"{info.field_name}s")
    if isinstance(defined, dict) and name not in defined:
        raise ValueError(f"no {info.field_name} has this name; defined are {', '.join(map(str, defined))}")
    return name


def _past_epsilon(T: float, info: Info) -> float:
    """Refuse a diffusion time at which the integrals of a block's SDE would end before they begin."""
    sdes = (info.context or {}).get("sdes")
    for name in info.data.get("sde", ()):
        epsilon = epsilon_of(sdes.get(name)) if isinstance(sdes, dict) else 0.0
        if epsilon >= T:
            raise ValueError(f"must be above the epsilon = {epsilon:g} of sde {name}")
    return T


def _short(T: float) -> float:
    """Refuse a time that the name of its folder would round."""
    if float(f"{T:g}") != T:
        raise ValueError(f"must have six digits at most, as folders are named by it; write {T:g}")
    return T


Known = Annotated[str, AfterValidator(_defined), Text]
Time = Annotated[Positive, AfterValidator(_short), AfterValidator(_past_epsilon)]


def _kind(info: Info, group: str, name: str, usual: str | None) -> Any:
    """The kind of what a name stands for, from its plain settings, which may have faults; None if it has none."""
    named = (info.context or {}).get(group)
    plain = named.get(name) if isinstance(named, dict) else None
    return plain.get("kind", "folder" if "path" in plain else usual) if isinstance(plain, dict) else None


def _fitting(net: str, info: Info) -> str:
    """Refuse a network for vectors on images, one for images on vectors, and an SDE that is not its own."""
    own = _kind(info, "nets", net, "mlp")
    kinds = [_kind(info, "datasets", name, "mixture") for name in info.data.get("dataset", ())]
    misfits = IMAGE_KINDS if own == "mlp" else ("mixture",) if own in ("ncsnpp", "pretrained") else ()
    if any(kind in misfits for kind in kinds):
        raise ValueError(
            "a net of kind mlp is for mixtures, one of kind ncsnpp or pretrained for images; use a block for each"
        )
    sdes = [_kind(info, "sdes", name, None) for name in info.data.get("sde", ())]
    if own is not None and any(kind is not None and (kind == "of-model") != (own == "pretrained") for kind in sdes):
        raise ValueError(
            "a net of kind pretrained has an SDE of its own, which no other net has: leave sde out of its block"
        )
    return net


class Block(Settings):
    """A part of the grid: every combination of its data sets, SDEs, networks and times becomes a cell."""

    # for editors: what of a pretrained network need not be given is there when a block is checked
    model_config = ConfigDict(json_schema_extra={"required": ["dataset", "net"]})

    dataset: Listed[Known] = Field(description="Names of data sets")
    sde: Listed[Known] = Field(description="Names of SDEs; of pretrained networks, if it is not given, their own")
    net: Listed[Annotated[Known, AfterValidator(_fitting)]] = Field(description="Names of networks")
    T: Listed[Time] = Field(description="Diffusion times; of pretrained networks, if it is not given, their own")
    measure: Listed[Measure] = Field(
        default=("elbo", "likelihood", "samples"), description="What is measured of the cells"
    )


def grid(blocks: Iterable[Block]) -> list[tuple[dict[str, str], Block]]:
    """The key columns of every cell as they stand in paths, in the order of the blocks, and the block it is from."""
    return [
        ({"dataset": dataset, "sde": sde, "net": net, "T": f"{T:g}"}, block)
        for block in blocks
        for dataset, sde, net, T in itertools.product(block.dataset, block.sde, block.net, block.T)
    ]


def cell_name(keys: dict[str, str]) -> str:
    """A cell's folder below `cells/`, e.g. dataset=toy/sde=vp/net=mlp-32x2/T=0.6."""
    return "/".join(f"{key}={keys[key]}" for key in KEYS)
