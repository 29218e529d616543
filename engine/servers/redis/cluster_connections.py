"""One blocking connection to each node of a cluster."""

from __future__ import annotations

import time
from collections.abc import Mapping
from typing import Any

from redis.connection import AbstractConnection

from engine.errors import EngineError
from engine.servers.redis.cluster_call import Pause, Renew, Send, Step, Steps
from engine.servers.redis.cluster_round import Request
from engine.servers.redis.cluster_state import ClusterState
from engine.servers.redis.connection import open_connection, receive, send
from engine.wire.cluster import Node


class NodeConnections:
    """Connections that are made when needed, and again after they break. For one thread."""

    def __init__(self, state: ClusterState, timeout_seconds: float) -> None:
        self.state = state
        self._timeout_seconds = timeout_seconds
        self._open: dict[Node, AbstractConnection] = {}
        #: True after a connection broke, until a round trip succeeds.
        self._failed = False

    @property
    def connected(self) -> bool:
        """True while there are connections, and none has failed."""
        return bool(self._open) and not self._failed

    def connect(self) -> None:
        """Connect to every master. Raises RedisUnavailable, ServerRefused."""
        try:
            for node in (self.state.map or self.state.renew()).masters:
                self._connection(node)
        except EngineError:
            self.close()
            self.state.map = None
            raise

    def run(self, steps: Steps) -> list[Any]:
        """Carry out what a ``cluster_call`` asks for. After an interrupt all connections are closed, because replies
        may be on their way."""
        outcome: Any = None
        try:
            step = next(steps)
            while True:
                try:
                    outcome = self._carry_out(step)
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
            self.close()
            raise

    def close(self) -> None:
        """Drop all connections. The next call makes others."""
        for connection in self._open.values():
            connection.disconnect()
        self._open.clear()

    def drop_stale(self) -> None:
        """Drop the connections that a server has closed meanwhile, or on which something came that nobody asked for."""
        for node, connection in list(self._open.items()):
            try:
                stale = connection.can_read(timeout=0)
            except Exception:
                # Whatever it is, the connection cannot be used.
                stale = True
            if stale:
                self._drop(node)

    def _carry_out(self, step: Step) -> Any:
        if isinstance(step, Renew):
            known = self.state.renew()
            for node in set(self._open).difference(known.nodes):
                self._drop(node)
            return known
        if isinstance(step, Pause):
            time.sleep(step.seconds)
            return None
        assert isinstance(step, Send)
        return self._exchange(step.requests)

    def _exchange(self, requests: Mapping[Node, Request]) -> dict[Node, list[Any] | EngineError]:
        """Send to all nodes, then read their replies, so that they work side by side."""
        outcome: dict[Node, list[Any] | EngineError] = {}
        self._failed = False
        for node, request in requests.items():
            try:
                send(self.state.address.node(*node), self._connection(node), request.commands)
            except EngineError as error:
                outcome[node] = self._broken(node, error)
        for node, request in requests.items():
            if node not in outcome:
                try:
                    outcome[node] = receive(self.state.address.node(*node), self._open[node], request.commands)
                except EngineError as error:
                    outcome[node] = self._broken(node, error)
        return outcome

    def _connection(self, node: Node) -> AbstractConnection:
        if node not in self._open:
            self._open[node] = open_connection(self.state.address.node(*node), self._timeout_seconds)
        return self._open[node]

    def _broken(self, node: Node, error: EngineError) -> EngineError:
        self._drop(node)
        self._failed = True
        return error

    def _drop(self, node: Node) -> None:
        if (connection := self._open.pop(node, None)) is not None:
            connection.disconnect()
