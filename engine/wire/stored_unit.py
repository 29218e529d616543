"""What a stored access unit is, read from its bytes alone: for keys that no journal lists.

Annex B does not name its codec, but the headers of NAL units tell it. In H.265 the first bit of a header's second half
belongs to the layer, which is 0 in every camera's stream, so the first byte of each NAL unit is even. In H.264 the
slices of a picture have types 1 and 5, so the first byte of some NAL unit is odd.
"""

from __future__ import annotations

import re
from typing import NamedTuple

from engine.wire.access_unit import AccessUnits, Encoding

#: A start code, and the first byte of the NAL unit behind it.
_NAL = re.compile(rb"\x00\x00\x01(.)", re.DOTALL)


class UnitShape(NamedTuple):
    """An access unit as its journal entry describes it. Width and height in pixels are 0 if it is no key frame: it does
    not carry them."""

    encoding: str
    keyframe: bool
    width: int
    height: int


def describe_unit(data: bytes) -> UnitShape | None:
    """The access unit that begins with ``data``; None if that is no access unit, or its first slice is not in
    ``data``."""
    encoding: Encoding = "h264" if any(match[1][0] & 1 for match in _NAL.finditer(data)) else "h265"
    # A parser of its own: a key frame is one only if it carries its parameter sets.
    unit = AccessUnits(encoding).read(memoryview(data), flagged=True)
    if unit is None or not unit.sound:
        return None
    return UnitShape(encoding, unit.keyframe, unit.width, unit.height)
