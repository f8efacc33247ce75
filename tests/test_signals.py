"""Signals that ask to stop are noted, saved for, and said; those that are ignored stay so."""

from __future__ import annotations

import logging
import os
import signal
import threading
import time
from collections.abc import Iterator

import pytest

from difftime.support import signals
from difftime.support.signals import ASKED, Interrupted, asked_to_stop
from difftime.training.parallel import ALONE


@pytest.fixture(params=ASKED, ids=lambda number: number.name)
def asked(request: pytest.FixtureRequest) -> Iterator[signal.Signals]:
    """One of the signals, as it is in a process that was started from a terminal."""
    before = signal.signal(request.param, signal.SIG_DFL)
    yield request.param
    signal.signal(request.param, before)


def test_a_signal_is_noted_and_said_and_its_handler_is_put_back(
    asked: signal.Signals, caplog: pytest.LogCaptureFixture
) -> None:
    with caplog.at_level(logging.INFO), asked_to_stop() as stop:
        assert not stop.is_set()
        os.kill(os.getpid(), asked)
        assert stop.is_set()
    assert caplog.text.count(f"Asked to stop ({asked.name})") == 1
    assert signal.getsignal(asked) is signal.SIG_DFL


def test_a_signal_that_is_ignored_as_under_nohup_stays_ignored(asked: signal.Signals) -> None:
    signal.signal(asked, signal.SIG_IGN)
    with asked_to_stop() as stop:
        os.kill(os.getpid(), asked)
        assert not stop.is_set()
    assert signal.getsignal(asked) is signal.SIG_IGN


def test_ctrl_c_twice_stops_at_once_but_not_if_it_comes_twice_by_two_ways(monkeypatch: pytest.MonkeyPatch) -> None:
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    try:
        with asked_to_stop() as stop:
            os.kill(os.getpid(), signal.SIGINT)
            os.kill(os.getpid(), signal.SIGINT)
            assert stop.is_set()
            later = time.monotonic() + 2 * signals.ONE_PRESS
            monkeypatch.setattr(signals.time, "monotonic", lambda: later)
            with pytest.raises(KeyboardInterrupt):
                os.kill(os.getpid(), signal.SIGINT)
    finally:
        signal.signal(signal.SIGINT, before)


def test_an_evaluation_ends_when_the_batch_is_saved_and_says_how_far_it_came(asked: signal.Signals) -> None:
    saved = []

    def work(item: int) -> int:
        if item == 3:
            os.kill(os.getpid(), asked)
        return item

    def evaluate() -> None:
        for found in ALONE.each([1, 2, 3, 4, 5], work):
            saved.extend(found)

    with pytest.raises(Interrupted, match="3 of the 5 batches that it had to do are saved"):
        evaluate()
    assert saved == [1, 2, 3]
    assert signal.getsignal(asked) is signal.SIG_DFL


def test_an_evaluation_that_is_asked_to_stop_in_its_last_batch_is_done(asked: signal.Signals) -> None:
    assert [*ALONE.each([1], lambda _: os.kill(os.getpid(), asked))] == [[None]]


def test_outside_the_main_thread_nothing_is_handled() -> None:
    handlers = []

    def run() -> None:
        with asked_to_stop() as stop:
            handlers.extend([stop.is_set(), *map(signal.getsignal, ASKED)])

    before = [*map(signal.getsignal, ASKED)]
    thread = threading.Thread(target=run)
    thread.start()
    thread.join()
    assert handlers == [False, *before]
