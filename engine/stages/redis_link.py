"""Connections to Redis: addresses, credentials and TLS are redis-py's; what goes wrong becomes our two kinds of
error."""

from __future__ import annotations

import threading
from collections.abc import Callable
from typing import Any, cast

import redis
from redis.backoff import NoBackoff
from redis.connection import AbstractConnection
from redis.exceptions import AuthenticationError, RedisError, ResponseError
from redis.retry import Retry

from engine.errors import RedisUnavailable, ServerRefused
from engine.wire.replies import check_reply
from engine.wire.urls import RedisAddress

#: What the parser raises, besides its own errors, for bytes that are no RESP2; and our look at the shape of a reply.
BAD_REPLIES = (MemoryError, TypeError, ValueError, LookupError, AttributeError)
#: Replies as RESP2: flat lists, which our own parsing of entries expects.
_PROTOCOL = 2


def connection_options(address: RedisAddress, timeout_seconds: float) -> dict[str, Any]:
    """What redis-py's connection classes are made with, those of asyncio too: nothing is retried behind our back, and
    nothing is sent that a least-privilege user may not (CLIENT SETINFO)."""
    options: dict[str, Any] = {
        "db": address.database,
        "username": address.username,
        "password": address.password,
        "protocol": _PROTOCOL,
        "socket_timeout": timeout_seconds,
        "driver_info": None,
    }
    if address.path:
        return options | {"path": address.path}
    return options | {"host": address.host, "port": address.port, "socket_connect_timeout": timeout_seconds}


def connection_kind(address: RedisAddress) -> Any:
    """redis-py's class of connection for an address."""
    if address.path:
        return redis.UnixDomainSocketConnection
    return redis.SSLConnection if address.tls else redis.Connection


def connect(address: RedisAddress, timeout_seconds: float) -> AbstractConnection:
    """A connection that has said hello and selected its database.

    Raises RedisUnavailable where the server is away or loading, ServerRefused where it refuses the credentials.
    """
    options = connection_options(address, timeout_seconds)
    connection = cast("AbstractConnection", connection_kind(address)(**options, retry=Retry(NoBackoff(), 0)))
    try:
        connection.connect()
    except (RedisError, OSError, *BAD_REPLIES) as error:
        connection.disconnect()
        raise connection_error(address, error) from None
    return connection


class Attempt:
    """One try to connect, in a thread of its own: it can block for the whole timeout, and the rings need relief
    meanwhile. The thread is a daemon, so that a writer that stops does not wait for it."""

    def __init__(self, connect: Callable[[], AbstractConnection]) -> None:
        self._connection: AbstractConnection | None = None
        self._error = "it was interrupted"
        self._thread = threading.Thread(target=self._run, args=(connect,), name="connect", daemon=True)
        self._thread.start()

    def _run(self, connect: Callable[[], AbstractConnection]) -> None:
        try:
            self._connection = connect()
        except (RedisUnavailable, ServerRefused) as error:
            self._error = str(error)

    def done(self) -> bool:
        """True when there is a result."""
        return not self._thread.is_alive()

    def result(self) -> AbstractConnection:
        """The connection. Raises RedisUnavailable, also where the server refused: it may change its mind."""
        if self._connection is None:
            raise RedisUnavailable(self._error)
        return self._connection


def connection_error(
    address: RedisAddress, error: Exception, what: str = "cannot be reached"
) -> RedisUnavailable | ServerRefused:
    """The error of ours that a failed connection is."""
    if isinstance(error, AuthenticationError):
        return ServerRefused(
            f"Redis at {address} refuses the credentials ({str(error).rstrip('.')}); "
            "set redis.username and redis.password, or REDIS_USERNAME and REDIS_PASSWORD"
        )
    if isinstance(error, ResponseError):
        return ServerRefused(f"Redis at {address} refuses the connection: {error}")
    return RedisUnavailable(f"Redis at {address} {what}: {error}")


def call(address: RedisAddress, connection: AbstractConnection, *commands: tuple[Any, ...]) -> list[Any]:
    """Send ``commands`` in one go and return their replies; error replies are returned as exceptions.

    Raises RedisUnavailable where the connection breaks or a reply is none that its command can bring, ServerRefused
    where the server asks for credentials.
    """
    packed = connection.pack_commands(commands)
    try:
        connection.send_packed_command(packed)
        replies = []
        for command in commands:
            try:
                reply = connection.read_response()
                check_reply(command, reply)
            except ResponseError as error:
                reply = error
            replies.append(reply)
        return replies
    except (RedisError, OSError, *BAD_REPLIES) as error:
        connection.disconnect()
        raise connection_error(address, error, "broke the connection") from None
