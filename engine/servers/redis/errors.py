"""Translates errors of Redis connections and replies into the engine's errors."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from redis.exceptions import (
    AskError,
    AuthenticationError,
    BusyLoadingError,
    ClusterCrossSlotError,
    ClusterDownError,
    MasterDownError,
    NoPermissionError,
    ReadOnlyError,
    ResponseError,
    TryAgainError,
)
from redis.exceptions import TimeoutError as RedisTimeoutError

from engine.config.tls import tls_refusal
from engine.errors import Cause, EngineError, RedisUnavailable, ServerRefused, WireError
from engine.wire.redis_address import RedisAddress

Command = tuple[Any, ...]

#: Errors for bytes that are no RESP2: from the parser, besides its own errors, and from our checks of a reply's shape.
BAD_REPLIES = (MemoryError, TypeError, ValueError, LookupError, AttributeError)
CLUSTER = "is a node of a cluster (cluster-enabled yes), which has a part of the keys"


def connection_error(
    address: RedisAddress, error: Exception, what: str = "cannot be reached"
) -> RedisUnavailable | ServerRefused:
    """Translate the error of a failed connection."""
    if refusal := tls_refusal(error):
        return refuse(address, f": TLS failed: {refusal.reason}", refusal.cause, server="redis")
    if isinstance(error, AuthenticationError):
        return refuse(address, f" refuses the credentials ({str(error).rstrip('.')})", Cause.LOGIN)
    if isinstance(error, ResponseError):
        return refuse(address, f" refuses the connection: {error}")
    cause = Cause.LOADING if isinstance(error, BusyLoadingError) else Cause.REDIS_AWAY
    if isinstance(error, RedisTimeoutError | TimeoutError):
        cause = Cause.REDIS_HANGS
    return RedisUnavailable(f"Redis at {address} {what}: {error}", cause=cause, subject=f"Redis at {address}")


def refuse(address: RedisAddress, what: str, cause: Cause = Cause.OTHER, **details: str) -> ServerRefused:
    """An error for a refusal by a server; ``what`` follows its name."""
    subject = f"Redis at {address}"
    return ServerRefused(f"{subject}{what}", cause=cause, subject=subject, **details)


def demoted(reply: object) -> bool:
    """True for the error of a server that is no longer a master, or may be none because it has lost its replicas. Only
    a new connection asks the sentinels for the new master."""
    # redis-py has types for the first two and removes the word; hiredis keeps the word.
    words = ("READONLY", "MASTERDOWN", "NOREPLICAS")
    return isinstance(reply, ReadOnlyError | MasterDownError) or str(reply).startswith(words)


def serves_nothing(reply: object) -> bool:
    """True for the error of a cluster's node that does not serve for now, or is no master any more. It has not carried
    out the command, and another node may."""
    words = ("CLUSTERDOWN", "MASTERDOWN", "READONLY", "UNBLOCKED")
    return isinstance(reply, ClusterDownError | MasterDownError | ReadOnlyError) or str(reply).startswith(words)


def forbidden(reply: object) -> bool:
    """True for the error of a user that lacks a right."""
    return isinstance(reply, NoPermissionError) or str(reply).startswith("NOPERM")


def checked(address: RedisAddress, commands: Sequence[Command], replies: list[Any]) -> list[Any]:
    """The replies, if none is an error. Raises the translation of the first error."""
    for command, reply in zip(commands, replies, strict=True):
        if isinstance(reply, ResponseError):
            raise _meaning(address, command, reply)
    return replies


def _meaning(address: RedisAddress, command: Command, error: ResponseError) -> EngineError:
    text = str(error)
    name = _text(command[0])
    subject = f"Redis at {address}"
    if isinstance(error, NoPermissionError):
        return refuse(address, f" does not permit {name} to this user: {text}", Cause.FORBIDDEN)
    if isinstance(error, ClusterCrossSlotError | AskError) and not address.cluster:
        return refuse(address, f" {CLUSTER}", Cause.CLUSTER)
    if "wrong kind of value" in text:
        key = f" key {_text(command[1])!r}" if name != "XREAD" else " a journal"
        fact = f"{subject}:{key} holds another type than {name} reads; the engine did not write it"
        return WireError(fact, cause=Cause.WRONG_TYPE, subject=subject)
    # UNBLOCKED: the command waited at a master that has become a replica.
    if (
        demoted(error)
        or isinstance(error, AskError | TryAgainError | ClusterDownError)
        or text.startswith(("BUSY ", "UNBLOCKED "))
    ):
        return RedisUnavailable(f"{subject} cannot answer now: {text}", cause=Cause.BUSY, subject=subject)
    return refuse(address, f" refuses {name}: {text}")


def _text(word: Any) -> str:
    return word.decode("utf-8", "replace") if isinstance(word, bytes) else str(word)
