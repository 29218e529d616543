"""The description of the API in OpenAPI 3.1: ``/api/v1/openapi.json``. Each module of routes describes its own."""

from __future__ import annotations

import functools
from typing import Any

import msgspec
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

import engine
from engine.runtime.site_report import SiteReport
from engine.runtime.status_cameras import CameraReport
from engine.web import (
    alerts,
    events,
    frame_lists,
    frames,
    history,
    servers,
    site_routes,
    streams,
    tenants,
    video,
)
from engine.web.openapi_parts import Part, get, json_of

#: Structs of answers. Those that they contain are found through them.
_STRUCTS = (
    SiteReport,
    CameraReport,
    site_routes.CameraState,
    frame_lists.FrameList,
    frame_lists.Rate,
    tenants.TenantList,
    servers.Servers,
    history.History,
)
_PROBLEM = {
    "type": "object",
    "description": "An error (RFC 9457).",
    "properties": {
        "title": {"type": "string"},
        "status": {"type": "integer", "minimum": 400, "maximum": 599},
        "detail": {"type": "string", "description": "One sentence: what is wrong, with names and numbers."},
    },
    "required": ["title", "status", "detail"],
}
OPENAPI: dict[str, Part] = {
    "/api/v1/openapi.json": get("This description.", {200: json_of({"type": "object"}, "An OpenAPI 3.1 document.")}),
}
#: The descriptions of all modules, in the order in which they are read.
_PARTS = (
    frames.OPENAPI,
    frame_lists.OPENAPI,
    site_routes.OPENAPI,
    tenants.OPENAPI,
    servers.OPENAPI,
    history.OPENAPI,
    alerts.OPENAPI,
    streams.OPENAPI,
    video.OPENAPI,
    events.OPENAPI,
    OPENAPI,
)


def describe() -> dict[str, Any]:
    """The whole description."""
    _, components = msgspec.json.schema_components(_STRUCTS, ref_template="#/components/schemas/{name}")
    paths: dict[str, Part] = {}
    for part in _PARTS:
        paths |= part
    return {
        "openapi": "3.1.0",
        "info": {
            "title": "Edge Video Engine",
            "version": engine.__version__,
            "description": "Frames, video and state of a site. Errors are problem documents (RFC 9457).",
        },
        "servers": [{"url": "/"}],
        "security": [{}, {"bearer": []}],
        "paths": paths,
        "components": {
            "schemas": {**components, "Problem": _PROBLEM},
            "securitySchemes": {"bearer": {"type": "http", "scheme": "bearer"}},
        },
    }


@functools.cache
def _text() -> bytes:
    return msgspec.json.encode(describe())


async def openapi(_: Request) -> Response:
    """The description."""
    return Response(_text(), headers={"Cache-Control": "no-cache"}, media_type="application/json")


ROUTES = [Route("/api/v1/openapi.json", openapi)]
