"""The figures that Redis tells about itself (``INFO``): memory, look-ups, clients, expired and evicted keys."""

from __future__ import annotations

import msgspec

#: The largest number that is taken for a figure; beyond it, the text is not Redis's.
_FIGURE_MAX = 2**63 - 1
#: Characters of a text that are kept.
_TEXT_MAX = 64


class RedisFigures(msgspec.Struct, frozen=True):
    """What ``INFO`` says; 0 or empty where it says nothing valid. ``maxmemory_bytes`` is 0 without a limit."""

    version: str = ""
    uptime_seconds: int = 0
    used_memory_bytes: int = 0
    maxmemory_bytes: int = 0
    maxmemory_policy: str = ""
    keyspace_hits: int = 0
    keyspace_misses: int = 0
    connected_clients: int = 0
    ops_per_s: int = 0
    expired_keys: int = 0
    evicted_keys: int = 0
    connected_replicas: int = 0
    input_kbps: float = 0.0
    output_kbps: float = 0.0


def figures_of(info: bytes) -> RedisFigures:
    """The figures in the reply to ``INFO``. The text is untrusted: what is not valid is as if it were missing."""
    lines = info.decode("utf-8", "replace").splitlines()
    said = {name: value.strip() for name, _, value in (line.partition(":") for line in lines)}

    def number(name: str) -> int:
        text = said.get(name, "")
        # isdecimal alone takes digits of all scripts.
        value = int(text) if text.isascii() and text.isdecimal() and len(text) <= len(str(_FIGURE_MAX)) else 0
        return value if value <= _FIGURE_MAX else 0

    def rate(name: str) -> float:
        whole, _, part = said.get(name, "").partition(".")
        sound = all(digits.isascii() and digits.isdecimal() and len(digits) <= 15 for digits in (whole, part or "0"))
        return float(f"{whole}.{part or 0}") if sound else 0.0

    return RedisFigures(
        version=(said.get("valkey_version") or said.get("redis_version", ""))[:_TEXT_MAX],
        uptime_seconds=number("uptime_in_seconds"),
        used_memory_bytes=number("used_memory"),
        maxmemory_bytes=number("maxmemory"),
        maxmemory_policy=said.get("maxmemory_policy", "")[:_TEXT_MAX],
        keyspace_hits=number("keyspace_hits"),
        keyspace_misses=number("keyspace_misses"),
        connected_clients=number("connected_clients"),
        ops_per_s=number("instantaneous_ops_per_sec"),
        expired_keys=number("expired_keys"),
        evicted_keys=number("evicted_keys"),
        connected_replicas=number("connected_slaves"),
        input_kbps=rate("instantaneous_input_kbps"),
        output_kbps=rate("instantaneous_output_kbps"),
    )
