"""Stored frames over HTTP."""

from __future__ import annotations

from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

from engine.web.site import site_of


async def latest(request: Request) -> Response:
    """The newest frame of a camera, as JPEG."""
    camera = request.path_params["camera"]
    frame = await site_of(request).store().latest(camera)
    if frame is None:
        raise HTTPException(404, f"camera {camera} has no stored frame")
    return Response(frame.data, media_type="image/jpeg", headers={"Cache-Control": "no-cache"})


async def at(request: Request) -> Response:
    """The newest frame of a camera at or before a time, as JPEG."""
    camera, time = request.path_params["camera"], request.query_params.get("time", "now")
    frame = await site_of(request).store().at(camera, time)
    if frame is None:
        raise HTTPException(404, f"camera {camera} has no frame stored at or before {time}")
    return Response(frame.data, media_type="image/jpeg")


ROUTES = [
    Route("/api/v1/cameras/{camera}/latest.jpg", latest),
    Route("/api/v1/cameras/{camera}/at.jpg", at),
]
