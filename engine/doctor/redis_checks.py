"""Verdicts on Redis, from its facts: the product page's alerts and troubleshooting, and what the engine needs. Those on
its memory are in ``redis_memory_checks.py``."""

from __future__ import annotations

import time
from functools import partial

from engine.config.alerts import REDIS_CLIENTS
from engine.doctor.findings import Finding, not_asked
from engine.doctor.redis_facts import RedisFacts, SlowCommand, info_number
from engine.doctor.redis_memory_checks import expiry, hit_rate, memory, policy, ttl
from engine.runtime.preflight import REDIS_VERSION_MIN

#: The product page's alert: connected clients.
CLIENTS_MAX = REDIS_CLIENTS
#: Bounds for the median and the 99th percentile of round trips, in milliseconds.
P50_MS_MAX = 5.0
P99_MS_MAX = 50.0
#: Older entries of the slow log are ignored, in seconds.
_SLOW_SECONDS = 3600
#: Seconds that two clocks may differ before frame times mislead readers.
CLOCK_SECONDS_MAX = 1.0

_finding = partial(Finding, "redis")
_denied = partial(not_asked, "redis")


def verdicts(facts: RedisFacts, ttl_seconds: int, now: float | None = None) -> list[Finding]:
    """All findings about a Redis that answers."""
    found = [version(facts.name, facts.version)]
    if facts.mode not in ("", "standalone"):
        found.append(mode(facts.mode))
    info = facts.info
    if info is None:
        found.append(_denied("server's figures", "INFO", "memory, policy, hit rate, clients, persistence, role"))
    else:
        found += [
            memory(info_number(info, "used_memory"), info_number(info, "maxmemory")),
            policy(info.get("maxmemory_policy", "")),
            hit_rate(info_number(info, "keyspace_hits"), info_number(info, "keyspace_misses")),
            clients(info_number(info, "connected_clients"), info_number(info, "maxclients")),
            role(info.get("role", "")),
            persistence(info, facts.settings),
        ]
    found.append(expiry(facts.probe, info, ttl_seconds))
    found += [ttl(what, sample) for what, sample in facts.samples.items()]
    found.append(slow(facts.slow, facts.settings, time.time() if now is None else now))
    found.append(latency(facts.pings_ms, facts.events))
    found.append(clock(facts.offset_seconds))
    return found


def version(name: str, text: str) -> Finding:
    """Whether the server is new enough."""
    least = ".".join(map(str, REDIS_VERSION_MIN))
    numbers = tuple(int(part) for part in text.split(".")[:2] if part.isdecimal())
    old = name != "valkey" and numbers < REDIS_VERSION_MIN
    return _finding(
        "version", "broken" if old else "ok", f"{name} {text}".strip() or "of a version before 6",
        f"Redis {least} or later, or Valkey", "install a newer server" if old else "",
    )  # fmt: skip


def mode(name: str) -> Finding:
    """The finding for a cluster node or a sentinel: the engine does not start with either."""
    good = "a server of its own, or the master of a Sentinel service"
    if name == "cluster":
        return _finding(
            "mode", "broken", "a node of a cluster, which has a part of the keys", good,
            "name its nodes in redis.cluster instead of redis.address",
        )  # fmt: skip
    return _finding(
        "mode", "broken", f"a {name}, which stores nothing", good, "name it in redis.sentinels, with redis.service"
    )


def clients(connected: int, most: int) -> Finding:
    """Connections against the page's alert, and against the server's own limit."""
    bound = min(CLIENTS_MAX, most * 9 // 10) if most else CLIENTS_MAX
    bad = connected > bound
    return _finding(
        "clients", "warning" if bad else "ok", f"{connected:,} connected", f"at most {bound:,}",
        "let readers share connections (a pool), find who leaves them open (CLIENT LIST), or scale Redis out"
        if bad else "",
    )  # fmt: skip


def role(name: str) -> Finding:
    """A replica takes no writes."""
    if name == "slave":
        return _finding(
            "role", "broken", "a replica: it is read only", "a primary", "give its primary's address in redis.address"
        )
    return _finding("role", "ok", "primary" if name == "master" else name or "unknown", "a primary")


def persistence(info: dict[str, str], settings: dict[str, str] | None) -> Finding:
    """Whether short-lived frames are written to disk, and whether that fails."""
    good = "off, or kept up with: frames live for minutes"
    failed = [name for name in ("rdb_last_bgsave_status", "aof_last_write_status") if info.get(name, "ok") != "ok"]
    if failed:
        return _finding(
            "persistence", "broken", f"{', '.join(failed)} is {info[failed[0]]}: Redis may refuse writes", good,
            "look at Redis's log and its disk; or turn it off: CONFIG SET save '' and appendonly no",
        )  # fmt: skip
    kinds = []
    if settings and settings.get("save"):
        kinds.append(f"RDB (save {settings['save']}): each snapshot forks, and may double memory meanwhile")
    if info.get("aof_enabled") == "1":
        fsync = f", appendfsync {settings['appendfsync']}" if settings and settings.get("appendfsync") else ""
        kinds.append(f"AOF{fsync}: every frame is written to disk too")
    if kinds:
        return _finding(
            "persistence", "information", "; ".join(kinds), good,
            "turn it off unless frames and waiting events must outlive a restart of Redis",
        )  # fmt: skip
    if settings is None:
        return _denied("persistence", "CONFIG GET save", good)
    return _finding("persistence", "ok", "off", good)


def slow(entries: list[SlowCommand] | None, settings: dict[str, str] | None, now: float) -> Finding:
    """Slow commands of the last hour, which blocked all clients."""
    good = "none within the last hour"
    if entries is None:
        return _denied("slow log", "SLOWLOG", good)
    threshold = (settings or {}).get("slowlog-log-slower-than", "")
    if threshold.startswith("-"):
        return _finding(
            "slow log", "information", "switched off", good, "CONFIG SET slowlog-log-slower-than 10000 to see"
        )
    recent = [entry for entry in entries if now - entry.unix_seconds <= _SLOW_SECONDS]
    if not recent:
        return _finding("slow log", "ok", "none", good)
    worst = max(recent, key=lambda entry: entry.microseconds)
    return _finding(
        "slow log", "warning",
        f"{len(recent)} slow commands, the slowest {worst.name} with {worst.microseconds / 1000:.1f} ms", good,
        "SLOWLOG GET says who sent them; KEYS and long scripts stop every camera meanwhile, use SCAN or FrameStore",
    )  # fmt: skip


def latency(pings_ms: list[float], events: dict[str, int] | None) -> Finding:
    """Round trips as measured here and, if Redis monitors its latency, its worst event."""
    good = f"p50 below {P50_MS_MAX:g} ms, p99 below {P99_MS_MAX:g} ms"
    if not pings_ms:
        return _denied("latency", "PING", good)
    p50, p99 = pings_ms[len(pings_ms) // 2], pings_ms[min(len(pings_ms) * 99 // 100, len(pings_ms) - 1)]
    found = f"p50 {p50:.2f} ms, p99 {p99:.2f} ms of {len(pings_ms)} round trips"
    if events:
        name = max(events, key=lambda event: events[event])
        found += f"; Redis's own worst: {name}, {events[name]} ms"
    bad = p50 > P50_MS_MAX or p99 > P99_MS_MAX
    return _finding(
        "latency", "warning" if bad else "ok", found, good,
        "look at the network, at the slow log and at other load; nearest is best: embedded, or a Unix socket"
        if bad else "",
    )  # fmt: skip


def clock(offset: float | None) -> Finding:
    """Redis's clock against this machine's."""
    good = f"at most {CLOCK_SECONDS_MAX:g} s apart"
    if offset is None:
        return _denied("clock", "TIME", good)
    bad = abs(offset) > CLOCK_SECONDS_MAX
    where = "ahead of" if offset > 0 else "behind"
    return _finding(
        "clock", "warning" if bad else "ok", f"{abs(offset):.3f} s {where} this machine's", good,
        "let both machines follow the same time servers (chrony, systemd-timesyncd)" if bad else "",
    )  # fmt: skip


def answered(check: str, address: str) -> Finding:
    """The server answers and accepts the credentials."""
    return _finding(check, "ok", f"{address} answers and takes the credentials", "a connection within the timeout")


def maxmemory(info: dict[str, str] | None) -> int | None:
    """The server's limit; 0 if it has none, None if it may not be read."""
    return None if info is None else info_number(info, "maxmemory")
