"""The writer's agent between real rings and a real Redis."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
import structlog
import structlog.testing

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

    def write_if_empty(self, camera: str) -> None:
        """A frame where none waits, so that no ring is ever full."""
        if not self.producers[camera].held_bytes:
            self.write(camera)

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


DAY = 24 * 3600 * 10**9


def listed_numbers(redis_server: RedisServer, camera: str) -> list[int]:
    entries = redis_server.client().xrange(f"engine:default:journal:frames:{camera}")
    return [int(entry.split(b"-")[1]) for entry, _ in entries]


def drops(bench: Bench, camera: str) -> dict[str, int]:
    return bench.producers[camera].counts().drops


@pytest.mark.parametrize("entry", ["5000000000000000000-1", f"{2**64 - 1}-{2**64 - 1}", f"{10**19 - 1}-99999"])
def test_a_journal_entry_far_ahead_costs_its_camera_s_frames_until_it_is_gone(
    bench: Bench, redis_server: RedisServer, entry: str
) -> None:
    client = redis_server.client()
    journal = "engine:default:journal:frames:cam1"
    client.xadd(journal, {"a": "b"}, id=entry)

    def refill() -> None:
        for camera in bench.producers:
            bench.write_if_empty(camera)

    with structlog.testing.capture_logs() as lines:
        bench.turn(lambda: drops(bench, "cam1")["refused"] > 0, refill)
        client.pexpire(journal, 3_600_000)
        bench.turn(lambda: drops(bench, "cam1")["refused"] > 20 and stored(bench, "cam2") > 20, refill)
        told = [line for line in lines if line.get("camera") == "cam1" and line["log_level"] != "info"]
        assert len(told) == 1, told
        assert f"redis-cli DEL {journal}" in told[0]["error"]
        assert client.pttl(journal) > 3_000_000, "a frame that was refused let the journal live on"
        assert not client.keys("default:frames:cam1:*"), "refused, and yet there"
        assert bench.producers["cam1"].floor_nano < time.time_ns() + DAY
        client.delete(journal)
        bench.turn(lambda: stored(bench, "cam1") > 5, refill)
        bench.turn(lambda: not any(producer.counts().held for producer in bench.producers.values()))
    counts = bench.producers["cam1"].counts()
    assert counts.captured == counts.stored + counts.dropped
    assert listed_numbers(redis_server, "cam1") == list(range(drops(bench, "cam1")["refused"] + 1, counts.captured + 1))
    assert stored(bench, "cam2") == bench.producers["cam2"].counts().captured


def test_a_ring_outlives_a_journal_s_entry_far_ahead(bench: Bench, redis_server: RedisServer) -> None:
    redis_server.client().xadd("engine:default:journal:frames:cam1", {"a": "b"}, id="5000000000000000000-1")
    bench.write("cam1")
    bench.turn(lambda: drops(bench, "cam1")["refused"] == 1)
    again = Producer(bench.producers["cam1"].path, "cam1")
    assert again.last_sequence == 1
    again.close()


def test_a_journal_whose_last_entry_was_deleted_still_is_the_floor(bench: Bench, redis_server: RedisServer) -> None:
    """Redis compares with the last id that it ever gave, whether the entry stands or not."""
    client, journal = redis_server.client(), "engine:default:journal:frames:cam1"
    ahead = NANO + 10**15
    client.xadd(journal, {"s": 1}, id=f"{ahead}-7")
    client.xdel(journal, f"{ahead}-7")
    bench.write("cam1")
    bench.turn(lambda: drops(bench, "cam1")["refused"] == 1)
    bench.write("cam1", 3)
    bench.turn(lambda: stored(bench, "cam1") == 3)


def test_frames_are_stored_again_as_soon_as_a_journal_is_one(bench: Bench, redis_server: RedisServer) -> None:
    client, journal = redis_server.client(), "engine:default:journal:frames:cam1"
    client.set(journal, "something else")
    bench.turn(lambda: drops(bench, "cam1")["refused"] > 0, lambda: bench.write_if_empty("cam1"))
    # Nothing renews it any more.
    client.pexpire(journal, 500)
    bench.turn(lambda: stored(bench, "cam1") > 5, lambda: bench.write_if_empty("cam1"))
    bench.turn(lambda: not bench.producers["cam1"].counts().held)
    counts = bench.producers["cam1"].counts()
    assert listed_numbers(redis_server, "cam1") == list(range(counts.dropped + 1, counts.captured + 1))


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
