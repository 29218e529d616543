"""One try to connect, beside the writer's round."""

from __future__ import annotations

import threading
from collections.abc import Callable

from redis.connection import AbstractConnection

from engine.errors import Cause, EngineError, RedisUnavailable


class Attempt:
    """One try to connect, in a thread of its own: it can block for the whole timeout, and the rings need relief
    meanwhile. The thread is a daemon, so that a writer that stops does not wait for it."""

    def __init__(self, connect: Callable[[], AbstractConnection]) -> None:
        self._connection: AbstractConnection | None = None
        self._error = RedisUnavailable("Redis: the try to connect was interrupted", cause=Cause.REDIS_AWAY)
        self._thread = threading.Thread(target=self._run, args=(connect,), name="connect", daemon=True)
        try:
            self._thread.start()
        except RuntimeError as error:
            # The machine has no thread to give now.
            self._error = RedisUnavailable(f"Redis: {error}", cause=Cause.REDIS_AWAY)

    def _run(self, connect: Callable[[], AbstractConnection]) -> None:
        try:
            self._connection = connect()
        except EngineError as error:
            self._error = RedisUnavailable.of(error)

    def done(self) -> bool:
        """True when there is a result."""
        return not self._thread.is_alive()

    def result(self) -> AbstractConnection:
        """The connection. Raises RedisUnavailable, also where the server refused: it may change its mind."""
        if self._connection is None:
            raise self._error
        return self._connection
