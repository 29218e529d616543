"""The ring buffer between one capture process and its writer.

What. One producer, one consumer, one file (layout: ``engine/wire/ring_layout.py``). The producer copies a frame into
the ring once. The consumer returns views of it. The writer sends them without a copy, and moves the tail when Redis
has acknowledged them. The tail is the commit: the next consumer of the ring continues there.

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
* The consumer records what a commit will count (the intent), moves the tail, then counts. On opening, it counts an
  intent whose tail was reached and discards one whose tail was not. What Redis must still have is recorded the same
  way (``engine/shm/ring_accounts.py``).

Video. The records of a video ring are access units, each of which needs those before it since the last key frame. So
after a missing one, the rest of its GOP is not stored. The producer's side sees to this by itself. The consumer keeps
one word: the index of the record behind the last one that it gave up. If that is no key frame, it is given up, too. The
word is stored before the tail moves: a kill in between ends one more GOP early, and never leaves a gap unseen.

Drawbacks. Words go through Python integers, about 0.15 µs each. A memory error in the machine, or another program of
the same user that writes here, can damage records. The consumer checks each header and counts the frames that it must
skip. Payload bytes carry no checksum: at 60 KB a frame it would cost more than all the rest.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from pathlib import Path

from engine.errors import FrameTooLarge
from engine.shm.histogram import bucket
from engine.shm.ring_accounts import ConsumerAccounts, Record
from engine.shm.ring_file import PRODUCER_DROPS, Drop, RingEnd
from engine.wire import ring_layout as layout
from engine.wire.keys import SEQUENCE_MAX, next_sequence, sequence_after

__all__ = ["Consumer", "Producer", "Record"]


class Producer(RingEnd):
    """The capture process's end."""

    def __init__(self, path: Path, camera: str) -> None:
        super().__init__(path, camera)
        words = self._words
        self._head = words[layout.W_HEAD]
        words[layout.W_RECORDS] = self._records = self._published()[1]
        # A frame that a former producer was writing when it was killed has its sequence but is in no count yet.
        accounted = words[layout.W_RECORDS] + sum(words[drop] for drop in PRODUCER_DROPS)
        words[Drop.INTERRUPTED] += max(words[layout.W_CAPTURED] - accounted, 0)
        # Copies of the words that only this side writes: they are stored for each frame, and loaded only here.
        self._last_nano = words[layout.W_LAST_NANO]
        self._captured = words[layout.W_CAPTURED]
        self._captured_bytes = words[layout.W_CAPTURED_BYTES]
        self._largest = words[layout.W_LARGEST]
        #: The sequence of the last frame; 0 before the first.
        self.last_sequence = sequence_after(words[layout.W_FIRST_SEQUENCE], self._captured)

    def go_on_from(self, unix_nano: int, sequence: int) -> None:
        """Continue sequences and time stamps after those of a frame that this ring does not know."""
        words = self._words
        words[layout.W_LAST_NANO] = self._last_nano = max(self._last_nano, unix_nano)
        words[layout.W_FIRST_SEQUENCE] = (sequence - self._captured) % SEQUENCE_MAX
        self.last_sequence = sequence

    @property
    def floor_nano(self) -> int:
        """The next frame's time stamp must exceed this, in nanoseconds UTC."""
        return max(self._words[layout.W_FLOOR_NANO], self._last_nano)

    def write(
        self,
        parts: Sequence[bytes | memoryview],
        unix_nano: int,
        monotonic: int,
        width: int,
        height: int,
        *,
        encoding: int = 0,
        keyframe: bool = True,
        offset_us: int = 0,
    ) -> int | None:
        """Copy a frame (its ``parts`` joined) into the ring; never waits.

        Returns its sequence, or None if the ring is full: the frame is dropped and counted, and its sequence is used
        up. ``unix_nano`` must exceed floor_nano. Raises FrameTooLarge (counted) for a frame of more than half the
        capacity, ValueError for an empty one.
        """
        words = self._words
        size = sum(map(len, parts))
        if not size:
            raise ValueError(f"camera {self.camera}: an empty frame")
        sequence = self._take_sequence(unix_nano, size)
        if size > self.capacity // 2:
            words[Drop.TOO_LARGE] += 1
            raise FrameTooLarge(
                f"camera {self.camera}: a frame of {size:,} bytes exceeds half its ring of {self.capacity:,} bytes; "
                f"raise ring.capacity_mb to {-(-2 * size // 2**20)} or more"
            )
        need = layout.record_bytes(size)
        head, area, fence = self._head, self._area, self._fence
        position = head % area
        padding = area - position if position + need > area else 0
        # SYNC POINT ring-space: load the tail before any store into the space that it gives back.
        free = area - (head - words[layout.W_TAIL])
        fence()
        if padding + need > free:
            words[Drop.RING_FULL] += 1
            return None
        data = self._data
        index = self._records
        if padding:
            filler = padding - layout.RECORD_HEADER_BYTES
            layout.pack_record(data, position, layout.KIND_PADDING, filler, 0, 0, 0, 0, 0, 0, index, 0)
            position = 0
        flags = layout.FLAG_KEYFRAME if keyframe else 0
        layout.pack_record(
            data, position,
            layout.KIND_FRAME, size, unix_nano, sequence, width, height, encoding, flags, index, monotonic,
        )  # fmt: skip
        if self.video:
            layout.pack_offset(data, position, offset_us)
        start = position + layout.RECORD_HEADER_BYTES
        for part in parts:
            end = start + len(part)
            data[start:end] = part
            start = end
        self._head = head = head + padding + need
        self._records = index = index + 1
        # Until head reaches NEXT_HEAD, readers use the old count.
        words[layout.W_NEXT_HEAD] = head
        # SYNC POINT ring-count
        fence()
        words[layout.W_NEXT_RECORDS] = index
        # SYNC POINT ring-publish: store all of the frame before the head that shows it.
        fence()
        words[layout.W_HEAD] = head
        words[layout.W_RECORDS] = index
        return sequence

    def discard(self, unix_nano: int, size: int, reason: Drop) -> int:
        """Count a frame that is not worth storing; returns the sequence that it used up."""
        sequence = self._take_sequence(unix_nano, size)
        self._words[reason] += 1
        return sequence

    def _take_sequence(self, unix_nano: int, size: int) -> int:
        words = self._words
        words[layout.W_LAST_NANO] = self._last_nano = unix_nano
        # One store counts the frame and uses up its sequence: the sequence follows from the count.
        words[layout.W_CAPTURED] = self._captured = self._captured + 1
        words[layout.W_CAPTURED_BYTES] = self._captured_bytes = self._captured_bytes + size
        if size > self._largest:
            words[layout.W_LARGEST] = self._largest = size
        self.last_sequence = sequence = next_sequence(self.last_sequence)
        return sequence


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
        #: Indexes of records given up because their GOP had a gap. Whoever asks Redis about them clears it.
        self.cut: set[int] = set()
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
            if sound and kind == layout.KIND_FRAME and size and layout.storable(nano, sequence, encoding):
                start = position + layout.RECORD_HEADER_BYTES
                payload = self._payloads[start : start + size]
                keyframe = flags & layout.FLAG_KEYFRAME
                offset = 0
                if video:
                    offset = layout.unpack_offset(self._payloads, position)
                    if index == gap and not keyframe:
                        if records or index != self._released():
                            # Those before it must be committed first; poll finds it again afterwards.
                            break
                        gap = self._cut_gop(index, end)
                        cursor, index = end, index + 1
                        continue
                records.append(
                    Record(nano, sequence, width, height, encoding, keyframe, monotonic, index, payload, end, offset)
                )
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
        longest, size = words[layout.W_LATENCY_MAX], 0
        for record in records:
            latency = (now_monotonic - record.monotonic) // 1000
            words[layout.HISTOGRAM_WORD + bucket(latency)] += 1
            longest = max(longest, latency)
            size += len(record.payload)
        words[layout.W_LATENCY_MAX] = longest
        self._count_stored(records, size, now_monotonic)
        self._overtake()

    def release(self, records: Sequence[Record], reason: Drop) -> None:
        """Give up ``records``, the oldest of the ring, and count them under ``reason``."""
        if records:
            self._words[layout.W_GAP] = records[-1].record_index + 1
            self._move_tail(records[-1].end, reason, len(records), 0)
            self._overtake()

    def release_oldest(self, free_bytes_min: int, reason: Drop) -> list[Record]:
        """Give up the oldest frames until ``free_bytes_min`` are free; returns them with invalid payloads."""
        self.rewind()
        lost: list[Record] = []
        while self.free_bytes < free_bytes_min:
            oldest = self.poll(1, 1)
            if not oldest:
                break
            self.release(oldest, reason)
            lost += oldest
        return lost

    def rewind(self) -> None:
        """Start again at the tail: ``poll`` returns all uncommitted frames once more."""
        self.cursor = self._tail
        self._index = self._released()

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

    def _cut_gop(self, index: int, end: int) -> int:
        """Give up the oldest record, which cannot be decoded without one before it; returns the index behind it."""
        self._words[layout.W_GAP] = index + 1
        self._move_tail(end, Drop.CUT_GOP, 1, 0)
        self.cut.add(index)
        return index + 1

    def _skip_damage(self) -> None:
        """Give up all frames up to the head: after a damaged header, the next record cannot be found."""
        head, published = self._published()
        self._words[layout.W_GAP] = published
        self._move_tail(head, Drop.DAMAGED, max(published - self._released(), 0), 0)
        self.rewind()
