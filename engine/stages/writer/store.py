"""The writer's connection to Redis: many frames per round trip, sent directly from shared memory.

``batch.py`` builds the bytes and parses the replies; this module sends and receives them. redis-py provides the socket
and its handshake, hiredis parses replies. Several batches may be in flight; replies arrive in the order sent.
"""

from __future__ import annotations

import select
import ssl
import time
from collections import deque
from collections.abc import Callable, Sequence
from typing import Any, Protocol

import hiredis
from redis.connection import AbstractConnection

from engine.errors import Cause, RedisUnavailable, WireError
from engine.servers.overrides.redis import socket_of
from engine.servers.redis.connect import connect
from engine.servers.redis.connection import call
from engine.servers.redis.errors import BAD_REPLIES, demoted, forbidden
from engine.stages.writer.batch import Batch, EntryErrors
from engine.stages.writer.output import RECEIVE_BYTES, REPLIES_BYTES_MAX, Output
from engine.wire.redis_address import RedisAddress

#: Milliseconds between checks of the clock, and between heartbeats, while waiting for Redis.
_TICK_MS = 100


class Refused(RedisUnavailable):
    """Redis is there but refuses writes now: out of memory, loading, read only, no permission."""


class Caller(Protocol):
    """What the writer asks Redis with, besides storing frames."""

    address: RedisAddress

    def call(self, commands: Sequence[bytes]) -> list[Any]:
        """Send framed commands with one reply each, and wait. Error replies are returned as hiredis.ReplyError.

        Raises RedisUnavailable.
        """
        ...


class Store:
    """A connection that stores batches. ``beat`` is called at least every 100 ms while it waits."""

    def __init__(self, address: RedisAddress, timeout_seconds: float, beat: Callable[[], None]) -> None:
        self.address = address
        self._timeout = timeout_seconds
        self._beat = beat
        self._connection: AbstractConnection | None = None
        self._socket: Any = None
        self._poll = select.poll()
        self._reader = hiredis.Reader()
        self._output = Output()
        self._in_flight: deque[Batch] = deque()

    @property
    def connected(self) -> bool:
        """True between attach and the first failure."""
        return self._connection is not None

    @property
    def in_flight(self) -> int:
        """Batches that were sent and not yet answered."""
        return len(self._in_flight)

    def open(self) -> AbstractConnection:
        """Make a connection over which Redis answers, for ``attach``; may run in another thread.

        A server that hangs is noticed here, before anything waits for it in ``call``. Raises RedisUnavailable,
        ServerRefused.
        """
        connection = connect(self.address, self._timeout)
        call(self.address, connection, ("PING",))
        return connection

    def attach(self, connection: AbstractConnection) -> None:
        """Use ``connection`` from now on."""
        self._connection = connection
        # The handshake is done: from now on only this class uses the socket.
        self._socket = socket_of(connection)
        self._socket.setblocking(False)
        self._reader = hiredis.Reader()
        self._poll = select.poll()
        self._poll.register(self._socket, select.POLLIN)

    def close(self) -> None:
        """Drop the connection and forget the batches in flight."""
        if self._connection is not None:
            self._connection.disconnect()
        self._connection = self._socket = None
        self._output.clear()
        self._in_flight.clear()

    def send(self, batch: Batch) -> None:
        """Send a batch. Its frames must stay in their rings until ``receive`` has reported it. Raises
        RedisUnavailable."""
        self._send(batch.buffers())
        self._in_flight.append(batch)

    def receive(self) -> list[EntryErrors]:
        """Wait for the oldest batch in flight; its frames are stored. Returns the refused entries of each part.

        Raises Refused if Redis stored nothing of it, RedisUnavailable if its fate is unknown.
        """
        batch = self._in_flight[0]
        replies = self._receive(batch.replies)
        try:
            refused = batch.parse(replies)
        except hiredis.ReplyError as error:
            if self.address.sentinel and demoted(str(error)):
                raise self._broken(error) from None
            self._in_flight.popleft()
            cause = Cause.FORBIDDEN if forbidden(error) else Cause.OTHER
            raise Refused(f"Redis at {self.address} takes no frames: {error}", cause=cause) from None
        except WireError as error:
            raise self._broken(error) from None
        self._in_flight.popleft()
        return refused

    def call(self, commands: Sequence[bytes]) -> list[Any]:
        """Send framed commands with one reply each, and wait. Error replies are returned as hiredis.ReplyError.

        Only while no batch is in flight. Raises RedisUnavailable.
        """
        assert not self._in_flight, "replies of a batch are still to come"
        self._send([b"".join(commands)])
        return self._receive(len(commands))

    def _send(self, buffers: Sequence[bytes | memoryview]) -> None:
        self._output.extend(buffers)
        deadline = time.monotonic() + self._timeout
        while self._output:
            try:
                self._output.send(self._socket)
            except (BlockingIOError, ssl.SSLWantWriteError):
                self._wait(select.POLLOUT, deadline)
            except ssl.SSLWantReadError:
                self._wait(select.POLLIN, deadline)
            except OSError as error:
                raise self._broken(error) from None
            else:
                deadline = time.monotonic() + self._timeout

    def _receive(self, count: int) -> list[Any]:
        replies: list[Any] = []
        received = 0
        deadline = time.monotonic() + self._timeout
        while True:
            while len(replies) < count:
                try:
                    reply = self._reader.gets()
                except (hiredis.HiredisError, *BAD_REPLIES) as error:
                    raise self._broken(f"it sent no RESP: {error}") from None
                if reply is False:
                    break
                replies.append(reply)
            if len(replies) == count:
                return replies
            try:
                data = self._socket.recv(RECEIVE_BYTES)
            except (BlockingIOError, ssl.SSLWantReadError):
                self._wait(select.POLLIN, deadline)
                continue
            except ssl.SSLWantWriteError:
                self._wait(select.POLLOUT, deadline)
                continue
            except OSError as error:
                raise self._broken(error) from None
            if not data:
                raise self._broken("it closed the connection")
            received += len(data)
            if received > REPLIES_BYTES_MAX:
                raise self._broken(f"it answered with more than {REPLIES_BYTES_MAX:,} bytes")
            self._reader.feed(data)
            deadline = time.monotonic() + self._timeout

    def _wait(self, event: int, deadline: float) -> None:
        """Wait until the socket is ready. ``deadline`` is the timeout after the last byte."""
        self._poll.modify(self._socket, event)
        while not self._poll.poll(_TICK_MS):
            self._beat()
            if time.monotonic() > deadline:
                raise self._broken(f"it did not answer for {self._timeout:g} s")

    def _broken(self, reason: object) -> RedisUnavailable:
        self.close()
        return RedisUnavailable(f"the connection to Redis at {self.address} broke: {reason}")
