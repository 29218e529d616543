"""The fps limit of a camera: selects the frames to take."""

from __future__ import annotations

#: Share of the frame interval by which a frame may be early and still be taken.
_EARLY = 0.1
#: Nanoseconds of stream that an fps limit accepts at once: a network may hold frames back and deliver them together.
_BURST_NANO = 500_000_000


class Sampler:
    """Thins a stream to ``fps``: decides for each frame whether to take it, and keeps the average rate."""

    def __init__(self, fps: float) -> None:
        self._interval = int(1e9 / fps)
        self._due = -1

    def takes(self, monotonic: int) -> bool:
        """True if the frame that arrived at ``monotonic`` nanoseconds is taken."""
        if monotonic < self._due - self._interval * _EARLY:
            return False
        begun = self._due < 0
        self._due = monotonic + self._interval if begun else max(self._due + self._interval, monotonic - _BURST_NANO)
        return True
