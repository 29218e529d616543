"""Live pictures: ``stream.mjpeg``, for ``<img>`` and for all that reads multipart/x-mixed-replace."""

from __future__ import annotations

import contextlib

from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

from engine.client.async_store import AsyncFrameStore
from engine.client.frame import Frame
from engine.client.journal_queries import checked_tenant
from engine.errors import WireError
from engine.web import openapi_parts as parts
from engine.web.paths import CAMERA
from engine.web.queries import number, text
from engine.web.site import STREAM_SECONDS, WebSite, site_of, store_for, vhost_for
from engine.web.streams_answer import StreamAnswer, Write
from engine.web.streams_tail import Tails

_BOUNDARY = "frame"
#: Frames a second and pixels that may be asked for.
_FPS_MIN, _FPS_MAX = 0.01, 100.0
_WIDTH_MAX = 1920


async def mjpeg(request: Request) -> Response:
    """A camera's frames as they are stored, without end. A reader that is slow skips frames."""
    site, store = site_of(request), store_for(request)
    camera, fps = request.path_params["camera"], _fps(request)
    width = number(request, "width", 0, 16, _WIDTH_MAX)
    await _check(site, store, camera)
    tenant = checked_tenant(vhost_for(request), site.config.prefix, ())
    tails = tails_of(request)

    async def source(write: Write) -> None:
        with tails.viewer(tenant, camera, fps) as viewer:
            while True:
                frame = await viewer.take()
                # A frame that is no picture, or that too many wait for to be scaled, is skipped.
                with contextlib.suppress(WireError, HTTPException):
                    part = _part(frame, await _payload(site, frame, width))
                    await write(part)

    return StreamAnswer(source, f"multipart/x-mixed-replace; boundary={_BOUNDARY}")


def tails_of(request: Request) -> Tails:
    """The tails of this web process."""
    state = request.app.state
    if not hasattr(state, "tails"):
        state.tails = Tails(site_of(request).config.redis_address, STREAM_SECONDS)
    tails: Tails = state.tails
    return tails


def _fps(request: Request) -> float:
    value = text(request, "fps")
    try:
        fps = float(value or 0)
    except ValueError:
        fps = -1.0
    if value and not _FPS_MIN <= fps <= _FPS_MAX:
        raise HTTPException(422, f"fps {value!r} is not a number from {_FPS_MIN:g} to {_FPS_MAX:g}")
    return fps


async def _check(site: WebSite, store: AsyncFrameStore, camera: str) -> None:
    """Raises UnknownName for an unknown camera, HTTPException for one whose video only is stored."""
    if await store.latest(camera) is not None:
        return
    configured = {own.id: own for own in site.config.cameras} if store.vhost == site.config.vhost else {}
    own = configured.get(camera)
    only_video = own.video and own.decode == "none" if own else bool(await store.count(camera, video=True))
    if only_video:
        raise HTTPException(
            409,
            f"camera {camera} stores video and no pictures (decode = none); watch live.mp4 in place of stream.mjpeg",
        )


async def _payload(site: WebSite, frame: Frame, width: int) -> bytes:
    if not width or (frame.width and frame.width <= width):
        return frame.data
    return await site.scaler.scaled(frame.key, frame.data, width)


def _part(frame: Frame, data: bytes) -> bytes:
    """One part; written at once, because each write costs more than joining it."""
    head = (
        f"--{_BOUNDARY}\r\nContent-Type: image/jpeg\r\nContent-Length: {len(data)}\r\n"
        f"X-Frame-Timestamp-Nano: {frame.unix_nano}\r\nX-Frame-Sequence: {frame.sequence:05d}\r\n\r\n"
    )
    return b"".join((head.encode(), data, b"\r\n"))


ROUTES = [Route(f"/api/v1/cameras/{CAMERA}/stream.mjpeg", mjpeg)]
OPENAPI: dict[str, parts.Part] = {
    "/api/v1/cameras/{camera}/stream.mjpeg": parts.get(
        "A camera's frames as they are stored, without end. A slow reader skips frames.",
        {
            200: {
                "description": "JPEGs. Each part has the frame's time and number in its headers.",
                "content": {"multipart/x-mixed-replace": {}},
            }
        },
        parameters=[
            parts.camera_in_path(),
            parts.parameter(
                "fps", {"type": "number", "minimum": _FPS_MIN, "maximum": _FPS_MAX}, "Frames a second at most."
            ),
            parts.number_of("width", 16, _WIDTH_MAX, "Pixels; a smaller picture is not made larger."),
        ],
        problems=[404, 409, 422, 503],
        tag="live",
    )
}
