"""The writer's agent between real rings and a real Redis."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
import structlog

from engine.config import Config, from_document
from engine.shm import ring_file, segment
from engine.shm.ring import Producer
from engine.shm.site import SitePaths
from engine.shm.slate import Slate
from engine.stages import reconcile
from engine.stages.writer import WriterAgent
from engine.wire.state import CameraStatus, encode_status
from tests.servers.redis_server import RedisServer

NANO = 1_731_024_000_000_000_000


class Bench:
    """A writer, and the producers and slates of its cameras."""

    def __init__(self, config: Config) -> None:
        paths = SitePaths.of(config)
        segment.private_directory(paths.directory)
        self.producers = {}
        self.slates = {}
        for camera in config.cameras:
            ring_file.create(paths.ring(camera.id), config.ring.capacity, camera.id)
            self.producers[camera.id] = Producer(paths.ring(camera.id), camera.id)
            self.slates[camera.id] = Slate.claim(paths.capture(camera.id))
        self.agent = WriterAgent(config, 0, Slate.claim(paths.writer(0)), structlog.get_logger())
        self.agent.on_start()

    def write(self, camera: str, count: int = 1) -> None:
        producer = self.producers[camera]
        for _ in range(count):
            producer.write((bytes(30_000),), max(producer.floor_nano + 1, NANO), time.monotonic_ns(), 640, 480)

    def turn(self, until: Callable[[], object], refill: Callable[[], None] = lambda: None) -> None:
        """Turn the agent as its loop does; bounded in time, so that what never comes fails the test."""
        deadline = time.monotonic() + 20
        while not until():
            assert time.monotonic() < deadline, "it did not come"
            refill()
            if not self.agent.do_work():
                self.agent.idle()


@pytest.fixture
def bench(tmp_path: Path, redis_server: RedisServer) -> Iterator[Bench]:
    made = Bench(
        from_document(
            {
                "site": {"run_directory": str(tmp_path / "run")},
                "ring": {"directory": str(tmp_path), "capacity_mb": 1},
                "redis": {"address": redis_server.address},
                # One ring fills a batch, so that another batch is in flight whenever one is answered.
                "writer": {"batch_frames": 3},
                "cameras": [{"id": "cam1", "url": "test://"}, {"id": "cam2", "url": "test://"}],
            },
            {},
        )
    )
    yield made
    made.agent.on_close()


def stored(bench: Bench, camera: str) -> int:
    return bench.producers[camera].counts().stored


def test_states_go_out_while_frames_never_stop(bench: Bench, redis_server: RedisServer) -> None:
    client = redis_server.client()

    def refill() -> None:
        for camera in bench.producers:
            bench.write(camera, 3)

    bench.turn(lambda: stored(bench, "cam1") > 30, refill)
    bench.slates["cam1"].text = encode_status(CameraStatus("active", NANO))
    bench.turn(lambda: client.hget("engine:default:cameras:frames", "cam1"), refill)


def test_what_the_journal_holds_is_the_floor_of_later_stamps(bench: Bench, redis_server: RedisServer) -> None:
    """Another edition, or a clock that was ahead, has left a later entry: that frame is lost, and no other."""
    ahead = NANO + 10**15
    redis_server.client().xadd("engine:default:journal:frames:cam1", {"s": 1}, id=f"{ahead}-7")
    bench.write("cam1")
    bench.turn(lambda: bench.producers["cam1"].counts().drops["refused"] == 1)
    bench.write("cam1", 5)
    bench.turn(lambda: stored(bench, "cam1") == 5)
    ids = [entry for entry, _ in redis_server.client().xrange("engine:default:journal:frames:cam1")]
    assert ids == [f"{ahead}-7".encode(), *(f"{ahead + step}-{step + 1}".encode() for step in range(1, 6))]


def test_a_camera_whose_journal_is_no_stream_leaves_the_others_alone(bench: Bench, redis_server: RedisServer) -> None:
    redis_server.client().set("engine:default:journal:frames:cam1", "something else")
    bench.write("cam1", 5)
    bench.write("cam2", 5)
    bench.turn(lambda: stored(bench, "cam2") == 5 and bench.producers["cam1"].counts().drops["refused"] == 5)


def test_it_is_drained_when_rings_are_empty_and_no_capture_is_left(bench: Bench) -> None:
    bench.write("cam1", 5)
    bench.turn(lambda: stored(bench, "cam1") == 5)
    assert not bench.agent.drained(), "capture processes still live"
    for slate in bench.slates.values():
        slate.close()
    assert bench.agent.drained()
    bench.write("cam2")
    assert not bench.agent.drained(), "a frame is in a ring"
    bench.turn(bench.agent.drained)
    assert stored(bench, "cam2") == 1


def lost(bench: Bench, camera: str) -> int:
    return bench.producers[camera].counts().drops["lost"]


def test_frames_that_a_restarted_redis_has_no_more_are_counted(bench: Bench, redis_server: RedisServer) -> None:
    bench.write("cam1", 5)
    bench.write("cam2", 2)
    bench.turn(lambda: stored(bench, "cam1") + stored(bench, "cam2") == 7)
    redis_server.kill()
    redis_server.start()
    bench.write("cam1", 3)
    bench.turn(lambda: stored(bench, "cam1") == 3)
    assert (lost(bench, "cam1"), lost(bench, "cam2"), stored(bench, "cam2")) == (5, 2, 0)


def test_frames_flushed_under_a_running_writer_are_counted(
    bench: Bench, redis_server: RedisServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(reconcile, "_LOSS_SECONDS", 0.1)
    bench.write("cam1", 5)
    bench.turn(lambda: stored(bench, "cam1") == 5)
    redis_server.client().flushall()
    bench.write("cam1", 2)
    bench.turn(lambda: lost(bench, "cam1") == 5 and stored(bench, "cam1") == 2)


def test_entries_that_somebody_deleted_are_not_lost(
    bench: Bench, redis_server: RedisServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(reconcile, "_LOSS_SECONDS", 0.1)
    bench.write("cam1", 5)
    bench.turn(lambda: stored(bench, "cam1") == 5)
    client = redis_server.client()
    journal = "engine:default:journal:frames:cam1"
    client.xdel(journal, *(entry for entry, _ in client.xrange(journal)[:3]))
    # cam2's loss shows that a look has come after it.
    bench.write("cam2", 2)
    bench.turn(lambda: stored(bench, "cam2") == 2)
    client.delete("engine:default:journal:frames:cam2")
    bench.turn(lambda: lost(bench, "cam2") == 2)
    assert (lost(bench, "cam1"), stored(bench, "cam1")) == (0, 5)
