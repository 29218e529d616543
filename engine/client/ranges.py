"""One camera's frames between two times, a chunk of entries and a chunk of payloads at a time."""

from __future__ import annotations

from typing import Any

from engine.client.frame import FrameEntry
from engine.client.payloads import CHUNK_BYTES, Payloads
from engine.client.tenant import ENTRIES_MAX, LAST_ID, Tenant
from engine.client.transport import Query


class FrameRange(Payloads):
    """One camera's frames from nanosecond ``first`` to ``last``, both included; newest first if ``reverse``.

    ``step`` (nanoseconds) thins them out: it keeps the first frame read in each span of that length, counted from
    ``anchor`` (None: from the first frame). ``limit`` bounds their number. If ``payload`` is False, only entries are
    read.
    """

    def __init__(
        self,
        tenant: Tenant,
        camera: str,
        first: int,
        last: int,
        *,
        anchor: int | None = None,
        limit: int | None = None,
        step: int | None = None,
        reverse: bool = False,
        payload: bool = True,
        chunk_bytes: int = CHUNK_BYTES,
    ) -> None:
        super().__init__(tenant, chunk_bytes)
        self.done = limit == 0
        self.idle = False
        self._camera = camera
        self._left = limit
        self._step = step
        self._payload = payload
        self._reverse = reverse
        self._from, self._to = (f"{last}", f"{first}") if reverse else (f"{first}", f"{last}")
        self._anchor = anchor
        self._cell = -1
        self._journal = tenant.journal(camera)
        self._exhausted = False
        self._empty = True

    def chunk(self) -> Query[list[Any]]:
        """The next frames or entries. The list may be empty before the end; ``done`` is True at the end."""
        if not self.pending and not self._exhausted:
            yield from self._read()
        found: list[Any] = []
        if self._payload and self.pending:
            found = yield from self.fetch(len(self.pending) if self._left is None else self._left)
        elif self.pending:
            found = list(self.pending)[: self._left]
            self.pending.clear()
        if self._left is not None:
            self._left -= len(found)
        self.done = self._left == 0 or (self._exhausted and not self.pending)
        return found

    def _read(self) -> Query[None]:
        # Once frames are found to be gone, entries are checked before payloads are requested.
        look = not self._payload or self._step is not None or self.missing > 0
        count = ENTRIES_MAX if self._left is None or look else min(self._left, ENTRIES_MAX)
        name = "XREVRANGE" if self._reverse else "XRANGE"
        (reply,) = yield [(name, self._journal, self._from, self._to, "COUNT", count)]
        if not reply and self._empty:
            yield from self._tenant.check_camera(self._camera)
        entries, strange = self._tenant.parse(self._camera, reply)
        if look:
            entries = yield from self.keep_living(entries)
        if reply:
            self._from = f"({reply[-1][0].decode()}"
            self._empty = False
        self._exhausted = len(reply) < count or (not self._reverse and reply[-1][0] == LAST_ID)
        self.unreadable += strange
        self.pending.extend(entries if self._step is None else self._thin(entries, self._step))

    def _thin(self, entries: list[FrameEntry], step: int) -> list[FrameEntry]:
        kept = []
        for entry in entries:
            if self._anchor is None:
                self._anchor = entry.unix_nano
            cell = abs(entry.unix_nano - self._anchor) // step
            if cell != self._cell:
                self._cell = cell
                kept.append(entry)
        return kept
