"""The nodes of a Redis Cluster: asks for the map of slots."""

from __future__ import annotations

from collections.abc import Iterable

from redis.exceptions import ResponseError

from engine.errors import Cause, EngineError, RedisUnavailable, ServerRefused, WireError
from engine.servers.redis.connection import call, open_connection
from engine.servers.redis.errors import checked, connection_error, forbidden, refuse
from engine.wire.cluster import ClusterMap, Node, parse_slots
from engine.wire.cluster_members import Member, parse_members
from engine.wire.redis_address import RedisAddress


def find_nodes(address: RedisAddress, timeout_seconds: float, known: Iterable[Node] = ()) -> ClusterMap:
    """The map of the cluster at ``address``.

    It asks the ``known`` nodes of an earlier map and those of the address in turn, until one knows of slots. Raises
    RedisUnavailable with the answer of each node. Raises ServerRefused if all refuse: the credentials, the command, or
    because they are no nodes of a cluster.
    """
    said: list[EngineError] = []
    for node in dict.fromkeys((*known, *(Node(*where) for where in address.cluster))):
        try:
            found = ask_node(address, node, timeout_seconds)
        except (RedisUnavailable, ServerRefused) as error:
            said.append(error)
            continue
        if found.masters:
            return found
        said.append(
            RedisUnavailable(f"{node} knows of no slots", cause=Cause.REDIS_AWAY, subject=f"Redis at {address}")
        )
    kind = ServerRefused if all(isinstance(error, ServerRefused) for error in said) else RedisUnavailable
    facts = "; ".join(dict.fromkeys(error.fact for error in said))
    raise kind.of(said[0], f"Redis at {address}: no node says where slots are: {facts}")


def find_members(address: RedisAddress, timeout_seconds: float) -> list[Member]:
    """All nodes of the cluster at ``address``, replicas too, as the first node that answers sees them. Raises as
    ``find_nodes``, and ServerRefused if this user may not send CLUSTER NODES."""
    known = find_nodes(address, timeout_seconds)
    failed: EngineError | None = None
    for node in known.nodes:
        where = address.node(*node)
        try:
            connection = open_connection(where, timeout_seconds)
            try:
                (reply,) = call(where, connection, ("CLUSTER", "NODES"))
            finally:
                connection.disconnect()
            checked(where, [("CLUSTER", "NODES")], [reply])
            return parse_members(reply, node, {other.host for other in known.nodes})
        except (RedisUnavailable, WireError) as error:
            failed = error
    raise RedisUnavailable.of(failed or RedisUnavailable(f"Redis at {address} has no nodes"), cause=Cause.REDIS_AWAY)


def ask_node(address: RedisAddress, node: Node, timeout_seconds: float) -> ClusterMap:
    """The map that one node has. Raises RedisUnavailable, ServerRefused."""
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
        return parse_slots(reply, node)
    except WireError as error:
        raise RedisUnavailable.of(error, error.fact, Cause.REDIS_AWAY) from None
