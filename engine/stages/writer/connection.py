"""The writer's way to a connection and back to one: tries, pauses, and what the connection is good for now.

The states and what leads from one to another are a table (``connection_state.py``); this module does what the states
ask for. What goes over the connection is the business of ``store.py``.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable

from redis.connection import AbstractConnection

from engine.backoff import Backoff
from engine.errors import Cause, EngineError, RedisUnavailable
from engine.stages.writer.connection_state import Event, State, after
from engine.stages.writer.store import Store

#: Pauses between tries to connect, in seconds. The longest bounds what an outage costs on top.
_BACKOFF_SECONDS_MIN = 0.1
_BACKOFF_SECONDS_MAX = 1.0


class Connection:
    """The state of ``store``'s connection. ``on_try`` is called for each try to connect."""

    def __init__(self, store: Store, on_try: Callable[[], None]) -> None:
        self.state = State.AWAY
        self._store = store
        self._on_try = on_try
        self._attempt: _Attempt | None = None
        self._backoff = Backoff(_BACKOFF_SECONDS_MIN, _BACKOFF_SECONDS_MAX)
        self._retry_at = 0.0

    @property
    def usable(self) -> bool:
        """True where Redis may be asked something now: connected, and in no pause."""
        return self._store.connected and time.monotonic() >= self._retry_at

    def advance(self) -> State:
        """One step towards a connection that stores, without waiting; returns the state.

        Raises RedisUnavailable where a try has failed; ``lost`` must be told.
        """
        if self.state is State.STORING:
            return self.state
        if self.state in (State.AWAY, State.REFUSING) and time.monotonic() >= self._retry_at:
            self._on(Event.PAUSE_OVER)
        if self.state is State.CONNECTING:
            if self._attempt is None:
                self._on_try()
                self._attempt = _Attempt(self._store.open)
            if self._attempt.done():
                attempt, self._attempt = self._attempt, None
                self._store.attach(attempt.result())
                self._on(Event.CONNECTED)
        return self.state

    def settled(self) -> None:
        """What was in doubt has been asked for; frames may be stored."""
        self._on(Event.SETTLED)

    def rings_changed(self) -> None:
        """Before frames are stored, what the new rings have in doubt must be asked for."""
        self._on(Event.RINGS_CHANGED)

    def lost(self) -> None:
        """Redis is away, or takes nothing: pause before the next try."""
        self._on(Event.REFUSED if self._store.connected else Event.BROKE)
        self._retry_at = time.monotonic() + self._backoff.next_seconds()

    def stored(self) -> None:
        """Redis has taken frames: all is well."""
        self._backoff.reset()

    def _on(self, event: Event) -> None:
        self.state = after(self.state, event)


class _Attempt:
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
