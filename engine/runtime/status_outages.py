"""Which servers are away, as the processes that use them report; how long rings last; whether the site is healthy."""

from __future__ import annotations

import contextlib
import time
from collections.abc import Sequence
from typing import TYPE_CHECKING

import msgspec

from engine.errors import RingError, WireError
from engine.shm.status_page import StatusPage
from engine.wire.state import ServerAway, decode_outages
from engine.wire.urls import mask

if TYPE_CHECKING:
    from engine.runtime.roles import Instance
    from engine.runtime.status import SiteReport
    from engine.runtime.status_cameras import CameraReport

#: Share of a ring that the writer keeps free of old frames while Redis is away, under ``drop-oldest``.
_RESERVE_SHARE = 1 / 8
#: Share of the cameras that must be active for a site to count as healthy, unless the caller gives another: with fewer,
#: the trouble is the site's and not one camera's.
HEALTHY_SHARE = 0.5


class OutageReport(msgspec.Struct, frozen=True):
    """A server that does not serve ``role``. ``since`` is UTC nanoseconds."""

    server: str
    role: str
    since: int
    seconds: float
    error: str


def read_outages(instances: Sequence[Instance]) -> list[OutageReport]:
    """The servers that each live process misses; of a role with several processes, the longest outage of each
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


def ring_seconds(free_bytes: int, capacity: int, bytes_per_second: float, *, drops_oldest: bool) -> float | None:
    """How long a ring can take frames while nobody drains it; None where none come."""
    if bytes_per_second <= 0:
        return None
    reserve = capacity * _RESERVE_SHARE if drops_oldest else 0
    return round(max(free_bytes - reserve, 0) / bytes_per_second, 1)


def rings_last(cameras: Sequence[CameraReport]) -> float | None:
    """Seconds until the first ring is full at the present rates; None where no frames come."""
    return min((camera.ring.lasts_seconds for camera in cameras if camera.ring.lasts_seconds is not None), default=None)


def troubles(report: SiteReport, share: float = HEALTHY_SHARE) -> list[str]:
    """Why a site is not healthy, a phrase each: it does not run, a process or a server is away, or fewer than
    ``share`` of its cameras are active. Empty where all is well."""
    if not report.running:
        return ["not running"]
    found = [f"{process.name} is down" for process in report.processes if not process.camera and not process.alive]
    for server in dict.fromkeys(outage.server for outage in report.outages):
        longest = max((one for one in report.outages if one.server == server), key=lambda one: one.seconds)
        found.append(f"{server} away for {longest.seconds:,.0f} s")
    # A file that has been played to its end is no camera that failed.
    cameras = [camera for camera in report.cameras if not camera.finished]
    active = sum(camera.state == "active" for camera in cameras)
    if active < share * len(cameras):
        found.append(f"{active} of {len(cameras)} cameras active, at least {share:.0%} wanted")
    return found
