"""Decodes stored JPEGs with cv2, and encodes pictures."""

from __future__ import annotations

import cv2
import numpy as np
from numpy.typing import NDArray

from engine.client.video import Colour
from engine.errors import WireError


def decode(data: bytes) -> NDArray[np.uint8]:
    """The picture of a JPEG: (height, width, 3), BGR. Raises WireError."""
    try:
        picture = cv2.imdecode(np.frombuffer(data, np.uint8), cv2.IMREAD_COLOR) if data else None
    except cv2.error:
        # The header claims more pixels than cv2 reads.
        picture = None
    if picture is None:
        raise WireError(f"{len(data)} bytes that begin with {data[:4].hex()!r} are no picture")
    return np.asarray(picture, np.uint8)


def paint(data: bytes, colour: Colour) -> NDArray[np.uint8]:
    """``decode`` in the order of channels that is asked for."""
    picture = decode(data)
    return picture if colour == "bgr" else np.asarray(cv2.cvtColor(picture, cv2.COLOR_BGR2RGB), np.uint8)
