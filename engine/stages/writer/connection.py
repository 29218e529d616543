"""Makes and renews the writer's connection: tries, pauses, and the current state.

``connection_state.py`` has the table of states and transitions; this module acts on the states. ``store.py`` sends and
receives over the connection.
"""

from __future__ import annotations

import time
from collections.abc import Callable

from redis.connection import AbstractConnection

from engine.backoff import Backoff
from engine.servers.redis.attempt import Attempt
from engine.stages.writer.connection_state import Event, State, after
from engine.stages.writer.store import Store

#: Pauses between tries to connect, in seconds. The longest bounds what an outage costs on top.
BACKOFF_SECONDS_MIN = 0.1
BACKOFF_SECONDS_MAX = 1.0


class Connection:
    """The state of ``store``'s connection. ``on_try`` is called for each try to connect."""

    def __init__(self, store: Store, on_try: Callable[[], None]) -> None:
        self.state = State.AWAY
        self._store = store
        self._on_try = on_try
        self._attempt: Attempt[AbstractConnection] | None = None
        self._backoff = Backoff(BACKOFF_SECONDS_MIN, BACKOFF_SECONDS_MAX)
        self._retry_at = 0.0

    @property
    def usable(self) -> bool:
        """True if Redis may be asked something now: connected, and in no pause."""
        return self._store.connected and time.monotonic() >= self._retry_at

    def advance(self) -> State:
        """Take one step towards a connection that stores, without waiting; returns the state.

        Raises RedisUnavailable if a try has failed; the caller must then call ``lost``.
        """
        if self.state is State.STORING:
            return self.state
        if self.state in (State.AWAY, State.REFUSING) and time.monotonic() >= self._retry_at:
            self._on(Event.PAUSE_OVER)
        if self.state is State.CONNECTING:
            if self._attempt is None:
                self._on_try()
                self._attempt = Attempt(self._store.open)
            if self._attempt.done():
                attempt, self._attempt = self._attempt, None
                self._store.attach(attempt.result())
                self._on(Event.CONNECTED)
        return self.state

    def settled(self) -> None:
        """Redis was asked for all frames in doubt; frames may be stored."""
        self._on(Event.SETTLED)

    def rings_changed(self) -> None:
        """Rings have changed: before frames are stored, Redis must be asked for the doubtful frames of the new ones."""
        self._on(Event.RINGS_CHANGED)

    def lost(self) -> None:
        """Redis is away or refuses writes: pause before the next try."""
        self._on(Event.REFUSED if self._store.connected else Event.BROKE)
        self._retry_at = time.monotonic() + self._backoff.next_seconds()

    def stored(self) -> None:
        """Redis has stored frames: reset the pauses."""
        self._backoff.reset()

    def _on(self, event: Event) -> None:
        self.state = after(self.state, event)
