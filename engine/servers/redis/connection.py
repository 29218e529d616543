"""One connection to one server. redis-py handles addresses, credentials and TLS."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, cast

import redis
from redis.backoff import NoBackoff
from redis.connection import AbstractConnection
from redis.exceptions import RedisError, ResponseError
from redis.retry import Retry

from engine.errors import RedisUnavailable, ServerRefused
from engine.servers.overrides.redis import TlsConnection
from engine.servers.redis.errors import BAD_REPLIES, Command, connection_error
from engine.wire.redis_address import RedisAddress
from engine.wire.replies import check_reply

#: RESP2: the engine's parsing of entries expects flat lists.
_PROTOCOL = 2


def connection_options(address: RedisAddress, timeout_seconds: float) -> dict[str, Any]:
    """Options for redis-py's connection classes, including those of asyncio. redis-py retries nothing by itself, and
    sends nothing that a least-privilege user may not send (CLIENT SETINFO)."""
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
    options |= {"host": address.host, "port": address.port, "socket_connect_timeout": timeout_seconds}
    return options | {"files": address.files} if address.tls else options


def connection_kind(address: RedisAddress) -> Any:
    """redis-py's class of connection for an address."""
    if address.path:
        return redis.UnixDomainSocketConnection
    return TlsConnection if address.tls else redis.Connection


def open_connection(address: RedisAddress, timeout_seconds: float) -> AbstractConnection:
    """A connection to the server in ``address``, which names no Sentinel service. Raises as ``connect``."""
    options = connection_options(address, timeout_seconds)
    connection = cast("AbstractConnection", connection_kind(address)(**options, retry=Retry(NoBackoff(), 0)))
    try:
        connection.connect()
    except (RedisError, OSError, *BAD_REPLIES) as error:
        connection.disconnect()
        raise connection_error(address, error) from None
    return connection


def open_answering(address: RedisAddress, timeout_seconds: float) -> AbstractConnection:
    """As ``open_connection``, and the server has answered: one that hangs takes connections too. Raises as ``call``."""
    connection = open_connection(address, timeout_seconds)
    call(address, connection, ("PING",))
    return connection


def call(address: RedisAddress, connection: AbstractConnection, *commands: Command) -> list[Any]:
    """Send ``commands`` together and return their replies; error replies are returned as exceptions.

    Raises RedisUnavailable if the connection breaks or a reply does not fit its command. Raises ServerRefused if the
    server asks for credentials.
    """
    send(address, connection, commands)
    return receive(address, connection, commands)


def send(address: RedisAddress, connection: AbstractConnection, commands: Sequence[Command]) -> None:
    """Send ``commands``. Raises as ``call``."""
    packed = connection.pack_commands(commands)
    try:
        connection.send_packed_command(packed)
    except (RedisError, OSError, *BAD_REPLIES) as error:
        raise _broken(address, connection, error) from None


def receive(
    address: RedisAddress, connection: AbstractConnection, commands: Sequence[Command], *, begun: bool = False
) -> list[Any]:
    """The replies to ``commands``, which were sent. With ``begun`` they must have begun to arrive: nobody waits for
    them. Raises as ``call``."""
    try:
        if begun and not connection.can_read(timeout=0):
            raise redis.TimeoutError("Timeout reading from socket")
        replies: list[Any] = []
        for command in commands:
            try:
                reply = connection.read_response()
                check_reply(command, reply)
            except ResponseError as error:
                reply = error
            replies.append(reply)
        return replies
    except (RedisError, OSError, *BAD_REPLIES) as error:
        raise _broken(address, connection, error) from None


def _broken(
    address: RedisAddress, connection: AbstractConnection, error: Exception
) -> RedisUnavailable | ServerRefused:
    connection.disconnect()
    return connection_error(address, error, "broke the connection")
