"""Models that somebody else trained: where to start them, whether their bits are believed, and the way back.

Every function reads a model and its data as they are named on the command line, and returns what is to be printed.
"""

from __future__ import annotations

import json
import math
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Literal

import torch

from difftime.images.readers import ImageData
from difftime.images.sources import images_at
from difftime.models import BadModel, ForeignModel
from difftime.models.check import check_model
from difftime.models.export import EarlyStart, export
from difftime.models.naming import model_for
from difftime.models.scout import Bits, Judged, Place, Scouting, noises_of, scout
from difftime.study.commands.common import device
from difftime.study.settings.own import OWN_SDE
from difftime.support.files import atomic
from difftime.tables.render import markdown_rows

SCOUT = "scout.json"
GREY_LEVEL_BITS = 8
"""What a pixel of 8 bits costs without any model."""


@dataclass(frozen=True)
class Named:
    """A model and its data, as a person names them; None where the model itself says it."""

    model: str
    data: str
    data_dir: Path
    test_share: float = 0.2
    pixels: Literal["cells", "centres"] = "cells"
    sde: str | None = None
    sigma_min: float | None = None
    sigma_max: float | None = None

    def read(self) -> tuple[ForeignModel, ImageData]:
        """Raises BadModel or BadImages. The data say what a model leaves open: the shape of the images."""
        data = images_at(self.data, self.data_dir, self.test_share)
        model = model_for(
            data.shape, data.name, self.model,
            pixels=self.pixels, sde=self.sde, sigma_min=self.sigma_min, sigma_max=self.sigma_max,
        )  # fmt: skip
        return model.to(device()), data


def run_scout(
    named: Named, *, images: int | None, pairs: int, p_noise: Sequence[str], bpd: int, batch: int, output: Path | None
) -> str:
    """What one pass over the model says, as a text.

    With `output` the same as files, and as the table and the figure that a study has of such a curve: prediction.
    """
    model, data = named.read()
    found = scout(
        model, data.train, data.test, images=min(256, len(data.test)) if images is None else images, pairs=pairs,
        p_noise=p_noise, bpd=bpd, batch=batch, device=torch.device(device()),
    )  # fmt: skip
    text = told(found)
    if output is not None:
        with atomic(output / "scout.md") as place:
            place.write_text(f"# {found.model}, measured on {data.name}\n\n{text}\n", encoding="utf-8")
        with atomic(output / SCOUT) as place:
            content = {"data": data.name, "data_digest": data.digest} | asdict(found)
            place.write_text(json.dumps(content, indent=1, allow_nan=False) + "\n", encoding="utf-8")
        save_figure(found, data.name, output / "prediction")
        text += f"\n\n{output}: scout.md, {SCOUT}, prediction.parquet, prediction.pdf"
    return text


def save_figure(found: Scouting, data: str, place: Path) -> None:
    """The curves as the table `prediction` of a study, with its figure; `place` is without a suffix."""
    from difftime import figures
    from difftime.tables import parquet

    table = place.with_suffix(".parquet")
    parquet.save(parquet.shaped(prediction_rows(found, data), "prediction"), "prediction", table)
    settings = figures.FigureSettings(sdes={OWN_SDE: OWN_SDE})
    figures.draw("prediction", table, place.with_suffix(".pdf"), settings, data, found.model)


def prediction_rows(found: Scouting, data: str) -> list[dict[str, Any]]:
    """The table `prediction`: the bound of the judging images at every T, and T* of the choosing ones."""
    common = {
        "dataset": data, "sde": OWN_SDE, "net": found.model, "method": "curve", "unit": "bits per dimension",
        "units": found.judging, "trained": f"{found.usual.place.T:g}",
    }  # fmt: skip
    return [
        common
        | {"p_noise": curve.p_noise, "t": start.place.T, "elbo": start.bits.mean, "elbo_se": start.bits.se}
        | {"T_star": curve.best.place.T, "T_star_low": curve.low.T, "T_star_high": curve.high.T}
        for curve in found.curves
        for start in curve.starts
    ]


def told(found: Scouting) -> str:
    """A scouting in words and tables."""
    index = [] if found.usual.place.index is None else ["index"]
    header = ["p_noise", "start", "T", "VP time", *index, "σ/α", "bits per dimension", "more than usual"]
    rows = [_row("standard", "the model's own T", found.usual)]
    for curve in found.curves:
        rows.append(_row(curve.p_noise, "T*", curve.best, curve.low, curve.high))
        for one in curve.within:
            title = f"within {one.loss:g} bits"
            if one.start is None:
                rows.append([curve.p_noise, title, "none", *["–"] * (len(header) - 3)])
            else:
                rows.append(_row(curve.p_noise, title, one.start))
    parts = [
        markdown_rows(header, rows),
        f"{found.choosing} images chose T, {found.judging} others judge it: the bits and the differences are theirs, ± "
        f"a standard error over images.\nThe times are {found.spacing:.2g} of VP time apart. [ ]: 95 % bootstrap "
        f"interval over the images that chose.\nThe bits are an upper bound: {found.decoder}.\n"
        f"{found.evaluations} evaluations of the network.",
    ]
    if found.usual.bits.mean > GREY_LEVEL_BITS:
        parts.append(
            f"WARNING: from its own T the model has more than {GREY_LEVEL_BITS} bits per dimension. Grey levels take "
            f"{GREY_LEVEL_BITS} bits without any model. Is the model trained, on such images, and read rightly? See "
            "prediction_type in its scheduler, and --pixels. Until that is clear, do not trust the T below."
        )
    if edge := [curve.p_noise for curve in found.curves if not curve.interior]:
        parts.append(f"T* of {', '.join(edge)} is the smallest or the largest of the times: the best T may lie beyond.")
    if found.ode:
        rows = [
            [one.p_noise, f"{one.place.T:.4g}", _bits(one.bits), _bits(one.behind, "+"), f"{one.nfe:.0f}"]
            for one in found.ode
        ]
        parts.append(
            "Probability-flow ODE:\n\n"
            + markdown_rows(["p_noise", "T", "bits per dimension", "more than usual", "evaluations (NFE)"], rows)
            + f"\n{found.ode[0].images} of the images that judge, {found.ode[0].batch} at once; they enter at epsilon, "
            "so these bits have no decoder and are not bounded by those above."
        )
    if found.chosen:
        p_noise, place = found.chosen
        parts.append(
            f"The smallest T within {found.curves[0].within[0].loss:g} bits: --T {place.T:.4g} --p-noise {p_noise}"
        )
    return "\n\n".join(part.rstrip("\n") for part in parts)


def _row(p_noise: str, title: str, one: Judged, *ends: Place) -> list[str]:
    clocks = zip(*map(_clocks, (one.place, *ends)), strict=True)
    shown = [own if not between else f"{own} [{', '.join(between)}]" for own, *between in clocks]
    return [p_noise, title, *shown, _bits(one.bits), _bits(one.behind, "+")]


def _clocks(place: Place) -> list[str]:
    index = [] if place.index is None else [f"{place.index:.0f}"]
    return [f"{place.T:.4g}", f"{place.vp_time:.3g}", *index, f"{place.ratio:.3g}"]


def _bits(bits: Bits | None, sign: str = "") -> str:
    return "not known: the solver failed" if bits is None else f"{bits.mean:{sign}.4f} ± {bits.se:.4f}"


def run_check(named: Named, images: int) -> tuple[str, bool]:
    """What the machinery finds of images whose bits are known, on the model's clock and scale, and whether it is right.

    The network takes no part.
    """
    model, _ = named.read()
    found = check_model(model, images=images)
    lines = [
        f"{model.name}: Gaussian images of its shape with their exact score, on its clock and scale ({images} images)",
        f"estimate  {found.estimate:.5f} bits per dimension",
        f"truth     {found.truth:.5f} bits per dimension",
        f"error     {found.error:+.5f} ± {found.error_se:.5f}",
        "The bits are right, within 3 standard errors." if found.passed else
        "THE BITS ARE WRONG: the error is more than 3 standard errors.",
    ]  # fmt: skip
    return "\n".join(lines), found.passed


def run_export(named: Named, T: float, p_noise: str, to: Path, scouted: Path | None) -> str:
    """Write the model as a folder of diffusers that starts at T; the card has the numbers of `scouted`, if given."""
    source = Path(named.model)
    if not source.is_dir():
        raise BadModel(f"{named.model} is not a folder of diffusers: only such a model can be exported so far.")
    model, data = named.read()
    noise = noises_of(model, data.train, [p_noise])(T)[-1]
    start = EarlyStart.at(model.to("cpu"), T, noise)
    card = {} if scouted is None else card_of(read_scouting(scouted, model), p_noise, T)
    export(source, start, to, {"p_noise from": data.name} | card)
    return f"{to} starts at {model.clock.words(T)}, from the {p_noise} p_noise. {to / 'README.md'} says how it is used."


def read_scouting(folder: Path, model: ForeignModel) -> dict[str, Any]:
    """What `run_scout` wrote. Raises BadModel if it is not there, damaged, or another model's."""
    path = folder / SCOUT
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
        digest = content["digest"]
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise BadModel(
            f"{path} cannot be read ({error}). Write it by difftime scout-model --output {folder}."
        ) from error
    if digest != model.digest:
        raise BadModel(f"{path} is of another model than {model.name}. Run difftime scout-model for this one.")
    return content


def card_of(found: dict[str, Any], p_noise: str, T: float) -> dict[str, str]:
    """The lines of a model card: what was measured of this p_noise at the T of the curve that is nearest."""
    curve = next((one for one in found["curves"] if one["p_noise"] == p_noise), None)
    if curve is None:
        raise BadModel(f"The scouting has no {p_noise} p_noise. Run difftime scout-model --p-noise {p_noise} again.")
    near = min(curve["starts"], key=lambda one: abs(one["place"]["T"] - T))
    at = f"at T = {near['place']['T']:.4g}"
    best, low, high = (curve[name] for name in ("best", "low", "high"))
    card = {
        "T* (best bound)": f"{best['place']['T']:.4g} [{low['T']:.4g}, {high['T']:.4g}]",
        f"bound on the bits per dimension {at}": _bits(Bits(**near["bits"])),
        "more than from the model's own T and the standard p_noise": _bits(Bits(**near["behind"]), "+"),
        "measured on": f"{found['judging']} images of {found['data']}",
    }
    for one in found["ode"]:
        if math.isclose(one["place"]["T"], near["place"]["T"]) and one["p_noise"] == p_noise and one["bits"]:
            card[f"bits per dimension of the ODE {at}, {one['images']} images"] = _bits(Bits(**one["bits"]))
            card[f"evaluations of the ODE (NFE) {at}"] = f"{one['nfe']:.0f}"
    return card
