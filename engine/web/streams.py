"""Live pictures as JPEGs: ``stream.mjpeg`` (multipart/x-mixed-replace), which every browser shows as an image.

A viewer holds one frame that it has not sent yet. A newer one replaces it, so a slow reader gets fewer pictures, and
none is old.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from typing import Any

from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.routing import Route

from engine.client.frame import Frame
from engine.web import openapi_parts as parts
from engine.web import queries
from engine.web.frames import WIDTH_MAX, WIDTH_MIN
from engine.web.hub import Hub
from engine.web.paths import CAMERA
from engine.web.site import WebSite, site_of, store_for, vhost_for
from engine.web.stream_answer import StreamAnswer
from engine.wire.rfc3339 import NANO

_BOUNDARY = b"frame"
_FPS_MAX = 60


class _Newest:
    """A viewer that takes the newest frame, at most ``fps`` a second."""

    def __init__(self, camera: str, fps: int) -> None:
        self.camera = camera
        self._interval = NANO // fps if fps else 0
        self._due = 0
        self._frame: Frame | None = None
        self._came = asyncio.Event()

    def take(self, item: Frame) -> None:
        """See Viewer."""
        # A frame that comes half an interval early is shown: the camera's rate need not be a multiple of the viewer's.
        if item.unix_nano + self._interval // 2 < self._due:
            return
        self._due = max(self._due, item.unix_nano - self._interval) + self._interval
        self._frame = item
        self._came.set()

    async def next(self) -> Frame:
        """The newest frame that was not taken yet."""
        await self._came.wait()
        self._came.clear()
        assert self._frame
        frame, self._frame = self._frame, None
        return frame


async def mjpeg(request: Request) -> Any:
    """A camera's frames as they are stored."""
    site, camera, vhost = site_of(request), request.path_params["camera"], vhost_for(request)
    fps = queries.number(request, "fps", 0, 1, _FPS_MAX)
    width = queries.number(request, "width", 0, WIDTH_MIN, WIDTH_MAX)
    # Checks the name too, and that Redis answers.
    newest = await store_for(request).latest(camera)
    if newest is None and vhost == site.config.vhost and _video_only(site, camera):
        raise HTTPException(409, f'camera {camera} has decode = "none", so no JPEGs are stored; ask for live.mp4')
    viewer = _Newest(camera, fps)
    if newest is not None:
        viewer.take(newest)
    headers = [(b"content-type", b"multipart/x-mixed-replace; boundary=" + _BOUNDARY)]
    return StreamAnswer(headers, _parts(site, site.frame_hub(vhost), viewer, newest, width))


def _video_only(site: WebSite, camera: str) -> bool:
    return any(known.id == camera and known.decode == "none" for known in site.config.cameras)


async def _parts(
    site: WebSite, hub: Hub[Frame], viewer: _Newest, newest: Frame | None, width: int
) -> AsyncIterator[bytes]:
    hub.join(viewer, newest)
    try:
        while True:
            frame = await viewer.next()
            data = frame.data
            if width and width < frame.width:
                data = await site.scaler.scaled(frame.key, data, width)
            yield b"--%b\r\nContent-Type: image/jpeg\r\nContent-Length: %d\r\nX-Frame-Timestamp-Nano: %d\r\n" % (
                _BOUNDARY,
                len(data),
                frame.unix_nano,
            ) + b"X-Frame-Sequence: %d\r\n\r\n%b\r\n" % (frame.sequence, data)
    finally:
        hub.leave(viewer)


OPENAPI: dict[str, parts.Part] = {
    "/api/v1/cameras/{camera}/stream.mjpeg": parts.get(
        "The frames of a camera as they are stored, from the newest on. Does not end.",
        {200: {"description": "JPEGs, one a part.", "content": {"multipart/x-mixed-replace": {}}}},
        parameters=[
            parts.camera_in_path(),
            parts.number_of("fps", 1, _FPS_MAX, "At most so many frames a second; all by default."),
            parts.number_of("width", WIDTH_MIN, WIDTH_MAX, "Scale frames down to this many pixels."),
        ],
        problems=[404, 409, 422, 503],
        tag="live",
    ),
}
ROUTES = [Route(f"/api/v1/cameras/{CAMERA}/stream.mjpeg", mjpeg)]
