"""Stored frames over HTTP, as JPEG."""

from __future__ import annotations

import re
import time
from email.utils import formatdate
from typing import Any
from urllib.parse import quote

from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.routing import Route
from starlette.types import Receive, Scope, Send

from engine.client.frame import Frame, FrameEntry
from engine.web import openapi_parts as parts
from engine.web import queries
from engine.web.paths import CAMERA, KEY
from engine.web.site import site_of, store_for, vhost_for
from engine.wire import jpeg
from engine.wire.rfc3339 import NANO, rfc3339

#: The widths that a picture may be scaled to, in pixels.
WIDTH_MIN, WIDTH_MAX = 16, 1920
#: A frame's key never gets another payload. Short, because a deleted frame should not be shown for long.
_OF_KEY = b"private, max-age=60, immutable"
#: The same address has another frame later.
_OF_CAMERA = b"no-cache"
#: What stands in an entity tag and a header as it is: printable ASCII but ``"`` and ``\\``.
_PLAIN = "!#$%&'()*+,/:;<=>?@[]^`{|}~"
_TAG = re.compile(r'"([^"]*)"')
#: Characters of ``If-None-Match`` that are looked at.
_TAGS_MAX = 4000


class _Picture:
    """A frame's answer, without Starlette's response, whose headers are built anew each time."""

    def __init__(self, status: int, headers: list[tuple[bytes, bytes]], body: bytes) -> None:
        self._start = {"type": "http.response.start", "status": status, "headers": headers}
        self._body = {"type": "http.response.body", "body": body}

    async def __call__(self, _scope: Scope, _receive: Receive, send: Send) -> None:
        await send(self._start)
        await send(self._body)


async def latest(request: Request) -> Any:
    """The newest frame of a camera, as JPEG."""
    camera = request.path_params["camera"]
    width, max_age = 0, 0
    if request.scope["query_string"]:
        width, max_age = _width(request), queries.span(request, "max_age")
    tags = _tags(request)
    # The key of the only picture that the client has, if it has it at this width.
    tag, suffix = next(iter(tags)) if len(tags) == 1 else "", f";{width}"
    have = tag.removesuffix(suffix) if tag.endswith(suffix) else ""
    entry = await site_of(request).newest(vhost_for(request)).get(camera, have)
    if entry is None:
        entry = await store_for(request).latest(camera)
    if entry is None:
        raise HTTPException(404, f"camera {camera} has no stored frame")
    if max_age and (age := time.time_ns() - entry.unix_nano) > max_age:
        raise HTTPException(
            404,
            f"the newest frame of {camera} is {age / NANO:.1f} s old, "
            f"older than max_age {queries.text(request, 'max_age')}",
        )
    return await _picture(request, entry, width, _OF_CAMERA, tags)


async def at(request: Request) -> Any:
    """The newest frame of a camera at or before a time, as JPEG."""
    camera, width = request.path_params["camera"], _width(request)
    now = time.time_ns()
    moment = queries.moment(request, "time", now)
    frame = await store_for(request).at(camera, now if moment is None else moment)
    if frame is None:
        when = queries.text(request, "time") or "now"
        raise HTTPException(404, f"camera {camera} has no frame stored at or before {when}")
    return await _picture(request, frame, width, _OF_CAMERA, _tags(request))


async def by_key(request: Request) -> Any:
    """The frame of a key, as JPEG."""
    key, width = request.path_params["key"], _width(request)
    frame = await store_for(request).get(key)
    if frame is None:
        raise HTTPException(404, f"no frame is stored under {key}; it may have expired")
    return await _picture(request, frame, width, _OF_KEY, _tags(request))


async def _picture(request: Request, entry: FrameEntry, width: int, caching: bytes, tags: set[str]) -> _Picture:
    """The answer with a frame; without its payload if the client has it."""
    key = entry.key
    tag = f"{quote(key, safe=_PLAIN)};{width}"
    headers = [
        (b"etag", f'"{tag}"'.encode()),
        (b"last-modified", formatdate(entry.unix_nano // NANO, usegmt=True).encode()),
        (b"cache-control", caching),
        # Another reader of the same browser must not get it from there.
        (b"vary", b"Authorization, Cookie"),
        (b"x-frame-key", tag.removesuffix(f";{width}").encode()),
        (b"x-frame-timestamp", rfc3339(entry.unix_nano).encode()),
        (b"x-frame-timestamp-nano", b"%d" % entry.unix_nano),
        (b"x-frame-sequence", b"%d" % entry.sequence),
    ]
    if tag in tags or "*" in tags:
        return _Picture(304, headers, b"")
    # Only a key that is in ``tags`` comes without its payload.
    assert isinstance(entry, Frame)
    data = entry.data
    if width and width < (entry.width or jpeg.describe(data)[0]):
        data = await site_of(request).scaler.scaled(key, data, width)
    headers += [(b"content-type", b"image/jpeg"), (b"content-length", b"%d" % len(data))]
    return _Picture(200, headers, data)


def _tags(request: Request) -> set[str]:
    """The pictures that the client has, by their entity tags."""
    for name, value in request.scope["headers"]:
        if name == b"if-none-match":
            text = value[:_TAGS_MAX].decode("latin-1")
            return {"*"} if text == "*" else set(_TAG.findall(text))
    return set()


def _width(request: Request) -> int:
    """The width that is asked for; 0 for that of the frame."""
    return queries.number(request, "width", 0, WIDTH_MIN, WIDTH_MAX) if request.scope["query_string"] else 0


def _pictures(summary: str, *parameters: parts.Part) -> parts.Part:
    text_schema, number = {"type": "string"}, {"type": "string", "pattern": "^[0-9]+$"}
    headers = {
        "ETag": {"description": "The picture, for `If-None-Match`.", "schema": text_schema},
        "Last-Modified": {"description": "The time stamp, to the second.", "schema": text_schema},
        "X-Frame-Key": {
            "description": "The frame's key; what is not ASCII is percent-encoded.",
            "schema": {"type": "string"},
        },
        "X-Frame-Timestamp": {"description": "The time stamp, RFC 3339, UTC.", "schema": text_schema},
        "X-Frame-Timestamp-Nano": {"description": "The same in nanoseconds since the epoch.", "schema": number},
        "X-Frame-Sequence": {"description": "The frame's number, 1 to 99999.", "schema": number},
    }
    answers = {
        200: {"description": "The frame.", "headers": headers, "content": {"image/jpeg": {}}},
        304: {"description": "The client has this picture.", "headers": headers},
    }
    text = "Scale the picture down to this many pixels. A narrower picture stays as it is."
    width = parts.number_of("width", WIDTH_MIN, WIDTH_MAX, text)
    # 502: what is stored there is no picture, and cannot be scaled.
    return parts.get(summary, answers, parameters=[*parameters, width], problems=[404, 422, 502, 503], tag="frames")


_KEY_IN_PATH: parts.Part = {
    "name": "key",
    "in": "path",
    "required": True,
    "description": "The frame's key, as it is or percent-encoded as a whole.",
    "schema": {"type": "string"},
}
OPENAPI: dict[str, parts.Part] = {
    "/api/v1/cameras/{camera}/latest.jpg": _pictures(
        "The newest frame of a camera.",
        parts.camera_in_path(),
        parts.span_of("max_age", "Refuse (404) a frame that is older."),
    ),
    "/api/v1/cameras/{camera}/at.jpg": _pictures(
        "The newest frame of a camera at or before a time.",
        parts.camera_in_path(),
        parts.time_of("time", "The time; now by default."),
    ),
    "/api/v1/frames/{key}": _pictures("The frame of a key.", _KEY_IN_PATH),
}

ROUTES = [
    Route(f"/api/v1/cameras/{CAMERA}/latest.jpg", latest),
    Route(f"/api/v1/cameras/{CAMERA}/at.jpg", at),
    Route(f"/api/v1/frames/{KEY}", by_key),
]
