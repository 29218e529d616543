"""One camera's way to Redis: its ring, and what became of each frame that was taken from it.

A frame that was polled is in flight until its batch is answered. Then it is stored, and its space in the ring given
back, or it is handed out again. Three doubts can remain:

* A journal entry was refused. It may stand already, sent before its answer was lost; or the journal has a later one and
  the frame can never be listed (``refused_records``, ``settle_refused``).
* The connection broke with frames in flight, and Redis may have stored them. They stay in the ring and are sent again,
  which changes nothing where they are stored.
* Such a frame was given up meanwhile, because the outage lasted and the ring was full. It counts as dropped until Redis
  says that it has it (``doubtful``, ``settle_doubtful``).

Redis is asked elsewhere (``reconcile.py``); the answers are taken here. So ``captured`` = ``stored`` + drops + frames
in the ring holds at every moment.
"""

from __future__ import annotations

import time
from collections.abc import Container, Sequence
from typing import NamedTuple

from engine.config import Config
from engine.shm.ring import Consumer, Record
from engine.shm.ring_file import Drop
from engine.stages.writer.batch import EntryErrors, Part
from engine.stages.writer.journal_trim import JournalTrim
from engine.wire.marks import Mark
from engine.wire.resp import FrameFraming

#: Share of a ring that is kept free while Redis is away, so that its producer always finds room for the next frames.
_RESERVE_SHARE = 8
#: Seconds after an outage that Redis is asked for frames which its last connection may have brought it.
_DOUBT_SECONDS = 3.0


class _Refused(NamedTuple):
    """Frames of one batch, oldest first, some of whose journal entries were refused."""

    records: Sequence[Record]
    errors: EntryErrors


class CameraWriter:
    """Takes frames from ``consumer`` and accounts for each. Times are monotonic, in seconds unless the name says nano.

    A ring is in one batch at a time, so that a batch that is refused cannot be overtaken by its successor.
    """

    def __init__(self, camera: str, config: Config, consumer: Consumer) -> None:
        ttl_seconds = config.redis.ttl_seconds
        self.camera = camera
        self.consumer = consumer
        self.framing = FrameFraming(config.vhost, config.prefix, camera, ttl_seconds * 1000)
        #: What was polled and is not answered yet.
        self.in_flight: Part | None = None
        #: True while the journal takes no frames; none are sent then.
        self.barred = False
        self._trim = JournalTrim(ttl_seconds)
        self._refused: _Refused | None = None
        #: True after a batch of which the journal refused entries, until it takes a whole batch again.
        self._entries_refused = False
        #: Frames that Redis may have, until they have left the ring: they were in flight when a connection broke, or
        #: the journal had refused some of their batch and Redis was not asked yet.
        self._uncertain: list[Record] = []
        #: True from a loss of the connection, or a refusal, until Redis is asked.
        self._unsettled = False
        #: Uncertain frames that were given up, and until when Redis is asked for them.
        self.doubtful: list[Record] = []
        self._doubtful_until = 0.0
        self._publishes = config.publishes

    def replace(self, consumer: Consumer) -> None:
        """Go over to the ring that took the place of this one, which is empty."""
        self.consumer = consumer
        self._uncertain = []

    # The way of a batch

    def poll(self, bytes_max: int, frames_max: int) -> Part | None:
        """Take the next frames, at least one if there is any, until either bound is reached. They are in flight from
        now on; None where there is nothing."""
        records = self.consumer.poll(bytes_max, frames_max)
        if not records:
            return None
        trim_nano = self._trim.trim_nano(time.monotonic())
        self.in_flight = Part(self.framing, records, trim_nano, self.next_entry_number())
        return self.in_flight

    def stored(self, errors: EntryErrors, now_nano: int) -> int:
        """Redis has what was in flight, but for the journal entries in ``errors``; returns the number of frames.

        With errors the frames stay in the ring until ``settle_refused``.
        """
        part, self.in_flight = self.in_flight, None
        assert part, "nothing is in flight"
        self._entries_refused = bool(errors)
        if errors:
            self._refused = _Refused(part.records, errors)
        else:
            self.consumer.commit(part.records, now_nano)
            self._forget_released()
        self._trim.stored(part.records[-1].unix_nano, now_nano / 1e9)
        return len(part.records)

    def rewind(self) -> None:
        """Redis took nothing of what was in flight: hand out again all that was not committed."""
        if self._refused:
            self._may_be_stored(self._refused.records)
        self.in_flight = self._refused = None
        self._unsettled = bool(self._uncertain)
        self.consumer.rewind()

    def connection_broke(self) -> None:
        """Redis may have taken what was in flight, or not: hand it out again, and remember that."""
        if self.in_flight:
            self._may_be_stored(self.in_flight.records)
        self.rewind()

    # Giving up frames

    def relieve(self) -> None:
        """Redis is away: keep room for the newest frames by giving up the oldest."""
        consumer = self.consumer
        reserve = max(consumer.capacity // _RESERVE_SHARE, 3 * consumer.largest_frame)
        reserve = min(reserve, consumer.capacity // 2)
        if consumer.free_bytes < reserve:
            consumer.release_oldest(reserve, Drop.OUTAGE)

    def refuse_all(self) -> None:
        """The journal takes no frames: give up what the ring holds. Nothing is sent before it can be listed, which
        would also keep the journal from its expiry."""
        self.consumer.release_oldest(self.consumer.area, Drop.REFUSED)
        self._forget_released()

    # What is in doubt

    @property
    def in_doubt(self) -> bool:
        """True where frames that were given up may be stored, or may turn out to be given up by then."""
        return bool(self.doubtful or (self._unsettled and self._uncertain))

    @property
    def refused_records(self) -> list[Record]:
        """Frames of the last batch whose journal entry was refused."""
        return [self._refused.records[place] for place in self._refused.errors] if self._refused else []

    def settle_refused(self, standing: Container[int]) -> str:
        """Those whose sequence is in ``standing`` have an entry, sent before: they are stored, as is the rest of their
        batch. The others can never be listed: count them as refused. Returns what Redis said of the first; empty where
        there is none."""
        batch, self._refused = self._refused, None
        said = ""
        for place, record in enumerate(batch.records if batch else ()):
            error = batch.errors.get(place) if batch else None
            if error is None or record.sequence in standing:
                self.consumer.commit([record], time.monotonic_ns())
            else:
                self.consumer.release([record], Drop.REFUSED)
                said = said or error
        self._forget_released()
        return said

    def reconnected(self) -> None:
        """A new connection: frames that were in flight over the last one and were given up since are in doubt.

        A Redis that stood still reads what the broken connection left it beside what the new one asks, so its answer
        is not final at once.
        """
        self._unsettled = False
        self.doubtful += [record for record in self._uncertain if record.end <= self.consumer.tail]
        self._doubtful_until = time.monotonic() + _DOUBT_SECONDS
        # Those in the ring are sent again, unless another outage comes first and they are given up in it.
        self._forget_released()

    def settle_doubtful(self, standing: Container[int]) -> None:
        """Of the doubtful frames, those whose sequence is in ``standing`` are stored: count them so. The others are
        asked for again, for a while."""
        stored = [record for record in self.doubtful if record.sequence in standing]
        self.consumer.reclassify(stored, Drop.OUTAGE, time.monotonic_ns())
        final = time.monotonic() > self._doubtful_until
        self.doubtful = [] if final else [record for record in self.doubtful if record.sequence not in standing]

    def _may_be_stored(self, records: Sequence[Record]) -> None:
        known = {record.end for record in self._uncertain}
        self._uncertain += [record for record in records if record.end not in known]

    def _forget_released(self) -> None:
        """What left the ring is stored, or counted under its reason."""
        if self._uncertain:
            self._uncertain = [record for record in self._uncertain if record.end > self.consumer.tail]

    # Numbers of journal entries

    @property
    def entries(self) -> int:
        """How many entries the journal has got that a publisher will announce."""
        return self.consumer.entries if self._publishes else self.consumer.entries_before or 0

    def next_entry_number(self) -> int:
        """The number of the next frame's entry; 0 where frames before it may yet turn out to have an entry, or not.

        A ring is in one batch at a time, so all that was sent before is counted.
        """
        known = self._publishes and self.consumer.entries_before is not None
        return self.entries + 1 if known and not (self.in_doubt or self._entries_refused) else 0

    def mark(self) -> Mark | None:
        """What the publisher and the next start must know of the camera; None while anything is in doubt."""
        consumer = self.consumer
        return None if self.in_doubt else Mark(consumer.last_captured, self.entries, consumer.entries_before)
