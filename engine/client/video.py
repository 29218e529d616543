"""A camera's stored video as readers get it: access units, and the pictures decoded from them."""

from __future__ import annotations

import datetime
from typing import TYPE_CHECKING, Literal

import msgspec

from engine.client.frame import EPOCH, FrameEntry
from engine.wire import keys
from engine.wire.journal import JournalEntry

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

#: The order of a picture's channels: blue, green, red (as cv2 has it), or red, green, blue.
Colour = Literal["bgr", "rgb"]


class VideoEntry(FrameEntry, frozen=True, gc=False):
    """An access unit's metadata, without its payload. An access unit is one coded picture.

    The fields are those of a FrameEntry. Units are in decode order: ``unix_nano`` is the time of arrival, and
    ``sequence`` numbers the camera's units; after a gap, nothing decodes until the next key frame. ``encoding`` is
    ``"h264"`` or ``"h265"``. If ``keyframe`` is True, decoding can begin here. ``offset_us`` is the presentation time
    in microseconds after ``unix_nano``; it may be negative.
    """

    offset_us: int

    @property
    def key(self) -> str:
        """The unit's key in Redis."""
        return keys.build_video_key(keys.FrameKey(self.vhost, self.prefix, self.camera, self.unix_nano, self.sequence))

    @property
    def shown_nano(self) -> int:
        """When the picture is shown, in nanoseconds since the epoch (UTC)."""
        return self.unix_nano + self.offset_us * 1000


class VideoUnit(VideoEntry, frozen=True, gc=False):
    """An access unit with its payload: ``data``, ``size`` bytes as the camera sent them, in Annex B.

    A key frame begins with its parameter sets.
    """

    data: bytes


class Picture(msgspec.Struct, frozen=True, eq=False):
    """A decoded picture.

    ``unix_nano`` is the time at which it is shown, in nanoseconds since the epoch (UTC). ``image`` has the shape
    (height, width, 3), 8 bits each, in the order of channels that was asked for; it may be written to. ``entry`` is
    the access unit that the picture was decoded from, or the JPEG frame if ``encoding`` is ``"jpeg"``.
    """

    entry: FrameEntry
    unix_nano: int
    image: NDArray[np.uint8]

    def __repr__(self) -> str:
        """Short, and without the pixels."""
        height, width, _ = self.image.shape
        return f"<Picture {self.camera} {self.timestamp.isoformat()}, {width}x{height}, from {self.entry.key}>"

    @property
    def camera(self) -> str:
        """The camera's id."""
        return self.entry.camera

    @property
    def encoding(self) -> str:
        """What it was decoded from: ``"h264"``, ``"h265"`` or ``"jpeg"``."""
        return self.entry.encoding

    @property
    def keyframe(self) -> bool:
        """True if it was decoded without other pictures."""
        return self.entry.keyframe

    @property
    def timestamp(self) -> datetime.datetime:
        """``unix_nano`` in UTC, to the microsecond."""
        return EPOCH + datetime.timedelta(microseconds=self.unix_nano // 1000)


def video_entry_of(vhost: str, prefix: str, camera: str, entry: JournalEntry) -> VideoEntry:
    """The VideoEntry of a journal entry of video."""
    return VideoEntry(vhost, prefix, camera, *entry[:7], entry.offset_us, camera_time_nano=entry.camera_time_nano)


def unit_with_data(entry: VideoEntry, data: bytes) -> VideoUnit:
    """``entry`` and its payload."""
    return VideoUnit(
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
        entry.offset_us,
        data,
        camera_time_nano=entry.camera_time_nano,
    )
