"""Stored video over HTTP, as fragmented MP4."""

from __future__ import annotations

from collections.abc import AsyncIterator, Iterator

from starlette.concurrency import iterate_in_threadpool
from starlette.requests import Request
from starlette.responses import Response, StreamingResponse
from starlette.routing import Route

from engine.client.store import FrameStore
from engine.client.times import to_span
from engine.web.site import site_of


async def film(request: Request) -> Response:
    """A camera's stored video from a time on, undecoded."""
    site = site_of(request)
    camera = request.path_params["camera"]
    start, duration = request.query_params.get("start", "-1m"), request.query_params.get("duration", "60s")

    def pieces() -> Iterator[bytes]:
        import time

        from engine.client.times import to_nano
        from engine.client.video_film import fragments

        first = to_nano(start, time.time_ns())
        with FrameStore(site.config.redis_address, site.config.vhost, site.config.prefix) as store:
            yield from fragments(store.video(camera, first, first + to_span(duration), from_key=True))

    async def body() -> AsyncIterator[bytes]:
        async for piece in iterate_in_threadpool(pieces()):
            yield piece

    return StreamingResponse(body(), media_type="video/mp4")


ROUTES = [Route("/api/v1/cameras/{camera}/video.mp4", film)]
