"""The HTTP application: its routes, each from the module of its subject, and what they share."""

from __future__ import annotations

import contextlib
from collections.abc import AsyncIterator

from starlette.applications import Starlette
from starlette.exceptions import HTTPException
from starlette.middleware import Middleware
from starlette.requests import ClientDisconnect, Request
from starlette.responses import Response
from structlog.typing import FilteringBoundLogger

from engine.config import Config
from engine.errors import EngineError
from engine.web import (
    alerts,
    answers,
    dashboard,
    events,
    frame_lists,
    frames,
    health,
    history,
    login,
    metrics,
    openapi,
    servers,
    site_routes,
    streams,
    tenants,
    video,
)
from engine.web.access import Access, Gate
from engine.web.paths import RawPaths
from engine.web.site import WebSite

#: The routes of all modules, in the order in which they are tried.
ROUTES = [
    *health.ROUTES,
    *metrics.ROUTES,
    *frames.ROUTES,
    *frame_lists.ROUTES,
    *site_routes.ROUTES,
    *tenants.ROUTES,
    *servers.ROUTES,
    *history.ROUTES,
    *openapi.ROUTES,
    *streams.ROUTES,
    *video.ROUTES,
    *events.ROUTES,
    *login.ROUTES,
    *alerts.ROUTES,
    *dashboard.ROUTES,
]


def build(config: Config, log: FilteringBoundLogger, *, local: bool | None = True) -> Starlette:
    """The application of a site. ``local`` is False where the site's shared memory is on another machine, None where
    that depends on whether it runs here. Raises ConfigError if a file of tokens cannot be used."""
    gate = Gate(config)
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
        middleware=[Middleware(Access, gate), Middleware(RawPaths)],
        exception_handlers={
            EngineError: answers.on_engine_error,
            HTTPException: answers.on_http_error,
            ClientDisconnect: _on_broken,
            Exception: _on_defect,
        },
    )
    # A path with a slash too many is wrong, and an answer that names the Host header is one more thing to get wrong.
    app.router.redirect_slashes = False
    app.state.site = site
    app.state.gate = gate
    app.state.tenants = tenants.TenantBook(config)
    app.state.servers = servers.ServerFigures(config)
    app.state.history = history.Sampler(site)
    return app


async def _on_broken(_: Request, __: Exception) -> Response:
    """The answer to a request whose body did not arrive. Nobody gets it."""
    return answers.problem(400, "the request ended before its body")


async def _on_defect(_: Request, __: Exception) -> Response:
    """The answer to a request that met a defect. The log has the error (``server.ErrorLog``), the answer says nothing
    about it."""
    return answers.problem(500, "this request met a defect of the engine; its log has the error")
