"""A site's cameras, from their status pages and rings."""

from __future__ import annotations

import contextlib

import msgspec

from engine.config import Camera, Config
from engine.errors import RingError, WireError
from engine.shm import histogram
from engine.shm.ring_file import Drop, Observer, RingCounts
from engine.shm.site import SitePaths
from engine.shm.status_page import CaptureCount, StatusPage
from engine.wire.state import CameraStatus, decode_status

#: Share of a ring that the writer keeps free of old frames while Redis is away, under ``drop-oldest``.
_RESERVE_SHARE = 1 / 8


class Latency(msgspec.Struct, frozen=True):
    """Milliseconds from capture to acknowledged by Redis."""

    p50: float
    p99: float
    max: float


class RingStatus(msgspec.Struct, frozen=True):
    """A ring's fill: frames and bytes in it, its size, and the share in use. ``lasts_seconds`` is the time until it is
    full at the present rate if nobody empties it; None if no frames come."""

    held: int
    held_bytes: int
    capacity_bytes: int
    fill: float
    lasts_seconds: float | None


class CameraReport(msgspec.Struct, frozen=True):
    """One camera. ``since`` is UTC nanoseconds of its last change of state.

    ``stored`` counts stored frames that Redis has not lost since. So ``captured`` is the sum of ``stored``, of all
    ``dropped`` frames and of the frames in the ring. ``stored_total`` and ``lost`` never fall while the ring exists, so
    rates are computed from them.
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


def camera_report(config: Config, paths: SitePaths, camera: Camera) -> tuple[CameraReport, RingCounts | None]:
    """One camera, and the counts of its ring; None if it has no ring."""
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
        latency_ms=latency(counts.latency, counts.latency_max_ms) if counts else Latency(0.0, 0.0, 0.0),
        consecutive_failures=status.consecutive_failures,
        last_error=status.last_error,
        connects=connects,
        finished=finished,
    )
    return report, counts


def latency(counts: list[int], longest_ms: float) -> Latency:
    """The percentiles of a histogram (``engine/shm/histogram.py``), at most ``longest_ms``."""
    p50, p99 = (round(min(histogram.percentile(counts, share), longest_ms), 3) for share in (0.5, 0.99))
    return Latency(p50, p99, longest_ms)


def _lasts(config: Config, counts: RingCounts, fps: float) -> float | None:
    size = counts.captured_bytes / counts.captured if counts.captured else 0.0
    return ring_seconds(
        counts.area - counts.held_bytes, counts.area, fps * size, drops_oldest=config.ring.overflow == "drop-oldest"
    )


def ring_seconds(free_bytes: int, capacity: int, bytes_per_second: float, *, drops_oldest: bool) -> float | None:
    """How long a ring can take frames while nobody empties it; None if none come."""
    if bytes_per_second <= 0:
        return None
    reserve = capacity * _RESERVE_SHARE if drops_oldest else 0
    return round(max(free_bytes - reserve, 0) / bytes_per_second, 1)
