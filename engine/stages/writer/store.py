"""The writer's connection to Redis: many frames a round trip, sent from where they lie in shared memory.

A batch is one transaction: ``MULTI``, for each frame ``SET`` and ``XADD``, for each camera the journal's upkeep,
``EXEC``. So a batch is stored as a whole or not at all: a connection cut in the middle, or a server that runs out of
memory on the way, cannot leave a frame without its entry, or a later entry that locks an earlier one out. Measured, the
transaction costs nothing that can be told from noise.

Commands go out with ``sendmsg`` as small byte strings around views of the rings (the method is writev(2)'s
scatter-gather); TLS has no such call, there each piece is sent by itself. The socket and its handshake are redis-py's,
replies are parsed by hiredis. Several batches may be in flight; replies come back in the order sent.
"""

from __future__ import annotations

import select
import ssl
import time
from collections import deque
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import hiredis
from redis.connection import AbstractConnection

from engine.errors import RedisUnavailable
from engine.servers.overrides.redis import socket_of
from engine.servers.redis.connect import connect
from engine.servers.redis.connection import call
from engine.servers.redis.errors import BAD_REPLIES, demoted
from engine.shm.ring import Record
from engine.wire import resp
from engine.wire.replies import shown
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


class RingBatch(NamedTuple):
    """Frames of one camera, oldest first, and how to frame them. Journal entries below ``trim_nano``, if it is not 0,
    may go. ``number`` is the first one's, 0 where it is not known."""

    framing: resp.FrameFraming
    records: Sequence[Record]
    trim_nano: int
    number: int = 0

    @property
    def upkeep_replies(self) -> int:
        """Replies behind those of the frames."""
        return 2 if self.trim_nano else 1


#: Of one RingBatch, the frames whose journal entry was refused, by their place in it, and what Redis said.
EntryErrors = dict[int, str]


class _InFlight(NamedTuple):
    batch: Sequence[RingBatch]
    #: Replies that must come, MULTI's to EXEC's.
    replies: int


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
        self._in_flight: deque[_InFlight] = deque()

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

        A server that stands still is noticed here and not by who would wait for it in ``call``. Raises
        RedisUnavailable, ServerRefused.
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

    def send(self, batch: Sequence[RingBatch]) -> None:
        """Send a batch; its frames must stay in their rings until ``receive`` has told of it. Raises
        RedisUnavailable."""
        buffers: list[bytes | memoryview] = []
        pending = resp.MULTI
        replies = 2
        for ring in batch:
            framing, records, trim_nano, number = ring
            step = 1 if number else 0
            for nano, sequence, width, height, encoding, keyframe, _, _, payload, _ in records:
                size = len(payload)
                buffers.append(pending + framing.before(nano, sequence, size))
                buffers.append(payload)
                pending = framing.after(nano, sequence, size, width, height, encoding, keyframe, number)
                number += step
            pending += framing.keep()
            if trim_nano:
                pending += framing.trim(trim_nano)
            replies += len(records) * framing.replies_per_frame + ring.upkeep_replies
        buffers.append(pending + resp.EXEC)
        self._send(buffers)
        self._in_flight.append(_InFlight(batch, replies))

    def receive(self) -> list[EntryErrors]:
        """Wait for the oldest batch in flight; its frames are stored. Returns what was refused, for each RingBatch.

        Raises Refused where Redis took nothing of it, RedisUnavailable where nobody can tell.
        """
        batch, count = self._in_flight[0]
        replies = self._receive(count)
        results = replies[-1]
        error = next((reply for reply in replies[:-1] if isinstance(reply, hiredis.ReplyError)), results)
        if isinstance(results, hiredis.ReplyError):
            self._in_flight.popleft()
            if self.address.sentinel and demoted(str(error)):
                raise self._broken(error)
            raise Refused(f"Redis at {self.address} takes no frames: {error}")
        # MULTI's own reply, EXEC's, and between them one for each of EXEC's results.
        if not isinstance(results, list) or len(results) != count - 2 or isinstance(error, hiredis.ReplyError):
            raise self._broken(f"it answered {shown(results)} to EXEC, not {count - 2} results")
        refused: list[EntryErrors] = []
        position = 0
        for ring in batch:
            framing = ring.framing
            errors: EntryErrors = {}
            for number in range(len(ring.records)):
                stored, entered = results[position : position + 2]
                position += framing.replies_per_frame
                if stored != b"OK":
                    if not isinstance(stored, hiredis.ReplyError):
                        raise self._broken(f"it answered {shown(stored)} to SET")
                    self._in_flight.popleft()
                    raise Refused(f"Redis at {self.address} takes no frames: {stored}")
                if isinstance(entered, hiredis.ReplyError):
                    errors[number] = str(entered)
                elif not isinstance(entered, bytes):
                    raise self._broken(f"it answered {shown(entered)} to XADD")
            position += ring.upkeep_replies
            refused.append(errors)
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
