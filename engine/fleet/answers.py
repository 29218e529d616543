"""What a site's API says about the site, in the few figures that a table of many sites has room for.

Sites may run other versions of the engine, so only the fields that are used here are read, and each may be missing.
"""

from __future__ import annotations

from typing import Literal

import msgspec

from engine.errors import WireError

#: ``away`` sites did not answer, or not with a report.
State = Literal["ok", "degraded", "down", "away"]


class SiteStatus(msgspec.Struct, frozen=True):
    """A site as its API describes it. ``fps`` is frames a second, ``dropped`` counts frames and access units since the
    rings were made, ``lag_seconds`` is by how much events are behind; None if nothing is published. ``age_seconds`` is
    how long the site has run. ``reason`` says why ``state`` is not ``ok``."""

    name: str
    url: str
    state: State
    cameras_active: int = 0
    cameras: int = 0
    fps: float = 0.0
    dropped: int = 0
    lag_seconds: float | None = None
    version: str = ""
    age_seconds: float = 0.0
    reason: str = ""


class _Video(msgspec.Struct):
    dropped: dict[str, int] = {}


class _Camera(msgspec.Struct):
    id: str
    state: str
    fps: float = 0.0
    finished: bool = False
    dropped: dict[str, int] = {}
    video: _Video | None = None


class _Publisher(msgspec.Struct):
    lag_seconds: float = 0.0


class _Report(msgspec.Struct):
    site: str
    running: bool
    cameras: list[_Camera]
    uptime_seconds: float = 0.0
    version: str = ""
    publisher: _Publisher | None = None
    troubles: list[str] = []


class _Health(msgspec.Struct):
    status: Literal["ok", "degraded", "down"]


_reports = msgspec.json.Decoder(_Report)
_healths = msgspec.json.Decoder(_Health)


def status_of(name: str, url: str, report: bytes, health: bytes) -> SiteStatus:
    """The status of a site from the bodies of ``/api/v1/status`` and ``/health``. ``name`` is the site's in the list;
    if it is empty, the report's. Raises WireError."""
    try:
        found, healthy = _reports.decode(report), _healths.decode(health)
    except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError) as error:
        raise WireError(f"the answer is no report of a site: {error}") from None
    other = name not in ("", found.site)
    active = [camera for camera in found.cameras if camera.state == "active"]
    dropped = sum(sum(camera.dropped.values()) for camera in found.cameras)
    dropped += sum(sum(camera.video.dropped.values()) for camera in found.cameras if camera.video)
    state: State = healthy.status if found.running else "down"
    reasons = [f"its site file calls it {found.site!r}"] if other else []
    reasons += _reasons(found) if state != "ok" else []
    return SiteStatus(
        name=name or found.site,
        url=url,
        # A site that answers at another's address is not the one that was asked for.
        state="degraded" if other and state == "ok" else state,
        cameras_active=len(active),
        cameras=len(found.cameras),
        fps=round(sum(camera.fps for camera in active), 1),
        dropped=dropped,
        lag_seconds=found.publisher.lag_seconds if found.publisher else None,
        version=found.version,
        age_seconds=found.uptime_seconds,
        reason="; ".join(reasons),
    )


def _reasons(report: _Report) -> list[str]:
    if not report.running:
        return ["it does not run"]
    down = [camera.id for camera in report.cameras if camera.state != "active" and not camera.finished]
    named = f"{len(down)} cameras are not active, such as {down[0]}" if len(down) > 1 else ""
    return report.troubles or [named or (f"camera {down[0]} is not active" if down else "see its /ready")]
