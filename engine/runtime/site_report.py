"""What ``edge-video status`` says of a site: records that hold facts, and nothing that collects them."""

from __future__ import annotations

import msgspec

from engine.runtime.elsewhere import Elsewhere
from engine.runtime.status_processes import ProcessReport


class OutageReport(msgspec.Struct, frozen=True):
    """A server that does not serve ``role``. ``since`` is UTC nanoseconds."""

    server: str
    role: str
    since: int
    seconds: float
    error: str


class Latency(msgspec.Struct, frozen=True):
    """Milliseconds from capture to acknowledged by Redis."""

    p50: float
    p99: float
    max: float


class RingStatus(msgspec.Struct, frozen=True):
    """A ring's filling: frames and bytes in it, its size, and the share taken. ``lasts_seconds`` is how long it would
    take frames at the present rate if nobody drained it; None where none come."""

    held: int
    held_bytes: int
    capacity_bytes: int
    fill: float
    lasts_seconds: float | None


class CameraReport(msgspec.Struct, frozen=True):
    """One camera. ``since`` is UTC nanoseconds of its last change of state.

    ``stored`` is what was stored and that Redis has not lost since, so that ``captured`` is the sum of it, of all that
    was ``dropped``, and of what the ring holds. ``stored_total`` and ``lost`` never fall while the ring stands: rates
    are made of them.
    """

    id: str
    name: str
    state: str
    since: int
    codec: str
    mode: str
    width: int
    height: int
    fps: float
    captured: int
    captured_bytes: int
    stored: int
    stored_bytes: int
    stored_total: int
    lost: int
    dropped: dict[str, int]
    skipped: int
    ring: RingStatus
    latency_ms: Latency
    consecutive_failures: int
    last_error: str
    connects: int
    #: True once a source that does not loop has been read to its end.
    finished: bool


class PublisherReport(msgspec.Struct, frozen=True):
    """The publisher's counts of frames' events; ``lag_seconds`` from the newest stored to the newest confirmed."""

    connected: bool
    published: int
    confirmed: int
    expired: int
    unreadable: int
    nacked: int
    messages: int
    status_events: int
    lag_seconds: float


class WriterReport(msgspec.Struct, frozen=True):
    """All writers together."""

    batches: int
    connects: int
    retries: int
    #: Cameras that another site stores under the same names; the log says which site.
    contested: int


class SiteReport(msgspec.Struct, frozen=True):
    """A whole site, as it runs.

    ``outages`` are the servers that are away, ``troubles`` is why the site is not healthy. ``rings_last_seconds`` is
    when the first ring would be full if nobody drained it. ``file_differs`` is where the site file says something else
    than what runs.
    """

    site: str
    running: bool
    pid: int
    uptime_seconds: float
    vhost: str
    prefix: str
    redis: str
    cameras: list[CameraReport]
    processes: list[ProcessReport]
    writer: WriterReport
    publisher: PublisherReport | None
    latency_ms: Latency
    #: Who else runs a site of this name, while this one does not run.
    elsewhere: Elsewhere | None
    #: The embedded server's process id, also while the site does not run; 0 where none runs.
    embedded_pid: int
    outages: list[OutageReport]
    rings_last_seconds: float | None
    file_differs: list[str]
    troubles: list[str]
