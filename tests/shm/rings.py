"""Hands for tests of the ring: frames, and processes that die between two stores."""

from __future__ import annotations

import contextlib
import os
import random
import shutil
import tempfile
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import NamedTuple

from engine.shm import ring_file, segment
from engine.shm.ring import Consumer, Producer, Record
from engine.shm.ring_file import RingCounts, RingEnd
from engine.wire.journal import NO_JOURNAL, JournalSpan

CAMERA = "cam4"
FIRST_NANO = 1_731_024_000_000_000_000
#: More stores than any one call makes.
STORES_MAX = 30


class Frame(NamedTuple):
    """What went in, and must come out."""

    unix_nano: int
    sequence: int
    payload: bytes
    width: int
    height: int
    keyframe: bool
    monotonic: int

    @classmethod
    def of(cls, record: Record) -> Frame:
        """What came out."""
        payload = bytes(record.payload)
        return cls(
            *(record.unix_nano, record.sequence, payload, record.width, record.height),
            *(bool(record.keyframe), record.monotonic),
        )


def payload(size: int, seed: int = 0) -> bytes:
    """``size`` bytes that no other seed gives."""
    return random.Random(seed).randbytes(size)


@contextlib.contextmanager
def new_ring(capacity: int = 4096, *, video: bool = False, **start: int) -> Iterator[Path]:
    """A ring in a directory of its own; for hypothesis, which cannot share a fixture between examples."""
    directory = Path(tempfile.mkdtemp(prefix="edge-video-test-", dir="/dev/shm"))
    try:
        ring_file.create(directory / "cam4.ring", capacity, CAMERA, video=video, **start)
        yield directory / "cam4.ring"
    finally:
        shutil.rmtree(directory)


def write(producer: Producer, data: bytes) -> int | None:
    """Write one frame whose details do not matter."""
    return producer.write([data], max(producer.floor_nano + 1, FIRST_NANO), 0, 1, 1)


def claim_and_commit(producer: Producer, data: bytes, claimed: int | None = None) -> int | None:
    """Receive one frame in claimed memory, of which it may leave a rest unused. A frame that finds no memory is written
    as others are, which counts it."""
    room = producer.claim(claimed or len(data))
    if room is None:
        return write(producer, data)
    room[: len(data)] = data
    return producer.commit(len(data), max(producer.floor_nano + 1, FIRST_NANO), 0, 1, 1)


def write_unit(producer: Producer, keyframe: bool, size: int = 100) -> int | None:
    """Write one access unit whose details do not matter."""
    nano = max(producer.floor_nano + 1, FIRST_NANO)
    return producer.write([bytes(size)], nano, 0, 1, 1, encoding=1, keyframe=keyframe)


def set_words(path: Path, **values: int) -> None:
    """Set words of a ring's header by their names in the layout, without the W_."""
    shared = segment.open_existing(path)
    for name, value in values.items():
        shared.words[getattr(ring_file.layout, f"W_{name}")] = value
    shared.close()


def look(path: Path) -> RingCounts:
    """A ring's counts, as anyone may read them."""
    observer = ring_file.Observer(path, CAMERA)
    counts = observer.counts()
    observer.close()
    return counts


def assert_balanced(counts: RingCounts) -> None:
    """Every frame that was captured is stored, dropped for a reason, or held; none's latency is counted twice."""
    assert counts.captured == counts.stored + counts.dropped + counts.held, counts
    assert sum(counts.latency) <= counts.stored_total, counts


def standing(records: Sequence[Record | Frame]) -> JournalSpan:
    """The span of a journal that has these frames, and never had others."""
    if not records:
        return NO_JOURNAL
    first, *_, last = [(record.unix_nano, record.sequence) for record in [*records[:1], *records]]
    return JournalSpan(first, last, (0, 0))


class Killed(BaseException):
    """The process is gone."""


class MortalWords:
    """A ring's words in a process that is killed instead of making one more than ``stores`` stores."""

    def __init__(self, words: memoryview, stores: int) -> None:
        self._words = words
        self._stores = stores

    def __getitem__(self, index):
        return self._words[index]

    def __setitem__(self, index: int, value: int) -> None:
        if not self._stores:
            raise Killed
        self._stores -= 1
        self._words[index] = value

    def release(self) -> None:
        self._words.release()


@contextlib.contextmanager
def killed_after(stores: int, end: RingEnd) -> Iterator[None]:
    """What is done with ``end`` inside ends with a kill, at the latest behind its last line; ``end`` is gone then."""
    end._words = MortalWords(end._words, stores)
    try:
        with contextlib.suppress(Killed):
            yield
    finally:
        end.close()


@contextlib.contextmanager
def opening_killed_after(stores: int) -> Iterator[None]:
    """A ring that is opened inside is opened by a process that is killed after some stores."""
    open_existing = segment.open_existing
    descriptors: list[int] = []

    def mortal(path: Path, *, writable: bool = True) -> segment.Segment:
        shared = open_existing(path, writable=writable)
        shared.words = MortalWords(shared.words, stores)
        descriptors.append(shared.descriptor)
        return shared

    segment.open_existing = mortal
    try:
        yield
        descriptors.clear()
    except Killed:
        # As the kernel does with those of a process that is gone.
        for descriptor in descriptors:
            os.close(descriptor)
    finally:
        segment.open_existing = open_existing


class HookedWords(MortalWords):
    """A ring's words in a process that is overtaken by ``hook``, once, when it loads word ``index``."""

    def __init__(self, words: memoryview, index: int, hook) -> None:
        super().__init__(words, -1)
        self._index = index
        self._hook = hook

    def __getitem__(self, index):
        if index == self._index and self._hook:
            hook, self._hook = self._hook, None
            hook()
        return super().__getitem__(index)


def drain(consumer: Consumer, rounds: int = 1000) -> list[Frame]:
    """All frames of the ring, each committed."""
    frames = []
    for _ in range(rounds):
        if not consumer.pending:
            return frames
        records = consumer.poll(2**30, 3)
        frames += map(Frame.of, records)
        consumer.commit(records, 0)
    raise AssertionError(f"frames are pending and not handed out: head={consumer.head}, tail={consumer.tail}")
