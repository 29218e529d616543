"""Verdicts on Redis, from its facts: the product page's alerts and troubleshooting, and what the engine needs."""

from __future__ import annotations

import time
from functools import partial

from engine.config.memory import MemoryNeed
from engine.doctor.findings import Finding, not_asked
from engine.doctor.redis_facts import RedisFacts, Sample, SlowCommand
from engine.runtime.preflight import REDIS_VERSION_MIN

#: The product page's alerts: share of maxmemory, share of lookups that find nothing, connected clients.
MEMORY_SHARE_MAX = 0.8
MISSES_SHARE_MAX = 0.2
CLIENTS_MAX = 1000
#: Below this number of lookups, the hit rate means nothing.
_LOOKUPS_MIN = 1000
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
            memory(_int(info, "used_memory"), _int(info, "maxmemory")),
            policy(info.get("maxmemory_policy", "")),
            hit_rate(_int(info, "keyspace_hits"), _int(info, "keyspace_misses")),
            clients(_int(info, "connected_clients"), _int(info, "maxclients")),
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
            "mode", "broken", "a node of a cluster; clusters are not supported yet", good,
            "name a server without cluster-enabled in redis.address, or sentinels in redis.sentinels",
        )  # fmt: skip
    return _finding(
        "mode", "broken", f"a {name}, which stores nothing", good, "name it in redis.sentinels, with redis.service"
    )


def memory(used: int, most: int) -> Finding:
    """Memory used against ``maxmemory``."""
    good = f"maxmemory set, and at most {MEMORY_SHARE_MAX:.0%} of it used"
    if not most:
        return _finding(
            "memory", "warning", f"{_mib(used)} used, maxmemory is not set", good,
            "set maxmemory: without it Redis grows until the machine swaps or kills it",
        )  # fmt: skip
    share = used / most
    return _finding(
        "memory", "warning" if share > MEMORY_SHARE_MAX else "ok", f"{_mib(used)} of {_mib(most)} used ({share:.0%})",
        good, "raise maxmemory, or lower redis.ttl_seconds, fps or quality" if share > MEMORY_SHARE_MAX else "",
    )  # fmt: skip


def memory_need(need: MemoryNeed, most: int | None, ttl_seconds: int, video_ttl_seconds: int = 0) -> Finding:
    """The memory that the site's frames and video need, against ``maxmemory``: 0 if it is not set, None if it may not
    be read."""
    mean = (need.bytes - need.video_bytes) / need.frames if need.frames else 0.0
    found = (
        f"about {_mib(need.bytes)}: {need.frames_per_second:,.0f} frames/s for {ttl_seconds} s, "
        f"{mean / 1024:,.0f} KiB each with what Redis adds"
    )
    if need.packets:
        found += (
            f"; {need.packets_per_second:,.0f} packets/s of video for {video_ttl_seconds} s, "
            f"{need.video_bytes / need.packets / 1024:,.0f} KiB each"
        )
    if need.assumed:
        found += f"; {need.caveat}"
    good = f"at most {MEMORY_SHARE_MAX:.0%} of maxmemory"
    if not most:
        return _finding("memory needed", "information", found, good)
    bad = need.bytes > MEMORY_SHARE_MAX * most
    return _finding(
        "memory needed", "warning" if bad else "ok", f"{found}; maxmemory is {_mib(most)}", good,
        f"raise maxmemory to {_mib(need.bytes / MEMORY_SHARE_MAX)} or more (embedded: redis.max_memory_percent), or "
        f"lower redis.ttl_seconds, {'video.ttl_seconds, ' if need.packets else ''}fps or quality: frames go before "
        "their TTL" if bad else "",
    )  # fmt: skip


def policy(name: str) -> Finding:
    """What Redis evicts when its memory is full."""
    if name == "volatile-ttl":
        return _finding("eviction", "ok", name, "volatile-ttl: the oldest frames go first")
    if name == "noeviction":
        reason = "a full Redis takes no more frames"
    elif name.startswith("allkeys"):
        reason = "a full Redis evicts journals and cursors, so events are lost or repeated"
    else:
        reason = "a full Redis evicts frames and journals in no order of age"
    return _finding(
        "eviction", "warning", f"{name or 'unknown'}: {reason}", "volatile-ttl: the oldest frames go first",
        "CONFIG SET maxmemory-policy volatile-ttl, and write it into the server's configuration",
    )  # fmt: skip


def hit_rate(hits: int, misses: int) -> Finding:
    """The share of lookups that find nothing."""
    lookups = hits + misses
    good = f"at most {MISSES_SHARE_MAX:.0%} of lookups find nothing"
    if lookups < _LOOKUPS_MIN:
        return _finding("hit rate", "ok", f"{lookups} lookups since the start: too few to tell", good)
    share = misses / lookups
    bad = share > MISSES_SHARE_MAX
    return _finding(
        "hit rate", "warning" if bad else "ok", f"{share:.1%} of {lookups:,} lookups found nothing", good,
        "readers come after the frames expired: raise redis.ttl_seconds, or find the reader that lags or guesses keys"
        if bad else "",
    )  # fmt: skip


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


def expiry(probe: str, info: dict[str, str] | None, ttl_seconds: int) -> Finding:
    """Whether keys with a TTL expire, by a probe key and by the server's count."""
    good = "a probe key is gone after its TTL; expired_keys grows"
    if probe == "stays":
        return _finding(
            "expiry", "broken", "the probe key outlived its TTL", good, "look for DEBUG SET-ACTIVE-EXPIRE or a replica"
        )
    expired, lived = _int(info or {}, "expired_keys"), _int(info or {}, "uptime_in_seconds")
    counted = f", {expired:,} keys expired in {lived:,} s" if info is not None else ""
    if probe == "denied":
        return _denied("expiry", "SET and EXISTS for a probe key", good)
    if probe != "expired":
        return _finding(
            "expiry", "broken", f"a write is refused: {probe}", good, "free memory, or give the address of a primary"
        )
    if info is not None and not expired and lived > 2 * ttl_seconds and "keys=" in info.get("db0", ""):
        return _finding(
            "expiry", "warning", f"the probe key expired{counted}", good,
            f"look at the keys' TTL: none expired within twice redis.ttl_seconds ({ttl_seconds} s)",
        )  # fmt: skip
    return _finding("expiry", "ok", f"the probe key expired{counted}", good)


def ttl(what: str, sample: Sample | None) -> Finding:
    """Keys that never expire: they fill Redis, and volatile-ttl cannot evict them."""
    check, good = f"TTL of {what}", f"all keys of {what} have a TTL"
    if sample is None:
        return _denied(check, "PTTL" if what == "journals" else "SCAN and PTTL", good)
    of = f"{sample.keys:,}{'' if sample.complete else ' that were looked at'}"
    if not sample.without_ttl:
        return _finding(check, "ok", f"none of {of} is without", good)
    return _finding(
        check, "warning", f"{sample.without_ttl:,} of {of} never expire", good,
        "find what stored them without PX or SETEX, and remove them or give them a TTL; they cannot be evicted",
    )  # fmt: skip


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
    return None if info is None else _int(info, "maxmemory")


def _int(info: dict[str, str], name: str) -> int:
    text = info.get(name, "0")
    return int(text) if text.isdecimal() else 0


def _mib(size: float) -> str:
    return f"{size / 2**20:,.1f} MiB"
