"""``AsyncFrameStore``: a tenant's stored frames and video, for asyncio."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Self

from engine.client.async_transport import AsyncTransport
from engine.client.frame import Frame, FrameEntry
from engine.client.iterators import AsyncFrames, AsyncPictures
from engine.client.stats import Bucket, StoreStats
from engine.client.store_base import Since, StoreBase
from engine.client.times import Span, When
from engine.client.video import Colour, Picture, VideoEntry, VideoUnit
from engine.wire.state import CameraStatus


class AsyncFrameStore(StoreBase):
    """``FrameStore`` for asyncio: its queries are coroutines; ranges and tails are async iterators.

    Video is decoded in threads of the event loop's executor, beside the loop.
    """

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

    async def count(
        self, camera: str, start: When | None = None, end: When | None = None, *, video: bool = False
    ) -> int:
        """See FrameStore.count."""
        queries = self._video if video else self._queries
        return await self._transport.run(queries.count(camera, start, end))

    async def rate(
        self,
        camera: str,
        start: When | None = None,
        end: When | None = None,
        bucket: Span = "1m",
        *,
        video: bool = False,
    ) -> list[Bucket]:
        """See FrameStore.rate."""
        queries = self._video if video else self._queries
        return await self._transport.run(queries.rate(camera, start, end, bucket))

    def tail(self, cameras: Sequence[str] | str | None = None, since: Since = None) -> AsyncFrames[Frame]:
        """See FrameStore.tail."""
        return AsyncFrames(self._transport, self._queries.tail(cameras, since, payload=True, block_ms=self._block_ms))

    def tail_entries(self, cameras: Sequence[str] | str | None = None, since: Since = None) -> AsyncFrames[FrameEntry]:
        """See FrameStore.tail_entries."""
        return AsyncFrames(self._transport, self._queries.tail(cameras, since, payload=False, block_ms=self._block_ms))

    def video(
        self,
        camera: str,
        start: When | None = None,
        end: When | None = None,
        *,
        limit: int | None = None,
        reverse: bool = False,
        from_key: bool = False,
    ) -> AsyncFrames[VideoUnit]:
        """See FrameStore.video."""
        units = self._video.units(camera, start, end, limit=limit, reverse=reverse, from_key=from_key)
        return AsyncFrames(self._transport, units)

    def video_entries(
        self,
        camera: str,
        start: When | None = None,
        end: When | None = None,
        *,
        limit: int | None = None,
        reverse: bool = False,
        from_key: bool = False,
    ) -> AsyncFrames[VideoEntry]:
        """See FrameStore.video_entries."""
        units = self._video.units(camera, start, end, limit=limit, reverse=reverse, from_key=from_key, payload=False)
        return AsyncFrames(self._transport, units)

    def tail_video(self, cameras: Sequence[str] | str | None = None, since: Since = None) -> AsyncFrames[VideoUnit]:
        """See FrameStore.tail_video."""
        return AsyncFrames(self._transport, self._video.tail(cameras, since, payload=True, block_ms=self._block_ms))

    def tail_video_entries(
        self, cameras: Sequence[str] | str | None = None, since: Since = None
    ) -> AsyncFrames[VideoEntry]:
        """See FrameStore.tail_video_entries."""
        return AsyncFrames(self._transport, self._video.tail(cameras, since, payload=False, block_ms=self._block_ms))

    async def picture(self, camera: str, when: When | None = None, *, colour: Colour = "bgr") -> Picture | None:
        """See FrameStore.picture."""
        reader = self._video.picture(camera, when, jpeg=self._queries.nearest, colour=colour)
        async with AsyncPictures(self._transport, reader) as pictures:
            return await anext(pictures, None)

    def pictures(
        self,
        camera: str,
        start: When | None = None,
        end: When | None = None,
        *,
        fps: float | None = None,
        colour: Colour = "bgr",
    ) -> AsyncPictures:
        """See FrameStore.pictures."""
        return AsyncPictures(self._transport, self._video.pictures(camera, start, end, fps=fps, colour=colour))

    def tail_pictures(
        self, cameras: Sequence[str] | str | None = None, since: Since = None, *, colour: Colour = "bgr"
    ) -> AsyncPictures:
        """See FrameStore.tail_pictures."""
        reader = self._video.tail_pictures(cameras, since, colour=colour, block_ms=self._block_ms)
        return AsyncPictures(self._transport, reader)

    async def cameras(self) -> dict[str, CameraStatus]:
        """See FrameStore.cameras."""
        return await self._transport.run(self._queries.cameras())

    async def snapshot(self) -> dict[str, Frame]:
        """See FrameStore.snapshot."""
        return await self._transport.run(self._queries.snapshot())

    async def stats(self) -> StoreStats:
        """See FrameStore.stats."""
        return await self._transport.run(self._queries.stats())
