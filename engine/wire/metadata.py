"""Metadata messages: JSON objects in the form that consumers expect. They announce stored frames, finished GOPs of
stored video, and changes of the cameras' states.

Field order is the wire order. ``size_bytes`` and ``frame_size_bytes`` carry the same number because consumers of both
names exist. Timestamps are RFC 3339 with all nine digits and ``Z``.
"""

from __future__ import annotations

import time
from collections.abc import Sequence
from typing import Literal, NamedTuple

import msgspec

from engine.errors import WireError
from engine.wire.journal import JournalEntry
from engine.wire.keys import frame_key_prefix, frame_key_suffix, video_key_prefix
from engine.wire.rfc3339 import NANO, rfc3339
from engine.wire.state import CameraStatus

CameraState = Literal["active", "stalled", "offline"]
#: The content type of message bodies.
CONTENT_TYPE = "application/json"


class FrameEvent(msgspec.Struct, frozen=True, gc=False, tag_field="event_type", tag="frame", omit_defaults=True):
    """Announces one stored frame.

    ``timestamp`` (RFC 3339, nine digits, Z) and ``timestamp_nano`` (nanoseconds since the epoch, UTC) are the time of
    capture. ``sequence`` has five digits. The frame is at ``redis_key``, for ``ttl_seconds`` from then on. ``width``
    and ``height`` are in pixels; both sizes are the payload's, in bytes. ``camera_time_nano`` is the capture time by
    the camera's own clock, in nanoseconds since the epoch (UTC); None, and absent from the message, if it is unknown.
    """

    camera_id: str
    timestamp: str
    timestamp_nano: int
    sequence: str
    redis_key: str
    vhost: str
    width: int
    height: int
    encoding: str
    size_bytes: int
    frame_size_bytes: int
    ttl_seconds: int
    camera_time_nano: int | None = None


class StatusEvent(msgspec.Struct, frozen=True, gc=False, tag_field="event_type", tag="camera_status"):
    """Announces a camera's change of state. ``timestamp`` and ``timestamp_nano`` are as in FrameEvent.

    ``consecutive_failures`` counts failed attempts to open the camera; ``last_error`` is empty if there is no error.
    """

    camera_id: str
    timestamp: str
    timestamp_nano: int
    state: CameraState
    consecutive_failures: int
    last_error: str

    @classmethod
    def of(cls, camera: str, status: CameraStatus) -> StatusEvent:
        """The event that announces a camera's state; not of one that connects."""
        assert status.state != "connecting"
        return cls(
            camera,
            rfc3339(status.timestamp_nano),
            status.timestamp_nano,
            status.state,
            status.consecutive_failures,
            status.last_error,
        )


class GopEvent(msgspec.Struct, frozen=True, gc=False, tag_field="event_type", tag="video_gop", omit_defaults=True):
    """Announces one finished GOP of a camera's stored video: a key frame, and the access units that need it.

    ``timestamp``, ``timestamp_nano``, ``sequence`` and ``first_key`` are the key frame's. ``last_timestamp``,
    ``last_timestamp_nano``, ``last_sequence`` and ``last_key`` are those of the last of its ``frames`` access units.
    All times are of arrival, in the forms of FrameEvent. ``duration_seconds`` lasts until the next GOP begins, or until
    the last access unit if units are missing between the two. ``size_bytes`` is the sum of all payloads. ``encoding``
    is ``h264`` or ``h265``. Redis keeps each access unit for ``ttl_seconds`` after it was stored. ``camera_time_nano``
    is that of the key frame, as in FrameEvent.

    A later event with the same ``first_key`` replaces this one: more units of the GOP have come.
    """

    camera_id: str
    timestamp: str
    timestamp_nano: int
    sequence: str
    last_timestamp: str
    last_timestamp_nano: int
    last_sequence: str
    first_key: str
    last_key: str
    vhost: str
    width: int
    height: int
    encoding: str
    frames: int
    size_bytes: int
    duration_seconds: float
    ttl_seconds: int
    camera_time_nano: int | None = None


Event = FrameEvent | StatusEvent | GopEvent
_encoder = msgspec.json.Encoder()
_decoder: msgspec.json.Decoder[Event] = msgspec.json.Decoder(Event)
_batch_decoder: msgspec.json.Decoder[list[FrameEvent]] = msgspec.json.Decoder(list[FrameEvent])


class FrameEvents:
    """Makes the events of one camera; constant parts are computed once.

    ``prefix`` and ``vhost`` are the site's, ``ttl_seconds`` the frames' lifetime in Redis.
    """

    def __init__(self, vhost: str, prefix: str, camera: str, ttl_seconds: int) -> None:
        self._vhost = vhost
        self._camera = camera
        self._ttl_seconds = ttl_seconds
        self._key_prefix = frame_key_prefix(vhost, prefix, camera)
        self._second = -1
        self._second_text = ""

    def event(self, entry: JournalEntry) -> FrameEvent:
        """The event that announces ``entry``."""
        unix_nano, sequence, size, width, height, encoding, _, _, _, camera_time_nano = entry
        seconds, nanos = divmod(unix_nano, NANO)
        if seconds != self._second:
            self._second = seconds
            self._second_text = time.strftime("%Y-%m-%dT%H:%M:%S.", time.gmtime(seconds))
        suffix = frame_key_suffix(unix_nano, sequence)
        return FrameEvent(
            self._camera,
            f"{self._second_text}{nanos:09d}Z",
            unix_nano,
            suffix[-5:],
            self._key_prefix + suffix,
            self._vhost,
            width,
            height,
            encoding,
            size,
            size,
            self._ttl_seconds,
            camera_time_nano,
        )


class Gop(NamedTuple):
    """A GOP as the journal lists it: its key frame and its last access unit, the number of its access units, the sum of
    their sizes in bytes, and when it ends (UTC nanoseconds)."""

    first: JournalEntry
    last: JournalEntry
    frames: int
    size: int
    end_nano: int


class GopEvents:
    """Makes the events of one camera's GOPs. Arguments are those of FrameEvents; ``ttl_seconds`` is the lifetime of
    video."""

    def __init__(self, vhost: str, prefix: str, camera: str, ttl_seconds: int) -> None:
        self._vhost = vhost
        self._camera = camera
        self._ttl_seconds = ttl_seconds
        self._key_prefix = video_key_prefix(vhost, prefix, camera)

    def event(self, gop: Gop) -> GopEvent:
        """The event that announces ``gop``."""
        first, last = (frame_key_suffix(entry.unix_nano, entry.sequence) for entry in (gop.first, gop.last))
        return GopEvent(
            self._camera,
            rfc3339(gop.first.unix_nano),
            gop.first.unix_nano,
            first[-5:],
            rfc3339(gop.last.unix_nano),
            gop.last.unix_nano,
            last[-5:],
            self._key_prefix + first,
            self._key_prefix + last,
            self._vhost,
            gop.first.width,
            gop.first.height,
            gop.first.encoding,
            gop.frames,
            gop.size,
            round((gop.end_nano - gop.first.unix_nano) / NANO, 6),
            self._ttl_seconds,
            gop.first.camera_time_nano,
        )


def encode_event(event: Event) -> bytes:
    """The body of a message with one event."""
    return _encoder.encode(event)


def encode_batch(events: Sequence[FrameEvent]) -> bytes:
    """The body of a message with many events: one JSON array."""
    return _encoder.encode(events)


def decode_event(body: bytes) -> Event:
    """Inverse of encode_event. Raises WireError."""
    try:
        return _decoder.decode(body)
    except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError) as error:
        raise WireError(f"metadata message: {error}") from None


def decode_batch(body: bytes) -> list[FrameEvent]:
    """Inverse of encode_batch. Raises WireError."""
    try:
        return _batch_decoder.decode(body)
    except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError) as error:
        raise WireError(f"metadata batch: {error}") from None
