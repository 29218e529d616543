"""Counts of the publisher that a kill at any moment neither loses nor doubles.

An expired event counts when the cursor in Redis has passed it. Redis and the status page cannot be written in one
step. So the status page first holds the coming counts and a serial, and the cursors are saved with this serial. If a
successor finds the serial in Redis, the save succeeded, and it shows the counts. If a site has fewer publishers than
before, the first one does that for the pages of those that are gone.
"""

from __future__ import annotations

import secrets
from collections.abc import Collection
from typing import NamedTuple

from engine.shm.status_page import PublisherCount, StatusPage


class Words(NamedTuple):
    """The words of the status page that one kind of events is counted in. ``booked`` pairs each count with the word
    that holds its coming value, ``serial`` is that of the save, ``confirmed`` counts events."""

    booked: tuple[tuple[PublisherCount, PublisherCount], ...]
    serial: PublisherCount
    confirmed: PublisherCount


FRAME_WORDS = Words(
    (
        (PublisherCount.EXPIRED, PublisherCount.EXPIRED_NEXT),
        (PublisherCount.UNREADABLE, PublisherCount.UNREADABLE_NEXT),
    ),
    PublisherCount.SAVE_SERIAL,
    PublisherCount.CONFIRMED,
)
VIDEO_WORDS = Words(
    (
        (PublisherCount.VIDEO_EXPIRED, PublisherCount.VIDEO_EXPIRED_NEXT),
        (PublisherCount.VIDEO_UNREADABLE, PublisherCount.VIDEO_UNREADABLE_NEXT),
    ),
    PublisherCount.VIDEO_SAVE_SERIAL,
    PublisherCount.GOPS,
)
#: Highest count, in case another program wrote to a journal; a word can hold more.
_COUNT_MAX = 2**62
#: Bits of a serial: it fits one word of the status page.
_SERIAL_BITS = 62


class Booking:
    """The counts of expired events and unreadable entries, on the publisher's status page. Those of GOPs with
    ``words`` of their own."""

    def __init__(self, page: StatusPage, words: Words = FRAME_WORDS) -> None:
        self._counts = page.counts
        self._words = words
        self._open = [0, 0]

    @property
    def begun(self) -> bool:
        """True if a publisher of this site has counted any event before."""
        (expired, _), *_ = self._words.booked
        return any(self._counts[word] for word in (self._words.confirmed, expired))

    def recover(self, serials: Collection[bytes]) -> None:
        """Finish a predecessor's save if its serial is among those in Redis."""
        if b"%d" % self._counts[self._words.serial] in serials:
            self._show()
        self._counts[self._words.serial] = 0

    def add(self, expired: int, unreadable: int) -> None:
        """Add events that the next save of the cursors passes."""
        self._open = [self._open[0] + expired, self._open[1] + unreadable]

    def intend(self) -> str:
        """The serial to save the cursors with; empty if there is nothing to count."""
        if not any(self._open):
            return ""
        self._counts[self._words.serial] = 0
        for (count, following), more in zip(self._words.booked, self._open, strict=True):
            self._counts[following] = min(self._counts[count] + more, _COUNT_MAX)
        serial = secrets.randbits(_SERIAL_BITS) + 1
        self._counts[self._words.serial] = serial
        return str(serial)

    def settle(self) -> None:
        """The save succeeded: show its counts."""
        if any(self._open):
            self._show()
            self._counts[self._words.serial] = 0
            self._open = [0, 0]

    def _show(self) -> None:
        for count, following in self._words.booked:
            self._counts[count] = self._counts[following]
