"""What goes wrong at Redis, as errors of ours: of a connection, and of replies."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from redis.exceptions import (
    AskError,
    AuthenticationError,
    ClusterCrossSlotError,
    ClusterDownError,
    MasterDownError,
    NoPermissionError,
    ReadOnlyError,
    ResponseError,
    TryAgainError,
)

from engine.config.tls import tls_refusal
from engine.errors import EngineError, RedisUnavailable, ServerRefused, WireError
from engine.wire.urls import RedisAddress

Command = tuple[Any, ...]

#: What the parser raises, besides its own errors, for bytes that are no RESP2; and our look at the shape of a reply.
BAD_REPLIES = (MemoryError, TypeError, ValueError, LookupError, AttributeError)
#: What to do about refused credentials, of a server and of a sentinel.
LOGIN = "set redis.username and redis.password, or REDIS_USERNAME and REDIS_PASSWORD"
SENTINEL_LOGIN = "set redis.sentinel_username and redis.sentinel_password, or REDIS_SENTINEL_PASSWORD"
#: Why a node of a cluster is refused: a frame and its journal are written together, and lie in different slots there.
CLUSTER = (
    "is a node of a cluster (cluster-enabled yes), and clusters are not supported yet; name a server that is none in "
    "redis.address, or sentinels in redis.sentinels"
)


def connection_error(
    address: RedisAddress, error: Exception, what: str = "cannot be reached"
) -> RedisUnavailable | ServerRefused:
    """The error of ours that a failed connection is."""
    if refusal := tls_refusal(str(error), "redis"):
        return ServerRefused(f"Redis at {address}: {refusal}")
    if isinstance(error, AuthenticationError):
        return ServerRefused(f"Redis at {address} refuses the credentials ({str(error).rstrip('.')}); {LOGIN}")
    if isinstance(error, ResponseError):
        return ServerRefused(f"Redis at {address} refuses the connection: {error}")
    return RedisUnavailable(f"Redis at {address} {what}: {error}")


def demoted(reply: object) -> bool:
    """True for the error of a server that was a master, or may be none any more because its replicas have left it: only
    a new connection asks the sentinels for the new one."""
    # redis-py has a type for the first two and cuts the word off, hiredis has the word.
    words = ("READONLY", "MASTERDOWN", "NOREPLICAS")
    return isinstance(reply, ReadOnlyError | MasterDownError) or str(reply).startswith(words)


def checked(address: RedisAddress, commands: Sequence[Command], replies: list[Any]) -> list[Any]:
    """The replies, none of which is an error. Raises what the first error among them means."""
    for command, reply in zip(commands, replies, strict=True):
        if isinstance(reply, ResponseError):
            raise _meaning(address, command, reply)
    return replies


def _meaning(address: RedisAddress, command: Command, error: ResponseError) -> EngineError:
    text = str(error)
    name = _text(command[0])
    if isinstance(error, NoPermissionError):
        return ServerRefused(f"Redis at {address} does not permit {name} to this user: {text}")
    if isinstance(error, ClusterCrossSlotError | AskError):
        return ServerRefused(f"Redis at {address} {CLUSTER}")
    if "wrong kind of value" in text:
        key = f" key {_text(command[1])!r}" if name != "XREAD" else " a journal"
        return WireError(f"Redis at {address}:{key} holds another type than {name} reads; the engine did not write it")
    # UNBLOCKED: it waited at a master that has become a replica.
    if (
        demoted(error)
        or isinstance(error, TryAgainError | ClusterDownError)
        or text.startswith(("BUSY ", "UNBLOCKED "))
    ):
        return RedisUnavailable(f"Redis at {address} cannot answer now: {text}")
    return ServerRefused(f"Redis at {address} refuses {name}: {text}")


def _text(word: Any) -> str:
    return word.decode("utf-8", "replace") if isinstance(word, bytes) else str(word)
