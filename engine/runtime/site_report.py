"""The report of ``edge-video status`` on a whole site: only facts, without the code that collects them."""

from __future__ import annotations

import msgspec

from engine.runtime.elsewhere import Elsewhere
from engine.runtime.status_cameras import CameraReport
from engine.runtime.status_processes import ProcessReport, PublisherReport, WriterReport
from engine.runtime.status_rings import Latency
from engine.wire.alert import Alert


class OutageReport(msgspec.Struct, frozen=True):
    """A server that does not serve ``role``. ``since`` is UTC nanoseconds."""

    server: str
    role: str
    since: int
    seconds: float
    error: str


class VideoTotals(msgspec.Struct, frozen=True):
    """The stored video of all cameras together: access units, how many arrive per second, and their latency."""

    cameras: int
    captured: int
    stored: int
    dropped: int
    packet_fps: float
    latency_ms: Latency


class SiteReport(msgspec.Struct, frozen=True):
    """A whole site and its state.

    ``outages`` lists servers that are away, ``alerts`` what the monitor has raised; ``troubles`` says why the site is
    not healthy. ``rings_last_seconds`` is the time until the first ring is full if nobody empties it. ``latency_ms`` is
    that of frames. ``video`` is None if no camera's video is stored. ``file_differs`` lists differences between the
    site file and what runs.
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
    video: VideoTotals | None
    #: Another running site of this name, if this one does not run.
    elsewhere: Elsewhere | None
    #: The embedded servers' process ids, also while the site does not run.
    embedded_pids: list[int]
    outages: list[OutageReport]
    rings_last_seconds: float | None
    file_differs: list[str]
    troubles: list[str]
    alerts: list[Alert] = []
    #: The engine's version.
    version: str = ""
