"""Connections to Redis: addresses, credentials and TLS are redis-py's; what goes wrong becomes our two kinds of
error."""

from __future__ import annotations

import threading
from collections.abc import Callable
from contextlib import suppress
from typing import Any, cast

import redis
from redis.backoff import NoBackoff
from redis.connection import AbstractConnection
from redis.exceptions import (
    AuthenticationError,
    MasterDownError,
    NoPermissionError,
    ReadOnlyError,
    RedisError,
    ResponseError,
)
from redis.retry import Retry

from engine.config_tls import client_context, tls_refusal
from engine.errors import EngineError, RedisUnavailable, ServerRefused
from engine.wire.replies import check_reply
from engine.wire.urls import RedisAddress, Sentinel, TlsFiles, host_port

#: What the parser raises, besides its own errors, for bytes that are no RESP2; and our look at the shape of a reply.
BAD_REPLIES = (MemoryError, TypeError, ValueError, LookupError, AttributeError)
#: What to do about refused credentials, of a server and of a sentinel.
_LOGIN = "set redis.username and redis.password, or REDIS_USERNAME and REDIS_PASSWORD"
_SENTINEL_LOGIN = "set redis.sentinel_username and redis.sentinel_password, or REDIS_SENTINEL_PASSWORD"
#: Why a node of a cluster is refused: a frame and its journal are written together, and lie in different slots there.
CLUSTER = (
    "is a node of a cluster (cluster-enabled yes), and clusters are not supported yet; name a server that is none in "
    "redis.address, or sentinels in redis.sentinels"
)
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


def connect(address: RedisAddress, timeout_seconds: float) -> AbstractConnection:
    """A connection that has said hello and selected its database; of a Sentinel service, to its master.

    Raises RedisUnavailable where the server is away or loading, ServerRefused where it refuses the credentials, or
    either end the other's certificate.
    """
    return find_master(address, timeout_seconds)[1] if address.sentinel else _connect(address, timeout_seconds)


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
            said.append(f"{asked}: {error}".replace(_LOGIN, _SENTINEL_LOGIN))
            continue
        if isinstance(found, ResponseError):
            refusals += 1
            said.append(f"{asked} refuses to answer: {found}; {_SENTINEL_LOGIN}")
            continue
        if not found:
            refusals += 1
            said.append(f"{asked} knows no service {service!r}; check redis.service")
            continue
        master = address._replace(host=found[0].decode(), port=int(found[1]), sentinel=None)
        try:
            connection = _connect(master, timeout_seconds)
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
    connection = _connect(asked, timeout_seconds)
    try:
        return call(asked, connection, ("SENTINEL", "GET-MASTER-ADDR-BY-NAME", sentinel.service))[0]
    finally:
        connection.disconnect()


def _connect(address: RedisAddress, timeout_seconds: float) -> AbstractConnection:
    options = connection_options(address, timeout_seconds)
    connection = cast("AbstractConnection", connection_kind(address)(**options, retry=Retry(NoBackoff(), 0)))
    try:
        connection.connect()
    except (RedisError, OSError, *BAD_REPLIES) as error:
        connection.disconnect()
        raise connection_error(address, error) from None
    return connection


class Attempt:
    """One try to connect, in a thread of its own: it can block for the whole timeout, and the rings need relief
    meanwhile. The thread is a daemon, so that a writer that stops does not wait for it."""

    def __init__(self, connect: Callable[[], AbstractConnection]) -> None:
        self._connection: AbstractConnection | None = None
        self._error = "it was interrupted"
        self._thread = threading.Thread(target=self._run, args=(connect,), name="connect", daemon=True)
        try:
            self._thread.start()
        except RuntimeError as error:
            # The machine has no thread to give now.
            self._error = str(error)

    def _run(self, connect: Callable[[], AbstractConnection]) -> None:
        try:
            self._connection = connect()
        except EngineError as error:
            self._error = str(error)

    def done(self) -> bool:
        """True when there is a result."""
        return not self._thread.is_alive()

    def result(self) -> AbstractConnection:
        """The connection. Raises RedisUnavailable, also where the server refused: it may change its mind."""
        if self._connection is None:
            raise RedisUnavailable(self._error)
        return self._connection


def connection_error(
    address: RedisAddress, error: Exception, what: str = "cannot be reached"
) -> RedisUnavailable | ServerRefused:
    """The error of ours that a failed connection is."""
    if refusal := tls_refusal(str(error), "redis"):
        return ServerRefused(f"Redis at {address}: {refusal}")
    if isinstance(error, AuthenticationError):
        return ServerRefused(f"Redis at {address} refuses the credentials ({str(error).rstrip('.')}); {_LOGIN}")
    if isinstance(error, ResponseError):
        return ServerRefused(f"Redis at {address} refuses the connection: {error}")
    return RedisUnavailable(f"Redis at {address} {what}: {error}")


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
        raise ServerRefused(f"Redis at {address} {CLUSTER}")
    if mode == "sentinel":
        raise ServerRefused(
            f"Redis at {address} is a sentinel, which stores nothing; name it in redis.sentinels, and its redis.service"
        )


def demoted(reply: object) -> bool:
    """True for the error of a server that was a master, or may be none any more because its replicas have left it: only
    a new connection asks the sentinels for the new one."""
    # redis-py has a type for the first two and cuts the word off, hiredis has the word.
    words = ("READONLY", "MASTERDOWN", "NOREPLICAS")
    return isinstance(reply, ReadOnlyError | MasterDownError) or str(reply).startswith(words)


def call(address: RedisAddress, connection: AbstractConnection, *commands: tuple[Any, ...]) -> list[Any]:
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
