"""Which writer stores a camera, and which publisher announces it. Only the camera's id and the number of these
processes decide. So adding or removing a camera moves no other camera, and no process has to be told.

The ids of a site usually differ in a running number (cam1, cam2, ...). A plain hash spreads those at random: of 14
cameras, one process may get 4 and the other 10. So only the text around the number is hashed, to a place on a circle.
The number moves that place by the golden section of the circle, which keeps consecutive numbers far apart. Each process
owns an equal part of the circle.
"""

from __future__ import annotations

import hashlib
import re

_CIRCLE_BITS = 64
_CIRCLE: int = 2**_CIRCLE_BITS
_GOLDEN_SECTION = 0x9E3779B97F4A7C15
#: The last number of an id, up to 18 digits.
_LAST_NUMBER = re.compile(r"([0-9]{1,18})[^0-9]*\Z")


def share_of(camera: str, processes: int) -> int:
    """The number of the process, from 0 to ``processes`` - 1, that serves the camera with this id."""
    found = _LAST_NUMBER.search(camera)
    number, text = 0, camera
    if found:
        number, text = int(found[1]), f"{camera[: found.start(1)]}\0{camera[found.end(1) :]}"
    hashed = int.from_bytes(hashlib.blake2b(text.encode(), digest_size=_CIRCLE_BITS // 8).digest())
    place: int = (hashed + number * _GOLDEN_SECTION) % _CIRCLE
    return place * processes >> _CIRCLE_BITS
