"""Posts alerts to a webhook: the JSON of the event, in order, from a thread with a bounded queue.

A post is tried again, with pauses, until the receiver takes it or refuses it for good (a status of 300 to 499, except
408 and 429). Redirects are not followed: the token would go elsewhere. If alerts come faster than they can be posted,
the oldest that wait are given up. What waits is lost if the process ends.
"""

from __future__ import annotations

import contextlib
import socket
import threading
from collections import deque
from http.client import HTTPConnection, HTTPException, HTTPSConnection
from ssl import create_default_context

from structlog.typing import FilteringBoundLogger

from engine import __version__
from engine.backoff import Backoff
from engine.config import Config
from engine.config.alerts import Webhook as Address
from engine.shm.status_page import MonitorCount, StatusPage
from engine.wire.alert import AlertState, encode_alert_event

#: Alerts that wait at most.
_WAITING_MAX = 256
#: Seconds for each step of a post.
_TIMEOUT_SECONDS = 5.0
#: Pauses between tries, in seconds.
_BACKOFF_SECONDS_MIN = 1.0
_BACKOFF_SECONDS_MAX = 60.0
#: Seconds for a whole post once it is connected: a receiver that sends its answer byte by byte never exceeds the time
#: for one step.
_POST_SECONDS_MAX = 15.0
#: Statuses with which a receiver asks for another try.
_TRY_AGAIN = (408, 429)


class Webhook:
    """The posts of one site. ``put`` never waits."""

    def __init__(self, config: Config, address: Address, page: StatusPage, log: FilteringBoundLogger) -> None:
        self._address = address
        self._site = config.site.name
        self._counts = page.counts
        self._log = log.bind(webhook=address.shown)
        self._headers = {"Content-Type": "application/json", "User-Agent": f"edge-video/{__version__}"}
        if config.alerts.webhook_token:
            self._headers["Authorization"] = f"Bearer {config.alerts.webhook_token!s}"
        self._waiting: deque[bytes] = deque()
        self._changed = threading.Condition()
        self._ended = threading.Event()
        self._backoff = Backoff(_BACKOFF_SECONDS_MIN, _BACKOFF_SECONDS_MAX)
        self._said = ""

    def start(self) -> None:
        """Begin to post."""
        threading.Thread(target=self._run, name="webhook", daemon=True).start()

    def put(self, state: AlertState) -> None:
        """Post a state as soon as possible."""
        with self._changed:
            if len(self._waiting) >= _WAITING_MAX:
                self._waiting.popleft()
                self._counts[MonitorCount.WEBHOOK_LOST] += 1
            self._waiting.append(encode_alert_event(self._site, state))
            self._changed.notify()

    def end(self) -> None:
        """Begin no other post."""
        self._ended.set()
        with self._changed:
            self._changed.notify()

    def _run(self) -> None:
        while not self._ended.is_set():
            with self._changed:
                while not self._waiting:
                    self._changed.wait()
                    if self._ended.is_set():
                        return
                body = self._waiting[0]
            if not self._settled(body):
                self._ended.wait(self._backoff.next_seconds())
                continue
            self._backoff.reset()
            with self._changed:
                # It may have been given up meanwhile.
                if self._waiting and self._waiting[0] is body:
                    self._waiting.popleft()

    def _settled(self, body: bytes) -> bool:
        """Post once; False if it must be tried again."""
        try:
            status = self._post(body)
        except (OSError, HTTPException, ValueError) as error:
            # The error's text may hold what the receiver sent.
            self._fail(getattr(error, "strerror", None) or type(error).__name__)
            return False
        if 200 <= status < 300:
            self._counts[MonitorCount.WEBHOOK_SENT] += 1
            if self._said:
                self._log.info("webhook takes alerts again")
            self._said = ""
            return True
        final = 300 <= status < 500 and status not in _TRY_AGAIN
        self._fail(f"status {status}" + ("; redirects are not followed" if 300 <= status < 400 else ""))
        if final:
            with self._changed:
                self._counts[MonitorCount.WEBHOOK_LOST] += 1
        return final

    def _post(self, body: bytes) -> int:
        address = self._address
        connection = (
            HTTPSConnection(address.host, address.port, timeout=_TIMEOUT_SECONDS, context=create_default_context())
            if address.tls
            else HTTPConnection(address.host, address.port, timeout=_TIMEOUT_SECONDS)
        )
        late = threading.Timer(_POST_SECONDS_MAX, _cut, (connection,))
        late.daemon = True
        late.start()
        try:
            connection.request("POST", address.target, body, self._headers)
            # The status is all that counts; what may follow is not read.
            return connection.getresponse().status
        finally:
            late.cancel()
            connection.close()

    def _fail(self, reason: str) -> None:
        """Count a failure; log it if its reason is new."""
        self._counts[MonitorCount.WEBHOOK_FAILED] += 1
        if reason != self._said:
            self._log.warning("webhook did not take an alert", reason=reason)
        self._said = reason


def _cut(connection: HTTPConnection) -> None:
    """End a connection under the thread that waits for it, which gets an error. One that is still being made has
    ``_TIMEOUT_SECONDS`` for each address."""
    waiting = connection.sock
    if waiting is not None:
        with contextlib.suppress(OSError):
            # Not the TLS socket's own shutdown: it discards the TLS state that the other thread uses.
            socket.socket.shutdown(waiting, socket.SHUT_RDWR)
