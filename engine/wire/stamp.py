"""The stamp that test patterns carry in a COM segment: which camera, which frame, captured when.

    edge-video frame=00042 nano=1731024000123456789 camera=cam4

It has the same length for every frame of a camera, so that all frames of a pattern have the same size.
"""

from __future__ import annotations

import re
from typing import NamedTuple

from engine.errors import WireError
from engine.wire import jpeg
from engine.wire.keys import decode_part, encode_part

_STAMP = re.compile(rb"edge-video frame=([0-9]{5}) nano=([0-9]{19}) camera=(.+)", re.DOTALL)


class FrameStamp(NamedTuple):
    """``frame`` is the sequence number in the frame's key, ``unix_nano`` its stamp."""

    camera: str
    frame: int
    unix_nano: int


def build_stamp(stamp: FrameStamp) -> bytes:
    """The text of the COM segment."""
    return stamp_template(stamp.camera) % (stamp.frame, stamp.unix_nano)


def stamp_template(camera: str) -> bytes:
    """The text of a camera's stamps, with places for frame and unix_nano. All that it makes have the same length."""
    return b"edge-video frame=%05d nano=%019d camera=" + encode_part(camera).encode().replace(b"%", b"%%")


def find_stamp(picture: bytes | memoryview) -> FrameStamp:
    """The stamp inside a JPEG. Raises WireError where there is none."""
    for comment in jpeg.comments(picture):
        match = _STAMP.fullmatch(comment)
        if match:
            try:
                camera = match[3].decode()
            except UnicodeDecodeError:
                raise WireError(f"the stamp's camera {match[3]!r} is not UTF-8") from None
            return FrameStamp(decode_part(camera), int(match[1]), int(match[2]))
    raise WireError("the picture carries no test stamp")
