"""A running site's state, read from its shared memory without asking any process."""

from __future__ import annotations

import contextlib
import os
import time
from collections.abc import Sequence
from typing import Any, NamedTuple

import msgspec

from engine import __version__
from engine.config import Camera, Config, Url
from engine.errors import InputError, RingError
from engine.runtime import elsewhere, running_site
from engine.runtime.embedded_pids import running_pids
from engine.runtime.roles import CHILD_ROLES, SUPERVISOR, WEB
from engine.runtime.site_report import SiteReport, VideoTotals
from engine.runtime.status_cameras import CameraLook, look_at
from engine.runtime.status_outages import HEALTHY_SHARE, read_outages, rings_last, troubles
from engine.runtime.status_processes import (
    process_report,
    publisher_report,
    writer_report,
)
from engine.runtime.status_rings import latency
from engine.shm import alerts_file
from engine.shm.camera_list import CameraList
from engine.shm.site import SitePaths
from engine.shm.status_page import StatusPage
from engine.wire import alert


class SiteLook(NamedTuple):
    """One look at a site: its report, the looks at its cameras, and the configuration that it runs with."""

    report: SiteReport
    cameras: list[CameraLook]
    config: Config


def collect(config: Config, *, memory: bool = True, share: float = HEALTHY_SHARE) -> SiteReport:
    """The present state of the site that a file describes. ``memory`` False leaves out PSS, which the kernel takes a
    while to compute. In a healthy site at least ``share`` of the cameras are active."""
    return look(config, memory=memory, share=share).report


def look(config: Config, *, memory: bool = True, share: float = HEALTHY_SHARE) -> SiteLook:
    """As ``collect``, with the counts that the report is made from."""
    paths = SitePaths.of(config)
    pid, started, supervised = 0, 0, False
    with (
        contextlib.suppress(OSError, RingError),
        contextlib.closing(StatusPage.watch(SUPERVISOR.instance(config).page)) as page,
    ):
        if page.owned:
            pid, started, supervised = page.pid, page.started_nano, True
    differs: list[str] = []
    if supervised:
        if started_with := running_site.read(config):
            differs = running_site.differences(started_with, config, os.environ)
            config = started_with.config
    else:
        config = _with_standing(config, paths)
    # A role that runs alone may have settings in its environment that this process lacks.
    instances = [one for role in CHILD_ROLES for one in role.instances(config) or [role.instance(config)]]
    processes = [report for one in instances if (report := process_report(one, memory=memory))]
    looks = [look_at(config, paths, camera) for camera in config.cameras]
    cameras = [look.report for look in looks]
    running = supervised or any(process.alive for process in processes)
    site = SiteReport(
        site=config.site.name,
        running=running,
        pid=pid,
        uptime_seconds=round((time.time_ns() - started) / 1e9, 1) if started else 0.0,
        vhost=config.vhost,
        prefix=config.redis.prefix,
        redis=str(config.redis_address),
        cameras=cameras,
        processes=processes,
        writer=writer_report(config),
        publisher=publisher_report(config),
        latency_ms=latency([look.frames for look in looks if look.frames]),
        video=_video_totals(looks),
        elsewhere=None if running else elsewhere.find(config),
        embedded_pids=_embedded_pids(config),
        outages=read_outages([one for one in instances if one.role.tells_outages]),
        rings_last_seconds=rings_last(cameras),
        file_differs=differs,
        troubles=[],
        alerts=alert.raised(alerts_file.read(paths)) if running and config.alerts.enabled else [],
        version=__version__,
    )
    return SiteLook(msgspec.structs.replace(site, troubles=troubles(site, share)), looks, config)


def runs_here(config: Config) -> bool:
    """True if a process of the site lives on this machine, the web process aside, which may be on another one."""
    roles = [SUPERVISOR, *(role for role in CHILD_ROLES if role is not WEB)]
    for instance in (one for role in roles for one in role.instances(config)):
        with (
            contextlib.suppress(OSError, RingError),
            contextlib.closing(StatusPage.watch(instance.page)) as page,
        ):
            if page.owned:
                return True
    return False


def _video_totals(looks: Sequence[CameraLook]) -> VideoTotals | None:
    reports = [(look.report, look.report.video) for look in looks]
    videos = [video for _, video in reports if video]
    if not videos:
        return None
    return VideoTotals(
        cameras=len(videos),
        captured=sum(video.captured for video in videos),
        stored=sum(video.stored for video in videos),
        dropped=sum(sum(video.dropped.values()) for video in videos),
        packet_fps=round(sum(camera.packet_fps for camera, video in reports if video), 2),
        latency_ms=latency([look.video for look in looks if look.video]),
    )


def _with_standing(config: Config, paths: SitePaths) -> Config:
    """The site, with cameras added that have a ring but are not in this file: roles that run alone may have been
    started with another site file."""
    listed = CameraList(paths, lambda _path, _reason: None)
    listed.look()
    known = {camera.id for camera in config.cameras}
    others = tuple(Camera(id=name, url=Url()) for name in listed.rings if name not in known)
    return msgspec.structs.replace(config, cameras=config.cameras + others) if others else config


def _embedded_pids(config: Config) -> list[int]:
    """The embedded servers' process ids; none if none runs or if they are unknown."""
    with contextlib.suppress(InputError):
        return running_pids(config)
    return []


def to_json(report: Any) -> bytes:
    """A report as one JSON object."""
    return msgspec.json.encode(report)
