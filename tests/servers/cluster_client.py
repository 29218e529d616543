"""A test's Redis that is one server or a cluster: a client of a cluster, and a cluster in place of a server."""

from __future__ import annotations

import itertools
from collections.abc import Iterable
from pathlib import Path
from typing import Any
from urllib.parse import quote

import pytest
import redis
from redis.cluster import ClusterNode
from redis.crc import key_slot

from tests.servers.redis_cluster import RedisCluster
from tests.servers.redis_server import RedisServer

#: The values of the fixture ``redis_kind``.
ONE_SERVER, CLUSTER = "one server", "cluster"
#: Commands of one round trip to a node.
_PIPELINE = 2000


class ClusterClient(redis.RedisCluster):
    """redis-py's client of a cluster that answers what redis-py leaves to one node. ``pipe`` sends many commands, a few
    round trips in all."""

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

    def mget(self, names: Any, *more: Any) -> list[Any]:
        """The values of keys of any slots."""
        asked = [*([names] if isinstance(names, bytes | str) else names), *more]
        with self.pipeline(transaction=False) as pipeline:
            for name in asked:
                pipeline.get(name)
            return list(pipeline.execute())

    def keys(self, pattern: str = "*") -> list[bytes]:  # type: ignore[override]
        """The keys of all masters."""
        return [key for server in servers(self) for key in server.keys(pattern)]

    def dbsize(self) -> int:  # type: ignore[override]
        """The number of all keys."""
        return sum(server.dbsize() for server in servers(self))

    def time(self) -> Any:
        """The clock of one node: they are on one machine."""
        return self.get_redis_connection(self.get_primaries()[0]).time()


class ReadCluster:
    """A cluster with the parts of ``RedisServer`` that tests of reading use: addresses, and clients."""

    def __init__(self, directory: Path, *, masters: int = 3, replicas: int = 0, **options: Any) -> None:
        self.cluster = RedisCluster(directory, masters=masters, replicas=replicas, **options)

    @property
    def address(self) -> str:
        """The URL of the cluster without credentials, for a store or a command."""
        return self._url("")

    @property
    def url(self) -> str:
        """The URL with credentials."""
        login = self.cluster.login
        if not login:
            return self.address
        return self._url(f"{quote(login.get('username', ''), safe='')}:{quote(login['password'], safe='')}@")

    def _url(self, login: str) -> str:
        nodes = [address.removeprefix("rediss://") for address in self.cluster.addresses]
        return f"{'clusters' if self.cluster.tls else 'cluster'}://{login}{','.join(nodes)}"

    @property
    def section(self) -> dict[str, Any]:
        """The keys of a site's ``[redis]`` that name it."""
        return {"cluster": self.cluster.addresses}

    def client(self, **options: Any) -> ClusterClient:
        """A client of the cluster."""
        nodes = [ClusterNode(node.host, node.announced_port) for node in self.cluster.nodes if node.running]
        return ClusterClient(startup_nodes=nodes, **self.cluster.client_options, **options)

    def __enter__(self) -> ReadCluster:
        self.cluster.start()
        return self

    def __exit__(self, *_: object) -> None:
        self.cluster.stop()


AnyServer = RedisServer | ReadCluster
AnyClient = redis.Redis | ClusterClient


def owner(server: AnyServer, key: str) -> RedisServer:
    """The server that has a key."""
    return server if isinstance(server, RedisServer) else server.cluster.owner(key)


def servers(client: AnyClient) -> list[redis.Redis]:
    """Clients of the one server, or of each master."""
    if isinstance(client, ClusterClient):
        return [client.get_redis_connection(node) for node in client.get_primaries()]
    return [client]


def connections(client: AnyClient) -> list[dict[str, str]]:
    """All connections to a server, or to the masters of a cluster."""
    return [connection for server in servers(client) for connection in server.client_list()]


def on_both(metafunc: pytest.Metafunc) -> None:
    """Run a test twice that uses a Redis: it is one server, and a cluster. Not if it is marked ``one_server``."""
    if "redis_kind" in metafunc.fixturenames and not metafunc.definition.get_closest_marker("one_server"):
        metafunc.parametrize("redis_kind", [ONE_SERVER, CLUSTER], indirect=True, scope="session")
