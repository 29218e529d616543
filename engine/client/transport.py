"""Sends a query's commands to Redis and gives it the replies, over blocking connections; ``async_transport`` is for
asyncio.

A query is a generator. It yields the commands of one round trip and is sent their replies (RESP2, unchanged). Its
return value is the result. So each query is written once, and contains neither socket nor event loop.

All commands of a query only read, so a command that fails on a broken connection is sent again. Error replies never
reach a query: they become an EngineError here, with the server and the key.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Generator, Sequence
from typing import Any, TypeVar

import redis
from redis.backoff import NoBackoff
from redis.exceptions import RedisError
from redis.retry import Retry

from engine.client.cluster_pool import ClusterPool
from engine.errors import EngineError, QueryError, RedisUnavailable
from engine.servers.redis.connection import call, connection_kind, connection_options
from engine.servers.redis.errors import BAD_REPLIES, Command, checked, connection_error
from engine.servers.redis.patience import Patience
from engine.servers.redis.sentinel import find_master
from engine.wire.redis_address import RedisAddress

Result = TypeVar("Result")
Query = Generator[Sequence[Command], list[Any], Result]

#: Connections that the threads or tasks of one store share; further ones wait.
CONNECTIONS_MAX = 16


class Transport:
    """A pool of blocking connections; may be shared by threads."""

    def __init__(self, address: RedisAddress, timeout_seconds: float) -> None:
        self.address = address
        self._timeout_seconds = timeout_seconds
        #: Made for the first query; for a Sentinel service, made again after a failure, for the current master.
        self._pool: redis.BlockingConnectionPool | None = None
        self._making = threading.Lock()
        self._nodes = ClusterPool(address, timeout_seconds, CONNECTIONS_MAX)
        self._closed = False

    def run(self, query: Query[Result]) -> Result:
        """Run a query to its result. Raises QueryError if the transport is closed."""
        check_open(self._closed)
        try:
            commands = next(query)
            while True:
                commands = query.send(self.call(commands))
        except StopIteration as stop:
            result: Result = stop.value
            return result
        finally:
            query.close()

    def call(self, commands: Sequence[Command]) -> list[Any]:
        """One round trip. Raises RedisUnavailable, ServerRefused, WireError."""
        check_open(self._closed)
        if self.address.cluster:
            return checked(self.address, commands, self._nodes.call(commands))
        patience = Patience(self.address, self._timeout_seconds)
        while True:
            pool = None
            try:
                pool = self._connections()
                return checked(self.address, commands, self._once(pool, commands))
            except RedisUnavailable:
                self._forget(pool)
                if patience.ends():
                    raise
            time.sleep(patience.pause())

    def close(self) -> None:
        """Close all connections for good."""
        with self._making:
            self._closed = True
            pool, self._pool = self._pool, None
        self._nodes.close()
        if pool is not None:
            pool.disconnect()

    def _connections(self) -> redis.BlockingConnectionPool:
        with self._making:
            # Another thread may have closed the transport during the query.
            check_open(self._closed)
            if self._pool is None:
                server = self.address
                if server.sentinel:
                    server, connection = find_master(server, self._timeout_seconds)
                    connection.disconnect()
                self._pool = redis.BlockingConnectionPool(
                    connection_class=connection_kind(server),
                    max_connections=CONNECTIONS_MAX,
                    timeout=self._timeout_seconds,
                    retry=Retry(NoBackoff(), 0),
                    **connection_options(server, self._timeout_seconds),
                )
            return self._pool

    def _forget(self, pool: redis.BlockingConnectionPool | None) -> None:
        """Ask the sentinels again, unless another thread has already."""
        if self.address.sentinel and pool is not None and self._pool is pool:
            self._pool = None
            pool.disconnect(inuse_connections=False)

    def _once(self, pool: redis.BlockingConnectionPool, commands: Sequence[Command]) -> list[Any]:
        try:
            connection = pool.get_connection()
        except (RedisError, OSError, *BAD_REPLIES) as error:
            raise connection_error(self.address, error) from None
        try:
            return call(self.address, connection, *commands)
        except EngineError:
            raise
        except BaseException:
            # Interrupted between a command and its reply: the connection cannot be used again.
            connection.disconnect()
            raise
        finally:
            pool.release(connection)


def check_open(closed: bool) -> None:
    """Raises QueryError if a transport is closed."""
    if closed:
        raise QueryError("this store is closed; make another one, or ask before it is closed")
