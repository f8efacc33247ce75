"""Which images are test images, where a source is not split."""

from __future__ import annotations

import hashlib
import os

from difftime.images.data import BadImages


def held_out(name: str, share: float) -> bool:
    """Whether an image is a test image: by the SHA-256 of its name, so whatever images are added or removed."""
    return int.from_bytes(hashlib.sha256(os.fsencode(name)).digest()[:8], "big") < share * 2**64


def checked_share(test_share: float | None, where: str) -> float:
    if test_share is None:
        raise BadImages(f"{where} is not split. Split it into train and test, or set test_share.")
    if not 0 < test_share < 1:
        raise BadImages(f"test_share is {test_share}, but must lie between 0 and 1.")
    return test_share
