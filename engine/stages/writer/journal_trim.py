"""When journal entries may go: not before their frames.

A frame lives for the TTL from when it was stored, an entry's id says when it was captured, and an outage lies between
the two. So the writer remembers, a few times per TTL, up to which frame it had stored by when; entries below the
newest such mark that is a TTL (and a grace) old are trimmed. The grace leaves a publisher without a broker the time to
count the events that it could not send.
"""

from __future__ import annotations

from collections import deque

#: Marks kept per TTL; an entry outlives its frame by at most one more part.
_MARKS_PER_TTL = 64
#: Seconds that entries stay behind their frames.
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
        """The id below which entries may go, 0 where there is nothing new to trim; asked once, a mark is used up."""
        found = 0
        while self._marks and now - self._marks[0][0] > self._life:
            found = self._marks.popleft()[1]
        return found
