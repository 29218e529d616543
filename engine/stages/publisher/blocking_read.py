"""One question to Redis that waits there until it has an answer (``XREAD BLOCK``), on a connection of its own.

So the publisher learns of an entry when it is stored, by whichever process, and asks nothing meanwhile. A bell that the
writer rings, and a read after it, takes the same CPU in the publisher, 10 µs an event more in the writer, and 10 to 20
µs less in Redis. But it needs shared memory of the same user, which may be missing, foreign, or in another container.
"""

from __future__ import annotations

import contextlib
import select
import ssl
import time
from collections.abc import Mapping
from typing import Any

import hiredis
from redis.connection import AbstractConnection
from redis.exceptions import ResponseError

from engine.errors import RedisUnavailable
from engine.servers.overrides.redis import socket_of
from engine.servers.redis.connect import connect
from engine.servers.redis.errors import BAD_REPLIES
from engine.wire.journal import EntryId
from engine.wire.redis_address import RedisAddress
from engine.wire.stream_read import StreamRead

#: Bytes of one receive.
_RECEIVE_BYTES = 262_144
#: Seconds after which an answer is one that Redis waited for; others it has at once.
_AT_ONCE_SECONDS = 0.001
#: No answer yet.
NOT_YET = object()


class BlockingRead:
    """A connection with at most one command under way. Methods raise RedisUnavailable if it breaks, ``ask`` also
    ServerRefused; the next ``ask`` connects again."""

    def __init__(self, address: RedisAddress, timeout_seconds: float) -> None:
        self._address = address
        self._timeout_seconds = timeout_seconds
        self._connection: AbstractConnection | None = None
        self._socket: Any = None
        self._poll = select.poll()
        self._reader = hiredis.Reader()
        self._framing = StreamRead()
        self._answer_by = 0.0
        #: True from ``ask`` until the answer is taken.
        self.pending = False
        #: True if the last answer ended a wait: what it brings came to Redis just now.
        self.waited = False
        #: One server tells of all streams or of none.
        self.unread: frozenset[bytes] = frozenset()

    def ask(self, positions: Mapping[bytes, EntryId], count: int, wait_seconds: float) -> None:
        """Ask for up to ``count`` entries of each stream behind its position. Redis answers after ``wait_seconds`` at
        the latest."""
        assert not self.pending, "one command at a time"
        command = self._framing.frame(positions, count, int(wait_seconds * 1000))
        if self._connection is None:
            self._connection = connect(self._address, self._timeout_seconds)
            self._socket = socket_of(self._connection)
            self._socket.setblocking(False)
            self._reader = hiredis.Reader(replyError=ResponseError)
            self._poll = select.poll()
            self._poll.register(self._socket, select.POLLIN)
        try:
            while command:
                command = command[self._send(command) :]
        except OSError as error:
            raise self._broken(error) from None
        self.pending, self.waited = True, False
        self._answer_by = time.monotonic() + wait_seconds + self._timeout_seconds

    def _send(self, data: bytes) -> int:
        try:
            sent: int = self._socket.send(data)
            return sent
        except (BlockingIOError, ssl.SSLWantWriteError):
            if not select.select([], [self._socket], [], self._timeout_seconds)[1]:
                raise TimeoutError(f"it took nothing for {self._timeout_seconds:g} s") from None
            return 0

    def wait(self, seconds: float) -> None:
        """Sleep until there is something to take, at most ``seconds``."""
        begun = time.monotonic()
        ready = self._poll.poll(seconds * 1000)
        self.waited = bool(ready) and time.monotonic() - begun > _AT_ONCE_SECONDS

    def take(self) -> Any:
        """The reply, an error as ResponseError; NOT_YET if it has not come. Only while ``pending``."""
        while True:
            try:
                data = self._socket.recv(_RECEIVE_BYTES)
            except (BlockingIOError, ssl.SSLWantReadError, ssl.SSLWantWriteError):
                if time.monotonic() > self._answer_by:
                    raise self._broken(f"it did not answer for {self._timeout_seconds:g} s") from None
                return NOT_YET
            except OSError as error:
                raise self._broken(error) from None
            if not data:
                raise self._broken("it closed the connection")
            try:
                self._reader.feed(data)
                reply = self._reader.gets()
            except (hiredis.HiredisError, *BAD_REPLIES) as error:
                raise self._broken(f"it sent no RESP: {error}") from None
            if reply is not False:
                self.pending = False
                return reply
            self._answer_by = time.monotonic() + self._timeout_seconds

    def close(self) -> None:
        """Drop the connection, and the command under way."""
        if self._connection is not None:
            with contextlib.suppress(OSError):
                self._connection.disconnect()
        self._connection = self._socket = None
        self.pending = False

    def _broken(self, reason: object) -> RedisUnavailable:
        self.close()
        return RedisUnavailable(f"the connection to Redis at {self._address} broke: {reason}")
