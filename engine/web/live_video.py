"""Live video as fragmented MP4 for Media Source, undecoded: ``live.mp4``.

A viewer begins with the newest key frame and gets each access unit as a fragment. One that falls behind goes on at the
next key frame.
"""

from __future__ import annotations

import asyncio
import time
from collections import deque
from collections.abc import AsyncIterator
from importlib import import_module
from typing import TYPE_CHECKING, Any

from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.routing import Route

from engine.client.video import VideoUnit
from engine.errors import WireError
from engine.web import openapi_parts as parts
from engine.web.hub import Hub
from engine.web.paths import CAMERA
from engine.web.site import site_of, store_for, vhost_for
from engine.web.stream_answer import StreamAnswer
from engine.web.video import FILM_HEADERS
from engine.wire.codec_string import codec_string

if TYPE_CHECKING:
    from engine.client.live_film import LiveFilm

#: Access units that wait for a viewer: seconds of video, and bounded in bytes too.
_WAITING_UNITS_MAX = 150
_WAITING_BYTES_MAX = 8 * 2**20
#: Access units since the newest key frame with which a viewer begins; more are passed over until the next key frame.
_BACKLOG_MAX = 600


class _Units:
    """A viewer that takes all access units, until too many wait."""

    def __init__(self, camera: str) -> None:
        self.camera = camera
        self._waiting: deque[VideoUnit] = deque()
        self._bytes = 0
        self._skips = False
        self._came = asyncio.Event()

    def take(self, item: VideoUnit) -> None:
        """See Viewer."""
        if item.keyframe:
            self._skips = False
        if self._skips:
            return
        if len(self._waiting) >= _WAITING_UNITS_MAX or self._bytes > _WAITING_BYTES_MAX:
            # What waits is old by now. The next key frame is the next picture that decodes.
            self._waiting.clear()
            self._bytes = 0
            if not item.keyframe:
                self._skips = True
                return
        self._waiting.append(item)
        self._bytes += item.size
        self._came.set()

    async def next(self) -> VideoUnit:
        """The oldest unit that was not taken yet."""
        while not self._waiting:
            self._came.clear()
            await self._came.wait()
        unit = self._waiting.popleft()
        self._bytes -= unit.size
        return unit


async def live(request: Request) -> Any:
    """A camera's video as it is stored, from the newest key frame on."""
    site, camera, vhost = site_of(request), request.path_params["camera"], vhost_for(request)
    units = [unit async for unit in store_for(request).video(camera, time.time_ns(), from_key=True, limit=_BACKLOG_MAX)]
    while units and not units[0].keyframe:
        del units[0]
    if not units:
        raise HTTPException(404, f"camera {camera} has no video stored now; ask for stream.mjpeg")
    newest = units[-1]
    try:
        codec = codec_string(units[0].encoding, units[0].data)
    except WireError as error:
        raise HTTPException(406, f"the video of camera {camera} has no name for players: {error}") from None
    # Loads PyAV the first time.
    module = await asyncio.to_thread(import_module, "engine.client.live_film")
    film: LiveFilm = module.LiveFilm(units)
    headers = [
        (b"content-type", b"video/mp4"),
        (b"x-video-codec", codec.encode()),
        (b"x-video-start-nano", b"%d" % film.start_nano),
    ]
    return StreamAnswer(headers, _pieces(site.video_hub(vhost), film, units, newest))


async def _pieces(
    hub: Hub[VideoUnit], film: LiveFilm, begin: list[VideoUnit], newest: VideoUnit
) -> AsyncIterator[bytes]:
    viewer = _Units(newest.camera)
    hub.join(viewer, newest)
    try:
        head = b"".join(film.add(unit) for unit in begin)
        begin.clear()
        if head:
            yield head
        last = (newest.unix_nano, newest.sequence)
        while True:
            unit = await viewer.next()
            # Another viewer's tail may be behind what this one began with.
            if (unit.unix_nano, unit.sequence) <= last:
                continue
            last = (unit.unix_nano, unit.sequence)
            if not film.fits(unit):
                # The camera sends another size or codec now. The player asks again and gets a new film.
                return
            if piece := film.add(unit):
                yield piece
    finally:
        hub.leave(viewer)
        film.close()


OPENAPI: dict[str, parts.Part] = {
    "/api/v1/cameras/{camera}/live.mp4": parts.get(
        "The video of a camera as it is stored, undecoded: fragmented MP4 from the newest key frame on. Ends only when "
        "the camera's codec or size changes.",
        {200: {"description": "The film.", "headers": FILM_HEADERS, "content": {"video/mp4": {}}}},
        parameters=[parts.camera_in_path()],
        problems=[404, 406, 422, 502, 503],
        tag="live",
    ),
}
ROUTES = [Route(f"/api/v1/cameras/{CAMERA}/live.mp4", live)]
