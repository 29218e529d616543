"""The writer's connection to Redis: many frames a round trip, sent from where they lie in shared memory.

A batch makes its own bytes and reads its own replies (``batch.py``); here they go out and come in. They go out with
``sendmsg`` as small byte strings around views of the rings (the method is writev(2)'s scatter-gather); TLS has no such
call, there each piece is sent by itself. The socket and its handshake are redis-py's, replies are parsed by hiredis.
Several batches may be in flight; replies come back in the order sent.
"""

from __future__ import annotations

import select
import ssl
import time
from collections import deque
from collections.abc import Callable, Sequence
from typing import Any

import hiredis
from redis.connection import AbstractConnection

from engine.errors import RedisUnavailable, WireError
from engine.servers.overrides.redis import socket_of
from engine.servers.redis.connect import connect
from engine.servers.redis.connection import call
from engine.servers.redis.errors import BAD_REPLIES, demoted
from engine.stages.writer.batch import Batch, EntryErrors
from engine.wire.urls import RedisAddress

#: Buffers that one sendmsg takes (IOV_MAX of Linux).
_BUFFERS_MAX = 1024
#: Bytes asked of the socket at a time; replies are short.
_RECEIVE_BYTES = 65_536
#: Bytes of one wait for replies; those of the largest batch take a fiftieth of it.
_REPLIES_BYTES_MAX = 4 * 2**20
#: Milliseconds between looks at the clock and the heartbeat while waiting for Redis.
_TICK_MS = 100


class Refused(RedisUnavailable):
    """Redis is there and takes no writes now: out of memory, loading, read only, no permission."""


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

        A server that stands still is noticed here, before anything waits for it in ``call``. Raises RedisUnavailable,
        ServerRefused.
        """
        connection = connect(self.address, self._timeout)
        call(self.address, connection, ("PING",))
        return connection

    def attach(self, connection: AbstractConnection) -> None:
        """Use ``connection`` from now on."""
        self._connection = connection
        # The handshake is done: from here on the socket is ours alone.
        self._socket = socket_of(connection)
        self._socket.setblocking(False)
        self._reader = hiredis.Reader()
        self._poll = select.poll()
        self._poll.register(self._socket, select.POLLIN)

    def close(self) -> None:
        """Drop the connection and forget what was in flight."""
        if self._connection is not None:
            self._connection.disconnect()
        self._connection = self._socket = None
        self._in_flight.clear()

    def send(self, batch: Batch) -> None:
        """Send a batch; its frames must stay in their rings until ``receive`` has told of it. Raises
        RedisUnavailable."""
        self._send(batch.buffers())
        self._in_flight.append(batch)

    def receive(self) -> list[EntryErrors]:
        """Wait for the oldest batch in flight; its frames are stored. Returns what was refused, for each of its parts.

        Raises Refused where Redis took nothing of it, RedisUnavailable where nobody can tell.
        """
        batch = self._in_flight[0]
        replies = self._receive(batch.replies)
        try:
            refused = batch.parse(replies)
        except hiredis.ReplyError as error:
            if self.address.sentinel and demoted(str(error)):
                raise self._broken(error) from None
            self._in_flight.popleft()
            raise Refused(f"Redis at {self.address} takes no frames: {error}") from None
        except WireError as error:
            raise self._broken(error) from None
        self._in_flight.popleft()
        return refused

    def call(self, commands: Sequence[bytes]) -> list[Any]:
        """Send framed commands, one reply each, and wait; error replies come as hiredis.ReplyError.

        Only while no batch is in flight. Raises RedisUnavailable.
        """
        assert not self._in_flight, "replies of a batch are still to come"
        self._send([b"".join(commands)])
        return self._receive(len(commands))

    def _send(self, buffers: list[bytes | memoryview]) -> None:
        first = 0
        deadline = time.monotonic() + self._timeout
        while first < len(buffers):
            try:
                if isinstance(self._socket, ssl.SSLSocket):
                    sent = self._socket.send(buffers[first])
                else:
                    sent = self._socket.sendmsg(buffers[first : first + _BUFFERS_MAX])
            except (BlockingIOError, ssl.SSLWantWriteError):
                self._wait(select.POLLOUT, deadline)
                continue
            except ssl.SSLWantReadError:
                self._wait(select.POLLIN, deadline)
                continue
            except OSError as error:
                raise self._broken(error) from None
            deadline = time.monotonic() + self._timeout
            while first < len(buffers) and sent >= len(buffers[first]):
                sent -= len(buffers[first])
                first += 1
            if sent:
                buffers[first] = memoryview(buffers[first])[sent:]

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
                data = self._socket.recv(_RECEIVE_BYTES)
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
            if received > _REPLIES_BYTES_MAX:
                raise self._broken(f"it answered with more than {_REPLIES_BYTES_MAX:,} bytes")
            self._reader.feed(data)
            deadline = time.monotonic() + self._timeout

    def _wait(self, event: int, deadline: float) -> None:
        """Wait until the socket is ready; the time since the last byte is bounded by the timeout."""
        self._poll.modify(self._socket, event)
        while not self._poll.poll(_TICK_MS):
            self._beat()
            if time.monotonic() > deadline:
                raise self._broken(f"it did not answer for {self._timeout:g} s")

    def _broken(self, reason: object) -> RedisUnavailable:
        self.close()
        return RedisUnavailable(f"the connection to Redis at {self.address} broke: {reason}")
