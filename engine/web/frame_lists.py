"""Lists of a camera's stored frames, and how many there were over time."""

from __future__ import annotations

import time
from urllib.parse import quote, urlencode

import msgspec
from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

from engine.client.frame import FrameEntry
from engine.client.stats import Bucket
from engine.client.times import NANO_MAX
from engine.web import openapi_parts as parts
from engine.web import queries
from engine.web.answers import json_answer
from engine.web.paths import CAMERA
from engine.web.site import store_for
from engine.wire.rfc3339 import rfc3339

LIMIT_DEFAULT, LIMIT_MAX = 100, 1000
BUCKETS_MAX = 10_000
_BUCKET_DEFAULT = "1m"


class FrameFacts(msgspec.Struct, frozen=True):
    """A stored frame, or an access unit of video. ``timestamp`` is RFC 3339; ``timestamp_nano`` the same in
    nanoseconds. Width and height are in pixels, 0 if unknown."""

    key: str
    timestamp: str
    timestamp_nano: int
    sequence: int
    size_bytes: int
    width: int
    height: int
    encoding: str
    keyframe: bool


class FrameList(msgspec.Struct, frozen=True):
    """A page of a list. ``next`` is the address of the following page; None on the last."""

    frames: list[FrameFacts]
    next: str | None


class Rate(msgspec.Struct, frozen=True):
    """Frames and bytes by time, in spans of the same length."""

    buckets: list[Bucket]


async def frames(request: Request) -> Response:
    """A camera's frames between two times."""
    camera = request.path_params["camera"]
    start, end = queries.window(request)
    limit = queries.number(request, "limit", LIMIT_DEFAULT, 1, LIMIT_MAX)
    step = queries.span(request, "step")
    reverse, video = queries.flag(request, "reverse"), queries.flag(request, "video")
    store = store_for(request)
    found: list[FrameEntry]
    if video:
        if step:
            raise HTTPException(422, "step thins out frames; access units of video depend on each other")
        units = store.video_entries(camera, start, end, limit=limit, reverse=reverse)
        found = [unit async for unit in units]
    else:
        entries = store.entries(camera, start, end, limit=limit, step=step or None, reverse=reverse)
        found = [entry async for entry in entries]
    following = None
    if len(found) == limit:
        after = _after([entry.unix_nano for entry in found], end if reverse else start, step, reverse=reverse)
        first, last = (start, after) if reverse else (after, end)
        if 0 <= (first or 0) <= (NANO_MAX if last is None else last) <= NANO_MAX:
            known = {
                "start": first,
                "end": last,
                "limit": limit,
                "step": f"{step}ns" if step else None,
                "reverse": "true" if reverse else None,
                "video": "true" if video else None,
            }
            query = urlencode({name: value for name, value in known.items() if value is not None})
            following = f"/api/v1/cameras/{quote(camera, safe='')}/frames?{query}"
    return json_answer(FrameList([_facts(entry) for entry in found], following))


async def rate(request: Request) -> Response:
    """Frames and bytes of a camera by time."""
    camera = request.path_params["camera"]
    start, end = queries.window(request)
    bucket = queries.span(request, "bucket", _BUCKET_DEFAULT)
    video = queries.flag(request, "video")
    # Times to come have no frames, and so no buckets.
    now = time.time_ns()
    if start is None:
        # The oldest frame is the start, so that the number of buckets is known before they are made.
        oldest = store_for(request).video_entries if video else store_for(request).entries
        async for entry in oldest(camera, None, end, limit=1):
            start = entry.unix_nano
    if start is not None and (min(now if end is None else end, now) - start) // bucket >= BUCKETS_MAX:
        raise HTTPException(422, f"the range has more than {BUCKETS_MAX:,} buckets; ask for longer ones, or a part")
    buckets = await store_for(request).rate(camera, start, end, bucket, video=video)
    if len(buckets) > BUCKETS_MAX:
        raise HTTPException(422, f"the range has {len(buckets):,} buckets; at most {BUCKETS_MAX:,}")
    return json_answer(Rate(buckets))


def _after(times: list[int], anchor: int | None, step: int, *, reverse: bool) -> int:
    """Where the page after a page with frames at ``times`` begins. Steps are counted on from the same ``anchor``."""
    first, last = times[0], times[-1]
    if not step:
        return last - 1 if reverse else last + 1
    anchor = first if anchor is None else anchor
    past = (abs(last - anchor) // step + 1) * step
    return anchor - past if reverse else anchor + past


def _facts(entry: FrameEntry) -> FrameFacts:
    return FrameFacts(
        key=entry.key,
        timestamp=rfc3339(entry.unix_nano),
        timestamp_nano=entry.unix_nano,
        sequence=entry.sequence,
        size_bytes=entry.size,
        width=entry.width,
        height=entry.height,
        encoding=entry.encoding,
        keyframe=entry.keyframe,
    )


_WINDOW = [
    parts.camera_in_path(),
    parts.time_of("start", "Not before this time; all by default."),
    parts.time_of("end", "Not after this time; all by default."),
]
OPENAPI: dict[str, parts.Part] = {
    "/api/v1/cameras/{camera}/frames": parts.get(
        "A camera's frames between two times, oldest first.",
        {200: parts.json_of("FrameList", "A page of frames, and where the next page is.")},
        parameters=[
            *_WINDOW,
            parts.number_of("limit", 1, LIMIT_MAX, "Frames of a page.", LIMIT_DEFAULT),
            parts.span_of("step", "At most one frame in each span of this length. Not for video."),
            parts.flag_of("reverse", "Newest first."),
            parts.flag_of("video", "Access units of the stored video instead of frames."),
        ],
        problems=[404, 422, 503],
        tag="frames",
    ),
    "/api/v1/cameras/{camera}/rate": parts.get(
        "Frames and bytes of a camera by time.",
        {200: parts.json_of("Rate", f"Spans of equal length, at most {BUCKETS_MAX:,}.")},
        parameters=[
            *_WINDOW,
            parts.span_of("bucket", f"The length of a span; {_BUCKET_DEFAULT} by default."),
            parts.flag_of("video", "Access units of the stored video instead of frames."),
        ],
        problems=[404, 422, 503],
        tag="frames",
    ),
}

ROUTES = [
    Route(f"/api/v1/cameras/{CAMERA}/frames", frames),
    Route(f"/api/v1/cameras/{CAMERA}/rate", rate),
]
