"""What a camera's writer knows of each frame, over a real ring and without Redis."""

from __future__ import annotations

import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule, run_state_machine_as_test

from engine.config import Config, from_document
from engine.shm import ring_file
from engine.shm.ring import Consumer, Producer
from engine.stages.writer import camera_writer
from engine.stages.writer.camera_writer import CameraWriter

NANO = 1_731_024_000_000_000_000
CAPACITY = 64 * 1024


def config_of() -> Config:
    return from_document(
        {"amqp": {"amqp_url": "amqp://127.0.0.1:1/"}, "cameras": [{"id": "cam1", "url": "test://"}]}, {}
    )


class Bench:
    """A ring, its producer, and the camera's writer."""

    def __init__(self, directory: Path) -> None:
        path = directory / "cam1.ring"
        ring_file.create(path, CAPACITY, "cam1")
        self.producer = Producer(path, "cam1")
        self.consumer = Consumer(path, "cam1")
        self.consumer.number_from(100)
        self.writer = CameraWriter("cam1", config_of(), self.consumer)

    def write(self, count: int, size: int = 1000) -> None:
        for _ in range(count):
            self.producer.write((bytes(size),), max(self.producer.floor_nano + 1, NANO), time.monotonic_ns(), 64, 48)

    def sequences(self) -> list[int]:
        """Those of the next batch."""
        part = self.writer.poll(2**30, 100)
        return [record.sequence for record in part.records] if part else []

    def entry_number(self) -> int:
        """That of the batch in flight."""
        assert self.writer.in_flight
        return self.writer.in_flight.entry_number

    def close(self) -> None:
        self.writer.rewind()
        self.producer.close()
        self.consumer.close()

    def check(self) -> None:
        counts = self.producer.counts()
        assert counts.captured == counts.stored + counts.dropped + counts.held


@pytest.fixture
def bench(tmp_path: Path) -> Iterator[Bench]:
    made = Bench(tmp_path)
    yield made
    made.check()
    made.close()


def test_frames_are_in_flight_until_they_are_stored(bench: Bench) -> None:
    bench.write(3)
    part = bench.writer.poll(2**30, 2)
    assert part is bench.writer.in_flight
    assert part
    assert (len(part.records), part.entry_number) == (2, 101)
    assert bench.writer.stored({}, time.monotonic_ns()) == 2
    assert bench.writer.in_flight is None
    assert bench.producer.counts().stored == 2
    part = bench.writer.poll(2**30, 2)
    assert part
    assert part.entry_number == 103


def test_nothing_to_take_is_no_part(bench: Bench) -> None:
    assert bench.writer.poll(2**30, 100) is None
    assert bench.writer.in_flight is None


def test_what_redis_did_not_take_is_handed_out_again_without_a_doubt(bench: Bench) -> None:
    bench.write(3)
    assert bench.sequences() == [1, 2, 3]
    bench.writer.rewind()
    assert not bench.writer.in_doubt
    assert bench.sequences() == [1, 2, 3]
    assert bench.entry_number() == 101


def test_after_a_broken_connection_frames_are_sent_again_without_a_number_until_it_is_known(bench: Bench) -> None:
    bench.write(2)
    assert bench.sequences() == [1, 2]
    bench.writer.connection_broke()
    assert bench.writer.in_doubt
    assert bench.writer.next_entry_number() == 0
    assert bench.writer.mark() is None
    bench.writer.reconnected()
    assert not bench.writer.in_doubt, "both are in the ring yet, and sent again"
    assert bench.sequences() == [1, 2]


def test_a_frame_given_up_that_turns_out_stored_counts_as_stored(bench: Bench) -> None:
    bench.write(2)
    assert bench.sequences() == [1, 2]
    bench.writer.connection_broke()
    bench.write(100)
    bench.writer.relieve()
    counts = bench.producer.counts()
    assert counts.drops["outage"] >= 2
    bench.writer.reconnected()
    assert [record.sequence for record in bench.writer.doubtful] == [1, 2]
    bench.writer.settle_doubtful({2})
    assert bench.producer.counts().stored == 1
    assert bench.producer.counts().drops["outage"] == counts.drops["outage"] - 1
    assert [record.sequence for record in bench.writer.doubtful] == [1], "asked for again"
    assert bench.writer.in_doubt


def test_a_frame_that_waits_to_be_sent_again_stays_in_doubt_over_a_second_outage(bench: Bench) -> None:
    bench.write(1)
    bench.sequences()
    bench.writer.connection_broke()
    bench.writer.reconnected()
    bench.writer.connection_broke()
    bench.write(100)
    bench.writer.relieve()
    bench.writer.reconnected()
    assert [record.sequence for record in bench.writer.doubtful] == [1]
    bench.writer.settle_doubtful({1})
    assert bench.producer.counts().stored == 1


@pytest.mark.parametrize("lose", [CameraWriter.connection_broke, CameraWriter.rewind])
def test_frames_beside_a_refused_entry_are_in_doubt_where_redis_could_not_be_asked(bench: Bench, lose: Any) -> None:
    bench.write(2)
    bench.sequences()
    bench.writer.stored({0: "no"}, time.monotonic_ns())
    lose(bench.writer)
    assert bench.writer.in_doubt
    bench.write(100)
    bench.writer.relieve()
    bench.writer.reconnected()
    bench.writer.settle_doubtful({2})
    assert bench.producer.counts().stored == 1


def test_a_doubt_ends(bench: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(camera_writer, "_DOUBT_SECONDS", -1.0)
    bench.write(2)
    bench.sequences()
    bench.writer.connection_broke()
    bench.consumer.release_oldest(bench.consumer.area, ring_file.Drop.OUTAGE)
    bench.writer.reconnected()
    bench.writer.settle_doubtful(set())
    assert not bench.writer.in_doubt
    assert bench.producer.counts().drops["outage"] == 2


def test_a_refused_entry_that_stands_is_stored_and_one_that_does_not_is_refused(bench: Bench) -> None:
    bench.write(4)
    bench.sequences()
    bench.writer.stored({1: "first", 2: "second"}, time.monotonic_ns())
    assert bench.producer.counts().held == 4, "until Redis was asked"
    assert [record.sequence for record in bench.writer.refused_records] == [2, 3]
    assert bench.writer.settle_refused({2}) == "second"
    counts = bench.producer.counts()
    assert (counts.stored, counts.drops["refused"], counts.held) == (3, 1, 0)
    assert bench.writer.refused_records == []


def test_entries_have_no_number_until_the_journal_takes_a_whole_batch_again(bench: Bench) -> None:
    bench.write(1)
    bench.sequences()
    bench.writer.stored({0: "no"}, time.monotonic_ns())
    bench.writer.settle_refused(set())
    bench.write(1)
    bench.sequences()
    assert bench.entry_number() == 0
    bench.writer.stored({}, time.monotonic_ns())
    assert bench.writer.next_entry_number() == 102


def test_refused_entries_are_forgotten_where_the_connection_is_lost_before_redis_was_asked(bench: Bench) -> None:
    bench.write(2)
    bench.sequences()
    bench.writer.stored({0: "no"}, time.monotonic_ns())
    bench.writer.connection_broke()
    assert bench.writer.refused_records == []
    assert bench.sequences() == [1, 2]


def test_a_ring_with_room_gives_nothing_up(bench: Bench) -> None:
    bench.write(5)
    bench.writer.relieve()
    assert bench.producer.counts().held == 5


def test_relief_keeps_room_for_the_next_frames(bench: Bench) -> None:
    bench.write(100)
    assert bench.producer.counts().drops["ring_full"] > 0
    bench.writer.relieve()
    assert bench.producer.free_bytes >= CAPACITY // 8
    assert 0 < bench.producer.counts().drops["outage"] < bench.producer.counts().held


def test_frames_that_the_journal_will_never_take_are_all_counted_as_refused(bench: Bench) -> None:
    bench.write(5)
    bench.writer.refuse_all()
    assert (bench.producer.counts().drops["refused"], bench.producer.counts().held) == (5, 0)


class AnyOrder(RuleBasedStateMachine):
    """Whatever happens, in any order: each frame is in one count, and once only."""

    directory: Path
    made = 0

    def __init__(self) -> None:
        super().__init__()
        AnyOrder.made += 1
        place = self.directory / str(AnyOrder.made)
        place.mkdir()
        self.bench = Bench(place)
        #: What a server would have.
        self.at_redis: set[int] = set()
        self.connected = True
        self.refused = False

    @property
    def writer(self) -> CameraWriter:
        return self.bench.writer

    @rule(count=st.integers(1, 20))
    def capture(self, count: int) -> None:
        self.bench.write(count, 3000)

    @precondition(lambda self: self.connected and not self.writer.in_flight and not self.refused)
    @rule(frames=st.integers(1, 10))
    def send(self, frames: int) -> None:
        self.writer.poll(2**30, frames)

    @precondition(lambda self: self.connected and self.writer.in_flight)
    @rule(data=st.data())
    def answer(self, data: st.DataObject) -> None:
        part = self.writer.in_flight
        assert part
        new = {place for place, record in enumerate(part.records) if record.sequence not in self.at_redis}
        never = data.draw(st.sets(st.sampled_from(sorted(new)))) if new else set()
        errors = {place: "stands or never" for place in range(len(part.records)) if place not in new or place in never}
        self.at_redis |= {part.records[place].sequence for place in new - never}
        self.writer.stored(errors, time.monotonic_ns())
        self.refused = bool(errors)

    @precondition(lambda self: self.refused)
    @rule()
    def settle(self) -> None:
        self.writer.settle_refused({r.sequence for r in self.writer.refused_records} & self.at_redis)
        self.refused = False

    @precondition(lambda self: self.connected)
    @rule(arrived=st.booleans())
    def break_connection(self, arrived: bool) -> None:
        if arrived and self.writer.in_flight:
            self.at_redis |= {record.sequence for record in self.writer.in_flight.records}
        self.writer.connection_broke()
        self.connected = self.refused = False

    @precondition(lambda self: self.connected)
    @rule()
    def refuse(self) -> None:
        """Redis takes nothing for a while."""
        self.writer.rewind()
        self.connected = self.refused = False

    @precondition(lambda self: not self.connected)
    @rule()
    def relieve(self) -> None:
        self.writer.relieve()

    @precondition(lambda self: not self.connected)
    @rule()
    def connect(self) -> None:
        self.connected = True
        self.writer.reconnected()
        self.writer.settle_doubtful({record.sequence for record in self.writer.doubtful} & self.at_redis)

    @invariant()
    def every_frame_is_counted_once(self) -> None:
        self.bench.check()

    @invariant()
    def a_ring_that_may_go_has_nothing_in_doubt(self) -> None:
        if not (self.bench.consumer.held_bytes or self.writer.in_doubt):
            assert self.bench.producer.counts().stored == len(self.at_redis)

    @invariant()
    def what_is_stored_is_at_redis(self) -> None:
        assert self.bench.producer.counts().stored <= len(self.at_redis)

    def teardown(self) -> None:
        if not self.connected:
            self.connect()
        self.writer.rewind()
        while self.bench.sequences():
            part = self.writer.in_flight
            assert part
            standing = {record.sequence for record in part.records} & self.at_redis
            errors = {place: "stands" for place, record in enumerate(part.records) if record.sequence in standing}
            self.at_redis |= {record.sequence for record in part.records}
            self.writer.stored(errors, time.monotonic_ns())
            self.writer.settle_refused(standing)
        assert self.bench.producer.counts().stored == len(self.at_redis)
        self.bench.close()


def test_any_order(tmp_path: Path) -> None:
    AnyOrder.directory = tmp_path
    run_state_machine_as_test(AnyOrder, settings=settings(max_examples=40, stateful_step_count=30, deadline=None))


def test_only_blocked_frames_are_given_up_for_a_node_that_is_away(bench: Bench) -> None:
    bench.write(57)
    assert bench.consumer.free_bytes < bench.writer._reserve()
    assert not bench.writer.relieve_of(lambda record: record.sequence == 2)
    assert bench.writer.relieve_of(lambda record: record.sequence == 1)
    assert bench.producer.counts().drops["outage"] == 1
    assert bench.sequences()[0] == 2


def test_frames_behind_a_shortened_part_are_polled_again(bench: Bench) -> None:
    bench.write(5)
    assert bench.sequences() == [1, 2, 3, 4, 5]
    bench.writer.shorten(2)
    assert bench.writer.stored({}, time.monotonic_ns()) == 2
    assert bench.sequences() == [3, 4, 5]
    assert bench.entry_number() == 103
    bench.writer.shorten(0)
    assert bench.writer.in_flight is None
    assert bench.sequences() == [3, 4, 5]
