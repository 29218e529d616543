"""A process killed between any two of its stores: nothing is half visible, and every count is exact afterwards."""

from __future__ import annotations

import contextlib
from pathlib import Path

import pytest

from engine.errors import FrameTooLarge
from engine.shm.ring import Consumer, Producer
from engine.shm.ring_file import Drop
from engine.wire.journal import NO_JOURNAL, JournalSpan
from engine.wire.keys import next_sequence
from tests.shm.rings import (
    CAMERA,
    FIRST_NANO,
    STORES_MAX,
    Frame,
    assert_balanced,
    claim_and_commit,
    drain,
    killed_after,
    look,
    new_ring,
    opening_killed_after,
    payload,
    standing,
    write,
)

every_kill = pytest.mark.parametrize("stores", range(STORES_MAX))
#: The ways in which a frame gets into a ring.
both_ways = pytest.mark.parametrize("put", [write, claim_and_commit], ids=["written", "claimed"])


def fill(path: Path, sizes: list[int], committed: int = 0) -> None:
    """A ring that a producer has written frames of ``sizes`` into, of which some are stored already."""
    producer, consumer = Producer(path, CAMERA), Consumer(path, CAMERA)
    for number, size in enumerate(sizes, 1):
        write(producer, payload(size, number))
        if number <= committed:
            consumer.commit(consumer.poll(1, 1), 0)
    producer.close()
    consumer.close()


#: What stands in the ring (capacity 1024) before the frame of 300 bytes at whose writing the producer is killed.
BEFORE_WRITE = {
    "first frame": ([], 0),
    "second frame": ([300], 0),
    "after all were stored": ([300, 300], 2),
    "behind padding": ([400, 400], 2),
    "ring full": ([300, 300, 300], 0),
}


def reopened(path: Path) -> list[Frame]:
    """What a producer and a consumer that take over find: all counts exact, and these frames."""
    producer, consumer = Producer(path, CAMERA), Consumer(path, CAMERA)
    assert_balanced(consumer.counts())
    held = consumer.counts().held
    frames = drain(consumer)
    assert len(frames) == held
    counts = consumer.counts()
    assert_balanced(counts)
    assert counts.held == counts.held_bytes == 0
    producer.close()
    consumer.close()
    return frames


@every_kill
@both_ways
@pytest.mark.parametrize("before", BEFORE_WRITE)
def test_a_write_cut_short_leaves_a_whole_frame_or_none(before, put, stores):
    sizes, committed = BEFORE_WRITE[before]
    with new_ring(1024) as path:
        fill(path, sizes, committed)
        producer = Producer(path, CAMERA)
        with killed_after(stores, producer):
            put(producer, payload(300, 99))
        frames = [frame.payload for frame in reopened(path)]
        standing = [payload(size, number) for number, size in enumerate(sizes, 1)][committed:]
        assert frames in (standing, [*standing, payload(300, 99)])


@every_kill
@both_ways
@pytest.mark.parametrize("before", BEFORE_WRITE)
def test_every_number_that_a_killed_write_used_up_is_counted(before, put, stores):
    """A gap in the numbers is a loss, and every loss is counted."""
    sizes, committed = BEFORE_WRITE[before]
    with new_ring(1024) as path:
        fill(path, sizes, committed)
        producer = Producer(path, CAMERA)
        with killed_after(stores, producer):
            put(producer, payload(300, 99))
        successor = Producer(path, CAMERA)
        assert successor.last_sequence == successor.counts().captured
        successor.close()


@pytest.mark.parametrize("before", BEFORE_WRITE)
def test_a_frame_that_was_received_in_part_leaves_no_trace(before):
    sizes, committed = BEFORE_WRITE[before]
    with new_ring(1024) as path:
        fill(path, sizes, committed)
        counts = look(path)
        producer = Producer(path, CAMERA)
        room = producer.claim(300)
        if room is not None:
            room[:200] = payload(200, 99)
        producer.close()
        standing = [payload(size, number) for number, size in enumerate(sizes, 1)][committed:]
        assert [frame.payload for frame in reopened(path)] == standing
        assert (look(path).captured, look(path).drops) == (counts.captured, counts.drops)


@every_kill
@both_ways
def test_no_number_is_used_twice(put, stores):
    with new_ring(4096, last_sequence=99_996) as path:
        used = 99_996
        for _ in range(6):
            producer = Producer(path, CAMERA)
            with killed_after(stores, producer):
                put(producer, b"cut short, or not")
            successor = Producer(path, CAMERA)
            assert successor.last_sequence in (used, next_sequence(used))
            used = successor.last_sequence
            assert write(successor, b"whole") == next_sequence(used)
            used = next_sequence(used)
            successor.close()
        sequences = [frame.sequence for frame in reopened(path)]
        assert len(sequences) == len(set(sequences))


@every_kill
@pytest.mark.parametrize("size", [0, 10, 600], ids=["discarded", "written", "too large"])
def test_a_frame_is_counted_once_whatever_became_of_it(size, stores):
    with new_ring(1024) as path:
        producer = Producer(path, CAMERA)
        with killed_after(stores, producer), contextlib.suppress(FrameTooLarge):
            if size:
                write(producer, bytes(size))
            else:
                producer.discard(1, 0, Drop.CORRUPT)
        frames = reopened(path)
        assert look(path).captured in (0, 1)
        assert len(frames) <= look(path).captured


#: What a consumer that is killed is at: it was handed four frames, padding among them.
RELEASING = {
    "commit one": lambda consumer, records: consumer.commit(records[:1], 0),
    "commit all": lambda consumer, records: consumer.commit(records, 0),
    "commit one by one": lambda consumer, records: [consumer.commit([record], 0) for record in records],
    "release": lambda consumer, records: consumer.release(records[:2], Drop.REFUSED),
    "release oldest": lambda consumer, records: consumer.release_oldest(700, Drop.OUTAGE),
}


def half_stored(path: Path) -> list[bytes]:
    """A ring that wrapped, in which four frames of eight are stored; the payloads of the others."""
    fill(path, [300] * 8, committed=8)
    fill(path, [100, 200, 150, 60])
    return [payload(size, number) for number, size in enumerate([100, 200, 150, 60], 1)]


@every_kill
@pytest.mark.parametrize("release", RELEASING)
def test_a_commit_cut_short_is_whole_or_void(release, stores):
    with new_ring(1024) as path:
        standing = half_stored(path)
        before = look(path)
        consumer = Consumer(path, CAMERA)
        with killed_after(stores, consumer):
            RELEASING[release](consumer, consumer.poll(2**20, 64))
        frames = [frame.payload for frame in reopened(path)]
        given_up = len(standing) - len(frames)
        assert frames == standing[given_up:]
        after = look(path)
        assert after.stored + after.dropped == before.stored + before.dropped + len(standing)
        if not after.dropped:
            assert after.stored_bytes == before.stored_bytes + sum(map(len, standing))


@every_kill
@pytest.mark.parametrize("again", range(8))
def test_a_commit_is_settled_once_however_often_its_heirs_are_killed_too(stores, again):
    with new_ring(1024) as path:
        half_stored(path)
        consumer = Consumer(path, CAMERA)
        with killed_after(stores, consumer):
            consumer.commit(consumer.poll(2**20, 2), 0)
        for _ in range(3):
            with opening_killed_after(again):
                Consumer(path, CAMERA).close()
        reopened(path)
        assert look(path).stored == 12


@every_kill
@pytest.mark.parametrize("again", range(4))
def test_an_interrupted_frame_is_counted_once_however_often_the_heirs_are_killed_too(stores, again):
    with new_ring(1024) as path:
        producer = Producer(path, CAMERA)
        with killed_after(stores, producer):
            write(producer, b"frame")
        for _ in range(3):
            with opening_killed_after(again):
                Producer(path, CAMERA).close()
        frames = reopened(path)
        counts = look(path)
        assert counts.captured == len(frames) + counts.drops["interrupted"] <= 1


@every_kill
def test_counting_a_lost_frame_as_stored_is_whole_or_void(stores):
    with new_ring(1024) as path:
        half_stored(path)
        consumer = Consumer(path, CAMERA)
        lost = consumer.release_oldest(2**20, Drop.OUTAGE)
        with killed_after(stores, consumer):
            consumer.reclassify(lost, Drop.OUTAGE, 0)
        assert reopened(path) == []


@every_kill
@pytest.mark.parametrize("again", range(0, 16, 3))
@pytest.mark.parametrize("left", range(5))
def test_a_frame_that_redis_lost_is_counted_once_however_often_its_counter_is_killed(stores, again, left):
    with new_ring(1024) as path:
        half_stored(path)
        consumer = Consumer(path, CAMERA)
        records = consumer.poll(2**20, 100)
        consumer.commit(records, 0)
        journal = standing(records[len(records) - left :])
        with killed_after(stores, consumer):
            consumer.count_lost(journal, 0)
        for _ in range(3):
            with opening_killed_after(again):
                heir = Consumer(path, CAMERA)
                heir.count_lost(journal, 0)
                heir.close()
        heir = Consumer(path, CAMERA)
        heir.count_lost(journal, 0)
        assert heir.count_lost(journal, 0) == 0
        assert (heir.counts().drops["lost"], heir.counts().stored) == (12 - left, left)
        heir.close()
        assert reopened(path) == []


@every_kill
@pytest.mark.parametrize("batch", [1, 2, 4])
def test_a_killed_writer_knows_what_it_stored_and_no_more(stores, batch):
    """Whatever of a commit was done: the heir expects of Redis the frames that are counted as stored."""
    with new_ring(1024) as path:
        half_stored(path)
        consumer = Consumer(path, CAMERA)
        with killed_after(stores, consumer):
            while records := consumer.poll(2**20, batch):
                consumer.commit(records, 0)
        heir = Consumer(path, CAMERA)
        stored = heir.counts().stored
        assert heir.count_lost(NO_JOURNAL, 0) == stored
        assert heir.counts().stored == 0
        heir.close()
        reopened(path)


@every_kill
@pytest.mark.parametrize("lagging", range(1, 5))
def test_a_killed_writer_knows_what_a_replica_did_not_get(stores, lagging):
    with new_ring(1024) as path:
        half_stored(path)
        consumer = Consumer(path, CAMERA)
        records = consumer.poll(2**20, 4)
        journal = JournalSpan(
            (FIRST_NANO, 1), (records[-lagging].unix_nano - 1, records[-lagging].sequence - 1), (0, 0)
        )
        with killed_after(stores, consumer):
            for record in records:
                consumer.commit([record], 0)
        heir = Consumer(path, CAMERA)
        ahead = heir.counts().stored - (12 - lagging)
        assert heir.count_lost(journal, 0) == max(ahead, 0)
        heir.close()
        reopened(path)


@every_kill
def test_frames_that_were_stored_after_all_are_expected_of_redis_too(stores):
    with new_ring(1024) as path:
        half_stored(path)
        consumer = Consumer(path, CAMERA)
        lost = consumer.release_oldest(700, Drop.OUTAGE)
        with killed_after(stores, consumer):
            consumer.commit(consumer.poll(2**20, 1), 0)
            consumer.reclassify(lost, Drop.OUTAGE, 0)
        heir = Consumer(path, CAMERA)
        stored = heir.counts().stored
        assert heir.count_lost(NO_JOURNAL, 0) == stored
        heir.close()
        reopened(path)


@every_kill
def test_what_was_cut_short_does_not_spoil_later_counts(stores):
    with new_ring(1024) as path:
        half_stored(path)
        consumer = Consumer(path, CAMERA)
        lost = consumer.release_oldest(2**20, Drop.OUTAGE)
        with killed_after(stores, consumer):
            consumer.reclassify(lost, Drop.OUTAGE, 0)
        fill(path, [100, 100, 100, 100])
        heir = Consumer(path, CAMERA)
        before = heir.counts()
        heir.release(heir.poll(1, 1), Drop.OUTAGE)
        heir.commit(heir.poll(1, 1), 0)
        heir.release(heir.poll(1, 1), Drop.REFUSED)
        heir.reclassify(heir.release_oldest(2**20, Drop.OUTAGE), Drop.OUTAGE, 0)
        after = heir.counts()
        assert_balanced(after)
        assert after.held == 0
        assert after.stored - before.stored == 2
        changed = {label: after.drops[label] - before.drops[label] for label in ("outage", "refused")}
        assert changed == {"outage": 1, "refused": 1}
        heir.close()


@every_kill
def test_a_producer_s_death_is_not_the_consumer_s_concern(stores):
    """The consumer goes on with the ring it has open, and is right about all counts when a producer is back."""
    with new_ring(1024) as path:
        consumer = Consumer(path, CAMERA)
        producer = Producer(path, CAMERA)
        write(producer, payload(300, 1))
        with killed_after(stores, producer):
            write(producer, payload(300, 2))
        frames = drain(consumer)
        successor = Producer(path, CAMERA)
        write(successor, payload(300, 3))
        frames += drain(consumer)
        assert_balanced(consumer.counts())
        assert consumer.counts().held == 0
        whole = [payload(300, number) for number in (1, 2, 3)]
        assert [frame.payload for frame in frames] in (whole, [whole[0], whole[2]])
        successor.close()
        consumer.close()


@every_kill
def test_a_look_at_the_counts_is_right_at_any_moment_of_a_write(stores):
    """A count may be a frame behind, but what is held is never more than what stands in the ring."""
    with new_ring(1024) as path:
        fill(path, [300, 300], committed=1)
        producer = Producer(path, CAMERA)
        with killed_after(stores, producer):
            write(producer, payload(300, 3))
        counts = look(path)
        assert counts.held == counts.held_bytes // 384
