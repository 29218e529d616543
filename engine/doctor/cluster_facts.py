"""Facts about the nodes of a Redis Cluster: each is asked by itself."""

from __future__ import annotations

import contextlib
from collections.abc import Mapping
from functools import partial
from typing import NamedTuple

from engine.config import Config
from engine.doctor import redis_facts
from engine.doctor.redis_facts import RedisFacts, info_number
from engine.errors import EngineError, ServerRefused
from engine.servers.redis.cluster import find_members, find_nodes
from engine.servers.redis.session import Session
from engine.servers.redis.side_by_side import all_outcomes
from engine.wire.cluster import ClusterMap, Node, slot_of
from engine.wire.cluster_members import Member
from engine.wire.redis_address import RedisAddress
from engine.wire.urls import mask


class Replica(NamedTuple):
    """A replica, as its master sees it: whether it follows, the bytes that it is behind, and the seconds since it was
    heard."""

    master: Node
    name: str
    online: bool
    behind_bytes: int
    silent_seconds: int


class ClusterFacts(NamedTuple):
    """``members`` is None if this user may not ask for them. ``masters`` has those that answer, ``away`` says why the
    other nodes do not. ``replicas`` is None if this user may not send INFO."""

    known: ClusterMap
    members: list[Member] | None
    masters: Mapping[Node, RedisFacts]
    away: Mapping[Node, str]
    replicas: list[Replica] | None

    @property
    def masters_away(self) -> list[Node]:
        """The masters that do not answer."""
        return [node for node in self.known.masters if node in self.away]


def gather(config: Config) -> ClusterFacts:
    """All facts. Nodes that hang are waited for side by side, and then asked nothing. Raises RedisUnavailable,
    ServerRefused if no node says where slots are."""
    address, timeout_seconds = config.redis_address, config.redis.timeout_seconds
    known = find_nodes(address, timeout_seconds)
    members: list[Member] | None = None
    with contextlib.suppress(ServerRefused):
        members = find_members(address, timeout_seconds)
    others = dict.fromkeys([*known.nodes, *(member.node for member in members or ())])
    outcomes = all_outcomes([partial(_greet, address.node(*node), timeout_seconds) for node in others])
    masters: dict[Node, RedisFacts] = {}
    away: dict[Node, str] = {}
    for node, outcome in zip(others, outcomes, strict=True):
        try:
            if isinstance(outcome, EngineError):
                raise outcome
            if node in known.masters:
                # One after the other: side by side they would spoil each other's times of round trips.
                with Session(address.node(*node), timeout_seconds) as session:
                    masters[node] = redis_facts.gather(config, session, _has_slot(known, node))
        except EngineError as error:
            away[node] = mask(error.fact)
    return ClusterFacts(known, members, masters, away, _replicas(masters))


def _greet(address: RedisAddress, timeout_seconds: float) -> None:
    """Log in at one node. Raises RedisUnavailable, ServerRefused."""
    with Session(address, timeout_seconds) as session:
        session.hello()


def _has_slot(known: ClusterMap, node: Node) -> redis_facts.HasKey:
    return lambda key: known.master_of(slot_of(key.encode())) == node


def _replicas(masters: Mapping[Node, RedisFacts]) -> list[Replica] | None:
    found: list[Replica] = []
    for node, facts in masters.items():
        if facts.info is None:
            return None
        for number in range(info_number(facts.info, "connected_slaves")):
            said = dict(pair.partition("=")[::2] for pair in facts.info.get(f"slave{number}", "").split(","))
            behind = info_number(facts.info, "master_repl_offset") - info_number(said, "offset")
            name = f"{said.get('ip', '')}:{said.get('port', '')}"
            online = said.get("state") == "online"
            found.append(Replica(node, name, online, max(behind, 0), info_number(said, "lag")))
    return found
