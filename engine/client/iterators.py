"""Iterators over stored frames, and over decoded pictures: blocking and asyncio."""

from __future__ import annotations

import asyncio
from collections import deque
from typing import Generic, Self, TypeVar

from engine.client.async_transport import AsyncTransport
from engine.client.frame import FrameEntry
from engine.client.picture_reader import PictureReader
from engine.client.ranges import FrameRange
from engine.client.tail import FrameTail
from engine.client.transport import Transport
from engine.client.video import Picture

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


class _DecodedPictures:
    """Counts of a reader of pictures."""

    def __init__(self, reader: PictureReader) -> None:
        self._reader = reader

    @property
    def missing(self) -> int:
        """Entries read so far whose access units are gone."""
        return self._reader.missing

    @property
    def unreadable(self) -> int:
        """Entries read so far that the engine did not write."""
        return self._reader.unreadable

    @property
    def skipped(self) -> int:
        """Access units read so far that gave no picture: they, or units before them, are missing or damaged."""
        return self._reader.skipped

    @property
    def position(self) -> dict[str, str]:
        """For a tail: camera -> id of the unit whose picture was taken last; ``tail_pictures(since=position)``
        continues after it."""
        return dict(self._reader.position)


class Pictures(_DecodedPictures):
    """An iterator over decoded pictures. It holds a decoder for each camera until its end, or until it is closed: by
    ``close``, by leaving it as a context manager, or when nothing refers to it any more. A tail's never ends."""

    def __init__(self, transport: Transport, reader: PictureReader) -> None:
        super().__init__(reader)
        self._transport = transport

    def __iter__(self) -> Self:
        return self

    def __next__(self) -> Picture:
        while (picture := self._reader.take()) is None:
            if self._reader.done:
                raise StopIteration
            self._step()
        return picture

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def poll(self) -> Picture | None:
        """The next picture, or None if there is none now: for a tail, if none came within half a second."""
        while (picture := self._reader.take()) is None and not self._reader.done:
            self._step()
            if self._reader.idle and self._reader.hungry:
                break
        return picture

    def close(self) -> None:
        """End the iterator and free its decoders."""
        self._reader.close()

    def _step(self) -> None:
        if self._reader.hungry:
            self._transport.run(self._reader.chunk())
        self._reader.work()


class AsyncPictures(_DecodedPictures):
    """``Pictures`` for asyncio. Decoding runs in a thread of the event loop's executor."""

    def __init__(self, transport: AsyncTransport, reader: PictureReader) -> None:
        super().__init__(reader)
        self._transport = transport
        #: Decoding that has begun. A task that is cancelled leaves it running; the next one waits for it.
        self._work: asyncio.Future[None] | None = None

    def __aiter__(self) -> Self:
        return self

    async def __anext__(self) -> Picture:
        while (picture := await self._take()) is None:
            if self._reader.done:
                raise StopAsyncIteration
            await self._step()
        return picture

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.close()

    async def poll(self) -> Picture | None:
        """See Pictures.poll."""
        while (picture := await self._take()) is None and not self._reader.done:
            await self._step()
            if self._reader.idle and self._reader.hungry:
                break
        return picture

    async def close(self) -> None:
        """See Pictures.close."""
        await self._worked()
        self._reader.close()

    async def _take(self) -> Picture | None:
        await self._worked()
        return self._reader.take()

    async def _step(self) -> None:
        if self._reader.hungry:
            await self._transport.run(self._reader.chunk())
        self._work = asyncio.get_running_loop().run_in_executor(None, self._reader.work)
        await self._worked()

    async def _worked(self) -> None:
        """Wait until no thread decodes. Raises what it raised."""
        if self._work is not None:
            await asyncio.wait([self._work])
            work, self._work = self._work, None
            work.result()
