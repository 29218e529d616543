"""Films of stored frames: PyAV's one door. The JPEGs go into an MP4 as they are stored; nothing is decoded.

PyAV brings an FFmpeg of its own beside cv2's and is large, so only who writes a film imports this module.
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

#: Ticks a second of a film's time stamps: frames keep their times to the millisecond.
_TICKS = 1000
_TICK_NANO = NANO // _TICKS
#: The longest time that an MP4 shows one frame, in ticks; the muxer makes nonsense of a longer one.
_SHOWN_TICKS_MAX = 2**31 - 1
#: How long the only frame of a film is shown, in ticks: there is no interval to go by.
_ONLY_TICKS = 1000
#: Bytes that are written to the disk at a time.
_BUFFER_BYTES = 2**20


class Film:
    """An MP4 of one camera's frames, oldest first: the JPEGs as they are stored, each shown at its own time.

    The first frame is at 0 ms, the others as many milliseconds later as they were captured; of two within one
    millisecond the later moves on by one. Each is shown until the next, the last for the median of those times. The
    film's nominal size is the first frame's; others may differ.

    ``path`` is not there before the first frame. Use as a context manager: leaving it closes the film. Raises OSError
    where the file cannot be written, at the latest when it is closed.
    """

    def __init__(self, path: str | os.PathLike[str]) -> None:
        self._path = Path(path)
        self._file: IO[bytes] | None = None
        self._container: Any = None
        self._stream: Any = None
        #: The newest frame, which waits for the next: only the last is written with a duration.
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
        """The next frame.

        Raises OSError where the file cannot be written, WireError for a first frame without size, InputError for one
        that comes longer after the last than a film can show.
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
        # Through a file of ours, because FFmpeg takes what stands before a colon for a protocol, and closes a full disk
        # without a word.
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
        """Close what is open, without a word: the film is whole already, or another error tells of it."""
        assert self._file is not None
        # First the file, so that the muxer does not write an end to what is not whole.
        with suppress(OSError):
            self._file.close()
        if self._container is not None:
            with suppress(OSError, ValueError):
                self._container.close()
