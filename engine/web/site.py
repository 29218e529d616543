"""What the routes of one web process share: the site's configuration, its report, and stores of frames by tenant."""

from __future__ import annotations

import asyncio
import time

from starlette.requests import Request
from structlog.typing import FilteringBoundLogger

from engine.client.async_store import AsyncFrameStore
from engine.config import Config
from engine.runtime.site_report import SiteReport
from engine.runtime.status import collect

#: Seconds for which a report answers further requests.
_REPORT_SECONDS = 0.5


class WebSite:
    """A site as its web process sees it. ``local`` is False where the site's shared memory is on another machine."""

    def __init__(self, config: Config, log: FilteringBoundLogger, *, local: bool) -> None:
        self.config = config
        self.log = log
        self.local = local
        self._stores: dict[str, AsyncFrameStore] = {}
        self._report: SiteReport | None = None
        self._report_until = 0.0
        self._reading = asyncio.Lock()

    def store(self, vhost: str = "") -> AsyncFrameStore:
        """The store of a tenant; of the site's own by default."""
        vhost = vhost or self.config.vhost
        if vhost not in self._stores:
            known = [camera.id for camera in self.config.cameras] if vhost == self.config.vhost else []
            self._stores[vhost] = AsyncFrameStore(self.config.redis_address, vhost, self.config.prefix, cameras=known)
        return self._stores[vhost]

    async def report(self) -> SiteReport | None:
        """The site's report, at most half a second old; None if this is not the site's machine."""
        if not self.local:
            return None
        async with self._reading:
            if self._report is None or time.monotonic() >= self._report_until:
                self._report = await asyncio.to_thread(collect, self.config, memory=False)
                self._report_until = time.monotonic() + _REPORT_SECONDS
            return self._report

    async def aclose(self) -> None:
        """Close the connections to Redis."""
        for store in self._stores.values():
            await store.close()


def site_of(request: Request) -> WebSite:
    """The site that a request asks."""
    site: WebSite = request.app.state.site
    return site
