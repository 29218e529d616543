"""Who may read what: finds the reader of each request before a route is called.

Pure ASGI, without Starlette's request objects, because every frame that is fetched passes here.
"""

from __future__ import annotations

from starlette.types import ASGIApp, Receive, Scope, Send

from engine.config import Config
from engine.web.reader import Reader


class Access:
    """Puts the ``Reader`` of a request into its scope."""

    def __init__(self, app: ASGIApp, config: Config) -> None:
        self._app = app
        self._operator = Reader(config.vhost, all_tenants=True)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Serve one request."""
        if scope["type"] == "http":
            scope.setdefault("state", {})["reader"] = self._operator
        await self._app(scope, receive, send)
