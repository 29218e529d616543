"""Bytes of a ring that nobody of ours wrote: the loss is counted, and the ring goes on."""

from __future__ import annotations

import contextlib
import time

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from engine.errors import FrameTooLarge, RingMismatch
from engine.shm.ring import Consumer, Producer
from engine.shm.ring_file import Drop
from engine.wire import ledger_layout
from engine.wire import ring_layout as layout
from engine.wire.journal import NO_JOURNAL
from tests.examples import examples
from tests.shm.rings import (
    CAMERA,
    HookedWords,
    assert_balanced,
    drain,
    look,
    new_ring,
    payload,
    set_words,
    write,
)


@contextlib.contextmanager
def standing_ring(sizes, capacity=4096):
    """A ring in which frames of ``sizes`` stand, both ends open, and where each record begins."""
    with new_ring(capacity) as path:
        producer, consumer = Producer(path, CAMERA), Consumer(path, CAMERA)
        starts = []
        for number, size in enumerate(sizes, 1):
            starts.append(consumer.head % layout.area_bytes(capacity))
            assert write(producer, payload(size, number)) == number
        yield producer, consumer, starts
        producer.close()
        consumer.close()


def damage(end, start, **fields):
    """Change fields of the record header at ``start``."""
    header = layout.RecordHeader._make(layout.unpack_record(end._data, start))
    layout.pack_record(end._data, start, *header._replace(**fields))


def goes_on(producer, consumer):
    """The next frame comes out as it went in, and all counts are exact."""
    write(producer, b"the next frame")
    assert [frame.payload for frame in drain(consumer)][-1:] == [b"the next frame"]
    counts = consumer.counts()
    assert_balanced(counts)
    assert counts.held == counts.held_bytes == 0


HEADERS = {
    "no kind": {"kind": 0},
    "noise": {"kind": 0xFFFFFFFF, "size": 0xFFFFFFFF},
    "no size": {"size": 0},
    "beyond the head": {"size": 4000},
    "beyond the ring": {"size": 2**32 - 1},
    "padding that does not reach the end": {"kind": layout.KIND_PADDING},
    "another record's index": {"record_index": 77},
    "a stamp that no key can hold": {"unix_nano": 10**19},
    "no stamp": {"unix_nano": 0},
    "a sequence beyond the last": {"sequence": 100_000},
    "no sequence": {"sequence": 0},
    "no known encoding": {"encoding": 1},
}


@pytest.mark.parametrize("fields", HEADERS.values(), ids=HEADERS)
def test_a_damaged_header_costs_all_that_stands_behind_it(fields):
    with standing_ring([100] * 5) as (producer, consumer, starts):
        damage(consumer, starts[2], **fields)
        assert [frame.sequence for frame in drain(consumer)] == [1, 2]
        assert consumer.counts().drops["damaged"] == 3
        goes_on(producer, consumer)


def test_frames_in_flight_are_not_given_up_with_the_damaged_ones(tmp_path):
    with standing_ring([100] * 4) as (producer, consumer, starts):
        damage(consumer, starts[1], kind=0)
        (record,) = consumer.poll(2**20, 64)
        assert consumer.poll(2**20, 64) == []
        assert consumer.tail == 0
        assert record.payload == payload(100, 1)
        consumer.commit([record], 0)
        assert consumer.poll(2**20, 64) == []
        assert consumer.counts().drops["damaged"] == 3
        goes_on(producer, consumer)


@contextlib.contextmanager
def ring_with_padding():
    """A ring in which one frame stands, and padding before it; both ends open, and where the padding begins."""
    with standing_ring([400], capacity=1024) as (producer, consumer, _):
        drain(consumer)
        write(producer, payload(400, 2))
        drain(consumer)
        padding = consumer.head % layout.area_bytes(1024)
        write(producer, payload(400, 3))
        assert consumer.held_bytes > layout.record_bytes(400)
        yield producer, consumer, padding


def test_damage_behind_padding_with_nothing_in_flight_is_passed():
    """The padding is read, no frame is: what stands before the damage is not in flight."""
    with ring_with_padding() as (producer, consumer, _):
        damage(consumer, 0, kind=0)
        assert drain(consumer) == []
        assert consumer.counts().drops["damaged"] == 1
        goes_on(producer, consumer)


def test_making_room_passes_damage_behind_padding():
    with ring_with_padding() as (producer, consumer, _):
        damage(consumer, 0, kind=0)
        consumer.release_oldest(1024, Drop.OUTAGE)
        assert consumer.free_bytes >= 1024
        goes_on(producer, consumer)


def test_damaged_padding_is_passed():
    with ring_with_padding() as (producer, consumer, padding):
        damage(consumer, padding, kind=0)
        assert drain(consumer) == []
        assert consumer.counts().drops["damaged"] == 1
        goes_on(producer, consumer)


def test_making_room_in_a_damaged_ring_makes_room():
    with standing_ring([900] * 4) as (producer, consumer, starts):
        damage(consumer, starts[0], kind=0)
        consumer.release_oldest(4096, Drop.OUTAGE)
        assert consumer.free_bytes >= 4096
        goes_on(producer, consumer)


def test_a_size_that_swallows_the_next_frame_is_damage():
    """What would come out is one frame of two frames' bytes; the second one's number tells."""
    with standing_ring([64] * 4) as (producer, consumer, starts):
        damage(consumer, starts[1], size=64 + layout.record_bytes(64))
        drain(consumer)
        write(producer, b"may be lost with it")
        drain(consumer)
        goes_on(producer, consumer)


@pytest.mark.parametrize("word", ["HEAD", "STORED", "NEXT_HEAD", "NEXT_RECORDS", "RECORDS"])
def test_frames_that_arrive_while_damage_is_counted_are_not_counted_with_it(word):
    """The producer writes on in the middle of the consumer's counting."""
    with standing_ring([100] * 3) as (producer, consumer, starts):
        damage(consumer, starts[0], kind=0)
        index = getattr(layout, f"W_{word}")
        consumer._words = HookedWords(consumer._words, index, lambda: write(producer, payload(100, 9)))
        assert [frame.payload for frame in drain(consumer)] in ([payload(100, 9)], [])
        goes_on(producer, consumer)


@settings(max_examples=examples(300), deadline=None)
@given(
    st.integers(0, 4),
    st.lists(st.tuples(st.integers(0, layout.RECORD_HEADER_BYTES - 1), st.integers(0, 255)), min_size=1, max_size=6),
)
@example(1, [(4, 192)])
@example(3, [(4, 129)])
def test_whatever_is_written_over_a_header_the_counts_stay_exact(number, noise):
    with standing_ring([64] * 5) as (producer, consumer, starts):
        for offset, byte in noise:
            consumer._data[starts[number] + offset] = byte
        frames = drain(consumer)
        assert [frame.payload for frame in frames[:number]] == [payload(64, n + 1) for n in range(number)]
        write(producer, b"may be lost with it")
        drain(consumer)
        goes_on(producer, consumer)


LEDGER = range(ledger_layout.W_LEDGER, layout.HEADER_BYTES // 8)
WORDS = sorted(index for name, index in vars(layout).items() if name.startswith("W_"))
interesting = st.sampled_from((0, 1, 63, 64, 128, 4096, 99_999, 100_000, 2**32, 2**62, 2**63, 2**64 - 64, 2**64 - 1))
word_noise = st.tuples(st.sampled_from(WORDS) | st.sampled_from(LEDGER[:48]), interesting | st.integers(0, 2**64 - 1))
byte_noise = st.tuples(st.integers(0, layout.HEADER_BYTES - 1), st.binary(min_size=1, max_size=40))


@settings(max_examples=examples(400), deadline=None)
@given(st.lists(word_noise, max_size=4), st.lists(byte_noise, max_size=3))
@example([(layout.W_INTENT_WORD, 2**64 - 1)], [])
@example([(layout.W_INTENT_WORD, layout.W_MAGIC)], [])
@example([(layout.W_CAPTURED, 2**64 - 1)], [])
@example([(layout.W_STORED, 2**64 - 1)], [])
@example([(layout.W_HEAD, 2**64 - 64), (layout.W_TAIL, 2**64 - 64)], [])
@example([(layout.HISTOGRAM_WORD, 2**64 - 1)], [])
def test_a_header_page_overwritten_with_noise_is_refused_or_worked_with(words, noise):
    with new_ring() as path:
        producer, consumer = Producer(path, CAMERA), Consumer(path, CAMERA)
        write(producer, payload(100))
        drain(consumer)
        for number in range(3):
            write(producer, payload(100, number))
        producer.close()
        consumer.close()
        with path.open("r+b") as file:
            for index, value in words:
                file.seek(index * 8)
                file.write(value.to_bytes(8, "little"))
            for offset, data in noise:
                file.seek(offset)
                file.write(data[: layout.HEADER_BYTES - offset])
        with contextlib.suppress(RingMismatch):
            look(path)
            producer, consumer = Producer(path, CAMERA), Consumer(path, CAMERA)
            for number in range(3):
                with contextlib.suppress(FrameTooLarge):
                    write(producer, payload(100, number))
                consumer.release_oldest(3000, Drop.OUTAGE)
                drain(consumer)
                look(path)
            consumer.count_lost(NO_JOURNAL, time.monotonic_ns())
            assert consumer.count_lost(NO_JOURNAL, time.monotonic_ns()) == 0
            producer.close()
            consumer.close()


def test_an_intent_that_is_void_is_not_counted():
    with new_ring() as path:
        set_words(path, INTENT_WORD=layout.W_STORED, INTENT_COUNT=5, INTENT_BYTES=5, INTENT_TAIL=64)
        consumer = Consumer(path, CAMERA)
        assert consumer.counts().stored == 0
        consumer.close()
