"""redis-py: connections with the engine's own TLS contexts, and the socket of a connection.

redis-py trusts the system's authorities in addition to the configured one, and can only check the host name that it
connects to. So ``config.tls`` makes the contexts for all connections of the engine.
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
from engine.wire.redis_address import TlsFiles

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
        """With TLS 1.3 a server accepts or rejects the client's certificate only after the handshake. It then also
        sends session tickets, which a pool would take for the rest of an older reply. One answer follows both."""
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
        # In a thread, because it reads files, such as the system's authorities.
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


class NodeAway(ResponseError):
    """In place of a reply: the node of a cluster that has the key does not answer now."""


def socket_of(connection: AbstractConnection) -> socket.socket:
    """The socket of an established connection. redis-py has no public name for it."""
    found = connection._get_socket()
    assert found is not None, "the connection has connected"
    return found
