"""Sends commands over one asyncio connection, and reads their replies."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import redis
import redis.asyncio as aioredis
from redis.exceptions import AuthenticationError, ResponseError

from engine.servers.overrides.redis import AsyncTlsConnection, TlsConnection
from engine.servers.redis.connection import connection_kind
from engine.servers.redis.errors import Command
from engine.wire.redis_address import RedisAddress
from engine.wire.replies import check_reply

#: Blocking connection class -> its asyncio counterpart.
_KINDS: dict[Any, Any] = {
    redis.UnixDomainSocketConnection: aioredis.UnixDomainSocketConnection,
    TlsConnection: AsyncTlsConnection,
    redis.Connection: aioredis.Connection,
}


def async_connection_kind(address: RedisAddress) -> Any:
    """redis-py's asyncio class of connection for an address."""
    return _KINDS[connection_kind(address)]


async def send(connection: Any, commands: Sequence[Command]) -> None:
    """Send ``commands``. Raises redis-py's errors, OSError."""
    await connection.send_packed_command(connection.pack_commands(commands))


async def receive(connection: Any, commands: Sequence[Command]) -> list[Any]:
    """The replies to ``commands``; error replies as ResponseError. Raises redis-py's errors, OSError, BAD_REPLIES."""
    replies: list[Any] = []
    for command in commands:
        try:
            reply = await connection.read_response()
            check_reply(command, reply)
        except AuthenticationError:
            raise
        except ResponseError as error:
            reply = error
        replies.append(reply)
    return replies
