"""A running site's state, read from its shared memory; nothing is asked of any process."""

from __future__ import annotations

import contextlib
import os
import time
from typing import Any

import msgspec

from engine.config import Camera, Config, Url
from engine.errors import InputError, RingError, WireError
from engine.runtime import elsewhere, running_site
from engine.runtime.embedded import EmbeddedServer
from engine.runtime.site_report import CameraReport, Latency, PublisherReport, RingStatus, SiteReport, WriterReport
from engine.runtime.status_outages import HEALTHY_SHARE, read_outages, ring_seconds, rings_last, troubles
from engine.runtime.status_processes import MIB, ProcessReport, add_process, own_memory
from engine.shm import histogram
from engine.shm.ring_file import Drop, Observer, RingCounts
from engine.shm.roster import Roster
from engine.shm.site import SitePaths
from engine.shm.status_page import CaptureCount, PublisherCount, StatusPage, WriterCount
from engine.wire.state import CameraStatus, decode_status

__all__ = ["HEALTHY_SHARE", "MIB", "CameraReport", "ProcessReport", "SiteReport", "collect", "own_memory", "to_json"]


def collect(config: Config, *, memory: bool = True, share: float = HEALTHY_SHARE) -> SiteReport:
    """The state now of the site that a file describes. ``memory`` False leaves PSS out, which takes the kernel a while
    to add up; ``share`` of the cameras are active in a healthy site."""
    paths = SitePaths.of(config)
    pid, started, supervised = 0, 0, False
    with contextlib.suppress(OSError, RingError), contextlib.closing(StatusPage.watch(paths.supervisor)) as page:
        if page.owned:
            pid, started, supervised = page.pid, page.started_nano, True
    differs: list[str] = []
    if supervised:
        if started_with := running_site.read(config):
            differs = running_site.differences(started_with, config, os.environ)
            config = started_with.config
    else:
        config = _with_standing(config, paths)
    merged: list[list[int]] = []
    longest = 0.0
    cameras: list[CameraReport] = []
    processes: list[ProcessReport] = []
    pages = [("publisher", paths.publisher)] if config.publishes else []
    for number in range(config.writer.writers):
        add_process(processes, paths, "writer", "", str(number), memory)
        pages.append(("writer", paths.writer(number)))
    add_process(processes, paths, "publisher", "", "", memory)
    for camera in config.cameras:
        report, counts = _camera(config, paths, camera)
        cameras.append(report)
        if counts:
            merged.append(counts.latency)
            longest = max(longest, counts.latency_max_ms)
        add_process(processes, paths, "capture", camera.id, "", memory)
    running = supervised or any(process.alive for process in processes)
    site = SiteReport(
        site=config.site.name,
        running=running,
        pid=pid,
        uptime_seconds=round((time.time_ns() - started) / 1e9, 1) if started else 0.0,
        vhost=config.vhost,
        prefix=config.prefix,
        redis=str(config.redis_address),
        cameras=cameras,
        processes=processes,
        writer=_writer(config, paths),
        publisher=_publisher(paths) if config.publishes else None,
        latency_ms=_latency(histogram.merge(merged), longest),
        elsewhere=None if running else elsewhere.find(config),
        embedded_pid=_embedded_pid(config),
        outages=read_outages(pages),
        rings_last_seconds=rings_last(cameras),
        file_differs=differs,
        troubles=[],
    )
    return msgspec.structs.replace(site, troubles=troubles(site, share))


def _with_standing(config: Config, paths: SitePaths) -> Config:
    """The site with the cameras besides whose rings stand: roles that run by themselves may have been started with
    another site file than this one."""
    roster = Roster(paths, lambda _path, _reason: None)
    roster.look()
    known = {camera.id for camera in config.cameras}
    others = tuple(Camera(id=name, url=Url()) for name in roster.rings if name not in known)
    return msgspec.structs.replace(config, cameras=config.cameras + others) if others else config


def _embedded_pid(config: Config) -> int:
    server = EmbeddedServer(config)
    with contextlib.suppress(InputError):
        server.look()
    pid = server.pid
    server.leave()
    return pid


def _camera(config: Config, paths: SitePaths, camera: Camera) -> tuple[CameraReport, RingCounts | None]:
    status, fps, connects, skipped, finished, alive = CameraStatus(), 0.0, 0, 0, False, False
    with (
        contextlib.suppress(OSError, RingError, WireError),
        contextlib.closing(StatusPage.watch(paths.capture(camera.id))) as page,
    ):
        alive = page.owned
        status = decode_status(page.text)
        fps = page.counts[CaptureCount.MILLI_FPS] / 1000
        connects, skipped = page.counts[CaptureCount.CONNECTS], page.counts[CaptureCount.SKIPPED]
        finished = bool(page.counts[CaptureCount.FINISHED])
    counts: RingCounts | None = None
    with (
        contextlib.suppress(OSError, RingError),
        contextlib.closing(Observer(paths.ring(camera.id), camera.id)) as observer,
    ):
        counts = observer.counts()
    rate = fps if alive and status.state == "active" else 0.0
    report = CameraReport(
        id=camera.id,
        name=camera.name,
        state=status.state if alive or status.state == "offline" else "offline",
        since=status.timestamp_nano,
        codec=status.codec,
        mode=status.mode,
        width=status.width,
        height=status.height,
        fps=round(rate, 2),
        captured=counts.captured if counts else 0,
        captured_bytes=counts.captured_bytes if counts else 0,
        stored=counts.stored if counts else 0,
        stored_bytes=counts.stored_bytes if counts else 0,
        stored_total=counts.stored_total if counts else 0,
        lost=counts.drops[Drop.LOST.label] if counts else 0,
        dropped=counts.drops if counts else {},
        skipped=skipped,
        ring=RingStatus(
            held=counts.held if counts else 0,
            held_bytes=counts.held_bytes if counts else 0,
            capacity_bytes=config.ring.capacity,
            fill=round(counts.held_bytes / counts.area, 4) if counts else 0.0,
            lasts_seconds=_lasts(config, counts, rate) if counts else None,
        ),
        latency_ms=_latency(counts.latency, counts.latency_max_ms) if counts else Latency(0.0, 0.0, 0.0),
        consecutive_failures=status.consecutive_failures,
        last_error=status.last_error,
        connects=connects,
        finished=finished,
    )
    return report, counts


def _lasts(config: Config, counts: RingCounts, fps: float) -> float | None:
    size = counts.captured_bytes / counts.captured if counts.captured else 0.0
    return ring_seconds(
        counts.area - counts.held_bytes, counts.area, fps * size, drops_oldest=config.ring.overflow == "drop-oldest"
    )


def _latency(counts: list[int], longest_ms: float) -> Latency:
    p50, p99 = (round(min(histogram.percentile(counts, share), longest_ms), 3) for share in (0.5, 0.99))
    return Latency(p50, p99, longest_ms)


def _writer(config: Config, paths: SitePaths) -> WriterReport:
    totals = [0, 0, 0, 0]
    for number in range(config.writer.writers):
        with (
            contextlib.suppress(OSError, RingError),
            contextlib.closing(StatusPage.watch(paths.writer(number))) as page,
        ):
            totals[3] += page.counts[WriterCount.CONTESTED] if page.owned else 0
            for position, count in enumerate((WriterCount.BATCHES, WriterCount.CONNECTS, WriterCount.RETRIES)):
                totals[position] += page.counts[count]
    return WriterReport(*totals)


def _publisher(paths: SitePaths) -> PublisherReport | None:
    try:
        page = StatusPage.watch(paths.publisher)
    except (OSError, RingError):
        return None
    with contextlib.closing(page):
        counts = page.counts
        return PublisherReport(
            connected=bool(counts[PublisherCount.CONNECTED]) and page.owned,
            published=counts[PublisherCount.PUBLISHED],
            confirmed=counts[PublisherCount.CONFIRMED],
            expired=counts[PublisherCount.EXPIRED],
            unreadable=counts[PublisherCount.UNREADABLE],
            nacked=counts[PublisherCount.NACKED],
            messages=counts[PublisherCount.MESSAGES],
            status_events=counts[PublisherCount.STATUS_EVENTS],
            lag_seconds=round(counts[PublisherCount.LAG_NANO] / 1e9, 3),
        )


def to_json(report: Any) -> bytes:
    """A report as one JSON object."""
    return msgspec.json.encode(report)
