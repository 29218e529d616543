"""Pictures for readers: cv2's door on the read side."""

from __future__ import annotations

import cv2
import numpy as np
from numpy.typing import NDArray

from engine.errors import WireError

#: Ticks a second of a film's time stamps: frames keep their times to the millisecond.
_TICKS = 1000
#: A chart's geometry in pixels.
_CHART_SIZE = (1200, 480)
_CHART_MARGIN = (80, 50, 20, 60)


def decode(data: bytes) -> NDArray[np.uint8]:
    """The picture of a JPEG: (height, width, 3), BGR. Raises WireError."""
    picture = cv2.imdecode(np.frombuffer(data, np.uint8), cv2.IMREAD_COLOR) if data else None
    if picture is None:
        raise WireError(f"{len(data)} bytes that begin with {data[:4].hex()!r} are no picture")
    return np.asarray(picture, np.uint8)
