"""Connect to Redis, whatever kind of address names it, and ask the server what it is."""

from __future__ import annotations

from typing import Any

from redis.connection import AbstractConnection
from redis.exceptions import ResponseError

from engine.errors import Cause
from engine.servers.redis.connection import call, open_connection
from engine.servers.redis.errors import CLUSTER, refuse
from engine.servers.redis.sentinel import find_master
from engine.wire.urls import RedisAddress


def connect(address: RedisAddress, timeout_seconds: float) -> AbstractConnection:
    """A connection that has said hello and selected its database; of a Sentinel service, to its master.

    Raises RedisUnavailable where the server is away or loading, ServerRefused where it refuses the credentials, or
    either end the other's certificate.
    """
    return find_master(address, timeout_seconds)[1] if address.sentinel else open_connection(address, timeout_seconds)


def hello(address: RedisAddress, connection: AbstractConnection) -> dict[str, str]:
    """What a server says of itself: ``server``, ``version``, ``mode``; empty where it is too old to know the question.
    HELLO, because unlike INFO every user may say it. Raises as ``call``."""
    (reply,) = call(address, connection, ("HELLO",))
    return {} if isinstance(reply, ResponseError) else hello_fields(reply)


def hello_fields(reply: list[Any]) -> dict[str, str]:
    """The words of HELLO's reply."""
    pairs = zip(reply[0::2], reply[1::2], strict=True)
    return {
        name.decode("utf-8", "replace"): value.decode("utf-8", "replace")
        for name, value in pairs
        if isinstance(value, bytes)
    }


def check_mode(address: RedisAddress, mode: str) -> None:
    """Raises ServerRefused for a server that cannot hold frames and their journals together."""
    if mode == "cluster":
        raise refuse(address, f" {CLUSTER}", Cause.CLUSTER)
    if mode == "sentinel":
        raise refuse(address, " is a sentinel, which stores nothing", Cause.SENTINEL_ADDRESS)
