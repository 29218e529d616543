"""Decodes stored JPEGs with cv2, and encodes pictures."""

from __future__ import annotations

import cv2
import numpy as np
from numpy.typing import NDArray

from engine.errors import WireError

#: JPEG quality of decoded pictures, of 100.
_QUALITY = 95


def decode(data: bytes, *, rgb: bool = False) -> NDArray[np.uint8]:
    """The picture of a JPEG: (height, width, 3), BGR or RGB. Raises WireError."""
    order = cv2.IMREAD_COLOR_RGB if rgb else cv2.IMREAD_COLOR
    try:
        picture = cv2.imdecode(np.frombuffer(data, np.uint8), order) if data else None
    except cv2.error:
        # The header claims more pixels than cv2 reads.
        picture = None
    if picture is None:
        raise WireError(f"{len(data)} bytes that begin with {data[:4].hex()!r} are no picture")
    return np.asarray(picture, np.uint8)


def encode(image: NDArray[np.uint8]) -> bytes:
    """A JPEG of a picture: (height, width, 3), BGR."""
    _, data = cv2.imencode(".jpg", image, [cv2.IMWRITE_JPEG_QUALITY, _QUALITY])
    return bytes(data)
