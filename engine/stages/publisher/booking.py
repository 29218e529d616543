"""Counts of the publisher that a kill at any moment neither loses nor doubles.

An event that expired counts when the cursor in Redis has passed it. Redis and the status page cannot be written in one
step, so the status page first says what it will show, under a serial that the cursors are saved with: a successor that
finds this serial in Redis knows that the save came through, and shows it.
"""

from __future__ import annotations

import secrets
from collections.abc import Collection

from engine.shm.status_page import PublisherCount, StatusPage

#: Count, and the word that holds what it is about to become.
_BOOKED = (
    (PublisherCount.EXPIRED, PublisherCount.EXPIRED_NEXT),
    (PublisherCount.UNREADABLE, PublisherCount.UNREADABLE_NEXT),
)
#: What a journal that somebody else has written to may be counted to at most; a word holds more.
_COUNT_MAX = 2**62
#: Bits of a serial: it is one of the status page's words.
_SERIAL_BITS = 62


class Booking:
    """The counts of what expired and what could not be read, on the publisher's status page."""

    def __init__(self, page: StatusPage) -> None:
        self._counts = page.counts
        self._open = [0, 0]

    @property
    def begun(self) -> bool:
        """True where a publisher of this site has counted any event before."""
        return any(self._counts[word] for word in (PublisherCount.CONFIRMED, PublisherCount.EXPIRED))

    def recover(self, serials: Collection[bytes]) -> None:
        """Finish what a predecessor had begun, if its serial is among those that Redis has."""
        if b"%d" % self._counts[PublisherCount.SAVE_SERIAL] in serials:
            self._show()
        self._counts[PublisherCount.SAVE_SERIAL] = 0

    def add(self, expired: int, unreadable: int) -> None:
        """These are passed by the cursors that are saved next."""
        self._open = [self._open[0] + expired, self._open[1] + unreadable]

    def intend(self) -> str:
        """The serial to save the cursors with; empty where there is nothing to count."""
        if not any(self._open):
            return ""
        self._counts[PublisherCount.SAVE_SERIAL] = 0
        for (count, following), more in zip(_BOOKED, self._open, strict=True):
            self._counts[following] = min(self._counts[count] + more, _COUNT_MAX)
        serial = secrets.randbits(_SERIAL_BITS) + 1
        self._counts[PublisherCount.SAVE_SERIAL] = serial
        return str(serial)

    def settle(self) -> None:
        """The save came through."""
        if any(self._open):
            self._show()
            self._counts[PublisherCount.SAVE_SERIAL] = 0
            self._open = [0, 0]

    def _show(self) -> None:
        for count, following in _BOOKED:
            self._counts[count] = self._counts[following]
