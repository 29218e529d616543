"""Metrics of Redis itself, as ``INFO`` tells them; of a cluster, those of its masters together, and some of each."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping

from engine.servers.redis.figures import RedisFigures
from engine.web.metrics_text import Family, Kind, Samples, labels_text


def _family(kind: Kind, name: str, text: str, *labels: str) -> Family:
    return Family(f"edge_video_redis_{name}", kind, labels, text)


_UP = _family("gauge", "up", "1 if Redis answered the web process; in a cluster, if all masters did.")
_INFO = _family("info", "info", "1. The labels say which server it is.", "version", "maxmemory_policy")
_EACH: tuple[tuple[Family, Callable[[RedisFigures], float]], ...] = (
    (_family("gauge", "uptime_seconds", "Time since Redis was started."), lambda redis: redis.uptime_seconds),
    (_family("gauge", "memory_used_bytes", "Memory that Redis uses."), lambda redis: redis.used_memory_bytes),
    (
        _family("gauge", "memory_max_bytes", "Memory that Redis may use (maxmemory); 0 without a limit."),
        lambda redis: redis.maxmemory_bytes,
    ),
    (_family("counter", "keyspace_hits_total", "Look-ups that found a key."), lambda redis: redis.keyspace_hits),
    (_family("counter", "keyspace_misses_total", "Look-ups that found none."), lambda redis: redis.keyspace_misses),
    (_family("gauge", "connected_clients", "Connections of clients."), lambda redis: redis.connected_clients),
    (
        _family("gauge", "operations_per_second", "Commands that Redis executes a second."),
        lambda redis: redis.ops_per_s,
    ),
    (_family("counter", "expired_keys_total", "Keys whose lifetime was over."), lambda redis: redis.expired_keys),
    (
        _family("counter", "evicted_keys_total", "Keys that Redis removed early to stay within maxmemory."),
        lambda redis: redis.evicted_keys,
    ),
    (
        _family("gauge", "connected_replicas", "Replicas that are connected to Redis."),
        lambda redis: redis.connected_replicas,
    ),
)

_NODE_UP = _family("gauge", "node_up", "1 if this master of a cluster answered the web process.", "node")
_NODE: tuple[tuple[Family, Callable[[RedisFigures], float]], ...] = (
    (
        _family("gauge", "node_memory_used_bytes", "Memory that this master of a cluster uses.", "node"),
        lambda redis: redis.used_memory_bytes,
    ),
    (
        _family("gauge", "node_memory_max_bytes", "Memory that this master may use; 0 without a limit.", "node"),
        lambda redis: redis.maxmemory_bytes,
    ),
    (
        _family("gauge", "node_connected_replicas", "Replicas that are connected to this master.", "node"),
        lambda redis: redis.connected_replicas,
    ),
)

FAMILIES = [_UP, _INFO, *(family for family, _ in _EACH), _NODE_UP, *(family for family, _ in _NODE)]


def samples(
    figures: RedisFigures | None, *, answers: bool, nodes: Mapping[str, RedisFigures | None]
) -> Iterator[tuple[Family, Samples]]:
    """The metrics of a Redis that ``answers``; ``figures`` is None if it does not tell them. ``nodes`` are the masters
    of a cluster, None for one that is away, and figures without a version for one that does not tell them."""
    yield _UP, [("", int(answers))]
    if figures:
        labels = {"version": figures.version, "maxmemory_policy": figures.maxmemory_policy}
        yield _INFO, [(labels_text(labels), 1)]
        for family, read in _EACH:
            yield family, [("", read(figures))]
    if nodes:
        yield _NODE_UP, [(labels_text({"node": node}), int(told is not None)) for node, told in nodes.items()]
        for family, read in _NODE:
            yield (
                family,
                [(labels_text({"node": node}), read(told)) for node, told in nodes.items() if told and told.version],
            )
