"""The agent of the web process: an HTTP server on an event loop, which ``do_work`` runs in slices.

Between two slices the agent loop beats, so the heartbeat shows that the event loop makes progress. If the address is
in use, the process stays, warns once, and tries again. The text of its status page says where it serves, or why not.
"""

from __future__ import annotations

import asyncio
import contextlib
import time

import uvloop
from structlog.typing import FilteringBoundLogger

from engine.config import Config
from engine.config.web import web_context
from engine.runtime.limits import allow_files_if_possible, files_needed
from engine.shm.status_page import StatusPage
from engine.web.app import build
from engine.web.limits import CONNECTIONS_MAX
from engine.web.listening import bound, open_socket
from engine.web.server import ErrorLog, Server

#: Seconds of one slice of the event loop.
_SLICE_SECONDS = 0.2
#: Seconds between two tries to listen.
RETRY_SECONDS = 5.0


class WebAgent:
    """Serves a site's HTTP interface. ``local`` is None for a process without a supervisor, which may run beside the
    site or on another machine."""

    finished = False

    def __init__(
        self, config: Config, page: StatusPage, log: FilteringBoundLogger, *, local: bool | None = True
    ) -> None:
        self._config = config
        self._page = page
        self._log = log
        self._local = local
        self._loop = uvloop.new_event_loop()
        self._server: Server | None = None
        self._task: asyncio.Task[None] | None = None
        self._try_at = 0.0
        self._refused: int | None = None

    def on_start(self) -> None:
        """Listen, or note why that is not possible yet. Raises ConfigError for tokens or certificates that changed
        since the site file was checked."""
        self._errors = ErrorLog.install(self._log)
        allow_files_if_possible(files_needed(self._config) + CONNECTIONS_MAX)
        asyncio.set_event_loop(self._loop)
        self._app = build(self._config, self._log, local=self._local)
        self._context = web_context(self._config.web) if self._config.web.tls_certificate_file else None
        self._listen()

    def do_work(self) -> int:
        """Run the event loop for one slice."""
        if self._server is None and time.monotonic() >= self._try_at:
            self._listen()
        self._loop.run_until_complete(asyncio.sleep(_SLICE_SECONDS))
        if self._task is not None and self._task.done():
            # The server never ends by itself, so this raises its error, and the supervisor starts another process.
            self._task.result()
        return 1

    def idle(self) -> None:
        """Never called: a slice waits."""

    def drained(self) -> bool:
        """True once all answers are sent. Streams are ended."""
        if self._server is None or self._task is None:
            return True
        self._errors.ending = True
        self._server.end()
        with contextlib.suppress(TimeoutError):
            self._loop.run_until_complete(asyncio.wait_for(asyncio.shield(self._task), _SLICE_SECONDS))
        return self._task.done()

    def on_close(self) -> None:
        """Close the event loop."""
        if self._task is not None:
            self._task.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                self._loop.run_until_complete(self._task)
        self._loop.run_until_complete(self._loop.shutdown_asyncgens())
        self._loop.close()
        self._page.text = b""

    def _listen(self) -> None:
        web = self._config.web
        try:
            listening = open_socket(web.address)
        except OSError as error:
            if self._refused != error.errno:
                self._log.warning(
                    "cannot listen for HTTP; trying again",
                    address=web.listen,
                    error=error.strerror or str(error),
                    advice="end the program that uses the port, or set web.listen",
                )
            self._refused = error.errno
            self._try_at = time.monotonic() + RETRY_SECONDS
            self._page.text = f"cannot listen on {web.listen}: {error.strerror or error}".encode()
            return
        url = bound(web.address, listening).url(tls=self._context is not None)
        self._server = Server(self._app, listening, self._context)
        self._task = self._loop.create_task(self._server.serve())
        self._page.text = url.encode()
        self._log.info("HTTP", url=url)
