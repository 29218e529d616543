"""The master of a Sentinel service."""

from __future__ import annotations

from typing import Any

from redis.connection import AbstractConnection
from redis.exceptions import NoPermissionError, ResponseError

from engine.errors import RedisUnavailable, ServerRefused
from engine.servers.redis.connection import call, open_connection
from engine.servers.redis.errors import LOGIN, SENTINEL_LOGIN
from engine.wire.urls import RedisAddress, Sentinel, host_port


def find_master(address: RedisAddress, timeout_seconds: float) -> tuple[RedisAddress, AbstractConnection]:
    """The master of a Sentinel service, and a connection to it: the sentinels are asked in turn until one names a
    server that says itself that it is a master.

    A user that may not ask for the ROLE has to believe the sentinel. Raises RedisUnavailable with what each sentinel
    said; ServerRefused where none of them will serve us as configured, or the master refuses the credentials.
    """
    assert address.sentinel is not None
    service = address.sentinel.service
    said = []
    refusals = 0
    for host, port in address.sentinel.hosts:
        asked = f"the sentinel at {host_port(host, port)}"
        try:
            found = _ask_sentinel(address, address.sentinel, host, port, timeout_seconds)
        except RedisUnavailable as error:
            said.append(f"{asked}: {error}")
            continue
        except ServerRefused as error:
            refusals += 1
            said.append(f"{asked}: {error}".replace(LOGIN, SENTINEL_LOGIN))
            continue
        if isinstance(found, ResponseError):
            refusals += 1
            said.append(f"{asked} refuses to answer: {found}; {SENTINEL_LOGIN}")
            continue
        if not found:
            refusals += 1
            said.append(f"{asked} knows no service {service!r}; check redis.service")
            continue
        master = address._replace(host=found[0].decode(), port=int(found[1]), sentinel=None)
        try:
            connection = open_connection(master, timeout_seconds)
            (role,) = call(master, connection, ("ROLE",))
        except RedisUnavailable as error:
            said.append(f"{asked} names {master}, but: {error}")
            continue
        if isinstance(role, NoPermissionError) or (isinstance(role, list) and role[0] == b"master"):
            return master, connection
        connection.disconnect()
        what = str(role) if isinstance(role, ResponseError) else f"a {role[0].decode()}"
        said.append(f"{asked} names {master}, which is no master ({what})")
    text = f"no master of {address}: {'; '.join(said)}"
    raise ServerRefused(text) if refusals == len(said) else RedisUnavailable(text)


def _ask_sentinel(address: RedisAddress, sentinel: Sentinel, host: str, port: int, timeout_seconds: float) -> Any:
    """[host, port] of the master, None where the sentinel knows no such service, or its error."""
    asked = address._replace(
        host=host, port=port, database=0, username=sentinel.username, password=sentinel.password, sentinel=None
    )
    connection = open_connection(asked, timeout_seconds)
    try:
        return call(asked, connection, ("SENTINEL", "GET-MASTER-ADDR-BY-NAME", sentinel.service))[0]
    finally:
        connection.disconnect()
