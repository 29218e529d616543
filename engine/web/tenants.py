"""What is stored of each tenant: cameras, frames, bytes."""

from __future__ import annotations

import asyncio
import time
from typing import NamedTuple

import msgspec
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

from engine.client.async_transport import AsyncTransport
from engine.client.journal_queries import checked_tenant
from engine.client.queries import Queries
from engine.client.tenant import VideoTenant
from engine.client.usage_queries import CameraUsage, usage
from engine.config import Config
from engine.errors import QueryError, ServerRefused
from engine.jobs.tenants import discover
from engine.servers.redis.session import Session
from engine.web import openapi_parts as parts
from engine.web.answers import json_answer
from engine.web.site import REDIS_SECONDS, reader_of, vhost_for
from engine.wire.keys import prefix_of

#: Seconds for which an answer stands; where it takes long to compute, so many times as long as that.
_AGE_SECONDS_MIN = 5.0
_AGE_FACTOR = 50
#: Journal entries that are read for one tenant, all cameras together, and of one camera.
_ENTRIES_MAX = 10_000
_CAMERA_ENTRIES_MAX = 1000


class CameraStored(msgspec.Struct, frozen=True):
    """What is stored of a camera: JPEG frames, and the access units of its video. Times are of frames, in nanoseconds;
    0 without frames. If not ``exact``, counts and bytes are estimates: of long journals only the ends are read."""

    id: str
    frames: int
    bytes: int
    oldest_nano: int
    newest_nano: int
    video_units: int
    video_bytes: int
    exact: bool


class TenantStored(msgspec.Struct, frozen=True):
    """What is stored of a tenant under one prefix. ``frames`` and ``bytes`` are sums over its cameras."""

    vhost: str
    prefix: str
    cameras: list[CameraStored]
    frames: int
    bytes: int
    video_units: int
    video_bytes: int


class TenantList(msgspec.Struct, frozen=True):
    """All tenants that the reader may see. ``complete`` is False if the engine's Redis user may not list tenants, so
    that only the site's own is known."""

    tenants: list[TenantStored]
    complete: bool


class _Known(NamedTuple):
    listed: TenantList
    until: float


class TenantBook:
    """What is stored of the tenants of one server; computed when it is asked for, and kept for a while."""

    def __init__(self, config: Config) -> None:
        self._config = config
        self._transport = AsyncTransport(config.redis_address, REDIS_SECONDS)
        self._known: dict[str, _Known] = {}
        self._reading = asyncio.Lock()

    async def listed(self, vhost: str = "") -> TenantList:
        """One tenant, under the site's prefix, or all of them."""
        async with self._reading:
            known = self._known.get(vhost)
            if known is None or time.monotonic() >= known.until:
                begun = time.monotonic()
                names, complete = ([(vhost, self._config.prefix)], True) if vhost else await self._names()
                tenants = [await self._stored(*name) for name in names]
                took = time.monotonic() - begun
                until = time.monotonic() + max(_AGE_SECONDS_MIN, _AGE_FACTOR * took)
                known = self._known[vhost] = _Known(TenantList(tenants, complete), until)
            return known.listed

    async def aclose(self) -> None:
        """Close the connection."""
        await self._transport.close()

    async def _names(self) -> tuple[list[tuple[str, str]], bool]:
        own = (self._config.vhost, self._config.prefix)
        try:
            found = await asyncio.to_thread(self._discover)
        except ServerRefused:
            return [own], False
        return sorted({*found, own}), True

    def _discover(self) -> list[tuple[str, str]]:
        with Session(self._config.redis_address, REDIS_SECONDS) as session:
            return discover(session)

    async def _stored(self, vhost: str, prefix: str) -> TenantStored:
        own = (vhost, prefix) == (self._config.vhost, self._config.prefix)
        # Nothing in Redis says whether a tenant's keys have hash tags.
        prefix = prefix_of(prefix, tagged=self._config.redis.key_tags)
        try:
            tenant = checked_tenant(vhost, prefix, [camera.id for camera in self._config.cameras] if own else [])
        except QueryError:
            # Names that only another program can have written.
            return _sum(vhost, prefix, [])
        cameras = list(await self._transport.run(Queries(tenant, 1).cameras()))
        exact_max = min(_ENTRIES_MAX // max(len(cameras), 1), _CAMERA_ENTRIES_MAX)
        frames = await self._transport.run(usage(tenant, cameras, exact_max))
        video = await self._transport.run(usage(VideoTenant(*tenant), cameras, exact_max))
        return _sum(vhost, prefix, [_joined(*both) for both in zip(frames, video, strict=True)])


def _joined(frames: CameraUsage, video: CameraUsage) -> CameraStored:
    return CameraStored(
        id=frames.id,
        frames=frames.frames,
        bytes=frames.bytes,
        oldest_nano=frames.oldest_nano,
        newest_nano=frames.newest_nano,
        video_units=video.frames,
        video_bytes=video.bytes,
        exact=frames.exact and video.exact,
    )


def _sum(vhost: str, prefix: str, cameras: list[CameraStored]) -> TenantStored:
    return TenantStored(
        vhost=vhost,
        prefix=str(prefix),
        cameras=cameras,
        frames=sum(camera.frames for camera in cameras),
        bytes=sum(camera.bytes for camera in cameras),
        video_units=sum(camera.video_units for camera in cameras),
        video_bytes=sum(camera.video_bytes for camera in cameras),
    )


async def tenants(request: Request) -> Response:
    """What is stored, by tenant."""
    book: TenantBook = request.app.state.tenants
    return json_answer(await book.listed("" if reader_of(request).all_tenants else vhost_for(request)))


OPENAPI: dict[str, parts.Part] = {
    "/api/v1/tenants": parts.get(
        "What is stored of each tenant.",
        {200: parts.json_of("TenantList", "Tenants, a few seconds old.")},
        problems=[503],
    ),
}

ROUTES = [Route("/api/v1/tenants", tenants)]
