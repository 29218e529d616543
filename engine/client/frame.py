"""A stored frame as readers get it."""

from __future__ import annotations

import datetime
from typing import TYPE_CHECKING, Any

import msgspec

from engine.errors import WireError
from engine.wire import jpeg, keys
from engine.wire.journal import JournalEntry, entry_id
from engine.wire.rfc3339 import rfc3339

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

#: Nanosecond 0.
EPOCH = datetime.datetime(1970, 1, 1, tzinfo=datetime.UTC)


class CameraTime(msgspec.Struct, frozen=True, gc=False, kw_only=True):
    """The time that a camera told. By keyword, because the entries' own fields are required."""

    camera_time_nano: int | None = None


class FrameEntry(CameraTime, frozen=True, gc=False):
    """A frame's metadata, without its payload.

    ``vhost``, ``prefix`` and ``camera`` identify its origin. ``unix_nano`` is the time of arrival in nanoseconds since
    the epoch (UTC). ``camera_time_nano`` is the capture time by the camera's own clock, None if it did not tell.
    ``sequence`` numbers the camera's frames from 1 to 99,999, then starts again at 1; a gap is a lost frame. ``size``
    is the payload's, in bytes. ``width`` and ``height`` are in pixels, 0 if unknown. ``encoding`` is ``"jpeg"``.
    ``keyframe`` is True if the frame can be decoded alone, as every JPEG can.
    """

    vhost: str
    prefix: str
    camera: str
    unix_nano: int
    sequence: int
    size: int
    width: int
    height: int
    encoding: str
    keyframe: bool

    def __repr__(self) -> str:
        """Short, and without the payload: camera, time, size and key."""
        size = f"{self.width}x{self.height} {self.encoding}, {self.size} bytes"
        try:
            return f"<{type(self).__name__} {self.camera} {rfc3339(self.unix_nano)}, {size}, key {self.key}>"
        except (WireError, ValueError, OverflowError):
            # It was made by hand, from parts that no key can hold.
            return f"<{type(self).__name__} {self.camera} {self.unix_nano}, {size}>"

    def __rich_repr__(self) -> list[tuple[str, Any]]:
        """The same for rich, which otherwise shows every field."""
        return [("camera", self.camera), ("timestamp", self.timestamp), ("size", self.size), ("key", self.key)]

    @property
    def key(self) -> str:
        """The frame's key in Redis."""
        return keys.build_frame_key(keys.FrameKey(self.vhost, self.prefix, self.camera, self.unix_nano, self.sequence))

    @property
    def timestamp(self) -> datetime.datetime:
        """``unix_nano`` in UTC, to the microsecond."""
        return EPOCH + datetime.timedelta(microseconds=self.unix_nano // 1000)

    @property
    def entry_id(self) -> str:
        """The frame's id in its camera's journal; ``tail(since={camera: entry_id})`` continues after it."""
        return entry_id(self.unix_nano, self.sequence)


class Frame(FrameEntry, frozen=True, gc=False):
    """A frame with its payload: ``data``, a whole JPEG of ``size`` bytes."""

    data: bytes

    def image(self) -> NDArray[np.uint8]:
        """The decoded picture: an array of shape (height, width, 3), 8 bits each, in the order blue, green, red.

        Loads cv2. Raises WireError if the payload is not a picture.
        """
        from engine.client.picture import decode

        return decode(self.data)


def entry_of(vhost: str, prefix: str, camera: str, entry: JournalEntry) -> FrameEntry:
    """The FrameEntry of a camera's journal entry."""
    return FrameEntry(vhost, prefix, camera, *entry[:7], camera_time_nano=entry.camera_time_nano)


def with_data(entry: FrameEntry, data: bytes) -> Frame:
    """``entry`` and its payload."""
    return Frame(
        entry.vhost,
        entry.prefix,
        entry.camera,
        entry.unix_nano,
        entry.sequence,
        len(data),
        entry.width,
        entry.height,
        entry.encoding,
        entry.keyframe,
        data,
        camera_time_nano=entry.camera_time_nano,
    )


def frame_of(key: keys.FrameKey, data: bytes) -> Frame:
    """The frame of a key that no journal lists; size and encoding are read from its bytes."""
    width, height, encoding = jpeg.describe(data)
    return Frame(*key, len(data), width, height, encoding, True, data)
