"""Verdicts on Redis's memory: whether it keeps what is stored, for as long as its TTL and no longer."""

from __future__ import annotations

from functools import partial

from engine.config.alerts import REDIS_MEMORY_PERCENT, REDIS_MISSES_PERCENT
from engine.config.memory import MemoryNeed
from engine.doctor.findings import Finding, not_asked
from engine.doctor.redis_facts import Sample, info_number

#: The product page's alerts: share of maxmemory, share of lookups that find nothing.
MEMORY_SHARE_MAX = REDIS_MEMORY_PERCENT / 100
MISSES_SHARE_MAX = REDIS_MISSES_PERCENT / 100
#: Below this number of lookups, the hit rate means nothing.
_LOOKUPS_MIN = 1000

_finding = partial(Finding, "redis")
_denied = partial(not_asked, "redis")


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


def expiry(probe: str, info: dict[str, str] | None, ttl_seconds: int) -> Finding:
    """Whether keys with a TTL expire, by a probe key and by the server's count."""
    good = "a probe key is gone after its TTL; expired_keys grows"
    if probe == "stays":
        return _finding(
            "expiry", "broken", "the probe key outlived its TTL", good, "look for DEBUG SET-ACTIVE-EXPIRE or a replica"
        )
    expired, lived = info_number(info or {}, "expired_keys"), info_number(info or {}, "uptime_in_seconds")
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


def _mib(size: float) -> str:
    return f"{size / 2**20:,.1f} MiB"
