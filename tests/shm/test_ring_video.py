"""A ring of access units: what comes out decodes, whatever is given up, damaged or cut short by a kill."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from engine.shm import ring_file
from engine.shm.ring import Consumer, Producer
from engine.shm.ring_file import Drop, Observer
from engine.wire import ring_layout as layout
from engine.wire.journal import NO_JOURNAL, OFFSET_US_END, VIDEO_ENCODINGS
from tests.examples import examples
from tests.shm.rings import (
    CAMERA,
    FIRST_NANO,
    STORES_MAX,
    assert_balanced,
    killed_after,
    look,
    new_ring,
    opening_killed_after,
    payload,
    set_words,
    write_unit,
)

every_kill = pytest.mark.parametrize("stores", range(STORES_MAX))


@contextlib.contextmanager
def units(kinds: str, capacity: int = 4096) -> Iterator[tuple[Producer, Consumer]]:
    """A video ring with one unit for each letter: ``K`` for a key frame, ``p`` for another; both ends open."""
    with new_ring(capacity, video=True) as path:
        producer, consumer = Producer(path, CAMERA), Consumer(path, CAMERA)
        for kind in kinds:
            assert write_unit(producer, kind == "K")
        yield producer, consumer
        producer.close()
        consumer.close()


def store_all(consumer: Consumer) -> list[int]:
    """Store what the ring still holds; the sequences."""
    stored = []
    while consumer.pending:
        records = consumer.poll(2**20, 3)
        stored += [record.sequence for record in records]
        consumer.commit(records, 0)
    assert_balanced(consumer.counts())
    assert consumer.counts().held == consumer.held_bytes == 0
    return stored


@settings(max_examples=examples(100), deadline=None)
@given(
    st.lists(
        st.tuples(
            st.booleans(),
            st.integers(1, len(VIDEO_ENCODINGS)),
            st.integers(1 - OFFSET_US_END, OFFSET_US_END - 1),
            st.integers(1, 300),
        ),
        min_size=1,
        max_size=8,
    )
)
def test_a_unit_comes_out_as_it_went_in(written):
    with units("K") as (producer, consumer):
        store_all(consumer)
        for number, (keyframe, encoding, offset_us, size) in enumerate(written):
            producer.write(
                [payload(size, number)], FIRST_NANO + 9 + number, 7, 1280, 720,
                encoding=encoding, keyframe=keyframe, offset_us=offset_us,
            )  # fmt: skip
        found = consumer.poll(2**20, 64)
        assert [(bool(r.keyframe), r.encoding, r.offset_us, bytes(r.payload)) for r in found] == [
            (keyframe, encoding, offset_us, payload(size, number))
            for number, (keyframe, encoding, offset_us, size) in enumerate(written)
        ]


def test_every_end_of_a_ring_says_which_kind_it_is(shm):
    for video in (False, True):
        path = shm / f"{video}.ring"
        ring_file.create(path, 4096, CAMERA, video=video)
        for end in (Producer, Consumer, Observer):
            opened = end(path, CAMERA)
            assert opened.video is video
            opened.close()


def test_a_ring_begins_with_a_key_frame():
    with units("ppKp") as (_, consumer):
        assert store_all(consumer) == [3, 4]
        assert consumer.counts().drops["broken_gop"] == 2


@pytest.mark.parametrize("reason", [Drop.OUTAGE, Drop.REFUSED])
def test_behind_a_unit_that_was_given_up_the_rest_of_its_gop_is_cut_off(reason):
    with units("KppppKpp") as (_, consumer):
        consumer.commit(consumer.poll(2**20, 2), 0)
        consumer.release(consumer.poll(2**20, 1), reason)
        assert store_all(consumer) == [1 + 5, 7, 8]
        counts = consumer.counts()
        assert (counts.stored, counts.drops[reason.label], counts.drops["broken_gop"]) == (5, 1, 2)


def test_a_key_frame_behind_a_gap_is_stored():
    with units("KpKp") as (_, consumer):
        consumer.release(consumer.poll(2**20, 2), Drop.OUTAGE)
        assert store_all(consumer) == [3, 4]
        assert consumer.counts().drops["broken_gop"] == 0


def test_in_a_ring_of_frames_nothing_is_cut_off():
    with new_ring() as path:
        producer, consumer = Producer(path, CAMERA), Consumer(path, CAMERA)
        for number in range(4):
            producer.write([b"frame"], FIRST_NANO + number, 0, 1, 1, keyframe=False)
        consumer.release(consumer.poll(2**20, 2), Drop.OUTAGE)
        assert store_all(consumer) == [3, 4]
        producer.close()
        consumer.close()


def test_making_room_gives_up_no_key_frame_where_the_rest_of_the_gop_before_it_is_room_enough():
    with units("KppppKpp") as (_, consumer):
        one = layout.record_bytes(100)
        free = consumer.free_bytes
        assert [record.sequence for record in consumer.release_oldest(free + one, Drop.OUTAGE)] == [1]
        # The four units that are left of the GOP go at once, and they are enough.
        assert consumer.release_oldest(free + 3 * one, Drop.OUTAGE) == []
        assert store_all(consumer) == [6, 7, 8]
        assert (consumer.counts().drops["outage"], consumer.counts().drops["broken_gop"]) == (1, 4)


def test_damage_ends_the_gop():
    with units("Kppp") as (producer, consumer):
        start = layout.record_bytes(100)
        header = layout.RecordHeader._make(layout.unpack_record(consumer._data, start))
        layout.pack_record(consumer._data, start, *header._replace(kind=0))
        assert store_all(consumer) == [1]
        for kind in "ppKp":
            write_unit(producer, kind == "K")
        assert store_all(consumer) == [7, 8]
        counts = consumer.counts()
        assert (counts.drops["damaged"], counts.drops["broken_gop"]) == (3, 2)


@pytest.mark.parametrize("offset_us", [OFFSET_US_END, -OFFSET_US_END, 2**63 - 1, -(2**63)])
def test_an_offset_that_no_journal_entry_can_hold_is_damage(offset_us):
    with units("Kp") as (_, consumer):
        layout.pack_offset(consumer._data, layout.record_bytes(100), offset_us)
        assert store_all(consumer) == [1]
        assert consumer.counts().drops["damaged"] == 1


@pytest.mark.parametrize("encoding", [0, len(VIDEO_ENCODINGS) + 1])
def test_a_unit_of_no_known_codec_is_damage(encoding):
    with units("K") as (producer, consumer):
        producer.write([b"unit"], FIRST_NANO + 9, 0, 1, 1, encoding=encoding, keyframe=True)
        assert store_all(consumer) == [1]
        assert consumer.counts().drops["damaged"] == 1


#: What a consumer does when it is killed; two units of the first GOP are stored before.
GIVING_UP = {
    "release one": lambda consumer: consumer.release(consumer.poll(2**20, 1), Drop.OUTAGE),
    "release two": lambda consumer: consumer.release(consumer.poll(2**20, 2), Drop.REFUSED),
    "release and cut": lambda consumer: (
        consumer.release(consumer.poll(2**20, 1), Drop.OUTAGE),
        consumer.poll(2**20, 9),
    ),
    "make room": lambda consumer: consumer.release_oldest(consumer.free_bytes + 500, Drop.OUTAGE),
    "make all the room": lambda consumer: consumer.release_oldest(2**20, Drop.OUTAGE),
}


def decodes(stored: list[int], keys: set[int]) -> bool:
    """True if each unit that is no key frame follows the one before it."""
    return all(this in keys or this == before + 1 for before, this in zip([0, *stored], stored, strict=False))


@every_kill
@pytest.mark.parametrize("again", [0, 1, 2, 99])
@pytest.mark.parametrize("act", GIVING_UP)
def test_a_kill_hides_no_gap(act, again, stores):
    """The heirs are killed, too, when they open the ring or cut off the rest of a GOP."""
    with new_ring(4096, video=True) as path:
        producer, consumer = Producer(path, CAMERA), Consumer(path, CAMERA)
        kinds = "KpppppKppp"
        for kind in kinds:
            write_unit(producer, kind == "K")
        keys = {number for number, kind in enumerate(kinds, 1) if kind == "K"}
        consumer.commit(consumer.poll(2**20, 2), 0)
        with killed_after(stores, consumer):
            GIVING_UP[act](consumer)
        for _ in range(3):
            with opening_killed_after(again):
                Consumer(path, CAMERA).close()
        heir = Consumer(path, CAMERA)
        with killed_after(again, heir):
            heir.poll(2**20, 9)
        heir = Consumer(path, CAMERA)
        stored = [1, 2, *store_all(heir)]
        assert decodes(stored, keys), stored
        heir.close()
        producer.close()


@every_kill
def test_behind_what_redis_lost_a_gop_is_not_gone_on_with_though_the_writer_that_counted_it_was_killed(stores):
    with new_ring(4096, video=True) as path:
        producer, consumer = Producer(path, CAMERA), Consumer(path, CAMERA)
        for kind in "KpppKp":
            write_unit(producer, kind == "K")
        consumer.commit(consumer.poll(2**20, 2), 0)
        with killed_after(stores, consumer):
            consumer.count_lost(NO_JOURNAL, 0)
        heir = Consumer(path, CAMERA)
        heir.count_lost(NO_JOURNAL, 0)
        assert store_all(heir) == [5, 6]
        assert (heir.counts().drops["lost"], heir.counts().drops["broken_gop"]) == (2, 2)
        heir.close()
        producer.close()


def replaced(producer: Producer, path: Path) -> Producer:
    """The ring was removed: its producer goes on in another."""
    path.unlink()
    ring_file.create(path, producer.capacity, CAMERA, former=producer, video=True)
    return Producer(path, CAMERA)


def test_a_ring_that_replaces_another_goes_on_within_the_gop():
    with units("Kpp") as (producer, consumer):
        fresh = replaced(producer, consumer.path)
        for kind in "ppKp":
            write_unit(fresh, kind == "K")
        assert store_all(consumer) == [1, 2, 3]
        assert ring_file.hand_over(consumer, consumer.path)
        heir = Consumer(fresh.path, CAMERA)
        assert store_all(heir) == [4, 5, 6, 7]
        heir.close()
        fresh.close()


def test_a_gap_goes_over_to_the_ring_that_replaces_another():
    with units("Kpp") as (producer, consumer):
        fresh = replaced(producer, consumer.path)
        for kind in "ppKp":
            write_unit(fresh, kind == "K")
        consumer.release_oldest(2**20, Drop.OUTAGE)
        assert ring_file.hand_over(consumer, consumer.path)
        heir = Consumer(fresh.path, CAMERA)
        assert store_all(heir) == [6, 7]
        heir.close()
        fresh.close()


@pytest.mark.parametrize("copied", range(6))
@pytest.mark.parametrize("emptied", ["stored", "given up", "left"])
def test_whatever_became_of_a_ring_s_last_units_its_heir_stores_what_decodes(emptied, copied):
    """The writer is killed before, or while, it hands over its counts; or it is not."""
    with units("Kpp") as (producer, consumer):
        path = consumer.path
        fresh = replaced(producer, path)
        for kind in "ppKp":
            write_unit(fresh, kind == "K")
        stored = []
        if emptied == "stored":
            stored = store_all(consumer)
        elif emptied == "given up":
            consumer.release_oldest(2**20, Drop.OUTAGE)
        if emptied != "left":
            copy = consumer.copy_words
            consumer.copy_words = lambda words, ranges: copy(words, list(ranges)[:copied])
            ring_file.hand_over(consumer, path)
        heir = Consumer(path, CAMERA)
        stored += store_all(heir)
        assert decodes(stored, {1, 6}), stored
        assert stored[-2:] == [6, 7]
        heir.close()
        fresh.close()


def test_a_gap_is_found_where_the_units_are_given_up_while_their_ring_is_replaced():
    """The new ring's producer copies the consumer's words while the consumer gives up the last unit."""
    with units("Kpp") as (producer, consumer):
        consumer.commit(consumer.poll(2**20, 2), 0)
        copy = producer.copy_words

        def copy_late(words, ranges):
            copy(words, ranges)
            consumer.release(consumer.poll(2**20, 1), Drop.OUTAGE)
            stored = slice(layout.W_STORED, layout.W_CUT_GOP + 1)
            words[stored] = consumer._words[stored]

        producer.copy_words = copy_late
        fresh = replaced(producer, consumer.path)
        for kind in "pK":
            write_unit(fresh, kind == "K")
        heir = Consumer(fresh.path, CAMERA)
        assert store_all(heir) == [5]
        heir.close()
        fresh.close()


def test_the_ring_notes_the_fates_of_those_records_only_that_somebody_follows():
    with units("KpppppK") as (_, consumer):
        consumer.fates = dict.fromkeys(range(1, 4))
        consumer.release(consumer.poll(2**20, 2), Drop.OUTAGE)
        consumer.poll(2**20, 9)
        assert consumer.fates == {1: Drop.OUTAGE, 2: Drop.CUT_GOP, 3: Drop.CUT_GOP}


def test_a_ring_of_an_older_engine_is_one_of_frames(shm):
    ring_file.create(shm / "a.ring", 4096, CAMERA)
    set_words(shm / "a.ring", KIND=0, GAP=0, BROKEN_GOP=0, CUT_GOP=0)
    assert look(shm / "a.ring").drops["broken_gop"] == 0
    end = Producer(shm / "a.ring", CAMERA)
    assert not end.video
    end.close()
