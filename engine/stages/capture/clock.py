"""Time stamps of frames: UTC nanoseconds that strictly increase.

While the wall clock is ahead of the last stamp, the stamp is the wall clock. The wall clock is behind if it was set
back, or if the journal's last entry is ahead. Stamps then advance at half speed from the last one until the clock has
caught up. They stay unique and in order, and their error shrinks every second.
"""

from __future__ import annotations

import time
from collections.abc import Callable

#: Nanoseconds by which a journal's last entry may be ahead of the clock: stamps still continue from it. A day is more
#: than a wrong time zone causes. At half speed the clock catches up in two days.
AHEAD_NANO_MAX = 24 * 3600 * 10**9
#: The first stamp of 19 digits, the width that keys have. A clock that was never set is before it.
_FIRST_NANO = 10**18


def latest_floor(wall: Callable[[], int] = time.time_ns) -> int:
    """The latest foreign stamp that new stamps may continue from, in nanoseconds UTC."""
    return wall() + AHEAD_NANO_MAX


class FrameClock:
    """Stamps of one camera. All stamps exceed ``floor_nano``; tests replace the clocks."""

    def __init__(
        self,
        floor_nano: int = 0,
        wall: Callable[[], int] = time.time_ns,
        monotonic: Callable[[], int] = time.monotonic_ns,
    ) -> None:
        self._wall = wall
        self._monotonic = monotonic
        self._last = max(floor_nano, _FIRST_NANO - 1)
        self._last_moment = monotonic()

    def stamp(self, floor_nano: int = 0, arrived_nano: int = 0) -> tuple[int, int]:
        """The stamp of a frame that arrived at ``arrived_nano`` (monotonic nanoseconds; 0: now), and the current time:
        (UTC nanoseconds, monotonic nanoseconds).

        The first exceeds every earlier stamp and ``floor_nano``.
        """
        now, monotonic = self._wall(), self._monotonic()
        moment = arrived_nano or monotonic
        now -= monotonic - moment
        last = max(self._last, floor_nano)
        if now <= last:
            now = last + max(1, (moment - self._last_moment) // 2)
        self._last, self._last_moment = now, moment
        return now, monotonic
