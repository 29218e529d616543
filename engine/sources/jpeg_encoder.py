"""JPEGs of pictures: from a decoder's planes (YUV) with libjpeg-turbo, from BGR with cv2.

A decoder's picture has a plane of brightness (Y) and two of colour (U, V), mostly at half the size. JPEG has the same,
so the planes go to the encoder as they are. A picture in colours of three numbers a pixel is never made.

* **Range.** JPEG uses all values from 0 to 255. Video mostly uses 16 to 235 (240 for colour), which is stretched.
* **Size.** Each plane is resized by itself. The planes of colour get half the size in any case (4:2:0).
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import cv2
import numpy as np
import simplejpeg
from numpy.typing import NDArray

from engine.errors import WireError
from engine.sources.source import CapturedFrame

Plane = NDArray[np.uint8]

#: Factor and summand that stretch brightness and colour to all values.
_STRETCH_Y = (255 / 219, -16 * 255 / 219)
_STRETCH_UV = (255 / 224, 128 - 128 * 255 / 224)
_TURNS = {90: cv2.ROTATE_90_COUNTERCLOCKWISE, 180: cv2.ROTATE_180, -90: cv2.ROTATE_90_CLOCKWISE}


class Planes(NamedTuple):
    """A decoded picture: (height, width) arrays of brightness (Y) and of colour (U, V), which may be smaller. ``full``
    if they use all values from 0 to 255. ``rotation``: degrees by which it is to be turned, counterclockwise."""

    planes: Sequence[Plane]
    full: bool
    rotation: int = 0


def encode_planes(picture: Planes, quality: int, size: tuple[int, int] | None = None) -> CapturedFrame:
    """The JPEG of a decoded picture, resized to ``size`` (width, height) in pixels. Raises WireError."""
    planes = picture.planes
    if turn := _TURNS.get(picture.rotation):
        planes = [np.asarray(cv2.rotate(plane, turn), np.uint8) for plane in planes]
    height, width = planes[0].shape
    width, height = size or (width, height)
    half = ((width + 1) // 2, (height + 1) // 2)
    planes = [_resized(plane, wanted) for plane, wanted in zip(planes, ((width, height), half, half), strict=True)]
    if not picture.full:
        planes = [_stretched(planes[0], *_STRETCH_Y), *(_stretched(plane, *_STRETCH_UV) for plane in planes[1:])]
    try:
        data = simplejpeg.encode_jpeg_yuv_planes(*planes, quality=quality)
    except ValueError as error:
        raise WireError(f"a picture of {width}x{height} could not be encoded: {error}") from None
    return CapturedFrame((data,), width, height)


def encode_jpeg(picture: Plane, quality: int) -> Plane:
    """The JPEG of a (height, width, 3) BGR picture, as a flat array of bytes. Raises WireError."""
    good, data = cv2.imencode(".jpg", picture, [cv2.IMWRITE_JPEG_QUALITY, quality])
    if not good:
        raise WireError(f"a picture of shape {picture.shape} could not be encoded")
    return np.asarray(data, np.uint8).reshape(-1)


def resize(picture: Plane, width: int, height: int) -> Plane:
    """``picture``, a plane or a BGR picture, in this size in pixels."""
    return np.asarray(cv2.resize(picture, (width, height), interpolation=cv2.INTER_AREA), np.uint8)


def _resized(plane: Plane, size: tuple[int, int]) -> Plane:
    return plane if plane.shape == size[::-1] else resize(plane, *size)


def _stretched(plane: Plane, factor: float, summand: float) -> Plane:
    # The cheapest call of cv2 that multiplies, adds and saturates.
    return np.asarray(cv2.addWeighted(plane, factor, plane, 0, summand), np.uint8)


def single_thread() -> None:
    """Stop cv2 from making threads in this process."""
    cv2.setNumThreads(0)
