"""A camera's rings, of frames and of video: what is in them, how long they last, and how fast they are emptied."""

from __future__ import annotations

import contextlib
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import msgspec

from engine.config import Config
from engine.errors import RingError
from engine.shm import histogram
from engine.shm.ring_file import Drop, Observer, RingCounts

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


def read_ring(path: Path, camera: str) -> RingCounts | None:
    """The counts of a ring; None if there is none."""
    with contextlib.suppress(OSError, RingError), contextlib.closing(Observer(path, camera)) as observer:
        return observer.counts()
    return None


def counted(config: Config, counts: RingCounts | None, fps: float, *, video: bool) -> dict[str, Any]:
    """The fields of a report that come from a ring, which gets ``fps`` frames a second now."""
    return {
        "captured": counts.captured if counts else 0,
        "captured_bytes": counts.captured_bytes if counts else 0,
        "stored": counts.stored if counts else 0,
        "stored_bytes": counts.stored_bytes if counts else 0,
        "stored_total": counts.stored_total if counts else 0,
        "lost": counts.drops[Drop.LOST.label] if counts else 0,
        "dropped": counts.drops if counts else {},
        "ring": RingStatus(
            held=counts.held if counts else 0,
            held_bytes=counts.held_bytes if counts else 0,
            capacity_bytes=config.ring_capacity(video=video),
            fill=round(counts.held_bytes / counts.area, 4) if counts else 0.0,
            lasts_seconds=_lasts(config, counts, fps) if counts else None,
        ),
        "latency_ms": latency([counts] if counts else []),
    }


def latency(rings: Sequence[RingCounts]) -> Latency:
    """The percentiles of some rings together (``engine/shm/histogram.py``)."""
    merged = rings[0].latency if len(rings) == 1 else histogram.merge([counts.latency for counts in rings])
    longest_ms = max((counts.latency_max_ms for counts in rings), default=0.0)
    p50, p99 = (round(min(histogram.percentile(merged, share), longest_ms), 3) for share in (0.5, 0.99))
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
