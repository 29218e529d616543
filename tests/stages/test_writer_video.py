"""The writer's agent with both streams of its cameras, frames and video, between real rings and a real Redis."""

from __future__ import annotations

import time
from collections.abc import Iterator
from pathlib import Path

import pytest
import redis
from structlog.testing import capture_logs

from engine.config import Config, from_document
from engine.servers.redis.session import Session
from engine.shm import ring_place
from engine.shm.ring import Producer
from engine.shm.ring_file import RingCounts
from engine.shm.status_page import CaptureCount
from engine.stages.capture.last_frame import last_frame_id
from engine.stages.writer import reconcile
from engine.wire.journal import JournalEntry, parse_entry
from engine.wire.keys import FrameKey, build_video_key, video_journal_key, video_written_key, written_key
from engine.wire.marks import Mark, parse_mark
from tests.servers.redis_server import RedisServer
from tests.stages.test_writer import NANO, Bench

JOURNAL = video_journal_key("default", "frames", "cam1")


class VideoBench(Bench):
    """A writer, and a camera with a ring of frames and one of video."""

    def capture(self, camera: str) -> None:
        super().capture(camera)
        ring_place.ensure(self._config, camera, video=True)
        self.video: Producer = ring_place.open_producer(self._config, camera, self.pages[camera], video=True)

    def write_units(self, kinds: str) -> None:
        """A unit for each letter: ``K`` for a key frame, ``p`` for another."""
        for kind in kinds:
            nano = max(self.video.floor_nano + 1, NANO)
            self.video.write(
                (bytes(3000),), nano, time.monotonic_ns(), 640, 480, encoding=1, keyframe=kind == "K", offset_us=-7
            )

    def counts(self) -> RingCounts:
        return self.video.counts()

    def store(self, kinds: str) -> None:
        """Write units, and wait until the ring is empty."""
        self.write_units(kinds)
        self.turn(lambda: not self.counts().held)


def config_of(tmp_path: Path, server: RedisServer, broker: bool = False) -> Config:
    return from_document(
        {
            "site": {"run_directory": str(tmp_path / "run")},
            "ring": {"directory": str(tmp_path), "capacity_mb": 1},
            "video": {"capacity_mb": 1, "ttl_seconds": 1000},
            "redis": {"address": server.address, "ttl_seconds": 100},
            "amqp": {"amqp_url": "amqp://127.0.0.1:1/"} if broker else {},
            "metadata": {"video": "gop"},
            "cameras": [{"id": "cam1", "url": "rtsp://192.0.2.1/", "video": True}],
        },
        {},
    )


@pytest.fixture
def bench(tmp_path: Path, redis_server: RedisServer) -> Iterator[VideoBench]:
    made = VideoBench(config_of(tmp_path, redis_server))
    yield made
    made.agent.on_close()


def listed(client: redis.Redis) -> list[JournalEntry]:
    entries = client.xrange(JOURNAL)
    return [parse_entry(name, [part for pair in fields.items() for part in pair]) for name, fields in entries]


def test_each_stream_has_its_keys_its_journal_and_its_time(bench: VideoBench, redis_server: RedisServer) -> None:
    bench.write("cam1", 2)
    bench.store("Kpp")
    bench.turn(lambda: bench.producers["cam1"].counts().stored == 2)
    client = redis_server.client()
    units = listed(client)
    assert [(unit.sequence, unit.encoding, unit.keyframe, unit.size, unit.offset_us) for unit in units] == [
        (1, "h264", True, 3000, -7),
        (2, "h264", False, 3000, -7),
        (3, "h264", False, 3000, -7),
    ]
    keys = [build_video_key(FrameKey("default", "frames", "cam1", unit.unix_nano, unit.sequence)) for unit in units]
    assert client.mget(keys) == [bytes(3000)] * 3
    assert {client.ttl(key) // 100 for key in (JOURNAL, *keys)} <= {9, 10}
    frames = client.keys("default:*")
    assert len(frames) == 2
    assert client.xlen("engine:default:journal:frames:cam1") == 2
    assert {client.ttl(key) > 100 for key in (*frames, "engine:default:journal:frames:cam1")} == {False}


def test_each_stream_counts_what_redis_lost_of_it(
    bench: VideoBench, redis_server: RedisServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(reconcile, "_LOSS_SECONDS", 0.1)
    bench.write("cam1", 2)
    bench.store("Kppp")
    bench.turn(lambda: bench.producers["cam1"].counts().stored == 2)
    redis_server.client().delete(JOURNAL)
    bench.turn(lambda: bench.counts().drops["lost"] == 4)
    assert bench.producers["cam1"].counts().drops["lost"] == 0
    bench.store("ppKp")
    counts = bench.counts()
    assert (counts.stored, counts.drops["broken_gop"]) == (2, 2)
    assert [unit.keyframe for unit in listed(redis_server.client())] == [True, False]


def test_marks_and_numbers_of_the_streams_are_apart(tmp_path: Path, redis_server: RedisServer) -> None:
    config = config_of(tmp_path, redis_server, broker=True)
    bench = VideoBench(config)
    bench.write("cam1", 2)
    bench.store("Kpppp")
    bench.turn(lambda: bench.producers["cam1"].counts().stored == 2)
    bench.agent.on_close()
    client = redis_server.client()
    assert [unit.number for unit in listed(client)] == [1, 2, 3, 4, 5]
    marks = [
        parse_mark(client.hget(key("default", "frames"), "cam1") or b"") for key in (written_key, video_written_key)
    ]
    assert marks == [Mark((NANO + 1, 2), 2, 0), Mark((NANO + 4, 5), 5, 0)]
    client.delete(JOURNAL)
    with Session(config.redis_address, 5) as session:
        assert last_frame_id(session, "default", "frames", "cam1", video=True) == (NANO + 4, 5)
        assert last_frame_id(session, "default", "frames", "cam1") == (NANO + 1, 2)


def test_a_journal_of_video_that_is_no_stream_leaves_the_frames_alone(
    bench: VideoBench, redis_server: RedisServer
) -> None:
    client = redis_server.client()
    client.set(JOURNAL, "something else")
    bench.write("cam1", 3)
    bench.write_units("Kpp")
    bench.turn(lambda: bench.counts().drops["refused"] and not bench.counts().held)
    bench.turn(lambda: bench.producers["cam1"].counts().stored == 3)
    client.delete(JOURNAL)
    bench.turn(lambda: bench.counts().stored, lambda: None if bench.video.held_bytes else bench.write_units("pKp"))
    bench.turn(lambda: not bench.counts().held)
    units = listed(client)
    assert units[0].keyframe
    assert bench.counts().stored == len(units)


def test_units_behind_an_entry_from_elsewhere_are_taken_back(bench: VideoBench, redis_server: RedisServer) -> None:
    """It refuses the first of a batch; those that it takes need them, and go."""
    client = redis_server.client()
    client.xadd(JOURNAL, {"s": 1}, id=f"{NANO + 1}-77")
    bench.store("KpppKp")
    counts = bench.counts()
    assert (counts.stored, counts.drops["refused"], counts.drops["broken_gop"]) == (2, 2, 2)
    assert sorted(int(key.rpartition(b":")[2]) for key in client.keys("engine:default:video:*")) == [5, 6]


def test_a_video_ring_made_anew_under_its_writer_goes_on_within_the_gop(
    bench: VideoBench, redis_server: RedisServer
) -> None:
    bench.store("Kp")
    bench.write_units("pp")
    bench.paths.ring("cam1", video=True).unlink()
    found = ring_place.renewed(bench._config, bench.video)
    assert found
    bench.video.close()
    bench.video = found.producer
    bench.pages["cam1"].counts[CaptureCount.VIDEO_RING] = found.producer.inode.number
    bench.store("ppKp")
    assert [unit.sequence for unit in listed(redis_server.client())] == list(range(1, 9))
    assert (bench.counts().stored, bench.counts().dropped) == (8, 0)


def test_a_killed_writer_leaves_both_streams_to_its_successor(bench: VideoBench, redis_server: RedisServer) -> None:
    bench.write("cam1", 2)
    bench.store("Kpp")
    bench.turn(lambda: bench.producers["cam1"].counts().stored == 2)
    redis_server.client().flushall()
    bench.kill()
    bench.write("cam1", 1)
    bench.write_units("pKp")
    bench.begin()
    bench.turn(lambda: not bench.counts().held and bench.producers["cam1"].counts().stored == 1)
    counts = bench.counts()
    assert (counts.stored, counts.drops["lost"], counts.drops["broken_gop"]) == (2, 3, 1)
    assert [unit.sequence for unit in listed(redis_server.client())] == [5, 6]


def test_a_writer_whose_video_ring_is_gone_lets_go_of_it_and_keeps_the_frames(bench: VideoBench) -> None:
    """The camera's video was switched off: its capture has another configuration, and its page names no video ring."""
    bench.store("Kp")
    bench.pages["cam1"].counts[CaptureCount.VIDEO_RING] = 0
    bench.paths.ring("cam1", video=True).unlink()
    with capture_logs() as lines:
        bench.turn(lambda: len(bench.agent._writers) == 1)
    assert [(line["captured"], line["stored"]) for line in lines if "let go" in line["event"]] == [(2, 2)]
    bench.write("cam1", 2)
    bench.turn(lambda: bench.producers["cam1"].counts().stored == 2)
