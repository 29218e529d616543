"""When access units had arrived, from when they were read.

FFmpeg returns an access unit of RTSP when the first packet of the next unit arrives. Only then does its parser know
that the unit is complete. So each read returns one frame interval late (67 ms at 15 fps). The same read shows when the
next unit began to arrive: each unit began at the previous read. The rule uses no times of the stream, so they may jump,
drift, be missing, or differ in order from the units. Network delay counts as part of the arrival.

The other packets of a unit follow at the rate of the network, which FFmpeg does not show. A camera's port has
100 Mbit/s; a relay on this machine sends at the speed of memory. A rate in the middle is wrong by at most half of the
time that 100 Mbit/s take. Of a camera that spreads its packets over the interval, a unit is stamped near its beginning.
"""

from __future__ import annotations

#: Half of the time that a byte takes at 100 Mbit/s, in nanoseconds.
_NANO_PER_BYTE = 40
#: The most that is added for a unit's size, in nanoseconds: networks that are faster stay within it, whatever the size.
_TRANSFER_NANO_MAX = 4_000_000


class Arrivals:
    """Of one connection. Times are monotonic nanoseconds."""

    def __init__(self) -> None:
        #: The last read: when the next unit begins to arrive; 0 before the first.
        self._begun = 0

    def arrived(self, read_nano: int, size: int) -> int:
        """When the unit of ``size`` bytes that was read at ``read_nano`` had arrived: never before the read before it,
        never after its own."""
        begun, self._begun = self._begun, read_nano
        if not begun:
            return read_nano
        return min(begun + min(size * _NANO_PER_BYTE, _TRANSFER_NANO_MAX), read_nano)
