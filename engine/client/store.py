"""``FrameStore``: a tenant's stored frames, for scripts and threads.

The queries are the same as ``AsyncFrameStore``'s (``queries.py``); the two differ in who waits. Nothing here walks the
keyspace: names and times come from the journals, payloads by their keys.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Self

from engine.client.frame import Frame, FrameEntry
from engine.client.iterators import Frames
from engine.client.stats import Bucket, StoreStats
from engine.client.store_base import Since, StoreBase
from engine.client.times import Span, When
from engine.client.transport import Transport
from engine.wire.state import CameraStatus


class FrameStore(StoreBase):
    """A tenant's stored frames. Threads may share one store; each waits for its own replies.

    A time (``When``) is int nanoseconds since the epoch (UTC), an aware datetime, RFC 3339 text, ``"now"``, or an
    offset from now: ``"-30s"``, or a negative timedelta. A duration (``Span``) is int nanoseconds, a timedelta, or text
    such as ``"500ms"`` or ``"5m"``. Ranges include both ends; None leaves an end open.

    Every query counts the frames that are there. A frame that has expired while its journal entry stands is left out,
    and counted in the iterator's ``missing``.

    Every query may raise: QueryError for invalid arguments; UnknownName for a camera that nobody knows, with the
    nearest name; RedisUnavailable where Redis is away, after three tries; ServerRefused where Redis refuses this user;
    WireError where something that the engine did not write stands under its names.
    """

    def _open(self) -> None:
        self._transport = Transport(self._address, self._timeout)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """Give the connections back. What is asked afterwards raises QueryError; closing again is nothing."""
        self._transport.close()

    def latest(self, camera: str) -> Frame | None:
        """The newest frame, in two round trips; None where there is none."""
        return self._transport.run(self._queries.nearest(camera, None))

    def at(self, camera: str, when: When) -> Frame | None:
        """The newest frame at or before a moment, in two round trips; None where there is none."""
        return self._transport.run(self._queries.nearest(camera, when))

    def get(self, key: str | bytes) -> Frame | None:
        """The frame of a key, None where it is gone."""
        return self._transport.run(self._queries.get_many([key]))[0]

    def get_many(self, keys: Iterable[str | bytes]) -> list[Frame | None]:
        """The frames of some keys, in their order; None for each that is gone."""
        return self._transport.run(self._queries.get_many(keys))

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
        frames = self._queries.range(camera, start, end, limit=limit, step=step, reverse=reverse)
        return Frames(self._transport, frames)

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
        frames = self._queries.range(camera, start, end, limit=limit, step=step, reverse=reverse, payload=False)
        return Frames(self._transport, frames)

    def count(self, camera: str, start: When | None = None, end: When | None = None) -> int:
        """How many frames there are in a range."""
        return self._transport.run(self._queries.count(camera, start, end))

    def rate(
        self, camera: str, start: When | None = None, end: When | None = None, bucket: Span = "1m"
    ) -> list[Bucket]:
        """Frames, bytes and mean size in each span of ``bucket``, from the first frame's to the last's.

        Buckets are aligned to the epoch, so "1m" are the clock's minutes; those without frames are there too.
        """
        return self._transport.run(self._queries.rate(camera, start, end, bucket))

    def tail(self, cameras: Sequence[str] | str | None = None, since: Since = None) -> Frames[Frame]:
        """Frames as they are stored, of some cameras or (None) of all that there are and will be.

        Begins when the first frame is asked for, at a time, or behind an earlier tail's ``position``. Never ends;
        ``poll`` does not wait for ever.
        """
        return Frames(self._transport, self._queries.tail(cameras, since, payload=True, block_ms=self._block_ms))

    def tail_entries(self, cameras: Sequence[str] | str | None = None, since: Since = None) -> Frames[FrameEntry]:
        """``tail`` without the payloads."""
        return Frames(self._transport, self._queries.tail(cameras, since, payload=False, block_ms=self._block_ms))

    def cameras(self) -> dict[str, CameraStatus]:
        """The tenant's cameras by name, and their states."""
        return self._transport.run(self._queries.cameras())

    def snapshot(self) -> dict[str, Frame]:
        """The newest frame of every camera that has one.

        Two round trips, however many cameras; one more when a camera is met for the first time.
        """
        return self._transport.run(self._queries.snapshot())

    def stats(self) -> StoreStats:
        """Frames, bytes, oldest, newest and remaining lifetimes, of each camera and of all. Looks at every frame."""
        return self._transport.run(self._queries.stats())
