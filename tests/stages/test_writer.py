"""The writer's agent between real rings and a real Redis."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
import structlog
from structlog.testing import capture_logs
from structlog.typing import EventDict

from engine.config import Config, from_document
from engine.shm import ring_place, segment
from engine.shm.doorbell import Bell
from engine.shm.ring import Producer
from engine.shm.site import SitePaths
from engine.shm.status_page import StatusPage, WriterCount
from engine.stages.writer import reconcile
from engine.stages.writer.agent import WriterAgent
from engine.wire.state import CameraStatus, decode_status, encode_status
from tests.servers.redis_server import RedisServer

NANO = 1_731_024_000_000_000_000


class Bench:
    """A writer, and the producers and status pages of its cameras."""

    def __init__(self, config: Config) -> None:
        self._config = config
        self.paths = paths = SitePaths.of(config)
        segment.private_directory(paths.directory)
        self.producers = {}
        self.pages = {}
        for camera in config.cameras:
            self.capture(camera.id)
        self.page = StatusPage.claim(paths.writer(0))
        self.begin()

    def begin(self) -> None:
        """A writer that finds what the one before has left."""
        self.agent = WriterAgent(self._config, 0, self.page, structlog.get_logger())
        self.agent.on_start()

    def kill(self) -> None:
        """The writer is gone, and has looked at nothing before."""
        self.agent._store.close()
        for writer in self.agent._writers:
            writer.consumer.close()
        self.agent._doorbell.close()

    def capture(self, camera: str) -> None:
        """What a capture process does at its start."""
        self.pages[camera] = StatusPage.claim(self.paths.capture(camera))
        ring_place.ensure(self._config, camera)
        self.producers[camera] = ring_place.open_producer(self._config, camera, self.pages[camera])

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
def bench(tmp_path: Path, redis_server: RedisServer, request: pytest.FixtureRequest) -> Iterator[Bench]:
    made = Bench(
        from_document(
            {
                "site": {"run_directory": str(tmp_path / "run")},
                "ring": {"directory": str(tmp_path), "capacity_mb": 1},
                "redis": {"address": redis_server.address, **getattr(request, "param", {}).get("redis", {})},
                # One ring fills a batch, so that another batch is in flight whenever one is answered.
                "writer": {"batch_frames": 3, **getattr(request, "param", {}).get("writer", {})},
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
    bench.pages["cam1"].text = encode_status(CameraStatus("active", NANO))
    bench.turn(lambda: client.hget("engine:default:cameras:frames", "cam1"), refill)


@pytest.mark.parametrize("bench", [{"writer": {"linger_ms": 50, "batch_frames": 64}}], indirect=True, ids=["50 ms"])
def test_a_busy_writer_lingers_to_store_frames_together(bench: Bench) -> None:
    ended = threading.Event()
    bell = Bell(bench.paths.doorbell(0), StatusPage.watch(bench.paths.writer(0)))

    def produce() -> None:
        while not ended.wait(0.002):
            bench.write("cam1")
            bell.wake()

    def tally() -> tuple[int, int]:
        return stored(bench, "cam1"), bench.page.counts[WriterCount.BATCHES]

    producer = threading.Thread(target=produce)
    producer.start()
    try:
        # Half a second is two looks at the rate: then the writer knows that it is busy.
        bench.turn(lambda: stored(bench, "cam1") > 250)
        frames, batches = tally()
        bench.turn(lambda: stored(bench, "cam1") > 750)
    finally:
        ended.set()
        producer.join()
        bell.close()
    after = tally()
    assert after[0] - frames > 5 * (after[1] - batches)


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

    with capture_logs() as lines:
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
    for page in bench.pages.values():
        page.close()
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


CAMERAS_KEY = "engine:default:cameras:frames"


def losses(logged: list[EventDict]) -> list[tuple[int, int]]:
    """(frames, cameras) of every loss that was said."""
    return [
        (line["frames"], line["cameras"])
        for line in logged
        if line["event"] == "redis lost frames that it had acknowledged"
    ]


def test_frames_that_redis_lost_before_the_writer_was_killed_are_counted_by_its_successor(
    bench: Bench, redis_server: RedisServer
) -> None:
    bench.write("cam1", 5)
    bench.write("cam2", 2)
    bench.turn(lambda: stored(bench, "cam1") + stored(bench, "cam2") == 7)
    redis_server.client().flushall()
    bench.kill()
    bench.write("cam1", 3)
    with capture_logs() as logged:
        bench.begin()
        bench.turn(lambda: bench.producers["cam1"].counts().stored_total == 8)
    assert (lost(bench, "cam1"), lost(bench, "cam2"), stored(bench, "cam1")) == (5, 2, 3)
    assert losses(logged) == [(7, 2)]


def test_a_redis_that_comes_back_empty_while_no_writer_runs(bench: Bench, redis_server: RedisServer) -> None:
    bench.write("cam1", 5)
    bench.turn(lambda: stored(bench, "cam1") == 5)
    bench.kill()
    redis_server.kill()
    redis_server.start()
    bench.begin()
    bench.turn(lambda: lost(bench, "cam1") == 5)
    bench.write("cam1", 2)
    bench.turn(lambda: stored(bench, "cam1") == 2)
    assert lost(bench, "cam1") == 5


def test_a_ring_that_appears_later_is_compared_before_it_stores(bench: Bench, redis_server: RedisServer) -> None:
    """It may be one that a former run has left, and a first frame would hide what is missing before it."""
    bench.write("cam1", 5)
    bench.turn(lambda: stored(bench, "cam1") == 5)
    bench.kill()
    redis_server.client().flushall()
    ring = SitePaths.of(bench._config).ring("cam1")
    away = ring.rename(ring.with_suffix(".away"))
    bench.begin()
    bench.write("cam2", 1)
    bench.turn(lambda: stored(bench, "cam2") == 1)
    bench.write("cam1", 3)
    away.rename(ring)
    bench.turn(lambda: bench.producers["cam1"].counts().stored_total == 8)
    assert (lost(bench, "cam1"), stored(bench, "cam1")) == (5, 3)


def test_a_writer_that_stops_looks_a_last_time(bench: Bench, redis_server: RedisServer) -> None:
    bench.write("cam1", 5)
    bench.turn(lambda: stored(bench, "cam1") == 5)
    for page in bench.pages.values():
        page.close()
    redis_server.client().flushall()
    with capture_logs() as logged:
        bench.turn(bench.agent.drained)
    assert (lost(bench, "cam1"), losses(logged)) == (5, [(5, 1)])


def test_a_writer_that_stops_looks_at_the_redis_that_is_there_now(bench: Bench, redis_server: RedisServer) -> None:
    bench.write("cam1", 5)
    bench.turn(lambda: stored(bench, "cam1") == 5)
    for page in bench.pages.values():
        page.close()
    redis_server.kill()
    redis_server.start()
    bench.turn(bench.agent.drained)
    assert lost(bench, "cam1") == 5


def test_a_stop_does_not_wait_for_a_redis_that_does_not_come(bench: Bench, redis_server: RedisServer) -> None:
    bench.write("cam1", 5)
    bench.turn(lambda: stored(bench, "cam1") == 5)
    for page in bench.pages.values():
        page.close()
    redis_server.kill()
    bench.turn(bench.agent.drained)
    assert (lost(bench, "cam1"), stored(bench, "cam1")) == (0, 5)


def test_what_is_lost_under_a_standing_connection_is_counted_before_more_is_stored(
    bench: Bench, redis_server: RedisServer, tmp_path: Path
) -> None:
    """Made another's replica, a server takes over what that one has; its clients stay connected."""
    bench.write("cam1", 5)
    bench.turn(lambda: stored(bench, "cam1") == 5)
    client = redis_server.client()
    with RedisServer(tmp_path / "other") as other:
        other.client().set("its", "data")
        client.execute_command("REPLICAOF", "127.0.0.1", str(other.port))
        bench.write("cam1", 1)
        bench.turn(lambda: client.get("its"))
        client.execute_command("REPLICAOF", "NO", "ONE")
        bench.turn(lambda: bench.producers["cam1"].counts().stored_total == 6)
    assert (lost(bench, "cam1"), stored(bench, "cam1")) == (5, 1)
    assert client.xlen("engine:default:journal:frames:cam1") == 1


@pytest.mark.parametrize("bench", [{"redis": {"ttl_seconds": 1}}], indirect=True)
def test_a_journal_that_expired_with_its_frames_has_lost_nothing(bench: Bench, redis_server: RedisServer) -> None:
    bench.write("cam1", 5)
    bench.turn(lambda: stored(bench, "cam1") == 5)
    bench.turn(lambda: not redis_server.client().exists("engine:default:journal:frames:cam1"))
    bench.kill()
    bench.begin()
    bench.write("cam2", 1)
    bench.turn(lambda: stored(bench, "cam2") == 1)
    assert (lost(bench, "cam1"), stored(bench, "cam1")) == (0, 5)


def test_a_loss_is_said_once_with_its_numbers(
    bench: Bench, redis_server: RedisServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(reconcile, "_LOSS_SECONDS", 0.1)
    with capture_logs() as logged:
        for expected in ((7, 2), (3, 1)):
            frames, cameras = expected
            bench.write("cam1", 3)
            if cameras == 2:
                bench.write("cam2", frames - 3)
            before = lost(bench, "cam1") + lost(bench, "cam2")
            total = sum(producer.counts().stored_total for producer in bench.producers.values())
            bench.turn(
                lambda total=total, frames=frames: (
                    sum(p.counts().stored_total for p in bench.producers.values()) == total + frames
                )
            )
            redis_server.client().flushall()
            bench.turn(
                lambda before=before, frames=frames: lost(bench, "cam1") + lost(bench, "cam2") == before + frames
            )
    assert losses(logged) == [(7, 2), (3, 1)]


def written_state(redis_server: RedisServer, camera: str) -> str:
    text = redis_server.client().hget(CAMERAS_KEY, camera)
    return decode_status(text).state if text else ""


def test_a_state_that_redis_refuses_is_written_later_and_the_refusal_said_once(
    bench: Bench, redis_server: RedisServer
) -> None:
    client = redis_server.client()
    bench.pages["cam1"].text = encode_status(CameraStatus("offline", NANO))
    bench.turn(lambda: written_state(redis_server, "cam1") == "offline")
    client.config_set("maxmemory-policy", "noeviction")
    with capture_logs() as logged:
        client.config_set("maxmemory", 1)
        bench.pages["cam1"].text = encode_status(CameraStatus("active", NANO + 1))
        bench.turn(lambda: any("states refused" in line["event"] for line in logged))
        tried = client.info("commandstats")["cmdstat_hset"]["rejected_calls"]
        bench.turn(lambda: client.info("commandstats")["cmdstat_hset"]["rejected_calls"] > tried + 1)
        client.config_set("maxmemory", 0)
        bench.turn(lambda: written_state(redis_server, "cam1") == "active")
    assert sum("states refused" in line["event"] for line in logged) == 1


@pytest.mark.parametrize("gone", ["FLUSHALL", f"DEL {CAMERAS_KEY}", f"HDEL {CAMERAS_KEY} cam2"])
def test_states_that_are_gone_are_written_again(bench: Bench, redis_server: RedisServer, gone: str) -> None:
    bench.pages["cam1"].text = encode_status(CameraStatus("active", NANO))
    bench.pages["cam2"].text = encode_status(CameraStatus("offline", NANO))
    bench.turn(lambda: written_state(redis_server, "cam1") and written_state(redis_server, "cam2"))
    redis_server.client().execute_command(*gone.split())
    bench.turn(lambda: written_state(redis_server, "cam1") == "active" and written_state(redis_server, "cam2"))
    assert written_state(redis_server, "cam2") == "offline"
