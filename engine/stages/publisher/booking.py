"""Counts of the publisher that a kill at any moment neither loses nor doubles.

An expired event counts when the cursor in Redis has passed it. Redis and the status page cannot be written in one
step. So the status page first holds the coming counts and a serial, and the cursors are saved with this serial. If a
successor finds the serial in Redis, the save succeeded, and it shows the counts.
"""

from __future__ import annotations

import secrets
from collections.abc import Collection

from engine.shm.status_page import PublisherCount, StatusPage

#: Each count, and the word that holds its coming value.
_BOOKED = (
    (PublisherCount.EXPIRED, PublisherCount.EXPIRED_NEXT),
    (PublisherCount.UNREADABLE, PublisherCount.UNREADABLE_NEXT),
)
#: Highest count, in case another program wrote to a journal; a word can hold more.
_COUNT_MAX = 2**62
#: Bits of a serial: it fits one word of the status page.
_SERIAL_BITS = 62


class Booking:
    """The counts of expired events and unreadable entries, on the publisher's status page."""

    def __init__(self, page: StatusPage) -> None:
        self._counts = page.counts
        self._open = [0, 0]

    @property
    def begun(self) -> bool:
        """True if a publisher of this site has counted any event before."""
        return any(self._counts[word] for word in (PublisherCount.CONFIRMED, PublisherCount.EXPIRED))

    def recover(self, serials: Collection[bytes]) -> None:
        """Finish a predecessor's save if its serial is among those in Redis."""
        if b"%d" % self._counts[PublisherCount.SAVE_SERIAL] in serials:
            self._show()
        self._counts[PublisherCount.SAVE_SERIAL] = 0

    def add(self, expired: int, unreadable: int) -> None:
        """Add events that the next save of the cursors passes."""
        self._open = [self._open[0] + expired, self._open[1] + unreadable]

    def intend(self) -> str:
        """The serial to save the cursors with; empty if there is nothing to count."""
        if not any(self._open):
            return ""
        self._counts[PublisherCount.SAVE_SERIAL] = 0
        for (count, following), more in zip(_BOOKED, self._open, strict=True):
            self._counts[following] = min(self._counts[count] + more, _COUNT_MAX)
        serial = secrets.randbits(_SERIAL_BITS) + 1
        self._counts[PublisherCount.SAVE_SERIAL] = serial
        return str(serial)

    def settle(self) -> None:
        """The save succeeded: show its counts."""
        if any(self._open):
            self._show()
            self._counts[PublisherCount.SAVE_SERIAL] = 0
            self._open = [0, 0]

    def _show(self) -> None:
        for count, following in _BOOKED:
            self._counts[count] = self._counts[following]
