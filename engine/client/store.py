"""``FrameStore``: a tenant's stored frames and video, for scripts and threads.

The queries are shared with ``AsyncFrameStore`` (``queries.py``); the two differ only in how they wait. Nothing here
walks the keyspace: names and times come from the journals, payloads are fetched by key.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Self

from engine.client.frame import Frame, FrameEntry
from engine.client.iterators import Frames, Pictures
from engine.client.stats import Bucket, StoreStats
from engine.client.store_base import Since, StoreBase
from engine.client.times import Span, When
from engine.client.transport import Transport
from engine.client.video import Colour, Picture, VideoEntry, VideoUnit
from engine.wire.state import CameraStatus


class FrameStore(StoreBase):
    """A tenant's stored frames and video. Threads may share one store, but not an iterator of it.

    Frames are JPEGs: ``latest``, ``at``, ``get``, ``range``, ``entries``, ``tail`` and ``snapshot`` give what a
    camera's JPEGs are, and nothing of its video. Video is a camera's own packets (H.264, H.265): ``video`` and
    ``tail_video`` give them as they are stored; ``picture``, ``pictures`` and ``tail_pictures`` decode them.

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
        """The newest JPEG frame, in two round trips; None if there is none. ``picture`` also looks at video."""
        return self._transport.run(self._queries.nearest(camera, None))

    def at(self, camera: str, when: When) -> Frame | None:
        """The newest JPEG frame at or before a time, in two round trips; None if there is none. ``picture`` also
        looks at video."""
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
        """JPEG frames from ``start`` to ``end``, oldest first (newest first with ``reverse``).

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

    def count(self, camera: str, start: When | None = None, end: When | None = None, *, video: bool = False) -> int:
        """The number of frames in a range; with ``video``, of access units."""
        queries = self._video if video else self._queries
        return self._transport.run(queries.count(camera, start, end))

    def rate(
        self,
        camera: str,
        start: When | None = None,
        end: When | None = None,
        bucket: Span = "1m",
        *,
        video: bool = False,
    ) -> list[Bucket]:
        """Frames, bytes and mean size per ``bucket``, from the first frame's bucket to the last frame's.

        Buckets are aligned to the epoch, so "1m" gives the clock's minutes. Empty buckets are included. With ``video``,
        access units are counted.
        """
        queries = self._video if video else self._queries
        return self._transport.run(queries.rate(camera, start, end, bucket))

    def tail(self, cameras: Sequence[str] | str | None = None, since: Since = None) -> Frames[Frame]:
        """Frames as they are stored, of some cameras or of all (None), including cameras that are added later.

        ``since`` is a time, the ``position`` of an earlier tail (continues after it), or None (begins when the first
        frame is requested). The iterator never ends; use ``poll`` to wait for a limited time.
        """
        return Frames(self._transport, self._queries.tail(cameras, since, payload=True, block_ms=self._block_ms))

    def tail_entries(self, cameras: Sequence[str] | str | None = None, since: Since = None) -> Frames[FrameEntry]:
        """``tail`` without the payloads."""
        return Frames(self._transport, self._queries.tail(cameras, since, payload=False, block_ms=self._block_ms))

    def video(
        self,
        camera: str,
        start: When | None = None,
        end: When | None = None,
        *,
        limit: int | None = None,
        reverse: bool = False,
        from_key: bool = False,
    ) -> Frames[VideoUnit]:
        """A camera's access units as they are stored, from ``start`` to ``end`` by their arrival, in decode order.

        With ``from_key`` they begin earlier: with the key frame that is needed to decode the picture that is shown at
        ``start``. ``client.video_film`` makes MP4 of such units.
        """
        units = self._video.units(camera, start, end, limit=limit, reverse=reverse, from_key=from_key)
        return Frames(self._transport, units)

    def video_entries(
        self,
        camera: str,
        start: When | None = None,
        end: When | None = None,
        *,
        limit: int | None = None,
        reverse: bool = False,
        from_key: bool = False,
    ) -> Frames[VideoEntry]:
        """``video`` without the payloads."""
        units = self._video.units(camera, start, end, limit=limit, reverse=reverse, from_key=from_key, payload=False)
        return Frames(self._transport, units)

    def tail_video(self, cameras: Sequence[str] | str | None = None, since: Since = None) -> Frames[VideoUnit]:
        """Access units as they are stored; ``cameras`` and ``since`` are those of ``tail``."""
        return Frames(self._transport, self._video.tail(cameras, since, payload=True, block_ms=self._block_ms))

    def tail_video_entries(self, cameras: Sequence[str] | str | None = None, since: Since = None) -> Frames[VideoEntry]:
        """``tail_video`` without the payloads."""
        return Frames(self._transport, self._video.tail(cameras, since, payload=False, block_ms=self._block_ms))

    def picture(self, camera: str, when: When | None = None, *, colour: Colour = "bgr") -> Picture | None:
        """The picture that is shown at a time, or the last one before it; the newest if ``when`` is None.

        It is decoded from the camera's video: in one round trip to find the key frame and one for the packets, and only
        from that key frame on. If the camera has no video then, its JPEG is decoded instead; the picture's ``encoding``
        says which. If the key frame is gone or damaged, an older picture is given. None if there is no picture.
        """
        reader = self._video.picture(camera, when, jpeg=self._queries.nearest, colour=colour)
        with Pictures(self._transport, reader) as pictures:
            return next(pictures, None)

    def pictures(
        self,
        camera: str,
        start: When | None = None,
        end: When | None = None,
        *,
        fps: float | None = None,
        colour: Colour = "bgr",
    ) -> Pictures:
        """A camera's video, decoded: the pictures that are shown from ``start`` to ``end``, in this order.

        Decoding begins with the key frame at or before ``start``. ``fps`` thins the pictures out: it keeps the first
        one in each span of 1 / ``fps`` seconds, and decodes only what that needs.

        After a gap in the sequences, an expired key frame or a damaged packet, the pictures go on with the next key
        frame; the iterator's ``skipped`` counts the packets passed over. Memory holds one chunk of packets and one
        decoder, whatever the range.
        """
        return Pictures(self._transport, self._video.pictures(camera, start, end, fps=fps, colour=colour))

    def tail_pictures(
        self, cameras: Sequence[str] | str | None = None, since: Since = None, *, colour: Colour = "bgr"
    ) -> Pictures:
        """Decoded pictures as their packets are stored, of some cameras or of all (None). Each packet is decoded once.

        ``since`` is that of ``tail``; a time is that at which pictures are shown. Where it begins between two key
        frames, the packets since the first of them are decoded at once. Each camera has a decoder until the iterator
        is closed. Pictures with B-frames come as much later as they are reordered.
        """
        reader = self._video.tail_pictures(cameras, since, colour=colour, block_ms=self._block_ms)
        return Pictures(self._transport, reader)

    def cameras(self) -> dict[str, CameraStatus]:
        """The tenant's cameras by name, and their states."""
        return self._transport.run(self._queries.cameras())

    def snapshot(self) -> dict[str, Frame]:
        """The newest frame of every camera that has one.

        Takes two round trips for any number of cameras, and one more when there is a new camera.
        """
        return self._transport.run(self._queries.snapshot())

    def stats(self) -> StoreStats:
        """Frames, bytes, oldest, newest and remaining lifetimes, per camera and in total; the same of stored video.
        Reads the TTL of every frame and access unit."""
        return self._transport.run(self._queries.stats())
