"""How often, and for how long, a question to Redis is tried again."""

from __future__ import annotations

import time

from engine.backoff import Backoff
from engine.wire.redis_address import RedisAddress

#: Tries of one round trip before a query fails; the pauses between them are in seconds.
TRIES = 3
_PAUSE_SECONDS = 0.05
_PAUSE_SECONDS_MAX = 0.5


class Patience:
    """Limits the tries of a round trip: TRIES; for a Sentinel service and a cluster, also until the timeout has passed,
    because a new master takes a while to be found."""

    def __init__(self, address: RedisAddress, timeout_seconds: float) -> None:
        self._backoff = Backoff(_PAUSE_SECONDS, _PAUSE_SECONDS_MAX)
        self._until = time.monotonic() + timeout_seconds if address.sentinel or address.cluster else 0.0

    def ends(self) -> bool:
        """Called after a failure: whether to give up."""
        return self._backoff.failures + 1 >= TRIES and time.monotonic() >= self._until

    def pause(self) -> float:
        """Seconds until the next try."""
        return self._backoff.next_seconds()
