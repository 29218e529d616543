"""Connects to Redis by any kind of address, and identifies the server."""

from __future__ import annotations

from typing import Any

from redis.connection import AbstractConnection
from redis.exceptions import ResponseError

from engine.errors import Cause
from engine.servers.redis.connection import call, open_connection
from engine.servers.redis.errors import CLUSTER, refuse
from engine.servers.redis.sentinel import find_master
from engine.wire.redis_address import RedisAddress


def connect(address: RedisAddress, timeout_seconds: float) -> AbstractConnection:
    """A connection that is authenticated and has selected its database; for a Sentinel service, to its master.

    Raises RedisUnavailable if the server is away or loading. Raises ServerRefused if it refuses the credentials, or if
    either end refuses the other's certificate.
    """
    return find_master(address, timeout_seconds)[1] if address.sentinel else open_connection(address, timeout_seconds)


def hello(address: RedisAddress, connection: AbstractConnection) -> dict[str, str]:
    """The server's own description: ``server``, ``version``, ``mode``; empty if it is too old for HELLO.

    HELLO is used because every user may send it, unlike INFO. Raises as ``call``.
    """
    (reply,) = call(address, connection, ("HELLO",))
    return {} if isinstance(reply, ResponseError) else hello_fields(reply)


def hello_fields(reply: list[Any]) -> dict[str, str]:
    """The text fields of HELLO's reply."""
    pairs = zip(reply[0::2], reply[1::2], strict=True)
    return {
        name.decode("utf-8", "replace"): value.decode("utf-8", "replace")
        for name, value in pairs
        if isinstance(value, bytes)
    }


def check_mode(address: RedisAddress, mode: str) -> None:
    """Raises ServerRefused for a server that is of another kind than its address says."""
    if mode == "cluster" and not address.cluster:
        raise refuse(address, f" {CLUSTER}", Cause.CLUSTER)
    if address.cluster and mode == "standalone":
        raise refuse(address, " is no node of a cluster (cluster-enabled no)", Cause.NO_CLUSTER)
    if mode == "sentinel":
        raise refuse(address, " is a sentinel, which stores nothing", Cause.SENTINEL_ADDRESS)
