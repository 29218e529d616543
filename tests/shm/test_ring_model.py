"""The ring against a plain list of frames, with ends that come, go and are killed at any point."""

from __future__ import annotations

import contextlib
from collections import Counter

import hypothesis.strategies as st
import pytest
from hypothesis import HealthCheck, Phase, settings
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, rule

from engine.errors import FrameTooLarge
from engine.shm.ring import Consumer, Producer
from engine.shm.ring_file import Drop
from engine.wire.journal import NO_JOURNAL, JournalSpan
from engine.wire.keys import next_sequence
from tests.examples import examples
from tests.shm.rings import CAMERA, FIRST_NANO, STORES_MAX, Frame, killed_after, look, new_ring, payload

#: Bytes, or a share of the largest that fits.
sizes = st.integers(1, 100) | st.floats(0.01, 1)
#: Where a frame is cut into parts.
cuts = st.lists(st.integers(0, 5000), max_size=3)
steps = st.integers(1, 10**9)
stores = st.integers(0, STORES_MAX)
reasons = st.sampled_from((Drop.OUTAGE, Drop.REFUSED))


class RingModel(RuleBasedStateMachine):
    """``held`` is what the ring must hand out, ``in_flight`` the records of it that were handed out.

    An end that was closed or killed is opened again when it is needed next; the other goes on meanwhile.
    """

    def __init__(self):
        super().__init__()
        self.stack = contextlib.ExitStack()
        self.producer = self.consumer = None
        self.captured = self.stored = self.stored_bytes = self.frames = self.interrupted = 0
        self.drops = Counter()
        self.held = []
        self.in_flight = []
        #: What Redis must have of it, by id, with sizes; whether a run of it was joined with another is not known here.
        self.expected = {}

    @initialize(capacity=st.sampled_from((64, 192, 1024, 2048, 4096)), last_sequence=st.sampled_from((0, 41, 99_990)))
    def make(self, capacity, last_sequence):
        self.capacity = capacity
        self.path = self.stack.enter_context(new_ring(capacity, last_sequence=last_sequence, floor_nano=FIRST_NANO))
        self.last_sequence, self.last_nano, self.floor = last_sequence, FIRST_NANO, FIRST_NANO

    def open_producer(self):
        if self.producer is None:
            self.producer = Producer(self.path, CAMERA)
            self.drops["interrupted"] += self.interrupted
            self.interrupted = 0
            assert self.producer.last_sequence == self.last_sequence
            assert self.producer.floor_nano >= max(self.last_nano, self.floor)
            self.last_nano = self.producer.floor_nano
        return self.producer

    def open_consumer(self):
        if self.consumer is None:
            self.consumer = Consumer(self.path, CAMERA)
        return self.consumer

    # The producer's side

    def next_frame(self, size, cuts, step):
        """A frame that is to be written, and its parts."""
        self.open_producer()
        self.frames += 1
        size = size if isinstance(size, int) else max(int(self.capacity // 2 * size), 1)
        data = payload(min(size, self.capacity // 2), self.frames)
        edges = sorted(cut % (len(data) + 1) for cut in cuts)
        parts = [data[start:end] for start, end in zip([0, *edges], [*edges, len(data)], strict=True)]
        nano = max(self.last_nano, self.floor) + step
        number = next_sequence(self.last_sequence)
        return Frame(nano, number, data, self.frames, len(data), bool(step % 2), self.frames * 1000), parts

    def put(self, frame, parts):
        return self.producer.write(
            parts, frame.unix_nano, frame.monotonic, frame.width, frame.height, keyframe=frame.keyframe
        )

    def number_taken(self, frame):
        self.captured += 1
        self.last_sequence, self.last_nano = frame.sequence, frame.unix_nano

    @rule(wanted=st.lists(st.tuples(sizes, cuts, steps), min_size=1, max_size=5))
    def write(self, wanted):
        for size, edges, step in wanted:
            frame, parts = self.next_frame(size, edges, step)
            written = self.put(frame, parts)
            self.number_taken(frame)
            if written is None:
                assert self.held, "a frame was dropped and the ring is empty"
                self.drops["ring_full"] += 1
            else:
                assert written == frame.sequence
                self.held.append(frame)

    @rule(size=sizes, spare=st.integers(0, 300), step=steps, use=st.sampled_from(("commit", "forget", "write")))
    def claim(self, size, spare, step, use):
        """Memory is claimed, of which the frame may leave some unused; or the frame is not stored after all."""
        frame, _ = self.next_frame(size, [], step)
        room = self.producer.claim(min(len(frame.payload) + spare, self.capacity // 2))
        if room is None:
            assert self.held, "there is no room and the ring is empty"
            return
        room[: len(frame.payload)] = frame.payload
        if use == "forget":
            self.producer.forget()
        if use != "commit":
            return
        numbers = (frame.unix_nano, frame.monotonic, frame.width, frame.height)
        assert self.producer.commit(len(frame.payload), *numbers) == frame.sequence
        self.number_taken(frame)
        self.held.append(frame._replace(keyframe=True))

    @rule(beyond=st.integers(1, 5000), step=steps)
    def write_too_large(self, beyond, step):
        frame, _ = self.next_frame(1, [], step)
        try:
            self.put(frame, [bytes(self.capacity // 2), bytes(beyond)])
        except FrameTooLarge:
            self.number_taken(frame)
            self.drops["too_large"] += 1
        else:
            raise AssertionError("it was taken")

    @rule(step=steps)
    def discard(self, step):
        frame, _ = self.next_frame(1, [], step)
        assert self.producer.discard(frame.unix_nano, 0, Drop.CORRUPT) == frame.sequence
        self.number_taken(frame)
        self.drops["corrupt"] += 1

    @rule(size=sizes, edges=cuts, stores=stores, claims=st.booleans())
    def kill_in_write(self, size, edges, stores, claims):
        frame, parts = self.next_frame(size, edges, 1)
        before = look(self.path)
        with killed_after(stores, self.producer):
            room = self.producer.claim(len(frame.payload)) if claims else None
            if room is None:
                self.put(frame, parts)
            else:
                room[:] = frame.payload
                self.producer.commit(len(frame.payload), frame.unix_nano, frame.monotonic, frame.width, frame.height)
        self.producer = None
        after = look(self.path)
        if after.captured == before.captured:
            assert after.held_bytes == before.held_bytes
            return
        self.number_taken(frame)
        if after.held_bytes > before.held_bytes:
            self.held.append(frame)
        elif after.drops["ring_full"] > before.drops["ring_full"]:
            self.drops["ring_full"] += 1
        else:
            self.interrupted += 1

    @rule()
    def close_producer(self):
        if self.producer:
            self.producer.close()
            self.producer = None

    # The consumer's side

    @rule(bytes_max=st.integers(1, 5000), records_max=st.integers(1, 5))
    def poll(self, bytes_max, records_max):
        consumer = self.open_consumer()
        standing = self.held[len(self.in_flight) :]
        assert consumer.pending == bool(standing)
        expected = []
        while standing and len(expected) < records_max and sum(len(f.payload) for f in expected) < bytes_max:
            expected.append(standing.pop(0))
        records = consumer.poll(bytes_max, records_max)
        assert [Frame.of(record) for record in records] == expected
        self.in_flight += records

    def handed_out(self, count):
        """The oldest records in flight, which must be what they were when they were handed out."""
        if not self.in_flight:
            self.poll(5000, count + 1)
        records = self.in_flight[:count]
        assert [Frame.of(record) for record in records] == self.held[: len(records)]
        return records

    def gone(self, count, reason=None):
        """The oldest frames were stored, or lost for a reason."""
        if reason is None:
            self.stored += count
            self.stored_bytes += sum(len(frame.payload) for frame in self.held[:count])
            self.expected |= {frame.unix_nano: frame.sequence for frame in self.held[:count]}
        else:
            self.drops[reason.label] += count
        del self.held[:count], self.in_flight[:count]

    @rule(count=st.integers(0, 6))
    def commit(self, count):
        records = self.handed_out(count)
        self.open_consumer().commit(records, 10**9)
        self.gone(len(records))

    @rule(count=st.integers(0, 6), reason=reasons)
    def release(self, count, reason):
        records = self.handed_out(count)
        self.open_consumer().release(records, reason)
        self.gone(len(records), reason)

    @rule(share=st.floats(0, 1.2), reason=reasons)
    def release_oldest(self, share, reason):
        self.make_room(int(self.capacity * share), reason)

    def make_room(self, least, reason):
        consumer = self.open_consumer()
        lost = consumer.release_oldest(least, reason)
        assert [record.sequence for record in lost] == [frame.sequence for frame in self.held[: len(lost)]]
        self.gone(len(lost), reason)
        self.in_flight = []
        assert consumer.free_bytes >= least or not self.held
        if len(lost) > 1:
            assert lost[-2].end + consumer.counts().area - consumer.head < least, "one less would have done"
        return lost

    @rule(share=st.floats(0.3, 1.2), count=st.integers(1, 3), stores=st.none() | stores)
    def reclassify(self, share, count, stores):
        """Some frames of an outage were stored after all; the consumer may be killed while it counts them so."""
        found = self.make_room(int(self.capacity * share), Drop.OUTAGE)[:count]
        if stores is None:
            self.consumer.reclassify(found, Drop.OUTAGE, 10**9)
        else:
            with killed_after(stores, self.consumer):
                self.consumer.reclassify(found, Drop.OUTAGE, 10**9)
            self.consumer = None
            counted = self.open_consumer().counts().stored - self.stored
            assert 0 <= counted <= len(found)
            found = found[:counted]
        self.drops["outage"] -= len(found)
        self.stored += len(found)
        self.stored_bytes += sum(len(record.payload) for record in found)
        self.expected |= {record.unix_nano: record.sequence for record in found}

    @rule(front=st.integers(0, 12), end=st.integers(0, 12), stores=st.none() | stores)
    def lose(self, front, end, stores):
        """Redis has lost some frames from the two ends; the consumer may be killed while it counts them."""
        consumer = self.open_consumer()
        ids = sorted(self.expected.items())
        left = ids[front : max(len(ids) - end, front)]
        span = JournalSpan(left[0], left[-1], (0, 0)) if left else NO_JOURNAL
        before = look(self.path)
        if stores is not None:
            with killed_after(stores, consumer):
                consumer.count_lost(span, 10**9)
            self.consumer, self.in_flight = None, []
            consumer = self.open_consumer()
        consumer.count_lost(span, 10**9)
        assert consumer.count_lost(span, 10**9) == 0
        gone = len(ids) - len(left)
        counts = look(self.path)
        assert counts.drops["lost"] - before.drops["lost"] == gone
        assert counts.stored_total == before.stored_total
        self.expected = dict(left)
        self.stored -= gone
        self.drops["lost"] += gone
        # Of a run that lost a part, bytes are in proportion.
        assert 0 <= counts.stored_bytes <= self.stored_bytes
        self.stored_bytes = counts.stored_bytes

    @rule()
    def rewind(self):
        self.open_consumer().rewind()
        self.in_flight = []

    @rule(ahead=st.integers(-5, 5))
    def raise_floor(self, ahead):
        self.open_consumer().raise_floor(self.last_nano + ahead)
        self.floor = max(self.floor, self.last_nano + ahead)
        assert self.open_producer().floor_nano == max(self.last_nano, self.floor)

    @rule(count=st.integers(1, 6), reason=st.none() | reasons, stores=stores)
    def kill_in_commit(self, count, reason, stores):
        self.open_consumer()
        records = self.handed_out(count)
        tail, before = self.consumer.tail, look(self.path)
        with killed_after(stores, self.consumer):
            if reason is None:
                self.consumer.commit(records, 10**9)
            else:
                self.consumer.release(records, reason)
        # Frames with a gap in their numbers are committed part by part.
        reached = tail + before.held_bytes - look(self.path).held_bytes
        self.gone(sum(record.end <= reached for record in records), reason)
        self.consumer, self.in_flight = None, []

    @rule()
    def close_consumer(self):
        if self.consumer:
            self.consumer.close()
        self.consumer, self.in_flight = None, []

    @invariant()
    def counts_are_those_of_the_model(self):
        if not (self.producer and self.consumer):
            return
        for counts in (self.producer.counts(), self.consumer.counts(), look(self.path)):
            assert counts.captured == self.captured
            assert counts.stored == self.stored
            assert {label: count for label, count in counts.drops.items() if count} == +self.drops
            assert counts.held == len(self.held)
            assert counts.captured == counts.stored + counts.dropped + counts.held
            assert counts.stored_bytes == self.stored_bytes

    def teardown(self):
        """Whatever happened: those who take over find all that is held, and nothing else."""
        with self.stack:
            if hasattr(self, "path"):
                try:
                    self.hand_over()
                finally:
                    self.close_producer()
                    self.close_consumer()

    def hand_over(self):
        self.close_producer()
        self.close_consumer()
        self.open_producer()
        self.poll(2**30, 2**20)
        self.commit(2**20)
        self.counts_are_those_of_the_model()
        assert not self.held
        assert look(self.path).held_bytes == 0


TestRingModel = pytest.mark.slow(RingModel.TestCase)
TestRingModel.settings = settings(
    max_examples=examples(300),
    stateful_step_count=60,
    deadline=None,
    suppress_health_check=[HealthCheck.too_slow],
    # Shrinking takes minutes here; test_ring_kills has small cases of its own.
    phases=(Phase.explicit, Phase.reuse, Phase.generate),
)
