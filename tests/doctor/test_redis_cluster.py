"""The doctor on a real Redis Cluster."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path

import pytest

from engine.config import Config, from_document
from engine.doctor.cluster_checks import together
from engine.doctor.examine import examine
from engine.doctor.examine import redis as examine_redis
from engine.doctor.findings import Finding
from engine.wire.cluster import Node
from tests.servers.redis_cluster import RedisCluster
from tests.servers.wait import free_port, wait_until
from tests.system.site import Site, command


@pytest.fixture(scope="module")
def cluster(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RedisCluster]:
    with RedisCluster(tmp_path_factory.mktemp("cluster"), masters=3, replicas=1) as started:
        yield started


def site_config(cluster: RedisCluster, **redis: object) -> Config:
    cameras = [{"id": f"cam{number}", "url": "test://"} for number in range(6)]
    return from_document(
        {"redis": {"cluster": cluster.addresses, "timeout_seconds": 1.0, **redis}, "cameras": cameras}, {}
    )


def by_check(config: Config) -> dict[str, Finding]:
    found = examine_redis(config, running=False)
    checks = {finding.check: finding for finding in found}
    assert len(checks) == len(found), "each check once"
    return checks


def test_the_doctor_judges_a_cluster_and_each_of_its_nodes(cluster: RedisCluster, site: Site):
    config = site_config(cluster)
    for master in cluster.masters():
        master.ask("CONFIG", "SET", "maxmemory", 100_000_000, "maxmemory-policy", "volatile-ttl")
    found = by_check(config)
    assert {found[check].verdict for check in ("reachable", "slots", "failed nodes", "replicas")} == {"ok"}, found
    assert "all 6 nodes answer" in found["reachable"].found
    assert {
        found[check].verdict for check in ("version", "memory", "eviction", "expiry", "role", "TTL of journals")
    } == {"ok"}
    first = cluster.masters()[0]
    first.ask("CONFIG", "SET", "maxmemory-policy", "allkeys-lru")
    policy = by_check(config)["eviction"]
    assert policy.verdict == "warning"
    assert f"{first.address}: allkeys-lru" in policy.found
    site.write(cameras=[{"id": "cam1", "url": "test://"}], redis={"cluster": cluster.addresses})
    done = command("doctor", "-c", str(site.file), "--no-cameras", "--json")
    checks = json.loads(done.stdout)["findings"]
    assert [one["verdict"] for one in checks if one["check"] == "slots"] == ["ok"], done.stderr


def test_the_doctor_names_lost_replicas_nodes_and_slots(cluster: RedisCluster):
    config = site_config(cluster)
    master = cluster.masters()[0]
    replica = cluster.replica_of(master)
    replica.kill()
    cluster.await_down(replica)
    wait_until(lambda: by_check(config)["replicas"].verdict == "warning", 20, "the replica is missed")
    found = by_check(config)
    assert f"no replica follows {master.address}" in found["replicas"].found
    assert (found["reachable"].verdict, found["failed nodes"].verdict) == ("broken", "broken")
    assert f":{replica.port}" in found["reachable"].found
    assert found["slots"].verdict == "ok"
    master.kill()
    cluster.await_down(master)
    found = by_check(config)
    assert found["slots"].verdict == "broken" or f":{master.port}" in found["reachable"].found
    assert found["memory"].verdict in ("ok", "warning"), "of those that answer"
    for node in cluster.nodes:
        if node.running:
            node.kill()
    (only,) = examine_redis(config, running=False)
    assert (only.check, only.verdict) == ("reachable", "broken")
    assert "redis.cluster" in only.todo


def test_findings_of_nodes_are_one_for_each_check():
    ok, bad = Finding("redis", "memory", "ok", "1 of 2"), Finding("redis", "memory", "warning", "2 of 2", todo="more")
    a, b = Node("a", 1), Node("b", 2)
    assert together({a: [ok], b: [ok]}) == [ok]
    (both,) = together({a: [ok], b: [bad]})
    assert (both.verdict, both.found, both.todo) == ("warning", "a:1: 1 of 2; b:2: 2 of 2", "more")


def test_nodes_that_hang_are_asked_once_and_the_others_judged(tmp_path: Path):
    with RedisCluster(tmp_path, masters=3, replicas=1, node_timeout_ms=300_000) as cluster:
        cameras = [{"id": f"cam{number}", "url": "test://"} for number in range(6)]
        config = from_document(
            {
                "redis": {"cluster": cluster.addresses, "timeout_seconds": 1.0},
                "amqp": {"amqp_url": f"amqp://127.0.0.1:{free_port()}/"},
                "cameras": cameras,
            },
            {},
        )
        master = cluster.masters()[0]
        # Of this master, because others would pass on to it what the doctor writes.
        replica = cluster.replica_of(master)
        for server in (master, replica):
            server.ask("CONFIG", "RESETSTAT")
        cluster.partition(master, replica)
        found = {finding.check: finding for finding in reversed(examine(config, cameras=False).findings)}
        cluster.heal(master, replica)
        assert found["reachable"].verdict == "broken"
        assert "2 of 6 nodes do not answer" in found["reachable"].found
        assert all(f":{server.port}" in found["reachable"].found for server in (master, replica))
        assert found["expiry"].verdict == "ok", "of those that answer"
        assert found["replicas"].verdict == "ok", "of those that answer: what the other one has is not known"
        assert "a part of the cluster does not answer" in found["events waiting"].found
        for server in (master, replica):
            with server.client() as client:
                asked = set(client.info("commandstats"))
            assert asked <= {"cmdstat_hello", "cmdstat_cluster|slots", "cmdstat_cluster|nodes", *_OF_CLUSTERS}, asked


#: What the nodes and the test itself ask.
_OF_CLUSTERS = {"cmdstat_info", "cmdstat_config|resetstat", "cmdstat_replconf", "cmdstat_ping", "cmdstat_cluster|info"}
