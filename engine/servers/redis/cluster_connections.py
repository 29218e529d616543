"""One blocking connection to each node of a cluster."""

from __future__ import annotations

import time
from collections.abc import Iterable, Mapping
from functools import partial
from typing import Any

from redis.connection import AbstractConnection

from engine.errors import Cause, EngineError, RedisUnavailable
from engine.servers.redis.cluster_call import Pause, Renew, Send, Step, Steps
from engine.servers.redis.cluster_round import Request
from engine.servers.redis.cluster_state import ClusterState
from engine.servers.redis.connection import open_connection, receive, send
from engine.servers.redis.side_by_side import all_outcomes
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
        """Connect to every master that answers. Raises RedisUnavailable if none does, ServerRefused if one refuses."""
        known = self.state.map or self.state.renew()
        errors = self._open_all(known.masters)
        for node, error in errors.items():
            self.state.silent.note(node, error)
            self.state.failed(known, node)
            if len(errors) == len(known.masters) or not isinstance(error, RedisUnavailable):
                self.close()
                raise error

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
        outcome.update(self._open_all(requests))
        self._failed = bool(outcome)
        if any(_hangs(error) for error in outcome.values()):
            # The time is over. What others would answer is not the whole.
            return outcome
        sent: list[Node] = []
        for node, request in requests.items():
            if node not in outcome:
                try:
                    send(self.state.address.node(*node), self._open[node], request.commands)
                    sent.append(node)
                except EngineError as error:
                    outcome[node] = self._broken(node, error)
                    if _hangs(error):
                        # The time is over: others that were sent something now would have none to answer.
                        break
        for node in sent:
            if node not in outcome:
                # While one node was waited for in vain, the others had the same time to begin.
                begun = any(_hangs(answer) for answer in outcome.values())
                where = self.state.address.node(*node)
                try:
                    outcome[node] = receive(where, self._open[node], requests[node].commands, begun=begun)
                except EngineError as error:
                    outcome[node] = self._broken(node, error)
        return outcome

    def _open_all(self, nodes: Iterable[Node]) -> dict[Node, EngineError]:
        """Connect to all of these, side by side; why those fail that do."""
        missing = [node for node in nodes if node not in self._open]
        if not missing:
            return {}
        address = self.state.address
        outcomes = all_outcomes(
            [partial(open_connection, address.node(*node), self._timeout_seconds) for node in missing]
        )
        errors = {}
        for node, outcome in zip(missing, outcomes, strict=True):
            if isinstance(outcome, EngineError):
                errors[node] = outcome
            else:
                self._open[node] = outcome
        return errors

    def _broken(self, node: Node, error: EngineError) -> EngineError:
        self._drop(node)
        self._failed = True
        return error

    def _drop(self, node: Node) -> None:
        if (connection := self._open.pop(node, None)) is not None:
            connection.disconnect()


def _hangs(answer: object) -> bool:
    """True for the error of a node that did not answer in time."""
    return isinstance(answer, EngineError) and answer.cause is Cause.REDIS_HANGS
