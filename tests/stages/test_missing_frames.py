"""Frames that a node of a cluster has lost are counted once, against a model of the journal and of the frames."""

from __future__ import annotations

import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import hiredis
import pytest
import structlog

from engine.config import from_document
from engine.errors import RedisUnavailable
from engine.shm import ring_file
from engine.shm.ring import Consumer, Producer
from engine.stages.writer.camera_writer import CameraWriter
from engine.stages.writer.missing_frames import MissingFrames
from engine.wire.cluster import SLOTS
from engine.wire.redis_address import parse_cluster

NANO = 1_731_024_000_000_000_000
ALL_SLOTS = set(range(SLOTS))


class Model:
    """One camera's journal and frames, and the writer that has stored them."""

    def __init__(self, directory: Path) -> None:
        self.address = parse_cluster(["10.0.0.1:7000"])
        path = directory / "cam1.ring"
        ring_file.create(path, 2**20, "cam1")
        self.producer = Producer(path, "cam1")
        self.consumer = Consumer(path, "cam1")
        self.consumer.number_from(0)
        config = from_document({"cameras": [{"id": "cam1", "url": "test://"}]}, {})
        self.writer = CameraWriter("cam1", config, self.consumer)
        self.journal: list[bytes] = []
        self.frames: set[bytes] = set()
        #: The next answer to a command of this name.
        self.trouble: dict[bytes, Exception] = {}
        self.warnings: list[str] = []
        self.missing = MissingFrames(self, structlog.get_logger(), lambda *words: self.warnings.append(words[1]))

    def store(self, count: int) -> list[bytes]:
        """Frames that are stored and listed; their ids."""
        for _ in range(count):
            nano = max(self.producer.floor_nano + 1, NANO)
            self.producer.write((b"x" * 100,), nano, time.monotonic_ns(), 64, 48)
        part = self.writer.poll(2**30, count)
        assert part
        assert len(part.records) == count
        ids = [b"%d-%d" % (record.unix_nano, record.sequence) for record in part.records]
        self.writer.stored({}, time.monotonic_ns())
        self.journal += ids
        self.frames |= set(ids)
        return ids

    def slot(self, identifier: bytes) -> int:
        nano, _, sequence = identifier.partition(b"-")
        return self.writer.slots.of(int(nano), int(sequence))

    def look(self) -> None:
        """Until there is nothing left to look at."""
        deadline = time.monotonic() + 10
        while self.missing._walks:
            assert time.monotonic() < deadline
            self.missing.step(lambda _: True)

    @property
    def lost(self) -> int:
        return self.producer.counts().drops["lost"]

    def call(self, commands: Sequence[bytes]) -> list[Any]:
        reader = hiredis.Reader()
        reader.feed(b"".join(commands))
        replies = []
        while (words := reader.gets()) is not False:
            trouble = self.trouble.get(words[0])
            if isinstance(trouble, RedisUnavailable):
                raise self.trouble.pop(words[0])
            replies.append(trouble or self._do(*words))
        return replies

    def _do(self, name: bytes, key: bytes, *words: bytes) -> Any:
        if name == b"EXISTS":
            nano, sequence = key.rsplit(b":", 2)[1:]
            return int(b"%s-%d" % (nano, int(sequence)) in self.frames)
        if name == b"XDEL":
            standing = words[0] in self.journal
            self.journal = [entry for entry in self.journal if entry != words[0]]
            return int(standing)
        assert name == b"XREVRANGE"
        before = self.journal if words[0] == b"+" else [entry for entry in self.journal if entry < words[0][1:]]
        fields = [b"s", b"100", b"w", b"64", b"h", b"48", b"e", b"jpeg", b"k", b"1", b"n", b"1"]
        return [[entry, fields] for entry in reversed(before)][: int(words[-1])]


@pytest.fixture
def model(tmp_path: Path) -> Iterator[Model]:
    made = Model(tmp_path)
    yield made
    made.producer.close()
    made.consumer.close()


def test_frames_that_are_gone_count_as_lost_and_are_listed_no_more(model: Model) -> None:
    ids = model.store(600)
    model.frames -= set(ids[-300:])
    model.missing.suspect(ALL_SLOTS, [model.writer])
    model.look()
    assert model.lost == 300
    assert model.journal == ids[:300]


def test_an_entry_that_could_not_be_removed_is_not_counted_again(model: Model) -> None:
    """The journal's node goes away between the count and the removal."""
    ids = model.store(100)
    model.frames -= set(ids[-30:])
    model.trouble[b"XDEL"] = RedisUnavailable("away")
    model.missing.suspect(ALL_SLOTS, [model.writer])
    model.look()
    assert model.lost == 30
    assert model.journal == ids[:-30]


def test_entries_that_may_not_be_removed_are_counted_once(model: Model) -> None:
    ids = model.store(100)
    model.frames -= set(ids[-30:])
    model.trouble[b"XDEL"] = hiredis.ReplyError("NOPERM this user has no permissions to run the 'xdel' command")
    for _ in range(3):
        model.missing.suspect(ALL_SLOTS, [model.writer])
        model.look()
    assert model.lost == 30
    assert set(model.warnings) == {"entries of lost frames stay in the journal"}


def test_frames_stored_after_the_failure_do_not_hide_those_before_it(model: Model) -> None:
    """A ring that was full is stored before its camera's turn comes."""
    ids = model.store(400)
    model.frames -= set(ids[-40:])
    model.missing.suspect(ALL_SLOTS, [model.writer])
    model.store(600)
    model.look()
    assert model.lost == 40


def test_a_second_failure_does_not_end_the_look_for_the_first(model: Model) -> None:
    ids = model.store(400)
    model.frames -= set(ids[-40:])
    model.missing.suspect(ALL_SLOTS, [model.writer])
    model.store(600)
    model.missing.suspect({0}, [model.writer])
    model.look()
    assert model.lost == 40


def test_a_node_of_few_slots_is_looked_for_beyond_the_newest_entries(model: Model) -> None:
    ids = model.store(1000)
    slots = {model.slot(identifier) for identifier in ids[100:110]} - {model.slot(entry) for entry in ids[-500:]}
    assert slots
    gone = {identifier for identifier in ids if model.slot(identifier) in slots}
    model.frames -= gone
    model.missing.suspect(slots, [model.writer])
    model.look()
    assert model.lost == len(gone)


def test_a_journal_that_may_not_be_read_is_reported(model: Model) -> None:
    model.store(10)
    model.trouble[b"XREVRANGE"] = hiredis.ReplyError("NOPERM this user has no permissions")
    model.missing.suspect(ALL_SLOTS, [model.writer])
    model.look()
    assert model.warnings == ["frames that a node of the cluster loses are not counted"]


def test_cameras_that_cannot_be_asked_do_not_delay_the_others(model: Model) -> None:
    ids = model.store(10)
    model.frames -= set(ids[-3:])
    model.missing.suspect(ALL_SLOTS, [object_writer(model) for _ in range(50)] + [model.writer])
    model.missing.step(lambda writer: writer is model.writer)
    assert model.lost == 3


def object_writer(model: Model) -> CameraWriter:
    """Another camera's writer."""
    config = from_document({"cameras": [{"id": "cam1", "url": "test://"}]}, {})
    return CameraWriter("cam1", config, model.consumer)
