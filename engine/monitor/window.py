"""Counters over the last seconds, and how long a frame is overdue to expire. Pure: the caller gives the time."""

from __future__ import annotations

from collections import deque

#: Times at which frames were stored that are kept: this gives a resolution of 1 % of the TTL.
_STORES_MAX = 100
#: Seconds by which a look may see a store later, or an expiry earlier, than it was due.
_SLACK_SECONDS = 10.0


class Windowed:
    """How much a counter rose within the last ``seconds``. A counter that falls was started again from 0."""

    __slots__ = ("_last", "_rises", "_seconds", "total")

    def __init__(self, seconds: float) -> None:
        self._seconds = seconds
        self._last: int | None = None
        self._rises: deque[tuple[float, int]] = deque()
        self.total = 0

    def take(self, now: float, count: int) -> int:
        """Take the counter's present value; returns the rise within the window."""
        last, self._last = self._last, count
        if last is not None and count != last:
            rise = count - last if count > last else count
            self._rises.append((now, rise))
            self.total += rise
        while self._rises and self._rises[0][0] <= now - self._seconds:
            self.total -= self._rises.popleft()[1]
        return self.total


class Expiry:
    """For how long a frame should have expired while nothing did. ``ttl_seconds`` is the lifetime of frames."""

    def __init__(self, ttl_seconds: float) -> None:
        self._ttl_seconds = ttl_seconds
        self._step_seconds = ttl_seconds / _STORES_MAX
        self._slack_seconds = self._step_seconds + _SLACK_SECONDS
        self._stored: int | None = None
        self._gone: int | None = None
        self._stored_at = 0.0
        #: Times at which frames were stored that should not have expired when keys last did, the oldest first.
        self._stores: deque[float] = deque()

    def take(self, now: float, stored: int, gone: int) -> float:
        """Take the numbers of frames stored and of keys gone (expired or evicted); returns the overdue seconds."""
        before, self._gone = self._gone, gone
        if before is not None and gone < before:
            # Redis was started again; what it holds is unknown.
            self._stores.clear()
        elif before is not None and gone > before:
            while self._stores and self._stores[0] <= now - self._ttl_seconds + self._slack_seconds:
                self._stores.popleft()
        last, self._stored = self._stored, stored
        if last is not None and stored > last:
            self._stored_at = now
            if not self._stores or now - self._stores[-1] >= self._step_seconds:
                self._stores.append(now)
            if len(self._stores) > 3 * _STORES_MAX:
                # Long overdue: only the oldest counts.
                del self._stores[1]
        if now - self._stored_at > self._ttl_seconds + self._slack_seconds:
            # Nothing is stored any more, so nothing need be left that could expire: keys may have been deleted.
            self._stores.clear()
        return max(now - self._stores[0] - self._ttl_seconds, 0.0) if self._stores else 0.0
