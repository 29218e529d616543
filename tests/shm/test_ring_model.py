"""The ring against a plain list of frames, with ends that come, go and are killed at any point."""

from __future__ import annotations

import contextlib
from collections import Counter

import hypothesis.strategies as st
from hypothesis import settings
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule

from engine.errors import FrameTooLarge
from engine.shm.ring import Consumer, Producer
from engine.shm.ring_file import Drop
from engine.wire.keys import next_sequence
from tests.shm.rings import CAMERA, FIRST_NANO, STORES_MAX, Frame, killed_after, look, new_ring, payload

sizes = st.integers(1, 100) | st.floats(0.01, 1).map(lambda share: share)
stores = st.integers(0, STORES_MAX)
reasons = st.sampled_from((Drop.OUTAGE, Drop.REFUSED))
with_producer = precondition(lambda self: self.producer is not None)
with_consumer = precondition(lambda self: self.consumer is not None)


class RingModel(RuleBasedStateMachine):
    """``held`` is what a ring must hand out, ``in_flight`` the records of it that were handed out."""

    def __init__(self):
        super().__init__()
        self.stack = contextlib.ExitStack()
        self.captured = self.stored = self.stored_bytes = self.frames = 0
        self.drops = Counter()
        self.held = []
        self.in_flight = []
        self.lost = []
        self.interrupted = 0

    @initialize(
        capacity=st.sampled_from((64, 192, 1024, 2048, 4096)), last_sequence=st.sampled_from((0, 41, 99_990))
    )
    def make(self, capacity, last_sequence):
        self.capacity = capacity
        self.path = self.stack.enter_context(
            new_ring(capacity, last_sequence=last_sequence, floor_nano=FIRST_NANO)
        )
        self.last_sequence, self.last_nano, self.floor = last_sequence, FIRST_NANO, FIRST_NANO
        self.producer = Producer(self.path, CAMERA)
        self.consumer = Consumer(self.path, CAMERA)

    # The producer's side

    def next_frame(self, size, cuts, step, keyframe):
        """A frame that is to be written, and its parts."""
        self.frames += 1
        size = size if isinstance(size, int) else max(int(self.capacity // 2 * size), 1)
        data = payload(min(size, self.capacity // 2), self.frames)
        edges = sorted(cut % (len(data) + 1) for cut in cuts)
        parts = [data[start:end] for start, end in zip([0, *edges], [*edges, len(data)], strict=True)]
        nano = max(self.last_nano, self.floor) + step
        frame = Frame(
            nano, next_sequence(self.last_sequence), data, self.frames, len(data), keyframe, self.frames * 1000
        )
        return frame, parts

    def put(self, frame, parts):
        return self.producer.write(
            parts, frame.unix_nano, frame.monotonic, frame.width, frame.height, keyframe=frame.keyframe
        )

    def number_taken(self, frame):
        self.captured += 1
        self.last_sequence, self.last_nano = frame.sequence, frame.unix_nano

    @with_producer
    @rule(size=sizes, cuts=st.lists(st.integers(0, 5000), max_size=3), step=st.integers(1, 10**9), keyframe=st.booleans())
    def write(self, size, cuts, step, keyframe):
        frame, parts = self.next_frame(size, cuts, step, keyframe)
        written = self.put(frame, parts)
        self.number_taken(frame)
        if written is None:
            assert self.held, "a frame was dropped and the ring is empty"
            self.drops["ring_full"] += 1
        else:
            assert written == frame.sequence
            self.held.append(frame)

    @with_producer
    @rule(beyond=st.integers(1, 5000), step=st.integers(1, 9))
    def write_too_large(self, beyond, step):
        frame, _ = self.next_frame(1, [], step, True)
        try:
            self.put(frame, [bytes(self.capacity // 2), bytes(beyond)])
        except FrameTooLarge:
            self.number_taken(frame)
            self.drops["too_large"] += 1
        else:
            raise AssertionError("it was taken")

    @with_producer
    @rule(step=st.integers(1, 9))
    def discard(self, step):
        frame, _ = self.next_frame(1, [], step, True)
        assert self.producer.discard(frame.unix_nano, 0, Drop.CORRUPT) == frame.sequence
        self.number_taken(frame)
        self.drops["corrupt"] += 1

    @with_producer
    @rule(size=sizes, stores=stores)
    def kill_in_write(self, size, stores):
        frame, parts = self.next_frame(size, [7], 1, True)
        before = look(self.path)
        with killed_after(stores, self.producer):
            self.put(frame, parts)
        self.producer = None
        after = look(self.path)
        if after.held_bytes > before.held_bytes:
            self.held.append(frame)
            self.number_taken(frame)
        elif after.drops["ring_full"] > before.drops["ring_full"]:
            self.drops["ring_full"] += 1
            self.number_taken(frame)
        elif after.captured > before.captured:
            self.number_taken(frame)
            self.interrupted += 1

    @with_producer
    @rule()
    def close_producer(self):
        self.producer.close()
        self.producer = None

    @precondition(lambda self: self.producer is None)
    @rule()
    def open_producer(self):
        self.producer = Producer(self.path, CAMERA)
        self.drops["interrupted"] += self.interrupted
        self.interrupted = 0
        # A number may have been taken by a frame that was never counted; what is taken is never given again.
        assert self.producer.last_sequence in (self.last_sequence, next_sequence(self.last_sequence))
        self.last_sequence = self.producer.last_sequence
        assert self.producer.floor_nano >= max(self.last_nano, self.floor)
        self.last_nano = max(self.last_nano, self.producer.floor_nano)

    # The consumer's side

    @with_consumer
    @rule(bytes_max=st.integers(1, 5000), records_max=st.integers(1, 5))
    def poll(self, bytes_max, records_max):
        standing = self.held[len(self.in_flight) :]
        expected = []
        while standing and len(expected) < records_max and sum(len(f.payload) for f in expected) < bytes_max:
            expected.append(standing.pop(0))
        assert self.consumer.pending == bool(self.held[len(self.in_flight) :])
        records = self.consumer.poll(bytes_max, records_max)
        assert [Frame.of(record) for record in records] == expected
        self.in_flight += records

    def take(self, count):
        """The oldest records in flight, which must be what they were when they were handed out."""
        count = min(count, len(self.in_flight))
        assert [Frame.of(record) for record in self.in_flight[:count]] == self.held[:count]
        return self.in_flight[:count]

    def gone(self, count, reason=None):
        """The oldest frames were stored, or lost for a reason."""
        if reason is None:
            self.stored += count
            self.stored_bytes += sum(len(frame.payload) for frame in self.held[:count])
        else:
            self.drops[reason.label] += count
        del self.held[:count], self.in_flight[:count]

    @with_consumer
    @rule(count=st.integers(0, 6))
    def commit(self, count):
        records = self.take(count)
        self.consumer.commit(records, 10**9)
        self.gone(len(records))

    @with_consumer
    @rule(count=st.integers(0, 6), reason=reasons)
    def release(self, count, reason):
        records = self.take(count)
        self.consumer.release(records, reason)
        self.gone(len(records), reason)

    @with_consumer
    @rule(share=st.floats(0, 1.2), reason=reasons)
    def release_oldest(self, share, reason):
        least = int(self.capacity * share)
        self.lost = self.consumer.release_oldest(least, reason)
        assert [record.sequence for record in self.lost] == [frame.sequence for frame in self.held[: len(self.lost)]]
        self.gone(len(self.lost), reason)
        self.in_flight = []
        self.lost = self.lost if reason == Drop.OUTAGE else []
        assert self.consumer.free_bytes >= least or not self.held
        if len(self.lost) > 1:
            assert self.lost[-2].end + self.consumer.counts().area - self.consumer.head < least, "one would have done"

    @with_consumer
    @precondition(lambda self: self.lost)
    @rule(count=st.integers(1, 3))
    def reclassify(self, count):
        found, self.lost = self.lost[:count], self.lost[count:]
        self.consumer.reclassify(found, Drop.OUTAGE)
        self.drops["outage"] -= len(found)
        self.stored += len(found)
        self.stored_bytes += sum(len(record.payload) for record in found)

    @with_consumer
    @rule()
    def rewind(self):
        self.consumer.rewind()
        self.in_flight = []

    @with_consumer
    @rule(ahead=st.integers(-5, 5))
    def raise_floor(self, ahead):
        self.consumer.raise_floor(self.last_nano + ahead)
        self.floor = max(self.floor, self.last_nano + ahead)
        if self.producer:
            assert self.producer.floor_nano == max(self.last_nano, self.floor)

    @with_consumer
    @precondition(lambda self: self.in_flight)
    @rule(count=st.integers(1, 6), reason=st.none() | reasons, stores=stores)
    def kill_in_commit(self, count, reason, stores):
        records = self.take(count)
        before = look(self.path)
        with killed_after(stores, self.consumer):
            if reason is None:
                self.consumer.commit(records, 10**9)
            else:
                self.consumer.release(records, reason)
        if look(self.path).held_bytes < before.held_bytes:
            self.gone(len(records), reason)
        self.consumer_gone()

    @with_consumer
    @rule()
    def close_consumer(self):
        self.consumer.close()
        self.consumer_gone()

    def consumer_gone(self):
        self.consumer, self.in_flight, self.lost = None, [], []

    @precondition(lambda self: self.consumer is None)
    @rule()
    def open_consumer(self):
        self.consumer = Consumer(self.path, CAMERA)

    @invariant()
    def counts_are_those_of_the_model(self):
        if not (getattr(self, "producer", None) and self.consumer):
            return
        for counts in (self.producer.counts(), self.consumer.counts(), look(self.path)):
            assert counts.captured == self.captured
            assert counts.stored == self.stored
            assert {label: count for label, count in counts.drops.items() if count} == +self.drops
            assert counts.held == len(self.held)
            assert counts.captured == counts.stored + counts.dropped + counts.held
            assert counts.stored_bytes == self.stored_bytes

    def teardown(self):
        if hasattr(self, "path"):
            for end in (self.producer, self.consumer):
                if end:
                    end.close()
            self.consumer, self.producer = Consumer(self.path, CAMERA), Producer(self.path, CAMERA)
            self.in_flight = []
            self.drops["interrupted"] += self.interrupted
            self.counts_are_those_of_the_model()
            self.poll(2**30, 2**20)
            self.commit(2**20)
            self.counts_are_those_of_the_model()
            assert look(self.path).held_bytes == 0
            self.producer.close()
            self.consumer.close()
        self.stack.close()


TestRingModel = RingModel.TestCase
TestRingModel.settings = settings(max_examples=120, stateful_step_count=50, deadline=None)
