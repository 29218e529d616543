"""Which pictures of a stream become JPEGs: all, those of key frames, or none (``decode`` in the site file).

``auto`` is ``all``. But if an fps limit can be met by the key frames alone, it is ``key``: a key frame is decoded by
itself, and all packets between are not decoded. The interval between key frames is measured, because cameras do not
tell it, and some change it with the scene. The choice changes at key frames only.
"""

from __future__ import annotations

from typing import Literal

from engine.wire.state import Decode

#: Intervals between key frames that must be short enough in a row before only key frames are decoded.
_INTERVALS_MIN = 3
#: Factors on the interval between pictures at the fps limit: key frames suffice up to the first, and no longer from the
#: second on.
_SHORT, _LONG = 1.05, 1.5
_NANO = 1_000_000_000


class DecodeMode:
    """The choice for one stream; ``fps`` is the camera's limit."""

    def __init__(self, wanted: Literal["auto", "all", "key", "none"], fps: float | None) -> None:
        self.decode: Decode = "all" if wanted == "auto" else wanted
        #: Nanoseconds between pictures at the fps limit; 0 if the choice is fixed.
        self._interval = _NANO / fps if wanted == "auto" and fps else 0.0
        self._last: int | None = None
        self._short = 0

    def key_frame(self, nano: int) -> None:
        """A key frame begins, at a time in nanoseconds; the time may begin anew within a stream."""
        if not self._interval:
            return
        passed = nano - self._last if self._last is not None else 0
        self._last = nano
        if passed <= 0:
            return
        self._short = self._short + 1 if passed <= self._interval * _SHORT else 0
        if self._short >= _INTERVALS_MIN:
            self.decode = "key"
        elif passed > self._interval * _LONG:
            self.decode = "all"
