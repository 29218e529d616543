"""How long to wait between tries: the one rule for every server, camera and process that fails.

Pure: it has no clock and does not sleep. The caller counts a failure by asking for the next pause, and reports when all
is well again.
"""

from __future__ import annotations

import random
from collections.abc import Callable

#: Shortest share of a pause that remains at random, so that callers that fail together do not retry together.
_JITTER_MIN = 0.5
#: Upper bound of the exponent; keeps the power within a float.
_DOUBLINGS_MAX = 64


class Backoff:
    """Pauses in seconds: the first is ``seconds_min``, each next one is twice as long, none exceeds ``seconds_max``.

    A random factor from half to 1 shortens each pause. ``uniform(low, high)`` draws the factor.
    """

    def __init__(
        self, seconds_min: float, seconds_max: float, uniform: Callable[[float, float], float] = random.uniform
    ) -> None:
        if not 0 < seconds_min <= seconds_max:
            raise ValueError(f"pauses from {seconds_min} s to {seconds_max} s; the shortest must be above 0")
        self._seconds_min = seconds_min
        self._seconds_max = seconds_max
        self._uniform = uniform
        #: Failures since the last reset.
        self.failures = 0
        self._longest = False

    def next_seconds(self) -> float:
        """Count a failure; returns the seconds to wait before the next try."""
        doublings = min(self.failures, _DOUBLINGS_MAX)
        self.failures += 1
        pause = self._seconds_max if self._longest else min(self._seconds_min * 2.0**doublings, self._seconds_max)
        return pause * self._uniform(_JITTER_MIN, 1)

    def use_longest(self) -> None:
        """Use the longest pause until the next reset; an early try cannot help."""
        self._longest = True

    def reset(self) -> None:
        """All is well: the next pause is the shortest."""
        self.failures = 0
        self._longest = False
