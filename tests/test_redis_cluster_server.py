"""The test cluster: everything that is done to it happens, while a plain client writes."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Self

import psutil
import pytest
import redis

from tests.servers.redis_cluster import RedisCluster
from tests.servers.wait import wait_until

#: Slots that the added node takes over.
SLOTS = 200


class Load:
    """Writes numbered keys until the end, each until a server has acknowledged it."""

    def __init__(self, cluster: RedisCluster) -> None:
        self._cluster = cluster
        self._thread = threading.Thread(target=self._write)
        self._ending = threading.Event()
        self.written = 0

    def _write(self) -> None:
        with self._cluster.client(socket_timeout=1) as client:
            while not self._ending.is_set():
                try:
                    client.set(f"key{self.written}", self.written)
                except redis.RedisError:
                    continue
                except AttributeError:
                    # So redis-py fails where it is sent on (ASK) to a node that it has not heard of.
                    client.nodes_manager.initialize()
                    continue
                self.written += 1

    def goes_on(self) -> None:
        """Wait until a hundred more are written."""
        before = self.written
        wait_until(lambda: self.written > before + 100, 20, "keys are written")

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._ending.set()
        self._thread.join(30)


@pytest.fixture
def cluster(tmp_path: Path) -> Iterator[RedisCluster]:
    with RedisCluster(tmp_path) as made:
        pids = [node.pid for node in made.nodes]
        yield made
    assert not any(map(psutil.pid_exists, pids))


def missing(cluster: RedisCluster, written: int) -> list[int]:
    """Numbers of the keys that the cluster does not have."""
    with cluster.client() as client:
        pipeline = client.pipeline()
        for number in range(written):
            pipeline.get(f"key{number}")
        return [number for number, value in enumerate(pipeline.execute()) if value != b"%d" % number]


def test_all_that_can_be_done_to_a_cluster(cluster: RedisCluster) -> None:
    with Load(cluster) as load:
        load.goes_on()
        # In order, nothing may be lost.
        old = cluster.masters()[0]
        replica = cluster.replica_of(old)
        assert cluster.failover(0) is replica
        assert cluster.replica_of(replica) is old
        load.goes_on()
        added = cluster.add_node()
        assert cluster.masters()[-1] is added
        source = cluster.masters()[1]
        given = cluster.slots_of(source)[:SLOTS]
        cluster.move_slots(source, added, given)
        assert cluster.slots_of(added) == given
        wait_until(lambda: cluster.keys_of(added), 20, "the added node has keys")
        assert all(cluster.owner(key) is added for key in cluster.keys_of(added))
        load.goes_on()
        cluster.remove_node(added)
        assert added not in cluster.masters()
        assert len(cluster.addresses) == 6
        load.goes_on()
        ordered = load.written
        # What follows may cost what a replica had not got.
        victim = cluster.masters()[0]
        assert cluster.kill_master(0) is old
        load.goes_on()
        cluster.restart(victim)
        assert cluster.replica_of(old) is victim
        victim = cluster.masters()[1]
        successor = cluster.partition_master(1)
        load.goes_on()
        cluster.heal(victim)
        assert cluster.replica_of(successor) is victim
        load.goes_on()
    lost = missing(cluster, load.written)
    assert len(lost) < load.written / 10
    assert len(cluster.masters()) == 3
    assert ordered > 400
