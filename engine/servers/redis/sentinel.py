"""The master of a Sentinel service."""

from __future__ import annotations

from typing import Any

from redis.connection import AbstractConnection
from redis.exceptions import NoPermissionError, ResponseError

from engine.errors import Cause, EngineError, RedisUnavailable, ServerRefused
from engine.servers.redis.connection import call, open_connection
from engine.wire.redis_address import RedisAddress, Sentinel
from engine.wire.urls import host_port


def find_master(address: RedisAddress, timeout_seconds: float) -> tuple[RedisAddress, AbstractConnection]:
    """The master of a Sentinel service, and a connection to it.

    It asks the sentinels in turn until one names a server that confirms that it is a master. A user without the right
    to ROLE has to trust the sentinel. Raises RedisUnavailable with the answer of each sentinel. Raises ServerRefused if
    no sentinel serves this configuration, or if the master refuses the credentials.
    """
    assert address.sentinel is not None
    service = address.sentinel.service
    subject = f"Redis at {address}"
    said: list[EngineError] = []
    for host, port in address.sentinel.hosts:
        asked = f"the sentinel at {host_port(host, port)}"
        try:
            found = _ask_sentinel(address, address.sentinel, host, port, timeout_seconds)
        except RedisUnavailable as error:
            said.append(RedisUnavailable.of(error, f"{asked}: {error.fact}"))
            continue
        except ServerRefused as error:
            # The sentinel has its own user and password.
            cause = Cause.SENTINEL_LOGIN if error.cause is Cause.LOGIN else error.cause
            said.append(ServerRefused.of(error, f"{asked}: {error.fact}", cause))
            continue
        if isinstance(found, ResponseError):
            said.append(ServerRefused(f"{asked} refuses to answer: {found}", cause=Cause.SENTINEL_LOGIN))
            continue
        if not found:
            said.append(ServerRefused(f"{asked} knows no service {service!r}", cause=Cause.UNKNOWN_SERVICE))
            continue
        master = address._replace(host=found[0].decode(), port=int(found[1]), sentinel=None)
        try:
            connection = open_connection(master, timeout_seconds)
            (role,) = call(master, connection, ("ROLE",))
        except RedisUnavailable as error:
            said.append(RedisUnavailable.of(error, f"{asked} names {master}, but: {error.fact}"))
            continue
        if isinstance(role, NoPermissionError) or (isinstance(role, list) and role[0] == b"master"):
            return master, connection
        connection.disconnect()
        what = str(role) if isinstance(role, ResponseError) else f"a {role[0].decode()}"
        said.append(RedisUnavailable(f"{asked} names {master}, which is no master ({what})", cause=Cause.REDIS_AWAY))
    fact = f"no master of {address}: {'; '.join(error.fact for error in said)}"
    if all(isinstance(error, ServerRefused) for error in said):
        # Use the first one's advice: sentinels of one service have the same settings.
        refused = ServerRefused.of(said[0], fact)
        refused.subject = subject
        raise refused
    raise RedisUnavailable(fact, cause=Cause.REDIS_AWAY, subject=subject)


def _ask_sentinel(address: RedisAddress, sentinel: Sentinel, host: str, port: int, timeout_seconds: float) -> Any:
    """[host, port] of the master; None if the sentinel knows no such service; or its error."""
    asked = address._replace(
        host=host, port=port, database=0, username=sentinel.username, password=sentinel.password, sentinel=None
    )
    connection = open_connection(asked, timeout_seconds)
    try:
        return call(asked, connection, ("SENTINEL", "GET-MASTER-ADDR-BY-NAME", sentinel.service))[0]
    finally:
        connection.disconnect()
