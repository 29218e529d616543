"""After trouble: what Redis has of the frames whose fate is in doubt, and the counts put right.

Three doubts. A journal entry that was refused may stand already, sent before the answer was lost. A frame that was
given up during an outage may have been stored by the connection that broke. A frame that Redis acknowledged may be
gone, because the server came back without its data or another took its place.
"""

from __future__ import annotations

import shlex
import time
from collections.abc import Callable, Mapping, Sequence

import hiredis
from structlog.typing import FilteringBoundLogger

from engine.errors import WireError
from engine.shm.ring import Record
from engine.shm.ring_file import Drop
from engine.stages.capture.clock import AHEAD_NANO_MAX, latest_floor
from engine.stages.writer.camera_writer import CameraWriter
from engine.stages.writer.store import Refused, Store
from engine.wire.journal import NO_JOURNAL, JournalSpan, parse_span
from engine.wire.replies import first_numbers, foreign_key
from engine.wire.rfc3339 import rfc3339

#: Seconds after an outage that Redis is asked for frames which its last connection may have brought it.
_DOUBT_SECONDS = 3.0
#: Seconds between looks at what Redis still has of what it acknowledged.
_LOSS_SECONDS = 10.0
#: Commands of one lookup round trip.
_LOOKUPS_MAX = 256


class Reconciler:
    """Asks through ``store``, while no batch is in flight; ``warn_once(camera, event, error)`` is told what it finds,
    ``log`` what was lost.

    All methods raise RedisUnavailable, and may be called again then.
    """

    def __init__(self, store: Store, log: FilteringBoundLogger, warn_once: Callable[[str, str, str], None]) -> None:
        self._store = store
        self._log = log
        self._warn_once = warn_once
        self._loss_at = 0.0

    def settle_refused(self, drain: CameraWriter, records: Sequence[Record], errors: Mapping[int, str]) -> str:
        """Frames of one batch, some with a refused journal entry. One that stands already is a success. Otherwise the
        journal has a later entry, and the frame can never be listed: it is taken away again, and counted as refused.

        Returns why the journal will take no later frames either, empty where it will.
        """
        standing = self._standing(drain, [records[number] for number in errors])
        refused = {number for number in errors if records[number].sequence not in standing}
        obstacle = ""
        if refused:
            unlisted = [records[number] for number in refused]
            self._store.call([drain.framing.discard(record.unix_nano, record.sequence) for record in unlisted])
            obstacle = self.obstacle(drain)
        for number, record in enumerate(records):
            if number not in refused:
                drain.consumer.commit([record], time.monotonic_ns())
                continue
            drain.consumer.release([record], Drop.REFUSED)
            if not obstacle:
                self._warn_once(drain.camera, "journal entry refused", errors[number])
        return obstacle

    def obstacle(self, drain: CameraWriter) -> str:
        """Why a camera's journal takes no frames, with the way out; empty where it takes those to come.

        A last entry that is somewhat ahead of the clock is the floor of the stamps to come. One that is far ahead is
        no camera's, and locks out all frames until it is gone.
        """
        journal, reply = drain.framing.journal, self._store.call([drain.framing.describe()])[0]
        if _bad(reply) and str(reply).startswith("WRONGTYPE"):
            return foreign_key(journal)
        span = self._span(drain, reply)
        # A user that may not have streams described to it may still read their entries.
        last_nano = span.last[0] if span else first_numbers(self._store.call([drain.framing.newest()])[0])[0]
        if last_nano <= max(latest_floor(), drain.consumer.last_nano + AHEAD_NANO_MAX):
            drain.consumer.raise_floor(last_nano)
            return ""
        return (
            f"{journal} has an entry of {rfc3339(last_nano)}, which is no camera's, and takes none before it; "
            f"remove it: redis-cli DEL {shlex.quote(journal)}, and list again what it listed: edge-video reindex"
        )

    def reconnected(self, drains: Sequence[CameraWriter]) -> None:
        """A new connection: what was lost meanwhile, and what of the frames given up is stored.

        A Redis that stood still reads what the broken connection left it beside what the new one asks, so the answer is
        not final at once: ``look`` asks again for a while.
        """
        self.count_lost(drains)
        for drain in drains:
            drain.doubtful += [record for record in drain.uncertain if record.end <= drain.consumer.tail]
            drain.doubtful_until = time.monotonic() + _DOUBT_SECONDS
            drain.uncertain = []
        self._settle_doubtful(drains)

    def look(self, drains: Sequence[CameraWriter]) -> None:
        """Now and then while all is well."""
        self._settle_doubtful(drains)
        if time.monotonic() >= self._loss_at:
            self.count_lost(drains)

    def count_lost(self, drains: Sequence[CameraWriter]) -> None:
        """Count the frames that Redis had acknowledged and has no more; said once for all cameras."""
        self._loss_at = time.monotonic() + _LOSS_SECONDS
        frames = cameras = 0
        try:
            for first in range(0, len(drains), _LOOKUPS_MAX):
                part = drains[first : first + _LOOKUPS_MAX]
                replies = self._store.call([drain.framing.describe() for drain in part])
                for drain, reply in zip(part, replies, strict=True):
                    span = self._span(drain, reply)
                    count = drain.consumer.count_lost(span, time.monotonic_ns()) if span else 0
                    frames += count
                    cameras += bool(count)
        finally:
            if frames:
                self._log.warning("redis lost frames that it had acknowledged", frames=frames, cameras=cameras)

    def _settle_doubtful(self, drains: Sequence[CameraWriter]) -> None:
        for drain in drains:
            if not drain.doubtful:
                continue
            standing = self._standing(drain, drain.doubtful)
            stored = [record for record in drain.doubtful if record.sequence in standing]
            drain.consumer.reclassify(stored, Drop.OUTAGE, time.monotonic_ns())
            final = time.monotonic() > drain.doubtful_until
            drain.doubtful = [] if final else [r for r in drain.doubtful if r.sequence not in standing]

    def _standing(self, drain: CameraWriter, records: Sequence[Record]) -> set[int]:
        """The numbers of those ``records`` whose journal entry stands."""
        found: set[int] = set()
        for first in range(0, len(records), _LOOKUPS_MAX):
            part = records[first : first + _LOOKUPS_MAX]
            replies = self._store.call([drain.framing.lookup(record.unix_nano, record.sequence) for record in part])
            for record, reply in zip(part, replies, strict=True):
                if _bad(reply):
                    self._check_final(reply)
                elif reply:
                    found.add(record.sequence)
        return found

    def _span(self, drain: CameraWriter, reply: object) -> JournalSpan | None:
        """The span of a journal; None where nobody can tell."""
        text = str(reply)
        if not _bad(reply):
            try:
                return parse_span(reply if isinstance(reply, list) else [])
            except WireError as error:
                text = str(error)
        elif "no such key" in text:
            return NO_JOURNAL
        else:
            self._check_final(reply)
        self._warn_once(drain.camera, "frames that redis loses are not counted", text)
        return None

    def _check_final(self, error: object) -> None:
        """Raises Refused for an error that waiting can mend, such as a server that is still loading."""
        if not str(error).startswith(("NOPERM", "WRONGTYPE")):
            raise Refused(f"Redis at {self._store.address} takes no frames: {error}")


def _bad(reply: object) -> bool:
    return isinstance(reply, hiredis.ReplyError)
