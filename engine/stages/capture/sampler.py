"""The fps limit of a camera: which of its frames are taken."""

from __future__ import annotations

#: Share of the frame interval by which a frame may come early and still be taken under an fps limit.
_EARLY = 0.1
#: Nanoseconds of stream that an fps limit lets through in one go: what a network held back and then sent at once.
_BURST_NANO = 500_000_000


class Sampler:
    """Thins a stream out to ``fps``: says of each arrival whether it is taken; the average rate is kept."""

    def __init__(self, fps: float) -> None:
        self._interval = int(1e9 / fps)
        self._due = -1

    def takes(self, monotonic: int) -> bool:
        """Whether the frame that arrived at ``monotonic`` nanoseconds is taken."""
        if monotonic < self._due - self._interval * _EARLY:
            return False
        begun = self._due < 0
        self._due = monotonic + self._interval if begun else max(self._due + self._interval, monotonic - _BURST_NANO)
        return True
