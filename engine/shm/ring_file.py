"""Creates, opens and checks a ring's file, and reads its counts. The ring itself is in ``engine/shm/ring.py``."""

from __future__ import annotations

import contextlib
import time
from collections.abc import Iterable
from enum import IntEnum
from pathlib import Path
from typing import NamedTuple

from engine.errors import RingMismatch
from engine.shm import segment
from engine.shm.fence import new_fence
from engine.wire import ring_layout as layout


class Drop(IntEnum):
    """Why a captured frame was not stored; the value is the word that counts it."""

    RING_FULL = layout.W_RING_FULL
    TOO_LARGE = layout.W_TOO_LARGE
    CORRUPT = layout.W_CORRUPT
    INTERRUPTED = layout.W_INTERRUPTED
    BROKEN_GOP = layout.W_BROKEN_GOP
    OUTAGE = layout.W_OUTAGE
    REFUSED = layout.W_REFUSED
    DAMAGED = layout.W_DAMAGED
    CUT_GOP = layout.W_CUT_GOP
    LOST = layout.W_LOST

    @property
    def label(self) -> str:
        """The reason as status and logs show it. It makes no difference there which side of the ring ended a GOP."""
        return "broken_gop" if self is Drop.CUT_GOP else self.name.lower()


#: Reasons that the producer's side of the ring counts.
PRODUCER_DROPS = (Drop.RING_FULL, Drop.TOO_LARGE, Drop.CORRUPT, Drop.INTERRUPTED, Drop.BROKEN_GOP)
#: Reasons for which the consumer gives back an unstored frame.
UNSTORED_DROPS = (Drop.OUTAGE, Drop.REFUSED, Drop.DAMAGED, Drop.CUT_GOP)
#: Reasons that the consumer's side counts. Lost frames were stored before and remain in the count of stored frames.
CONSUMER_DROPS = (*UNSTORED_DROPS, Drop.LOST)


#: How often the counts are read while a producer changes them; after that, they may be one frame off.
_LOOKS_MAX = 100


class RingCounts(NamedTuple):
    """A ring's counts at one moment. ``held`` and ``held_bytes`` count the frames in it now.

    ``stored`` counts frames that were stored and not lost since. ``stored_total`` counts all frames ever stored, and
    ``stored_total_bytes`` their bytes; neither falls. ``latency`` (``engine/shm/histogram.py``) counts those of them
    whose latency is known: all but the last few before a kill of the writer, and those that were found stored after an
    outage. ``latency_sum_us`` is the sum of these latencies in microseconds.
    """

    captured: int
    captured_bytes: int
    stored: int
    stored_bytes: int
    stored_total: int
    stored_total_bytes: int
    drops: dict[str, int]
    held: int
    held_bytes: int
    area: int
    latency: list[int]
    latency_sum_us: int
    latency_max_ms: float
    #: Time stamp of the last frame captured, in nanoseconds UTC; 0 before the first.
    last_nano: int

    @property
    def dropped(self) -> int:
        """All drops, whatever the reason."""
        return sum(self.drops.values())


def create(
    path: Path,
    capacity: int,
    camera: str,
    *,
    owner: bytes = b"",
    last_sequence: int = 0,
    floor_nano: int = 0,
    former: RingEnd | None = None,
    video: bool = False,
) -> None:
    """Make an empty ring of ``capacity`` bytes (a multiple of 64) for ``camera``, whose frames are ``owner``'s
    (``engine/wire/ring_owner.py``). With ``video``, its records are access units.

    Sequences continue after ``last_sequence``, time stamps after ``floor_nano``: those of the last known frame. If the
    ring replaces a ``former`` one, which its producer has open and no longer writes to, sequences, time stamps and
    counts continue from there; the consumer hands over its own counts (``hand_over``). Raises NoSpace.
    """
    if capacity < layout.ALIGN or capacity % layout.ALIGN:
        raise ValueError(f"capacity {capacity} is not a positive multiple of {layout.ALIGN}")

    kind = layout.STREAM_VIDEO if video else layout.STREAM_FRAMES

    def fill(ring: segment.Segment) -> None:
        ring.words[layout.W_FIRST_SEQUENCE] = last_sequence
        ring.words[layout.W_LAST_NANO] = floor_nano
        ring.words[layout.W_FLOOR_NANO] = floor_nano
        if former:
            former.pass_on(ring.words)
        layout.write_identity(ring.view, ring.words, capacity, time.time_ns(), camera, owner, kind)

    segment.create(path, layout.file_bytes(capacity), fill).close()


#: Ranges of words that are copied from one ring to the next: the producer's and the consumer's.
_PRODUCER_WORDS = ((layout.W_CAPTURED, layout.W_BROKEN_GOP + 1),)
_CONSUMER_WORDS = (
    (layout.W_FLOOR_NANO, layout.W_LATENCY_SUM + 1),
    (layout.W_ENTRIES_BEFORE, layout.W_ENTRIES_BEFORE + 1),
    (layout.W_STORED, layout.W_CUT_GOP + 1),
    (layout.HISTOGRAM_WORD, layout.HISTOGRAM_WORD + layout.HISTOGRAM_BUCKETS),
    (layout.LEDGER_WORD, layout.HEADER_BYTES // 8),
)


def hand_over(former: RingEnd, path: Path) -> bool:
    """Copy the consumer's counts from ``former``, which it has emptied, to the ring at ``path`` that replaces it. Call
    this before that ring is opened as a consumer.

    Returns False, and changes nothing, if that ring does not continue ``former``. Raises RingMismatch, OSError.
    """
    with contextlib.closing(segment.open_existing(path)) as shared:
        if shared.size < layout.HEADER_BYTES:
            raise RingMismatch(f"ring {path}: it has {shared.size} bytes, less than a header")
        words = shared.words
        if (
            words[layout.W_VERSION] != layout.VERSION
            or words[layout.W_FORMER] != former.generation
            or words[layout.W_TAIL]
        ):
            return False
        former.copy_words(words, _CONSUMER_WORDS)
        return True


class RingEnd:
    """The common part of both ends: the checked mapping and its counts."""

    def __init__(self, path: Path, camera: str, *, writable: bool = True) -> None:
        self._segment = segment.open_existing(path, writable=writable)
        try:
            if self._segment.size < layout.HEADER_BYTES:
                raise RingMismatch(f"it has {self._segment.size} bytes, less than a header")
            self._words = self._segment.words
            self.capacity, owner = layout.check_identity(self._segment.view, self._words, self._segment.size)
            if owner != camera:
                raise RingMismatch(f"it belongs to camera {owner!r}, not {camera!r}")
        except RingMismatch as error:
            self._segment.close()
            raise RingMismatch(f"ring {path}: {error}") from None
        self.path = path
        self.camera = camera
        #: True if its records are access units.
        self.video = layout.is_video(self._words)
        #: The owner of the frames in it.
        self.owner = layout.owner_of(self._segment.view)
        #: Identifies the file; its path may lead to another file by now.
        self.inode = self._segment.inode
        self.generation = self._words[layout.W_GENERATION]
        self._area = layout.area_bytes(self.capacity)
        self._data = self._segment.view[layout.HEADER_BYTES :]
        self._fence = new_fence()

    @property
    def area(self) -> int:
        """Bytes of the byte ring: the most that can be free."""
        return self._area

    @property
    def held_bytes(self) -> int:
        """Bytes between tail and head."""
        head, tail = self._words[layout.W_HEAD], self._words[layout.W_TAIL]
        return max(head - tail, 0)

    @property
    def last_nano(self) -> int:
        """The time stamp of the last frame captured, in nanoseconds UTC; 0 before the first."""
        return self._words[layout.W_LAST_NANO]

    @property
    def free_bytes(self) -> int:
        """Bytes that the producer may still write, padding included."""
        return self._area - self.held_bytes

    def counts(self) -> RingCounts:
        """All counts. Each is exact, but while the site runs they may differ from each other by some frames."""
        words = self._words
        # Load the lost count before the stored count, so that the difference is never negative.
        drops = dict.fromkeys((drop.label for drop in Drop), 0)
        for drop in Drop:
            drops[drop.label] += words[drop]
        lost_bytes = words[layout.W_LOST_BYTES]
        # Load the histogram before the stored count too: it never counts more than are stored.
        first = layout.HISTOGRAM_WORD
        latency_sum_us = words[layout.W_LATENCY_SUM]
        latency = words[first : first + layout.HISTOGRAM_BUCKETS].tolist()
        stored, stored_bytes = words[layout.W_STORED], words[layout.W_STORED_BYTES]
        return RingCounts(
            captured=words[layout.W_CAPTURED],
            captured_bytes=words[layout.W_CAPTURED_BYTES],
            stored=stored - drops[Drop.LOST.label],
            stored_bytes=stored_bytes - lost_bytes,
            stored_total=stored,
            stored_total_bytes=stored_bytes,
            drops=drops,
            held=max(self._published()[1] - self._released(), 0),
            held_bytes=self.held_bytes,
            area=self._area,
            latency=latency,
            latency_sum_us=latency_sum_us,
            latency_max_ms=words[layout.W_LATENCY_MAX] / 1000,
            last_nano=self.last_nano,
        )

    def pass_on(self, words: memoryview) -> None:
        """Fill the header of a ring that replaces this one; only for the producer's end."""
        _, records = self._published()
        words[layout.W_FIRST_SEQUENCE] = self._words[layout.W_FIRST_SEQUENCE]
        words[layout.W_LAST_NANO] = self._words[layout.W_LAST_NANO]
        words[layout.W_RECORDS] = words[layout.W_NEXT_RECORDS] = words[layout.W_FIRST_RECORD] = records
        words[layout.W_FORMER] = self.generation
        # Copy the consumer's current counts too: they remain if it is killed before it hands over its own. It may give
        # up records while they are copied, so a gap is assumed until then.
        self.copy_words(words, _PRODUCER_WORDS + _CONSUMER_WORDS)
        words[layout.W_GAP] = records

    def copy_words(self, words: memoryview, ranges: Iterable[tuple[int, int]]) -> None:
        """Copy ``ranges`` of this ring's header into another one's."""
        for first, end in ranges:
            words[first:end] = self._words[first:end]

    def _published(self) -> tuple[int, int]:
        """The head, and the number of frames ever published below it, even after a kill between the two words."""
        words = self._words
        for _ in range(_LOOKS_MAX):
            head = words[layout.W_HEAD]
            # SYNC POINT ring-count: load NEXT_RECORDS before NEXT_HEAD; the producer stores them the other way.
            following = words[layout.W_NEXT_RECORDS]
            self._fence()
            count = following if words[layout.W_NEXT_HEAD] == head else words[layout.W_RECORDS]
            self._fence()
            if words[layout.W_HEAD] == head:
                break
        return head, count

    def _released(self) -> int:
        """Number of frames that the consumer has given back, stored or not."""
        words = self._words
        return words[layout.W_STORED] + sum(words[drop] for drop in UNSTORED_DROPS)

    def close(self) -> None:
        """Unmap. Records handed out before must not be used any more."""
        self._data.release()
        self._segment.close()


class Observer(RingEnd):
    """Reads a ring's counts and changes nothing."""

    def __init__(self, path: Path, camera: str) -> None:
        super().__init__(path, camera, writable=False)
