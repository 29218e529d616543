"""One connection to one server. Addresses, credentials and TLS are redis-py's."""

from __future__ import annotations

from contextlib import suppress
from typing import Any, cast

import redis
from redis.backoff import NoBackoff
from redis.connection import AbstractConnection
from redis.exceptions import RedisError, ResponseError
from redis.retry import Retry

from engine.config.tls import client_context
from engine.servers.redis.errors import BAD_REPLIES, Command, connection_error
from engine.wire.replies import check_reply
from engine.wire.urls import RedisAddress, TlsFiles

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
    options |= {"host": address.host, "port": address.port, "socket_connect_timeout": timeout_seconds}
    return options | {"files": address.files} if address.tls else options


class TlsConnection(redis.SSLConnection):
    """redis-py trusts the system's authorities beside the one that is named, and knows no other host name to check."""

    def __init__(self, *, files: TlsFiles, **options: Any) -> None:
        super().__init__(**options)
        self._files = files

    def _wrap_socket_with_ssl(self, sock: Any) -> Any:
        context = client_context(self._files, "redis")
        return context.wrap_socket(sock, server_hostname=self._files.server_name or self.host)

    def on_connect_check_health(self, check_health: bool = True) -> None:
        """With TLS 1.3 a server tells only after the handshake what it thinks of our certificate. It also sends session
        tickets then, which a pool would take for the rest of an older reply. One answer has both behind it."""
        super().on_connect_check_health(check_health)
        self.send_command("PING", check_health=False)  # type: ignore[no-untyped-call]
        with suppress(ResponseError):
            self.read_response()


def connection_kind(address: RedisAddress) -> Any:
    """redis-py's class of connection for an address."""
    if address.path:
        return redis.UnixDomainSocketConnection
    return TlsConnection if address.tls else redis.Connection


def open_connection(address: RedisAddress, timeout_seconds: float) -> AbstractConnection:
    """A connection to the server of an address that names one, not a Sentinel service. Raises as ``connect``."""
    options = connection_options(address, timeout_seconds)
    connection = cast("AbstractConnection", connection_kind(address)(**options, retry=Retry(NoBackoff(), 0)))
    try:
        connection.connect()
    except (RedisError, OSError, *BAD_REPLIES) as error:
        connection.disconnect()
        raise connection_error(address, error) from None
    return connection


def call(address: RedisAddress, connection: AbstractConnection, *commands: Command) -> list[Any]:
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
