"""What Redis has acknowledged of one camera and must still have: so that a server which comes back with less than it
said it had is noticed, and what it lost is counted.

Twelve bytes are kept a frame, for as long as it is to live. A server that was restarted without its data, flushed, or
replaced by a replica that was behind, has lost frames from one end of the journal or the other; journals never lose
entries from between.
"""

from __future__ import annotations

from array import array
from bisect import bisect_left, bisect_right
from collections.abc import Sequence

from engine.shm.ring import Record
from engine.wire.journal import JournalSpan

#: Seconds before the end of its life from which a journal may be gone because it has expired.
_EXPIRY_MARGIN_SECONDS = 1.0


class Acknowledged:
    """The stamps and sizes of the acknowledged frames; ``ttl_seconds`` is their lifetime. Times are monotonic
    seconds."""

    def __init__(self, ttl_seconds: float) -> None:
        self._life = ttl_seconds - min(_EXPIRY_MARGIN_SECONDS, ttl_seconds / 2)
        self._nanos = array("Q")
        self._sizes = array("I")
        self._newest_at = 0.0

    def add(self, records: Sequence[Record], now: float) -> None:
        """``records`` are stored by ``now``."""
        for record in records:
            if not self._nanos or record.unix_nano > self._nanos[-1]:
                self._newest_at = now
                self._nanos.append(record.unix_nano)
                self._sizes.append(len(record.payload))
            else:
                # It turned out only now to have been stored.
                place = bisect_left(self._nanos, record.unix_nano)
                self._nanos.insert(place, record.unix_nano)
                self._sizes.insert(place, len(record.payload))

    def trim(self, unix_nano: int) -> None:
        """Entries before ``unix_nano`` are trimmed from the journal; nobody expects them any more."""
        count = bisect_left(self._nanos, unix_nano)
        del self._nanos[:count], self._sizes[:count]

    def take_lost(self, span: JournalSpan, now: float) -> tuple[int, int]:
        """How many frames, and bytes, are not within the ``span`` that the journal has now; they are told once."""
        if now - self._newest_at >= self._life:
            # The journal lives as long as its last frame.
            del self._nanos[:], self._sizes[:]
            return 0, 0
        first = bisect_right(self._nanos, span.deleted_nano)
        second = max(bisect_left(self._nanos, span.first_nano), first)
        third = max(bisect_right(self._nanos, span.last_nano), second)
        lost = self._sizes[first:second] + self._sizes[third:]
        del self._nanos[third:], self._sizes[third:]
        del self._nanos[first:second], self._sizes[first:second]
        return len(lost), sum(lost)
