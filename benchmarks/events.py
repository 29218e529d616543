"""When frames are stored and when consumers have their events, seen by processes of their own; and the broker's own
delay.

Each process stamps what it sees with the wall clock of the machine, which frames' stamps come from too.
"""

from __future__ import annotations

import json
import math
import multiprocessing
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager
from multiprocessing.connection import Connection
from typing import Any, NamedTuple

import pika
import redis

from engine.wire.keys import journal_key

EXCHANGE, ROUTING_KEY = "camera.metadata", "camera.metadata.event"
#: Seconds that a consumer waits for events of frames that are captured already.
LATE_SECONDS = 1.0
#: The size of a usual event in bytes.
EVENT_BYTES = 350
#: How long a process may take to hand over what it has seen, in seconds.
_HAND_OVER_SECONDS_MAX = 30.0
#: Milliseconds that a blocking read waits before it looks whether the block has ended.
_READ_MS = 100
_spawn = multiprocessing.get_context("spawn")


class Seen(NamedTuple):
    """One frame, and the time at which a process saw it or its event."""

    camera: str
    unix_nano: int
    at_nano: int

    @property
    def age_ms(self) -> float:
        """Milliseconds since the frame's stamp."""
        return (self.at_nano - self.unix_nano) / 1e6


def consumer(amqp_url: str) -> AbstractContextManager[list[Seen]]:
    """Events that a consumer received, of frames stamped within the block. The list is filled at its end."""
    return _observed(_consume, amqp_url)


def stored(
    client: dict[str, Any], vhost: str, cameras: Sequence[str], prefix: str = "frames"
) -> AbstractContextManager[list[Seen]]:
    """Journal entries of ``cameras`` as a reader that waits for them sees them. The list is filled at the end."""
    return _observed(_read_journals, client, {journal_key(vhost, prefix, camera): camera for camera in cameras})


def delays(stored: Sequence[Seen], received: Sequence[Seen]) -> list[float]:
    """Milliseconds from stored to received, for the frames that are in both."""
    events = {(event.camera, event.unix_nano): event.at_nano for event in received}
    found = ((entry, events.get((entry.camera, entry.unix_nano))) for entry in stored)
    return [(at - entry.at_nano) / 1e6 for entry, at in found if at is not None]


def share(values: Sequence[float], part: float) -> float:
    """The value that ``part`` of the values do not exceed."""
    ordered = sorted(values)
    return ordered[min(int(part * len(ordered)), len(ordered) - 1)]


class Trips(NamedTuple):
    """Milliseconds until the broker has confirmed and delivered each message, and pika's CPU milliseconds for one."""

    ms: list[float]
    cpu_ms: float


def round_trips(amqp_url: str, count: int, every_seconds: float) -> Trips:
    """Messages that the broker confirms and delivers, one after the other: the least that an event can take, with the
    same size, type of exchange and kind of queue, without any engine."""
    connection = pika.BlockingConnection(pika.URLParameters(amqp_url))
    channel = connection.channel()
    channel.confirm_delivery()
    channel.exchange_declare("round.trips", exchange_type="topic", auto_delete=True)
    queue = channel.queue_declare("", exclusive=True).method.queue
    channel.queue_bind(queue, "round.trips", ROUTING_KEY)
    arrived: list[float] = []
    channel.basic_consume(queue, lambda *_: arrived.append(time.perf_counter()), auto_ack=True)
    properties = pika.BasicProperties(content_type="application/json", delivery_mode=2)
    trips = []
    cpu = 0.0
    for number in range(count):
        connection.sleep(every_seconds)
        begun, spent = time.perf_counter(), time.thread_time()
        channel.basic_publish("round.trips", ROUTING_KEY, bytes(EVENT_BYTES), properties)
        while len(arrived) <= number:
            connection.process_data_events(1)
        trips.append((arrived[-1] - begun) * 1e3)
        cpu += time.thread_time() - spent
    connection.close()
    return Trips(trips, cpu / count * 1e3)


@contextmanager
def _observed(observe: Callable[..., None], *arguments: Any) -> Iterator[list[Seen]]:
    """Run ``observe`` in a process of its own during the block."""
    ours, theirs = _spawn.Pipe()
    process = _spawn.Process(target=observe, args=(theirs, *arguments), daemon=True)
    process.start()
    theirs.close()
    found: list[Seen] = []
    try:
        assert ours.recv() == "ready"
        begun = time.time_ns()
        yield found
        ended = time.time_ns()
        ours.send("end")
        assert ours.poll(_HAND_OVER_SECONDS_MAX), f"{observe.__name__} caught up"
        found += [seen for seen in ours.recv() if begun <= seen.unix_nano < ended]
    finally:
        process.kill()
        process.join()


def _consume(pipe: Connection, amqp_url: str) -> None:
    connection = pika.BlockingConnection(pika.URLParameters(amqp_url))
    channel = connection.channel()
    channel.exchange_declare(EXCHANGE, exchange_type="topic", durable=True)
    queue = channel.queue_declare("", exclusive=True).method.queue
    channel.queue_bind(queue, EXCHANGE, ROUTING_KEY)
    arrived: list[tuple[int, bytes]] = []
    channel.basic_consume(queue, lambda *message: arrived.append((time.time_ns(), message[-1])), auto_ack=True)
    pipe.send("ready")
    end = math.inf
    while time.time_ns() < end:
        connection.process_data_events(_READ_MS / 1e3)
        if math.isinf(end) and pipe.poll():
            # Events with older stamps may still arrive.
            end = time.time_ns() + LATE_SECONDS * 1e9
    # Bodies are parsed at the end only, so that the consumer takes little of the cores while it measures.
    events = [(json.loads(body), at) for at, body in arrived]
    pipe.send([Seen(event["camera_id"], event["timestamp_nano"], at) for event, at in events])


def _read_journals(pipe: Connection, client: dict[str, Any], journals: dict[str, str]) -> None:
    connected = redis.Redis(**client)
    last: dict[Any, Any] = {journal.encode(): "$" for journal in journals}
    cameras = {journal.encode(): camera for journal, camera in journals.items()}
    found: list[Seen] = []
    pipe.send("ready")
    while not pipe.poll():
        entries: Any = connected.xread(last, block=_READ_MS)
        now = time.time_ns()
        for journal, added in entries:
            found += [Seen(cameras[journal], int(entry.partition(b"-")[0]), now) for entry, _ in added]
            last[journal] = added[-1][0]
    pipe.send(found)
