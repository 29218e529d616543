"""One question to every master of a cluster, or to the one server; and to its replicas."""

from __future__ import annotations

import contextlib
from collections.abc import Sequence
from functools import partial
from typing import Any, NamedTuple

import msgspec

from engine.errors import EngineError
from engine.servers.redis.errors import Command
from engine.servers.redis.figures import RedisFigures
from engine.servers.redis.session import Session
from engine.servers.redis.side_by_side import all_outcomes
from engine.wire.cluster import Node
from engine.wire.cluster_members import parse_members


class MasterReply(NamedTuple):
    """What one server replied, an error as ResponseError. ``error`` is set if it did not reply."""

    address: str
    reply: Any = None
    error: EngineError | None = None


def ask_masters(session: Session, command: Command) -> list[MasterReply]:
    """The reply of each server, or why there is none, side by side. Never empty."""
    try:
        servers = session.masters()
    except EngineError as error:
        return [MasterReply(str(session.address), error=error)]
    return _ask(servers, command) or [MasterReply(str(session.address))]


def ask_nodes(session: Session, command: Command) -> tuple[list[MasterReply], list[MasterReply]]:
    """The same of the masters, and of the replicas of a cluster, all side by side."""
    try:
        masters, replicas = session.masters(), session.replicas()
    except EngineError as error:
        return [MasterReply(str(session.address), error=error)], []
    replies = _ask([*masters, *replicas], command)
    return replies[: len(masters)] or [MasterReply(str(session.address))], replies[len(masters) :]


def failed_members(session: Session) -> list[str]:
    """The addresses of the nodes that a cluster counts as failed; empty if this user may not ask, or no master
    answers."""
    address = session.address
    with contextlib.suppress(EngineError):
        hosts = {server.address.host for server in session.masters()}
        for reply in ask_masters(session, ("CLUSTER", "NODES")):
            if isinstance(reply.reply, bytes):
                members = parse_members(reply.reply, Node(address.host, address.port), hosts)
                return [str(address.node(*member.node)) for member in members if member.failed]
    return []


def _ask(servers: Sequence[Session], command: Command) -> list[MasterReply]:
    outcomes = all_outcomes([partial(server.try_call, command) for server in servers])
    return [
        MasterReply(str(server.address), error=outcome)
        if isinstance(outcome, EngineError)
        else MasterReply(str(server.address), outcome[0])
        for server, outcome in zip(servers, outcomes, strict=True)
    ]


def together(figures: Sequence[RedisFigures]) -> RedisFigures:
    """The figures of several servers as of one: sums; texts that differ side by side; the shortest uptime. Memory has
    no limit if that of one server has none. ``figures`` must not be empty."""
    if len(figures) == 1:
        return figures[0]
    sums = {
        name: sum(getattr(one, name) for one in figures)
        for name in RedisFigures.__struct_fields__
        if name not in ("version", "maxmemory_policy", "uptime_seconds", "maxmemory_bytes")
    }
    limits = [one.maxmemory_bytes for one in figures]
    return RedisFigures(
        version=", ".join(dict.fromkeys(one.version for one in figures)),
        maxmemory_policy=", ".join(dict.fromkeys(one.maxmemory_policy for one in figures)),
        uptime_seconds=min(one.uptime_seconds for one in figures),
        maxmemory_bytes=sum(limits) if all(limits) else 0,
        **sums,
    )


def of_the_fullest(figures: Sequence[RedisFigures]) -> RedisFigures:
    """As ``together``, but memory is that of the server whose memory is the fullest: it is the first to refuse
    frames."""
    worst = max(figures, key=lambda one: one.used_memory_bytes / one.maxmemory_bytes if one.maxmemory_bytes else 0.0)
    return msgspec.structs.replace(
        together(figures), used_memory_bytes=worst.used_memory_bytes, maxmemory_bytes=worst.maxmemory_bytes
    )
