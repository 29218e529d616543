"""The nodes of a Redis Cluster: asks for the map of slots."""

from __future__ import annotations

from collections.abc import Iterable
from functools import partial

from redis.exceptions import ResponseError

from engine.errors import Cause, EngineError, RedisUnavailable, ServerRefused, WireError
from engine.servers.redis.connection import call, open_connection
from engine.servers.redis.errors import checked, connection_error, forbidden, refuse
from engine.servers.redis.side_by_side import first_result
from engine.wire.cluster import ClusterMap, Node, parse_slots
from engine.wire.cluster_members import Member, parse_members
from engine.wire.redis_address import RedisAddress


def find_nodes(address: RedisAddress, timeout_seconds: float, known: Iterable[Node] = ()) -> ClusterMap:
    """The map of the cluster at ``address``.

    It asks the ``known`` nodes of an earlier map and those of the address, until one knows of slots: the next when one
    fails, and others beside one that is slow. Raises RedisUnavailable with the answer of each node. Raises
    ServerRefused if all refuse: the credentials, the command, or because they are no nodes of a cluster.
    """
    nodes = dict.fromkeys((*known, *(Node(*where) for where in address.cluster)))
    said: list[EngineError] = []
    found = first_result([partial(ask_node, address, node, timeout_seconds) for node in nodes], said)
    if found is not None:
        return found
    kind = ServerRefused if all(isinstance(error, ServerRefused) for error in said) else RedisUnavailable
    facts = "; ".join(dict.fromkeys(error.fact for error in said))
    raise kind.of(said[0], f"Redis at {address}: no node says where slots are: {facts}")


def find_members(address: RedisAddress, timeout_seconds: float) -> list[Member]:
    """All nodes of the cluster at ``address``, replicas too, as the first node that answers sees them. Raises as
    ``find_nodes``, and ServerRefused if this user may not send CLUSTER NODES."""
    known = find_nodes(address, timeout_seconds)
    said: list[EngineError] = []
    hosts = {node.host for node in known.nodes}
    found = first_result(
        [partial(_ask_for_members, address, node, hosts, timeout_seconds) for node in known.nodes], said
    )
    if found is not None:
        return found
    refused = next((error for error in said if isinstance(error, ServerRefused)), None)
    raise refused or RedisUnavailable.of(said[0], cause=Cause.REDIS_AWAY)


def _ask_for_members(address: RedisAddress, node: Node, hosts: set[str], timeout_seconds: float) -> list[Member]:
    """All nodes, as ``node`` sees them. Raises RedisUnavailable, ServerRefused, WireError."""
    where = address.node(*node)
    connection = open_connection(where, timeout_seconds)
    try:
        (reply,) = call(where, connection, ("CLUSTER", "NODES"))
    finally:
        connection.disconnect()
    checked(where, [("CLUSTER", "NODES")], [reply])
    return parse_members(reply, node, hosts)


def ask_node(address: RedisAddress, node: Node, timeout_seconds: float) -> ClusterMap:
    """The map that one node has. Raises RedisUnavailable, also if it knows of no slots, and ServerRefused."""
    where = address.node(*node)
    connection = open_connection(where, timeout_seconds)
    try:
        (reply,) = call(where, connection, ("CLUSTER", "SLOTS"))
    finally:
        connection.disconnect()
    if isinstance(reply, ResponseError):
        if forbidden(reply):
            raise refuse(where, f" does not permit CLUSTER SLOTS to this user: {reply}", Cause.FORBIDDEN)
        if "cluster support disabled" in str(reply):
            raise refuse(where, " is no node of a cluster (cluster-enabled no)", Cause.NO_CLUSTER)
        raise connection_error(where, reply, "does not say where slots are")
    try:
        found = parse_slots(reply, node)
    except WireError as error:
        raise RedisUnavailable.of(error, error.fact, Cause.REDIS_AWAY) from None
    if not found.masters:
        raise RedisUnavailable(f"{node} knows of no slots", cause=Cause.REDIS_AWAY, subject=f"Redis at {address}")
    return found
