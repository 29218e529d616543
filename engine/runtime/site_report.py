"""The report of ``edge-video status`` on a whole site: only facts, without the code that collects them."""

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
    """A whole site and its state.

    ``outages`` lists servers that are away, ``troubles`` says why the site is not healthy. ``rings_last_seconds`` is
    the time until the first ring is full if nobody empties it. ``file_differs`` lists differences between the site file
    and what runs.
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
    #: Another running site of this name, if this one does not run.
    elsewhere: Elsewhere | None
    #: The embedded server's process id, also while the site does not run; 0 if none runs.
    embedded_pid: int
    outages: list[OutageReport]
    rings_last_seconds: float | None
    file_differs: list[str]
    troubles: list[str]
