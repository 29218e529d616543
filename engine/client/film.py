"""Writes films of stored frames; the only module that imports PyAV. JPEGs go into the MP4 unchanged, without decoding.

PyAV is large and brings its own FFmpeg next to cv2's, so this module is imported only to write a film.
"""

from __future__ import annotations

import os
from array import array
from contextlib import suppress
from fractions import Fraction
from pathlib import Path
from statistics import median_low
from types import TracebackType
from typing import IO, Any, Self

import av

from engine.client.frame import Frame
from engine.errors import InputError, WireError
from engine.wire import jpeg
from engine.wire.rfc3339 import NANO

#: Ticks per second of a film's timestamps: frames keep their times to the millisecond.
_TICKS = 1000
_TICK_NANO = NANO // _TICKS
#: The longest time that an MP4 can show one frame, in ticks; the muxer writes garbage for a longer one.
_SHOWN_TICKS_MAX = 2**31 - 1
#: How long a film of one frame shows it, in ticks: there is no interval to measure.
_ONLY_TICKS = 1000
#: Bytes written to disk at a time.
_BUFFER_BYTES = 2**20


class Film:
    """An MP4 of one camera's frames, oldest first. The JPEGs are stored unchanged, each shown at its own time.

    The first frame is at 0 ms; the others are as many milliseconds later as they were captured. If two frames fall into
    one millisecond, the later one moves by 1 ms. Each frame is shown until the next, the last for the median of those
    times. The film's nominal size is that of the first frame; others may differ.

    ``path`` is created with the first frame. Use as a context manager: leaving it closes the film. Raises OSError if
    the file cannot be written, at the latest when it is closed.
    """

    def __init__(self, path: str | os.PathLike[str]) -> None:
        self._path = Path(path)
        self._file: IO[bytes] | None = None
        self._container: Any = None
        self._stream: Any = None
        #: The newest frame. It is held back until the next one, because only the last is written with a duration.
        self._packet: Any = None
        self._begin_nano = 0
        #: Milliseconds from each frame to the next.
        self._shown_ticks = array("q")
        #: Frames and payload bytes added so far.
        self.frames = 0
        self.bytes = 0

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._file is None:
            return
        if kind is None and self._packet is not None:
            try:
                self._finish()
            finally:
                self._abandon()
        else:
            self._abandon()

    def add(self, frame: Frame) -> None:
        """Add the next frame.

        Raises OSError if the file cannot be written, WireError if the first frame has no size, InputError if the gap
        to the last frame is longer than a film can show one frame.
        """
        if self._file is None:
            self._open(frame)
        tick = (frame.unix_nano - self._begin_nano + _TICK_NANO // 2) // _TICK_NANO
        if self._packet is not None:
            tick = max(tick, self._packet.pts + 1)
            shown = tick - self._packet.pts
            if shown > _SHOWN_TICKS_MAX:
                raise InputError(
                    f"frame {frame.key} comes {shown / _TICKS / 86_400:.1f} days after the one before it, and a film "
                    f"shows a frame for {_SHOWN_TICKS_MAX // _TICKS // 86_400} days at most; export the two sides apart"
                )
            self._shown_ticks.append(shown)
            self._container.mux_one(self._packet)
        packet = av.Packet(frame.data)
        packet.stream = self._stream
        packet.time_base = self._stream.time_base
        packet.pts = packet.dts = tick
        packet.is_keyframe = True
        self._packet = packet
        self.frames += 1
        self.bytes += len(frame.data)

    def _open(self, frame: Frame) -> None:
        size = (frame.width, frame.height) if frame.width and frame.height else jpeg.describe(frame.data)[:2]
        if not all(size):
            raise WireError(f"frame {frame.key} is no JPEG with a size; a film cannot begin with it")
        # Python opens the file, because FFmpeg takes text before a colon for a protocol, and reports no error when the
        # disk is full at close.
        self._file = self._path.open("wb", buffering=_BUFFER_BYTES)
        options = {"video_track_timescale": str(_TICKS)}
        self._container = av.open(self._file, "w", format="mp4", options=options)
        self._stream = self._container.add_mux_stream(
            "mjpeg", width=size[0], height=size[1], time_base=Fraction(1, _TICKS)
        )
        self._begin_nano = frame.unix_nano

    def _finish(self) -> None:
        assert self._file is not None
        self._packet.duration = median_low(self._shown_ticks) if self._shown_ticks else _ONLY_TICKS
        self._container.mux_one(self._packet)
        self._container.close()
        self._file.close()

    def _abandon(self) -> None:
        """Close everything and ignore errors: either the film is complete, or another error is reported."""
        assert self._file is not None
        # The file is closed first, so that the muxer cannot write the end of an incomplete film.
        with suppress(OSError):
            self._file.close()
        if self._container is not None:
            with suppress(OSError, ValueError):
                self._container.close()
