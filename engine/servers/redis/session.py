"""One connection to Redis for callers that ask occasionally: readers of events, the publisher, jobs, the doctor.

The writer's store and asyncio have their own I/O; both connect in the same way.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any, Self

from redis.connection import AbstractConnection
from redis.exceptions import AskError, ClusterDownError, ResponseError, TryAgainError

from engine.errors import Cause, RedisUnavailable
from engine.servers.redis.cluster_call import cluster_call
from engine.servers.redis.cluster_connections import NodeConnections
from engine.servers.redis.cluster_state import ClusterState
from engine.servers.redis.connect import check_mode, connect, hello, hello_fields
from engine.servers.redis.connection import call
from engine.servers.redis.errors import Command, checked, demoted
from engine.wire.cluster import ClusterMap, Node, slot_of
from engine.wire.redis_address import RedisAddress

#: Commands of one round trip. Bounds a job's memory, and how long it blocks Redis for others (a few milliseconds).
BATCH_MAX = 500
#: Keys that one SCAN examines.
_SCAN_COUNT = 1000
#: Passes of a scan over a cluster whose slots move meanwhile.
_PASSES_MAX = 5


class Session:
    """A connection that is made when needed, and renewed after it breaks. For one thread.

    Nothing is sent twice: if the connection breaks, a call raises RedisUnavailable, and the caller decides whether to
    repeat it. If a server reports that it is no longer a master, the connection is closed, so that the next call asks
    the sentinels.

    Of a cluster it has one connection to each node. Commands go to the nodes that have their keys, side by side, and
    their replies come in the order of the commands, as from one server. A node that sends a command elsewhere (MOVED,
    ASK, TRYAGAIN, CLUSTERDOWN) has not carried it out: it is sent again, within the timeout. Transactions belong to
    one node: see ``node_of``.

    With ``checks_mode`` each new connection identifies its server, and refuses a node of a cluster or a sentinel.
    Without it, only the caller's commands are sent, because users of least privilege may send little else.

    As a context manager it connects at once. Every method that uses Redis raises RedisUnavailable if Redis is away, and
    ServerRefused if it refuses this user.
    """

    def __init__(self, address: RedisAddress, timeout_seconds: float, *, checks_mode: bool = False) -> None:
        self.address = address
        self._timeout_seconds = timeout_seconds
        self._checks_mode = checks_mode
        self._connection: AbstractConnection | None = None
        self._nodes = NodeConnections(ClusterState(address, timeout_seconds), timeout_seconds)
        self._node_sessions: dict[Node, NodeSession] = {}

    def __enter__(self) -> Self:
        self.connect()
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    @property
    def connected(self) -> bool:
        """True while there is a connection that has not failed."""
        return self._connection is not None or self._nodes.connected

    def connect(self) -> None:
        """Connect, unless connected. Of a cluster, to every master that answers; what needs another one fails."""
        if self.address.cluster:
            self._nodes.connect()
        else:
            self._connected()

    def close(self) -> None:
        """Drop the connection. The next call makes another."""
        if self._connection is not None:
            self._connection.disconnect()
            self._connection = None
        self._nodes.close()
        for session in self._node_sessions.values():
            session.close()

    def hello(self) -> dict[str, str]:
        """The server's own description: ``server``, ``version``, ``mode``. Empty for a server before version 6."""
        (reply,) = self.try_call(("HELLO",))
        return {} if is_error(reply) else hello_fields(reply)

    def call(self, *commands: Command) -> list[Any]:
        """One round trip. Raises the translation of the first error reply."""
        return self.check(commands, self.try_call(*commands))

    def try_call(self, *commands: Command) -> list[Any]:
        """One round trip. Error replies are returned as ResponseError."""
        if not commands:
            return []
        if self.address.cluster:
            return self._nodes.run(cluster_call(self._nodes.state, commands, self._timeout_seconds))
        connection = self._connected()
        try:
            replies = call(self.address, connection, *commands)
        except BaseException:
            # Also after an interrupt between a command and its reply: the connection cannot be used again.
            self.close()
            raise
        if self.address.sentinel and any(is_error(reply) and demoted(reply) for reply in replies):
            self.close()
        return replies

    def call_many(self, commands: Sequence[Command]) -> list[Any]:
        """As many round trips as needed. Error replies are returned as ResponseError."""
        return [reply for part in batches(commands) for reply in self.try_call(*part)]

    def check(self, commands: Sequence[Command], replies: list[Any]) -> list[Any]:
        """The replies, if none is an error. Raises the translation of the first error."""
        return checked(self.address, commands, replies)

    def node_of(self, key: str | bytes) -> Session:
        """A session with the node that has ``key``, for a transaction about keys of its slot. It is this session if
        there is one server.

        Its calls raise RedisUnavailable if the slot has another node by then; ask for the node again, and try again.
        """
        if not self.address.cluster:
            return self
        known = self._known()
        slot = slot_of(key if isinstance(key, bytes) else key.encode())
        node = known.master_of(slot)
        if node is None:
            self._nodes.state.failed(known, None)
            fact = f"Redis at {self.address} cannot answer now: no node has slot {slot}"
            raise RedisUnavailable(fact, cause=Cause.BUSY, subject=f"Redis at {self.address}")
        return self._node_session(node)

    def masters(self) -> list[Session]:
        """A session with each master of a cluster, as of some seconds ago; this session alone if there is one
        server."""
        if not self.address.cluster:
            return [self]
        return [self._node_session(node) for node in self._nodes.state.recent().masters]

    def replicas(self) -> list[Session]:
        """A session with each replica of a cluster that counts as working, as of some seconds ago; none if there is one
        server."""
        if not self.address.cluster:
            return []
        known = self._nodes.state.recent()
        return [self._node_session(node) for nodes in known.replicas.values() for node in nodes]

    def scan(self, pattern: str) -> Iterator[list[bytes]]:
        """Matching keys, one step at a time. As with SCAN, a step may be empty, and a key may appear twice.

        A key of a cluster that goes to another node meanwhile could be missed at both. So a cluster is scanned again
        if slots have moved, or were on their way, until none is; at most five times in all.
        """
        for _ in range(_PASSES_MAX):
            before = self._settled_map()
            cursor = b"0"
            while True:
                cursor, found = self.call(("SCAN", cursor, "MATCH", pattern, "COUNT", _SCAN_COUNT))[0]
                yield found
                if cursor == b"0":
                    break
            if not self.address.cluster:
                return
            after = self._settled_map()
            if before is not None and after is not None and before.has_slots_of(after):
                return

    def scan_steps(self) -> int:
        """Approximate number of steps of a scan."""
        size: int = self.call(("DBSIZE",))[0]
        return size // _SCAN_COUNT + 1

    def _connected(self) -> AbstractConnection:
        if self._connection is None:
            connection = connect(self.address, self._timeout_seconds)
            try:
                if self._checks_mode:
                    check_mode(self.address, hello(self.address, connection).get("mode", ""))
            except BaseException:
                connection.disconnect()
                raise
            self._connection = connection
        return self._connection

    def _known(self) -> ClusterMap:
        state = self._nodes.state
        return state.map or state.renew()

    def _settled_map(self) -> ClusterMap | None:
        """A cluster's map as it is at this moment; None if slots are on their way, or if that cannot be known."""
        if not self.address.cluster:
            return None
        self._nodes.state.map = None
        known = self._known()
        for master in self.masters():
            (nodes,) = master.try_call(("CLUSTER", "NODES"))
            # A node writes its own slots that leave or come in brackets.
            if not isinstance(nodes, bytes) or b"[" in nodes:
                return None
        return known

    def _node_session(self, node: Node) -> NodeSession:
        if node not in self._node_sessions:
            self._node_sessions[node] = NodeSession(self._nodes.state, node, self._timeout_seconds)
        return self._node_sessions[node]


class NodeSession(Session):
    """A session with one node of a cluster."""

    def __init__(self, state: ClusterState, node: Node, timeout_seconds: float) -> None:
        super().__init__(state.address.node(*node), timeout_seconds)
        self._state = state
        self._node = node

    def try_call(self, *commands: Command) -> list[Any]:
        """See Session.try_call. Raises RedisUnavailable if another node has the keys, or this one does not serve."""
        known = self._state.map
        if silent := self._state.silent.error(self._node):
            raise silent
        try:
            replies = super().try_call(*commands)
        except RedisUnavailable as error:
            self._state.silent.note(self._node, error)
            self._forget(known)
            raise
        for reply in replies:
            if isinstance(reply, AskError | ClusterDownError | TryAgainError) or (is_error(reply) and demoted(reply)):
                # What a transaction has queued until here must not wait for its end.
                self.close()
                self._forget(known)
                fact = f"Redis at {self.address} cannot answer now: its slots are moving or it is no master ({reply})"
                raise RedisUnavailable(fact, cause=Cause.BUSY, subject=f"Redis at {self.address}")
        return replies

    def _forget(self, known: ClusterMap | None) -> None:
        if known is not None:
            self._state.failed(known, self._node)


def batches(items: Sequence[Any], size: int = BATCH_MAX) -> Iterator[Sequence[Any]]:
    """``items`` in parts of at most ``size``."""
    for first in range(0, len(items), size):
        yield items[first : first + size]


def is_error(reply: object) -> bool:
    """True for a reply of ``try_call`` that is an error."""
    return isinstance(reply, ResponseError)


def glob_literal(text: str) -> str:
    """``text`` as a pattern that matches only itself."""
    return "".join(f"\\{char}" if char in "*?[]\\^-" else char for char in text)
