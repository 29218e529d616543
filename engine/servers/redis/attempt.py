"""A call that may block for a whole timeout, made in a thread of its own while the caller does other work."""

from __future__ import annotations

import threading
from collections.abc import Callable
from typing import Generic, TypeVar, cast

from engine.errors import Cause, EngineError, RedisUnavailable

Result = TypeVar("Result")


class Attempt(Generic[Result]):
    """One call of ``function``, which begins at once. The thread is a daemon, so a process that stops does not wait for
    it."""

    def __init__(self, function: Callable[[], Result]) -> None:
        self._result: Result | None = None
        self._error: RedisUnavailable | None = RedisUnavailable(
            "Redis: the try was interrupted", cause=Cause.REDIS_AWAY
        )
        self._thread = threading.Thread(target=self._run, args=(function,), name="redis", daemon=True)
        try:
            self._thread.start()
        except RuntimeError as error:
            # The machine cannot start another thread now.
            self._error = RedisUnavailable(f"Redis: {error}", cause=Cause.REDIS_AWAY)

    def _run(self, function: Callable[[], Result]) -> None:
        try:
            self._result, self._error = function(), None
        except EngineError as error:
            self._error = RedisUnavailable.of(error)

    def wait(self, seconds: float) -> bool:
        """Wait for the result, at most ``seconds``; True if it is there."""
        if self._thread.ident is not None:
            self._thread.join(seconds)
        return self.done()

    def done(self) -> bool:
        """True if there is a result."""
        return not self._thread.is_alive()

    def result(self) -> Result:
        """What the call returned. Raises RedisUnavailable if it failed, also if the server refused: a later try may
        succeed."""
        if self._error is not None:
            raise self._error
        return cast("Result", self._result)
