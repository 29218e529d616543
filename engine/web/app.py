"""The HTTP application: its routes, each from the module of its subject, and what they share."""

from __future__ import annotations

import contextlib
from collections.abc import AsyncIterator

from starlette.applications import Starlette
from starlette.exceptions import HTTPException
from structlog.typing import FilteringBoundLogger

from engine.config import Config
from engine.errors import EngineError
from engine.web import alerts, answers, dashboard, frames, health, metrics, site_routes, streams, video
from engine.web.site import WebSite

#: The routes of all modules, in the order in which they are tried.
ROUTES = [
    *health.ROUTES,
    *metrics.ROUTES,
    *site_routes.ROUTES,
    *alerts.ROUTES,
    *frames.ROUTES,
    *streams.ROUTES,
    *video.ROUTES,
    *dashboard.ROUTES,
]


def build(config: Config, log: FilteringBoundLogger, *, local: bool = True) -> Starlette:
    """The application of a site. ``local`` is False where the site's shared memory is on another machine."""
    site = WebSite(config, log, local=local)

    @contextlib.asynccontextmanager
    async def lifespan(_: Starlette) -> AsyncIterator[None]:
        async with contextlib.aclosing(site):
            yield

    app = Starlette(
        routes=ROUTES,
        lifespan=lifespan,
        exception_handlers={EngineError: answers.on_engine_error, HTTPException: answers.on_http_error},
    )
    app.state.site = site
    return app
