"""Slots of a cluster that store nothing although their nodes answer: the writer says which node answers what, goes on
with all else, and gives up first what belongs there."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from pathlib import Path

import pytest

from engine.wire.cluster import slot_of
from tests.servers.redis_cluster import ClusterServer, RedisCluster
from tests.stages.cluster_bench import Bench, bench_of, check, refill

#: Makes a slot store nothing; gives its owner and another node, each with the answer that it then gives.
Fault = Callable[[RedisCluster, int], AbstractContextManager[dict[ClusterServer, str]]]


@pytest.fixture(scope="module")
def cluster(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RedisCluster]:
    with RedisCluster(tmp_path_factory.mktemp("cluster"), replicas=0) as made:
        yield made


@pytest.fixture
def bench(tmp_path: Path, cluster: RedisCluster) -> Iterator[Bench]:
    with cluster.client() as client:
        client.flushall(target_nodes="primaries")
    with bench_of(tmp_path, cluster) as made:
        yield made


def owner_and_other(cluster: RedisCluster, slot: int) -> tuple[ClusterServer, ClusterServer]:
    """The owner of a slot, and another master."""
    masters = cluster.masters()
    owner = next(master for master in masters if slot in cluster.slots_of(master))
    return owner, next(master for master in masters if master is not owner)


@contextmanager
def half_moved(cluster: RedisCluster, slot: int, *, importing: bool = False) -> Iterator[dict[ClusterServer, str]]:
    """A move that was left half-way: its owner gives the slot away. Unless ``importing``, the other does not know."""
    owner, other = owner_and_other(cluster, slot)
    if importing:
        other.ask("CLUSTER", "SETSLOT", slot, "IMPORTING", owner.id)
    owner.ask("CLUSTER", "SETSLOT", slot, "MIGRATING", other.id)
    try:
        yield {owner: f"ASK {slot}", other: "TRYAGAIN" if importing else f"MOVED {slot}"}
    finally:
        for node in (owner, other):
            node.ask("CLUSTER", "SETSLOT", slot, "STABLE")


@contextmanager
def circle(cluster: RedisCluster, slot: int) -> Iterator[dict[ClusterServer, str]]:
    """Two nodes take each other for the owner."""
    owner, other = owner_and_other(cluster, slot)
    owner.ask("CLUSTER", "SETSLOT", slot, "NODE", other.id)
    try:
        yield {owner: f"MOVED {slot} 127.0.0.1:{other.port}", other: f"MOVED {slot} 127.0.0.1:{owner.port}"}
    finally:
        owner.ask("CLUSTER", "SETSLOT", slot, "NODE", owner.id)


@contextmanager
def unserved(cluster: RedisCluster, slot: int) -> Iterator[dict[ClusterServer, str]]:
    """The owner does not serve the slot, and the others believe that it does. Whichever is asked for the map of slots,
    the owner's answer shows."""
    owner, _ = owner_and_other(cluster, slot)
    owner.ask("CLUSTER", "DELSLOTS", slot)
    try:
        yield {}
    finally:
        owner.ask("CLUSTER", "ADDSLOTS", slot)


def named(bench: Bench, answers: dict[ClusterServer, str]) -> bool:
    """Whether the writer's status names exactly these nodes; then each has its answer and the remedy."""
    away = bench.away()
    if away.keys() != {f"redis {node.address}" for node in answers}:
        return False
    for node, answer in answers.items():
        error = away[f"redis {node.address}"].error
        assert answer in error
        assert f"redis-cli --cluster fix {node.address}" in error
    return True


@pytest.mark.parametrize("fault", [half_moved, circle], ids=["half moved", "circle"])
def test_nodes_that_pass_a_slot_on_for_ever_are_named_until_it_is_mended(
    bench: Bench, cluster: RedisCluster, fault: Fault
) -> None:
    bench.write_all(20)
    bench.turn(bench.all_stored)
    with fault(cluster, bench.next_slot("cam0")) as answers:
        bench.write_all(5)
        bench.turn(lambda: named(bench, answers))
        assert {camera for camera, producer in bench.producers.items() if producer.held_bytes} == {"cam0"}
        assert bench.producers["cam0"].counts().held == 5
    bench.turn(bench.all_stored)
    bench.turn(lambda: not bench.away())
    check(bench, cluster)


def test_a_slot_that_its_node_does_not_serve_is_said_and_the_node_s_other_slots_go_on(
    bench: Bench, cluster: RedisCluster
) -> None:
    bench.write_all(20)
    bench.turn(bench.all_stored)
    slot = bench.next_slot("cam0")
    with unserved(cluster, slot):
        bench.write_all(5)
        bench.turn(bench.away)
        (said,) = (away.error for away in bench.away().values())
        assert "1 of its slots are served by no node" in said or f"slot {slot}: it answers CLUSTERDOWN" in said
        bench.turn(lambda: not any(bench.producers[camera].held_bytes for camera in ("cam1", "cam2", "cam3")))
        assert bench.producers["cam0"].counts().held == 5
    bench.turn(bench.all_stored)
    bench.turn(lambda: not bench.away())
    check(bench, cluster)


def test_when_the_ring_is_full_only_the_frames_of_the_slot_are_given_up(bench: Bench, cluster: RedisCluster) -> None:
    bench.write_all(20)
    bench.turn(bench.all_stored)
    with half_moved(cluster, bench.next_slot("cam0")) as answers:
        bench.write_all(5)
        bench.turn(lambda: named(bench, answers))
        bench.turn(lambda: bench.drops("outage"), lambda: refill(bench, 50_000))
        stored = bench.producers["cam0"].counts().stored
        bench.turn(lambda: bench.producers["cam0"].counts().stored > stored + 20)
    bench.turn(bench.all_stored)
    check(bench, cluster, missing=bench.drops("outage"))
    # Of 16,384 slots, hardly any other frame hashes to this one.
    assert bench.drops("outage") <= len(bench.producers)


def test_a_camera_whose_journal_is_passed_on_for_ever_holds_back_no_other(bench: Bench, cluster: RedisCluster) -> None:
    """Before its first entry, the journal is not there, so the node passes it on."""
    slots = {camera: slot_of(f"engine:default:journal:frames:{camera}".encode()) for camera in bench.producers}
    owners = {camera: owner_and_other(cluster, slot)[0] for camera, slot in slots.items()}
    stuck, beside = next((one, two) for one in owners for two in owners if one < two and owners[one] is owners[two])
    with half_moved(cluster, slots[stuck]) as answers:
        bench.write_all(5)
        bench.turn(lambda: not bench.producers[beside].held_bytes)
        bench.turn(lambda: named(bench, answers))
        assert bench.producers[stuck].counts().held == 5
        bench.turn(lambda: bench.drops("outage"), lambda: refill(bench, 50_000))
    bench.turn(bench.all_stored)
    check(bench, cluster, missing=bench.drops("outage"))


def test_a_camera_with_a_hash_tag_waits_for_a_slot_that_asks_for_another_try(
    tmp_path: Path, cluster: RedisCluster
) -> None:
    """Its journal is at one node, and a frame would be at the other."""
    with bench_of(tmp_path, cluster, redis={"key_tags": True}) as bench:
        bench.write_all(20)
        bench.turn(bench.all_stored)
        with half_moved(cluster, slot_of(b"cam0"), importing=True) as answers:
            bench.write_all(5)
            bench.turn(lambda: named(bench, answers))
            assert bench.producers["cam0"].counts().held == 5
            bench.turn(lambda: bench.drops("outage"), lambda: refill(bench, 50_000))
        bench.turn(bench.all_stored)
        bench.turn(lambda: not bench.away())
        check(bench, cluster, missing=bench.drops("outage"))
