"""Connections to Redis: addresses, credentials and TLS are redis-py's; what goes wrong becomes our two kinds of
error."""

from __future__ import annotations

from typing import Any, cast

import redis
from redis.backoff import NoBackoff
from redis.connection import AbstractConnection
from redis.exceptions import AuthenticationError, RedisError, ResponseError
from redis.retry import Retry

from engine.errors import RedisUnavailable, ServerRefused
from engine.wire.urls import RedisAddress

#: Replies as RESP2: flat lists, which our own parsing of entries expects.
_PROTOCOL = 2


def connect(address: RedisAddress, timeout_seconds: float) -> AbstractConnection:
    """A connection that has said hello and selected its database.

    Raises RedisUnavailable where the server is away or loading, ServerRefused where it refuses the credentials.
    """
    options: dict[str, Any] = {
        "db": address.database,
        "username": address.username,
        "password": address.password,
        "protocol": _PROTOCOL,
        "socket_timeout": timeout_seconds,
        "retry": Retry(NoBackoff(), 0),
    }
    kind: Any
    if address.path:
        kind = redis.UnixDomainSocketConnection
        options["path"] = address.path
    else:
        kind = redis.SSLConnection if address.tls else redis.Connection
        options |= {"host": address.host, "port": address.port, "socket_connect_timeout": timeout_seconds}
    connection = cast("AbstractConnection", kind(**options))
    try:
        connection.connect()
    except AuthenticationError as error:
        connection.disconnect()
        raise _refused(error) from None
    except (RedisError, OSError) as error:
        connection.disconnect()
        raise RedisUnavailable(f"Redis at {address} cannot be reached: {error}") from None
    return connection


def call(connection: AbstractConnection, *commands: tuple[Any, ...]) -> list[Any]:
    """Send ``commands`` in one go and return their replies; error replies are returned as exceptions.

    Raises RedisUnavailable where the connection breaks, ServerRefused where the server asks for credentials.
    """
    try:
        connection.send_packed_command(connection.pack_commands(commands))
        replies = []
        for _ in commands:
            try:
                replies.append(connection.read_response())
            except ResponseError as error:
                replies.append(error)
        return replies
    except AuthenticationError as error:
        connection.disconnect()
        raise _refused(error) from None
    except (RedisError, OSError) as error:
        connection.disconnect()
        raise RedisUnavailable(f"the connection to Redis broke: {error}") from None


def _refused(error: AuthenticationError) -> ServerRefused:
    return ServerRefused(
        f"Redis refuses the credentials ({str(error).rstrip('.')}); "
        "set redis.username and redis.password, or REDIS_USERNAME and REDIS_PASSWORD"
    )
