"""What ``edge-video status`` says of a whole site: facts, without what collects them."""

from __future__ import annotations

import msgspec

from engine.runtime.elsewhere import Elsewhere
from engine.runtime.status_cameras import CameraReport, Latency
from engine.runtime.status_processes import ProcessReport, PublisherReport, WriterReport


class OutageReport(msgspec.Struct, frozen=True):
    """A server that does not serve ``role``. ``since`` is UTC nanoseconds."""

    server: str
    role: str
    since: int
    seconds: float
    error: str


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
