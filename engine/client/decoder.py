"""Decodes access units with PyAV; beside ``film`` and ``video_film``, the only module that imports it.

PyAV is large, so this module is imported only when a picture is decoded.
"""

from __future__ import annotations

import re
from typing import Any, NamedTuple

import av
import numpy as np
from av.video.reformatter import VideoReformatter
from numpy.typing import NDArray

from engine.client.access_units import Continuity, Reordering, Step
from engine.client.video import Colour, VideoEntry, VideoUnit
from engine.wire.access_unit import AccessUnits

#: FFmpeg's names of encodings, and its options for each. FFmpeg marks damaged pictures of H.264. Those of H.265 it does
#: not mark, so there an error ends the decoding of a unit.
_CODECS: dict[str, tuple[str, dict[str, str]]] = {
    "h264": ("h264", {}),
    "h265": ("hevc", {"err_detect": "explode"}),
}
#: The most pixels of a picture. A damaged parameter set may claim any size.
_PIXELS_MAX = 2**26
#: Start codes and headers of the two kinds of SEI messages of H.265, and one as a whole.
_SEI_STARTS = (b"\0\0\1\x4e", b"\0\0\1\x50")
_SEI = re.compile(rb"\x00\x00\x01[\x4e\x50].*?(?=\x00\x00\x01|\Z)", re.DOTALL)
_FORMATS: dict[Colour, str] = {"bgr": "bgr24", "rgb": "rgb24"}
#: FFmpeg's number of the colour matrix of a stream that names none.
_MATRIX_UNSPECIFIED = 2
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

    A key frame that does not continue the stream begins a new decoder. A camera's new connection leaves no gap in the
    sequences, and an old picture may have the number of a new one.

    Units that cannot be decoded are passed over and counted in ``skipped``: those after a gap in the sequences or after
    a damaged unit, until the next key frame. A damaged unit is one that FFmpeg reports. Pictures that depend on it, but
    are shown before it (B-frames), may have come out already.
    """

    def __init__(self) -> None:
        #: How far pictures are reordered. FFmpeg drops pictures that are reordered further than it knows of, and a
        #: stream may not say how far. So the caller shows the units to come to ``reordering``.
        self.reordering = Reordering()
        self._continuity = Continuity()
        self._stream = AccessUnits("h264")
        self._lost = 0
        self._context: Any = None
        self._number = 0
        #: Units whose pictures have not come out, by their numbers; the last number whose picture has.
        self._fed: dict[int, _Fed] = {}
        self._last_out = 0
        #: The number of the last key frame, and that of the one where decoding began.
        self._gop = self._begun = 0
        #: True until the picture of the first key frame has come out. What is shown before depends on other units.
        self._leading = False
        #: The first damaged unit of a GOP: its number and the GOP's.
        self._damaged = (0, 0)

    @property
    def skipped(self) -> int:
        """Units so far that gave no picture because they, or units before them, are missing or damaged."""
        return self._continuity.skipped + self._lost

    def feed(self, unit: VideoUnit) -> list[Decoded]:
        """Decode the next unit. Gives the pictures that are complete: none, one or several."""
        self.reordering.see(unit)
        step = self._continuity.step(unit)
        if unit.encoding == "h264":
            self._stream.read(memoryview(unit.data), flagged=unit.keyframe)
            if step is Step.CONTINUE and self._stream.begins_anew:
                step = Step.BEGIN
        if step is Step.CONTINUE:
            return self._decode(unit)
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

    def _begin(self, unit: VideoUnit) -> list[Decoded]:
        """Decode a key frame with a decoder that knows nothing of what came before."""
        codec, options = _CODECS[unit.encoding]
        context: Any = av.CodecContext.create(codec, "r")
        context.options = {"max_pixels": f"{_PIXELS_MAX}", **options}
        # More threads would hold back a picture each.
        context.thread_count = 1
        context.open()
        self._context = context
        self._fed.clear()
        self._begun = self._number + 1
        self._leading = True
        return self._decode(unit)

    def _decode(self, unit: VideoUnit) -> list[Decoded]:
        self._number += 1
        if unit.keyframe:
            self._gop = self._number
        self._fed[self._number] = _Fed(unit, self._gop)
        self._fed.pop(self._number - _WAITING_MAX, None)
        packet = av.Packet(_without_sei(unit.data) if unit.encoding == "h265" else unit.data)
        packet.pts = self._number
        self._context.reorder_depth = max(self._context.reorder_depth, self.reordering.depth)
        try:
            return self._complete(self._context.decode(packet))
        except av.FFmpegError:
            return self._refused()

    def _refused(self) -> list[Decoded]:
        """FFmpeg does not decode the last unit. Gives the pictures before it."""
        self._continuity.break_off()
        # FFmpeg may give what it has of the unit.
        self._damaged = self._number, self._gop
        found = self._drain()
        # This unit, and those just before it that FFmpeg made nothing of.
        self._lost += sum(number > self._last_out for number in self._fed)
        self._fed.clear()
        return found

    def _drain(self) -> list[Decoded]:
        """The pictures that FFmpeg holds back; it then takes no more units."""
        if self._context is None:
            return []
        try:
            frames = self._context.decode(None)
        except av.FFmpegError:
            frames = []
        self._context = None
        return self._complete(frames)

    def _complete(self, frames: list[Any]) -> list[Decoded]:
        found = []
        for frame in frames:
            fed = self._fed.pop(frame.pts, None)
            if fed is None:
                continue
            self._last_out = max(self._last_out, frame.pts)
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


def _without_sei(data: bytes) -> bytes:
    """H.265 without SEI messages: decoding does not need them, and some cameras send invalid ones."""
    return _SEI.sub(b"", data) if any(start in data for start in _SEI_STARTS) else data


class Painter:
    """Makes arrays of decoded pictures; keeps what the conversion needs between them."""

    def __init__(self, colour: Colour) -> None:
        self._format = _FORMATS[colour]
        self._reformatter = VideoReformatter()

    def paint(self, frame: Any) -> NDArray[np.uint8]:
        """(height, width, 3), 8 bits each."""
        try:
            painted = self._reformatter.reformat(frame, format=self._format, threads=1)
        except av.FFmpegError:
            # The stream names a colour matrix that FFmpeg does not know how to convert.
            frame.colorspace = _MATRIX_UNSPECIFIED
            painted = self._reformatter.reformat(frame, format=self._format, threads=1)
        return np.ascontiguousarray(painted.to_ndarray(), np.uint8)
