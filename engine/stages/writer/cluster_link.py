"""The connection to one node of a cluster. It never waits: bytes queue here, and replies find their question.

``ask`` queues bytes and the question that their replies answer. Replies come in the order of the questions. If the
connection breaks, every open question is told so. Payloads are views of the rings and are not copied, so a frame must
stay in its ring until its question is answered or told.

A link is away, connecting, open or paused. It is paused after the node has refused something (out of memory, loading,
a part of the cluster is down). Each time it opens, its ``epoch`` rises: what was known of the node may be wrong.
"""

from __future__ import annotations

import select
import ssl
import time
from collections import deque
from collections.abc import Callable, Sequence
from enum import Enum, auto
from functools import partial
from typing import Any, Protocol

import hiredis
from redis.connection import AbstractConnection

from engine.backoff import Backoff
from engine.errors import Cause, RedisUnavailable, WireError
from engine.servers.overrides.redis import socket_of
from engine.servers.redis.attempt import Attempt
from engine.servers.redis.connection import open_answering
from engine.servers.redis.errors import BAD_REPLIES
from engine.stages.writer.connection import BACKOFF_SECONDS_MAX, BACKOFF_SECONDS_MIN
from engine.stages.writer.output import RECEIVE_BYTES, REPLIES_BYTES_MAX, Output
from engine.wire.cluster import Node
from engine.wire.redis_address import RedisAddress

#: Seconds without a byte after which callers stop waiting for a node, although its connection is open.
_STALL_SECONDS = 0.5


class Question(Protocol):
    """What was asked of a node."""

    #: Number of replies that answer it.
    replies: int

    def answered(self, replies: Sequence[Any]) -> None:
        """The node has answered; errors are hiredis.ReplyError. Raises WireError for what is no answer to it."""
        ...

    def unanswered(self) -> None:
        """The connection broke first: the node may have done what it was asked, or not."""
        ...


class _State(Enum):
    AWAY = auto()
    CONNECTING = auto()
    OPEN = auto()
    PAUSED = auto()


class Link:
    """The connection to the node at ``address``. ``on_try`` is called for each try to connect. Seconds are monotonic.

    ``poller`` is told which events the link waits for.
    """

    def __init__(
        self, node: Node, address: RedisAddress, timeout: float, poller: select.poll, on_try: Callable[[], None]
    ) -> None:
        self.node = node
        self.address = address
        #: Counts how often the link has opened.
        self.epoch = 0
        #: True if the connection is not the first one.
        self.renewed = False
        #: Why the node is or was away, until it stores again.
        self.trouble: RedisUnavailable | None = None
        #: When it was last asked something.
        self.asked_at = time.monotonic()
        self._timeout = timeout
        self._poller = poller
        self._on_try = on_try
        self._state = _State.AWAY
        self._backoff = Backoff(BACKOFF_SECONDS_MIN, BACKOFF_SECONDS_MAX)
        self._retry_at = 0.0
        self._attempt: Attempt[AbstractConnection] | None = None
        self._connection: AbstractConnection | None = None
        self._socket: Any = None
        self._reader = hiredis.Reader()
        self._output = Output()
        self._questions: deque[Question] = deque()
        self._replies: list[Any] = []
        self._received = 0
        self._waits_to_send = False
        #: When the node last took or sent bytes while a question was open. Bytes that the kernel takes prove nothing.
        self._moved_at = time.monotonic()

    @property
    def usable(self) -> bool:
        """True if the node may be asked something now."""
        return self._state is _State.OPEN

    @property
    def busy(self) -> bool:
        """True while a question is open."""
        return bool(self._questions)

    @property
    def stalled(self) -> bool:
        """True if the node has not moved a byte for a while, although a question is open."""
        return self.busy and time.monotonic() - self._moved_at > _STALL_SECONDS

    @property
    def seen_at(self) -> float:
        """When the node last gave a sign of life, or was first asked something without giving one, in monotonic
        seconds."""
        return self._moved_at

    def fileno(self) -> int:
        """The descriptor that ``poller`` reports; -1 without a connection."""
        return self._socket.fileno() if self._socket is not None else -1

    # Connecting

    def advance(self, now: float) -> bool:
        """Take one step towards an open link, without waiting; True if it has opened or failed."""
        if self.busy and now - self._moved_at > self._timeout:
            self.fail(f"it did not answer for {self._timeout:g} s")
            return True
        if self._state is _State.PAUSED and now >= self._retry_at:
            self._open()
            return True
        if self._state is _State.AWAY and now >= self._retry_at:
            self._on_try()
            self._attempt = Attempt(partial(open_answering, self.address, self._timeout))
            self._state = _State.CONNECTING
        if self._state is _State.CONNECTING and self._attempt and self._attempt.done():
            attempt, self._attempt = self._attempt, None
            try:
                self._attach(attempt.result())
            except RedisUnavailable as error:
                self._away(error)
            return True
        return False

    def _attach(self, connection: AbstractConnection) -> None:
        self._connection = connection
        self._socket = socket_of(connection)
        self._socket.setblocking(False)
        self._reader = hiredis.Reader()
        self._poller.register(self._socket, select.POLLIN)
        self.renewed = self.epoch > 0
        self._open()

    def _open(self) -> None:
        self._state = _State.OPEN
        self.epoch += 1

    def _away(self, error: RedisUnavailable) -> None:
        self._state = _State.AWAY
        self.trouble = error
        self._retry_at = time.monotonic() + self._backoff.next_seconds()

    # Asking

    def ask(self, buffers: Sequence[bytes | memoryview], question: Question) -> None:
        """Queue ``buffers``, which ``flush`` sends. Only while the link is usable."""
        self.asked_at = time.monotonic()
        if not self._questions:
            self._moved_at = self.asked_at
        self._output.extend(buffers)
        self._questions.append(question)

    def flush(self) -> None:
        """Send what the connection takes now."""
        if not self._output or self._socket is None:
            return
        try:
            while self._output:
                self._output.send(self._socket)
                if self._waits_to_send:
                    self._moved_at = time.monotonic()
        except (BlockingIOError, ssl.SSLWantWriteError, ssl.SSLWantReadError):
            pass
        except OSError as error:
            self.fail(error)
            return
        if bool(self._output) != self._waits_to_send:
            self._waits_to_send = bool(self._output)
            events = select.POLLIN | select.POLLOUT if self._waits_to_send else select.POLLIN
            self._poller.modify(self._socket, events)

    def receive(self) -> None:
        """Read what has arrived, and answer questions."""
        try:
            data = self._socket.recv(RECEIVE_BYTES)
            # TLS has decrypted a whole record, and the descriptor does not tell of the rest of it.
            while isinstance(self._socket, ssl.SSLSocket) and (more := self._socket.pending()):
                data += self._socket.recv(more)
        except (BlockingIOError, ssl.SSLWantReadError, ssl.SSLWantWriteError):
            return
        except OSError as error:
            self.fail(error)
            return
        if not data:
            self.fail("it closed the connection")
            return
        self._moved_at = time.monotonic()
        self._received += len(data)
        self._reader.feed(data)
        try:
            self._answer()
        except (hiredis.HiredisError, *BAD_REPLIES) as error:
            self.fail(f"it sent no RESP: {error}")
        except WireError as error:
            self.fail(error)

    def _answer(self) -> None:
        while self._connection is not None and (reply := self._reader.gets()) is not False:
            if not self._questions:
                raise WireError("it sent a reply without a command")
            self._replies.append(reply)
            if len(self._replies) == self._questions[0].replies:
                question, replies = self._questions.popleft(), self._replies
                self._replies, self._received = [], 0
                question.answered(replies)
        if self._received > REPLIES_BYTES_MAX:
            raise WireError(f"it answered with more than {REPLIES_BYTES_MAX:,} bytes")

    # Trouble

    def stored(self) -> None:
        """The node stores: its trouble is over."""
        if self._state is _State.OPEN:
            self.trouble = None
            self._backoff.reset()

    def refuse(self, error: RedisUnavailable) -> None:
        """The node answers and refuses: ask nothing for a while. Open questions will be answered."""
        if self._state is _State.OPEN:
            self._state = _State.PAUSED
            self.trouble = error
            self._retry_at = time.monotonic() + self._backoff.next_seconds()

    def fail(self, reason: object) -> None:
        """Drop the connection, and tell every open question."""
        if self._connection is None:
            return
        # Before the questions are told: ring space may be used again after that.
        self.close()
        self._away(
            RedisUnavailable(
                f"the connection to Redis at {self.address} broke: {reason}",
                cause=Cause.REDIS_AWAY,
                subject=f"Redis at {self.address}",
            )
        )
        questions, self._questions = self._questions, deque()
        for question in questions:
            question.unanswered()

    def close(self) -> None:
        """Drop the connection."""
        if self._connection is not None:
            self._poller.unregister(self._socket)
            self._connection.disconnect()
        self._connection = self._socket = None
        self._output.clear()
        self._replies, self._received, self._waits_to_send = [], 0, False
        self._state = _State.AWAY
