"""Blocking connections to the nodes of a cluster, shared by threads."""

from __future__ import annotations

import contextlib
import threading
from collections.abc import Sequence
from typing import Any

from engine.errors import Cause, RedisUnavailable
from engine.servers.redis.cluster_call import cluster_call
from engine.servers.redis.cluster_connections import NodeConnections
from engine.servers.redis.cluster_state import ClusterState
from engine.servers.redis.errors import Command
from engine.wire.redis_address import RedisAddress


class ClusterPool:
    """Sets of connections, one connection a node in each. A round trip has a set for itself."""

    def __init__(self, address: RedisAddress, timeout_seconds: float, sets_max: int) -> None:
        self._state = ClusterState(address, timeout_seconds, read_replicas=address.read_replicas)
        self._timeout_seconds = timeout_seconds
        self._free = threading.BoundedSemaphore(sets_max)
        self._idle: list[NodeConnections] = []
        self._closed = False

    def call(self, commands: Sequence[Command]) -> list[Any]:
        """One round trip; what fails is asked again within the timeout. Error replies are returned as ResponseError.
        Raises RedisUnavailable, ServerRefused."""
        if not self._free.acquire(timeout=self._timeout_seconds):
            raise exhausted(self._state.address)
        try:
            try:
                nodes = self._idle.pop()
                nodes.drop_stale()
            except IndexError:
                nodes = NodeConnections(self._state, self._timeout_seconds)
            try:
                return nodes.run(cluster_call(self._state, commands, self._timeout_seconds, repeats=True))
            finally:
                self._idle.append(nodes)
                if self._closed:
                    self._close_idle()
        finally:
            self._free.release()

    def close(self) -> None:
        """Close all connections; those in use when their round trip ends."""
        self._closed = True
        self._close_idle()

    def _close_idle(self) -> None:
        with contextlib.suppress(IndexError):
            while True:
                self._idle.pop().close()


def exhausted(address: RedisAddress) -> RedisUnavailable:
    """The error of a store whose threads or tasks use all connections."""
    subject = f"Redis at {address}"
    return RedisUnavailable(
        f"{subject} cannot be reached: all connections are in use", cause=Cause.REDIS_AWAY, subject=subject
    )
