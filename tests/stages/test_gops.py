"""A camera's video from its track over the ring and the writer into Redis: what is stored decodes, whatever happens."""

from __future__ import annotations

import time
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from hypothesis import Phase, settings
from hypothesis import strategies as st
from hypothesis.stateful import (
    RuleBasedStateMachine,
    initialize,
    invariant,
    precondition,
    rule,
    run_state_machine_as_test,
)

from engine.shm import ring_file
from engine.shm.ring import Consumer, Producer
from engine.shm.ring_file import Drop
from engine.stages.capture.video_track import VideoTrack
from engine.stages.writer.camera_writer import CameraWriter
from engine.wire import ring_layout as layout
from engine.wire.access_unit import AccessUnit
from engine.wire.journal import NO_JOURNAL, JournalSpan
from tests.examples import examples
from tests.shm.rings import STORES_MAX, killed_after, write_unit
from tests.stages.test_camera_writer import NANO, config_of

#: A ring of 15 units.
CAPACITY = 16 * 1024
SIZE = 1000

stores = st.integers(0, STORES_MAX)


class Bench:
    """A video ring, its two ends, and the camera's writer."""

    def __init__(self, directory: Path) -> None:
        path = directory / "cam1.ring"
        ring_file.create(path, CAPACITY, "cam1", video=True)
        self.producer, self.consumer = Producer(path, "cam1"), Consumer(path, "cam1")
        self.consumer.number_from(0)
        self.writer = CameraWriter("cam1", config_of(), self.consumer)

    def write(self, kinds: str) -> None:
        """A unit for each letter: ``K`` for a key frame, ``p`` for another."""
        for kind in kinds:
            write_unit(self.producer, kind == "K", SIZE)

    def take(self) -> list[int]:
        """The sequences of the next batch, which is in flight then."""
        part = self.writer.poll(2**30, 100)
        return [record.sequence for record in part.records] if part else []

    def counted(self) -> dict[str, int]:
        """All counts that are not 0."""
        counts = self.producer.counts()
        assert counts.captured == counts.stored + counts.dropped + counts.held
        found = {"stored": counts.stored, "held": counts.held, **counts.drops}
        return {name: count for name, count in found.items() if count}


@pytest.fixture
def bench(tmp_path: Path) -> Iterator[Bench]:
    made = Bench(tmp_path)
    yield made
    made.writer.rewind()
    made.producer.close()
    made.consumer.close()


def test_units_behind_a_refused_one_are_taken_back(bench: Bench) -> None:
    """Somebody has written an entry with an id between those of the batch: the journal takes the later units only."""
    bench.write("KppppKp")
    assert bench.take() == [1, 2, 3, 4, 5, 6, 7]
    bench.writer.stored({0: "stands", 1: "smaller", 2: "smaller"}, time.monotonic_ns())
    assert [record.sequence for record in bench.writer.given_up({1})] == [2, 3, 4, 5]
    assert bench.writer.settle_refused({1}) == "smaller"
    assert bench.counted() == {"stored": 3, "refused": 2, "broken_gop": 2}


def test_the_rest_of_a_gop_is_cut_off_in_later_batches_too(bench: Bench) -> None:
    bench.write("Kp")
    bench.take()
    bench.writer.stored({0: "smaller", 1: "smaller"}, time.monotonic_ns())
    bench.write("ppKp")
    assert bench.writer.settle_refused(set()) == "smaller"
    assert bench.take() == [5, 6]
    assert bench.counted() == {"held": 2, "refused": 2, "broken_gop": 2}


@pytest.mark.parametrize("stands", [False, True])
def test_a_unit_that_redis_may_have_and_that_is_cut_off_afterwards_is_asked_for(bench: Bench, *, stands: bool) -> None:
    bench.write("Kppp")
    assert bench.take() == [1, 2, 3, 4]
    bench.writer.connection_broke()
    bench.consumer.release_oldest(bench.consumer.free_bytes + 1, Drop.OUTAGE)
    bench.writer.reconnected()
    assert [record.sequence for record in bench.writer.doubtful] == [1]
    assert bench.take() == []
    assert [record.sequence for record in bench.writer.doubtful] == [1, 2, 3, 4]
    assert bench.writer.next_entry_number() == 0
    bench.writer.settle_doubtful({1, 2, 3, 4} if stands else set())
    assert bench.counted() == ({"stored": 4} if stands else {"outage": 1, "broken_gop": 3})


def test_units_that_redis_may_have_and_that_are_damaged_meanwhile_are_asked_for(bench: Bench) -> None:
    bench.write("Kpp")
    assert bench.take() == [1, 2, 3]
    bench.writer.connection_broke()
    layout.pack_record(bench.consumer._data, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0)
    bench.consumer.release_oldest(bench.consumer.area, Drop.OUTAGE)
    assert bench.counted() == {"damaged": 3}
    bench.writer.reconnected()
    bench.writer.settle_doubtful({1, 2, 3})
    assert bench.counted() == {"stored": 3}


def test_what_is_remembered_of_an_outage_does_not_grow_with_it(bench: Bench) -> None:
    bench.write("Kp")
    bench.take()
    bench.writer.connection_broke()
    for _ in range(100):
        bench.write("Kppppppp")
        bench.writer.relieve()
    assert bench.producer.counts().drops["broken_gop"] > 100
    assert set(bench.consumer.fates) == {0, 1}
    bench.writer.reconnected()
    bench.writer.settle_doubtful({1, 2})
    assert bench.consumer.fates == {}
    assert bench.counted()["stored"] == 2


def test_an_outage_leaves_whole_gops(bench: Bench) -> None:
    for kind in "Kppp" * 20:
        bench.write(kind)
        bench.writer.relieve()
    assert "ring_full" not in bench.counted()
    taken = bench.take()
    assert len(taken) >= 4
    assert taken == list(range(taken[0], 81))
    assert taken[0] % 4 == 1, "not the first of a GOP"


class Journal:
    """What Redis has of the camera's video: payloads and entries by sequence, and the last entry that it ever took."""

    def __init__(self) -> None:
        self.last = 0
        self.entries: dict[int, int] = {}
        self.payloads: dict[int, bool] = {}
        #: What Redis had and lost.
        self.lost: set[int] = set()
        #: Units that were accepted behind refused ones, until the writer was told and could take them back.
        self.excused: set[int] = set()

    def store(self, records: Any) -> dict[int, str]:
        """One transaction; the places of the entries that it refuses."""
        errors = {}
        cut = False
        for place, record in enumerate(records):
            self.payloads[record.sequence] = bool(record.keyframe)
            if record.sequence <= self.last:
                errors[place] = "ERR The ID specified in XADD is equal or smaller"
                cut = record.sequence not in self.entries
                continue
            self.last = record.sequence
            self.entries[record.sequence] = record.unix_nano
            cut = cut and not record.keyframe
            if cut:
                self.excused.add(record.sequence)
        return errors

    @property
    def listed(self) -> list[int]:
        """The units that a reader finds."""
        return sorted(sequence for sequence in self.entries if sequence in self.payloads)

    @property
    def span(self) -> JournalSpan:
        """As XINFO STREAM tells it."""
        if not self.entries:
            return NO_JOURNAL
        first, last = min(self.entries), max(self.entries)
        return JournalSpan((self.entries[first], first), (self.entries[last], last), (0, 0))

    def lose(self, newest: int) -> None:
        """A replica that is behind by ``newest`` entries takes over."""
        for sequence in sorted(self.entries)[max(len(self.entries) - newest, 0) :]:
            del self.entries[sequence]
            self.payloads.pop(sequence, None)
            self.lost.add(sequence)
        self.last = max(self.entries, default=0)

    def check_decodes(self) -> None:
        listed = [sequence for sequence in self.listed if sequence not in self.excused]
        for before, sequence in zip([0, *listed], listed, strict=False):
            decodes = self.payloads[sequence] or sequence - 1 in (before, *self.lost)
            assert decodes, f"unit {sequence} follows {before} and is no key frame: {listed}"


class Gops(RuleBasedStateMachine):
    """``connected``: Redis takes batches. ``refused``: entries of the last batch were refused, and not settled yet.

    ``exact``: Redis has as many units as are counted as stored; a killed writer knows nothing of the batch in flight.
    """

    directory: Path
    made = 0

    @initialize()
    def make(self) -> None:
        Gops.made += 1
        self.path = self.directory / f"{Gops.made}.ring"
        ring_file.create(self.path, CAPACITY, "cam1", video=True)
        self.page: Any = SimpleNamespace(counts=[0] * 64)
        self.journal = Journal()
        self.connected, self.refused, self.exact = True, False, True
        #: The sequences of the batch that was answered last.
        self.answered: list[int] = []
        #: True while the producer writes to a ring that the writer has not opened yet.
        self.behind = False
        self.open_producer()
        self.open_writer()

    def open_producer(self) -> None:
        self.producer = Producer(self.path, "cam1")
        self.track = VideoTrack(self.producer, self.page, lambda _, __: None)

    def open_writer(self) -> None:
        self.consumer = Consumer(self.path, "cam1")
        if self.consumer.entries_before is None:
            self.consumer.number_from(100)
        self.writer = CameraWriter("cam1", config_of(), self.consumer)
        self.refused = self.behind = False

    # Capture

    def write(self, keyframe: bool, size: int = SIZE, *, sound: bool = True) -> None:
        unit = AccessUnit((bytes(size),), keyframe, "h264", 64, 48, sound)
        self.track.write(unit, max(self.producer.floor_nano + 1, NANO), time.monotonic_ns(), -1)

    @rule(keyframes=st.lists(st.sampled_from((True, False, False, False)), min_size=1, max_size=12))
    def capture(self, keyframes: list[bool]) -> None:
        for keyframe in keyframes:
            self.write(keyframe)

    @rule(keyframe=st.booleans(), size=st.sampled_from((SIZE, CAPACITY)))
    def capture_a_bad_unit(self, keyframe: bool, size: int) -> None:
        """One that lost bytes on its way, or is too large."""
        self.write(keyframe, size, sound=size > SIZE)

    @rule(keyframe=st.booleans(), stores=stores)
    def kill_capture(self, keyframe: bool, stores: int) -> None:
        with killed_after(stores, self.producer):
            self.write(keyframe)
        self.open_producer()

    @precondition(lambda self: not self.behind)
    @rule()
    def replace_ring(self) -> None:
        """Somebody removed the ring; the capture goes on in another."""
        self.path.unlink()
        ring_file.create(self.path, CAPACITY, "cam1", former=self.producer, video=True)
        self.producer.close()
        self.track.producer = self.producer = Producer(self.path, "cam1")
        self.behind = True

    # The writer

    @precondition(lambda self: self.connected and not self.writer.in_flight and not self.refused)
    @rule(units=st.integers(1, 10))
    def send(self, units: int) -> None:
        self.writer.poll(2**30, units)

    @precondition(lambda self: self.connected and self.writer.in_flight)
    @rule(foreign=st.none() | st.integers(-1, 4))
    def answer(self, foreign: int | None) -> None:
        """``foreign``: somebody else has written an entry in the midst of the batch's."""
        assert self.writer.in_flight
        records = self.writer.in_flight.records
        if foreign is not None:
            self.journal.last = max(self.journal.last, records[0].sequence + foreign)
        errors = self.journal.store(records)
        self.writer.stored(errors, time.monotonic_ns())
        self.refused = bool(errors)
        self.answered = [record.sequence for record in records]

    def discard(self) -> set[int]:
        """As the reconciler does: ask, and delete what must not stay. Returns what stands."""
        standing = {record.sequence for record in self.writer.refused_records} & set(self.journal.entries)
        for record in self.writer.given_up(standing):
            self.journal.payloads.pop(record.sequence)
        self.journal.excused.difference_update(self.answered)
        return standing

    @precondition(lambda self: self.refused)
    @rule()
    def settle(self) -> None:
        self.writer.settle_refused(self.discard())
        self.refused = False

    @precondition(lambda self: self.connected)
    @rule(arrived=st.booleans())
    def break_connection(self, arrived: bool) -> None:
        if arrived and self.writer.in_flight:
            self.journal.store(self.writer.in_flight.records)
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
    @rule(newest=st.none() | st.integers(0, 40))
    def connect(self, newest: int | None) -> None:
        """``newest``: how many entries Redis has lost meanwhile."""
        if newest is not None:
            self.journal.lose(newest)
            self.exact = False
        self.connected = True
        self.consumer.count_lost(self.journal.span, time.monotonic_ns())
        self.writer.reconnected()
        self.settle_doubtful()

    @precondition(lambda self: self.connected and self.writer.doubtful)
    @rule()
    def settle_doubtful(self) -> None:
        self.writer.settle_doubtful({record.sequence for record in self.writer.doubtful} & set(self.journal.entries))

    @precondition(lambda self: self.connected and self.writer.doubtful)
    @rule()
    def end_doubt(self) -> None:
        """Redis has answered often enough."""
        self.writer._doubtful_until = 0.0
        self.settle_doubtful()

    @precondition(lambda self: self.behind and not self.writer.in_flight and not self.refused)
    @rule()
    def follow_ring(self) -> None:
        if not (self.consumer.held_bytes or self.writer.in_doubt):
            assert ring_file.hand_over(self.consumer, self.path)
            former, self.consumer = self.consumer, Consumer(self.path, "cam1")
            self.writer.replace(self.consumer)
            former.close()
            self.behind = False

    @rule(arrived=st.booleans(), stores=stores, act=st.sampled_from(("commit", "settle", "relieve", "poll", "nothing")))
    def kill_writer(self, arrived: bool, stores: int, act: str) -> None:
        """At any moment of what it does next."""
        writer = self.writer
        if self.refused or (writer.in_flight and arrived):
            self.exact = False
        with killed_after(stores, self.consumer):
            if writer.in_flight and arrived:
                errors = self.journal.store(writer.in_flight.records)
                if act == "commit":
                    writer.stored(errors, time.monotonic_ns())
            elif self.refused and act == "settle":
                writer.settle_refused(self.discard())
            elif not writer.in_flight and not self.refused and act == "poll":
                writer.poll(2**30, 5)
            elif act == "relieve" and not self.connected:
                writer.relieve()
        # What was in doubt, or stored of a ring whose successor was not told, is known to nobody now. Nor is which
        # units in the ring Redis may have: one that is dropped before it is sent again counts as dropped.
        self.exact = self.exact and not (writer.in_doubt or writer._uncertain or self.behind)
        self.open_writer()
        self.connected = False

    @precondition(lambda self: not self.writer.in_flight and not self.refused and self.consumer.held_bytes)
    @rule(place=st.integers(0, 20))
    def damage(self, place: int) -> None:
        """Somebody writes over a record's header."""
        cursor, area = self.consumer.tail, self.consumer.area
        while True:
            kind, size, *_ = layout.unpack_record(self.consumer._data, cursor % area)
            following = cursor + layout.record_bytes(size)
            if kind == layout.KIND_FRAME and (not place or following >= self.consumer.head):
                break
            place, cursor = place - (kind == layout.KIND_FRAME and place > 0), following
            if cursor >= self.consumer.head:
                return
        layout.pack_record(self.consumer._data, cursor % area, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0)

    # What holds at any moment

    @invariant()
    def what_is_stored_decodes(self) -> None:
        self.journal.check_decodes()

    @invariant()
    def every_unit_is_counted_once(self) -> None:
        if not self.behind:
            counts = self.producer.counts()
            assert counts.captured == counts.stored + counts.dropped + counts.held

    @invariant()
    def what_is_counted_as_stored_is_at_redis(self) -> None:
        if self.connected:
            assert self.consumer.counts().stored <= len(self.journal.entries)
        if self.exact and not (self.consumer.held_bytes or self.writer.in_doubt):
            assert self.consumer.counts().stored == len(self.journal.listed)

    def teardown(self) -> None:
        if not hasattr(self, "writer"):
            return
        if not self.connected:
            self.connect(None)
        if self.refused:
            self.settle()
        self.writer.rewind()
        for _ in range(2):
            while self.writer.poll(2**30, 7):
                self.answer(None)
                if self.refused:
                    self.settle()
            self.end_doubt()
            if self.behind:
                self.follow_ring()
        self.what_is_stored_decodes()
        self.every_unit_is_counted_once()
        self.what_is_counted_as_stored_is_at_redis()
        assert not self.behind
        assert not self.consumer.held_bytes
        assert not self.consumer.fates
        self.producer.close()
        self.consumer.close()


def test_whatever_happens_what_is_stored_decodes_and_every_unit_is_counted(tmp_path: Path) -> None:
    Gops.directory = tmp_path
    # Shrinking takes minutes here; tests/shm/test_ring_video.py has small cases.
    phases = (Phase.explicit, Phase.reuse, Phase.generate)
    run_state_machine_as_test(
        Gops, settings=settings(max_examples=examples(600), stateful_step_count=60, deadline=None, phases=phases)
    )
