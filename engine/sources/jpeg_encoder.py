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

#: Factor and summand that stretch the values of each plane.
_STRETCHES = ((255 / 219, -16 * 255 / 219), *[(255 / 224, 128 - 128 * 255 / 224)] * 2)
#: Turns of pictures by degrees, counterclockwise.
_TURNS = {90: cv2.ROTATE_90_COUNTERCLOCKWISE, 180: cv2.ROTATE_180, 270: cv2.ROTATE_90_CLOCKWISE}


class Planes(NamedTuple):
    """A decoded picture: (height, width) arrays of brightness (Y) and of colour (U, V), which may be smaller. ``full``
    if they use all values from 0 to 255. ``rotation``: degrees by which it is to be turned, counterclockwise."""

    planes: Sequence[Plane]
    full: bool
    rotation: int = 0


class JpegEncoder:
    """Makes the JPEGs of one camera's decoded pictures, in ``size`` (width, height) in pixels if it is given."""

    def __init__(self, quality: int, size: tuple[int, int] | None = None) -> None:
        self._quality = quality
        self._size = size
        #: Memory for the stretched planes, which all pictures of a size use.
        self._stretched: list[Plane] = []

    def encode(self, picture: Planes) -> CapturedFrame:
        """The JPEG of a decoded picture. Raises WireError."""
        planes = picture.planes
        turn = _TURNS.get(picture.rotation % 360)
        try:
            if turn is not None:
                planes = [np.asarray(cv2.rotate(plane, turn), np.uint8) for plane in planes]
            height, width = planes[0].shape
            width, height = self._size or (width, height)
            half = ((width + 1) // 2, (height + 1) // 2)
            sizes = ((width, height), half, half)
            planes = [_resized(plane, size) for plane, size in zip(planes, sizes, strict=True)]
            if not picture.full:
                planes = self._stretch(planes)
            data = simplejpeg.encode_jpeg_yuv_planes(*planes, quality=self._quality)
        except (ValueError, cv2.error) as error:
            shape = "x".join(str(side) for side in reversed(picture.planes[0].shape))
            raise WireError(f"a picture of {shape} could not be encoded: {error}") from None
        return CapturedFrame((data,), width, height)

    def _stretch(self, planes: Sequence[Plane]) -> list[Plane]:
        """The planes with their values stretched to 0 to 255; valid until the next picture."""
        if [plane.shape for plane in self._stretched] != [plane.shape for plane in planes]:
            self._stretched = [np.empty(plane.shape, np.uint8) for plane in planes]
        for plane, result, (factor, summand) in zip(planes, self._stretched, _STRETCHES, strict=True):
            # The cheapest call of cv2 that multiplies, adds and saturates.
            cv2.addWeighted(plane, factor, plane, 0, summand, result)
        return self._stretched


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


def single_thread() -> None:
    """Stop cv2 from making threads in this process."""
    cv2.setNumThreads(0)
