"""Live pictures: ``stream.mjpeg``."""

from __future__ import annotations

from collections.abc import AsyncIterator

from starlette.requests import Request
from starlette.responses import Response, StreamingResponse
from starlette.routing import Route

from engine.web.site import site_of


async def mjpeg(request: Request) -> Response:
    """A camera's frames as they are stored, as multipart/x-mixed-replace."""
    frames = site_of(request).store().tail(request.path_params["camera"])

    async def parts() -> AsyncIterator[bytes]:
        async for frame in frames:
            yield b"--frame\r\nContent-Type: image/jpeg\r\nContent-Length: %d\r\n\r\n" % frame.size
            yield frame.data
            yield b"\r\n"

    return StreamingResponse(parts(), media_type="multipart/x-mixed-replace; boundary=frame")


ROUTES = [Route("/api/v1/cameras/{camera}/stream.mjpeg", mjpeg)]
