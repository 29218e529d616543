"""Stored video over HTTP as fragmented MP4, undecoded: ``video.mp4``.

Muxing runs in threads of its own, a piece at a time, and only when the reader has taken the piece before. So a film
holds one piece and one chunk of access units, however slow its reader is.
"""

from __future__ import annotations

import asyncio
import itertools
import time
from collections.abc import AsyncIterator, Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from typing import Any, NamedTuple
from urllib.parse import quote

from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.routing import Route

from engine.client.store import FrameStore
from engine.errors import WireError
from engine.web import openapi_parts as parts
from engine.web import queries
from engine.web.paths import CAMERA
from engine.web.site import STREAM_SECONDS, WebSite, site_of, vhost_for
from engine.web.stream_answer import StreamAnswer
from engine.wire.codec_string import codec_string
from engine.wire.rfc3339 import NANO

#: The longest film of one answer, in seconds.
FILM_SECONDS_MAX = 600
_DEFAULT = "60s"
#: Payload bytes that a film reads ahead.
_CHUNK_BYTES = 2**20


class _Film(NamedTuple):
    """A film whose first piece is ready. ``close`` frees what it holds."""

    start_nano: int
    codec: str
    pieces: Iterator[bytes]
    close: Callable[[], None]


async def film(request: Request) -> Any:
    """A camera's stored video from a time on; for a camera without video, a film of its JPEGs."""
    site, camera = site_of(request), request.path_params["camera"]
    start = queries.moment(request, "start", time.time_ns())
    duration = queries.span(request, "duration", _DEFAULT)
    if duration > FILM_SECONDS_MAX * NANO:
        raise HTTPException(422, f"duration is longer than {FILM_SECONDS_MAX} s; ask for the parts one by one")
    first = time.time_ns() - duration if start is None else start
    pool = site.film_threads
    loop = asyncio.get_running_loop()
    opened = await loop.run_in_executor(pool, partial(_open, site, vhost_for(request), camera, first, first + duration))
    if opened is None:
        raise HTTPException(404, f"camera {camera} has nothing stored in these {duration / NANO:g} s")
    headers = [
        (b"content-type", b"video/mp4"),
        (b"x-video-codec", opened.codec.encode()),
        (b"x-video-start-nano", b"%d" % opened.start_nano),
    ]
    if queries.flag(request, "download"):
        name = quote(f"{camera}-{opened.start_nano}.mp4", safe="")
        headers.append((b"content-disposition", f"attachment; filename*=UTF-8''{name}".encode()))
    return StreamAnswer(headers, _pieces(pool, opened))


async def _pieces(pool: ThreadPoolExecutor, opened: _Film) -> AsyncIterator[bytes]:
    loop = asyncio.get_running_loop()
    work: asyncio.Future[bytes | None] | None = None
    try:
        while True:
            work = loop.run_in_executor(pool, next, opened.pieces, None)
            piece = await asyncio.shield(work)
            if piece is None:
                return
            yield piece
    finally:
        # A thread that is at work cannot be stopped; what it uses is freed when it is done.
        if work is not None and not work.done():
            work.add_done_callback(lambda _: opened.close())
        else:
            opened.close()


def _open(site: WebSite, vhost: str, camera: str, first: int, last: int) -> _Film | None:
    """Begin a film, in a thread. None if nothing is stored in that time."""
    store = FrameStore(
        site.config.redis_address,
        vhost,
        site.config.prefix,
        timeout_seconds=STREAM_SECONDS,
        chunk_bytes=_CHUNK_BYTES,
        cameras=site.cameras_of(vhost),
    )
    try:
        found = _video(store, camera, first, last) or _jpegs(store, camera, first, last)
    except BaseException:
        store.close()
        raise
    if found is None:
        store.close()
    return found


def _video(store: FrameStore, camera: str, first: int, last: int) -> _Film | None:
    from engine.client.film_track import FilmTrack
    from engine.client.video_film import fragments

    units = store.video(camera, first, last, from_key=True)
    key = next((unit for unit in units if unit.keyframe), None)
    if key is None:
        return None
    try:
        codec = codec_string(key.encoding, key.data)
    except WireError:
        # The film may play all the same; the browser finds out.
        codec = ""
    track = FilmTrack()
    pieces = fragments(itertools.chain([key], units), track)
    begin = next(pieces, None)
    if begin is None:
        return None
    return _film(store, track.begin_nano, codec, begin, pieces)


def _jpegs(store: FrameStore, camera: str, first: int, last: int) -> _Film | None:
    from engine.client.jpeg_film import jpeg_fragments

    frames = store.range(camera, first, last)
    head = next(frames, None)
    if head is None:
        return None
    pieces = jpeg_fragments(itertools.chain([head], frames))
    begin = next(pieces, None)
    return None if begin is None else _film(store, head.unix_nano, "jpeg", begin, pieces)


def _film(store: FrameStore, start_nano: int, codec: str, begin: bytes, rest: Any) -> _Film:
    def close() -> None:
        rest.close()
        store.close()

    return _Film(start_nano, codec, itertools.chain([begin], rest), close)


#: Headers of an answer with a film.
FILM_HEADERS: parts.Part = {
    "X-Video-Start-Nano": {
        "description": "The time of the film's zero, in nanoseconds since the epoch.",
        "schema": {"type": "string", "pattern": "^[0-9]+$"},
    },
    "X-Video-Codec": {
        "description": "The codec as Media Source takes it, such as `avc1.640032`; `jpeg` for a film of JPEGs.",
        "schema": {"type": "string"},
    },
}
OPENAPI: dict[str, parts.Part] = {
    "/api/v1/cameras/{camera}/video.mp4": parts.get(
        "The stored video of a camera, undecoded: fragmented MP4 from the key frame at or before a time on. A camera "
        "without stored video gives a film of its JPEGs.",
        {200: {"description": "The film.", "headers": FILM_HEADERS, "content": {"video/mp4": {}}}},
        parameters=[
            parts.camera_in_path(),
            parts.time_of("start", "Where it begins; a duration ago by default."),
            parts.span_of("duration", f"Its length: {_DEFAULT} by default, {FILM_SECONDS_MAX}s at most."),
            parts.flag_of("download", "Offer it as a file."),
        ],
        problems=[404, 422, 502, 503],
        tag="video",
    ),
}
ROUTES = [Route(f"/api/v1/cameras/{CAMERA}/video.mp4", film)]
