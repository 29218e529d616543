"""When access units had arrived, from when they were read.

FFmpeg hands out an access unit of RTSP when the next one begins: only that tells its parser that the unit is whole. So
a read comes one frame's interval after the unit that it returns (67 ms at 15 fps), and tells at the same moment when
the next unit began to arrive. A unit had therefore begun to arrive at the read before its own. Times in the stream are
not needed, so it does not matter if they jump, drift, are missing, or are in another order than the units.

The rest of a unit comes behind its first packet, at the rate of the network, and nobody sees it come. A camera's own
port has 100 Mbit/s; a relay on this machine sends at the speed of memory. The time in the middle of the two is wrong by
at most half of what 100 Mbit/s take. A camera that spreads its packets over the interval is stamped too early by as
much: its unit counts from the beginning.
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
