"""Verdicts on a Redis Cluster: the cluster as a whole, and of its masters what is asked of every server."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import partial

import msgspec

from engine.doctor import redis_checks
from engine.doctor.cluster_facts import ClusterFacts, Replica
from engine.doctor.findings import Finding, not_asked
from engine.doctor.redis_facts import RedisFacts
from engine.wire.cluster import SLOTS, ClusterMap, Node
from engine.wire.cluster_members import Member
from engine.wire.redis_address import RedisAddress

#: Bytes, and seconds without a word, that a replica may be behind: what a failover may lose.
BEHIND_BYTES_MAX = 16 * 2**20
SILENT_SECONDS_MAX = 5
#: Verdicts, the worst first.
_WORST = ("broken", "warning", "information", "ok")

_finding = partial(Finding, "redis")


def verdicts(facts: ClusterFacts, address: RedisAddress, ttl_seconds: int, now: float | None = None) -> list[Finding]:
    """All findings about a cluster of which at least one node answers."""
    nodes = [*facts.known.nodes, *(member.node for member in facts.members or ())]
    found = [
        reachable(address, len(dict.fromkeys(nodes)), facts.away),
        slots(facts.known),
        failing(facts.members),
        replicas(list(facts.masters), facts.members, facts.replicas),
    ]
    each = {
        node: redis_checks.verdicts(told._replace(mode=""), ttl_seconds, now) for node, told in facts.masters.items()
    }
    return found + together(each)


def reachable(address: RedisAddress, count: int, away: Mapping[Node, str]) -> Finding:
    """Whether all nodes answer, replicas too."""
    good = "every node answers and takes the credentials"
    if not away:
        return _finding("reachable", "ok", f"{address}: all {count} nodes answer and take the credentials", good)
    found = "; ".join(dict.fromkeys(away.values()))
    return _finding(
        "reachable", "broken", f"{len(away)} of {count} nodes do not answer: {found}", good,
        "start them, or open the way to them; users must be made on every node, replicas too (edge-video tenants acl)",
    )  # fmt: skip


def slots(known: ClusterMap) -> Finding:
    """Whether every slot has a master."""
    good = f"all {SLOTS:,} slots have a master"
    if known.covered:
        return _finding("slots", "ok", good, good)
    return _finding(
        "slots", "broken", f"{known.uncovered:,} slots have no master: frames that belong there are not stored", good,
        "start the nodes that had them, or give them to others: redis-cli --cluster fix",
    )  # fmt: skip


def failing(members: Sequence[Member] | None) -> Finding:
    """Whether the cluster counts any of its nodes as failed."""
    good = "the cluster counts no node as failed"
    if members is None:
        return not_asked("redis", "failed nodes", "CLUSTER NODES", good)
    failed = [str(member.node) for member in members if member.failed]
    if not failed:
        return _finding("failed nodes", "ok", f"none of {len(members)}", good)
    return _finding(
        "failed nodes", "broken", ", ".join(failed), good,
        "start them, or remove them from the cluster: redis-cli --cluster del-node",
    )  # fmt: skip


def replicas(masters: Sequence[Node], members: Sequence[Member] | None, seen: Sequence[Replica] | None) -> Finding:
    """Whether each of the ``masters`` that answer has a replica that follows it closely."""
    good = f"each master has a replica, at most {BEHIND_BYTES_MAX // 2**20} MiB behind"
    if seen is None:
        return not_asked("redis", "replicas", "INFO", good)
    if not masters:
        return _finding("replicas", "information", "not checked: no master answers", good)
    online = {replica.master for replica in seen if replica.online}
    ids = {member.id: member.node for member in members or () if not member.failed}
    joining = {ids[member.master_id] for member in members or () if member.master_id in ids}
    alone = [str(node) for node in masters if node not in online]
    if alone:
        waits = [str(node) for node in masters if node not in online and node in joining]
        found = f"no replica follows {', '.join(alone)}" + (f"; one begins at {', '.join(waits)}" if waits else "")
        return _finding(
            "replicas", "warning", found, good,
            "add replicas: a master that is lost without one takes its frames along, and others wait until it is back",
        )  # fmt: skip
    late = [
        f"{replica.name}: {replica.behind_bytes / 2**20:.1f} MiB, {replica.silent_seconds} s"
        for replica in seen
        if replica.behind_bytes > BEHIND_BYTES_MAX or replica.silent_seconds > SILENT_SECONDS_MAX
    ]
    if late:
        return _finding(
            "replicas", "warning", f"behind: {'; '.join(late)}", good,
            "look at the replica's load and network: a failover loses what it lacks",
        )  # fmt: skip
    worst = max(replica.behind_bytes for replica in seen)
    return _finding("replicas", "ok", f"{len(seen)}, at most {worst / 2**20:.1f} MiB behind", good)


def together(each: Mapping[Node, Sequence[Finding]]) -> list[Finding]:
    """One finding for each check of the masters: the worst verdict, and what was found at which node where it is not
    everywhere the same."""
    found = []
    checks = dict.fromkeys(finding.check for findings in each.values() for finding in findings)
    for check in checks:
        told = {node: one for node, findings in each.items() for one in findings if one.check == check}
        worst = min(told.values(), key=lambda one: _WORST.index(one.verdict))
        texts = {one.found for one in told.values()}
        if len(texts) > 1:
            text = "; ".join(f"{node}: {one.found}" for node, one in told.items())
            worst = msgspec.structs.replace(worst, found=text)
        found.append(worst)
    return found


def maxmemory(masters: Mapping[Node, RedisFacts]) -> int | None:
    """The limits of all masters together; 0 if one has none, None if one may not be read."""
    limits = [redis_checks.maxmemory(facts.info) for facts in masters.values()]
    known = [limit for limit in limits if limit is not None]
    if not limits or len(known) < len(limits):
        return None
    return sum(known) if all(known) else 0
