"""What the site does now: its report, and its cameras and their states."""

from __future__ import annotations

from typing import Literal

import msgspec
from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

from engine.config.names import suggestion
from engine.runtime.status_cameras import CameraReport
from engine.web import openapi_parts as parts
from engine.web.answers import json_answer
from engine.web.paths import CAMERA
from engine.web.site import report_for, site_of, store_for
from engine.wire.state import CameraStatus, Decode, Mode

#: Why there are no counters.
NOT_LOCAL = "this web process does not run beside the site, so it has no site counters"


class CameraState(msgspec.Struct, frozen=True):
    """A camera as Redis knows it: the fields of CameraReport that are part of its state."""

    id: str
    state: Literal["connecting", "active", "stalled", "offline"]
    since: int
    codec: str
    mode: Mode
    decode: Decode
    note: str
    width: int
    height: int
    consecutive_failures: int
    last_error: str
    advice: str


async def status(request: Request) -> Response:
    """The report of ``edge-video status --json``."""
    report = await site_of(request).report()
    if report is None:
        raise HTTPException(404, NOT_LOCAL)
    return json_answer(report)


async def cameras(request: Request) -> Response:
    """The cameras and their states."""
    return json_answer({"cameras": await _cameras(request)})


async def camera(request: Request) -> Response:
    """One camera and its state."""
    name = request.path_params["camera"]
    listed = await _cameras(request)
    found = next((one for one in listed if one.id == name), None)
    if found is None:
        raise HTTPException(404, f"no camera {name!r}{suggestion(name, [one.id for one in listed])}")
    return json_answer(found)


async def _cameras(request: Request) -> list[CameraReport] | list[CameraState]:
    if report := await report_for(request):
        return report.cameras
    states = await store_for(request).cameras()
    return [_state(name, status) for name, status in states.items()]


def _state(name: str, status: CameraStatus) -> CameraState:
    return CameraState(
        id=name,
        state=status.state,
        since=status.timestamp_nano,
        codec=status.codec,
        mode=status.mode,
        decode=status.decode,
        note=status.note,
        width=status.width,
        height=status.height,
        consecutive_failures=status.consecutive_failures,
        last_error=status.last_error,
        advice=status.advice,
    )


_CAMERA: parts.Part = {
    "anyOf": [{"$ref": "#/components/schemas/CameraReport"}, {"$ref": "#/components/schemas/CameraState"}]
}
_CAMERAS: parts.Part = {
    "type": "object",
    "properties": {"cameras": {"type": "array", "items": _CAMERA}},
    "required": ["cameras"],
}
OPENAPI: dict[str, parts.Part] = {
    "/api/v1/status": parts.get(
        "The whole site, as `edge-video status --json` prints it.",
        {200: parts.json_of("SiteReport", "The site's state.")},
        problems=[404],
    ),
    "/api/v1/cameras": parts.get(
        "All cameras. Away from the site's machine only their states are known.",
        {200: parts.json_of(_CAMERAS, "The cameras.")},
        problems=[404, 503],
    ),
    "/api/v1/cameras/{camera}": parts.get(
        "One camera.",
        {200: parts.json_of(_CAMERA, "The camera.")},
        parameters=[parts.camera_in_path()],
        problems=[404, 503],
    ),
}

ROUTES = [
    Route("/api/v1/status", status),
    Route("/api/v1/cameras", cameras),
    Route(f"/api/v1/cameras/{CAMERA}", camera),
]
