"""The writer's agent between real rings and a real cluster: what is there, what is listed, what is counted."""

from __future__ import annotations

import time
from collections.abc import Iterator
from pathlib import Path

import pytest
import structlog

from engine.runtime.claims import identity
from engine.stages.writer.leases import open_leases
from engine.wire.cluster import SLOTS, Node, Redirect, slot_of
from tests.servers.redis_cluster import RedisCluster
from tests.servers.wait import wait_until
from tests.stages.cluster_bench import CAMERAS, Bench, bench_of, check, listed, under_load


@pytest.fixture(scope="module")
def cluster(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RedisCluster]:
    with RedisCluster(tmp_path_factory.mktemp("cluster")) as made:
        yield made


@pytest.fixture
def bench(tmp_path: Path, cluster: RedisCluster) -> Iterator[Bench]:
    with cluster.client() as client:
        client.flushall(target_nodes="primaries")
    with bench_of(tmp_path, cluster) as made:
        yield made


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
    bench.turn(lambda: len(bench.agent._settling._homes) == CAMERAS, seconds=10)
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
    bench.turn(lambda: bench.all_stored() and bench.has_looked())
    bench.write_all(8)
    bench.agent._send()
    assert bench.agent._store.in_flight == CAMERAS
    bench.agent._nodes.suspects |= set(range(SLOTS))
    bench.agent._look_for_missing()
    assert len(bench.agent._missing._walks) == CAMERAS
    bench.turn(lambda: bench.all_stored() and bench.has_looked())
    check(bench, cluster)


def test_frames_lost_while_no_writer_ran_are_counted(bench: Bench, cluster: RedisCluster) -> None:
    bench.write_all(20)
    bench.turn(lambda: bench.all_stored() and bench.has_looked())
    bench.kill()
    gone = 0
    with cluster.client() as client:
        for camera in bench.producers:
            for entry, _ in client.xrevrange(f"engine:default:journal:frames:{camera}", count=5):
                nano, sequence = entry.decode().split("-")
                gone += client.delete(f"default:frames:{camera}:{nano}:{int(sequence):05d}")
    bench.begin()
    bench.turn(lambda: bench.drops("lost") >= gone)
    bench.turn(bench.has_looked)
    assert gone == 5 * CAMERAS
    check(bench, cluster, missing=gone)


def test_a_node_stores_nothing_before_it_was_asked_what_it_has(bench: Bench, cluster: RedisCluster) -> None:
    """Also while settling waits for another node: later entries would hide which ones are lost."""
    bench.write_all(20)
    bench.turn(lambda: bench.all_stored() and bench.has_looked())
    journal = "engine:default:journal:frames:cam0"
    with cluster.client() as client:
        entries = client.xrange(journal)
        client.delete(journal)
        for entry, fields in entries[:-5]:
            client.xadd(journal, fields, entry)
    agent = bench.agent
    link = agent._nodes.master_of(slot_of(journal.encode()))
    assert link
    link.fail("it was reset")
    wait_until(lambda: agent._store.advance() or link.usable, 10, "the link is open again")
    agent._settling._try_later(1.0)
    bench.write("cam0")
    bench.turn(bench.all_stored)
    check(bench, cluster, missing=5)
    assert bench.drops("lost") == 5


def test_a_node_cannot_name_hosts_without_end(bench: Bench, cluster: RedisCluster) -> None:
    bench.turn(lambda: bench.agent._nodes.usable)
    for port in range(1, 200):
        bench.agent._nodes.redirected(Redirect(True, 1, Node("127.0.0.1", port)))
    assert len(bench.agent._nodes.links) < 30


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


def test_a_camera_that_is_removed_is_let_go(bench: Bench, cluster: RedisCluster) -> None:
    bench.write_all(10)
    bench.turn(bench.all_stored)
    bench.captures.pop("cam0").close()
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
        bench.turn(lambda: bench.away().keys() == {f"redis 127.0.0.1:{master.port}"})
        assert "OOM" in bench.away()[f"redis 127.0.0.1:{master.port}"].error
        assert not bench.all_stored()
    finally:
        master.ask("CONFIG", "SET", "maxmemory", 0)
    bench.turn(bench.all_stored)
    bench.turn(lambda: not bench.away())
    check(bench, cluster)
