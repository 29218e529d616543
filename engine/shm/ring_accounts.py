"""The consumer's accounts in a ring: how many frames were stored or given up, and what Redis must still have.

Every change is atomic: after a kill at any moment it is complete or void. The consumer first writes the intent: the new
counts. They are values and not increments, so applying an intent twice is harmless. The intent's last word makes it
valid. An intent that moves the tail is valid once the tail is there; on opening, it is finished or discarded. The
ledger (layout: ``engine/wire/ledger_layout.py``) is changed by writing the table that is not in force. If counts change
with it, the intent puts the table in force.

Storing frames costs the ledger one word: the time stamp of the newest. It is written before the tail moves, and only
bounds the open run; the number of frames in that run follows from the count of stored frames.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import NamedTuple

from engine.shm import ledger
from engine.shm.ring_file import CONSUMER_DROPS, Drop, RingEnd
from engine.wire import ledger_layout
from engine.wire import ring_layout as layout
from engine.wire.journal import JournalSpan
from engine.wire.keys import SEQUENCE_MAX, next_sequence, sequence_after
from engine.wire.ledger_layout import OpenRun, Run, Table


class Record(NamedTuple):
    """A frame in the ring. ``record_index`` counts the frames published in the ring, from 0. ``payload`` is a view of
    shared memory, valid until the frame's commit or release; ``end`` is the cursor after the frame. ``offset_us`` is
    the presentation time of an access unit, in microseconds after ``unix_nano``. ``camera_time_nano`` is the capture
    time by the camera's clock, 0 if unknown."""

    unix_nano: int
    sequence: int
    width: int
    height: int
    encoding: int
    keyframe: int
    monotonic: int
    record_index: int
    payload: memoryview
    end: int
    offset_us: int = 0
    camera_time_nano: int = 0


#: The words that an intent may count in, and for each the word of its bytes.
_COUNTED = frozenset({layout.W_STORED, *CONSUMER_DROPS})
_BYTES_OF = {layout.W_STORED: layout.W_STORED_BYTES, Drop.LOST: layout.W_LOST_BYTES}


class ConsumerAccounts(RingEnd):
    """The end of a ring that counts frames by outcome. ``ttl_seconds`` is how long Redis keeps a frame. Times are
    monotonic nanoseconds."""

    def __init__(self, path: Path, camera: str, *, ttl_seconds: float) -> None:
        super().__init__(path, camera)
        words = self._words
        self._finish_intent()
        words[layout.W_INTENT_FROM] = words[layout.W_INTENT_LEDGER] = 0
        self._tail = words[layout.W_TAIL]
        self._life = ledger.Life.of(ttl_seconds)
        #: The sequence that extends the open run, and the time and the count of stored frames that end it.
        self._expected = self._run_ends = self._run_full = 0
        table = ledger_layout.read_table(words, words[ledger_layout.W_LEDGER] & 1)
        self._runs, self._open = table.runs, table.open
        runs = self._live()
        damaged = sum(run.frames for run in runs) > words[layout.W_STORED] - words[layout.W_LOST]
        self._close_runs([] if damaged else runs)

    @property
    def entries_before(self) -> int | None:
        """Number of journal entries written before this ring was made; None until ``number_from``."""
        return self._words[layout.W_ENTRIES_BEFORE] - 1 if self._words[layout.W_ENTRIES_BEFORE] else None

    @property
    def stored(self) -> int:
        """Number of frames of this ring that were stored, including those that Redis has lost since."""
        return self._words[layout.W_STORED]

    @property
    def entries(self) -> int:
        """Number of journal entries written, including those of this ring and frames that Redis has lost since."""
        return (self.entries_before or 0) + self.stored

    def number_from(self, entries_before: int) -> None:
        """Number the entries of this ring from ``entries_before`` + 1."""
        self._words[layout.W_ENTRIES_BEFORE] = entries_before + 1

    @property
    def last_captured(self) -> tuple[int, int]:
        """(unix_nano, sequence) of the last frame captured, stored or not."""
        words = self._words
        return words[layout.W_LAST_NANO], sequence_after(words[layout.W_FIRST_SEQUENCE], words[layout.W_CAPTURED])

    @property
    def last_stored_nano(self) -> int:
        """The time stamp of the last frame that was stored from this ring; 0 if there is none."""
        return self._words[ledger_layout.W_STORED_NANO]

    def reclassify(self, records: Iterable[Record], reason: Drop, now_monotonic: int) -> None:
        """Count as stored some frames that were released for ``reason`` but turned out to be stored."""
        found = list(records)
        if found:
            runs = ledger.inserted(self._live(), [self._run_of(part, now_monotonic) for part in consecutive(found)])
            size = sum(len(record.payload) for record in found)
            self._settle(layout.W_STORED, len(found), size, runs, taken_from=reason)

    def count_lost(self, span: JournalSpan, now_monotonic: int) -> int:
        """Count the stored frames that have not expired and are not within the journal's current ``span``. Each is
        counted once. Returns the number of frames."""
        loss = ledger.lost(ledger.unexpired(self._live(), now_monotonic, self._life), span)
        if loss.frames:
            self._settle(Drop.LOST, loss.frames, loss.size, loss.left)
        return loss.frames

    def count_missing(self, frames: Iterable[tuple[int, int]], now_monotonic: int) -> int:
        """Count stored frames that have not expired as lost, each given by its time stamp and its size in bytes. Each
        must be given only once. Returns the number of those that had been stored from this ring."""
        loss = ledger.without(ledger.unexpired(self._live(), now_monotonic, self._life), frames)
        if loss.frames:
            self._settle(Drop.LOST, loss.frames, loss.size, loss.left)
        return loss.frames

    def _count_stored(self, records: Sequence[Record], size: int, now_monotonic: int) -> None:
        """Count the oldest frames of the ring, of ``size`` bytes in all, as stored and give their space back."""
        first, last = records[0].sequence, records[-1]
        if first == self._expected and last.sequence - first == len(records) - 1 and now_monotonic < self._run_ends:
            self._extend_run(last, len(records), size)
            return
        for run in consecutive(records):
            if run[0].sequence != self._expected or now_monotonic >= self._run_ends:
                self._begin_run(run[0], now_monotonic)
            self._extend_run(run[-1], len(run), sum(len(record.payload) for record in run))

    def _move_tail(self, tail: int, word: int, count: int, size: int) -> int:
        """Give back the space below ``tail`` and count its frames; returns the new count."""
        words = self._words
        bytes_word = _BYTES_OF.get(word, 0)
        words[layout.W_INTENT_COUNT] = count = words[word] + count
        if bytes_word:
            words[layout.W_INTENT_BYTES] = size = words[bytes_word] + size
        words[layout.W_INTENT_TAIL] = tail
        words[layout.W_INTENT_WORD] = word
        # SYNC POINT ring-space: load all of the frames before storing the tail that gives their space back.
        self._fence()
        words[layout.W_TAIL] = self._tail = tail
        words[word] = count
        if bytes_word:
            words[bytes_word] = size
        words[layout.W_INTENT_WORD] = 0
        return count

    def _settle(self, word: int, count: int, size: int, runs: Sequence[Run], taken_from: int = 0) -> None:
        """Change counts and ledger together, without moving the tail."""
        words = self._words
        fitting = ledger.fitting(runs)
        place = self._write_table(Table(fitting, None))
        words[layout.W_INTENT_FROM] = taken_from
        words[layout.W_INTENT_FROM_COUNT] = words[taken_from] - count if taken_from else 0
        words[layout.W_INTENT_LEDGER] = place + 1
        words[layout.W_INTENT_COUNT] = words[word] + count
        words[layout.W_INTENT_BYTES] = words[_BYTES_OF[word]] + size
        words[layout.W_INTENT_TAIL] = self._tail
        words[layout.W_INTENT_WORD] = word
        self._finish_intent()
        words[layout.W_INTENT_FROM] = words[layout.W_INTENT_LEDGER] = 0
        self._close_runs(fitting)

    def _finish_intent(self) -> None:
        """Count what an intent says, if its tail was reached. The reason and the table that it may also name are
        usually 0."""
        words = self._words
        word = words[layout.W_INTENT_WORD]
        if word in _COUNTED and words[layout.W_TAIL] == words[layout.W_INTENT_TAIL]:
            words[word] = words[layout.W_INTENT_COUNT]
            if word in _BYTES_OF:
                words[_BYTES_OF[word]] = words[layout.W_INTENT_BYTES]
            if words[layout.W_INTENT_FROM] in _COUNTED:
                words[words[layout.W_INTENT_FROM]] = words[layout.W_INTENT_FROM_COUNT]
            if words[layout.W_INTENT_LEDGER]:
                words[ledger_layout.W_LEDGER] = (words[layout.W_INTENT_LEDGER] - 1) & 1
        words[layout.W_INTENT_WORD] = 0

    # The ledger

    def _extend_run(self, last: Record, count: int, size: int) -> None:
        self._words[ledger_layout.W_STORED_NANO] = last.unix_nano
        stored = self._move_tail(last.end, layout.W_STORED, count, size)
        self._expected = next_sequence(last.sequence) if stored < self._run_full else 0

    def _begin_run(self, first: Record, now_monotonic: int) -> None:
        words = self._words
        runs = ledger.fitting(ledger.unexpired(self._live(), now_monotonic, self._life))
        stored, until = words[layout.W_STORED], now_monotonic + self._life.life_nano
        opened = OpenRun(first.unix_nano, first.sequence, stored, words[layout.W_STORED_BYTES], until)
        words[ledger_layout.W_LEDGER] = self._write_table(Table(runs, opened))
        self._runs, self._open, self._expected = runs, opened, first.sequence
        self._run_ends = now_monotonic + self._life.run_nano
        self._run_full = stored + ledger.RUN_FRAMES_MAX

    def _close_runs(self, runs: list[Run]) -> None:
        """Keep ``runs`` and no open run; the next frame begins one."""
        self._runs, self._open = runs, None
        self._expected = self._run_ends = self._run_full = 0

    def _live(self) -> list[Run]:
        """All runs, the open one as it is now."""
        words, opened = self._words, self._open
        count = words[layout.W_STORED] - opened.count_before if opened else 0
        if opened is None or not 0 < count <= SEQUENCE_MAX:
            return self._runs
        size = max(words[layout.W_STORED_BYTES] - opened.size_before, 0)
        last_nano = max(words[ledger_layout.W_STORED_NANO], opened.first_nano)
        run = Run(opened.first_nano, last_nano, opened.first_sequence, count - 1, count, size, opened.until)
        return [*self._runs, run]

    def _write_table(self, table: Table) -> int:
        """Write a table to the place that is not in force; returns that place."""
        words = self._words
        place = 1 - (words[ledger_layout.W_LEDGER] & 1)
        ledger_layout.write_table(words, place, table)
        return place

    def _run_of(self, records: Sequence[Record], now_monotonic: int) -> Run:
        first, last, count = records[0], records[-1], len(records)
        size = sum(len(record.payload) for record in records)
        until = now_monotonic + self._life.life_nano
        return Run(first.unix_nano, last.unix_nano, first.sequence, count - 1, count, size, until)


def consecutive(records: Sequence[Record]) -> list[list[Record]]:
    """``records`` in parts without a gap in their sequences."""
    parts: list[list[Record]] = []
    expected = 0
    for record in records:
        if record.sequence != expected:
            parts.append([])
        parts[-1].append(record)
        expected = next_sequence(record.sequence)
    return parts
