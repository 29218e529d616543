"""Fetches the payloads of journal entries, a chunk at a time.

Memory is bounded: at most ``ENTRIES_MAX`` entries and ``chunk_bytes`` of payload (or one larger frame). A chunk that
fails is requested again. If an entry's frame is gone, it is skipped and counted in ``missing``. Entries that the engine
did not write are counted in ``unreadable``.
"""

from __future__ import annotations

import itertools
from collections import deque
from typing import Any

from engine.client.frame import FrameEntry
from engine.client.tenant import Tenant
from engine.client.transport import Query

#: Default for the payload bytes of one round trip.
CHUNK_BYTES = 4 * 2**20
#: Frames of one round trip; bounds the number of small frames.
_FRAMES_MAX = 256


class Payloads:
    """Entries that were read. Their payloads are fetched ahead, a chunk at a time."""

    def __init__(self, tenant: Tenant, chunk_bytes: int) -> None:
        self.pending: deque[FrameEntry] = deque()
        self.missing = 0
        self.unreadable = 0
        self._tenant = tenant
        self._chunk_bytes = chunk_bytes

    def fetch(self, count_max: int) -> Query[list[Any]]:
        """The next frames with their payloads; fewer than ``count_max`` if some are gone."""
        taken: list[FrameEntry] = []
        size = 0
        for entry in itertools.islice(self.pending, min(count_max, _FRAMES_MAX)):
            size += entry.size
            if taken and size > self._chunk_bytes:
                break
            taken.append(entry)
        (payloads,) = yield [("MGET", *(entry.key for entry in taken))]
        for _ in taken:
            self.pending.popleft()
        frames = [
            self._tenant.whole(entry, data) for entry, data in zip(taken, payloads, strict=True) if data is not None
        ]
        self.missing += len(taken) - len(frames)
        return frames

    def keep_living(self, entries: list[FrameEntry]) -> Query[list[FrameEntry]]:
        """The entries whose frames exist."""
        if not entries:
            return entries
        # While no frame is gone, one command that counts them all is enough.
        (count,) = yield [("EXISTS", *(entry.key for entry in entries))]
        if count == len(entries):
            return entries
        alive = yield [("EXISTS", entry.key) for entry in entries]
        living = [entry for entry, there in zip(entries, alive, strict=True) if there]
        self.missing += len(entries) - len(living)
        return living
