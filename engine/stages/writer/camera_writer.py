"""One camera's path to Redis: its ring, and the fate of each frame taken from it.

A polled frame is in flight until its batch is answered. Then it is either stored and its ring space freed, or it is
polled again. Three kinds of doubt can remain:

* A journal entry was refused. Either it exists already, because the answer to an earlier try was lost; or the journal
  has a later entry, and the frame can never be listed (``refused_records``, ``settle_refused``).
* The connection broke with frames in flight, and Redis may have stored them. They stay in the ring and are sent again.
  This changes nothing for stored frames.
* Such a frame was dropped meanwhile, because the outage lasted and the ring was full. It counts as dropped until Redis
  reports that it has the frame (``doubtful``, ``settle_doubtful``).

``reconcile.py`` asks Redis; this module applies the answers. So ``captured`` = ``stored`` + drops + frames in the ring
holds at every moment.

Access units of video take the same path. One that needs a refused one is given up with it: ``given_up``.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Container, Sequence
from typing import NamedTuple

from engine.config import Config
from engine.shm.ring import Consumer, Record
from engine.shm.ring_file import Drop
from engine.stages.writer.batch import EntryErrors, Part
from engine.stages.writer.journal_trim import JournalTrim
from engine.wire.cluster import FrameSlots
from engine.wire.marks import Mark
from engine.wire.resp import FrameFraming, VideoFraming

#: This fraction (1/8) of a ring stays free while Redis is away, so that the producer always finds room.
_RESERVE_SHARE = 8
#: Seconds after an outage in which Redis is asked for frames that the broken connection may have delivered.
_DOUBT_SECONDS = 3.0


class _Refused(NamedTuple):
    """Frames of one batch, oldest first, some of whose journal entries were refused."""

    records: Sequence[Record]
    errors: EntryErrors


class CameraWriter:
    """Takes frames from ``consumer`` and accounts for each. Times are monotonic, in seconds unless the name says nano.

    A ring is in one batch at a time, so that a later batch cannot overtake a refused one.
    """

    def __init__(self, camera: str, config: Config, consumer: Consumer) -> None:
        ttl_seconds = config.ttl_seconds(video=consumer.video)
        self.camera = camera
        self.consumer = consumer
        framing = VideoFraming if consumer.video else FrameFraming
        self.framing = framing(config.vhost, config.prefix, camera, ttl_seconds * 1000)
        #: In a cluster: where its names are.
        self.slots = FrameSlots(self.framing.key_prefix, self.framing.journal.encode())
        #: The frames that were polled and not answered yet.
        self.in_flight: Part | None = None
        #: True while the journal accepts no frames; then none are sent.
        self.barred = False
        #: True while its next frame cannot be sent, because a node of the cluster is away.
        self.held_back = False
        self._trim = JournalTrim(ttl_seconds)
        self._refused: _Refused | None = None
        #: True after the journal refused entries of a batch, until it accepts a whole batch.
        self._entries_refused = False
        #: Frames in the ring that Redis may have: they were in flight when a connection broke, or the journal refused
        #: some of their batch and Redis was not asked yet.
        self._uncertain: list[Record] = []
        #: True after a loss of the connection, or a refusal, until Redis is asked.
        self._unsettled = False
        #: Uncertain frames that were dropped, and until when Redis is asked for them.
        self.doubtful: list[Record] = []
        self._doubtful_until = 0.0
        self._publishes = config.publishes_video if consumer.video else config.publishes

    def replace(self, consumer: Consumer) -> None:
        """Switch to the ring that replaced this one. This one is empty."""
        self.consumer = consumer
        self._uncertain = []

    # The path of a batch

    def poll(self, bytes_max: int, frames_max: int) -> Part | None:
        """Take the next frames, at least one if there is any, until either bound is reached; None if there are none.
        They are now in flight."""
        records = self.consumer.poll(bytes_max, frames_max)
        self._doubt_given_up()
        if not records:
            return None
        trim_nano = self._trim.trim_nano(time.monotonic())
        self.in_flight = Part(self.framing, records, trim_nano, self.next_entry_number())
        return self.in_flight

    def stored(self, errors: EntryErrors, now_nano: int) -> int:
        """Redis has stored the frames in flight, except the journal entries in ``errors``; returns their number.

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

    def shorten(self, count: int) -> None:
        """Only the oldest ``count`` frames in flight will be stored now. The others are polled again afterwards, and
        Redis has no entry of them."""
        part = self.in_flight
        assert part, "nothing is in flight"
        if count < len(part.records):
            self.consumer.hand_back(part.records[count])
            self.in_flight = part._replace(records=part.records[:count]) if count else None

    def hand_back(self) -> None:
        """Redis has no entry of the frames in flight: poll them again."""
        self.in_flight = None
        self.consumer.rewind()

    def rewind(self) -> None:
        """Redis stored nothing of the frames in flight: poll all uncommitted frames again."""
        if self._refused:
            self._may_be_stored(self._refused.records)
        self.in_flight = self._refused = None
        self._unsettled = bool(self._uncertain)
        self.consumer.rewind()

    def connection_broke(self) -> None:
        """Redis may have stored the frames in flight: remember them as uncertain, and poll them again."""
        if self.in_flight:
            self._may_be_stored(self.in_flight.records)
        self.rewind()

    # Dropping frames

    def relieve(self) -> None:
        """Redis is away: make room for the newest frames by dropping the oldest."""
        reserve = self._reserve()
        if self.consumer.free_bytes < reserve:
            self.consumer.release_oldest(reserve, Drop.OUTAGE)

    def relieve_of(self, blocked: Callable[[Record], bool]) -> bool:
        """A node of the cluster is away: make room by dropping the oldest frames, up to the first one that is not
        ``blocked``. Only while nothing is in flight. Returns True if there was something to drop."""
        reserve, dropped = self._reserve(), False
        while self.consumer.free_bytes < reserve:
            self.consumer.rewind()
            oldest = self.consumer.poll(1, 1)
            if not oldest or not blocked(oldest[0]):
                self.consumer.rewind()
                break
            self.consumer.release(oldest, Drop.OUTAGE)
            dropped = True
        if dropped:
            self._doubt_given_up()
        return dropped

    def _reserve(self) -> int:
        consumer = self.consumer
        reserve = max(consumer.capacity // _RESERVE_SHARE, 3 * consumer.largest_frame)
        return min(reserve, consumer.capacity // 2)

    def refuse_all(self) -> None:
        """The journal accepts no frames: drop all frames in the ring. Frames that cannot be listed are not sent:
        sending them would also keep the journal from expiring."""
        self.consumer.release_oldest(self.consumer.area, Drop.REFUSED)
        self._forget_released()

    # Frames in doubt

    @property
    def in_doubt(self) -> bool:
        """True if dropped frames may be stored, or if uncertain frames may be dropped before Redis is asked."""
        return bool(self.doubtful or (self._unsettled and self._uncertain))

    @property
    def refused_records(self) -> list[Record]:
        """Frames of the last batch whose journal entries were refused."""
        return [self._refused.records[place] for place in self._refused.errors] if self._refused else []

    def given_up(self, standing: Container[int]) -> list[Record]:
        """The frames of the last batch that Redis must not keep; ``standing`` as in ``settle_refused``."""
        return [record for record, reason in self._fates(standing) if reason]

    def settle_refused(self, standing: Container[int]) -> str:
        """Settle the refused entries. Frames whose sequence is in ``standing`` have an entry from an earlier try: they
        are stored, like the rest of their batch. The others can never be listed and count as refused. Access units
        that need one of these count as cut off. Returns the error of the first refused one; empty if there is none."""
        fates = self._fates(standing)
        errors = self._refused.errors if self._refused else {}
        self._refused = None
        for record, reason in fates:
            if reason is None:
                self.consumer.commit([record], time.monotonic_ns())
            else:
                self.consumer.release([record], reason)
        self._forget_released()
        return next((error for place, error in errors.items() if fates[place][1] is Drop.REFUSED), "")

    def _fates(self, standing: Container[int]) -> list[tuple[Record, Drop | None]]:
        """What becomes of each frame of the last batch: stored, or given up for a reason."""
        fates: list[tuple[Record, Drop | None]] = []
        cut = False
        for place, record in enumerate(self._refused.records if self._refused else ()):
            reason: Drop | None = None
            if self._refused and place in self._refused.errors and record.sequence not in standing:
                reason = Drop.REFUSED
            elif cut and not record.keyframe:
                reason = Drop.CUT_GOP
            cut = self.consumer.video and reason is not None
            fates.append((record, reason))
        return fates

    def reconnected(self) -> None:
        """A new connection: frames that were in flight over the last one and were dropped since are in doubt.

        After a hang, Redis reads leftovers of the broken connection and commands of the new one in any order. So its
        first answer is not final.
        """
        self._unsettled = False
        self.doubtful += [record for record in self._uncertain if record.end <= self.consumer.tail]
        self._doubtful_until = time.monotonic() + _DOUBT_SECONDS
        # Frames in the ring are sent again, unless another outage comes first and they are dropped in it.
        self._forget_released()

    def settle_doubtful(self, standing: Container[int]) -> None:
        """Count the doubtful frames whose sequence is in ``standing`` as stored. Redis is asked for the others again,
        for a while."""
        stored: dict[Drop, list[Record]] = {}
        for record in self.doubtful:
            reason = self.consumer.fates.get(record.record_index)
            if reason and record.sequence in standing:
                stored.setdefault(reason, []).append(record)
        for reason, records in stored.items():
            self.consumer.reclassify(records, reason, time.monotonic_ns())
        final = time.monotonic() > self._doubtful_until
        self.doubtful = [] if final else [record for record in self.doubtful if record.sequence not in standing]
        self._forget_fates()

    def _doubt_given_up(self) -> None:
        """Uncertain frames that poll has given up instead of handing them out again are in doubt."""
        if self._uncertain:
            given_up = [record for record in self._uncertain if self.consumer.fates.get(record.record_index)]
            if given_up:
                self.doubtful += given_up
                self._doubtful_until = time.monotonic() + _DOUBT_SECONDS
                self._forget_released()

    def _may_be_stored(self, records: Sequence[Record]) -> None:
        known = {record.end for record in self._uncertain}
        self._uncertain += [record for record in records if record.end not in known]
        for record in records:
            self.consumer.fates.setdefault(record.record_index)

    def _forget_released(self) -> None:
        """Forget uncertain frames that left the ring: they are stored, or counted as dropped."""
        if self._uncertain:
            self._uncertain = [record for record in self._uncertain if record.end > self.consumer.tail]
        self._forget_fates()

    def _forget_fates(self) -> None:
        if fates := self.consumer.fates:
            known = {record.record_index for record in (*self._uncertain, *self.doubtful)}
            self.consumer.fates = {index: fate for index, fate in fates.items() if index in known}

    # Numbers of journal entries

    @property
    def entries(self) -> int:
        """Number of journal entries so far that a publisher will announce."""
        return self.consumer.entries if self._publishes else self.consumer.entries_before or 0

    def next_entry_number(self) -> int:
        """The number of the next frame's entry; 0 if it is uncertain whether earlier frames have an entry.

        A ring is in one batch at a time, so all frames sent earlier are counted.
        """
        known = self._publishes and self.consumer.entries_before is not None
        return self.entries + 1 if known and not (self.in_doubt or self._entries_refused) else 0

    def mark(self) -> Mark | None:
        """The mark for the publisher and the next start; None while anything is in doubt."""
        consumer = self.consumer
        return None if self.in_doubt else Mark(consumer.last_captured, self.entries, consumer.entries_before)
