"""How far a camera's clock is from ours, and how fast it drifts, from the times that it tells with its frames.

A frame is under way from the sensor to us for a while. So its camera time is before its stamp even if the clocks agree.
The frame of a period with the shortest way says most about the clock. The offset is too low by what that frame takes,
usually 0.05 to 0.3 s. That is nearly the same in every period, so the drift is free of it.
"""

from __future__ import annotations

from engine.shm.status_page import CaptureCount, StatusPage, signed_word

#: Nanoseconds of the first period, so that an offset shows soon, and of the others.
_FIRST_NANO, _PERIOD_NANO = 1_000_000_000, 10_000_000_000
#: A change of the offset from one period to the next, in nanoseconds, that no drift makes: a clock was set.
_SET_NANO = 100_000_000
#: The shortest and the longest time over which a drift is measured, in nanoseconds. The shortest ways of two periods
#: differ by a millisecond or so, which are 17 ppm of a minute.
_DRIFT_NANO_MIN, _DRIFT_NANO_MAX = 60 * 10**9, 3600 * 10**9


class CameraClock:
    """The clock of one camera, shown in its process's status ``page``."""

    def __init__(self, page: StatusPage) -> None:
        self._page = page
        self.begin()

    def begin(self) -> None:
        """A new connection begins: nothing is known."""
        #: Stamp and offset at the end of a period, in nanoseconds: those that the drift is measured from, those that it
        #: will be measured from next, and the last ones.
        self._from = self._next = self._last = (0, 0)
        #: The highest offset of the current period, and when it ends.
        self._highest: int | None = None
        self._ends = 0
        self._show(0, 0)

    def compare(self, camera_time_nano: int, unix_nano: int) -> None:
        """A frame has this camera time and this stamp."""
        offset = camera_time_nano - unix_nano
        if self._highest is None:
            self._highest = offset
            self._ends = unix_nano + (_PERIOD_NANO if self._last[0] else _FIRST_NANO)
        elif offset > self._highest:
            self._highest = offset
        if unix_nano >= self._ends:
            self._end(unix_nano, self._highest)
            self._highest = None

    def _end(self, unix_nano: int, offset: int) -> None:
        """A period has ended."""
        if not self._last[0] or abs(offset - self._last[1]) > _SET_NANO:
            self._from = self._next = unix_nano, offset
        self._last = unix_nano, offset
        if unix_nano - self._next[0] >= _DRIFT_NANO_MAX // 2:
            self._from, self._next = self._next, self._last
        passed = unix_nano - self._from[0]
        drift = signed_word((offset - self._from[1]) * 10**9 // passed) if passed >= _DRIFT_NANO_MIN else 0
        self._show(signed_word(offset // 1000), drift)

    def _show(self, offset: int, drift: int) -> None:
        self._page.counts[CaptureCount.CAMERA_OFFSET_US] = offset
        self._page.counts[CaptureCount.CAMERA_DRIFT_PPB] = drift
