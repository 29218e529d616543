"""The events that wait for one reader: a bounded queue, and their form as server-sent events.

A reader that is too slow loses the oldest. It is told how many: an event ``lost`` stands where they would have stood.
"""

from __future__ import annotations

import asyncio
from collections import deque

#: Events and bytes that wait for one reader.
EVENTS_MAX = 2_000
BYTES_MAX = 2**20
#: Bytes that are written at once.
_WRITE_BYTES = 65_536


def sse(kind: str, data: bytes, position: str = "") -> bytes:
    """One event. ``data`` is JSON, which has no line breaks. ``position`` is where a reader continues after it."""
    head = f"id: {position}\nevent: {kind}\ndata: " if position else f"event: {kind}\ndata: "
    return b"".join((head.encode(), data, b"\n\n"))


class EventQueue:
    """Events for one reader; used from one event loop."""

    def __init__(self, events_max: int = EVENTS_MAX, bytes_max: int = BYTES_MAX) -> None:
        self._events: deque[bytes] = deque()
        self._bytes = 0
        self._events_max = events_max
        self._bytes_max = bytes_max
        self._lost = 0
        self._changed = asyncio.Event()
        self._room = asyncio.Event()
        self._room.set()

    def put(self, event: bytes) -> None:
        """Add an event. The oldest are dropped and counted if there are too many."""
        self._events.append(event)
        self._bytes += len(event)
        while self._full():
            self._bytes -= len(self._events.popleft())
            self._lost += 1
        if self._half_full():
            self._room.clear()
        self._changed.set()

    async def room(self) -> None:
        """Wait until half the queue is free: for events that are stored, and can wait there."""
        await self._room.wait()

    async def take(self, seconds: float) -> bytes:
        """The events that wait, about 64 KB of them, as one piece; empty if none came within ``seconds``."""
        if not self._events:
            self._changed.clear()
            try:
                await asyncio.wait_for(self._changed.wait(), seconds)
            except TimeoutError:
                return b""
        taken: list[bytes] = []
        size = 0
        if self._lost:
            taken.append(sse("lost", b'{"events":%d}' % self._lost))
            self._lost = 0
        while self._events and size < _WRITE_BYTES:
            size += len(self._events[0])
            taken.append(self._events.popleft())
        self._bytes -= size
        if not self._half_full():
            self._room.set()
        return b"".join(taken)

    def _full(self) -> bool:
        return len(self._events) > self._events_max or self._bytes > self._bytes_max

    def _half_full(self) -> bool:
        return 2 * len(self._events) > self._events_max or 2 * self._bytes > self._bytes_max
