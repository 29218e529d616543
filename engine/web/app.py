"""The HTTP application: its routes, each from the module of its subject, and what they share."""

from __future__ import annotations

import contextlib
from collections.abc import AsyncIterator

from starlette.applications import Starlette
from starlette.exceptions import HTTPException
from starlette.middleware import Middleware
from structlog.typing import FilteringBoundLogger

from engine.config import Config
from engine.errors import EngineError
from engine.web import (
    answers,
    dashboard,
    frame_lists,
    frames,
    health,
    history,
    openapi,
    servers,
    site_routes,
    streams,
    tenants,
    video,
)
from engine.web.access import Access
from engine.web.paths import RawPaths
from engine.web.site import WebSite

#: The routes of all modules, in the order in which they are tried.
ROUTES = [
    *health.ROUTES,
    *frames.ROUTES,
    *frame_lists.ROUTES,
    *site_routes.ROUTES,
    *tenants.ROUTES,
    *servers.ROUTES,
    *history.ROUTES,
    *openapi.ROUTES,
    *streams.ROUTES,
    *video.ROUTES,
    *dashboard.ROUTES,
]


def build(config: Config, log: FilteringBoundLogger, *, local: bool = True) -> Starlette:
    """The application of a site. ``local`` is False where the site's shared memory is on another machine."""
    site = WebSite(config, log, local=local)

    @contextlib.asynccontextmanager
    async def lifespan(_: Starlette) -> AsyncIterator[None]:
        async with (
            contextlib.aclosing(site),
            contextlib.aclosing(app.state.tenants),
            contextlib.aclosing(app.state.servers),
            app.state.history.running(),
        ):
            yield

    app = Starlette(
        routes=ROUTES,
        lifespan=lifespan,
        middleware=[Middleware(Access, config), Middleware(RawPaths)],
        exception_handlers={EngineError: answers.on_engine_error, HTTPException: answers.on_http_error},
    )
    app.state.site = site
    app.state.tenants = tenants.TenantBook(config)
    app.state.servers = servers.ServerFigures(config)
    app.state.history = history.Sampler(site)
    return app
