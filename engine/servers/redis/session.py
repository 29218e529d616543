"""One connection to Redis for callers that ask now and then: readers of events, the publisher, jobs, the doctor.

The writer's store and asyncio have I/O of their own; both connect as this does.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any, Self

from redis.connection import AbstractConnection
from redis.exceptions import ResponseError

from engine.servers.redis.connect import check_mode, connect, hello
from engine.servers.redis.connection import call
from engine.servers.redis.errors import Command, checked, demoted
from engine.wire.urls import RedisAddress

#: Commands of one round trip. Bounds what a job holds, and how long it keeps Redis from others (a few milliseconds).
BATCH_MAX = 500
#: Keys that one SCAN looks at.
_SCAN_COUNT = 1000


class Session:
    """A connection that is made when it is needed, and made again after it broke. For one thread.

    Nothing is sent twice: a call whose connection breaks raises RedisUnavailable, and the caller knows whether to
    repeat it. A server that says it is no master any more is left, so that the next call asks the sentinels.

    With ``checks_mode`` every new connection is asked what server it is, and a node of a cluster or a sentinel is
    refused. Without it, nothing is sent but what the caller sends: users of least privilege may do little else.

    As a context manager it connects at once. Every method that talks to Redis raises RedisUnavailable where Redis is
    away, and ServerRefused where it refuses this user.
    """

    def __init__(self, address: RedisAddress, timeout_seconds: float, *, checks_mode: bool = False) -> None:
        self.address = address
        self._timeout_seconds = timeout_seconds
        self._checks_mode = checks_mode
        self._connection: AbstractConnection | None = None

    def __enter__(self) -> Self:
        self.connect()
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    @property
    def connected(self) -> bool:
        """True while there is a connection that has not failed."""
        return self._connection is not None

    def connect(self) -> AbstractConnection:
        """Connect, unless connected."""
        if self._connection is None:
            connection = connect(self.address, self._timeout_seconds)
            try:
                if self._checks_mode:
                    check_mode(self.address, hello(self.address, connection).get("mode", ""))
            except BaseException:
                connection.disconnect()
                raise
            self._connection = connection
        return self._connection

    def close(self) -> None:
        """Drop the connection. The next call makes another."""
        if self._connection is not None:
            self._connection.disconnect()
            self._connection = None

    def hello(self) -> dict[str, str]:
        """What the server says of itself: ``server``, ``version``, ``mode``. Empty for a server before version 6."""
        return hello(self.address, self.connect())

    def call(self, *commands: Command) -> list[Any]:
        """One round trip. Raises what the first reply that is an error means."""
        return self.check(commands, self.try_call(*commands))

    def try_call(self, *commands: Command) -> list[Any]:
        """One round trip. Replies that are errors are returned, as ResponseError."""
        if not commands:
            return []
        connection = self.connect()
        try:
            replies = call(self.address, connection, *commands)
        except BaseException:
            # Also where it was interrupted between a command and its reply: the connection cannot be used again.
            self.close()
            raise
        if self.address.sentinel and any(is_error(reply) and demoted(reply) for reply in replies):
            self.close()
        return replies

    def call_many(self, commands: Sequence[Command]) -> list[Any]:
        """As many round trips as it takes. Replies that are errors are returned, as ResponseError."""
        return [reply for part in batches(commands) for reply in self.try_call(*part)]

    def check(self, commands: Sequence[Command], replies: list[Any]) -> list[Any]:
        """The replies, where none is an error. Raises what the first error among them means."""
        return checked(self.address, commands, replies)

    def scan(self, pattern: str) -> Iterator[list[bytes]]:
        """Keys that match, a step at a time. A step may be empty, and a key may come twice: SCAN's guarantees."""
        cursor = b"0"
        while True:
            cursor, found = self.call(("SCAN", cursor, "MATCH", pattern, "COUNT", _SCAN_COUNT))[0]
            yield found
            if cursor == b"0":
                return

    def scan_steps(self) -> int:
        """About how many steps a scan takes."""
        size: int = self.call(("DBSIZE",))[0]
        return size // _SCAN_COUNT + 1


def batches(items: Sequence[Any], size: int = BATCH_MAX) -> Iterator[Sequence[Any]]:
    """``items`` in parts of at most ``size``."""
    for first in range(0, len(items), size):
        yield items[first : first + size]


def is_error(reply: object) -> bool:
    """True for a reply of ``try_call`` that is an error."""
    return isinstance(reply, ResponseError)


def glob_literal(text: str) -> str:
    """``text`` as a pattern that only matches itself."""
    return "".join(f"\\{char}" if char in "*?[]\\^-" else char for char in text)
