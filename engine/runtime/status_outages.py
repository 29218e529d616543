"""Which servers are away, as reported by their users; how long rings last; whether a site is healthy."""

from __future__ import annotations

import contextlib
import time
from collections.abc import Sequence

from engine.errors import RingError, WireError
from engine.runtime.roles import Instance
from engine.runtime.site_report import OutageReport, SiteReport
from engine.runtime.status_cameras import CameraReport
from engine.shm.status_page import StatusPage
from engine.wire.state import ServerAway, decode_outages
from engine.wire.urls import mask

#: Default share of the cameras that must be active in a healthy site. With fewer, the trouble is the site's and not one
#: camera's.
HEALTHY_SHARE = 0.5


def read_outages(instances: Sequence[Instance]) -> list[OutageReport]:
    """The servers that are away for live processes. For a role with several processes, the longest outage of each
    server."""
    now = time.time_ns()
    found: dict[tuple[str, str], ServerAway] = {}
    for instance in instances:
        role = instance.role.name
        with (
            contextlib.suppress(OSError, RingError, WireError),
            contextlib.closing(StatusPage.watch(instance.page)) as page,
        ):
            if not page.owned:
                continue
            for server, away in decode_outages(page.text).items():
                known = found.get((server, role))
                if known is None or away.since_nano < known.since_nano:
                    found[server, role] = away
    return [
        OutageReport(server, role, away.since_nano, round(max(now - away.since_nano, 0) / 1e9, 1), mask(away.error))
        for (server, role), away in found.items()
    ]


def rings_last(cameras: Sequence[CameraReport]) -> float | None:
    """Seconds until the first ring, of frames or of video, is full at the present rates; None if no frames come."""
    rings = [camera.ring for camera in cameras] + [camera.video.ring for camera in cameras if camera.video]
    return min((ring.lasts_seconds for ring in rings if ring.lasts_seconds is not None), default=None)


def troubles(report: SiteReport, share: float = HEALTHY_SHARE) -> list[str]:
    """Why a site is not healthy, one phrase each: it does not run, a process is down, a server is away, or fewer than
    ``share`` of its cameras are active. Empty if it is healthy."""
    if not report.running:
        return ["not running"]
    found = [f"{process.name} is down" for process in report.processes if not process.camera and not process.alive]
    for server in dict.fromkeys(outage.server for outage in report.outages):
        longest = max((one for one in report.outages if one.server == server), key=lambda one: one.seconds)
        found.append(f"{server} away for {longest.seconds:,.0f} s")
    # A file that was played to its end is not a failed camera.
    cameras = [camera for camera in report.cameras if not camera.finished]
    active = sum(camera.state == "active" for camera in cameras)
    if active < share * len(cameras):
        found.append(f"{active} of {len(cameras)} cameras active, at least {share:.0%} wanted")
    return found
