"""Facts about RabbitMQ: over AMQP as the publisher connects, and from its management API if it answers."""

from __future__ import annotations

import base64
import json
import time
from collections.abc import Callable
from functools import partial
from http import HTTPStatus
from http.client import HTTPConnection, HTTPException, HTTPSConnection
from ssl import SSLContext
from typing import Any, NamedTuple, Protocol
from urllib.parse import quote

from engine.config import Config
from engine.stages.publisher.account import BEGINNING
from engine.stages.publisher.journals import Journals
from engine.wire import keys

#: Scheme and port of the management API. https is tried last, and certificates are verified.
MANAGEMENT_PORTS = (("http", 15_672), ("https", 15_671))
_HTTP_SECONDS_MAX = 2.0


class Queue(NamedTuple):
    """A queue that gets the exchange's events, with its numbers of messages and consumers."""

    name: str
    messages: int
    consumers: int


class Management(NamedTuple):
    """Facts from the management API. ``alarms``: nodes with an alarm. ``bound``: queues and exchanges bound to the
    engine's exchange."""

    alarms: list[str]
    bound: list[str]
    queues: list[Queue]


class Backlog(NamedTuple):
    """What waits for the publisher: camera, approximate number of frames or access units that are not announced yet,
    and the age of the oldest in seconds."""

    camera: str
    waiting: int
    age_seconds: float


class Tls(Protocol):
    """TLS settings for the broker: trusted authorities, client certificate, and expected host name."""

    context: SSLContext
    server_hostname: str | None


class _NamedHttps(HTTPSConnection):
    """An HTTPS connection that expects a given host name in the certificate."""

    def __init__(self, host: str, port: int, tls: Tls) -> None:
        super().__init__(host, port, timeout=_HTTP_SECONDS_MAX, context=tls.context)
        self._tls = tls

    def connect(self) -> None:
        HTTPConnection.connect(self)
        self.sock = self._tls.context.wrap_socket(self.sock, server_hostname=self._tls.server_hostname)


def management(
    host: str,
    vhost: str,
    user: str,
    password: str,
    exchange: str,
    ports: tuple[tuple[str, int], ...],
    tls: Tls | None = None,
) -> Management | None:
    """Try ``ports`` in turn, https with the broker's TLS settings. None if none of them answers this user."""
    login = base64.b64encode(f"{user}:{password}".encode()).decode()
    for scheme, port in ports:
        get = partial(_get, partial(_connection, scheme, host, port, tls), login)
        try:
            bindings = get(f"/api/exchanges/{quote(vhost, safe='')}/{quote(exchange, safe='')}/bindings/source")
            found = get(f"/api/queues/{quote(vhost, safe='')}")
        except (OSError, ValueError, HTTPException):
            continue
        bound = sorted({str(one["destination"]) for one in bindings})
        queues = [
            Queue(str(one["name"]), int(one.get("messages", 0)), int(one.get("consumers", 0)))
            for one in found
            if one["name"] in bound
        ]
        return Management(_alarms(get), bound, queues)
    return None


def _alarms(get: Callable[[str], list[dict[str, Any]]]) -> list[str]:
    try:
        nodes = get("/api/nodes")
    except (OSError, ValueError, HTTPException):
        # Only users with the tag ``monitoring`` may see nodes.
        return []
    return [str(node["name"]) for node in nodes if node.get("mem_alarm") or node.get("disk_free_alarm")]


def _connection(scheme: str, host: str, port: int, tls: Tls | None) -> HTTPConnection:
    if scheme == "https":
        return _NamedHttps(host, port, tls) if tls else HTTPSConnection(host, port, timeout=_HTTP_SECONDS_MAX)
    return HTTPConnection(host, port, timeout=_HTTP_SECONDS_MAX)


def _get(connect: Callable[[], HTTPConnection], login: str, path: str) -> list[dict[str, Any]]:
    """A JSON array of objects. Raises OSError, ValueError or HTTPException."""
    connection = connect()
    try:
        connection.request("GET", path, headers={"Authorization": f"Basic {login}"})
        reply = connection.getresponse()
        if reply.status != HTTPStatus.OK:
            raise ValueError(f"HTTP {reply.status}")
        document = json.loads(reply.read())
    finally:
        connection.close()
    if not isinstance(document, list):
        raise ValueError("no array")
    return document


def backlog(config: Config, *, video: bool = False) -> list[Backlog]:
    """The cameras whose frames, or with ``video`` access units, wait to be announced. Raises RedisUnavailable,
    ServerRefused."""
    cameras = [camera for camera, of_video in config.rings if of_video == video]
    address, timeout_seconds = config.publisher_redis_address, config.redis.timeout_seconds
    journals = Journals(address, timeout_seconds, config.vhost, config.prefix, cameras, video=video)
    try:
        marks = journals.cursors().marks
        cursors = {camera: marks[camera].at if camera in marks else BEGINNING for camera in cameras}
        # The oldest are read first: entries that come between the two reads are newer.
        oldest = {found.camera: found.entries[0] for found in journals.read(cursors, 1) if found.entries}
        newest = journals.overview().newest
    finally:
        journals.close()
    now = time.time_ns()
    found = []
    for camera, entry in oldest.items():
        last = newest.get(camera)
        if last is None:
            # The oldest entry was the last, and has expired since.
            continue
        if entry.number and last.number:
            waiting = last.number - entry.number + 1
        else:
            waiting = (last.at[1] - entry.sequence) % keys.SEQUENCE_MAX + 1
        found.append(Backlog(camera, max(waiting, 1), max(now - entry.unix_nano, 0) / 1e9))
    return found
