"""What the routes of one web process share: the site's configuration, its report, and stores of frames by tenant."""

from __future__ import annotations

import asyncio
import time

from starlette.exceptions import HTTPException
from starlette.requests import Request
from structlog.typing import FilteringBoundLogger

from engine.client.async_store import AsyncFrameStore
from engine.client.async_transport import AsyncTransport
from engine.client.journal_queries import checked_tenant
from engine.config import Config
from engine.runtime.site_report import SiteReport
from engine.runtime.status import SiteLook, look, runs_here
from engine.web.newest import Newest
from engine.web.reader import NOBODY, Reader
from engine.web.scaling import Scaler

#: Seconds for which a report answers further requests.
_REPORT_SECONDS = 0.5
#: Seconds for which a look at the site's processes answers whether it runs here.
_LOCAL_SECONDS = 2.0
#: Seconds that Redis may take to answer. Each round trip is tried three times, so a request fails within about 2 s.
REDIS_SECONDS = 0.7
#: The same for tails, which wait at Redis for half a second, and for films, whose chunks are larger.
STREAM_SECONDS = 2.0


class WebSite:
    """A site as its web process sees it. ``local`` is False where the site's shared memory is on another machine, and
    None where it may come and go: in a web process without a supervisor."""

    def __init__(self, config: Config, log: FilteringBoundLogger, *, local: bool | None) -> None:
        self.config = config
        self.log = log
        self._local = local
        self._runs_here = False
        self._runs_until = 0.0
        self.scaler = Scaler()
        self._stores: dict[str, AsyncFrameStore] = {}
        self._newest: dict[str, Newest] = {}
        self._seen: SiteLook | None = None
        self._seen_until = 0.0
        self._reading = asyncio.Lock()

    @property
    def local(self) -> bool:
        """True if the site's shared memory is on this machine. Looked at again every two seconds if that may change."""
        if self._local is not None:
            return self._local
        if time.monotonic() >= self._runs_until:
            self._runs_here = runs_here(self.config)
            self._runs_until = time.monotonic() + _LOCAL_SECONDS
        return self._runs_here

    def store(self, vhost: str = "") -> AsyncFrameStore:
        """The store of a tenant; of the site's own by default."""
        vhost = vhost or self.config.vhost
        if vhost not in self._stores:
            self._stores[vhost] = self._new_store(vhost)
        return self._stores[vhost]

    def newest(self, vhost: str) -> Newest:
        """What fetches the newest frames of a tenant."""
        if vhost not in self._newest:
            transport = AsyncTransport(self.config.redis_address, REDIS_SECONDS)
            self._newest[vhost] = Newest(transport, checked_tenant(vhost, self.config.prefix, ()))
        return self._newest[vhost]

    def cameras_of(self, vhost: str) -> list[str]:
        """The cameras of a tenant that the site file names: they exist even if nothing is stored for them."""
        return [camera.id for camera in self.config.cameras] if vhost == self.config.vhost else []

    def _new_store(self, vhost: str) -> AsyncFrameStore:
        return AsyncFrameStore(
            self.config.redis_address,
            vhost,
            self.config.prefix,
            timeout_seconds=REDIS_SECONDS,
            cameras=self.cameras_of(vhost),
        )

    async def look(self) -> SiteLook | None:
        """A look at the site, at most half a second old; None if this is not the site's machine."""
        if not self.local:
            return None
        async with self._reading:
            if self._seen is None or time.monotonic() >= self._seen_until:
                self._seen = await asyncio.to_thread(look, self.config, memory=False)
                self._seen_until = time.monotonic() + _REPORT_SECONDS
            return self._seen

    async def report(self) -> SiteReport | None:
        """The report of ``look``."""
        seen = await self.look()
        return seen.report if seen else None

    async def aclose(self) -> None:
        """Close the connections to Redis."""
        self.scaler.close()
        for newest in self._newest.values():
            await newest.close()
        for store in self._stores.values():
            await store.close()


def site_of(request: Request) -> WebSite:
    """The site that a request asks."""
    site: WebSite = request.app.state.site
    return site


def reader_of(request: Request) -> Reader:
    """Who asks. ``engine/web/access.py`` found it before the route was called; public routes may have no reader, and
    get one that sees no tenant."""
    reader: Reader = request.scope.get("state", {}).get("reader", NOBODY)
    return reader


def store_for(request: Request) -> AsyncFrameStore:
    """The store of the tenant that the reader may see."""
    return site_of(request).store(vhost_for(request))


def vhost_for(request: Request) -> str:
    """The tenant that the reader may see. Raises HTTPException if there is none."""
    vhost = reader_of(request).vhost
    if not vhost:
        raise HTTPException(401, "this needs a token")
    return vhost


async def report_for(request: Request) -> SiteReport | None:
    """The site's report, as far as its cameras are the reader's; None for another tenant, or off the site's machine.
    Only an operator (``reader_of(request).all_tenants``) may get more of it than the cameras."""
    site = site_of(request)
    return await site.report() if reader_of(request).vhost == site.config.vhost else None
