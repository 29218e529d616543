"""How long to wait between tries: the one rule for every server, camera and process that fails.

Pure: it has no clock and does not sleep. The caller counts a failure by asking for the next pause, and says when all is
well again.
"""

from __future__ import annotations

import random
from collections.abc import Callable

#: A pause is drawn from this share of itself up to all of it, so that those who failed together do not retry together.
_JITTER_MIN = 0.5
#: Doublings beyond which a pause is not computed; keeps the power within a float.
_DOUBLINGS_MAX = 64


class Backoff:
    """Pauses in seconds: the first is ``seconds_min``, each next one is twice as long, none exceeds ``seconds_max``.

    Each is shortened at random to between half and all of itself. ``uniform(low, high)`` draws from that range.
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
        """One more failure: seconds to wait before the next try."""
        doublings = min(self.failures, _DOUBLINGS_MAX)
        self.failures += 1
        pause = self._seconds_max if self._longest else min(self._seconds_min * 2.0**doublings, self._seconds_max)
        return pause * self._uniform(_JITTER_MIN, 1)

    def use_longest(self) -> None:
        """Until the next reset every pause is the longest one: trying soon cannot help."""
        self._longest = True

    def reset(self) -> None:
        """All is well: the next pause is the shortest."""
        self.failures = 0
        self._longest = False
