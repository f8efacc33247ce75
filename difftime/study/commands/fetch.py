"""See to it that the images of a data set are there, before jobs start that may have no network."""

from __future__ import annotations

import json
from pathlib import Path

import torch

from difftime.diffusion.p_noise import bracket_fits, check_memory
from difftime.images.readers import ImageData, check_batch, remark
from difftime.study.cell import image_nets, read_images
from difftime.study.commands.common import log, measured_images
from difftime.study.settings import AnyImageSettings, ImageNeeds
from difftime.support.files import atomic
from difftime.support.memory import available


def _check(images: ImageData, needs: ImageNeeds) -> None:
    """Raise, before any job is booked, what the jobs would raise: BadImages, or BadSettings."""
    for batch in needs.batches:
        check_batch(images, batch)
    for network in needs.networks.values():
        plain = network.model_copy(update={"compile": False})
        image_nets(plain, images, ["only to see whether they fit"], "float32", torch.device("cpu"))
    for wanted in needs.test_images:
        measured_images(images, wanted)
    there = available()
    if there is not None:
        limit = max(there, needs.memory * 10**6)  # this machine's, or what jobs on others ask for
        for kind in needs.p_noise:
            check_memory(kind, images.d, len(images.train), needs.components, limit)
        if not bracket_fits(images.d, limit):
            log.warning("WARNING: the lower end of the KL's bracket takes a covariance of %d: left out.", images.d)


def run(settings: AnyImageSettings, needs: ImageNeeds, output: Path, *, data_dir: Path) -> None:
    """Read the images, downloading them into `data_dir` if they are absent, and write what they are to `output`.

    Raises BadImages if they are not to be had or are damaged, BadImages, BadSettings or BadNoise if they do not fit
    `needs`.
    """
    images = read_images(settings, data_dir)
    _check(images, needs)
    remark(images)
    found = {
        "name": images.name, "shape": images.shape, "train": len(images.train), "test": len(images.test),
        "digest": images.digest,
    }  # fmt: skip
    with atomic(output) as temporary:
        temporary.write_text(json.dumps(found, indent=2) + "\n", encoding="utf-8")
    log.info("%(name)s: %(train)d training and %(test)d test images of shape %(shape)s", found)
