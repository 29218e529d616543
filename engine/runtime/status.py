"""A running site's state, read from its shared memory; nothing is asked of any process."""

from __future__ import annotations

import contextlib
import re
import time
from pathlib import Path
from typing import Any

import msgspec
import psutil

from engine.config import Camera, Config
from engine.errors import InputError, RingError, WireError
from engine.runtime import elsewhere
from engine.runtime.elsewhere import Elsewhere
from engine.runtime.embedded import EmbeddedServer
from engine.shm import histogram
from engine.shm.ring_file import Drop, Observer, RingCounts
from engine.shm.site import SitePaths
from engine.shm.slate import CaptureCount, PublisherCount, Slate, WriterCount
from engine.wire.state import CameraStatus, decode_status

MIB = 2**20


class Latency(msgspec.Struct, frozen=True):
    """Milliseconds from capture to acknowledged by Redis."""

    p50: float
    p99: float
    max: float


class RingStatus(msgspec.Struct, frozen=True):
    """A ring's filling: frames and bytes in it, its size, and the share taken."""

    held: int
    held_bytes: int
    capacity_bytes: int
    fill: float


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


class ProcessReport(msgspec.Struct, frozen=True):
    """One process; memory in MiB as own_memory, CPU in seconds and in percent of one core since its start."""

    role: str
    camera: str
    pid: int
    alive: bool
    cpu_seconds: float
    cpu_percent: float
    memory_mb: float
    restarts: int
    heartbeat_seconds: float


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
    """A whole site."""

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


def collect(config: Config, *, memory: bool = True) -> SiteReport:
    """The state of a site now. ``memory`` False leaves PSS out, which takes the kernel a while to add up."""
    paths = SitePaths.of(config)
    merged: list[list[int]] = []
    longest = 0.0
    cameras: list[CameraReport] = []
    processes: list[ProcessReport] = []
    for number in range(config.writer.writers):
        _add_process(processes, paths, "writer", "", str(number), memory)
    _add_process(processes, paths, "publisher", "", "", memory)
    for camera in config.cameras:
        report, counts = _camera(config, paths, camera)
        cameras.append(report)
        if counts:
            merged.append(counts.latency)
            longest = max(longest, counts.latency_max_ms)
        _add_process(processes, paths, "capture", camera.id, "", memory)
    pid, started, running = 0, 0, any(process.alive for process in processes)
    with contextlib.suppress(OSError, RingError), contextlib.closing(Slate.watch(paths.supervisor)) as slate:
        if slate.owned:
            pid, started, running = slate.pid, slate.started_nano, True
    return SiteReport(
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
    )


def _embedded_pid(config: Config) -> int:
    server = EmbeddedServer(config)
    with contextlib.suppress(InputError):
        server.look()
    pid = server.pid
    server.leave()
    return pid


def _camera(config: Config, paths: SitePaths, camera: Camera) -> tuple[CameraReport, RingCounts | None]:
    status, fps, connects, skipped, alive = CameraStatus(), 0.0, 0, 0, False
    with (
        contextlib.suppress(OSError, RingError, WireError),
        contextlib.closing(Slate.watch(paths.capture(camera.id))) as slate,
    ):
        alive = slate.owned
        status = decode_status(slate.text)
        fps = slate.counts[CaptureCount.MILLI_FPS] / 1000
        connects, skipped = slate.counts[CaptureCount.CONNECTS], slate.counts[CaptureCount.SKIPPED]
    counts: RingCounts | None = None
    with (
        contextlib.suppress(OSError, RingError),
        contextlib.closing(Observer(paths.ring(camera.id), camera.id)) as observer,
    ):
        counts = observer.counts()
    report = CameraReport(
        id=camera.id,
        name=camera.name,
        state=status.state if alive or status.state == "offline" else "offline",
        since=status.timestamp_nano,
        codec=status.codec,
        mode=status.mode,
        width=status.width,
        height=status.height,
        fps=round(fps, 2) if alive and status.state == "active" else 0.0,
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
        ),
        latency_ms=_latency(counts.latency, counts.latency_max_ms) if counts else Latency(0.0, 0.0, 0.0),
        consecutive_failures=status.consecutive_failures,
        last_error=status.last_error,
        connects=connects,
    )
    return report, counts


def _latency(counts: list[int], longest_ms: float) -> Latency:
    p50, p99 = (round(min(histogram.percentile(counts, share), longest_ms), 3) for share in (0.5, 0.99))
    return Latency(p50, p99, longest_ms)


def _add_process(
    processes: list[ProcessReport], paths: SitePaths, role: str, camera: str, number: str, memory: bool
) -> None:
    path = {"writer": paths.writer(int(number or 0)), "publisher": paths.publisher}.get(role) or paths.capture(camera)
    with (
        contextlib.suppress(OSError, RingError),
        contextlib.closing(Slate.watch(path)) as slate,
    ):
        alive = slate.owned
        cpu = share = pss = 0.0
        with contextlib.suppress(psutil.Error):
            if alive:
                process = psutil.Process(slate.pid)
                times = process.cpu_times()
                cpu = times.user + times.system
                share = 100 * cpu / max(time.time() - process.create_time(), 0.01)
                pss = own_memory(slate.pid) / MIB if memory else 0.0
        processes.append(
            ProcessReport(
                role=role,
                camera=camera,
                pid=slate.pid,
                alive=alive,
                cpu_seconds=round(cpu, 2),
                cpu_percent=round(share, 1),
                memory_mb=round(pss, 1),
                restarts=slate.restarts,
                heartbeat_seconds=round((time.monotonic_ns() - slate.heartbeat_nano) / 1e9, 2),
            )
        )


def own_memory(pid: int) -> int:
    """Bytes of a process's memory, its share of shared pages included (PSS), rings apart. 0 where it cannot be read."""
    try:
        text = Path(f"/proc/{pid}/smaps_rollup").read_text()
    except OSError:
        return 0
    sizes = {name: int(size) for name, size in re.findall(r"^(Pss\w*):\s+(\d+) kB", text, re.MULTILINE)}
    return (sizes.get("Pss", 0) - sizes.get("Pss_Shmem", 0)) * 1024


def _writer(config: Config, paths: SitePaths) -> WriterReport:
    totals = [0, 0, 0, 0]
    for number in range(config.writer.writers):
        with (
            contextlib.suppress(OSError, RingError),
            contextlib.closing(Slate.watch(paths.writer(number))) as slate,
        ):
            totals[3] += slate.counts[WriterCount.CONTESTED] if slate.owned else 0
            for position, count in enumerate((WriterCount.BATCHES, WriterCount.CONNECTS, WriterCount.RETRIES)):
                totals[position] += slate.counts[count]
    return WriterReport(*totals)


def _publisher(paths: SitePaths) -> PublisherReport | None:
    try:
        slate = Slate.watch(paths.publisher)
    except (OSError, RingError):
        return None
    with contextlib.closing(slate):
        counts = slate.counts
        return PublisherReport(
            connected=bool(counts[PublisherCount.CONNECTED]) and slate.owned,
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
