"""Named random streams: the same numbers whatever ran before, wherever a run was cut."""

import hashlib

import torch


def stream(*name: str | int, device: str | torch.device = "cpu") -> torch.Generator:
    """A generator seeded by its name alone, e.g. `stream(seed, "noise", step)`.

    Two names give streams that are independent for all practical purposes: the seed is 63 bits of their SHA-256.
    """
    digest = hashlib.sha256("/".join(map(str, name)).encode()).digest()
    return torch.Generator(device).manual_seed(int.from_bytes(digest[:8], "big") >> 1)
