"""Stores frames in a Redis Cluster: deliveries of several cameras at a time, independent of each other.

``delivery.py`` says what goes where and what the answers mean, ``cluster_nodes.py`` who has which slot, and
``cluster_link.py`` moves the bytes. A node that is away delays only what hashes to it.
"""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Callable, Sequence
from typing import Any

import hiredis

from engine.errors import Cause, RedisUnavailable
from engine.stages.writer.camera_writer import CameraWriter
from engine.stages.writer.cluster_link import Link
from engine.stages.writer.cluster_nodes import ClusterNodes
from engine.stages.writer.delivery import REDIRECTS_MAX, Delivery
from engine.wire import resp
from engine.wire.cluster import parse_redirect, slot_of
from engine.wire.redis_address import RedisAddress

#: Seconds of one wait for answers. Other cameras' frames are looked for in between.
_TICK_SECONDS = 0.02
#: Words that begin the answer of a node that can serve a command later, or of which another node is the master.
_LATER = ("TRYAGAIN", "CLUSTERDOWN", "LOADING", "MASTERDOWN", "READONLY")
#: Commands whose key is not their first argument, and its place.
_KEY_PLACES = {b"XINFO": 2}


class ClusterStore:
    """The cluster at ``address``. ``beat`` is called at least every 100 ms while it waits, ``on_try`` for each try to
    connect to a node."""

    def __init__(
        self,
        address: RedisAddress,
        timeout_seconds: float,
        beat: Callable[[], None],
        on_try: Callable[[], None] = lambda: None,
    ) -> None:
        self.address = address
        self.nodes = ClusterNodes(address, timeout_seconds, on_try)
        #: Deliveries without a fate, and those with one that ``take_finished`` has not returned.
        self.in_flight = 0
        self._finished: deque[Delivery] = deque()
        #: The deliveries of each round that are in flight, oldest round first.
        self._rounds: list[set[Delivery]] = []
        self._timeout = timeout_seconds
        self._beat = beat

    def connect(self) -> None:
        """Wait until all nodes can be asked. Raises RedisUnavailable with what one of them, or the search for them,
        says."""
        deadline = time.monotonic() + self._timeout
        while not self.nodes.usable:
            self.advance()
            said = [self.nodes.trouble, *(link.trouble for link in self.nodes.links.values())]
            trouble = next(filter(None, said), None)
            if trouble or time.monotonic() > deadline:
                raise trouble or self._slow()
            self.nodes.wait(_TICK_SECONDS)
            self._beat()

    def advance(self) -> None:
        """Take one step with each connection, without waiting."""
        self.nodes.advance()
        if self.in_flight:
            self.nodes.flush()
            self.nodes.wait(0)

    def close(self) -> None:
        """Drop all connections and forget what is in flight."""
        self.nodes.close()
        self._rounds.clear()
        self._finished.clear()
        self.in_flight = 0

    # Frames

    @property
    def rounds(self) -> int:
        """Rounds in flight that wait for a node that sends or takes bytes."""
        return sum(any(not self._stalled(delivery) for delivery in each) for each in self._rounds)

    def send(self, writers: Sequence[CameraWriter]) -> None:
        """Send what these cameras have in flight, as one round."""
        deliveries = [Delivery(writer, self.nodes, self._finish) for writer in writers]
        self._rounds.append(set(deliveries))
        self.in_flight += len(deliveries)
        for delivery in deliveries:
            delivery.begin()
        self.nodes.flush()

    def wait(self) -> None:
        """Wait until a delivery has met its fate, but only a moment."""
        self._beat()
        deadline = time.monotonic() + _TICK_SECONDS
        while not self._finished and (left := deadline - time.monotonic()) > 0:
            self.nodes.wait(left)
            self.nodes.flush()

    def take_finished(self) -> list[Delivery]:
        """The deliveries that have met their fate, in that order."""
        finished = list(self._finished)
        self._finished.clear()
        self.in_flight -= len(finished)
        return finished

    def _finish(self, delivery: Delivery) -> None:
        self._finished.append(delivery)
        for each in self._rounds:
            each.discard(delivery)
        self._rounds = [each for each in self._rounds if each]

    def _stalled(self, delivery: Delivery) -> bool:
        return any(link.stalled for link in delivery.links)

    # Everything else

    def call(self, commands: Sequence[bytes]) -> list[Any]:
        """Send framed commands with one reply each, each to the node of its key, and wait. Error replies are returned
        as hiredis.ReplyError. Raises RedisUnavailable if one of the nodes is away, or does not answer soon."""
        calls = [_Call(command) for command in commands]
        for call in calls:
            self._ask(call, self.nodes.master_of(call.slot))
        self.nodes.flush()
        deadline = time.monotonic() + self._timeout
        waiting = calls
        while waiting := [call for call in waiting if not self._settled(call)]:
            self._beat()
            self.nodes.wait(_TICK_SECONDS)
            self.nodes.flush()
            if any(call.link and call.link.stalled for call in waiting) or time.monotonic() > deadline:
                raise self._slow(next((call.link for call in waiting if call.link), None))
        return [call.reply for call in calls]

    def _ask(self, call: _Call, link: Link | None, *, asking: bool = False) -> None:
        if link is None:
            raise self.nodes.trouble or RedisUnavailable(
                f"Redis at {self.address}: no node serves slot {call.slot}", cause=Cause.REDIS_AWAY
            )
        if not link.usable:
            raise link.trouble or RedisUnavailable(f"Redis at {link.address} is not connected", cause=Cause.REDIS_AWAY)
        if link.stalled:
            raise self._slow(link)
        call.sent(link, asking=asking)
        link.ask([resp.ASKING + call.command if asking else call.command], call)

    def _settled(self, call: _Call) -> bool:
        """True if a call has its reply. Follows redirections. Raises RedisUnavailable."""
        link = call.link
        if not call.done or link is None:
            return False
        if call.broke:
            raise link.trouble or self._slow(link)
        if not isinstance(call.reply, hiredis.ReplyError):
            return True
        error = str(call.reply)
        redirect = parse_redirect(error, link.node)
        if redirect is None and not error.startswith(_LATER):
            return True
        self.nodes.refused(link, call.slot, error)
        if redirect and call.hops < REDIRECTS_MAX:
            target = self.nodes.redirected(redirect)
            self._ask(call, target or self.nodes.links.get(redirect.node), asking=redirect.ask)
            self.nodes.flush()
            return False
        raise RedisUnavailable(f"Redis at {link.address} cannot answer now: {error}", cause=Cause.BUSY)

    def _slow(self, link: Link | None = None) -> RedisUnavailable:
        address = link.address if link else self.address
        return RedisUnavailable(f"Redis at {address} does not answer", cause=Cause.REDIS_AWAY)


class _Call:
    """One command that is no frame, and its reply."""

    def __init__(self, command: bytes) -> None:
        self.command = command
        self.slot = slot_of(_key_of(command))
        self.replies = 1
        self.link: Link | None = None
        self.hops = -1
        self.done = self.broke = False
        self.reply: Any = None

    def sent(self, link: Link, *, asking: bool) -> None:
        self.link, self.replies, self.done = link, 1 + asking, False
        self.hops += 1

    def answered(self, replies: Sequence[Any]) -> None:
        self.done, self.reply = True, replies[-1]

    def unanswered(self) -> None:
        self.done = self.broke = True


def _key_of(command: bytes) -> bytes:
    """The key of a framed command."""
    reader = hiredis.Reader()
    reader.feed(command)
    words = reader.gets()
    key: bytes = words[_KEY_PLACES.get(words[0], 1)]
    return key
