"""The writer's agent in a cluster whose nodes die, hang, come and go: each frame is stored and listed, or counted."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from engine.wire.cluster import slot_of
from engine.wire.redis_address import TlsFiles
from tests.servers.certificate import self_signed
from tests.servers.redis_cluster import RedisCluster
from tests.stages.cluster_bench import Bench, bench_of, check, refill, under_load


@pytest.fixture
def cluster(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RedisCluster]:
    with RedisCluster(tmp_path_factory.mktemp("own")) as made:
        yield made


@pytest.fixture
def bench(tmp_path: Path, cluster: RedisCluster) -> Iterator[Bench]:
    with bench_of(tmp_path, cluster) as made:
        yield made


def test_a_killed_master_costs_no_more_than_is_counted(bench: Bench, cluster: RedisCluster) -> None:
    bench.write_all(20)
    bench.turn(bench.all_stored)

    def fail_over() -> None:
        cluster.kill_master(0)

    under_load(bench, fail_over)
    bench.turn(bench.all_stored)
    assert bench.drops("outage") == 0
    check(bench, cluster, missing=bench.drops("lost"))


def test_frames_of_a_shard_that_is_away_are_given_up_first(bench: Bench, cluster: RedisCluster) -> None:
    """The other shards' frames are stored, in order, and each frame is stored or counted."""
    bench.write_all(20)
    bench.turn(bench.all_stored)
    before = bench.stored
    slots = set(cluster.slots_of(cluster.masters()[0]))
    gone = cluster.kill_shard(0)
    bench.turn(lambda: bench.drops("outage") > 100, lambda: refill(bench, 50_000), seconds=60)
    journal_slots = {camera: slot_of(f"engine:default:journal:frames:{camera}".encode()) for camera in bench.producers}
    others = {camera for camera, slot in journal_slots.items() if slot not in slots}
    assert others, "each camera's journal is on the shard that is away"
    assert bench.stored > before
    assert bench.away().keys() >= {f"redis 127.0.0.1:{gone[0].port}"}
    for camera in others:
        drops, captured = bench.producers[camera].counts().drops, bench.producers[camera].counts().captured
        # A third of all frames hashes to the shard that is away.
        assert drops["outage"] < captured * 0.6, (drops, captured)
    cluster.restart(*gone)
    bench.turn(bench.all_stored)
    bench.turn(lambda: not bench.away() and bench.has_looked())
    # The shard came back empty.
    assert bench.drops("lost") > 0
    check(bench, cluster, missing=bench.drops("lost") + bench.drops("outage"))


def test_a_node_that_hangs_delays_and_nothing_more(bench: Bench, cluster: RedisCluster) -> None:
    """It stands still, its replica takes over, and it comes back as a replica."""
    bench.write_all(20)
    bench.turn(bench.all_stored)
    master = cluster.masters()[1]

    def hang_and_heal() -> None:
        cluster.partition_master(1)
        cluster.heal(master)

    under_load(bench, hang_and_heal)
    bench.turn(bench.all_stored)
    assert bench.drops("outage") == 0
    check(bench, cluster, missing=bench.drops("lost"))


def test_a_node_that_joins_and_leaves_again_costs_nothing(bench: Bench, cluster: RedisCluster) -> None:
    bench.write_all(20)
    bench.turn(bench.all_stored)

    def come_and_go() -> None:
        first = cluster.masters()[0]
        node = cluster.add_node()
        cluster.move_slots(first, node, cluster.slots_of(first)[:128])
        cluster.remove_node(node)

    under_load(bench, come_and_go)
    bench.turn(bench.all_stored)
    check(bench, cluster)


def test_a_cluster_with_tls_and_a_password_loses_no_more_than_is_counted(tmp_path: Path, short_path: Path) -> None:
    signed = self_signed(short_path)
    files = TlsFiles(str(signed.certificate), str(signed.certificate), str(signed.key))
    login = {"password": "secret", "tls_ca_file": files.ca_file}
    with (
        RedisCluster(short_path / "tls", password="secret", tls=files) as cluster,
        bench_of(tmp_path, cluster, redis=login) as bench,
    ):
        bench.write_all(20)
        bench.turn(bench.all_stored)
        under_load(bench, lambda: cluster.kill_master(0))
        bench.turn(lambda: bench.all_stored() and bench.has_looked())
        assert bench.drops("outage") == 0
        check(bench, cluster, missing=bench.drops("lost"))
