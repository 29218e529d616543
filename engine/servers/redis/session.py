"""One connection to Redis for callers that ask occasionally: readers of events, the publisher, jobs, the doctor.

The writer's store and asyncio have their own I/O; both connect in the same way.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any, Self

from redis.connection import AbstractConnection
from redis.exceptions import ResponseError

from engine.servers.redis.connect import check_mode, connect, hello
from engine.servers.redis.connection import call
from engine.servers.redis.errors import Command, checked, demoted
from engine.wire.redis_address import RedisAddress

#: Commands of one round trip. Bounds a job's memory, and how long it blocks Redis for others (a few milliseconds).
BATCH_MAX = 500
#: Keys that one SCAN examines.
_SCAN_COUNT = 1000


class Session:
    """A connection that is made when needed, and renewed after it breaks. For one thread.

    Nothing is sent twice: if the connection breaks, a call raises RedisUnavailable, and the caller decides whether to
    repeat it. If a server reports that it is no longer a master, the connection is closed, so that the next call asks
    the sentinels.

    With ``checks_mode`` each new connection identifies its server, and refuses a node of a cluster or a sentinel.
    Without it, only the caller's commands are sent, because users of least privilege may send little else.

    As a context manager it connects at once. Every method that uses Redis raises RedisUnavailable if Redis is away, and
    ServerRefused if it refuses this user.
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
        """The server's own description: ``server``, ``version``, ``mode``. Empty for a server before version 6."""
        return hello(self.address, self.connect())

    def call(self, *commands: Command) -> list[Any]:
        """One round trip. Raises the translation of the first error reply."""
        return self.check(commands, self.try_call(*commands))

    def try_call(self, *commands: Command) -> list[Any]:
        """One round trip. Error replies are returned as ResponseError."""
        if not commands:
            return []
        connection = self.connect()
        try:
            replies = call(self.address, connection, *commands)
        except BaseException:
            # Also after an interrupt between a command and its reply: the connection cannot be used again.
            self.close()
            raise
        if self.address.sentinel and any(is_error(reply) and demoted(reply) for reply in replies):
            self.close()
        return replies

    def call_many(self, commands: Sequence[Command]) -> list[Any]:
        """As many round trips as needed. Error replies are returned as ResponseError."""
        return [reply for part in batches(commands) for reply in self.try_call(*part)]

    def check(self, commands: Sequence[Command], replies: list[Any]) -> list[Any]:
        """The replies, if none is an error. Raises the translation of the first error."""
        return checked(self.address, commands, replies)

    def scan(self, pattern: str) -> Iterator[list[bytes]]:
        """Matching keys, one step at a time. As with SCAN, a step may be empty, and a key may appear twice."""
        cursor = b"0"
        while True:
            cursor, found = self.call(("SCAN", cursor, "MATCH", pattern, "COUNT", _SCAN_COUNT))[0]
            yield found
            if cursor == b"0":
                return

    def scan_steps(self) -> int:
        """Approximate number of steps of a scan."""
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
    """``text`` as a pattern that matches only itself."""
    return "".join(f"\\{char}" if char in "*?[]\\^-" else char for char in text)
