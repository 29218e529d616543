"""Statistics of stored frames: per time span, and per camera."""

from __future__ import annotations

import msgspec


class Bucket(msgspec.Struct, frozen=True):
    """Frames of the time span that begins at ``start_nano``: their number, total bytes and mean bytes."""

    start_nano: int
    frames: int
    bytes: int
    mean_bytes: float


class CameraStats(msgspec.Struct, frozen=True):
    """What is stored for a camera: number and bytes of its frames, oldest and newest (nanoseconds, 0 without frames),
    mean remaining lifetime (None if no frame has a TTL), frames without a TTL, and entries whose frames are gone. Of
    its video, the same about access units."""

    frames: int = 0
    bytes: int = 0
    oldest_nano: int = 0
    newest_nano: int = 0
    mean_ttl_seconds: float | None = None
    without_ttl: int = 0
    missing: int = 0


class StoreStats(msgspec.Struct, frozen=True):
    """What is stored for a tenant under one prefix: the sum of its cameras, and each camera. ``total`` and ``cameras``
    are about JPEG frames, ``video`` and ``video_cameras`` about stored video, of the cameras that have any."""

    vhost: str
    prefix: str
    total: CameraStats
    cameras: dict[str, CameraStats]
    video: CameraStats = CameraStats()
    video_cameras: dict[str, CameraStats] = {}
