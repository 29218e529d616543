"""What can be asked of RabbitMQ: by AMQP as the publisher would, and of its management API where that answers."""

from __future__ import annotations

import base64
import json
import time
import urllib.error
import urllib.request
from typing import Any, NamedTuple
from urllib.parse import quote

from engine.config import Config
from engine.stages.journals import Journals
from engine.wire import keys
from engine.wire.journal import parse_entry_id

#: Where the management API is: scheme and port. TLS is asked last, and only verified certificates count.
MANAGEMENT_PORTS = (("http", 15_672), ("https", 15_671))
_HTTP_SECONDS_MAX = 2.0


class Queue(NamedTuple):
    """A queue that the exchange's events reach, and how many messages and consumers it has."""

    name: str
    messages: int
    consumers: int


class Management(NamedTuple):
    """What the management API says. ``alarms``: nodes with one; ``bound``: queues and exchanges bound to ours."""

    alarms: list[str]
    bound: list[str]
    queues: list[Queue]


class Backlog(NamedTuple):
    """Events that wait for the publisher: camera, about how many, and the age of the oldest in seconds."""

    camera: str
    waiting: int
    age_seconds: float


def management(
    host: str, vhost: str, user: str, password: str, exchange: str, ports: tuple[tuple[str, int], ...]
) -> Management | None:
    """Ask each of ``ports`` in turn; None where none of them answers us."""
    login = base64.b64encode(f"{user}:{password}".encode()).decode()
    name = f"[{host}]" if ":" in host else host
    for scheme, port in ports:
        base = f"{scheme}://{name}:{port}/api"
        try:
            bindings = _get(
                f"{base}/exchanges/{quote(vhost, safe='')}/{quote(exchange, safe='')}/bindings/source", login
            )
            found = _get(f"{base}/queues/{quote(vhost, safe='')}", login)
        except (OSError, ValueError):
            continue
        bound = sorted({str(one["destination"]) for one in bindings})
        queues = [
            Queue(str(one["name"]), int(one.get("messages", 0)), int(one.get("consumers", 0)))
            for one in found
            if one["name"] in bound
        ]
        return Management(_alarms(base, login), bound, queues)
    return None


def _alarms(base: str, login: str) -> list[str]:
    try:
        nodes = _get(f"{base}/nodes", login)
    except (OSError, ValueError):
        # Only users with the tag ``monitoring`` may see nodes.
        return []
    return [str(node["name"]) for node in nodes if node.get("mem_alarm") or node.get("disk_free_alarm")]


def _get(url: str, login: str) -> list[dict[str, Any]]:
    """A JSON array of objects. Raises OSError (URLError is one) or ValueError."""
    request = urllib.request.Request(url, headers={"Authorization": f"Basic {login}"})  # noqa: S310 - http or https
    with urllib.request.urlopen(request, timeout=_HTTP_SECONDS_MAX) as reply:  # noqa: S310
        document = json.loads(reply.read())
    if not isinstance(document, list):
        raise ValueError("no array")
    return document


def backlog(config: Config) -> list[Backlog]:
    """Cameras of whose journal something waits to be announced. Raises RedisUnavailable, ServerRefused."""
    cameras = [camera.id for camera in config.cameras]
    journals = Journals(
        config.publisher_redis_address, config.redis.timeout_seconds, config.vhost, config.prefix, cameras
    )
    try:
        newest = journals.newest()
        cursors = journals.cursors()
        oldest = dict(journals.read(cursors, 1).entries)
    finally:
        journals.close()
    now = time.time_ns()
    found = []
    for camera, entry in oldest.items():
        last = parse_entry_id(newest.get(camera, f"{entry.unix_nano}-{entry.sequence}"))[1]
        waiting = (last - entry.sequence) % keys.SEQUENCE_MAX + 1
        found.append(Backlog(camera, waiting, max(now - entry.unix_nano, 0) / 1e9))
    return found
