"""Metrics of rings, and of what tenants have stored: a value for each stream of a camera, its frames and its video."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator

from engine.runtime.status_cameras import CameraLook
from engine.runtime.status_rings import RingStatus
from engine.shm.ring_file import RingCounts
from engine.web.metrics_text import Family, Kind, Samples, labels_text

#: The values of the label ``stream``.
_STREAMS = ("frames", "video")


def _ring(kind: Kind, name: str, text: str) -> Family:
    return Family(f"edge_video_ring_{name}", kind, ("camera_id", "stream"), text, site_wide=False)


def _tenant(name: str, text: str) -> Family:
    return Family(f"edge_video_tenant_{name}", "counter", ("vhost", "camera_id", "stream"), text, site_wide=False)


_RINGS: tuple[tuple[Family, Callable[[RingStatus], float | None]], ...] = (
    (_ring("gauge", "fill_ratio", "Share of the ring in use, from 0 to 1."), lambda ring: ring.fill),
    (_ring("gauge", "held_bytes", "Bytes of the ring in use."), lambda ring: ring.held_bytes),
    (_ring("gauge", "capacity_bytes", "Size of the ring."), lambda ring: ring.capacity_bytes),
    (
        _ring("gauge", "lasts_seconds", "Time until the ring is full at the present rate if nobody empties it."),
        lambda ring: ring.lasts_seconds,
    ),
)
_TENANTS: tuple[tuple[Family, Callable[[RingCounts], int]], ...] = (
    (
        _tenant("stored_total", "Frames and access units stored for a tenant, since the ring was made; for billing."),
        lambda ring: ring.stored_total,
    ),
    (
        _tenant("stored_bytes_total", "Bytes of the frames and access units stored for a tenant; for billing."),
        lambda ring: ring.stored_total_bytes,
    ),
)

FAMILIES = [family for family, _ in (*_RINGS, *_TENANTS)]


def samples(cameras: Iterable[CameraLook], vhost: str) -> Iterator[tuple[Family, Samples]]:
    """All metrics of the rings of a tenant's cameras."""
    statuses: list[tuple[str, RingStatus]] = []
    stored: list[tuple[str, RingCounts]] = []
    for camera in cameras:
        reports = (camera.report.ring, camera.report.video.ring if camera.report.video else None)
        for stream, counts, status in zip(_STREAMS, (camera.frames, camera.video), reports, strict=True):
            if counts and status:
                label = labels_text({"camera_id": camera.report.id, "stream": stream})
                statuses.append((label, status))
                stored.append((f"{labels_text({'vhost': vhost})},{label}", counts))
    for family, of_ring in _RINGS:
        yield family, [(label, value) for label, ring in statuses if (value := of_ring(ring)) is not None]
    for family, of_tenant in _TENANTS:
        yield family, [(label, of_tenant(ring)) for label, ring in stored]
