"""The HTTP server: uvicorn's, on sockets that are open already, in a process whose signals belong to the agent loop."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import socket
import ssl
from collections.abc import Iterator

import uvicorn
from starlette.applications import Starlette
from structlog.typing import FilteringBoundLogger

from engine.servers.overrides import expect, expect_uses
from engine.web import connection
from engine.web.limits import Buckets

expect("uvicorn", uvicorn.Server, "startup", "sockets")
expect("uvicorn", uvicorn.Server, "shutdown", "sockets")
expect("uvicorn", uvicorn.Server, "on_tick", "counter")
expect_uses("uvicorn", uvicorn.Server, "_serve", "main_loop")

#: Seconds between two looks at the connections, and at the Date header.
_TICK_SECONDS = 1.0
#: Seconds for answers that are being sent when the process is asked to end. Streams are ended at once.
_GRACEFUL_SECONDS = 1
#: Seconds for a TLS handshake. A connection counts only when it is through.
_HANDSHAKE_SECONDS = 10.0
#: Connections that wait to be accepted.
BACKLOG = 1024
#: Errors in the log: one a second, 10 at once.
_ERRORS_PER_SECOND, _ERRORS_BURST = 1.0, 10.0

_POLICY = (
    "default-src 'self'; img-src 'self' data: blob:; media-src 'self' blob:; style-src 'self'; script-src 'self'; "
    "connect-src 'self'; object-src 'none'; frame-ancestors 'none'; base-uri 'none'; form-action 'self'"
)
#: Sent with each answer, also with errors that no route sees. No answer is for pages of other sites.
SECURITY_HEADERS = [
    ("content-security-policy", _POLICY),
    ("x-content-type-options", "nosniff"),
    # Other sites get no referrer. Without one to ourselves, browsers send a log-in with the origin "null".
    ("referrer-policy", "same-origin"),
    ("cross-origin-opener-policy", "same-origin"),
    ("cross-origin-resource-policy", "same-origin"),
    ("x-frame-options", "DENY"),
    ("permissions-policy", "camera=(), microphone=(), geolocation=()"),
]
#: Under TLS: for a year, ask this host in no other way.
_HSTS = ("strict-transport-security", "max-age=31536000")


class Server(uvicorn.Server):
    """Serves an application until ``should_exit``."""

    def __init__(self, app: Starlette, listening: socket.socket, context: ssl.SSLContext | None) -> None:
        super().__init__(
            uvicorn.Config(
                app,
                http=connection.Connection,
                ws="none",
                lifespan="on",
                log_config=None,
                access_log=False,
                server_header=False,
                proxy_headers=False,
                timeout_keep_alive=connection.IDLE_SECONDS,
                timeout_graceful_shutdown=_GRACEFUL_SECONDS,
                headers=[*SECURITY_HEADERS, *([_HSTS] if context else [])],
            )
        )
        self._app = app
        self._listening = listening
        self._context = context
        self._exit = asyncio.Event()

    def end(self) -> None:
        """Stop listening, end all streams, and end when the other answers are sent."""
        self.should_exit = True
        self._exit.set()

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:  # noqa: ARG002 (uvicorn's)
        """Start the application, then accept connections."""
        await super().startup(sockets=[])
        state = self.lifespan.state

        def connect() -> asyncio.Protocol:
            return connection.Connection(self.config, self.server_state, state)

        seconds = _HANDSHAKE_SECONDS if self._context else None
        loop = asyncio.get_running_loop()
        if self._listening.family == socket.AF_UNIX:
            server = await loop.create_unix_server(
                connect, sock=self._listening, backlog=BACKLOG, ssl=self._context, ssl_handshake_timeout=seconds
            )
        else:
            server = await loop.create_server(
                connect, sock=self._listening, backlog=BACKLOG, ssl=self._context, ssl_handshake_timeout=seconds
            )
        self.servers.append(server)

    async def main_loop(self) -> None:
        """Look at the connections once a second, until the process ends."""
        # uvicorn renews the Date header in each tenth of its ticks.
        tick = 0
        while not await self.on_tick(tick):
            tick += 10
            connection.sweep(self.server_state.connections)
            with contextlib.suppress(TimeoutError):
                await asyncio.wait_for(self._exit.wait(), _TICK_SECONDS)

    async def shutdown(self, sockets: list[socket.socket] | None = None) -> None:
        """End the streams, then everything."""
        self._app.state.gate.end_streams()
        await super().shutdown(sockets)

    @contextlib.contextmanager
    def capture_signals(self) -> Iterator[None]:
        """Leave all signals alone."""
        yield


class ErrorLog(logging.Handler):
    """Passes errors of uvicorn and asyncio on to the engine's log, which masks secrets; a few a second at most."""

    def __init__(self, log: FilteringBoundLogger) -> None:
        super().__init__(logging.ERROR)
        self._log = log
        #: True while the process ends: streams are cut off on purpose then, which uvicorn takes for an error.
        self.ending = False
        self._bucket = Buckets(_ERRORS_PER_SECOND, _ERRORS_BURST)

    def emit(self, record: logging.LogRecord) -> None:
        """Log one error."""
        if not self.ending and not self._bucket.take(record.name):
            self._log.error("error in the HTTP server", reason=record.getMessage().strip(), exc_info=record.exc_info)

    @classmethod
    def install(cls, log: FilteringBoundLogger) -> ErrorLog:
        """Take the errors of both libraries."""
        handler = cls(log)
        for name in ("uvicorn.error", "asyncio"):
            logger = logging.getLogger(name)
            logger.handlers, logger.propagate = [handler], False
            logger.setLevel(logging.ERROR)
        return handler
