"""The nodes of a cluster as the writer uses them: a link to each, and the map that says who has which slot.

The map is asked for in a thread, because that can block. It is asked for again soon after a node was away, refused, or
redirected a command, and every 10 s without a reason. A node that has lost all its slots loses its link at once: what
it was asked is then asked of its successor, without waiting for an answer that may never come.
"""

from __future__ import annotations

import select
import time
from collections.abc import Callable, Iterable

from engine.backoff import Backoff
from engine.errors import Cause, RedisUnavailable
from engine.servers.redis.attempt import Attempt
from engine.servers.redis.cluster import find_nodes
from engine.servers.redis.errors import forbidden
from engine.stages.writer.blocked_slots import BlockedSlots
from engine.stages.writer.cluster_link import Link
from engine.stages.writer.connection import BACKOFF_SECONDS_MAX, BACKOFF_SECONDS_MIN
from engine.stages.writer.store import Refused
from engine.wire.cluster import SLOTS, ClusterMap, Node, Redirect
from engine.wire.redis_address import RedisAddress

#: Seconds between maps while all is well, and while a node is away or slots have no node.
_MAP_SECONDS = 10.0
_MAP_SECONDS_TROUBLED = 0.5
#: Seconds between two maps, at least.
_MAP_SECONDS_MIN = 0.1
#: Words that begin the errors which concern one slot. All others are of the whole node.
_OF_ONE_SLOT = ("MOVED", "ASK", "TRYAGAIN", "CLUSTERDOWN Hash slot")
#: Links to nodes of which only redirections tell, at most: a node may name any host.
_STRANGERS_MAX = 16
#: Seconds after which the link to a node that has no slots is closed, if nothing is asked of it.
_UNUSED_SECONDS = 10.0


class ClusterNodes:
    """The nodes of the cluster at ``address``. ``on_try`` is called for each try to connect. For one thread."""

    def __init__(self, address: RedisAddress, timeout_seconds: float, on_try: Callable[[], None]) -> None:
        self.address = address
        #: Why slots cannot be found; None if they can.
        self.trouble: RedisUnavailable | None = None
        #: Rises with every change of the map or of a link.
        self.version = 0
        self.links: dict[Node, Link] = {}
        self.blocked_slots = BlockedSlots()
        #: Slots whose node was away or was replaced: it may lack frames that had been acknowledged. The caller empties
        #: it.
        self.suspects: set[int] = set()
        #: When the first of these nodes gave its last sign of life, in monotonic seconds.
        self.suspects_since = 0.0
        self._timeout = timeout_seconds
        self._on_try = on_try
        #: The present map, and the last one that a node told.
        self._map: ClusterMap | None = None
        self._told: ClusterMap | None = None
        self._poller = select.poll()
        self._attempt: Attempt[ClusterMap] | None = None
        self._asked_at = self._ask_at = 0.0
        self._backoff = Backoff(BACKOFF_SECONDS_MIN, BACKOFF_SECONDS_MAX)

    # Who has a slot

    def master_of(self, slot: int) -> Link | None:
        """The link to the master of ``slot``, usable or not; None if it is not known."""
        node = self._map.master_of(slot) if self._map else None
        return self.links.get(node) if node else None

    def link_of(self, slot: int) -> Link | None:
        """The link to the master of ``slot``; None if it cannot be asked now."""
        link = self.master_of(slot)
        return link if link and link.usable else None

    def redirected(self, redirect: Redirect) -> Link | None:
        """Follow a redirection; the link to ask, None if it cannot be asked yet."""
        if redirect.node not in self.links:
            known = self._told.masters if self._told else ()
            if sum(node not in known for node in self.links) >= _STRANGERS_MAX:
                self.look_soon()
                return None
        link = self._link(redirect.node)
        link.asked_at = time.monotonic()
        if not redirect.ask:
            if self._map and self._map.master_of(redirect.slot) != redirect.node:
                self._map = self._map.moved(redirect.slot, redirect.node)
                self.version += 1
            self.look_soon()
        return link if link.usable else None

    def refused(self, link: Link, slot: int, error: str) -> None:
        """A node answered that it does not take what belongs to ``slot``. If it takes nothing, ask it nothing for a
        while."""
        down = error.startswith("CLUSTERDOWN")
        if down:
            self.look_soon()
        if error.startswith(_OF_ONE_SLOT):
            self.blocked_slots.refused(slot, link.node, error)
        elif link.usable:
            cause = Cause.FORBIDDEN if forbidden(error) else Cause.OTHER
            advice = f"; see `redis-cli --cluster check {link.node}`" if down else ""
            link.refuse(Refused(f"Redis at {link.address} takes no frames: {error}{advice}", cause=cause))
            self.version += 1
            self.look_soon()

    def troubles(self) -> dict[Node, RedisUnavailable | None]:
        """Why each node stores nothing, or not all that belongs there; None if it stores."""
        blocked = self.blocked_slots.troubles()
        return {node: link.trouble or blocked.get(node) for node, link in self.links.items()}

    def look_soon(self) -> None:
        """Ask for the map soon."""
        self._ask_at = min(self._ask_at, self._asked_at + _MAP_SECONDS_MIN)

    @property
    def usable(self) -> bool:
        """True if every slot has a node that may be asked."""
        return bool(
            self._map
            and self._map.covered
            and all((link := self.links.get(node)) and link.usable for node in self._map.masters)
        )

    # Steps

    def advance(self) -> None:
        """Take one step with each link, and with the map, without waiting."""
        now = time.monotonic()
        self._look_at_map(now)
        for link in list(self.links.values()):
            connected = link.fileno() >= 0
            if link.advance(now):
                self.version += 1
                if not link.usable:
                    self.look_soon()
                elif not connected and link.renewed and self._told:
                    self._suspect(self._told.slots_of(link.node), link.seen_at)

    def flush(self) -> None:
        """Send what the connections take now."""
        for link in list(self.links.values()):
            link.flush()

    def wait(self, seconds: float) -> None:
        """Wait until a node can be read from or written to, and do so."""
        links = {link.fileno(): link for link in self.links.values()}
        for descriptor, event in self._poller.poll(seconds * 1000):
            link = links[descriptor]
            # Answers of another one may have closed it.
            if link.fileno() != descriptor:
                continue
            usable = link.usable
            if event & ~select.POLLOUT:
                link.receive()
            if event & select.POLLOUT:
                link.flush()
            if usable and not link.usable:
                self.version += 1
                self.look_soon()

    def close(self) -> None:
        """Drop all connections."""
        for link in self.links.values():
            link.close()
        self.links.clear()

    # The map

    def _look_at_map(self, now: float) -> None:
        if self._attempt is None:
            if now >= self._ask_at:
                self._asked_at = now
                self._ask_at = now + _MAP_SECONDS
                usable = [node for node, link in self.links.items() if link.usable and not link.stalled]
                others = [node for node, link in self.links.items() if node not in usable]
                self._attempt = Attempt(lambda: find_nodes(self.address, self._timeout, (*usable, *others)))
            return
        if not self._attempt.done():
            return
        attempt, self._attempt = self._attempt, None
        try:
            self._adopt(attempt.result())
        except RedisUnavailable as error:
            self.trouble = error
            self._ask_at = now + self._backoff.next_seconds()
            return
        self._backoff.reset()
        if not self.usable:
            self._ask_at = min(self._ask_at, now + _MAP_SECONDS_TROUBLED)

    def _adopt(self, found: ClusterMap) -> None:
        told = self._told
        former = told.masters if told else ()
        self._map = self._told = found
        self.version += 1
        self.trouble = None
        if found.uncovered:
            self.trouble = RedisUnavailable(
                f"Redis at {self.address}: {found.uncovered:,} of its slots are served by no node",
                cause=Cause.REDIS_AWAY,
                subject=f"Redis at {self.address}",
            )
        if told is None:
            # The writer before this one may have ended while a node was away.
            self._suspect(range(SLOTS), time.monotonic())
        for node in found.masters:
            self._link(node)
        for node, link in list(self.links.items()):
            if node in found.masters:
                if told and not link.usable:
                    # It may come back empty, and with other slots than it had.
                    self._suspect(told.slots_of(node) - found.slots_of(node), link.seen_at)
                continue
            unused = not link.busy and time.monotonic() - link.asked_at > _UNUSED_SECONDS
            if told:
                self._suspect(told.slots_of(node), link.seen_at)
            if node in former or unused:
                link.fail("it has no slots")
                link.close()
                del self.links[node]

    def _suspect(self, slots: Iterable[int], since: float) -> None:
        self.suspects_since = min(self.suspects_since, since) if self.suspects else since
        self.suspects.update(slots)

    def _link(self, node: Node) -> Link:
        link = self.links.get(node)
        if link is None:
            link = Link(node, self.address.node(*node), self._timeout, self._poller, self._on_try)
            self.links[node] = link
        return link
