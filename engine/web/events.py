"""Events as server-sent events: ``/api/v1/events``. The data of each is the JSON object that RabbitMQ gets."""

from __future__ import annotations

import asyncio

from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

from engine.client.async_store import AsyncFrameStore
from engine.client.journal_queries import check_name
from engine.shm.alerts_file import AlertsReader
from engine.shm.site import SitePaths
from engine.web import openapi_parts as parts
from engine.web.events_position import Position
from engine.web.events_queue import EventQueue
from engine.web.events_sources import SOURCES, Wanted, persistent
from engine.web.site import STREAM_SECONDS, reader_of, site_of, store_for, vhost_for
from engine.web.streams_answer import StreamAnswer, Write, end

#: Seconds without an event after which a comment is sent: proxies close connections that say nothing.
KEEP_ALIVE_SECONDS = 15.0
#: Cameras of one reader.
_CAMERAS_MAX = 1_000


async def events(request: Request) -> Response:
    """Frames, GOPs and changes of state as they are stored. ``Last-Event-ID`` continues after an earlier answer."""
    site = site_of(request)
    names = list(dict.fromkeys(request.query_params.getlist("camera")))
    kinds = request.query_params.getlist("type") or list(SOURCES)
    if len(names) > _CAMERAS_MAX:
        raise HTTPException(422, f"{len(names)} cameras; at most {_CAMERAS_MAX:,}, or none for all")
    for name in names:
        check_name("camera", name)
    if unknown := [kind for kind in kinds if kind not in SOURCES]:
        raise HTTPException(422, f"type {unknown[0][:40]!r} is none of {', '.join(SOURCES)}")
    position = Position.parse(request.headers.get("last-event-id", ""))
    vhost = vhost_for(request)
    # Alerts are about the whole site.
    sees_alerts = site.local and reader_of(request).all_tenants and site.config.alerts.enabled
    reader = AlertsReader(SitePaths.of(site.config)) if sees_alerts else None
    if names:
        # Wrong names are refused here, while an answer can still say so.
        known = await store_for(request).cameras()
        if missing := [name for name in names if name not in known]:
            raise HTTPException(404, f"no camera {missing[0]!r} in tenant {vhost!r}")

    async def source(write: Write) -> None:
        # Tails hold a connection each, and must not use up those of other requests.
        store = AsyncFrameStore(
            site.config.redis_address,
            vhost,
            site.config.prefix,
            timeout_seconds=STREAM_SECONDS,
            cameras=names,
        )
        ttls = site.config.ttl_seconds(video=False), site.config.ttl_seconds(video=True)
        queue = EventQueue()
        wanted = Wanted(store, queue, position, names or None, *ttls, site.config.site.name, reader)
        tasks = [asyncio.ensure_future(persistent(SOURCES[kind], wanted)) for kind in set(kinds)]
        try:
            # The headers, and this, are sent before the first event.
            await write(b": events\n\n")
            while True:
                await write(await queue.take(KEEP_ALIVE_SECONDS) or b":\n\n")
                for task in tasks:
                    if task.done() and task.exception():
                        # Only by a defect. Its error ends the answer, and is in the log.
                        task.result()
        finally:
            await end(*tasks)
            await store.close()

    return StreamAnswer(source, "text/event-stream")


ROUTES = [Route("/api/v1/events", events)]
_TEXT = {"type": "string"}
OPENAPI: dict[str, parts.Part] = {
    "/api/v1/events": parts.get(
        "Events as they happen, as server-sent events. `event:` is `frame`, `gop`, `status`, `alert`, or `lost`. "
        "`data:` is the JSON object that RabbitMQ gets. `lost` says how many events were left out because the reader "
        "was too slow. `id:` is a position: a reader that sends it back as `Last-Event-ID` continues there, and may "
        "get the last few events again.",
        {200: {"description": "Events, without end.", "content": {"text/event-stream": {}}}},
        parameters=[
            parts.parameter(
                "camera", {"type": "array", "items": _TEXT, "maxItems": _CAMERAS_MAX}, "Only these cameras."
            ),
            parts.parameter("type", {"type": "array", "items": {"enum": list(SOURCES)}}, "Only these types."),
            {"name": "Last-Event-ID", "in": "header", "description": "Where to continue.", "schema": _TEXT},
        ],
        problems=[404, 422, 503],
        tag="live",
    )
}
