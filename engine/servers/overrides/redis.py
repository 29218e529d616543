"""redis-py: connections whose TLS is ours, and the socket of a connection.

redis-py trusts the system's authorities besides the one that is named, and cannot check another host name than the one
it connects to. The contexts here are made by ``config.tls``, for every connection of the engine alike.
"""

from __future__ import annotations

import asyncio
import socket
from collections.abc import Mapping
from contextlib import suppress
from typing import Any

import redis
import redis.asyncio as aioredis
from redis.connection import AbstractConnection
from redis.exceptions import ResponseError

from engine.config.tls import client_context
from engine.servers.overrides import expect
from engine.wire.urls import TlsFiles

expect("redis", redis.Connection, "_get_socket")
expect("redis", redis.SSLConnection, "_wrap_socket_with_ssl", "sock")
expect("redis", redis.SSLConnection, "on_connect_check_health", "check_health")
expect("redis", aioredis.SSLConnection, "_connect")
expect("redis", aioredis.SSLConnection, "_connection_arguments")
expect("redis", aioredis.SSLConnection, "on_connect_check_health", "check_health")


class TlsConnection(redis.SSLConnection):
    """A blocking connection over TLS."""

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


class AsyncTlsConnection(aioredis.SSLConnection):
    """``TlsConnection`` for asyncio."""

    def __init__(self, *, files: TlsFiles, **options: Any) -> None:
        super().__init__(**options)
        self._files = files
        self._context: Any = None

    async def _connect(self) -> None:
        # Reads files, the system's authorities among them: not in the event loop.
        self._context = await asyncio.to_thread(client_context, self._files, "redis")
        await super()._connect()  # type: ignore[no-untyped-call]

    async def on_connect_check_health(self, check_health: bool = True) -> None:
        """See ``TlsConnection``."""
        await super().on_connect_check_health(check_health)
        await self.send_command("PING", check_health=False)
        with suppress(ResponseError):
            await self.read_response()

    def _connection_arguments(self) -> Mapping[str, Any]:
        name = self._files.server_name or self.host
        return {"host": self.host, "port": self.port, "ssl": self._context, "server_hostname": name}


def socket_of(connection: AbstractConnection) -> socket.socket:
    """The socket of a connection that has connected. redis-py has no public name for it."""
    found = connection._get_socket()
    assert found is not None, "the connection has connected"
    return found
