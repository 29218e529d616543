"""Keeps a capture's rings in their places: if somebody removed or moved one, a new one is made where the writer finds
it."""

from __future__ import annotations

from collections.abc import Callable

from structlog.typing import FilteringBoundLogger

from engine.errors import EngineError
from engine.shm.ring import Producer
from engine.shm.ring_place import Renewed, words_of
from engine.shm.status_page import StatusPage


class RingKeeper:
    """``renew`` makes the new ring if one is needed. Raises nothing."""

    def __init__(
        self, renew: Callable[[Producer], Renewed | None], page: StatusPage, log: FilteringBoundLogger
    ) -> None:
        self._renew = renew
        self._page = page
        self._log = log
        #: Why the ring could not be put in its place; logged once.
        self._misplaced = ""

    def kept(self, former: Producer) -> Producer:
        """The ring to write to from now on: ``former``, or the one that replaces it."""
        try:
            renewed = self._renew(former)
        except (EngineError, OSError) as error:
            if str(error) != self._misplaced:
                self._misplaced = str(error)
                self._log.error("the ring is not in its place, and a new one cannot be made", error=str(error))
            return former
        self._misplaced = ""
        if not renewed:
            return former
        # From now on the writer may empty the former ring for the last time.
        self._page.counts[words_of(video=former.video)[0]] = renewed.producer.inode.number
        held = former.counts().held
        former.close()
        self._log.warning("the ring was removed or moved; made a new one", left_to_the_writer=held)
        if renewed.removed:
            stood = renewed.removed
            self._log.warning("removed another file from the ring's place", frames=stood.held, reason=stood.reason)
        return renewed.producer
