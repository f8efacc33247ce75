"""A model as the user names it: a path or an address, and options that neither the model nor its images determine."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any, Literal

from difftime.images.pixels import LEVELS, Scale
from difftime.models import BadModel, ForeignModel, load_model


def model_for(
    shape: tuple[int, int, int], images: str, source: str, *, pixels: Literal["cells", "centres"] = "cells",
    sde: str | None = None, sigma_min: float | None = None, sigma_max: float | None = None,
) -> ForeignModel:  # fmt: skip
    """The model at `source`, for images of this shape that are called `images`. Raises BadModel.

    `sde` is for a .pth, `sigma_min` and `sigma_max` are for package.module:factory; None is the default of the reader.
    With `pixels` = centres the ends of the model's range are the grey levels 0 and 255. With `pixels` = cells they are
    the lower end of the cell of level 0 and the upper end of the cell of level 255.
    """
    options = {"sde": sde, "sigma_min": sigma_min, "sigma_max": sigma_max}
    given = {name: value for name, value in options.items() if value is not None}
    model = load_model(source, **given | _of_images(source, shape, given))
    model.check_fits(shape, images)
    if pixels == "cells":
        return model
    low, high = model.scale.start, model.scale.start + LEVELS * model.scale.width
    return replace(model, scale=Scale.at_centres(low, high))


def _of_images(source: str, shape: tuple[int, int, int], given: dict[str, Any]) -> dict[str, Any]:
    """The options of a reader that follow from the images. Raises BadModel for an option of another reader."""
    path = Path(source)
    if path.is_dir():
        known, asked = list[str](), dict[str, Any]()
    elif path.is_file():
        known, asked = ["sde"], {"size": shape[1] if shape[1] == shape[2] else None}
    else:
        known, asked = ["sigma_min", "sigma_max"], {"shape": shape} if ":" in source else {}
    if strange := [name for name in given if name not in known]:
        raise BadModel(
            f"{strange[0]} is not asked of {source}: sde is for a .pth, sigma_min and sigma_max are for "
            "package.module:factory."
        )
    return asked
