"""``test://``: test patterns without a camera. Their frames identify themselves.

Each frame is the same picture of exactly the requested size in bytes. Its own COM segment carries camera, sequence and
time stamp (``engine/wire/test_mark.py``). Nothing is encoded or copied per frame.
"""

from __future__ import annotations

import zlib

import numpy as np
from numpy.typing import NDArray

from engine.config import Camera
from engine.errors import CameraUnavailable
from engine.sources.jpeg_encoder import encode_jpeg
from engine.sources.pace import Pacer
from engine.sources.source import CapturedFrame, OnePicture, SourceEnded
from engine.wire import jpeg, urls
from engine.wire.state import Mode
from engine.wire.test_mark import mark_template

#: Qualities tried until the picture fits the requested size.
_QUALITIES = (90, 70, 45, 20, 5)
#: Bytes of one COM segment with its marker: 65,535 for the length word and text, and 2.
_SEGMENT_BYTES_MAX = 65_537


class PatternSource(OnePicture):
    """The test pattern of ``camera``; ``already`` frames of it were sent before. Raises CameraUnavailable."""

    codec = "MJPG"
    mode: Mode = "passthrough"

    def __init__(self, camera: Camera, already: int = 0) -> None:
        self._pattern = urls.parse_test_url(camera.url)
        self._head = _head_template(camera.id)
        self._left = max(self._pattern.frames - already, 0) if self._pattern.frames else -1
        self._pacer = Pacer(self._pattern.fps)
        self._rest = memoryview(_picture(self._pattern, camera.id))
        self._width, self._height = self._pattern.width, self._pattern.height

    def grab(self) -> bool:
        """See Source."""
        if self._left == 0:
            raise SourceEnded(f"all {self._pattern.frames} frames were sent")
        if not self._pacer.wait():
            return False
        if self._left > 0:
            self._left -= 1
        return True

    def retrieve(self, unix_nano: int, sequence: int) -> CapturedFrame:
        """See Source."""
        return CapturedFrame((self._head % (sequence, unix_nano), self._rest), self._width, self._height)

    def close(self) -> None:
        """See Source."""


def _head_template(camera: str) -> bytes:
    """A picture's first bytes, up to its test mark's end, with placeholders for sequence and time stamp."""
    text = mark_template(camera)
    size = len(text % (1, 10**18))
    return jpeg.SOI + jpeg.comment_segment(bytes(size))[:4].replace(b"%", b"%%") + text


def _picture(pattern: urls.Pattern, camera: str) -> bytes:
    """A JPEG without its first two bytes. Together with the test mark it has exactly the pattern's size."""
    room = pattern.kb * 1024 - len(_head_template(camera) % (1, 10**18))
    colours = _colour_bars(pattern.width, pattern.height, zlib.crc32(camera.encode()))
    for quality in _QUALITIES:
        picture = encode_jpeg(colours, quality).tobytes()[len(jpeg.SOI) :]
        if len(picture) <= room:
            return _filler(room - len(picture)) + picture
    raise CameraUnavailable(
        f"no picture of {pattern.width}x{pattern.height} has {pattern.kb} kB or less; raise kb to "
        f"{-(-(len(picture) + 128) // 1024)}"
    )


def _filler(size: int) -> bytes:
    """COM segments of ``size`` bytes in all; up to 3 bytes, too few for a segment, are fill bytes before a marker."""
    segments = b""
    while size > 3:
        take = min(size, _SEGMENT_BYTES_MAX)
        segments += jpeg.comment_segment(bytes(take - 4))
        size -= take
    return segments + b"\xff" * size


def _colour_bars(width: int, height: int, seed: int) -> NDArray[np.uint8]:
    """(height, width, 3) BGR: eight bars in colours specific to the camera, over a ramp."""
    colours = np.random.default_rng(seed).integers(0, 176, (8, 3), np.uint8)
    bars = colours[np.arange(width) * 8 // width]
    ramp = (np.arange(height) * 80 // height).astype(np.uint8)
    return bars[None, :, :] + ramp[:, None, None]
