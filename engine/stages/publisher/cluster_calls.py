"""The publisher's questions to a cluster: each goes to the node that has its key, and a node that is away does not keep
the others from answering.

``Session`` gives all answers or none. The publisher wants the answers that there are, because the events of one camera
must not wait for the node of another. So a question whose node is away is answered with ``NodeAway``, at once after the
first timeout. Questions go to all nodes before the first answer is read. Every question is about one key, and none
does harm if it is asked twice.
"""

from __future__ import annotations

import time
from collections.abc import Sequence
from typing import Any, NamedTuple

import hiredis
from redis.exceptions import ResponseError

from engine.errors import Cause, RedisUnavailable, WireError
from engine.servers.overrides.redis import NodeAway
from engine.servers.redis.attempt import Attempt
from engine.servers.redis.cluster import find_nodes
from engine.stages.publisher.node_link import NodeLink
from engine.wire.cluster import ClusterMap, Node, parse_redirect, slot_of
from engine.wire.redis_address import RedisAddress
from engine.wire.replies import check_reply

#: Times that one question is sent to another node.
_REDIRECTS_MAX = 5
#: Seconds without an answer after which a node counts as away, at most: meanwhile the events of all cameras wait.
_TIMEOUT_SECONDS_MAX = 2.0
#: Seconds between two looks for the nodes while something is wrong.
_LOOK_SECONDS = 0.5
#: Seconds for which a refusal counts, longer than between two questions about one journal; and how many count.
_REFUSAL_SECONDS = 2.0
_REFUSALS_MAX = 16
#: Errors of a node, or of its cluster, that cannot answer now.
_CANNOT_NOW = ("CLUSTERDOWN", "LOADING", "MASTERDOWN", "TRYAGAIN", "BUSY ")
_ASKING = hiredis.pack_command(("ASKING",))


class NodeUnavailable(RedisUnavailable):
    """The one node of a cluster that could answer is away; others may answer other questions."""


class Question(NamedTuple):
    """A command about one key, its bytes, and the slot of the key."""

    command: tuple[Any, ...]
    framed: bytes
    slot: int

    @classmethod
    def of(cls, command: tuple[Any, ...]) -> Question:
        """A question from its words."""
        key = command[command.index("STREAMS") + 1] if command[0] == "XREAD" else command[1]
        return cls(command, hiredis.pack_command(command), slot_of(key if isinstance(key, bytes) else key.encode()))


class _Sent(NamedTuple):
    """The places of the questions that one node was sent, and how many of them have ASKING before them."""

    link: NodeLink
    places: list[int]
    asking: set[int]


class ClusterCalls:
    """Connections to the masters of a cluster, made when they are needed. For one thread.

    ``ask`` and ``try_call`` raise RedisUnavailable if no node answers, and ServerRefused if all nodes refuse to say
    where slots are.
    """

    def __init__(self, address: RedisAddress, timeout_seconds: float) -> None:
        self.address = address
        self._timeout_seconds = min(timeout_seconds, _TIMEOUT_SECONDS_MAX)
        self._map: ClusterMap | None = None
        self._links: dict[Node, NodeLink] = {}
        self._look: Attempt[ClusterMap] | None = None
        self._look_at = 0.0
        #: True if the map may be old.
        self._doubtful = False
        #: Why questions had no answers of nodes that are there, and until when that counts (monotonic seconds).
        self._refusals: dict[str, float] = {}

    @property
    def away(self) -> RedisUnavailable | None:
        """Why some nodes do not answer; None if all do, as far as is known."""
        now = time.monotonic()
        facts = [link.error.fact for link in self._links.values() if link.error]
        facts += [fact for fact, until in self._refusals.items() if now < until]
        if not facts:
            return None
        return RedisUnavailable("; ".join(dict.fromkeys(facts)), cause=Cause.REDIS_AWAY, subject="Redis")

    def close(self) -> None:
        """Drop the connections; the next question makes others."""
        for link in self._links.values():
            link.close()

    def try_call(self, *commands: tuple[Any, ...]) -> list[Any]:
        """The answers, in the order of the commands. Errors are returned as ResponseError, NodeAway among them."""
        return self.ask([Question.of(command) for command in commands])

    def ask(self, questions: Sequence[Question]) -> list[Any]:
        """As ``try_call``."""
        known = self._known()
        for link in self._links.values():
            # Also those that nobody asks anything at present, or nobody would learn that they are back.
            if link.error and not link.ready():
                self._doubtful = True
        answers: list[Any] = [None] * len(questions)
        targets = {place: known.master_of(question.slot) for place, question in enumerate(questions)}
        asking: set[int] = set()
        for _ in range(_REDIRECTS_MAX + 1):
            targets, asking = self._round(questions, answers, targets, asking)
            if not targets:
                break
        for place, node in targets.items():
            answers[place] = self._refused(
                f"the nodes of Redis redirect slot {questions[place].slot} more than {_REDIRECTS_MAX} times, the last "
                f"time to {node}; see `redis-cli --cluster check {node}`"
            )
        if questions and not any(link.error is None for link in self._links.values()):
            raise self.away or RedisUnavailable("Redis: no node has slots", cause=Cause.REDIS_AWAY)
        return answers

    def _round(
        self,
        questions: Sequence[Question],
        answers: list[Any],
        targets: dict[int, Node | None],
        asking: set[int],
    ) -> tuple[dict[int, Node | None], set[int]]:
        """Ask each of the questions at the places in ``targets`` at its node. Returns those to ask elsewhere, and which
        of them only for this once."""
        by_node: dict[Node, list[int]] = {}
        for place, node in targets.items():
            if node is None:
                self._doubtful = True
                answers[place] = self._refused(f"Redis at {self.address}: some slots have no node")
            else:
                by_node.setdefault(node, []).append(place)
        sent = [
            one for node, places in by_node.items() if (one := self._send(node, questions, answers, places, asking))
        ]
        elsewhere: dict[int, Node | None] = {}
        once: set[int] = set()
        # One timeout for all nodes: several that hang cost no more than one.
        deadline = time.monotonic() + self._timeout_seconds
        for one in sent:
            for place, reply in self._receive(one, answers, deadline):
                if not isinstance(reply, ResponseError):
                    try:
                        check_reply(questions[place].command, reply)
                    except WireError as error:
                        one.link.broken(error)
                        self._lost(one.link, answers, one.places)
                        break
                elif redirect := parse_redirect(str(reply), Node(one.link.address.host, one.link.address.port)):
                    elsewhere[place] = redirect.node
                    if redirect.ask:
                        once.add(place)
                    elif self._map is not None:
                        self._map, self._doubtful = self._map.moved(redirect.slot, redirect.node), True
                    continue
                elif str(reply).startswith(_CANNOT_NOW):
                    self._doubtful = True
                    answers[place] = self._refused(f"Redis at {one.link.address} cannot answer now: {reply}")
                    continue
                answers[place] = reply
        return elsewhere, once

    def _send(
        self,
        node: Node,
        questions: Sequence[Question],
        answers: list[Any],
        places: list[int],
        asking: set[int],
    ) -> _Sent | None:
        """Send questions to a node; None if it is away."""
        link = self._links.get(node)
        if link is None:
            link = self._links[node] = NodeLink(self.address.node(*node), self._timeout_seconds)
        pieces = []
        for place in places:
            if place in asking:
                pieces.append(_ASKING)
            pieces.append(questions[place].framed)
        try:
            if link.ready():
                link.send(b"".join(pieces))
                return _Sent(link, places, asking)
        except RedisUnavailable:
            pass
        self._lost(link, answers, places)
        return None

    def _receive(self, sent: _Sent, answers: list[Any], deadline: float) -> list[tuple[int, Any]]:
        """The node's replies by the places of their questions; none if it breaks."""
        asking = [place in sent.asking for place in sent.places]
        try:
            replies = iter(sent.link.receive(len(asking) + sum(asking), deadline))
        except RedisUnavailable:
            self._lost(sent.link, answers, sent.places)
            return []
        found = []
        for place, twice in zip(sent.places, asking, strict=True):
            if twice:
                next(replies)
            found.append((place, next(replies)))
        return found

    def _refused(self, fact: str) -> NodeAway:
        """Note why a question has no answer. Other questions, to other nodes, say nothing about it."""
        self._refusals = {known: until for known, until in self._refusals.items() if until > time.monotonic()}
        if len(self._refusals) < _REFUSALS_MAX or fact in self._refusals:
            self._refusals[fact] = time.monotonic() + _REFUSAL_SECONDS
        return NodeAway(fact)

    def _lost(self, link: NodeLink, answers: list[Any], places: list[int]) -> None:
        self._doubtful = True
        away = NodeAway(link.error.fact if link.error else "")
        for place in places:
            answers[place] = away

    def _known(self) -> ClusterMap:
        """The map. Once there is one, a newer one is looked for in a thread, while the old one serves."""
        if self._map is None:
            self._map = find_nodes(self.address, self._timeout_seconds)
            self._look_at = time.monotonic() + _LOOK_SECONDS
        elif self._look is not None:
            if self._look.done():
                look, self._look = self._look, None
                try:
                    self._take(look.result())
                except RedisUnavailable:
                    # No node answers: the links say so.
                    self._doubtful = True
        elif self._doubtful and time.monotonic() >= self._look_at:
            self._doubtful = False
            self._look_at = time.monotonic() + _LOOK_SECONDS
            address, timeout_seconds = self.address, self._timeout_seconds
            # A node that hangs would answer last.
            silent = {node for node, link in self._links.items() if link.error}
            nodes = sorted(self._map.nodes, key=silent.__contains__)
            self._look = Attempt(lambda: find_nodes(address, timeout_seconds, nodes))
        return self._map

    def _take(self, found: ClusterMap) -> None:
        self._map = found
        for node in self._links.keys() - set(found.masters):
            self._links.pop(node).close()
