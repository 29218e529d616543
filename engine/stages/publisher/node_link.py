"""A connection to one node of a cluster, for callers that go on without the node while it is away.

The first connection is waited for. After a failure, a thread tries again after a pause, and until it has succeeded the
caller is told at once that the node is away. So a node that is away, or hangs, costs the caller one timeout.
"""

from __future__ import annotations

import contextlib
import select
import ssl
import time
from functools import partial
from typing import Any

import hiredis
from redis.connection import AbstractConnection
from redis.exceptions import ResponseError

from engine.backoff import Backoff
from engine.errors import Cause, RedisUnavailable
from engine.servers.overrides.redis import socket_of
from engine.servers.redis.attempt import Attempt
from engine.servers.redis.connection import open_answering
from engine.servers.redis.errors import BAD_REPLIES
from engine.wire.redis_address import RedisAddress

#: Bytes of one receive.
_RECEIVE_BYTES = 262_144
#: Pauses between tries to connect, in seconds.
_BACKOFF_SECONDS_MIN = 0.1
_BACKOFF_SECONDS_MAX = 1.0


class NodeLink:
    """The connection to the node at ``address``. ``ready`` makes it; the other methods are for a link that is ready."""

    def __init__(self, address: RedisAddress, timeout_seconds: float) -> None:
        self.address = address
        #: Why the node is away; None if it is not, as far as is known.
        self.error: RedisUnavailable | None = None
        self._timeout_seconds = timeout_seconds
        self._connection: AbstractConnection | None = None
        self._socket: Any = None
        self._reader = hiredis.Reader()
        self._attempt: Attempt[AbstractConnection] | None = None
        self._backoff = Backoff(_BACKOFF_SECONDS_MIN, _BACKOFF_SECONDS_MAX)
        self._retry_at = 0.0

    def ready(self) -> bool:
        """True if commands can be sent. If not, ``error`` says why."""
        if self._connection is not None:
            return True
        if self._attempt is None:
            if time.monotonic() < self._retry_at:
                return False
            self._attempt = Attempt(partial(open_answering, self.address, self._timeout_seconds))
        if self.error is None and not self._attempt.wait(self._timeout_seconds):
            self._failed(self._unavailable(f"did not answer for {self._timeout_seconds:g} s"))
        if not self._attempt.done():
            return False
        attempt, self._attempt = self._attempt, None
        try:
            self._attach(attempt.result())
        except RedisUnavailable as error:
            self._failed(error)
        return self._connection is not None

    def send(self, data: bytes) -> None:
        """Send framed commands. Raises RedisUnavailable."""
        view = memoryview(data)
        deadline = time.monotonic() + self._timeout_seconds
        while view:
            try:
                view = view[self._socket.send(view) :]
            except (BlockingIOError, ssl.SSLWantWriteError, ssl.SSLWantReadError) as wanted:
                self._wait(deadline, for_room=not isinstance(wanted, ssl.SSLWantReadError))
            except OSError as error:
                raise self.broken(error) from None

    def receive(self, count: int, deadline: float) -> list[Any]:
        """The next ``count`` replies; errors as ResponseError. Raises RedisUnavailable if nothing comes until
        ``deadline`` (monotonic seconds), or for a timeout after something has come."""
        replies: list[Any] = []
        while True:
            try:
                while len(replies) < count and (reply := self._reader.gets()) is not False:
                    replies.append(reply)
                if len(replies) == count:
                    return replies
                data = self._socket.recv(_RECEIVE_BYTES)
                if not data:
                    raise self.broken("it closed the connection")
                self._reader.feed(data)
                deadline = time.monotonic() + self._timeout_seconds
            except (BlockingIOError, ssl.SSLWantReadError, ssl.SSLWantWriteError):
                self._wait(deadline)
            except (hiredis.HiredisError, *BAD_REPLIES) as error:
                raise self.broken(f"it sent no RESP: {error}") from None
            except OSError as error:
                raise self.broken(error) from None

    def broken(self, reason: object) -> RedisUnavailable:
        """Drop the connection; returns the error to raise."""
        error = self._unavailable(f"broke the connection: {reason}")
        self._failed(error)
        return error

    def close(self) -> None:
        """Drop the connection."""
        if self._connection is not None:
            with contextlib.suppress(OSError):
                self._connection.disconnect()
        self._connection = self._socket = None

    def _attach(self, connection: AbstractConnection) -> None:
        self._connection = connection
        self._socket = socket_of(connection)
        self._socket.setblocking(False)
        self._reader = hiredis.Reader(replyError=ResponseError)
        self.error = None
        self._backoff.reset()

    def _failed(self, error: RedisUnavailable) -> None:
        self.close()
        self.error = error
        self._retry_at = time.monotonic() + self._backoff.next_seconds()

    def _wait(self, deadline: float, *, for_room: bool = False) -> None:
        seconds = deadline - time.monotonic()
        poll = select.poll()
        poll.register(self._socket, select.POLLOUT if for_room else select.POLLIN)
        if seconds <= 0 or not poll.poll(seconds * 1000):
            raise self.broken(f"it did not answer for {self._timeout_seconds:g} s")

    def _unavailable(self, what: str) -> RedisUnavailable:
        subject = f"Redis at {self.address}"
        return RedisUnavailable(f"{subject} {what}", cause=Cause.REDIS_AWAY, subject=subject)
