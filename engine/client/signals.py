"""Signals that stop a consumer in the main thread."""

from __future__ import annotations

import signal
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any


@contextmanager
def stopped_by_signals(stop: Callable[[], None], wanted: bool) -> Iterator[None]:
    """SIGINT and SIGTERM call ``stop``; a second Ctrl-C interrupts a callback that does not return."""
    if not wanted or threading.current_thread() is not threading.main_thread():
        yield
        return

    def on_signal(number: int, _: Any) -> None:
        stop()
        if number == signal.SIGINT:
            signal.signal(number, signal.default_int_handler)

    before = {number: signal.signal(number, on_signal) for number in (signal.SIGINT, signal.SIGTERM)}
    try:
        yield
    finally:
        for number, handler in before.items():
            # None means that Python did not install the handler and cannot restore it.
            signal.signal(number, signal.SIG_DFL if handler is None else handler)
