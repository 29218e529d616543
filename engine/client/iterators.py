"""Iterators over stored frames: blocking and asyncio."""

from __future__ import annotations

from collections import deque
from typing import Generic, Self, TypeVar

from engine.client.async_transport import AsyncTransport
from engine.client.frame import FrameEntry
from engine.client.ranges import FrameRange
from engine.client.tail import FrameTail
from engine.client.transport import Transport

Item = TypeVar("Item", bound=FrameEntry)


class _Items(Generic[Item]):
    """Holds frames that were read and that the caller has not taken yet."""

    def __init__(self, reader: FrameRange | FrameTail) -> None:
        self._reader = reader
        self._ready: deque[Item] = deque()

    @property
    def missing(self) -> int:
        """Entries read so far whose frames are gone."""
        return self._reader.missing

    @property
    def unreadable(self) -> int:
        """Entries read so far that the engine did not write."""
        return self._reader.unreadable

    @property
    def position(self) -> dict[str, str]:
        """For a tail: camera -> id of the last frame taken; ``tail(since=position)`` continues after it."""
        return dict(self._reader.position) if isinstance(self._reader, FrameTail) else {}

    def _take(self) -> Item:
        item = self._ready.popleft()
        if isinstance(self._reader, FrameTail):
            self._reader.took(item)
        return item


class Frames(_Items[Item]):
    """An iterator over frames or entries, fetched a chunk at a time. A tail's never ends."""

    def __init__(self, transport: Transport, reader: FrameRange | FrameTail) -> None:
        super().__init__(reader)
        self._transport = transport

    def __iter__(self) -> Self:
        return self

    def __next__(self) -> Item:
        while not self._ready and not self._reader.done:
            self._ready.extend(self._transport.run(self._reader.chunk()))
        if not self._ready:
            raise StopIteration
        return self._take()

    def poll(self) -> Item | None:
        """The next item, or None if there is none now: for a tail, if none came within half a second."""
        while not self._ready and not self._reader.done:
            self._ready.extend(self._transport.run(self._reader.chunk()))
            if self._reader.idle:
                break
        return self._take() if self._ready else None


class AsyncFrames(_Items[Item]):
    """``Frames`` for asyncio."""

    def __init__(self, transport: AsyncTransport, reader: FrameRange | FrameTail) -> None:
        super().__init__(reader)
        self._transport = transport

    def __aiter__(self) -> Self:
        return self

    async def __anext__(self) -> Item:
        while not self._ready and not self._reader.done:
            self._ready.extend(await self._transport.run(self._reader.chunk()))
        if not self._ready:
            raise StopAsyncIteration
        return self._take()

    async def poll(self) -> Item | None:
        """See Frames.poll."""
        while not self._ready and not self._reader.done:
            self._ready.extend(await self._transport.run(self._reader.chunk()))
            if self._reader.idle:
                break
        return self._take() if self._ready else None
