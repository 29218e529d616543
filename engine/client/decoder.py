"""Decodes access units with PyAV; beside ``film`` and ``video_film``, the only module that imports it.

PyAV is large, so this module is imported only when a picture is decoded.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import av
import numpy as np
from av.video.reformatter import VideoReformatter
from numpy.typing import NDArray

from engine.client.access_units import Continuity, Reordering, Step
from engine.client.video import Colour, VideoEntry, VideoUnit

#: FFmpeg's names of encodings, and its options for each. Of H.264, damaged pictures are marked. Of H.265 they are not,
#: so there an error ends the decoding of a unit.
_CODECS: dict[str, tuple[str, dict[str, str]]] = {
    "h264": ("h264", {}),
    "h265": ("hevc", {"err_detect": "explode"}),
}
#: The most pixels of a picture. A damaged parameter set may claim any size.
_PIXELS_MAX = 2**26
_FORMATS: dict[Colour, str] = {"bgr": "bgr24", "rgb": "rgb24"}
#: A unit whose picture has not come out so many units later has none: it was the second field of another's.
_WAITING_MAX = 64


class Decoded(NamedTuple):
    """A decoded picture in FFmpeg's form, and its access unit."""

    entry: VideoEntry
    frame: Any


class _Fed(NamedTuple):
    """A unit that was fed to FFmpeg; ``gop`` is the number of its last key frame."""

    entry: VideoEntry
    gop: int


class Decoder:
    """Decodes one camera's units, fed in decode order; each is decoded once. Pictures come out in the order in which
    they are shown.

    Units that cannot be decoded are passed over and counted in ``skipped``: those after a gap in the sequences or after
    a damaged unit, until the next key frame. A damaged unit is one that FFmpeg reports. Pictures that depend on it, but
    are shown before it (B-frames), may have come out already.
    """

    def __init__(self) -> None:
        #: How far pictures are reordered. FFmpeg drops pictures that are reordered further than it knows of, and a
        #: stream may not say how far. So the caller shows the units to come to ``reordering``.
        self.reordering = Reordering()
        self._continuity = Continuity()
        self._lost = 0
        self._context: Any = None
        self._number = 0
        self._fed: dict[int, _Fed] = {}
        #: The number of the last key frame, and that of the one where decoding began.
        self._gop = self._begun = 0
        #: True until the picture of the first key frame has come out. What is shown before depends on other units.
        self._leading = False
        #: The first damaged unit of a GOP: its number and the GOP's.
        self._damaged = (0, 0)
        #: Encodings that are decoded without their options: the camera's key frames raise errors with them.
        self._lenient: set[str] = set()

    @property
    def skipped(self) -> int:
        """Units so far that gave no picture because they, or units before them, are missing or damaged."""
        return self._continuity.skipped + self._lost

    def feed(self, unit: VideoUnit) -> list[Decoded]:
        """Decode the next unit. Gives the pictures that are complete: none, one or several."""
        self.reordering.see(unit)
        step = self._continuity.step(unit)
        if step is Step.CONTINUE:
            return self._taken(self._send(unit))
        # What was decoded before the gap is complete.
        found = self._drain()
        if step is Step.BEGIN:
            found += self._begin(unit)
        return found

    def finish(self) -> list[Decoded]:
        """The pictures that are still held back, at the end of the units."""
        self._continuity.break_off()
        return self._drain()

    def restart(self) -> None:
        """Units are left out on purpose; the next one is a key frame. Drops what is held back."""
        self._continuity.break_off()
        self.close()

    def close(self) -> None:
        """Free the decoder's memory."""
        self._context = None
        self._fed.clear()

    def _begin(self, unit: VideoUnit) -> list[Decoded]:
        """Decode a key frame with a decoder that knows nothing of what came before."""
        self._open(unit.encoding)
        frames = self._send(unit)
        if frames is None and _CODECS[unit.encoding][1] and unit.encoding not in self._lenient:
            # A camera's key frames may never be to the letter, and its pictures still whole.
            self._lenient.add(unit.encoding)
            self._open(unit.encoding)
            frames = self._send(unit)
        return self._taken(frames)

    def _open(self, encoding: str) -> None:
        codec, options = _CODECS[encoding]
        context: Any = av.CodecContext.create(codec, "r")
        context.options = {"max_pixels": f"{_PIXELS_MAX}"} | ({} if encoding in self._lenient else options)
        # More threads would hold back a picture each.
        context.thread_count = 1
        context.open()
        self._context = context
        self._begun = self._number + 1
        self._leading = True

    def _send(self, unit: VideoUnit) -> list[Any] | None:
        """FFmpeg's frames that are complete after ``unit``; None if it refuses the unit."""
        self._number += 1
        if unit.keyframe:
            self._gop = self._number
        self._fed[self._number] = _Fed(unit, self._gop)
        self._fed.pop(self._number - _WAITING_MAX, None)
        packet = av.Packet(unit.data)
        packet.pts = self._number
        self._context.reorder_depth = max(self._context.reorder_depth, self.reordering.depth)
        try:
            frames: list[Any] = self._context.decode(packet)
        except av.FFmpegError:
            return None
        return frames

    def _taken(self, frames: list[Any] | None) -> list[Decoded]:
        if frames is not None:
            return self._complete(frames)
        self._lost += 1
        self._continuity.break_off()
        return self._drain()

    def _drain(self) -> list[Decoded]:
        """The pictures that FFmpeg holds back; it then takes no more units."""
        if self._context is None:
            return []
        try:
            frames = self._context.decode(None)
        except av.FFmpegError:
            frames = []
        found = self._complete(frames)
        self.close()
        return found

    def _complete(self, frames: list[Any]) -> list[Decoded]:
        found = []
        for frame in frames:
            fed = self._fed.pop(frame.pts, None)
            if fed is None:
                continue
            if frame.pts == self._begun:
                self._leading = False
            if frame.is_corrupt and not self._leading and self._damaged[1] != fed.gop:
                self._damaged = frame.pts, fed.gop
                if fed.gop == self._gop:
                    self._continuity.break_off()
            number, gop = self._damaged
            if self._leading or (gop == fed.gop and frame.pts >= number):
                self._lost += 1
                continue
            found.append(Decoded(fed.entry, frame))
        return found


class Painter:
    """Makes arrays of decoded pictures; keeps what the conversion needs between them."""

    def __init__(self, colour: Colour) -> None:
        self._format = _FORMATS[colour]
        self._reformatter = VideoReformatter()

    def paint(self, frame: Any) -> NDArray[np.uint8]:
        """(height, width, 3), 8 bits each."""
        image = self._reformatter.reformat(frame, format=self._format, threads=1).to_ndarray()
        return np.ascontiguousarray(image, np.uint8)
