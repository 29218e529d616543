"""A job's own connection to Redis, for commands that change something: nothing is sent twice by itself."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any, Self

from redis.exceptions import ResponseError

from engine.servers.redis.connect import check_mode, connect, hello
from engine.servers.redis.connection import call
from engine.servers.redis.errors import Command, checked
from engine.wire.urls import RedisAddress

#: Commands of one round trip: bounds what a job holds, and how long it keeps Redis from others (a few milliseconds).
BATCH_MAX = 500
#: Keys that one SCAN looks at.
_SCAN_COUNT = 1000


class RedisSession:
    """One connection. Raises RedisUnavailable where it breaks; every job can be run again then. Raises ServerRefused
    for a node of a cluster."""

    def __init__(self, address: RedisAddress, timeout_seconds: float) -> None:
        self.address = address
        self._connection = connect(address, timeout_seconds)
        check_mode(address, hello(address, self._connection).get("mode", ""))

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._connection.disconnect()

    def call(self, *commands: Command) -> list[Any]:
        """One round trip; any reply that is an error is raised."""
        return self.check(commands, self.try_call(*commands))

    def check(self, commands: Sequence[Command], replies: list[Any]) -> list[Any]:
        """The replies, none of which is an error. Raises what the first error among them means."""
        return checked(self.address, commands, replies)

    def try_call(self, *commands: Command) -> list[Any]:
        """One round trip; replies that are errors come as ResponseError."""
        return call(self.address, self._connection, *commands) if commands else []

    def call_many(self, commands: Sequence[Command]) -> list[Any]:
        """As many round trips as it takes; replies that are errors come as ResponseError."""
        return [reply for part in batches(commands) for reply in self.try_call(*part)]

    def scan(self, pattern: str) -> Iterator[list[bytes]]:
        """Keys that match, a step at a time, perhaps none and perhaps some twice: SCAN's guarantees."""
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
