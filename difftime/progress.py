"""What a person sees while a job runs: a bar on a terminal, a line every half minute in a log."""

from __future__ import annotations

import logging
import sys
import time
from collections.abc import Callable
from typing import Any

from tqdm import tqdm

log = logging.getLogger("difftime")


class Progress:
    """Counts `total` units of work called `unit` under a title."""

    def __init__(self, title: str, total: int, unit: str, done: int = 0, every: float = 30.0) -> None:
        self.title, self.total, self.unit, self.every = title, total, unit, every
        self.first, self.done = done, done
        self.start = self.last = time.monotonic()
        self.bar = tqdm(total=total, initial=done, desc=title, unit=unit, disable=not sys.stderr.isatty())

    def advance(self, amount: int, note: str = "") -> None:
        """Report `amount` more units, with a note such as the present loss."""
        self.done += amount
        self.bar.set_postfix_str(note, refresh=False)
        self.bar.update(amount)
        now = time.monotonic()
        if self.bar.disable and now - self.last >= self.every:
            self.last = now
            rate = (self.done - self.first) / (now - self.start)
            left = (self.total - self.done) / rate
            log.info(
                "%s: %s %d of %d, %s, %.3g %s/s, %.0f s left",
                self.title, self.unit, self.done, self.total, note, rate, self.unit, left,
            )  # fmt: skip

    def close(self) -> None:
        self.bar.close()


class Watched:
    """A function that says every half minute how often it has been called, for work whose length nobody knows."""

    def __init__(self, title: str, function: Callable[..., Any], every: float = 30.0) -> None:
        self.title, self.function, self.every = title, function, every
        self.calls, self.last = 0, time.monotonic()

    def __call__(self, *args: Any) -> Any:
        self.calls += 1
        now = time.monotonic()
        if now - self.last >= self.every:
            self.last = now
            log.info("%s: %d evaluations of the score", self.title, self.calls)
        return self.function(*args)
