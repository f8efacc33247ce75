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
    """Counts `total` units of work called `unit` under a title.

    `inside` says what a unit consists of, and of how many, e.g. ("image", 128): their rate is reported too.
    """

    def __init__(
        self,
        title: str,
        total: int,
        unit: str,
        done: int = 0,
        inside: tuple[str, int] | None = None,
        every: float = 30.0,
    ) -> None:
        self.title, self.total, self.unit, self.inside, self.every = title, total, unit, inside, every
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
            rates = [f"{rate:.3g} {self.unit}s/s"]
            if self.inside is not None:
                rates.append(f"{rate * self.inside[1]:.3g} {self.inside[0]}s/s")
            parts = [f"{self.unit} {self.done} of {self.total}", note, *rates, f"{left:.0f} s left"]
            log.info("%s: %s", self.title, ", ".join(part for part in parts if part))

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
