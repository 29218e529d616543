"""Calls that may each block for a whole timeout, made side by side: together they take no longer than one of them."""

from __future__ import annotations

import queue
import threading
from collections import deque
from collections.abc import Callable, Sequence
from typing import TypeVar

from engine.errors import Cause, EngineError, RedisUnavailable

Result = TypeVar("Result")

#: Seconds that a call may take before others are made beside it.
_HEDGE_SECONDS = 0.1


def all_outcomes(calls: Sequence[Callable[[], Result]]) -> list[Result | EngineError]:
    """What each call returned, or the EngineError that it raised, in the order of the calls. A single call is made in
    this thread."""
    if len(calls) == 1:
        try:
            return [calls[0]()]
        except EngineError as error:
            return [error]
    done: _Done[Result] = queue.SimpleQueue()
    for place, call in enumerate(calls):
        _begin(place, call, done)
    found = dict(_next(done, None) for _ in calls)
    return [found[place] for place in range(len(calls))]


def first_result(calls: Sequence[Callable[[], Result]], errors: list[EngineError]) -> Result | None:
    """The first result; None if all calls raise. ``errors`` takes what calls raised.

    A call is made when those before it have raised, or have taken a tenth of a second. Then as many more are made as
    are running, so a few that hang cost little.
    """
    done: _Done[Result] = queue.SimpleQueue()
    waiting = deque(enumerate(calls))
    running = 0
    while waiting or running:
        for _ in range(min(max(running, 1), len(waiting))):
            _begin(*waiting.popleft(), done)
            running += 1
        try:
            _, outcome = _next(done, _HEDGE_SECONDS if waiting else None)
        except queue.Empty:
            continue
        if not isinstance(outcome, EngineError):
            return outcome
        errors.append(outcome)
        running -= 1
    return None


_Done = queue.SimpleQueue[tuple[int, Result | BaseException]]


def _begin(place: int, call: Callable[[], Result], done: _Done[Result]) -> None:
    """Make a call in a thread, which a process that ends does not wait for."""

    def run() -> None:
        try:
            done.put((place, call()))
        except BaseException as error:
            done.put((place, error))

    try:
        threading.Thread(target=run, name="redis", daemon=True).start()
    except RuntimeError as error:
        # The machine cannot start another thread now.
        done.put((place, RedisUnavailable(f"Redis: {error}", cause=Cause.REDIS_AWAY)))


def _next(done: _Done[Result], seconds: float | None) -> tuple[int, Result | EngineError]:
    """The next outcome. Raises Empty, and what is no EngineError."""
    place, outcome = done.get(timeout=seconds)
    if isinstance(outcome, BaseException) and not isinstance(outcome, EngineError):
        raise outcome
    return place, outcome
