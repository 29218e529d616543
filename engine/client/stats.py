"""Numbers about what is stored: frames of each span of time, and of each camera."""

from __future__ import annotations

import msgspec


class Bucket(msgspec.Struct, frozen=True):
    """Frames of one span of time that begins at ``start_nano``: how many, their bytes, and the mean of those."""

    start_nano: int
    frames: int
    bytes: int
    mean_bytes: float


class CameraStats(msgspec.Struct, frozen=True):
    """What is stored of a camera: frames that are there, their bytes, the oldest and newest (nanoseconds, 0 without
    frames), the mean of their remaining lifetimes (None where none has one), frames without a TTL, and entries whose
    frames are gone."""

    frames: int = 0
    bytes: int = 0
    oldest_nano: int = 0
    newest_nano: int = 0
    mean_ttl_seconds: float | None = None
    without_ttl: int = 0
    missing: int = 0


class StoreStats(msgspec.Struct, frozen=True):
    """What is stored of a tenant under one prefix: the sum of its cameras, and each of them."""

    vhost: str
    prefix: str
    total: CameraStats
    cameras: dict[str, CameraStats]
