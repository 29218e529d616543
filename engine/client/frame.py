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

_EPOCH = datetime.datetime(1970, 1, 1, tzinfo=datetime.UTC)


class FrameEntry(msgspec.Struct, frozen=True, gc=False):
    """What is known of a frame without its payload.

    ``vhost``, ``prefix`` and ``camera`` say whose it is. ``unix_nano`` is when it was captured, in nanoseconds since
    the epoch (UTC). ``sequence`` counts the camera's frames, 1 to 99,999 and round again; a gap is a lost frame.
    ``size`` is the payload's, in bytes. ``width`` and ``height`` are in pixels, 0 where nobody knows them. ``encoding``
    is ``"jpeg"``. ``keyframe`` is True where the frame can be decoded alone, as every JPEG can.
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
            # Somebody made it by hand, of parts that no key can hold.
            return f"<{type(self).__name__} {self.camera} {self.unix_nano}, {size}>"

    def __rich_repr__(self) -> list[tuple[str, Any]]:
        """As ``repr``, for rich, which otherwise shows every field."""
        return [("camera", self.camera), ("timestamp", self.timestamp), ("size", self.size), ("key", self.key)]

    @property
    def key(self) -> str:
        """The frame's key in Redis."""
        return keys.build_frame_key(keys.FrameKey(self.vhost, self.prefix, self.camera, self.unix_nano, self.sequence))

    @property
    def timestamp(self) -> datetime.datetime:
        """When it was captured, in UTC; a datetime holds microseconds, ``unix_nano`` holds it all."""
        return _EPOCH + datetime.timedelta(microseconds=self.unix_nano // 1000)

    @property
    def entry_id(self) -> str:
        """The frame's place in its camera's journal; ``tail(since={camera: entry_id})`` goes on behind it."""
        return entry_id(self.unix_nano, self.sequence)


class Frame(FrameEntry, frozen=True, gc=False):
    """A frame with its payload: ``data``, a whole JPEG of ``size`` bytes."""

    data: bytes

    def image(self) -> NDArray[np.uint8]:
        """The picture, decoded: an array of shape (height, width, 3), 8 bits each, blue, green, red.

        Loads cv2. Raises WireError where the payload is no picture.
        """
        from engine.client.picture import decode

        return decode(self.data)


def entry_of(vhost: str, prefix: str, camera: str, entry: JournalEntry) -> FrameEntry:
    """A journal's entry with its camera."""
    return FrameEntry(vhost, prefix, camera, *entry[:7])


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
    )


def frame_of(key: keys.FrameKey, data: bytes) -> Frame:
    """The frame of a key that no journal lists; size and encoding are what its bytes say."""
    width, height, encoding = jpeg.describe(data)
    return Frame(*key, len(data), width, height, encoding, True, data)
