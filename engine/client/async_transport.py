"""Sends a query's commands to Redis and gives it the replies, over asyncio connections. See ``transport``."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from typing import Any

import redis.asyncio as aioredis
from redis.asyncio.retry import Retry
from redis.backoff import NoBackoff
from redis.exceptions import RedisError

from engine.client.async_cluster_pool import AsyncClusterPool
from engine.client.async_connection import async_connection_kind, receive, send
from engine.client.transport import CONNECTIONS_MAX, Query, Result, check_open
from engine.errors import RedisUnavailable
from engine.servers.redis.connection import connection_options
from engine.servers.redis.errors import BAD_REPLIES, Command, checked, connection_error
from engine.servers.redis.patience import Patience
from engine.servers.redis.sentinel import find_master
from engine.wire.redis_address import RedisAddress


class AsyncTransport:
    """A pool of asyncio connections; used from one event loop."""

    def __init__(self, address: RedisAddress, timeout_seconds: float) -> None:
        self.address = address
        self._timeout_seconds = timeout_seconds
        #: See Transport.
        self._pool: aioredis.BlockingConnectionPool | None = None
        self._making = asyncio.Lock()
        self._nodes = AsyncClusterPool(address, timeout_seconds, CONNECTIONS_MAX)
        self._closed = False

    async def run(self, query: Query[Result]) -> Result:
        """Run a query to its result. Raises QueryError if the transport is closed."""
        check_open(self._closed)
        try:
            commands = next(query)
            while True:
                commands = query.send(await self.call(commands))
        except StopIteration as stop:
            result: Result = stop.value
            return result
        finally:
            query.close()

    async def call(self, commands: Sequence[Command]) -> list[Any]:
        """One round trip. Raises RedisUnavailable, ServerRefused, WireError."""
        check_open(self._closed)
        if self.address.cluster:
            return checked(self.address, commands, await self._nodes.call(commands))
        patience = Patience(self.address, self._timeout_seconds)
        while True:
            pool = None
            try:
                pool = await self._connections()
                return checked(self.address, commands, await self._once(pool, commands))
            except RedisUnavailable:
                await self._forget(pool)
                if patience.ends():
                    raise
            await asyncio.sleep(patience.pause())

    async def close(self) -> None:
        """Close all connections for good."""
        async with self._making:
            self._closed = True
            pool, self._pool = self._pool, None
        await self._nodes.close()
        if pool is not None:
            await pool.disconnect()

    async def _connections(self) -> aioredis.BlockingConnectionPool:
        async with self._making:
            check_open(self._closed)
            if self._pool is None:
                server = self.address
                if server.sentinel:
                    server, connection = await asyncio.to_thread(find_master, server, self._timeout_seconds)
                    connection.disconnect()
                self._pool = aioredis.BlockingConnectionPool(
                    connection_class=async_connection_kind(server),
                    max_connections=CONNECTIONS_MAX,
                    timeout=self._timeout_seconds,
                    retry=Retry(NoBackoff(), 0),
                    **connection_options(server, self._timeout_seconds),
                )
            return self._pool

    async def _forget(self, pool: aioredis.BlockingConnectionPool | None) -> None:
        if self.address.sentinel and pool is not None and self._pool is pool:
            self._pool = None
            await pool.disconnect(inuse_connections=False)

    async def _once(self, pool: aioredis.BlockingConnectionPool, commands: Sequence[Command]) -> list[Any]:
        connection: Any
        try:
            connection = await pool.get_connection()
        except (RedisError, OSError, *BAD_REPLIES) as error:
            raise connection_error(self.address, error) from None
        try:
            await send(connection, commands)
            return await receive(connection, commands)
        except (RedisError, OSError, *BAD_REPLIES) as error:
            await connection.disconnect()
            raise connection_error(self.address, error, "broke the connection") from None
        except BaseException:
            await connection.disconnect(nowait=True)
            raise
        finally:
            await pool.release(connection)
