"""Stamps for frames: UTC nanoseconds that only ever go up.

While the wall clock is ahead of the last stamp, a stamp is the wall clock. When it is behind, because it was set back
or because the journal's last entry is ahead, time runs at half speed from the last stamp until the clock has caught
up: stamps stay unique and in order, and come closer to the truth with every second.
"""

from __future__ import annotations

import time
from collections.abc import Callable

#: Nanoseconds by which a journal's last entry may be ahead of the clock and still be gone on from: a day, which is more
#: than a wrong time zone makes. At half speed the clock has then caught up in two.
AHEAD_NANO_MAX = 24 * 3600 * 10**9
#: The first stamp of 19 digits, which is what keys have room for: a machine whose clock was never set stands before it.
_FIRST_NANO = 10**18


def latest_floor(wall: Callable[[], int] = time.time_ns) -> int:
    """The latest stamp of somebody else's that stamps may go on from, in nanoseconds UTC."""
    return wall() + AHEAD_NANO_MAX


class FrameClock:
    """Stamps of one camera. ``floor_nano`` is a stamp that all must exceed; the clocks are for tests."""

    def __init__(
        self,
        floor_nano: int = 0,
        wall: Callable[[], int] = time.time_ns,
        monotonic: Callable[[], int] = time.monotonic_ns,
    ) -> None:
        self._wall = wall
        self._monotonic = monotonic
        self._last = max(floor_nano, _FIRST_NANO - 1)
        self._last_monotonic = monotonic()

    def stamp(self, floor_nano: int = 0) -> tuple[int, int]:
        """(UTC nanoseconds above every stamp before and above ``floor_nano``, monotonic nanoseconds), for now."""
        now, monotonic = self._wall(), self._monotonic()
        last = max(self._last, floor_nano)
        if now <= last:
            now = last + max(1, (monotonic - self._last_monotonic) // 2)
        self._last, self._last_monotonic = now, monotonic
        return now, monotonic
