"""What is known of a cluster: its map, and nodes that did not answer. Several threads may share it."""

from __future__ import annotations

import secrets
import threading
import time
from collections.abc import Sequence

from engine.errors import EngineError
from engine.servers.redis.cluster import find_nodes
from engine.servers.redis.silent_nodes import SilentNodes
from engine.wire.cluster import ClusterMap, Node, Redirect
from engine.wire.redis_address import RedisAddress

#: Seconds for which a replica that did not answer is left alone.
_AVOIDED_SECONDS = 5.0
#: Seconds between two maps that are asked for only because a node named another one.
_RENEWED_SECONDS = 1.0
#: Seconds after which the list of masters is asked for again: a node that has lost its slots still answers.
_MASTERS_SECONDS = 5.0


class ClusterState:
    """The map of one cluster, asked for when it is needed and renewed after failures.

    With ``read_replicas`` the reader of a slot is a replica of its master: always the same one while it answers, so
    that answers do not go back in time.
    """

    def __init__(self, address: RedisAddress, timeout_seconds: float, *, read_replicas: bool = False) -> None:
        self.address = address
        #: None before the first question, and after a failure until it is renewed.
        self.map: ClusterMap | None = None
        self.silent = SilentNodes(address, timeout_seconds)
        self._timeout_seconds = timeout_seconds
        self._read_replicas = read_replicas
        self._choice = secrets.randbelow(1_000_000)
        #: All nodes that are known, in the order in which they are asked for the map.
        self._nodes: tuple[Node, ...] = ()
        #: Replica -> time (monotonic seconds) until which it is left alone.
        self._avoided: dict[Node, float] = {}
        self._asked_at = 0.0
        self._renewing = threading.Lock()
        #: Number of maps that were asked for, and the error of the last one.
        self._asked = 0
        self._error: EngineError | None = None

    def renew(self) -> ClusterMap:
        """The map, which is asked for unless another thread has done so. Raises as ``find_nodes``.

        Threads that wait for another's question share its error: nodes that hang cost all of them one timeout each.
        """
        asked = self._asked
        with self._renewing:
            known = self.map
            if known is None:
                if self._asked > asked and self._error:
                    raise type(self._error).of(self._error)
                known = self._ask()
                self._nodes = tuple(dict.fromkeys(known.nodes))
                self._asked_at = time.monotonic()
                self.map = known
            return known

    def recent(self) -> ClusterMap:
        """The map, at most some seconds old. Raises as ``find_nodes``."""
        if time.monotonic() - self._asked_at > _MASTERS_SECONDS:
            self.map = None
        return self.map or self.renew()

    @property
    def fresh(self) -> bool:
        """True if the map was asked for a moment ago: another question would find the same."""
        return time.monotonic() - self._asked_at < _RENEWED_SECONDS

    def _ask(self) -> ClusterMap:
        self._error = None
        try:
            return find_nodes(self.address, self._timeout_seconds, self._nodes)
        except EngineError as error:
            self._error = error
            raise
        finally:
            self._asked += 1

    def reader_of(self, known: ClusterMap, slot: int) -> tuple[Node | None, bool]:
        """Which node to read a slot from, and whether it is a replica. No node if the slot has none."""
        master = known.master_of(slot)
        if not self._read_replicas or master is None:
            return master, False
        replicas = known.replicas.get(master, ())
        now = time.monotonic()
        for place in range(len(replicas)):
            replica = replicas[(self._choice + place) % len(replicas)]
            if self._avoided.get(replica, 0.0) <= now and not self.silent.error(replica):
                return replica, True
        return master, False

    def avoid(self, replica: Node) -> None:
        """A replica cannot answer: its master is asked meanwhile."""
        self._avoided[replica] = time.monotonic() + _AVOIDED_SECONDS

    def failed(self, seen: ClusterMap, node: Node | None) -> None:
        """A node of the map ``seen`` cannot answer, or (None) a slot has no node. The map is renewed before the next
        question, and this node is asked for it last."""
        if node is not None:
            self._nodes = (*(other for other in self._nodes if other != node), node)
        if self.map is seen:
            self.map = None

    def moved(self, seen: ClusterMap, redirects: Sequence[Redirect]) -> None:
        """Nodes of the map ``seen`` named others for these slots."""
        for redirect in redirects:
            seen = seen.moved(redirect.slot, redirect.node)
        self.map = seen
        if time.monotonic() - self._asked_at > _RENEWED_SECONDS:
            # More may have changed than these slots. The nodes that were named know.
            self._nodes = tuple(dict.fromkeys((*(redirect.node for redirect in redirects), *self._nodes)))
            self.map = None
