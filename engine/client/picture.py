"""Decodes stored JPEGs with cv2, and encodes pictures."""

from __future__ import annotations

import cv2
import numpy as np
from numpy.typing import NDArray

from engine.errors import WireError
from engine.wire import jpeg

#: JPEG quality of decoded pictures, of 100.
_QUALITY = 95
#: That of scaled ones, which are only looked at.
_SCALED_QUALITY = 80
#: Pixels that are decoded to scale a picture; a larger one is refused.
_PIXELS_MAX = 40_000_000
#: The decoder leaves out detail before it computes it: 1/8 of the width costs a fraction of a whole picture.
_REDUCED = ((8, cv2.IMREAD_REDUCED_COLOR_8), (4, cv2.IMREAD_REDUCED_COLOR_4), (2, cv2.IMREAD_REDUCED_COLOR_2))


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


def scaled(data: bytes, width: int) -> bytes:
    """A JPEG at a smaller width, its aspect kept; ``data`` itself if it is no wider. Raises WireError."""
    full_width, full_height, _ = jpeg.describe(data)
    factor, order = next(((f, o) for f, o in _REDUCED if full_width >= f * width), (1, cv2.IMREAD_COLOR))
    if full_width * full_height // factor**2 > _PIXELS_MAX:
        raise WireError(f"a picture of {full_width}x{full_height} pixels is too large to be scaled")
    try:
        image = cv2.imdecode(np.frombuffer(data, np.uint8), order) if full_width else None
    except cv2.error:
        image = None
    if image is None:
        raise WireError(f"{len(data)} bytes that begin with {data[:4].hex()!r} are no picture")
    high, wide = image.shape[:2]
    if wide > width:
        image = cv2.resize(image, (width, max(round(high * width / wide), 1)), interpolation=cv2.INTER_AREA)
    elif factor == 1:
        return data
    _, small = cv2.imencode(".jpg", image, [cv2.IMWRITE_JPEG_QUALITY, _SCALED_QUALITY])
    return bytes(small)
