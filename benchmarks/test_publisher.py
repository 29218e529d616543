"""The publisher: journal entries to confirmed, persistent messages in a durable queue.

Timed: a connected PublisherAgent with filled journals, from its first read until the broker has confirmed every event.
Not timed: connecting, filling the journals (by four cameras in turn), emptying the queue. Redis, broker and publisher
share the machine. The peers send the same bodies and read no journal, which favours them.
"""

from __future__ import annotations

import multiprocessing
import statistics
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pika
import pytest
import redis
from pytest_benchmark.fixture import BenchmarkFixture

from benchmarks import publisher_peers as peers
from benchmarks.harness import Results, Scale, quotients
from benchmarks.in_process import InProcessPublisher, Spent, run_publisher_process, site_config
from engine.shm import segment, site
from engine.shm.site import SitePaths
from engine.shm.status_page import PublisherCount, StatusPage
from engine.wire import keys
from engine.wire.journal import JournalEntry, entry_fields, entry_id
from engine.wire.metadata import FrameEvents, decode_batch, decode_event, encode_batch, encode_event
from tests.client.stocked import Stored, stock
from tests.servers.rabbitmq import RabbitMQ
from tests.servers.redis_server import RedisServer
from tests.servers.wait import wait_until

CAMERAS = 4
VHOST = "default"
TTL_SECONDS = 300
SIZE = 60 * 1024
EVENTS_PER_SECOND = 400
#: The figure that the publisher is built to.
LATENCY_MS = 3.0


@pytest.fixture
def server(directory: Path) -> Iterator[RedisServer]:
    with RedisServer(directory / "redis", unix=True) as running:
        yield running


@pytest.fixture
def connection(rabbitmq: RabbitMQ) -> Iterator[pika.BlockingConnection]:
    # The benchmarks do not serve this connection for long times.
    made = pika.BlockingConnection(pika.URLParameters(rabbitmq.url() + "?heartbeat=0"))
    peers.declare(made)
    yield made
    made.channel().queue_delete(peers.QUEUE)
    made.close()


def entries(count: int) -> list[Stored]:
    """Entries of the current time, and their frames, by four cameras in turn."""
    now = time.time_ns()
    return [
        Stored(f"cam{number % CAMERAS}", now + number, number // CAMERAS % keys.SEQUENCE_MAX + 1, bytes(100))
        for number in range(count)
    ]


def bodies_of(stored: list[Stored], batch_max: int) -> list[bytes]:
    """The messages that the publisher makes from entries: one each, or arrays of ``batch_max``."""
    makers = {f"cam{number}": FrameEvents(VHOST, "frames", f"cam{number}", TTL_SECONDS) for number in range(CAMERAS)}
    events = [
        makers[camera].event(JournalEntry(nano, sequence, len(payload), 64, 48, "jpeg", True))
        for camera, nano, sequence, payload, _ in stored
    ]
    if batch_max == 1:
        return [encode_event(event) for event in events]
    return [encode_batch(events[first : first + batch_max]) for first in range(0, len(events), batch_max)]


@pytest.mark.parametrize("kind", ["event", "batch"])
def test_entries_to_confirmed_messages(
    benchmark: BenchmarkFixture,
    results: Results,
    scale: Scale,
    directory: Path,
    server: RedisServer,
    rabbitmq: RabbitMQ,
    connection: pika.BlockingConnection,
    kind: str,
) -> None:
    config = site_config(
        directory / "run", server.address, CAMERAS, amqp={"amqp_url": rabbitmq.url()}, metadata={"format": kind}
    )
    per_message = 1 if kind == "event" else config.metadata.batch_max
    events = scale.pick(1_000, 5_000, 20_000) * (1 if kind == "event" else 4)
    singles = scale.pick(50, 500, 1_000)
    rounds = scale.pick(1, 2, 5)
    routing_key = config.metadata.routing_key if kind == "event" else config.metadata.batch_routing_key
    sides: dict[str, list[Spent]] = {"ours": [], "one at a time": [], "blast": []}
    client = server.client()
    channel = connection.channel()
    filled: list[Stored] = []

    def emptied(messages: int) -> None:
        """Check that all messages are in the queue, then empty it."""
        # Unconfirmed messages may still be on their way from the broker's channel to the queue.
        there = lambda: channel.queue_declare(peers.QUEUE, passive=True).method.message_count == messages  # noqa: E731
        wait_until(there, 20, "the queue has every message")
        channel.queue_purge(peers.QUEUE)

    with InProcessPublisher(config) as publisher:

        def others_and_refill() -> None:
            if sides["ours"]:
                emptied(-(-events // per_message))
            filled[:] = entries(events)
            singly = bodies_of(filled[:singles], 1)
            sides["one at a time"].append(peers.one_at_a_time(connection, singly, config.metadata.routing_key))
            emptied(singles)
            messages = bodies_of(filled, per_message)
            sides["blast"].append(peers.blast(rabbitmq.url(), messages, routing_key))
            emptied(len(messages))
            client.flushall()
            stock(client, filled, vhost=VHOST, cameras={})

        def ours() -> None:
            sides["ours"].append(publisher.drain(events))

        benchmark.pedantic(ours, setup=others_and_refill, rounds=rounds, warmup_rounds=scale.pick(0, 1, 1))
    if scale.mode == "once":
        _check_received(channel, filled, per_message)
    name = "publisher.single" if kind == "event" else "publisher.batch"
    _record(results, name, {side: spent[-rounds:] for side, spent in sides.items()}, events, singles)


def _check_received(channel: pika.adapters.blocking_connection.BlockingChannel, sent: list[Stored], per: int) -> None:
    """Check that every event is there once and complete, and that each camera's are in order."""
    found: dict[str, list[int]] = {}
    while (got := channel.basic_get(peers.QUEUE, auto_ack=True))[0] is not None:
        events = [decode_event(got[2])] if per == 1 else decode_batch(got[2])
        assert got[1].delivery_mode == 2
        for event in events:
            found.setdefault(event.camera_id, []).append(event.timestamp_nano)
    expected: dict[str, list[int]] = {}
    for stored in sent:
        expected.setdefault(stored.camera, []).append(stored.unix_nano)
    assert found == expected


def _record(results: Results, name: str, sides: dict[str, list[Spent]], events: int, singles: int) -> None:
    ours = [events / spent.seconds for spent in sides["ours"]]
    singly = [singles / spent.seconds for spent in sides["one at a time"]]
    blast = [events / spent.seconds for spent in sides["blast"]]
    cpu = statistics.median(spent.cpu_seconds for spent in sides["ours"]) / events * 1e6
    target = 5_000 if name == "publisher.single" else 50_000
    results.figure(f"{name}.rate", round(statistics.median(ours)), "events/s", target=target)
    rates = [rate / target for rate in ours]
    to_build_to = f"{target:,} events/s, the figure that the publisher is built to"
    results.median(f"{name}.target", rates, against=to_build_to, unit="of the figure")
    results.figure(f"{name}.cpu", round(cpu, 1), "us an event of the publisher's CPU")
    results.figure(f"{name}.one_at_a_time.rate", round(statistics.median(singly)), "events/s")
    results.figure(f"{name}.blast.rate", round(statistics.median(blast)), "events/s")
    singles_way = "one confirmed publish at a time, pika's BlockingConnection"
    results.median(f"{name}.one_at_a_time", quotients(ours, singly), against=singles_way, unit="times its events/s")
    cpus = [
        (theirs.cpu_seconds / singles) / (mine.cpu_seconds / events)
        for theirs, mine in zip(sides["one at a time"], sides["ours"], strict=True)
    ]
    singles_cpu = "the client's CPU an event of one confirmed publish at a time"
    results.median(f"{name}.cpu", cpus, against=singles_cpu, unit="times less")
    blast_way = "an unconfirmed blast of the same messages, pika's SelectConnection"
    results.median(f"{name}.limit", quotients(ours, blast), against=blast_way, unit="of its events/s")


def test_stored_to_received(
    results: Results,
    scale: Scale,
    directory: Path,
    server: RedisServer,
    rabbitmq: RabbitMQ,
    connection: pika.BlockingConnection,
) -> None:
    """Latency at 400 events per second by four cameras: from Redis's reply to the entry until a consumer has the event.
    The publisher is a separate process; this process stores and consumes.

    The peer is a single loop: the same entry, and then one confirmed publish.
    """
    events = scale.pick(60, 600, 2_400)
    config = site_config(directory / "run", server.address, CAMERAS, amqp={"amqp_url": rabbitmq.url()})
    paths = SitePaths.of(config)
    segment.private_directory(paths.directory)
    StatusPage.create(paths.publisher())
    page = StatusPage.watch(paths.publisher())
    client = server.client()
    context = multiprocessing.get_context("spawn")
    publisher = context.Process(
        target=run_publisher_process, args=(directory / "run", server.address, CAMERAS, rabbitmq.url())
    )
    publisher.start()
    try:
        wait_until(lambda: page.counts[PublisherCount.CONNECTED], 30, "the publisher is connected")
        with peers.Receiver(rabbitmq.connect) as receiver:
            through_the_engine = _store_at_a_pace(client, events, lambda _: None)
            wait_until(lambda: len(receiver.received) == events, 30, "every event is received")
            publisher.terminate()
            publisher.join(30)
            channel = connection.channel()
            channel.confirm_delivery()

            def publish(stored: Stored) -> None:
                body = bodies_of([stored], 1)[0]
                channel.basic_publish(peers.EXCHANGE, config.metadata.routing_key, body)

            in_one_loop = _store_at_a_pace(client, events // 4, publish)
            wait_until(lambda: len(receiver.received) == events + events // 4, 30, "every event is received")
        for name, stored_at in (("publisher", through_the_engine), ("publisher.in_one_loop", in_one_loop)):
            late = sorted((receiver.received[event] - at) / 1e6 for event, at in stored_at.items())
            for label, share in (("p50", 0.5), ("p99", 0.99), ("max", 1.0)):
                value = late[min(int(len(late) * share), len(late) - 1)]
                results.figure(f"{name}.latency.{label}", round(value, 2), "ms from stored to received")
            if name == "publisher":
                median = statistics.median(late)
                results.ratio(
                    "publisher.latency",
                    LATENCY_MS / median,
                    against=f"{LATENCY_MS:g} ms at the median",
                    unit="times less",
                )
    finally:
        publisher.kill()
        publisher.join(10)
        page.close()
        site.remove(paths)


def _store_at_a_pace(client: redis.Redis, events: int, then: Callable[[Stored], None]) -> dict[tuple[str, int], int]:
    """Store one entry every 2.5 ms. Returns when Redis acknowledged each (nanoseconds UTC), by camera and time."""
    stored_at: dict[tuple[str, int], int] = {}
    due = time.monotonic()
    for number in range(events):
        camera, nano = f"cam{number % CAMERAS}", time.time_ns()
        entry = JournalEntry(nano, number + 1, SIZE, 1280, 720, "jpeg", True)
        client.set(keys.frame_key_prefix(VHOST, "frames", camera) + keys.frame_key_suffix(nano, number + 1), b"jpeg")
        client.execute_command(
            "XADD", keys.journal_key(VHOST, "frames", camera), entry_id(nano, number + 1), *entry_fields(entry)
        )
        stored_at[camera, nano] = time.time_ns()
        then(Stored(camera, nano, number + 1, b""))
        due = max(due + 1 / EVENTS_PER_SECOND, time.monotonic() - 0.1)
        time.sleep(max(due - time.monotonic(), 0))
    return stored_at
