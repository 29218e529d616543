"""The test mark in a COM segment of test patterns: camera, sequence and time stamp of the frame.

    edge-video frame=00042 nano=1731024000123456789 camera=cam4

All marks of a camera have the same length, so all frames of a pattern have the same size.
"""

from __future__ import annotations

import re
from typing import NamedTuple

from engine.errors import WireError
from engine.wire import jpeg
from engine.wire.keys import decode_part, encode_part

_MARK = re.compile(rb"edge-video frame=([0-9]{5}) nano=([0-9]{19}) camera=(.+)", re.DOTALL)


class FrameMark(NamedTuple):
    """``frame`` is the sequence in the frame's key, ``unix_nano`` its time stamp."""

    camera: str
    frame: int
    unix_nano: int


def build_mark(mark: FrameMark) -> bytes:
    """The text of the COM segment."""
    return mark_template(mark.camera) % (mark.frame, mark.unix_nano)


def mark_template(camera: str) -> bytes:
    """The text of a camera's marks, with places for frame and unix_nano. All marks from it have the same length."""
    return b"edge-video frame=%05d nano=%019d camera=" + encode_part(camera).encode().replace(b"%", b"%%")


def find_mark(picture: bytes | memoryview) -> FrameMark:
    """The test mark inside a JPEG. Raises WireError if there is none."""
    for comment in jpeg.comments(picture):
        match = _MARK.fullmatch(comment)
        if match:
            try:
                camera = match[3].decode()
            except UnicodeDecodeError:
                raise WireError(f"the test mark's camera {match[3]!r} is not UTF-8") from None
            return FrameMark(decode_part(camera), int(match[1]), int(match[2]))
    raise WireError("the picture carries no test mark")
