"""Reading a tenant's frames: ``FrameStore`` for scripts and threads, ``AsyncFrameStore`` for asyncio.

Both ask the same queries (``queries.py``) and differ in who waits. Nothing here walks the keyspace: names and times
come from the journals, payloads by their keys.
"""

from __future__ import annotations

import os
from collections import deque
from collections.abc import Iterable, Mapping, Sequence
from typing import Any, Generic, Self, TypeVar

from engine.client.frame import Frame, FrameEntry
from engine.client.queries import Bucket, Queries, StoreStats
from engine.client.ranges import CHUNK_BYTES, TAIL_BLOCK_MS, Tail, Walk
from engine.client.times import Span, When
from engine.client.transport import AsyncLink, Link
from engine.config import load
from engine.config.tls import client_context
from engine.errors import ConfigError, QueryError
from engine.wire import urls
from engine.wire.state import CameraStatus

#: Seconds that a server may take to answer.
TIMEOUT_SECONDS = 5.0
#: Where a tail begins: a time, a position of an earlier tail, or None for what comes from now on.
Since = When | Mapping[str, str] | None
Item = TypeVar("Item", bound=FrameEntry)


class _Items(Generic[Item]):
    """What a walk has brought and nobody has taken yet."""

    def __init__(self, walk: Walk | Tail) -> None:
        self._walk = walk
        self._ready: deque[Item] = deque()

    @property
    def missing(self) -> int:
        """Entries met so far whose frames were gone."""
        return self._walk.missing

    @property
    def unreadable(self) -> int:
        """Entries met so far that the engine did not write."""
        return self._walk.unreadable

    @property
    def position(self) -> dict[str, str]:
        """Of a tail: camera -> last frame taken; ``tail(since=position)`` goes on behind it."""
        return dict(self._walk.position) if isinstance(self._walk, Tail) else {}

    def _take(self) -> Item:
        item = self._ready.popleft()
        if isinstance(self._walk, Tail):
            self._walk.took(item)
        return item


class Frames(_Items[Item]):
    """An iterator over frames or entries, fetched a chunk at a time. A tail's never ends."""

    def __init__(self, link: Link, walk: Walk | Tail) -> None:
        super().__init__(walk)
        self._link = link

    def __iter__(self) -> Self:
        return self

    def __next__(self) -> Item:
        while not self._ready and not self._walk.done:
            self._ready.extend(self._link.run(self._walk.chunk()))
        if not self._ready:
            raise StopIteration
        return self._take()

    def poll(self) -> Item | None:
        """The next one; None where there is none now: for a tail, where none came within half a second."""
        while not self._ready and not self._walk.done:
            self._ready.extend(self._link.run(self._walk.chunk()))
            if self._walk.idle:
                break
        return self._take() if self._ready else None


class AsyncFrames(_Items[Item]):
    """``Frames`` for asyncio."""

    def __init__(self, link: AsyncLink, walk: Walk | Tail) -> None:
        super().__init__(walk)
        self._link = link

    def __aiter__(self) -> Self:
        return self

    async def __anext__(self) -> Item:
        while not self._ready and not self._walk.done:
            self._ready.extend(await self._link.run(self._walk.chunk()))
        if not self._ready:
            raise StopAsyncIteration
        return self._take()

    async def poll(self) -> Item | None:
        """See Frames.poll."""
        while not self._ready and not self._walk.done:
            self._ready.extend(await self._link.run(self._walk.chunk()))
            if self._walk.idle:
                break
        return self._take() if self._ready else None


class _Store:
    """What both stores are made from: an address as a site file has it, and whose frames to read.

    ``chunk_bytes`` bounds the payloads held at a time. ``cameras`` are known to exist even while nothing of them is
    stored. Nothing is connected before the first question.

    In place of an address, ``sentinels`` (``host:port``) and their ``service``: its master is asked, and found anew
    when it fails. ``tls_files`` says what a rediss:// connection trusts and shows. Raises ConfigError.
    """

    def __init__(
        self,
        url: str | urls.RedisAddress = "",
        vhost: str = "default",
        prefix: str = "frames",
        *,
        timeout_seconds: float = TIMEOUT_SECONDS,
        chunk_bytes: int = CHUNK_BYTES,
        cameras: Iterable[str] = (),
        sentinels: Sequence[str] = (),
        service: str = "",
        username: str | None = None,
        password: str | None = None,
        sentinel_username: str | None = None,
        sentinel_password: str | None = None,
        tls_files: urls.TlsFiles = urls.SYSTEM_TLS,
    ) -> None:
        if not isinstance(url, str | urls.RedisAddress):
            raise QueryError(f"{url!r} is no address; give text such as 'redis:6379'")
        if not (url or sentinels or service):
            raise ConfigError("give the address of a server such as 'redis:6379', or use from_site")
        if url == urls.EMBEDDED:
            raise QueryError("an embedded server has no address of its own; use from_site, or unix:// and its socket")
        if url and (sentinels or service):
            raise QueryError("give the address of a server, or sentinels and service: one of them, not both")
        if sentinels or service:
            address = urls.parse_sentinels(sentinels, service, sentinel_username, sentinel_password)
        else:
            address = urls.parse_redis_address(url) if isinstance(url, str) else url
        if any(tls_files):
            if not address.tls:
                raise QueryError("tls_files are for rediss:// addresses; this one is plain text")
            client_context(tls_files, "redis")
            address = address._replace(files=tls_files)
        self._address = address._replace(username=username or address.username, password=password or address.password)
        self._timeout = timeout_seconds
        self._queries = Queries("default" if vhost == "/" else vhost, prefix, cameras, chunk_bytes)
        # Redis answers a waiting tail before the connection would be given up.
        self._block_ms = max(min(TAIL_BLOCK_MS, int(timeout_seconds * 500)), 1)
        self._open()

    def _open(self) -> None:
        raise NotImplementedError

    @classmethod
    def from_site(cls, path: str | os.PathLike[str], **options: Any) -> Self:
        """The store of a site file: its server, tenant, prefix and cameras. Raises ConfigError."""
        config = load(path, os.environ)
        options = {"timeout_seconds": config.redis.timeout_seconds, **options}
        cameras = [camera.id for camera in config.cameras]
        return cls(config.redis_address, config.vhost, config.prefix, cameras=cameras, **options)

    @property
    def vhost(self) -> str:
        """The tenant."""
        return self._queries.tenant.vhost

    @property
    def prefix(self) -> str:
        """The word between tenant and camera in keys."""
        return self._queries.tenant.prefix

    def __repr__(self) -> str:
        return f"{type(self).__name__}({str(self._address)!r}, vhost={self.vhost!r}, prefix={self.prefix!r})"


class FrameStore(_Store):
    """A tenant's stored frames. Threads may share one; each waits for its own answers.

    Times are int nanoseconds (UTC), aware datetimes, RFC 3339 text, "now", or offsets from now such as "-30s" or a
    negative timedelta; ranges include both ends, None leaves an end open. Every question counts the frames that are
    there: one that expired while its journal entry stands is passed over, and counted by the iterator's ``missing``.

    Raises QueryError for what cannot be asked, UnknownName for a camera that nobody knows (with the nearest name),
    RedisUnavailable and ServerRefused with the server, WireError where something else stands under the engine's names.
    """

    def _open(self) -> None:
        self._link = Link(self._address, self._timeout)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """Give the connections back. What is asked afterwards raises QueryError; closing again is nothing."""
        self._link.close()

    def latest(self, camera: str) -> Frame | None:
        """The newest frame, in two round trips; None where there is none."""
        return self._link.run(self._queries.nearest(camera, None))

    def at(self, camera: str, when: When) -> Frame | None:
        """The newest frame at or before a moment, in two round trips; None where there is none."""
        return self._link.run(self._queries.nearest(camera, when))

    def get(self, key: str | bytes) -> Frame | None:
        """The frame of a key, None where it is gone."""
        return self._link.run(self._queries.get_many([key]))[0]

    def get_many(self, keys: Iterable[str | bytes]) -> list[Frame | None]:
        """The frames of some keys, in their order; None for each that is gone."""
        return self._link.run(self._queries.get_many(keys))

    def range(
        self,
        camera: str,
        start: When | None = None,
        end: When | None = None,
        *,
        limit: int | None = None,
        step: Span | None = None,
        reverse: bool = False,
    ) -> Frames[Frame]:
        """Frames from ``start`` to ``end``, oldest first (newest first with ``reverse``).

        ``step`` thins them out: of each span of that length the first frame met. ``limit`` bounds their number.
        """
        walk = self._queries.walk(camera, start, end, limit=limit, step=step, reverse=reverse)
        return Frames(self._link, walk)

    def entries(
        self,
        camera: str,
        start: When | None = None,
        end: When | None = None,
        *,
        limit: int | None = None,
        step: Span | None = None,
        reverse: bool = False,
    ) -> Frames[FrameEntry]:
        """``range`` without the payloads."""
        walk = self._queries.walk(camera, start, end, limit=limit, step=step, reverse=reverse, payload=False)
        return Frames(self._link, walk)

    def count(self, camera: str, start: When | None = None, end: When | None = None) -> int:
        """How many frames there are in a range."""
        return self._link.run(self._queries.count(camera, start, end))

    def rate(
        self, camera: str, start: When | None = None, end: When | None = None, bucket: Span = "1m"
    ) -> list[Bucket]:
        """Frames, bytes and mean size in each span of ``bucket``, from the first frame's to the last's.

        Buckets are aligned to the epoch, so "1m" are the clock's minutes; those without frames are there too.
        """
        return self._link.run(self._queries.rate(camera, start, end, bucket))

    def tail(self, cameras: Sequence[str] | str | None = None, since: Since = None) -> Frames[Frame]:
        """Frames as they are stored, of some cameras or (None) of all that there are and will be.

        Begins when the first frame is asked for, at a time, or behind an earlier tail's ``position``. Never ends;
        ``poll`` does not wait for ever.
        """
        return Frames(self._link, self._queries.tail(cameras, since, payload=True, block_ms=self._block_ms))

    def tail_entries(self, cameras: Sequence[str] | str | None = None, since: Since = None) -> Frames[FrameEntry]:
        """``tail`` without the payloads."""
        return Frames(self._link, self._queries.tail(cameras, since, payload=False, block_ms=self._block_ms))

    def cameras(self) -> dict[str, CameraStatus]:
        """The tenant's cameras by name, and their states."""
        return self._link.run(self._queries.cameras())

    def snapshot(self) -> dict[str, Frame]:
        """The newest frame of every camera that has one.

        Two round trips, however many cameras; one more when a camera is met for the first time.
        """
        return self._link.run(self._queries.snapshot())

    def stats(self) -> StoreStats:
        """Frames, bytes, oldest, newest and remaining lifetimes, of each camera and of all. Looks at every frame."""
        return self._link.run(self._queries.stats())


class AsyncFrameStore(_Store):
    """``FrameStore`` for asyncio: the same questions, awaited; ranges and tails are async iterators."""

    def _open(self) -> None:
        self._link = AsyncLink(self._address, self._timeout)

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.close()

    async def close(self) -> None:
        """See FrameStore.close."""
        await self._link.close()

    async def latest(self, camera: str) -> Frame | None:
        """See FrameStore.latest."""
        return await self._link.run(self._queries.nearest(camera, None))

    async def at(self, camera: str, when: When) -> Frame | None:
        """See FrameStore.at."""
        return await self._link.run(self._queries.nearest(camera, when))

    async def get(self, key: str | bytes) -> Frame | None:
        """See FrameStore.get."""
        return (await self._link.run(self._queries.get_many([key])))[0]

    async def get_many(self, keys: Iterable[str | bytes]) -> list[Frame | None]:
        """See FrameStore.get_many."""
        return await self._link.run(self._queries.get_many(keys))

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
        walk = self._queries.walk(camera, start, end, limit=limit, step=step, reverse=reverse)
        return AsyncFrames(self._link, walk)

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
        walk = self._queries.walk(camera, start, end, limit=limit, step=step, reverse=reverse, payload=False)
        return AsyncFrames(self._link, walk)

    async def count(self, camera: str, start: When | None = None, end: When | None = None) -> int:
        """See FrameStore.count."""
        return await self._link.run(self._queries.count(camera, start, end))

    async def rate(
        self, camera: str, start: When | None = None, end: When | None = None, bucket: Span = "1m"
    ) -> list[Bucket]:
        """See FrameStore.rate."""
        return await self._link.run(self._queries.rate(camera, start, end, bucket))

    def tail(self, cameras: Sequence[str] | str | None = None, since: Since = None) -> AsyncFrames[Frame]:
        """See FrameStore.tail."""
        return AsyncFrames(self._link, self._queries.tail(cameras, since, payload=True, block_ms=self._block_ms))

    def tail_entries(self, cameras: Sequence[str] | str | None = None, since: Since = None) -> AsyncFrames[FrameEntry]:
        """See FrameStore.tail_entries."""
        return AsyncFrames(self._link, self._queries.tail(cameras, since, payload=False, block_ms=self._block_ms))

    async def cameras(self) -> dict[str, CameraStatus]:
        """See FrameStore.cameras."""
        return await self._link.run(self._queries.cameras())

    async def snapshot(self) -> dict[str, Frame]:
        """See FrameStore.snapshot."""
        return await self._link.run(self._queries.snapshot())

    async def stats(self) -> StoreStats:
        """See FrameStore.stats."""
        return await self._link.run(self._queries.stats())
