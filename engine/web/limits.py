"""Bounds of the web role: what one address may ask for, and what all may together.

Captures and writers must not notice the web process, so all that it holds has an upper bound. Addresses of this
machine (a proxy, a script, a test) are bound only by what is bound for all together.
"""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager

from engine.wire.listen import is_loopback

#: Connections of all addresses together. Each idle one takes 12 KB; the process has at most 80 MB.
CONNECTIONS_MAX = 2_000
#: Connections of one address that is not this machine's. A browser opens 6 (or one with many streams).
CONNECTIONS_PER_ADDRESS_MAX = 256
#: Answers that do not end by themselves (live pictures, video, events), together and for one address.
STREAMS_MAX = 512
STREAMS_PER_ADDRESS_MAX = 128
#: Readers of events, of those. Each has three connections to Redis of its own, and up to 1 MB that waits.
EVENT_READERS_MAX, EVENT_READERS_PER_ADDRESS_MAX = 64, 16
#: Requests a second of one address, and how many at once. A wall of 100 cameras asks for 100 a second.
REQUESTS_PER_SECOND, REQUESTS_BURST = 500.0, 2_000.0
#: Log-in attempts of one address: 10 a minute.
LOGINS_PER_SECOND, LOGINS_BURST = 10 / 60, 10.0
#: Addresses that are remembered; the longest unused is forgotten.
_ADDRESSES_MAX = 4_096


class Buckets:
    """A token bucket for each address: ``rate`` a second, at most ``burst`` at once."""

    def __init__(self, rate: float, burst: float, clock: Callable[[], float] = time.monotonic) -> None:
        self._rate = rate
        self._burst = burst
        self._clock = clock
        #: What is left, and when that was, by address; the longest unused first.
        self._left: dict[str, tuple[float, float]] = {}

    def take(self, address: str) -> float:
        """Take one; returns 0, or the seconds until there is one again."""
        now = self._clock()
        left, since = self._left.pop(address, (self._burst, now))
        left = min(left + (now - since) * self._rate, self._burst)
        wait = 0.0 if left >= 1 else (1 - left) / self._rate
        self._left[address] = (left if wait else left - 1, now)
        if len(self._left) > _ADDRESSES_MAX:
            del self._left[next(iter(self._left))]
        return wait


class Shares:
    """Counts what addresses hold at the same time, up to a maximum for all and one for each."""

    def __init__(self, most: int, most_each: int) -> None:
        self._most = most
        self._most_each = most_each
        self._held = Counter[str]()
        self.total = 0

    def full(self, address: str) -> bool:
        """True if nobody, or this address, may hold one more."""
        if self.total >= self._most:
            return True
        return self._held.get(address, 0) >= self._most_each and not is_loopback(address)

    def add(self, address: str) -> None:
        """An address holds one more."""
        self._held[address] += 1
        self.total += 1

    def remove(self, address: str) -> None:
        """An address holds one less."""
        self.total -= 1
        self._held[address] -= 1
        if not self._held[address]:
            del self._held[address]

    @contextmanager
    def held(self, address: str) -> Iterator[None]:
        """Hold one inside the block."""
        self.add(address)
        try:
            yield
        finally:
            self.remove(address)
