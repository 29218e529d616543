"""The queries behind ``stats``, without I/O: what each camera's journals list, and for how long it stays."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

from engine.client.stats import CameraStats, StoreStats
from engine.client.tenant import ENTRIES_MAX, LAST_ID, Tenant, VideoTenant
from engine.client.transport import Query
from engine.servers.redis.errors import Command


class _Summed(NamedTuple):
    """A camera's numbers, and the sum (in seconds) and count of the lifetimes of its frames."""

    stats: CameraStats
    lifetimes: float
    living: int


def store_stats(tenant: Tenant, cameras: Sequence[str]) -> Query[StoreStats]:
    """What is stored of some cameras. Reads the lifetime of every frame and access unit, a chunk at a time."""
    video = VideoTenant(*tenant)
    commands: list[Command] = [("EXISTS", video.journal(camera)) for camera in cameras]
    exist = (yield commands) if commands else []
    frames: dict[str, _Summed] = {}
    units: dict[str, _Summed] = {}
    for camera, has_video in zip(cameras, exist, strict=True):
        frames[camera] = yield from _camera_stats(tenant, camera)
        if has_video:
            units[camera] = yield from _camera_stats(video, camera)
    return StoreStats(
        tenant.vhost,
        str(tenant.prefix),
        _total(list(frames.values())),
        {camera: summed.stats for camera, summed in frames.items()},
        _total(list(units.values())),
        {camera: summed.stats for camera, summed in units.items()},
    )


def _camera_stats(tenant: Tenant, camera: str) -> Query[_Summed]:
    begin, size, missing, without = "-", 0, 0, 0
    frames = oldest = newest = lifetime_ms = living = 0
    while True:
        (reply,) = yield [("XRANGE", tenant.journal(camera), begin, "+", "COUNT", ENTRIES_MAX)]
        entries, _ = tenant.parse(camera, reply)
        commands: list[Command] = [("PTTL", entry.key) for entry in entries]
        lifetimes = (yield commands) if commands else []
        for entry, left_ms in zip(entries, lifetimes, strict=True):
            if left_ms == -2:
                missing += 1
                continue
            frames += 1
            size += entry.size
            oldest = oldest or entry.unix_nano
            newest = entry.unix_nano
            if left_ms < 0:
                without += 1
            else:
                lifetime_ms += left_ms
                living += 1
        if len(reply) < ENTRIES_MAX or reply[-1][0] == LAST_ID:
            break
        begin = f"({reply[-1][0].decode()}"
    total = lifetime_ms / 1000
    return _Summed(CameraStats(frames, size, oldest, newest, _mean(total, living), without, missing), total, living)


def _total(cameras: Sequence[_Summed]) -> CameraStats:
    every = [summed.stats for summed in cameras]
    stored = [stats for stats in every if stats.frames]
    return CameraStats(
        frames=sum(stats.frames for stats in stored),
        bytes=sum(stats.bytes for stats in stored),
        oldest_nano=min((stats.oldest_nano for stats in stored), default=0),
        newest_nano=max((stats.newest_nano for stats in stored), default=0),
        mean_ttl_seconds=_mean(sum(summed.lifetimes for summed in cameras), sum(summed.living for summed in cameras)),
        without_ttl=sum(stats.without_ttl for stats in stored),
        missing=sum(stats.missing for stats in every),
    )


def _mean(total: float, count: int) -> float | None:
    return total / count if count else None
