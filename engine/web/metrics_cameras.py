"""Metrics of cameras: their state, what they send, and what became of their frames. One table: each family with the
function that reads a camera's value."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator

from engine.runtime.status_cameras import CameraLook
from engine.shm.ring_file import RingCounts
from engine.web.metrics_histograms import captured_to_stored
from engine.web.metrics_text import Family, Kind, Samples, Summary, Value, labels_text

#: Reads a camera's value; None leaves the camera out.
_Read = Callable[[CameraLook], Value | None]


def _family(kind: Kind, name: str, text: str, *labels: str) -> Family:
    return Family(f"edge_video_{name}", kind, ("camera_id", *labels), text, site_wide=False)


def _frames(read: Callable[[RingCounts], Value | None]) -> _Read:
    """A value of the ring of frames."""
    return lambda camera: read(camera.frames) if camera.frames else None


def _video(read: Callable[[RingCounts], Value | None]) -> _Read:
    """A value of the ring of access units."""
    return lambda camera: read(camera.video) if camera.video else None


#: Metrics with one value a camera. Those of the Go edition come first, under its names.
_EACH: tuple[tuple[Family, _Read], ...] = (
    (
        _family("counter", "frames_processed_total", "Frames that Redis has acknowledged."),
        _frames(lambda ring: ring.stored_total),
    ),
    (
        _family("histogram", "capture_latency_seconds", "Time from a frame's capture to its acknowledgement by Redis."),
        _frames(captured_to_stored),
    ),
    (
        _family("gauge", "camera_connected", "1 while the camera delivers."),
        lambda camera: int(camera.report.state == "active"),
    ),
    (
        _family("summary", "frame_size_bytes", "Sizes of the captured frames."),
        _frames(lambda ring: Summary(ring.captured, ring.captured_bytes)),
    ),
    (
        _family("gauge", "last_successful_capture_timestamp", "Time of the last captured frame, in Unix seconds."),
        _frames(lambda ring: ring.last_nano / 1e9 if ring.last_nano else None),
    ),
    (
        _family("counter", "camera_reconnect_attempts_total", "Attempts to connect to the camera after the first one."),
        lambda camera: max(camera.report.connects - 1, 0),
    ),
    (
        _family("gauge", "buffer_size", "Frames in the camera's ring, captured and not yet stored."),
        _frames(lambda ring: ring.held),
    ),
    (
        _family("gauge", "camera_stalled", "1 while the camera is connected and delivers nothing."),
        lambda camera: int(camera.report.state == "stalled"),
    ),
    (
        _family("gauge", "camera_finished", "1 once a source that does not loop was read to its end."),
        lambda camera: int(camera.report.finished),
    ),
    (
        _family("gauge", "camera_consecutive_failures", "Failed attempts to connect since the camera last delivered."),
        lambda camera: camera.report.consecutive_failures,
    ),
    (
        _family("gauge", "camera_frames_per_second", "Frames captured in the last second."),
        lambda camera: camera.report.fps,
    ),
    (
        _family("counter", "frames_captured_total", "Frames captured, including those that were dropped."),
        _frames(lambda ring: ring.captured),
    ),
    (
        _family("counter", "frames_skipped_total", "Frames that the fps limit passed over; they were never captured."),
        lambda camera: camera.report.skipped,
    ),
    (
        _family("counter", "pictures_decoded_total", "Pictures decoded to make JPEGs of them."),
        lambda camera: camera.report.decoded,
    ),
    (
        _family("gauge", "camera_packets_per_second", "Access units of H.264 or H.265 that the camera sends a second."),
        lambda camera: camera.report.packet_fps if camera.report.decode else None,
    ),
    (
        _family("gauge", "camera_gop_seconds", "Time between the last two key frames of H.264 or H.265."),
        lambda camera: camera.report.key_interval_seconds if camera.report.key_interval_seconds else None,
    ),
    (
        _family(
            "gauge", "camera_clock_offset_seconds", "The camera's clock minus this machine's, if it tells its time."
        ),
        lambda camera: camera.report.clock_offset_seconds,
    ),
    (
        _family("gauge", "camera_clock_drift_ratio", "How fast that offset rises, in seconds per second."),
        lambda camera: None if (ppm := camera.report.clock_drift_ppm) is None else ppm / 1e6,
    ),
    (
        _family("counter", "video_units_captured_total", "Access units captured, including those that were dropped."),
        _video(lambda ring: ring.captured),
    ),
    (
        _family("counter", "video_units_stored_total", "Access units that Redis has acknowledged."),
        _video(lambda ring: ring.stored_total),
    ),
    (
        _family(
            "counter", "video_units_before_key_total", "Access units before a stream's first key frame; not captured."
        ),
        lambda camera: camera.report.video.before_key if camera.report.video else None,
    ),
    (
        _family("summary", "video_unit_size_bytes", "Sizes of the captured access units."),
        _video(lambda ring: Summary(ring.captured, ring.captured_bytes)),
    ),
    (
        _family(
            "histogram",
            "video_capture_latency_seconds",
            "Time from an access unit's capture to its acknowledgement by Redis.",
        ),
        _video(captured_to_stored),
    ),
)

_DROPPED = _family("counter", "frames_dropped_total", "Captured frames that are not stored, by reason.", "reason")
_VIDEO_DROPPED = _family(
    "counter", "video_units_dropped_total", "Captured access units that are not stored, by reason.", "reason"
)
_INFO = _family(
    "info",
    "camera_info",
    "1. The labels say what the camera sends, and which of its pictures become JPEGs (decode).",
    "name", "codec", "mode", "decode", "size",
)  # fmt: skip

FAMILIES = [*(family for family, _ in _EACH), _DROPPED, _VIDEO_DROPPED, _INFO]


def samples(cameras: Iterable[CameraLook]) -> Iterator[tuple[Family, Samples]]:
    """All metrics of these cameras."""
    labelled = [(labels_text({"camera_id": camera.report.id}), camera) for camera in cameras]
    for family, read in _EACH:
        yield family, [(label, value) for label, camera in labelled if (value := read(camera)) is not None]
    yield _DROPPED, [one for label, camera in labelled if camera.frames for one in _drops(label, camera.frames)]
    yield _VIDEO_DROPPED, [one for label, camera in labelled if camera.video for one in _drops(label, camera.video)]
    yield _INFO, [(_info(camera), 1) for _, camera in labelled]


def _drops(label: str, ring: RingCounts) -> list[tuple[str, Value]]:
    return [(f'{label},reason="{reason}"', count) for reason, count in ring.drops.items()]


def _info(camera: CameraLook) -> str:
    report = camera.report
    return labels_text(
        {
            "camera_id": report.id,
            "name": report.name,
            "codec": report.codec,
            "mode": report.mode,
            "decode": report.decode,
            "size": f"{report.width}x{report.height}" if report.width else "",
        }
    )
