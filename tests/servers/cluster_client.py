"""A client of a test's Redis Cluster that can be used where a test has a client of one server."""

from __future__ import annotations

import itertools
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import redis
from redis.cluster import ClusterNode
from redis.crc import key_slot

from tests.servers.redis_cluster import RedisCluster

#: Commands of one round trip to a node.
_PIPELINE = 2000


class ClusterClient(redis.RedisCluster):
    """redis-py's client of a cluster; ``pipe`` sends many commands, a few round trips in all."""

    def pipe(self, commands: Iterable[tuple[Any, ...]]) -> None:
        """Run commands whose key is their second word; none may fail, and those of one key are run in order."""
        todo = iter(commands)
        while part := list(itertools.islice(todo, _PIPELINE)):
            of_node: dict[str, list[tuple[Any, ...]]] = {}
            for command in part:
                key = command[1] if isinstance(command[1], bytes) else str(command[1]).encode()
                of_node.setdefault(self.nodes_manager.get_node_from_slot(key_slot(key)).name, []).append(command)
            for name, own in of_node.items():
                connection: Any = self.get_redis_connection(self.get_node(node_name=name)).connection_pool
                connection, pool = connection.get_connection(), connection
                try:
                    connection.send_packed_command(connection.pack_commands(own))
                    for _ in own:
                        connection.read_response()
                finally:
                    pool.release(connection)


class ReadCluster:
    """A cluster with the parts of ``RedisServer`` that tests of reading use: an address, and clients."""

    def __init__(self, directory: Path, *, masters: int = 3, replicas: int = 0, **options: Any) -> None:
        self.cluster = RedisCluster(directory, masters=masters, replicas=replicas, **options)

    @property
    def address(self) -> str:
        """The URL of the cluster, for a store or a command."""
        return f"cluster://{','.join(self.cluster.addresses)}"

    def client(self, **options: Any) -> ClusterClient:
        """A client of the cluster."""
        nodes = [ClusterNode("127.0.0.1", node.announced_port) for node in self.cluster.nodes if node.running]
        return ClusterClient(startup_nodes=nodes, **options)

    def __enter__(self) -> ReadCluster:
        self.cluster.start()
        return self

    def __exit__(self, *_: object) -> None:
        self.cluster.stop()
