"""What the scripts of the rules share: a log, the code that was planned, and one message in place of a traceback."""

from __future__ import annotations

import logging
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from difftime.study.fingerprint import OtherCode, require

log = logging.getLogger("difftime")


@contextmanager
def job(snakemake: Any, module: str | None = None) -> Iterator[None]:
    """Log into the job's log file what the block says, and end with one message and exit code 1 where it fails.

    `module` is the code that the job was planned with, whose fingerprint is the parameter `code`.
    """
    handler = logging.FileHandler(str(snakemake.log[0]), mode="w", encoding="utf-8")
    handler.setFormatter(logging.Formatter("%(asctime)s %(message)s", datefmt="%H:%M:%S"))
    log.addHandler(handler)
    log.setLevel(logging.INFO)
    try:
        if module is not None:
            require(snakemake.params.code, module)
        yield
    except _known() as error:
        log.error("difftime: %s", error)
        print(f"difftime: {error}", file=sys.stderr)
        sys.exit(1)


def _known() -> tuple[type[Exception], ...]:
    """Errors whose message is meant for a person, also those of the modules that the block has imported."""
    names = {
        "difftime.study.settings": "BadSettings", "difftime.tables.parquet": "BadTable",
        "difftime.images.readers": "BadImages", "difftime.models.foreign": "BadModel",
    }  # fmt: skip
    imported = (getattr(sys.modules[module], name) for module, name in names.items() if module in sys.modules)
    return OtherCode, OSError, *imported
