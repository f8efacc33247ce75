"""What asks a run to stop: SIGTERM (Slurm, `timeout`), SIGINT (Ctrl-C) and SIGHUP (its terminal is closed).

A run notes that it was asked, ends what cannot be saved by halves, saves its state, and then raises Interrupted.
"""

from __future__ import annotations

import logging
import signal
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType

log = logging.getLogger("difftime")

ASKED = (signal.SIGTERM, signal.SIGINT, signal.SIGHUP)
ONE_PRESS = 1.0
"""Seconds within which a second SIGINT is the same Ctrl-C, handed on by another process."""


class Interrupted(Exception):
    """The run was asked to stop and its state is saved; the message says up to where."""


@contextmanager
def asked_to_stop() -> Iterator[threading.Event]:
    """An event that the signals set. Ctrl-C a second time stops at once, without saving.

    A signal that is ignored, as under `nohup`, stays ignored. Outside the main thread the event is never set.
    """
    stop, since = threading.Event(), [0.0]

    def note(number: int, frame: FrameType | None) -> None:
        if not stop.is_set():
            stop.set()
            since[0] = time.monotonic()
            log.warning("Asked to stop (%s): the state will be saved in a moment.", signal.Signals(number).name)
        elif number == signal.SIGINT and time.monotonic() - since[0] > ONE_PRESS:
            raise KeyboardInterrupt

    if threading.current_thread() is not threading.main_thread():
        yield stop
        return
    previous = {number: signal.getsignal(number) for number in ASKED}
    own = [number for number, handler in previous.items() if handler not in (signal.SIG_IGN, None)]
    for number in own:
        signal.signal(number, note)
    try:
        yield stop
    finally:
        for number in own:
            signal.signal(number, previous[number])
