"""A ring's file: made, opened and checked, and its counts. The ring itself is in ``engine/shm/ring.py``."""

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
    OUTAGE = layout.W_OUTAGE
    REFUSED = layout.W_REFUSED
    DAMAGED = layout.W_DAMAGED
    LOST = layout.W_LOST

    @property
    def label(self) -> str:
        """The reason as status and logs show it."""
        return self.name.lower()


#: Reasons that the producer's side of the ring counts.
PRODUCER_DROPS = (Drop.RING_FULL, Drop.TOO_LARGE, Drop.CORRUPT, Drop.INTERRUPTED)
#: Reasons for which the consumer gives a frame back that was not stored.
UNSTORED_DROPS = (Drop.OUTAGE, Drop.REFUSED, Drop.DAMAGED)
#: Reasons that the consumer's side counts; lost frames were stored before, and stay in that count.
CONSUMER_DROPS = (*UNSTORED_DROPS, Drop.LOST)


#: Looks at a producer at full speed before one is taken that may be a frame off.
_LOOKS_MAX = 100


class RingCounts(NamedTuple):
    """A ring's counts at one moment; ``held`` and ``held_bytes`` are what stands in it now.

    ``stored`` is what was stored and not lost since, ``stored_total`` all that ever was: it never falls.
    """

    captured: int
    captured_bytes: int
    stored: int
    stored_bytes: int
    stored_total: int
    drops: dict[str, int]
    held: int
    held_bytes: int
    area: int
    latency: list[int]
    latency_max_ms: float

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
) -> None:
    """Make an empty ring of ``capacity`` bytes (a multiple of 64) for ``camera``, whose frames are ``owner``'s
    (``engine/wire/ring_owner.py``).

    Sequences go on behind ``last_sequence``, time stamps behind ``floor_nano``: those of the last frame that is known.
    Where the ring takes the place of a ``former`` one, which its producer has open and writes to no more,
    sequences, time stamps and counts go on from there; the consumer's are its own to hand over (``hand_over``). Raises
    NoSpace.
    """
    if capacity < layout.ALIGN or capacity % layout.ALIGN:
        raise ValueError(f"capacity {capacity} is not a positive multiple of {layout.ALIGN}")

    def fill(ring: segment.Segment) -> None:
        ring.words[layout.W_FIRST_SEQUENCE] = last_sequence
        ring.words[layout.W_LAST_NANO] = floor_nano
        ring.words[layout.W_FLOOR_NANO] = floor_nano
        if former:
            former.pass_on(ring.words)
        layout.write_identity(ring.view, ring.words, capacity, time.time_ns(), camera, owner)

    segment.create(path, layout.file_bytes(capacity), fill).close()


#: What goes over from one ring to the next, as ranges of words: the producer's and the consumer's.
_PRODUCER_WORDS = ((layout.W_CAPTURED, layout.W_LARGEST + 1),)
_CONSUMER_WORDS = (
    (layout.W_FLOOR_NANO, layout.W_LATENCY_MAX + 1),
    (layout.W_ENTRIES_BEFORE, layout.W_ENTRIES_BEFORE + 1),
    (layout.W_STORED, layout.W_LOST_BYTES + 1),
    (layout.HISTOGRAM_WORD, layout.HISTOGRAM_WORD + layout.HISTOGRAM_BUCKETS),
    (layout.LEDGER_WORD, layout.HEADER_BYTES // 8),
)


def hand_over(former: RingEnd, path: Path) -> bool:
    """The consumer has emptied ``former``, whose place the ring at ``path`` has taken: its counts go on there. To be
    done before that ring is opened as a consumer.

    Returns False, and changes nothing, where that ring does not go on from ``former``. Raises RingMismatch, OSError.
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
    """What both ends share: the mapping, checked, and its counts."""

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
        #: Whose the frames are that it holds.
        self.owner = layout.owner_of(self._segment.view)
        #: Which file it is; another may have its name by now.
        self.inode = self._segment.inode
        self.generation = self._words[layout.W_GENERATION]
        self._area = layout.area_bytes(self.capacity)
        self._data = self._segment.view[layout.HEADER_BYTES :]
        self._fence = new_fence()

    @property
    def area(self) -> int:
        """Bytes of the byte ring, all that can ever be free."""
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
        """All counts; each is exact, together they may be some frames apart while the site runs."""
        words = self._words
        # What was lost, before what was stored in all: the difference is never below 0.
        drops = {drop.label: words[drop] for drop in Drop}
        lost_bytes = words[layout.W_LOST_BYTES]
        stored = words[layout.W_STORED]
        first = layout.HISTOGRAM_WORD
        return RingCounts(
            captured=words[layout.W_CAPTURED],
            captured_bytes=words[layout.W_CAPTURED_BYTES],
            stored=stored - drops[Drop.LOST.label],
            stored_bytes=words[layout.W_STORED_BYTES] - lost_bytes,
            stored_total=stored,
            drops=drops,
            held=max(self._published()[1] - self._released(), 0),
            held_bytes=self.held_bytes,
            area=self._area,
            latency=words[first : first + layout.HISTOGRAM_BUCKETS].tolist(),
            latency_max_ms=words[layout.W_LATENCY_MAX] / 1000,
        )

    def pass_on(self, words: memoryview) -> None:
        """Fill the header of a ring that takes this one's place, where this end's side is the producer's."""
        _, records = self._published()
        words[layout.W_FIRST_SEQUENCE] = self._words[layout.W_FIRST_SEQUENCE]
        words[layout.W_LAST_NANO] = self._words[layout.W_LAST_NANO]
        words[layout.W_RECORDS] = words[layout.W_NEXT_RECORDS] = words[layout.W_FIRST_RECORD] = records
        words[layout.W_FORMER] = self.generation
        # The consumer's as they are now: should it be killed before it has handed them over, these stand.
        self.copy_words(words, _PRODUCER_WORDS + _CONSUMER_WORDS)

    def copy_words(self, words: memoryview, ranges: Iterable[tuple[int, int]]) -> None:
        """Copy ``ranges`` of this ring's header into another one's."""
        for first, end in ranges:
            words[first:end] = self._words[first:end]

    def _published(self) -> tuple[int, int]:
        """The head, and how many frames were ever published below it; also where a kill came between the two words."""
        words = self._words
        for _ in range(_LOOKS_MAX):
            head = words[layout.W_HEAD]
            # SYNC POINT ring-count: the count to come before the head to come; the producer writes them the other way.
            following = words[layout.W_NEXT_RECORDS]
            self._fence()
            count = following if words[layout.W_NEXT_HEAD] == head else words[layout.W_RECORDS]
            self._fence()
            if words[layout.W_HEAD] == head:
                break
        return head, count

    def _released(self) -> int:
        """How many frames the consumer has given back, stored or not."""
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
