"""When each entry was stored: the beginning of the latency from stored to confirmed.

Redis does not say when an entry was added. If Redis had nothing and waited for an entry, it was stored when the read
returned. Otherwise it was stored since the read before, if that took all there was, and since it was captured. So the
latency of an entry that came during the publisher's pause is too long by the time from captured to stored, but by no
more than the pause. An entry of a backlog counts from its capture on.
"""

from __future__ import annotations

import time
from collections.abc import Collection, Sequence

from engine.wire.journal import JournalEntry


class Arrivals:
    """Stamps the entries of one read after the other. All times are monotonic nanoseconds."""

    def __init__(self) -> None:
        self._now = self._clock_behind = self._emptied_at = 0
        self._fresh = False
        #: The cameras whose journals had nothing left at ``_emptied_at``.
        self._emptied: Collection[str] = ()

    def forget(self) -> None:
        """The next read begins elsewhere: it does not follow the last one."""
        self._emptied = ()

    def begin(self, *, fresh: bool) -> None:
        """A read has returned. Its entries are ``fresh`` if Redis waited for them."""
        self._now, self._fresh = time.monotonic_ns(), fresh
        self._clock_behind = self._now - time.time_ns()

    def stamped(self, camera: str, entries: Sequence[JournalEntry]) -> list[tuple[str, JournalEntry, int]]:
        """The entries of one camera in that read, each with the time since which it is stored."""
        now = self._now
        if self._fresh:
            return [(camera, entry, now) for entry in entries]
        floor, behind = self._emptied_at if camera in self._emptied else 0, self._clock_behind
        # After the clock was set back, a capture may seem to be in the future.
        return [(camera, entry, min(max(entry.unix_nano + behind, floor), now)) for entry in entries]

    def end(self, emptied: Collection[str]) -> None:
        """That read took all that the journals of these cameras had."""
        self._emptied_at, self._emptied = self._now, emptied
