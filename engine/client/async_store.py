"""``AsyncFrameStore``: a tenant's stored frames, for asyncio."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Self

from engine.client.async_transport import AsyncTransport
from engine.client.frame import Frame, FrameEntry
from engine.client.iterators import AsyncFrames
from engine.client.stats import Bucket, StoreStats
from engine.client.store_base import Since, StoreBase
from engine.client.times import Span, When
from engine.wire.state import CameraStatus


class AsyncFrameStore(StoreBase):
    """``FrameStore`` for asyncio: its queries are coroutines; ranges and tails are async iterators."""

    def _open(self) -> None:
        self._transport = AsyncTransport(self._address, self._timeout)

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.close()

    async def close(self) -> None:
        """See FrameStore.close."""
        await self._transport.close()

    async def latest(self, camera: str) -> Frame | None:
        """See FrameStore.latest."""
        return await self._transport.run(self._queries.nearest(camera, None))

    async def at(self, camera: str, when: When) -> Frame | None:
        """See FrameStore.at."""
        return await self._transport.run(self._queries.nearest(camera, when))

    async def get(self, key: str | bytes) -> Frame | None:
        """See FrameStore.get."""
        return (await self._transport.run(self._queries.get_many([key])))[0]

    async def get_many(self, keys: Iterable[str | bytes]) -> list[Frame | None]:
        """See FrameStore.get_many."""
        return await self._transport.run(self._queries.get_many(keys))

    def range(
        self,
        camera: str,
        start: When | None = None,
        end: When | None = None,
        *,
        limit: int | None = None,
        step: Span | None = None,
        reverse: bool = False,
    ) -> AsyncFrames[Frame]:
        """See FrameStore.range."""
        frames = self._queries.range(camera, start, end, limit=limit, step=step, reverse=reverse)
        return AsyncFrames(self._transport, frames)

    def entries(
        self,
        camera: str,
        start: When | None = None,
        end: When | None = None,
        *,
        limit: int | None = None,
        step: Span | None = None,
        reverse: bool = False,
    ) -> AsyncFrames[FrameEntry]:
        """See FrameStore.entries."""
        frames = self._queries.range(camera, start, end, limit=limit, step=step, reverse=reverse, payload=False)
        return AsyncFrames(self._transport, frames)

    async def count(self, camera: str, start: When | None = None, end: When | None = None) -> int:
        """See FrameStore.count."""
        return await self._transport.run(self._queries.count(camera, start, end))

    async def rate(
        self, camera: str, start: When | None = None, end: When | None = None, bucket: Span = "1m"
    ) -> list[Bucket]:
        """See FrameStore.rate."""
        return await self._transport.run(self._queries.rate(camera, start, end, bucket))

    def tail(self, cameras: Sequence[str] | str | None = None, since: Since = None) -> AsyncFrames[Frame]:
        """See FrameStore.tail."""
        return AsyncFrames(self._transport, self._queries.tail(cameras, since, payload=True, block_ms=self._block_ms))

    def tail_entries(self, cameras: Sequence[str] | str | None = None, since: Since = None) -> AsyncFrames[FrameEntry]:
        """See FrameStore.tail_entries."""
        return AsyncFrames(self._transport, self._queries.tail(cameras, since, payload=False, block_ms=self._block_ms))

    async def cameras(self) -> dict[str, CameraStatus]:
        """See FrameStore.cameras."""
        return await self._transport.run(self._queries.cameras())

    async def snapshot(self) -> dict[str, Frame]:
        """See FrameStore.snapshot."""
        return await self._transport.run(self._queries.snapshot())

    async def stats(self) -> StoreStats:
        """See FrameStore.stats."""
        return await self._transport.run(self._queries.stats())
