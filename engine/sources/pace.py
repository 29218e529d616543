"""Paces sources without a clock of their own: test patterns by their rate, files by the times of their packets."""

from __future__ import annotations

import time

#: Longest sleep of a paced source before it returns to its caller, in seconds.
PACE_SECONDS_MAX = 0.2
#: Seconds that a paced source may fall behind before it stops catching up.
_LAG_SECONDS_MAX = 1.0
#: Frames per second of a source without a valid rate, and the highest rate that is valid.
_FPS_DEFAULT, FPS_MAX = 25.0, 1000.0
#: The longest step between two packets of a file that is waited for, in seconds. A damaged file may state any time.
_STEP_SECONDS_MAX = 10.0


class Pacer:
    """Holds a source to ``fps`` frames per second, or to the times that its packets state."""

    def __init__(self, fps: float) -> None:
        self._interval = 1 / (fps if 0 < fps <= FPS_MAX else _FPS_DEFAULT)
        #: When the last packet was due, and the time that it stated.
        self._due = time.monotonic() - self._interval
        self._last: int | None = None

    def wait(self, nano: int | None = None) -> bool:
        """Sleep until the next packet is due, PACE_SECONDS_MAX at most; True if it is due now. ``nano``: the time that
        the packet states, in nanoseconds."""
        due = self._due + self._step(nano)
        early = due - time.monotonic()
        if early > 0:
            time.sleep(min(early, PACE_SECONDS_MAX))
            if early > PACE_SECONDS_MAX:
                return False
        elif early < -_LAG_SECONDS_MAX:
            due -= early
        self._due, self._last = due, nano
        return True

    def _step(self, nano: int | None) -> float:
        """Seconds from the last packet to this one; one frame's interval if their times do not tell."""
        if nano is None or self._last is None:
            return self._interval
        step = (nano - self._last) / 1e9
        return step if 1 / FPS_MAX <= step <= _STEP_SECONDS_MAX else self._interval
