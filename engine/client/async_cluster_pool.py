"""Asyncio connections to the nodes of a cluster. See ``cluster_pool`` and ``cluster_connections``."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping, Sequence
from typing import Any

from redis.asyncio.retry import Retry
from redis.backoff import NoBackoff
from redis.exceptions import RedisError

from engine.client.async_connection import async_connection_kind, receive, send
from engine.client.cluster_pool import exhausted
from engine.errors import EngineError
from engine.servers.redis.cluster_call import Pause, Renew, Send, Step, Steps, cluster_call
from engine.servers.redis.cluster_round import Request
from engine.servers.redis.cluster_state import ClusterState
from engine.servers.redis.connection import connection_options
from engine.servers.redis.errors import BAD_REPLIES, Command, connection_error
from engine.wire.cluster import Node
from engine.wire.redis_address import RedisAddress


class AsyncNodeConnections:
    """One connection to each node, made when needed. For one task."""

    def __init__(self, state: ClusterState, timeout_seconds: float) -> None:
        self._state = state
        self._timeout_seconds = timeout_seconds
        self._open: dict[Node, Any] = {}

    async def run(self, steps: Steps) -> list[Any]:
        """Carry out what a ``cluster_call`` asks for."""
        outcome: Any = None
        try:
            step = next(steps)
            while True:
                try:
                    outcome = await self._carry_out(step)
                except EngineError as error:
                    step = steps.throw(error)
                else:
                    step = steps.send(outcome)
        except StopIteration as stop:
            replies: list[Any] = stop.value
            return replies
        except EngineError:
            raise
        except BaseException:
            # Cancelled between a command and its reply: no connection can be used again.
            await self.close(nowait=True)
            raise

    async def close(self, *, nowait: bool = False) -> None:
        """Drop all connections."""
        while self._open:
            await self._open.popitem()[1].disconnect(nowait=nowait)

    async def drop_stale(self) -> None:
        """See NodeConnections.drop_stale."""
        for node, connection in list(self._open.items()):
            try:
                stale = await connection.can_read()
            except Exception:
                # Whatever it is, the connection cannot be used.
                stale = True
            if stale:
                await self._drop(node)

    async def _carry_out(self, step: Step) -> Any:
        if isinstance(step, Renew):
            known = await asyncio.to_thread(self._state.renew)
            for node in set(self._open).difference(known.nodes):
                await self._drop(node)
            return known
        if isinstance(step, Pause):
            await asyncio.sleep(step.seconds)
            return None
        assert isinstance(step, Send)
        return await self._exchange(step.requests)

    async def _exchange(self, requests: Mapping[Node, Request]) -> dict[Node, list[Any] | EngineError]:
        """Ask all nodes side by side."""
        answers = await asyncio.gather(*(self._ask(node, request.commands) for node, request in requests.items()))
        return dict(zip(requests, answers, strict=True))

    async def _ask(self, node: Node, commands: Sequence[Command]) -> list[Any] | EngineError:
        """The replies of one node, or why there are none."""
        try:
            connection = await self._connection(node)
            await send(connection, commands)
            return await receive(connection, commands)
        except EngineError as error:
            return error
        except (RedisError, OSError, *BAD_REPLIES) as error:
            return await self._broken(node, error)

    async def _connection(self, node: Node) -> Any:
        if node not in self._open:
            address = self._state.address.node(*node)
            options = connection_options(address, self._timeout_seconds)
            connection = async_connection_kind(address)(**options, retry=Retry(NoBackoff(), 0))
            try:
                await connection.connect()
            except (RedisError, OSError, *BAD_REPLIES) as error:
                await connection.disconnect(nowait=True)
                raise connection_error(address, error) from None
            except BaseException:
                await connection.disconnect(nowait=True)
                raise
            self._open[node] = connection
        return self._open[node]

    async def _broken(self, node: Node, error: Exception) -> EngineError:
        await self._drop(node)
        return connection_error(self._state.address.node(*node), error, "broke the connection")

    async def _drop(self, node: Node) -> None:
        if (connection := self._open.pop(node, None)) is not None:
            await connection.disconnect(nowait=True)


class AsyncClusterPool:
    """``ClusterPool`` for the tasks of one event loop."""

    def __init__(self, address: RedisAddress, timeout_seconds: float, sets_max: int) -> None:
        self._state = ClusterState(address, timeout_seconds, read_replicas=address.read_replicas)
        self._timeout_seconds = timeout_seconds
        self._free = asyncio.BoundedSemaphore(sets_max)
        self._idle: list[AsyncNodeConnections] = []
        self._closed = False

    async def call(self, commands: Sequence[Command]) -> list[Any]:
        """See ClusterPool.call."""
        try:
            await asyncio.wait_for(self._free.acquire(), self._timeout_seconds)
        except TimeoutError:
            raise exhausted(self._state.address) from None
        try:
            nodes = self._idle.pop() if self._idle else AsyncNodeConnections(self._state, self._timeout_seconds)
            try:
                await nodes.drop_stale()
                return await nodes.run(cluster_call(self._state, commands, self._timeout_seconds, repeats=True))
            finally:
                self._idle.append(nodes)
                if self._closed:
                    await self._close_idle()
        finally:
            self._free.release()

    async def close(self) -> None:
        """See ClusterPool.close."""
        self._closed = True
        await self._close_idle()

    async def _close_idle(self) -> None:
        while self._idle:
            await self._idle.pop().close()
