"""A site's cameras, from their status pages and rings."""

from __future__ import annotations

import contextlib
from collections.abc import Mapping
from typing import NamedTuple

import msgspec

from engine.config import Camera, Config
from engine.errors import RingError, WireError
from engine.runtime.status_rings import Latency, RingStatus, counted, read_ring
from engine.shm.ring_file import RingCounts
from engine.shm.site import SitePaths
from engine.shm.status_page import CaptureCount, StatusPage, signed_value
from engine.wire.state import CameraStatus, Decode, decode_status

#: Milliseconds over which a capture process measures its rates.
_SECOND_MS = 1000
#: The furthest that a camera's clock should be from ours, in seconds.
CLOCK_SECONDS_MAX = 1.0


class VideoReport(msgspec.Struct, frozen=True):
    """A camera's stored video: access units and their ring. The counts are those of CameraReport, of which they are no
    part. ``before_key`` access units came before a stream's first key frame, and were never captured."""

    captured: int
    captured_bytes: int
    stored: int
    stored_bytes: int
    stored_total: int
    lost: int
    dropped: dict[str, int]
    before_key: int
    ring: RingStatus
    latency_ms: Latency


class CameraReport(msgspec.Struct, frozen=True):
    """One camera. ``since`` is UTC nanoseconds of its last change of state.

    ``stored`` counts stored frames that Redis has not lost since. So ``captured`` is the sum of ``stored``, of all
    ``dropped`` frames and of the frames in the ring. ``stored_total`` and ``lost`` never fall while the ring exists, so
    rates are computed from them.

    Of H.264 and H.265: ``decode`` says which pictures become JPEGs, ``packet_fps`` how many access units the camera
    sends per second, ``key_interval_seconds`` how far apart its last two key frames were (0 before the second), and
    ``decoded`` counts pictures. ``note`` says what an active camera waits for. ``advice`` says what to do about
    ``last_error``, which ends with it; empty if that is not known.

    ``clock_offset_seconds`` is the camera's clock minus ours, ``clock_drift_ppm`` how fast that rises, in millionths;
    None if the camera does not tell its time, or not for long enough.
    """

    id: str
    name: str
    state: str
    since: int
    codec: str
    mode: str
    decode: Decode
    note: str
    width: int
    height: int
    fps: float
    packet_fps: float
    key_interval_seconds: float
    clock_offset_seconds: float | None
    clock_drift_ppm: float | None
    captured: int
    captured_bytes: int
    stored: int
    stored_bytes: int
    stored_total: int
    lost: int
    dropped: dict[str, int]
    skipped: int
    decoded: int
    ring: RingStatus
    latency_ms: Latency
    consecutive_failures: int
    last_error: str
    advice: str
    connects: int
    #: True once a source that does not loop has been read to its end.
    finished: bool
    #: None if the camera's video is not stored.
    video: VideoReport | None


class CameraLook(NamedTuple):
    """One camera, and the counts of its rings; None for a ring that does not exist."""

    report: CameraReport
    frames: RingCounts | None
    video: RingCounts | None


def look_at(config: Config, paths: SitePaths, camera: Camera) -> CameraLook:
    """One camera of a site."""
    status, alive, counts = CameraStatus(), False, dict.fromkeys(CaptureCount, 0)
    with (
        contextlib.suppress(OSError, RingError, WireError),
        contextlib.closing(StatusPage.watch(paths.capture(camera.id))) as page,
    ):
        alive = page.owned
        counts = {count: page.counts[count] for count in CaptureCount}
        status = decode_status(page.text)
    frames, video = (read_ring(paths.ring(camera.id, video=video), camera.id) for video in (False, True))
    flows = alive and status.state == "active"
    fps = _fps(camera, status, counts) if flows else 0.0
    packet_fps = counts[CaptureCount.PACKET_MILLI_FPS] / 1000 if flows else 0.0
    before_key = counts[CaptureCount.BEFORE_KEY]
    report = CameraReport(
        id=camera.id,
        name=camera.name,
        state=status.state if alive or status.state == "offline" else "offline",
        since=status.timestamp_nano,
        codec=status.codec,
        mode=status.mode,
        decode=status.decode,
        note=status.note if flows else "",
        width=status.width,
        height=status.height,
        fps=round(fps, 2),
        packet_fps=round(packet_fps, 2),
        key_interval_seconds=counts[CaptureCount.KEY_INTERVAL_MS] / 1000 if status.decode else 0.0,
        clock_offset_seconds=_signed(counts[CaptureCount.CAMERA_OFFSET_US], 1_000_000, 4) if flows else None,
        clock_drift_ppm=_signed(counts[CaptureCount.CAMERA_DRIFT_PPB], 1000, 1) if flows else None,
        skipped=counts[CaptureCount.SKIPPED],
        decoded=counts[CaptureCount.DECODED],
        consecutive_failures=status.consecutive_failures,
        last_error=status.last_error,
        advice=status.advice,
        connects=counts[CaptureCount.CONNECTS],
        finished=bool(counts[CaptureCount.FINISHED]),
        video=VideoReport(before_key=before_key, **counted(config, video, packet_fps, video=True))
        if camera.video or video
        else None,
        **counted(config, frames, fps, video=False),
    )
    return CameraLook(report, frames, video)


def _signed(word: int, unit: int, digits: int) -> float | None:
    value = signed_value(word)
    return None if value is None else round(value / unit, digits)


def _fps(camera: Camera, status: CameraStatus, counts: Mapping[CaptureCount, int]) -> float:
    """JPEGs per second. The rate of the last second says little about key frames that are further apart."""
    measured, interval_ms = counts[CaptureCount.MILLI_FPS] / 1000, counts[CaptureCount.KEY_INTERVAL_MS]
    if status.decode != "key" or interval_ms <= _SECOND_MS:
        return measured
    return min(_SECOND_MS / interval_ms, camera.fps or 1.0)
