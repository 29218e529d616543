"""The ring buffer between one capture process and its writer.

What. One producer, one consumer, one file (layout: ``engine/wire/ring_layout.py``). The producer copies a frame into
the ring once (``write``). Or it claims memory there, receives the frame into it, and commits it (``claim``,
``commit``). The consumer returns views of it. The writer sends them without a copy, and moves the tail when Redis has
acknowledged them. The tail is the commit: the next consumer of the ring continues there.

Order. The processes communicate through two words, ``head`` and ``tail``. Each is written by one side. A frame's bytes
must be visible before the head that covers them. The reader must have finished with bytes before the tail that gives
them back is visible. A full fence (``engine/shm/fence.py``) next to the word, on both sides, ensures each order. The
four places are marked ``SYNC POINT``.

Full. The producer never waits and never overwrites: a frame that does not fit is dropped and counted. Only the consumer
gives space back, by ``commit`` (stored) or ``release`` (lost, for a named reason).

Killed at any moment. No frame is half visible: a frame exists once head covers it. Counts stay exact, because each side
can tell on opening what its predecessor did not record:

* The producer takes a frame's sequence first, so no sequence is used twice. ``captured`` less the frames in the ring
  less the counted drops is then 0, or 1 for a frame cut short by the kill. That frame is counted as interrupted.
* Claimed memory is free space until its commit, which takes the sequence when the whole frame is there. A frame that
  was only received in part was never captured, and leaves no trace.
* The consumer records what a commit will count (the intent), moves the tail, then counts. On opening, it counts an
  intent whose tail was reached and discards one whose tail was not. What Redis must still have is recorded the same
  way (``engine/shm/ring_accounts.py``).

Video. The records of a video ring are access units. Each needs those before it, back to the last key frame. So after a
missing one, the rest of its GOP is not stored. The producer's side sees to this by itself. The consumer keeps one word,
the gap: the index of the record behind the last one that it gave up. If that record is no key frame, it is given up,
too. The gap is stored before the tail moves. A kill in between leaves a gap beyond the tail; on opening, it is moved
back to the tail. So a kill may end a GOP earlier than necessary, and never hides a gap.

Drawbacks. Words go through Python integers, about 0.15 µs each. A memory error in the machine, or another program of
the same user that writes here, can damage records. The consumer checks each header and counts the frames that it must
skip. Payload bytes carry no checksum: at 60 KB a frame it would cost more than all the rest.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from pathlib import Path

from engine.shm.histogram import bucket
from engine.shm.ring_accounts import ConsumerAccounts, Record
from engine.shm.ring_file import Drop
from engine.shm.ring_producer import Producer
from engine.wire import ledger_layout
from engine.wire import ring_layout as layout
from engine.wire.journal import JournalSpan

__all__ = ["Consumer", "Producer", "Record"]


class Consumer(ConsumerAccounts):
    """The writer's end. ``poll`` returns the frames after those that it returned before; ``rewind`` starts again at the
    tail. ``ttl_seconds`` is how long Redis keeps a frame."""

    def __init__(self, path: Path, camera: str, *, ttl_seconds: float = math.inf) -> None:
        super().__init__(path, camera, ttl_seconds=ttl_seconds)
        self._payloads = self._data.toreadonly()
        #: The head cursor alone, for callers that poll many rings: ``head_word[0] != cursor`` means that poll would
        #: find a frame. It costs half as much as ``pending``.
        self.head_word = self._words[layout.W_HEAD : layout.W_HEAD + 1]
        # Frames lost with the former ring: its writer was killed before it had emptied it.
        missing = self._words[layout.W_FIRST_RECORD] - self._released()
        if missing > 0:
            self._words[layout.W_GAP] = self._words[layout.W_FIRST_RECORD]
            self._words[Drop.DAMAGED] += missing
        # A gap beyond the tail: the former consumer was killed before it had given up the records below it.
        self._words[layout.W_GAP] = min(self._words[layout.W_GAP], self._released())
        #: The fates of records that somebody wants to know, by index: why each was given up, None if it was not. The
        #: caller adds and removes indexes.
        self.fates: dict[int, Drop | None] = {}
        #: The cursor after the last record that poll handed out.
        self.cursor = self._tail
        #: The index that the next record must have.
        self._index = self._released()

    @property
    def head(self) -> int:
        """The cursor up to which frames are visible."""
        return self._words[layout.W_HEAD]

    @property
    def tail(self) -> int:
        """The cursor below which all frames are stored or given up."""
        return self._tail

    @property
    def pending(self) -> bool:
        """True if poll would find a frame."""
        return self._words[layout.W_HEAD] != self.cursor

    @property
    def largest_frame(self) -> int:
        """Bytes of the largest frame that was offered to this ring."""
        return self._words[layout.W_LARGEST]

    def poll(self, bytes_max: int, records_max: int) -> list[Record]:
        """The next frames, at least one if there is any, until either bound is reached.

        A damaged record loses all frames up to the head: they are counted as damaged, and the ring stays usable.
        """
        cursor, head = self.cursor, self._words[layout.W_HEAD]
        if head == cursor:
            return []
        # SYNC POINT ring-publish: load the head before any of the frames that it shows.
        self._fence()
        records: list[Record] = []
        area, index, total, damaged = self._area, self._index, 0, False
        video, gap = self.video, self._words[layout.W_GAP]
        while cursor < head and len(records) < records_max and total < bytes_max:
            position = cursor % area
            kind, size, nano, sequence, width, height, encoding, flags, found, monotonic = layout.unpack_record(
                self._payloads, position
            )
            length = layout.record_bytes(size)
            end = cursor + length
            sound = found == index and end <= head and position + length <= area
            offset = layout.unpack_offset(self._payloads, position) if video else 0
            timed = flags & layout.FLAG_CAMERA_TIME
            camera_time = layout.unpack_camera_time(self._payloads, position) if timed else 0
            # Records of frames are JPEGs; the comparison costs less than the call.
            described = layout.describable(encoding, offset) if video else not encoding
            valid = size and described and layout.storable(nano, sequence)
            if sound and kind == layout.KIND_FRAME and valid:
                start = position + layout.RECORD_HEADER_BYTES
                payload = self._payloads[start : start + size]
                keyframe = flags & layout.FLAG_KEYFRAME
                if video and index == gap and not keyframe:
                    if records or index != self._released():
                        # Those before it must be committed first; poll finds it again afterwards.
                        break
                    gap = index + 1
                    self._give_up(index, gap, end, Drop.CUT_GOP)
                    cursor, index = end, gap
                    continue
                records.append(
                    Record(
                        nano, sequence, width, height, encoding, keyframe, monotonic, index, payload, end, offset,
                        camera_time,
                    )
                )  # fmt: skip
                index += 1
                total += size
            elif not (sound and kind == layout.KIND_PADDING and end % area == 0):
                damaged = True
                break
            cursor = end
        self.cursor, self._index = cursor, index
        # Frames in flight before a damaged record must be committed first; poll finds the record again afterwards.
        if damaged and index == self._released():
            self._skip_damage()
        return records

    def commit(self, records: Sequence[Record], now_monotonic: int) -> None:
        """Count ``records``, the oldest of the ring, as stored and give their space back: Redis has acknowledged
        them."""
        if not records:
            return
        words = self._words
        self._count_stored(records, sum([len(record.payload) for record in records]), now_monotonic)
        # After the count: the histogram never counts a frame twice, and a kill here only leaves latencies unknown.
        longest, total = words[layout.W_LATENCY_MAX], 0
        for record in records:
            latency = max((now_monotonic - record.monotonic) // 1000, 0)
            words[layout.HISTOGRAM_WORD + bucket(latency)] += 1
            longest = max(longest, latency)
            total += latency
        words[layout.W_LATENCY_SUM] += total
        words[layout.W_LATENCY_MAX] = longest
        self._overtake()

    def release(self, records: Sequence[Record], reason: Drop) -> None:
        """Give up ``records``, the oldest of the ring, and count them under ``reason``."""
        if records:
            first, last = records[0], records[-1]
            self._give_up(first.record_index, last.record_index + 1, last.end, reason)
            self._overtake()

    def release_oldest(self, free_bytes_min: int, reason: Drop) -> list[Record]:
        """Give up the oldest frames until ``free_bytes_min`` are free; returns them with invalid payloads."""
        self.rewind()
        lost: list[Record] = []
        while self.free_bytes < free_bytes_min:
            oldest = self.poll(1, 1)
            # In a video ring, poll itself may have given up the rest of a GOP.
            if not oldest or self.free_bytes >= free_bytes_min:
                self.rewind()
                break
            self.release(oldest, reason)
            lost += oldest
        return lost

    def count_lost(self, span: JournalSpan, now_monotonic: int) -> int:
        """See ConsumerAccounts. If the last access unit is gone, the rest of its GOP does not decode."""
        # Before the count: a loss is counted once, so a kill in between would hide the gap.
        if self.video and self._words[ledger_layout.W_STORED_NANO] > span.last[0]:
            self._words[layout.W_GAP] = self._released()
        return super().count_lost(span, now_monotonic)

    def rewind(self) -> None:
        """Start again at the tail: ``poll`` returns all uncommitted frames once more."""
        self.cursor = self._tail
        self._index = self._released()

    def hand_back(self, record: Record) -> None:
        """Continue at ``record``, which ``poll`` has returned: it will return it and those after it again."""
        self.cursor = record.end - layout.record_bytes(len(record.payload))
        self._index = record.record_index

    def raise_floor(self, unix_nano: int) -> None:
        """Tell the producer that time stamps must exceed ``unix_nano``, that of the journal's last entry."""
        self._words[layout.W_FLOOR_NANO] = max(self._words[layout.W_FLOOR_NANO], unix_nano)

    def _overtake(self) -> None:
        """Move the cursor up to the tail: frames acknowledged after a rewind are not handed out again."""
        if self.cursor < self._tail:
            self.rewind()

    def close(self) -> None:
        """Unmap. Records handed out before must not be used any more."""
        self._payloads.release()
        self.head_word.release()
        super().close()

    def _skip_damage(self) -> None:
        """Give up all frames up to the head: after a damaged header, the next record cannot be found."""
        head, published = self._published()
        released = self._released()
        self._give_up(released, max(published, released), head, Drop.DAMAGED)
        self.rewind()

    def _give_up(self, first: int, end: int, tail: int, reason: Drop) -> None:
        """Give up the oldest records, of the indexes from ``first`` to below ``end``, and the space below ``tail``."""
        for index in self.fates:
            if first <= index < end:
                self.fates[index] = reason
        self._words[layout.W_GAP] = end
        self._move_tail(tail, reason, end - first, 0)
