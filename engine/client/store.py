"""``FrameStore``: a tenant's stored frames, for scripts and threads.

The queries are shared with ``AsyncFrameStore`` (``queries.py``); the two differ only in how they wait. Nothing here
walks the keyspace: names and times come from the journals, payloads are fetched by key.
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
    """A tenant's stored frames. Threads may share one store.

    A time (``When``) is int nanoseconds since the epoch (UTC), an aware datetime, RFC 3339 text, ``"now"``, or an
    offset from now: ``"-30s"``, or a negative timedelta. A duration (``Span``) is int nanoseconds, a timedelta, or text
    such as ``"500ms"`` or ``"5m"``. Ranges include both ends; None leaves an end open.

    Queries return and count only frames that exist. An expired frame that is still in the journal is left out and
    counted in the iterator's ``missing``.

    Every query may raise: QueryError for invalid arguments; UnknownName for an unknown camera, with the nearest name;
    RedisUnavailable if Redis does not answer in three tries; ServerRefused if Redis refuses this user; WireError if one
    of the engine's keys holds data that the engine did not write.
    """

    def _open(self) -> None:
        self._transport = Transport(self._address, self._timeout)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """Close the connections. Later queries raise QueryError; closing twice is harmless."""
        self._transport.close()

    def latest(self, camera: str) -> Frame | None:
        """The newest frame, in two round trips; None if there is none."""
        return self._transport.run(self._queries.nearest(camera, None))

    def at(self, camera: str, when: When) -> Frame | None:
        """The newest frame at or before a time, in two round trips; None if there is none."""
        return self._transport.run(self._queries.nearest(camera, when))

    def get(self, key: str | bytes) -> Frame | None:
        """The frame of a key; None if it is gone."""
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

        ``step`` keeps the first frame read in each span of that length. ``limit`` bounds the number of frames.
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
        """The number of frames in a range."""
        return self._transport.run(self._queries.count(camera, start, end))

    def rate(
        self, camera: str, start: When | None = None, end: When | None = None, bucket: Span = "1m"
    ) -> list[Bucket]:
        """Frames, bytes and mean size per ``bucket``, from the first frame's bucket to the last frame's.

        Buckets are aligned to the epoch, so "1m" gives the clock's minutes. Empty buckets are included.
        """
        return self._transport.run(self._queries.rate(camera, start, end, bucket))

    def tail(self, cameras: Sequence[str] | str | None = None, since: Since = None) -> Frames[Frame]:
        """Frames as they are stored, of some cameras or of all (None), including cameras that are added later.

        ``since`` is a time, the ``position`` of an earlier tail (continues after it), or None (begins when the first
        frame is requested). The iterator never ends; use ``poll`` to wait for a limited time.
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

        Takes two round trips for any number of cameras, and one more when there is a new camera.
        """
        return self._transport.run(self._queries.snapshot())

    def stats(self) -> StoreStats:
        """Frames, bytes, oldest, newest and remaining lifetimes, per camera and in total. Reads every frame's TTL."""
        return self._transport.run(self._queries.stats())
