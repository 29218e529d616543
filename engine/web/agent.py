"""The agent of the web process: an HTTP server on an event loop, which ``do_work`` runs in slices.

Between two slices the agent loop beats, so the heartbeat shows that the event loop makes progress. If the address is
in use, the process stays, warns once, and tries again.
"""

from __future__ import annotations

import asyncio
import contextlib
import socket
import time
from collections.abc import Iterator

import uvicorn
import uvloop
from structlog.typing import FilteringBoundLogger

from engine.config import Config
from engine.shm.status_page import StatusPage
from engine.web.app import build

#: Seconds of one slice of the event loop.
_SLICE_SECONDS = 0.2
#: Seconds between two tries to listen.
_RETRY_SECONDS = 5.0
#: Connections that wait to be accepted.
_BACKLOG = 1024


class _Server(uvicorn.Server):
    """uvicorn's server in a process whose signals belong to the agent loop."""

    @contextlib.contextmanager
    def capture_signals(self) -> Iterator[None]:
        """Leave all signals alone."""
        yield


class WebAgent:
    """Serves a site's HTTP interface. ``local`` is False in a process that does not run beside the site."""

    finished = False

    def __init__(self, config: Config, _page: StatusPage, log: FilteringBoundLogger, *, local: bool = True) -> None:
        self._config = config
        self._log = log
        self._local = local
        self._loop = uvloop.new_event_loop()
        self._server: _Server | None = None
        self._task: asyncio.Task[None] | None = None
        self._try_at = 0.0
        self._refused: int | None = None

    def on_start(self) -> None:
        """Listen, or note why that is not possible yet."""
        asyncio.set_event_loop(self._loop)
        self._listen()

    def do_work(self) -> int:
        """Run the event loop for one slice."""
        if self._server is None and time.monotonic() >= self._try_at:
            self._listen()
        self._loop.run_until_complete(asyncio.sleep(_SLICE_SECONDS))
        return 1

    def idle(self) -> None:
        """Never called: a slice waits."""

    def drained(self) -> bool:
        """True once all connections are closed."""
        if self._server is None or self._task is None:
            return True
        self._server.should_exit = True
        return self._task.done()

    def on_close(self) -> None:
        """Close the event loop."""
        if self._task is not None:
            self._task.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                self._loop.run_until_complete(self._task)
        self._loop.run_until_complete(self._loop.shutdown_asyncgens())
        self._loop.close()

    def _listen(self) -> None:
        host, port = self._config.web.address
        try:
            listening = socket.create_server(
                (host, port), family=socket.AF_INET6 if ":" in host else socket.AF_INET, backlog=_BACKLOG
            )
        except OSError as error:
            if self._refused != error.errno:
                self._log.warning(
                    "cannot listen for HTTP; trying again",
                    address=self._config.web.listen,
                    error=error.strerror,
                    advice="end the program that uses the port, or set web.listen",
                )
            self._refused = error.errno
            self._try_at = time.monotonic() + _RETRY_SECONDS
            return
        app = build(self._config, self._log, local=self._local)
        self._server = _Server(
            uvicorn.Config(
                app,
                http="httptools",
                ws="none",
                lifespan="on",
                log_config=None,
                access_log=False,
                server_header=False,
                timeout_graceful_shutdown=1,
            )
        )
        self._task = self._loop.create_task(self._server.serve(sockets=[listening]))
        self._log.info("HTTP", url=f"http://{self._config.web.listen}/")
