"""The writer's agent between real rings and a real cluster: what is there, what is listed, what is counted."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
import structlog

from engine.config import Config, from_document
from engine.runtime.claims import identity
from engine.shm import ring_place, segment
from engine.shm.ring import Producer
from engine.shm.site import SitePaths
from engine.shm.status_page import StatusPage
from engine.stages.writer.cluster_agent import ClusterWriterAgent
from engine.stages.writer.leases import open_leases
from engine.wire.cluster import SLOTS, Node, Redirect, slot_of
from engine.wire.state import decode_outages
from tests.servers.redis_cluster import RedisCluster

NANO = 1_731_024_000_000_000_000
CAMERAS = 4


class Bench:
    """A writer, and the producers of its cameras."""

    def __init__(self, config: Config) -> None:
        self.config = config
        self.paths = SitePaths.of(config)
        segment.private_directory(self.paths.directory)
        self.producers: dict[str, Producer] = {}
        self.captures = {}
        for camera in config.cameras:
            self.captures[camera.id] = StatusPage.claim(self.paths.capture(camera.id))
            ring_place.ensure(config, camera.id)
            self.producers[camera.id] = ring_place.open_producer(config, camera.id, self.captures[camera.id])
        self.page = StatusPage.claim(self.paths.writer(0))
        self.begin()

    def begin(self) -> None:
        """A writer that finds what the one before has left."""
        self.agent = ClusterWriterAgent(self.config, 0, self.page, structlog.get_logger())
        self.agent.on_start()

    def kill(self) -> None:
        """The writer is gone, whatever it had in flight."""
        self.agent._store.close()
        for writer in self.agent._writers:
            writer.consumer.close()
        self.agent._doorbell.close()

    def write(self, camera: str, count: int = 1, size: int = 20_000) -> None:
        producer = self.producers[camera]
        for _ in range(count):
            nano = max(producer.floor_nano + 1, NANO)
            body = b"%05d" % (producer.last_sequence % 99_999 + 1)
            producer.write((body * (size // 5),), nano, time.monotonic_ns(), 640, 480)

    def write_all(self, count: int = 1) -> None:
        for camera in self.producers:
            self.write(camera, count)

    def turn(self, until: Callable[[], object], refill: Callable[[], None] = lambda: None, seconds: float = 30) -> None:
        """Turn the agent as its loop does."""
        deadline = time.monotonic() + seconds
        while not until():
            assert time.monotonic() < deadline, self.agent._outages
            refill()
            if not self.agent.do_work():
                self.agent.idle()

    @property
    def stored(self) -> int:
        return sum(producer.counts().stored for producer in self.producers.values())

    def all_stored(self) -> bool:
        return all(not producer.held_bytes for producer in self.producers.values())

    def drops(self, reason: str) -> int:
        return sum(producer.counts().drops[reason] for producer in self.producers.values())


def listed(cluster: RedisCluster, camera: str) -> list[int]:
    """The sequences in a camera's journal, after a look that each has its frame, with its own bytes."""
    with cluster.client() as client:
        entries = client.xrange(f"engine:default:journal:frames:{camera}")
        ids = [entry.decode().split("-") for entry, _ in entries]
        for nano, sequence in ids:
            body = client.get(f"default:frames:{camera}:{nano}:{int(sequence):05d}")
            assert body, f"frame {sequence} of {camera} is listed and not there"
            assert body[:5] == b"%05d" % int(sequence)
        return [int(sequence) for _, sequence in ids]


def refill(bench: Bench, spare_bytes: int = 400_000) -> None:
    """A frame into each ring that has room for it; above 262,144 bytes to spare, the writer drops none."""
    for camera, producer in bench.producers.items():
        if producer.free_bytes > spare_bytes:
            bench.write(camera)


def check(bench: Bench, cluster: RedisCluster, missing: int = 0) -> None:
    """Every numbered frame is stored and listed, in order, or counted as dropped."""
    gone = 0
    for camera, producer in bench.producers.items():
        counts = producer.counts()
        assert counts.captured == counts.stored + counts.dropped + counts.held
        sequences = listed(cluster, camera)
        assert sequences == sorted(set(sequences))
        assert len(sequences) == counts.stored
        gone += counts.captured - len(sequences)
    assert gone == missing


@pytest.fixture(scope="module")
def cluster(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RedisCluster]:
    with RedisCluster(tmp_path_factory.mktemp("cluster")) as made:
        yield made


def bench_of(directory: Path, cluster: RedisCluster, **sections: dict[str, object]) -> Bench:
    return Bench(
        from_document(
            {
                "site": {"run_directory": str(directory / "run")},
                "ring": {"directory": str(directory), "capacity_mb": 2, **sections.get("ring", {})},
                "redis": {"cluster": cluster.addresses, "timeout_seconds": 2, **sections.get("redis", {})},
                "writer": {"batch_frames": 32},
                "cameras": [{"id": f"cam{number}", "url": "test://"} for number in range(CAMERAS)],
            },
            {},
        )
    )


@pytest.fixture
def bench(tmp_path: Path, cluster: RedisCluster) -> Iterator[Bench]:
    with cluster.client() as client:
        client.flushall(target_nodes="primaries")
    made = bench_of(tmp_path, cluster)
    yield made
    made.agent.on_close()


def test_frames_of_all_slots_are_stored_and_listed(bench: Bench, cluster: RedisCluster) -> None:
    for _ in range(5):
        bench.write_all(20)
        bench.turn(bench.all_stored)
    check(bench, cluster)
    assert bench.stored == 400
    assert len({cluster.owner(f"engine:default:journal:frames:{camera}").port for camera in bench.producers}) > 1
    assert slot_of(b"123456789") == 12739


def test_states_marks_and_new_rings_work_in_any_slot(bench: Bench, cluster: RedisCluster) -> None:
    bench.write_all(3)
    bench.turn(bench.all_stored)
    with cluster.client() as client:
        bench.turn(lambda: client.hget("engine:default:cameras:frames:written", "cam0"))


def test_a_writer_killed_between_the_steps_sends_both_again(bench: Bench, cluster: RedisCluster) -> None:
    """Frames are there without entries: the ring has them still, and its next writer sends all."""
    bench.write_all(5)
    bench.turn(lambda: len(bench.agent._settled) == CAMERAS, seconds=10)
    bench.turn(bench.all_stored)
    bench.write_all(8)
    bench.agent._send()
    deadline = time.monotonic() + 10
    frames = 0
    while frames < 8 * CAMERAS and time.monotonic() < deadline:
        frames = sum(len(cluster.keys_of(master, "default:frames:*")) for master in cluster.masters()) - 5 * CAMERAS
    bench.kill()
    for camera in bench.producers:
        assert len(listed(cluster, camera)) == 5, "an entry, and step 1 was not answered"
    bench.begin()
    bench.turn(bench.all_stored)
    check(bench, cluster)
    assert bench.stored == 13 * CAMERAS


def test_frames_that_wait_for_their_entries_are_looked_at_when_they_are_listed(
    bench: Bench, cluster: RedisCluster
) -> None:
    """A node loses frames of step 1 before step 2."""
    bench.write_all(5)
    bench.turn(lambda: bench.all_stored() and not bench.agent._missing._walks)
    bench.write_all(8)
    bench.agent._send()
    assert bench.agent._store.in_flight == CAMERAS
    bench.agent._nodes.suspects |= set(range(SLOTS))
    bench.agent._look_for_missing()
    assert len(bench.agent._missing._walks) == CAMERAS
    bench.turn(lambda: bench.all_stored() and not bench.agent._missing._walks)
    check(bench, cluster)


def test_frames_lost_while_no_writer_ran_are_counted(bench: Bench, cluster: RedisCluster) -> None:
    bench.write_all(20)
    bench.turn(lambda: bench.all_stored() and not bench.agent._missing._walks)
    bench.kill()
    gone = 0
    with cluster.client() as client:
        for camera in bench.producers:
            for entry, _ in client.xrevrange(f"engine:default:journal:frames:{camera}", count=5):
                nano, sequence = entry.decode().split("-")
                gone += client.delete(f"default:frames:{camera}:{nano}:{int(sequence):05d}")
    bench.begin()
    bench.turn(lambda: bench.drops("lost") >= gone)
    bench.turn(lambda: not bench.agent._missing._walks)
    assert gone == 5 * CAMERAS
    check(bench, cluster, missing=gone)


def test_a_node_cannot_name_hosts_without_end(bench: Bench, cluster: RedisCluster) -> None:
    bench.turn(lambda: bench.agent._nodes.usable)
    for port in range(1, 200):
        bench.agent._nodes.redirected(Redirect(True, 1, Node("127.0.0.1", port)))
    assert len(bench.agent._nodes.links) < 30


def under_load(bench: Bench, act: Callable[[], None]) -> None:
    """Do ``act`` while frames come and are stored, and until it has ended."""
    with ThreadPoolExecutor(1) as pool:
        acting = pool.submit(act)
        bench.turn(acting.done, lambda: refill(bench), seconds=60)
        acting.result()


def test_slots_that_move_under_load_lose_nothing(bench: Bench, cluster: RedisCluster) -> None:
    """MOVED and ASK, for frames and for journals."""
    first, second, _ = cluster.masters()
    slots = cluster.slots_of(first)
    assert slots

    def move() -> None:
        cluster.move_slots(first, second, slots[:256])
        cluster.move_slots(second, first, slots[:256])

    under_load(bench, move)
    bench.turn(bench.all_stored)
    check(bench, cluster)


def test_a_failover_in_order_loses_nothing(bench: Bench, cluster: RedisCluster) -> None:
    def fail_over() -> None:
        for index in range(3):
            cluster.failover(index)

    under_load(bench, fail_over)
    bench.turn(bench.all_stored)
    check(bench, cluster)


@pytest.fixture
def own_cluster(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RedisCluster]:
    with RedisCluster(tmp_path_factory.mktemp("own")) as made:
        yield made


def test_a_killed_master_costs_no_more_than_is_counted(tmp_path: Path, own_cluster: RedisCluster) -> None:
    bench = bench_of(tmp_path, own_cluster)
    bench.write_all(20)
    bench.turn(bench.all_stored)

    def fail_over() -> None:
        own_cluster.kill_master(0)

    under_load(bench, fail_over)
    bench.turn(bench.all_stored)
    assert bench.drops("outage") == 0
    check(bench, own_cluster, missing=bench.drops("lost"))
    bench.agent.on_close()


def away(bench: Bench) -> set[str]:
    """The servers that the writer's status page names."""
    return set(decode_outages(bench.page.text))


def test_frames_of_a_shard_that_is_away_are_given_up_first(tmp_path: Path, own_cluster: RedisCluster) -> None:
    """The other shards' frames are stored, in order, and each frame is stored or counted."""
    bench = bench_of(tmp_path, own_cluster)
    bench.write_all(20)
    bench.turn(bench.all_stored)
    before = bench.stored
    slots = set(own_cluster.slots_of(own_cluster.masters()[0]))
    gone = own_cluster.kill_shard(0)
    bench.turn(lambda: bench.drops("outage") > 100, lambda: refill(bench, 50_000), seconds=60)
    journal_slots = {camera: slot_of(f"engine:default:journal:frames:{camera}".encode()) for camera in bench.producers}
    others = {camera for camera, slot in journal_slots.items() if slot not in slots}
    assert others, "each camera's journal is on the shard that is away"
    assert bench.stored > before
    assert away(bench) >= {f"redis 127.0.0.1:{gone[0].port}"}
    for camera in others:
        drops, captured = bench.producers[camera].counts().drops, bench.producers[camera].counts().captured
        # A third of all frames hashes to the shard that is away.
        assert drops["outage"] < captured * 0.6, (drops, captured)
    own_cluster.restart(*gone)
    bench.turn(bench.all_stored)
    bench.turn(lambda: not away(bench) and not bench.agent._missing._walks)
    # The shard came back empty.
    assert bench.drops("lost") > 0
    check(bench, own_cluster, missing=bench.drops("lost") + bench.drops("outage"))
    bench.agent.on_close()


def test_a_node_that_hangs_delays_and_nothing_more(tmp_path: Path, own_cluster: RedisCluster) -> None:
    """It stands still, its replica takes over, and it comes back as a replica."""
    bench = bench_of(tmp_path, own_cluster)
    bench.write_all(20)
    bench.turn(bench.all_stored)
    master = own_cluster.masters()[1]

    def hang_and_heal() -> None:
        own_cluster.partition_master(1)
        own_cluster.heal(master)

    under_load(bench, hang_and_heal)
    bench.turn(bench.all_stored)
    assert bench.drops("outage") == 0
    check(bench, own_cluster, missing=bench.drops("lost"))
    bench.agent.on_close()


def test_a_camera_that_is_removed_is_let_go(bench: Bench, cluster: RedisCluster) -> None:
    bench.write_all(10)
    bench.turn(bench.all_stored)
    bench.captures["cam0"].close()
    bench.paths.ring("cam0").unlink()
    bench.turn(lambda: len(bench.agent._writers) == CAMERAS - 1)
    bench.write("cam1", 10)
    bench.turn(lambda: not bench.producers["cam1"].held_bytes)
    check(bench, cluster)


def test_leases_are_taken_from_nodes(bench: Bench) -> None:
    with open_leases(bench.config, identity(bench.config), structlog.get_logger()) as leases:
        assert leases.take(list(bench.producers)) == {}
        assert all(milliseconds > 0 for milliseconds in leases.remaining(list(bench.producers)))
        leases.release(list(bench.producers))


def test_a_node_without_memory_delays_and_is_named(bench: Bench, cluster: RedisCluster) -> None:
    bench.write_all(10)
    bench.turn(bench.all_stored)
    master = cluster.masters()[1]
    master.ask("CONFIG", "SET", "maxmemory-policy", "noeviction")
    master.ask("CONFIG", "SET", "maxmemory", 1)
    try:
        bench.write_all(10)
        bench.turn(lambda: away(bench) == {f"redis 127.0.0.1:{master.port}"})
        assert "OOM" in decode_outages(bench.page.text)[f"redis 127.0.0.1:{master.port}"].error
        assert not bench.all_stored()
    finally:
        master.ask("CONFIG", "SET", "maxmemory", 0)
    bench.turn(bench.all_stored)
    bench.turn(lambda: not away(bench))
    check(bench, cluster)


def test_a_node_that_joins_and_leaves_again_costs_nothing(tmp_path: Path, own_cluster: RedisCluster) -> None:
    bench = bench_of(tmp_path, own_cluster)
    bench.write_all(20)
    bench.turn(bench.all_stored)

    def come_and_go() -> None:
        first = own_cluster.masters()[0]
        node = own_cluster.add_node()
        own_cluster.move_slots(first, node, own_cluster.slots_of(first)[:128])
        own_cluster.remove_node(node)

    under_load(bench, come_and_go)
    bench.turn(bench.all_stored)
    check(bench, own_cluster)
    bench.agent.on_close()
