"""When a camera captured its frames by its own clock, in nanoseconds since the epoch (UTC).

RTCP sender reports pair a time of the stream with the camera's clock. FFmpeg then adds the time by that clock to each
packet (side data ``prft``). Reading the side data would double the cost of a packet here. So it is read once a second,
and the times of the other packets are calculated from it: between reports, both clocks advance equally.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from engine.wire.journal import CAMERA_TIME_NANO_END

#: Nanoseconds of the stream's time after which a packet is asked again. A jump of that time by less goes unnoticed for
#: as long.
_ASK_NANO = 1_000_000_000


class CameraTimes:
    """Of one connection. ``ask`` returns the time that FFmpeg gives a packet. ``stated`` times are those of the stream,
    None if missing. A camera time is 0 if unknown."""

    def __init__(self, ask: Callable[[Any], int]) -> None:
        self._ask = ask
        #: Camera time of the stream's time 0; None if unknown.
        self._base: int | None = None
        self._asked: int | None = None

    def take(self, stated: int | None, packet: Any) -> int:
        """The camera time of the next packet."""
        if stated is None:
            self._asked = None
            return _valid(self._ask(packet))
        if self._asked is None or not -_ASK_NANO < stated - self._asked < _ASK_NANO:
            self._asked = stated
            nano = _valid(self._ask(packet))
            self._base = nano - stated if nano else None
        return self.of(stated)

    def of(self, stated: int | None) -> int:
        """The camera time of a picture, which may be shown before or after the last packet."""
        if self._base is None or stated is None:
            return 0
        return _valid(self._base + stated)


def _valid(nano: int) -> int:
    """``nano``, or 0 if a journal entry cannot hold it. Some cameras count time from their start; FFmpeg then reports a
    time near 1900."""
    return nano if 0 < nano < CAMERA_TIME_NANO_END else 0
