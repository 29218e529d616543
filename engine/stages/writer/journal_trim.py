"""Decides when journal entries may be trimmed: not before their frames expire.

A frame's TTL starts when it is stored, but an entry's id is the time of capture. An outage may lie between the two. So
several times per TTL the writer notes which frame it had stored by when. Entries below the newest note that is older
than a TTL and a grace are trimmed. The grace gives a publisher without a broker time to count the events that it could
not send.
"""

from __future__ import annotations

from collections import deque

#: Marks per TTL. Beyond the grace, an entry outlives its frame by at most one such interval.
_MARKS_PER_TTL = 64
#: Seconds that entries stay longer than their frames.
GRACE_SECONDS = 5.0


class JournalTrim:
    """The marks of one camera. ``ttl_seconds`` is the frames' lifetime; times are monotonic seconds."""

    def __init__(self, ttl_seconds: float) -> None:
        self._life = ttl_seconds + GRACE_SECONDS
        self._step = ttl_seconds / _MARKS_PER_TTL
        self._marks: deque[tuple[float, int]] = deque()

    def stored(self, unix_nano: int, now: float) -> None:
        """All frames up to ``unix_nano`` are stored by ``now``."""
        if not self._marks or now - self._marks[-1][0] >= self._step:
            self._marks.append((now, unix_nano))

    def trim_nano(self, now: float) -> int:
        """The id below which entries may be trimmed; 0 if there is nothing new to trim. Each mark counts once."""
        found = 0
        while self._marks and now - self._marks[0][0] > self._life:
            found = self._marks.popleft()[1]
        return found
