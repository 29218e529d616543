"""What the rules of alerts judge: one look at a site. Counters cover the last ``alerts.window_seconds``."""

from __future__ import annotations

from collections.abc import Mapping

import msgspec


class CameraFacts(msgspec.Struct, frozen=True):
    """A camera. ``down_seconds`` is how long it has not been active; 0 if it is active, or ended for good. ``fill`` is
    the larger share of its two rings. ``dropped`` counts frames and access units by reason."""

    id: str
    down_seconds: float = 0.0
    state: str = "active"
    error: str = ""
    fill: float = 0.0
    dropped: Mapping[str, int] = {}
    clock_offset_seconds: float | None = None


class ProcessFacts(msgspec.Struct, frozen=True):
    """A process. ``down_seconds`` is how long it has been dead; ``restarts`` counts those of the window."""

    name: str
    down_seconds: float = 0.0
    restarts: int = 0


class RedisFacts(msgspec.Struct, frozen=True):
    """What Redis tells about itself. ``hits`` and ``misses`` are those of the window. ``maxmemory_bytes`` is 0 without
    a limit. ``overdue_seconds`` is how long nothing has expired although a frame should have."""

    used_memory_bytes: int
    maxmemory_bytes: int
    clients: int
    hits: int
    misses: int
    overdue_seconds: float


class DiskFacts(msgspec.Struct, frozen=True):
    """A file system, by the path at which the site uses it. ``used`` is a share."""

    path: str
    used: float
    free_bytes: int


class Facts(msgspec.Struct, frozen=True):
    """A whole site. ``redis`` is None while its figures are unknown. ``redis_away_seconds`` and ``broker_away_seconds``
    are those of the longest outage that a process sees, 0 without one; the errors say why. ``broker_away_seconds`` and
    ``lag_seconds`` are None while they are unknown because the publisher is down; a site that does not publish
    (``publishes``) never has them. ``clock_step_seconds`` is the largest step of this machine's clock in the window,
    with its sign. ``window_full`` is False until counters cover a whole window."""

    window_seconds: float
    ttl_seconds: int
    cameras: tuple[CameraFacts, ...] = ()
    processes: tuple[ProcessFacts, ...] = ()
    redis: RedisFacts | None = None
    redis_away_seconds: float = 0.0
    redis_error: str = ""
    publishes: bool = False
    broker_away_seconds: float | None = None
    broker_error: str = ""
    lag_seconds: float | None = None
    disks: tuple[DiskFacts, ...] = ()
    clock_step_seconds: float = 0.0
    window_full: bool = True
