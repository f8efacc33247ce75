"""See to it that the images of a data set are there, before jobs start that may have no network."""

from __future__ import annotations

import json
from pathlib import Path

from difftime.cell import read_images
from difftime.config import ImageSettings
from difftime.files import atomic
from difftime.verbs.common import log


def run(settings: ImageSettings, output: Path, *, data_dir: Path) -> None:
    """Read the images, downloading them into `data_dir` if they are absent, and write what they are to `output`.

    Raises BadImages if they are neither there nor to be had, or are damaged.
    """
    images = read_images(settings, data_dir)
    found = {
        "name": images.name, "shape": images.shape, "train": len(images.train), "test": len(images.test),
        "digest": images.digest,
    }  # fmt: skip
    with atomic(output) as temporary:
        temporary.write_text(json.dumps(found, indent=2) + "\n")
    log.info("%(name)s: %(train)d training and %(test)d test images of shape %(shape)s", found)
