"""Nodes of a cluster that hang: they take connections and answer nothing (SIGSTOP). Who is asked is counted there."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import pytest

from engine.errors import Cause, RedisUnavailable
from engine.servers.redis.masters import ask_masters
from engine.servers.redis.session import Session
from engine.wire.cluster import slot_of
from engine.wire.keys import journal_key
from engine.wire.redis_address import parse_redis_address
from tests.client.stocked import STORES, VHOST, Stored, frame, row, stock
from tests.servers.cluster_client import ReadCluster
from tests.servers.redis_cluster import ClusterServer
from tests.servers.wait import wait_until

both_stores = pytest.mark.parametrize("kind", STORES, ids=["FrameStore", "AsyncFrameStore"])
#: Questions about one node.
QUESTIONS = 20


@pytest.fixture(scope="module")
def cluster(tmp_path_factory: pytest.TempPathFactory) -> Iterator[ReadCluster]:
    """Three masters with a replica each, which take nothing over."""
    with ReadCluster(tmp_path_factory.mktemp("cluster"), replicas=1, node_timeout_ms=300_000) as started:
        yield started


@pytest.fixture
def frames(cluster: ReadCluster) -> list[Stored]:
    stored = row("cam1", 60)
    with cluster.client() as client:
        client.flushall()
        stock(client, stored)
    return stored


@contextmanager
def hanging(cluster: ReadCluster, *servers: ClusterServer) -> Iterator[None]:
    """These answer nothing until the end of the block; then they go on, and have counted what came meanwhile."""
    for server in servers:
        server.ask("CONFIG", "RESETSTAT")
    cluster.cluster.partition(*servers)
    try:
        yield
    finally:
        cluster.cluster.heal(*servers)


def calls(server: ClusterServer, name: str) -> int:
    """How often a node was asked this."""
    with server.client() as client:
        return int(client.info("commandstats").get(f"cmdstat_{name}", {}).get("calls", 0))


def masters(cluster: ReadCluster) -> list[ClusterServer]:
    """The masters, the one with the camera's journal last."""
    owner = cluster.cluster.owner(journal_key(VHOST, "frames", "cam1"))
    return sorted(cluster.cluster.masters(), key=lambda each: each is owner)


def keys_of(cluster: ReadCluster, server: ClusterServer, frames: list[Stored]) -> list[str]:
    return [key for key in (frame(stored).key for stored in frames) if cluster.cluster.owner(key) is server]


@both_stores
def test_a_hanging_master_is_waited_for_once_and_only_by_who_needs_it(
    cluster: ReadCluster, frames: list[Stored], kind: Any
) -> None:
    first, second, third = masters(cluster)
    hidden = keys_of(cluster, first, frames)
    seen = keys_of(cluster, second, frames) + keys_of(cluster, third, frames)
    assert hidden
    assert seen
    with kind(cluster.address, VHOST, timeout_seconds=1) as store:
        with hanging(cluster, first):
            assert all(store.get_many(seen)), "the first question of the store"
            for _ in range(QUESTIONS):
                with pytest.raises(RedisUnavailable) as caught:
                    store.get_many(hidden[:1] + seen)
                assert caught.value.cause is Cause.REDIS_HANGS
                assert str(first.port) in caught.value.fact
                assert all(store.get_many(seen))
        assert calls(first, "mget") == 1, "the question that waited"
        wait_until(lambda: answers(store, hidden), 20, "the store asks it again")


def answers(store: Any, keys: list[str]) -> bool:
    try:
        return all(store.get_many(keys))
    except RedisUnavailable:
        return False


@both_stores
def test_nodes_that_hang_do_not_keep_a_store_from_finding_the_others(
    cluster: ReadCluster, frames: list[Stored], kind: Any
) -> None:
    first, second, third = masters(cluster)
    replicas = [cluster.cluster.replica_of(master) for master in (first, second, third)]
    seen = keys_of(cluster, third, frames)
    order = [*replicas, first, second, third]
    address = f"cluster://{','.join(f'127.0.0.1:{node.announced_port}' for node in order)}"
    with hanging(cluster, *order[:-1]), kind(address, VHOST, timeout_seconds=30) as store:
        assert all(store.get_many(seen))


@both_stores
def test_a_replica_that_hangs_costs_nothing_where_replicas_are_not_read(
    cluster: ReadCluster, frames: list[Stored], kind: Any
) -> None:
    replicas = [cluster.cluster.replica_of(master) for master in cluster.cluster.masters()]
    wanted = [frame(stored) for stored in frames]
    with kind(cluster.address, VHOST, timeout_seconds=30) as store:
        with hanging(cluster, *replicas):
            for _ in range(3):
                assert list(store.range("cam1")) == wanted
        assert [calls(replica, name) for replica in replicas for name in ("mget", "xrange")] == [0] * 6


@both_stores
def test_where_replicas_are_read_one_that_hangs_is_asked_once(
    cluster: ReadCluster, frames: list[Stored], kind: Any
) -> None:
    first = masters(cluster)[0]
    replica = cluster.cluster.replica_of(first)
    hidden = keys_of(cluster, first, frames)
    with kind(cluster.address, VHOST, timeout_seconds=1, read_replicas=True) as store:
        with hanging(cluster, replica):
            for _ in range(QUESTIONS):
                assert all(store.get_many(hidden)), "its master has them, too"
        assert calls(replica, "mget") == len({slot_of(key.encode()) for key in hidden}), "the question that waited"


def test_a_session_connects_to_those_that_answer_and_asks_each_master_once(
    cluster: ReadCluster, frames: list[Stored]
) -> None:
    first, second, _ = masters(cluster)
    (hidden, *_), (seen, *_) = keys_of(cluster, first, frames), keys_of(cluster, second, frames)
    with hanging(cluster, first), Session(parse_redis_address(cluster.address), 1.0) as session:
        for _ in range(QUESTIONS):
            replies = {reply.address: reply for reply in ask_masters(session, ("DBSIZE",))}
            silent = replies.pop(f"redis://127.0.0.1:{first.port}")
            assert silent.error is not None
            assert silent.error.cause is Cause.REDIS_HANGS
            assert [type(reply.reply) for reply in replies.values()] == [int, int]
            assert session.call(("EXISTS", seen)) == [1]
            with pytest.raises(RedisUnavailable):
                session.call(("EXISTS", hidden))
    assert (calls(first, "dbsize"), calls(first, "exists")) == (1, 0), "all questions share what one has met"


def test_a_node_that_does_not_take_what_it_is_sent_is_not_taken_for_another(
    cluster: ReadCluster, frames: list[Stored]
) -> None:
    first, second, _ = masters(cluster)
    (hidden, *_), (seen, *_) = keys_of(cluster, first, frames), keys_of(cluster, second, frames)
    with Session(parse_redis_address(cluster.address), 1.0) as session, hanging(cluster, first):
        with pytest.raises(RedisUnavailable) as caught:
            session.call(("SET", hidden, bytes(64 * 2**20)), ("EXISTS", seen))
        assert caught.value.cause is Cause.REDIS_HANGS
        assert str(first.port) in caught.value.fact
        assert session.call(("EXISTS", seen)) == [1], "it is not silent"
