"""The rules of alerts: one table. A rule measures values, and says in plain English what they mean.

A rule is a pure function of the facts. What becomes of its values (raised or not, for how long) is decided in
``hysteresis``.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import NamedTuple

from engine.config import AlertsSection
from engine.monitor.facts import Facts
from engine.wire.alert import Severity

#: Look-ups of a window below which the share of misses says nothing.
LOOKUPS_MIN = 100
_GIB = 2**30


class Reading(NamedTuple):
    """A measured value. ``value`` None: it is unknown now, and an alert stays as it is. ``text`` says what the value
    means, ``cleared`` what is said once the alert is over."""

    subject: str
    value: float | None
    text: str
    cleared: str


@dataclass(frozen=True)
class Rule:
    """A kind of alert. It is raised when a value has been at or above its threshold for ``for_seconds``, and cleared
    when it has been below ``clear_share`` of the threshold for ``alerts.clear_seconds``."""

    name: str
    severity: Severity
    #: The key of ``[alerts]`` that holds the threshold.
    key: str
    measure: Callable[[Facts], Iterator[Reading]]
    advice: str
    for_seconds: float = 0.0
    clear_share: float = 0.9

    def threshold(self, alerts: AlertsSection) -> float:
        """The value at which it is raised; 0 if it is turned off."""
        return float(getattr(alerts, self.key))


def _of_window(facts: Facts, count: float) -> float | None:
    """A count of the window; unknown while it is 0 because counting has just begun."""
    return count if count or facts.window_full else None


def _camera_down(facts: Facts) -> Iterator[Reading]:
    for camera in facts.cameras:
        why = f": {camera.error}" if camera.error else ""
        yield Reading(
            camera.id,
            camera.down_seconds,
            f"camera {camera.id} has been {camera.state} for {camera.down_seconds:,.0f} s{why}",
            f"camera {camera.id} is active again",
        )


def _camera_clock(facts: Facts) -> Iterator[Reading]:
    for camera in facts.cameras:
        offset = camera.clock_offset_seconds
        where = "ahead of" if (offset or 0) > 0 else "behind"
        yield Reading(
            camera.id,
            None if offset is None else abs(offset),
            f"the clock of camera {camera.id} is {abs(offset or 0):,.1f} s {where} ours",
            f"the clock of camera {camera.id} agrees with ours again",
        )


def _frames_dropped(facts: Facts) -> Iterator[Reading]:
    for camera in facts.cameras:
        dropped = {reason: count for reason, count in camera.dropped.items() if count}
        total = sum(dropped.values())
        reasons = ", ".join(f"{count:,} {reason}" for reason, count in sorted(dropped.items()))
        yield Reading(
            camera.id,
            _of_window(facts, total),
            f"camera {camera.id} lost {total:,} frame{'s' * (total != 1)} within {facts.window_seconds:g} s"
            + (f" ({reasons})" if reasons else ""),
            f"camera {camera.id} has lost no frame for {facts.window_seconds:g} s",
        )


def _ring_fill(facts: Facts) -> Iterator[Reading]:
    for camera in facts.cameras:
        yield Reading(
            camera.id,
            round(100 * camera.fill, 1),
            f"the ring of camera {camera.id} is {camera.fill:.0%} full: frames come faster than they are stored",
            f"the ring of camera {camera.id} is {camera.fill:.0%} full",
        )


def _redis_away(facts: Facts) -> Iterator[Reading]:
    why = f": {facts.redis_error}" if facts.redis_error else ""
    text = f"Redis has been away for {facts.redis_away_seconds:,.0f} s{why}"
    yield Reading("redis", facts.redis_away_seconds, text, "Redis is back")


def _redis_memory(facts: Facts) -> Iterator[Reading]:
    redis = facts.redis
    if redis is None:
        yield Reading("redis", None, "", "")
        return
    used, limit = redis.used_memory_bytes, redis.maxmemory_bytes
    share = 100 * used / limit if limit else 0.0
    text = f"Redis uses {used / _GIB:,.2f} of {limit / _GIB:,.2f} GiB ({share:.0f} %)"
    yield Reading("redis", round(share, 1), text, text)


def _redis_misses(facts: Facts) -> Iterator[Reading]:
    redis = facts.redis
    if redis is None:
        yield Reading("redis", None, "", "")
        return
    lookups = redis.hits + redis.misses
    share = 100 * redis.misses / lookups if lookups >= LOOKUPS_MIN else 0.0
    text = f"{redis.misses:,} of {lookups:,} look-ups within {facts.window_seconds:g} s found nothing ({share:.0f} %)"
    yield Reading("redis", round(share, 1), text, text)


def _redis_clients(facts: Facts) -> Iterator[Reading]:
    clients = facts.redis.clients if facts.redis else None
    text = f"Redis has {clients or 0:,} clients"
    yield Reading("redis", clients, text, text)


def _redis_expiry(facts: Facts) -> Iterator[Reading]:
    overdue = facts.redis.overdue_seconds if facts.redis else None
    text = (
        f"nothing expires in Redis: frames are stored for {facts.ttl_seconds:,} s, and the oldest should have expired "
        f"{overdue or 0:,.0f} s ago"
    )
    yield Reading("redis", overdue, text, "keys expire in Redis again")


def _broker_away(facts: Facts) -> Iterator[Reading]:
    away = facts.broker_away_seconds
    if facts.publishes:
        why = f": {facts.broker_error}" if facts.broker_error else ""
        yield Reading("rabbitmq", away, f"RabbitMQ has been away for {away or 0:,.0f} s{why}", "RabbitMQ is back")


def _publisher_lag(facts: Facts) -> Iterator[Reading]:
    lag = facts.lag_seconds
    if facts.publishes:
        text = f"events are {lag or 0:,.0f} s behind the stored frames"
        yield Reading("publisher", None if lag is None else round(lag, 1), text, text)


def _process_down(facts: Facts) -> Iterator[Reading]:
    for process in facts.processes:
        text = f"process {process.name} has been down for {process.down_seconds:,.0f} s"
        yield Reading(process.name, process.down_seconds, text, f"process {process.name} runs again")


def _process_restarts(facts: Facts) -> Iterator[Reading]:
    for process in facts.processes:
        text = f"process {process.name} was started again {process.restarts:,} times within {facts.window_seconds:g} s"
        cleared = f"process {process.name} keeps running"
        yield Reading(process.name, _of_window(facts, process.restarts), text, cleared)


def _disk(facts: Facts) -> Iterator[Reading]:
    for disk in facts.disks:
        text = f"the file system of {disk.path} is {disk.used:.0%} full, {disk.free_bytes / _GIB:,.2f} GiB are free"
        yield Reading(disk.path, round(100 * disk.used, 1), text, text)


def _clock_stepped(facts: Facts) -> Iterator[Reading]:
    step = facts.clock_step_seconds
    way = "forward" if step > 0 else "back"
    yield Reading(
        "clock",
        _of_window(facts, round(abs(step), 3)),
        f"this machine's clock was set {way} by {abs(step):,.1f} s",
        f"this machine's clock has not been set for {facts.window_seconds:g} s",
    )


#: All rules, in the order of docs/alerts.md. A rule whose value is a duration needs no ``for_seconds``; one whose
#: counts fall to 0 only when the window has passed is cleared by nothing but 0.
RULES = (
    Rule(
        "camera_down", "critical", "camera_down_seconds", _camera_down,
        "look at the camera's power and network; run edge-video doctor for details",
    ),
    Rule(
        "camera_clock", "warning", "camera_clock_seconds", _camera_clock,
        "give the camera a time server (NTP)", for_seconds=30.0,
    ),
    Rule(
        "frames_dropped", "warning", "dropped_frames", _frames_dropped,
        "see docs/reliability.md for the reasons; most often Redis was away or too slow", clear_share=0.0,
    ),
    Rule(
        "ring_fill", "warning", "ring_fill_percent", _ring_fill,
        "look whether Redis is slow or away; lower fps or quality, or raise ring.capacity_mb", for_seconds=4.0,
    ),
    Rule(
        "redis_away", "critical", "redis_away_seconds", _redis_away,
        "start Redis, or repair the network to it; frames wait in the rings, and are lost once a ring is full",
        clear_share=0.0,
    ),
    Rule(
        "redis_memory", "warning", "redis_memory_percent", _redis_memory,
        "raise maxmemory, or lower redis.ttl_seconds, fps or quality", for_seconds=10.0, clear_share=0.95,
    ),
    Rule(
        "redis_misses", "warning", "redis_misses_percent", _redis_misses,
        "readers come after the frames expired: raise redis.ttl_seconds, or find one that is slow or has wrong keys",
        for_seconds=10.0,
    ),
    Rule(
        "redis_clients", "warning", "redis_clients", _redis_clients,
        "let readers share connections, or find who leaves them open (CLIENT LIST)", for_seconds=10.0,
    ),
    Rule(
        "redis_expiry", "warning", "redis_expiry_seconds", _redis_expiry,
        "look for keys without a TTL (edge-video doctor), or for a server that does not expire keys",
    ),
    Rule(
        "broker_away", "critical", "broker_away_seconds", _broker_away,
        "start RabbitMQ, or repair the network to it; events wait in Redis for as long as the frames live",
        clear_share=0.0,
    ),
    Rule(
        "publisher_lag", "warning", "publisher_lag_seconds", _publisher_lag,
        'look at RabbitMQ\'s alarms and queues; metadata.format = "batch" sends many events in one message',
        for_seconds=4.0, clear_share=0.5,
    ),
    Rule(
        "process_down", "critical", "process_down_seconds", _process_down,
        "the log says why it ended",
    ),
    Rule(
        "process_restarts", "warning", "process_restarts", _process_restarts,
        "the log says why it ended", clear_share=0.0,
    ),
    Rule(
        "disk_full", "critical", "disk_percent", _disk,
        "remove files, or enlarge the file system", for_seconds=10.0, clear_share=0.98,
    ),
    Rule(
        "clock_stepped", "warning", "clock_step_seconds", _clock_stepped,
        "let a time service that slews keep the clock (chrony, systemd-timesyncd)", clear_share=0.0,
    ),
)  # fmt: skip
