"""Stored and live video over HTTP, as fragmented MP4: ``video.mp4`` and ``live.mp4``. Nothing is decoded."""

from __future__ import annotations

import contextlib
import re
import time
from collections.abc import AsyncGenerator, AsyncIterator
from typing import NamedTuple, TypeVar

from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

from engine.client.async_store import AsyncFrameStore
from engine.client.frame import FrameEntry
from engine.client.times import NANO_MAX
from engine.errors import WireError
from engine.web import openapi_parts as parts
from engine.web.paths import CAMERA
from engine.web.queries import flag, moment, span
from engine.web.site import STREAM_SECONDS, site_of, vhost_for
from engine.web.streams_answer import StreamAnswer, Write
from engine.web.video_boxes import header, jpeg_entry
from engine.web.video_codecs import track_of
from engine.web.video_film import jpeg_fragments, video_fragments
from engine.web.video_live import LiveViews
from engine.wire import jpeg
from engine.wire.rfc3339 import NANO, rfc3339

#: The longest film.
DURATION_SECONDS_MAX = 600
#: Bytes that a film reads ahead, in one round trip.
_AHEAD_BYTES = 128 * 1024
#: How much older than ``start`` the first JPEG of a film may be.
_EARLIER_NANO_MAX = 10 * NANO
_MEDIA_TYPE = "video/mp4"
_Item = TypeVar("_Item", bound=FrameEntry)


class _Film(NamedTuple):
    """A film that begins: its name for Media Source, time stamp of its first unit, first bytes, and the rest."""

    codec: str
    start_nano: int
    header: bytes
    fragments: AsyncGenerator[bytes, None]


async def film(request: Request) -> Response:
    """A camera's stored video from the key frame at or before ``start`` on; of a camera without video, its JPEGs."""
    camera = request.path_params["camera"]
    now = time.time_ns()
    start = moment(request, "start", now)
    first = max(now - 60 * NANO, 0) if start is None else start
    duration, download = span(request, "duration", "60s"), flag(request, "download")
    if duration > DURATION_SECONDS_MAX * NANO:
        raise HTTPException(
            422, f"duration is {duration / NANO:g} s; at most {DURATION_SECONDS_MAX} s, so ask for several films"
        )
    last = min(first + duration, NANO_MAX)
    store = store_of_streams(request)
    try:
        found = await _of_video(store, camera, first, last) or await _of_jpegs(store, camera, first, last)
        if found is None:
            raise HTTPException(404, f"camera {camera} has nothing stored from {first} to {last} (UTC nanoseconds)")
    except BaseException:
        await store.close()
        raise

    async def source(write: Write) -> None:
        await write(found.header)
        async with contextlib.aclosing(found.fragments) as fragments:
            async for piece in fragments:
                await write(piece)

    headers = _headers(found.codec, found.start_nano, camera if download else "")
    return StreamAnswer(source, _MEDIA_TYPE, headers, store.close)


async def live(request: Request) -> Response:
    """A camera's video as it is stored, from the newest key frame on, without end."""
    state = request.app.state
    if not hasattr(state, "live_views"):
        state.live_views = LiveViews()
    views: LiveViews = state.live_views
    camera = request.path_params["camera"]
    config, vhost = site_of(request).config, vhost_for(request)
    may_come = vhost == config.vhost and any(one.id == camera and one.video for one in config.cameras)
    view = views.open((vhost, camera), lambda: store_of_streams(request), may_come=may_come)
    try:
        track, start_nano = await view.begin()
    except BaseException:
        view.close()
        raise

    async def source(write: Write) -> None:
        await write(track.header)
        while piece := await view.take():
            await write(piece)

    async def close() -> None:
        view.close()

    return StreamAnswer(source, _MEDIA_TYPE, _headers(track.codec, start_nano, ""), close)


def store_of_streams(request: Request) -> AsyncFrameStore:
    """A store of its own for one answer or tail: one that waits does not use up the connections of other requests."""
    config = site_of(request).config
    vhost = vhost_for(request)
    known = [camera.id for camera in config.cameras] if vhost == config.vhost else []
    return AsyncFrameStore(
        config.redis_address,
        vhost,
        config.prefix,
        timeout_seconds=STREAM_SECONDS,
        chunk_bytes=_AHEAD_BYTES,
        cameras=known,
    )


async def _of_video(store: AsyncFrameStore, camera: str, first: int, last: int) -> _Film | None:
    """The film of a camera's video; None if there is none. Raises UnknownName for an unknown camera."""
    units = store.video(camera, first, last, from_key=True)
    async for unit in units:
        if not unit.keyframe:
            continue
        try:
            track = track_of(unit)
        except WireError:
            # The next key frame may have what this one lacks.
            continue
        return _Film(track.codec, unit.unix_nano, track.header, video_fragments(track, _with_first(unit, units)))
    return None


async def _of_jpegs(store: AsyncFrameStore, camera: str, first: int, last: int) -> _Film | None:
    """The film of a camera's frames; None if there are none."""
    before = store.entries(camera, max(first - _EARLIER_NANO_MAX, 0), first, limit=1, reverse=True)
    async for entry in before:
        first = entry.unix_nano
    frames = store.range(camera, first, last)
    async for frame in frames:
        size = (frame.width, frame.height) if frame.width and frame.height else jpeg.describe(frame.data)[:2]
        if not all(size):
            continue
        begin = header(jpeg_entry(*size), *size)
        return _Film("jpeg", frame.unix_nano, begin, jpeg_fragments(_with_first(frame, frames)))
    return None


async def _with_first(first: _Item, others: AsyncIterator[_Item]) -> AsyncGenerator[_Item, None]:
    yield first
    async for item in others:
        yield item


def _headers(codec: str, start_nano: int, name: str) -> dict[str, str]:
    """The headers of a film. ``name`` is the camera's if it is to be saved as a file."""
    headers = {"X-Video-Codec": codec, "X-Video-Start-Nano": str(start_nano)}
    if name:
        # A file's name must not depend on how a browser reads odd characters.
        plain = re.sub(r"[^A-Za-z0-9_-]+", "_", name)[:80]
        when = re.sub(r"[-:]", "", rfc3339(start_nano)[:19])
        headers["Content-Disposition"] = f'attachment; filename="{plain}-{when}Z.mp4"'
    return headers


ROUTES = [
    Route(f"/api/v1/cameras/{CAMERA}/video.mp4", film),
    Route(f"/api/v1/cameras/{CAMERA}/live.mp4", live),
]
_ANSWER: parts.Part = {
    "description": "Fragmented MP4.",
    "headers": {
        "X-Video-Codec": {
            "description": "The codec's name for Media Source, such as `avc1.64001f`; `jpeg` for a film of JPEGs.",
            "schema": {"type": "string"},
        },
        "X-Video-Start-Nano": {
            "description": "The time stamp of the first unit, in nanoseconds since the epoch.",
            "schema": {"type": "string", "pattern": "^[0-9]+$"},
        },
    },
    "content": {_MEDIA_TYPE: {}},
}
OPENAPI: dict[str, parts.Part] = {
    "/api/v1/cameras/{camera}/video.mp4": parts.get(
        "A camera's stored video, undecoded, from the key frame at or before `start` on; without video, its JPEGs.",
        {200: _ANSWER},
        parameters=[
            parts.camera_in_path(),
            parts.time_of("start", "Where it begins; a minute ago by default."),
            parts.span_of("duration", f"Its length, `60s` by default, {DURATION_SECONDS_MAX} s at most."),
            parts.flag_of("download", "To be saved as a file."),
        ],
        problems=[404, 422, 502, 503],
        tag="video",
    ),
    "/api/v1/cameras/{camera}/live.mp4": parts.get(
        "A camera's video as it is stored, from the newest key frame on, without end. Not for cameras with B-frames.",
        {200: _ANSWER},
        parameters=[parts.camera_in_path()],
        problems=[404, 409, 422, 502, 503],
        tag="live",
    ),
}
