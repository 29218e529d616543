"""The publisher's agent between a real Redis and a real broker."""

from __future__ import annotations

import contextlib
import threading
import time
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path

import pytest
import redis
import structlog

from engine.config import Config, from_document
from engine.shm import publish_latency, ring_file, segment
from engine.shm.site import SitePaths
from engine.shm.status_page import PublisherCount, StatusPage
from engine.stages.publisher import accounts, entry_queue
from engine.stages.publisher import agent as agent_module
from engine.stages.publisher.agent import PublisherAgent
from engine.wire import keys
from engine.wire.journal import JournalEntry, entry_fields, entry_id
from engine.wire.marks import Mark, format_mark
from engine.wire.metadata import decode_event
from engine.wire.state import CameraStatus, encode_status
from tests.servers.certificate import self_signed
from tests.servers.rabbitmq import RabbitMQ
from tests.servers.redis_server import RedisServer
from tests.servers.wait import free_port, wait_until

#: More than the publisher holds at a time.
ENTRIES = 3000


def site_config(directory: Path, redis_server: RedisServer, amqp_url: str) -> Config:
    document = {
        "site": {"run_directory": str(directory / "run")},
        "ring": {"directory": str(directory)},
        "redis": {"address": redis_server.address},
        "amqp": {"amqp_url": amqp_url},
        "cameras": [{"id": "cam1", "url": "test://"}],
    }
    return from_document(document, {})


@contextlib.contextmanager
def publishing(config: Config, directory: Path) -> Iterator[tuple[PublisherAgent, StatusPage]]:
    page = StatusPage.claim(directory / "publisher.status")
    agent = PublisherAgent(config, page, structlog.get_logger())
    agent.on_start()
    try:
        yield agent, page
    finally:
        agent.on_close()
        page.close()


def stock(
    client: redis.Redis,
    config: Config,
    camera: str = "cam1",
    numbers: Iterable[int] = range(1, ENTRIES + 1),
    age_seconds: int = 0,
) -> None:
    """Frames and their entries, of this moment or captured ``age_seconds`` ago."""
    now = time.time_ns() - age_seconds * 10**9
    frame = keys.frame_key_prefix(config.vhost, config.prefix, camera)
    journal = keys.journal_key(config.vhost, config.prefix, camera)
    with client.pipeline(transaction=False) as pipeline:
        for number in numbers:
            entry = JournalEntry(now + number, number, 100, 64, 48, "jpeg", True, number)
            pipeline.set(frame + keys.frame_key_suffix(now + number, number), b"jpeg", ex=300)
            pipeline.execute_command("XADD", journal, entry_id(now + number, number), *entry_fields(entry))
        pipeline.execute()


def turn(agent: PublisherAgent, until: Callable[[], object]) -> int:
    """Turn the agent as its loop does; returns the number of rounds."""
    deadline = time.monotonic() + 30
    rounds = 0
    while not until():
        assert time.monotonic() < deadline, "it did not come"
        rounds += 1
        if not agent.do_work():
            agent.idle()
    return rounds


def test_who_waits_for_confirms_with_its_hands_full_sleeps(
    tmp_path: Path, redis_server: RedisServer, rabbitmq: RabbitMQ, vhost: str
):
    """A look for entries is not due while there are enough at hand, however long ago the last one was."""
    config = site_config(tmp_path, redis_server, rabbitmq.url(vhost))
    with publishing(config, tmp_path) as (agent, page):
        turn(agent, lambda: page.counts[PublisherCount.CONNECTED])
        rabbitmq.pause()
        try:
            stock(redis_server.client(), config)
            turn(agent, lambda: page.counts[PublisherCount.PUBLISHED] >= config.publisher.window)
            second = time.monotonic() + 1
            assert turn(agent, lambda: time.monotonic() > second) < 100
        finally:
            rabbitmq.resume()
        turn(agent, lambda: page.counts[PublisherCount.CONFIRMED] == ENTRIES)


def test_an_entry_wakes_a_publisher_that_would_sleep_for_an_hour(
    tmp_path: Path, redis_server: RedisServer, rabbitmq: RabbitMQ, vhost: str, monkeypatch: pytest.MonkeyPatch
):
    config, client = site_config(tmp_path, redis_server, rabbitmq.url(vhost)), redis_server.client()
    for name in ("_LOOK_SECONDS", "_STATES_SECONDS"):
        monkeypatch.setattr(agent_module, name, 3600.0)
    monkeypatch.setattr(entry_queue, "_BLOCK_SECONDS", 3600.0)
    with publishing(config, tmp_path) as (agent, page):

        def store() -> None:
            ready = lambda: page.counts[PublisherCount.CONNECTED] and agent._journals.reading  # noqa: E731
            wait_until(ready, 30, "the publisher waits for entries")
            stock(client, config, numbers=range(1, 6))

        later = threading.Thread(target=store)
        later.start()
        deadline = time.monotonic() + 30
        # A round that brings the last confirm may return 0, and the sleep after it would last an hour.
        while page.counts[PublisherCount.CONFIRMED] < 5:
            assert time.monotonic() < deadline, "it did not come"
            if not agent.do_work() and page.counts[PublisherCount.CONFIRMED] < 5:
                agent.idle()
        later.join()


def test_a_read_that_was_overtaken_while_it_waited_brings_nothing(
    tmp_path: Path, redis_server: RedisServer, rabbitmq: RabbitMQ, vhost: str
):
    config, client = site_config(tmp_path, redis_server, rabbitmq.url(vhost)), redis_server.client()
    with publishing(config, tmp_path) as (agent, _):
        agent._accounts.begin()
        queue = agent._queue

        def ask() -> None:
            while not agent._journals.reading:
                queue.wait(0.01)

        def take_answer() -> list[int]:
            while agent._journals.reading:
                queue.wait(1.0)
                queue.fill()
            return [entry.sequence for _, entry, _ in queue.items]

        ask()
        stock(client, config, numbers=range(1, 4))
        queue._read()
        assert take_answer() == [1, 2, 3], "each once"
        ask()
        stock(client, config, numbers=range(4, 7))
        queue.clear()
        agent._accounts.rewind()
        assert take_answer() == [], "the first three come first"
        ask()
        assert take_answer() == [1, 2, 3, 4, 5, 6]


def long_latencies(page: StatusPage) -> tuple[int, int, int]:
    """(confirmed events, events in the histogram, those of them that took at least 50 s)."""
    found = publish_latency.read(page.counts)
    long = sum(1 for bound in publish_latency.BOUNDS_US if bound < 50_000_000)
    return found.confirmed, sum(found.buckets), sum(found.buckets[long + 1 :])


def test_a_backlog_s_latencies_begin_at_the_capture_and_those_of_fresh_entries_when_they_were_stored(
    tmp_path: Path, redis_server: RedisServer, rabbitmq: RabbitMQ, vhost: str, monkeypatch: pytest.MonkeyPatch
):
    config, client = site_config(tmp_path, redis_server, rabbitmq.url(vhost)), redis_server.client()
    stock(client, config, numbers=range(1, 11), age_seconds=200)
    with publishing(config, tmp_path) as (agent, page):
        turn(agent, lambda: page.counts[PublisherCount.CONFIRMED] == 10)
        assert long_latencies(page) == (10, 10, 10)
        # Captured long ago, such as in an outage of Redis, and stored just now.
        for number in range(11, 14):
            turn(agent, lambda: agent._journals.reading)
            stock(client, config, numbers=[number], age_seconds=100)
            turn(agent, lambda number=number: page.counts[PublisherCount.CONFIRMED] == number)
        assert long_latencies(page) == (13, 13, 10)
        # The connection to the broker breaks: all that is not confirmed is read again, as a backlog.
        with monkeypatch.context() as patch:
            patch.setattr(agent._messages, "send", lambda: 0)
            stock(client, config, numbers=range(14, 20), age_seconds=90)
            turn(agent, lambda: len(agent._queue.items) == 6)
        agent._connection.lost(OSError("test"))
        turn(agent, lambda: page.counts[PublisherCount.CONFIRMED] >= 19)
        assert long_latencies(page) == (19, 19, 16)


class Killed(BaseException):
    """The process is gone."""


def test_a_publisher_that_is_killed_between_its_counts_leaves_latencies_unknown_and_counts_none_twice(
    tmp_path: Path, redis_server: RedisServer, rabbitmq: RabbitMQ, vhost: str, monkeypatch: pytest.MonkeyPatch
):
    config, client = site_config(tmp_path, redis_server, rabbitmq.url(vhost)), redis_server.client()

    def killed(*_: object) -> None:
        raise Killed

    with publishing(config, tmp_path) as (agent, page):
        with monkeypatch.context() as patch:
            patch.setattr(publish_latency, "count", killed)
            stock(client, config, numbers=range(1, 6))
            with pytest.raises(Killed):
                turn(agent, lambda: False)
        unknown = page.counts[PublisherCount.CONFIRMED]
        assert unknown >= 1
        stock(client, config, numbers=range(6, 11))
        turn(agent, lambda: page.counts[PublisherCount.CONFIRMED] >= 10)
        confirmed, counted, _ = long_latencies(page)
    assert counted == confirmed - unknown


def test_a_broker_that_refuses_messages_is_tried_less_and_less_often(
    tmp_path: Path, redis_server: RedisServer, rabbitmq: RabbitMQ, vhost: str
):
    """Each try sends a window again, which other queues get twice. The log has one outage, with one end."""
    config = site_config(tmp_path, redis_server, rabbitmq.url(vhost))
    with contextlib.closing(rabbitmq.connect(vhost)) as connection, redis_server.client() as client:
        channel = connection.channel()
        channel.exchange_declare(config.metadata.exchange, "topic", durable=True)
        channel.queue_declare("full", arguments={"x-max-length": 5, "x-overflow": "reject-publish"})
        channel.queue_bind("full", config.metadata.exchange, "#")
        stock(client, config, numbers=range(1, 101))
        with structlog.testing.capture_logs() as logs, publishing(config, tmp_path) as (agent, page):
            turn(agent, lambda: page.counts[PublisherCount.CONNECTS] == 4)
            assert agent._connection._backoff.failures == 3
            channel.queue_delete("full")
            turn(agent, lambda: not agent._connection.away)
            assert page.counts[PublisherCount.CONFIRMED] == 100
            assert agent._connection._backoff.failures == 0
    said = [entry["event"] for entry in logs]
    assert said.count("rabbitmq is away; events wait in the journals") == said.count("rabbitmq is back") == 1


def test_over_tls_every_event_arrives_in_order(
    tmp_path: Path, short_path: Path, redis_server: RedisServer, monkeypatch: pytest.MonkeyPatch
):
    certificate, key = self_signed(short_path)
    monkeypatch.setenv("SSL_CERT_FILE", str(certificate))
    port = free_port()
    tls = f"listeners.ssl.local = 127.0.0.1:{port}\nssl_options.certfile = {certificate}\nssl_options.keyfile = {key}\n"
    with RabbitMQ(short_path / "broker", tls) as broker:
        config = site_config(tmp_path, redis_server, f"amqps://guest:guest@localhost:{port}/%2F")
        with publishing(config, tmp_path) as (agent, page):
            turn(agent, lambda: page.counts[PublisherCount.CONNECTED])
            channel = broker.connect().channel()
            queue = channel.queue_declare("", exclusive=True).method.queue
            channel.queue_bind(queue, config.metadata.exchange, config.metadata.routing_key)
            stock(redis_server.client(), config)
            turn(agent, lambda: page.counts[PublisherCount.CONFIRMED] == ENTRIES)
        bodies = [channel.basic_get(queue, auto_ack=True)[2] for _ in range(ENTRIES)]
        assert [int(decode_event(body).sequence) for body in bodies] == list(range(1, ENTRIES + 1))


def test_a_state_is_announced_when_it_changes_and_not_with_each_try(
    tmp_path: Path, redis_server: RedisServer, rabbitmq: RabbitMQ, vhost: str
):
    config = site_config(tmp_path, redis_server, rabbitmq.url(vhost))
    client, states = redis_server.client(), keys.cameras_key(config.vhost, config.prefix)

    def tell(nano: int, failures: int) -> None:
        status = CameraStatus("offline", nano, failures, f"port 554 closed, try {failures}")
        client.hset(states, "cam1", encode_status(status))

    with publishing(config, tmp_path) as (agent, page):
        turn(agent, lambda: page.counts[PublisherCount.CONNECTED])
        tell(10**18, 1)
        turn(agent, lambda: page.counts[PublisherCount.STATUS_EVENTS] == 1)
        for failures in range(2, 5):
            tell(10**18, failures)
            seen = agent._states._states
            turn(agent, lambda seen=seen: agent._states._states is not seen)
        tell(10**18 + 1, 5)
        turn(agent, lambda: page.counts[PublisherCount.STATUS_EVENTS] > 1)
        turn(agent, agent.drained)
        assert page.counts[PublisherCount.STATUS_EVENTS] == 2


def counted(page: StatusPage) -> tuple[int, int]:
    return page.counts[PublisherCount.CONFIRMED], page.counts[PublisherCount.EXPIRED]


def add_ring(config: Config, camera: str) -> Path:
    paths = SitePaths.of(config)
    segment.private_directory(paths.directory)
    ring_file.create(paths.ring(camera), 2**16, camera)
    return paths.ring(camera)


def test_cameras_come_and_go_with_their_rings(
    tmp_path: Path,
    redis_server: RedisServer,
    rabbitmq: RabbitMQ,
    vhost: str,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
):
    monkeypatch.setattr(accounts, "_LINGER_SECONDS", 0.1)
    config, client = site_config(tmp_path, redis_server, rabbitmq.url(vhost)), redis_server.client()
    said = lambda text: text in capsys.readouterr().out  # noqa: E731 - each is read once
    with publishing(config, tmp_path) as (agent, page):
        turn(agent, lambda: page.counts[PublisherCount.CONNECTED])
        stock(client, config, "cam2", range(1, 11))
        ring = add_ring(config, "cam2")
        turn(agent, lambda: counted(page) == (10, 0))
        rabbitmq.pause()
        try:
            stock(client, config, "cam2", range(11, 21))
            ring.unlink()
            turn(agent, lambda: page.counts[PublisherCount.PUBLISHED] == 20)
            # Some looks for rings.
            later = time.monotonic() + 2.5
            turn(agent, lambda: time.monotonic() > later)
            assert not said("camera is gone"), "its events are not confirmed yet"
        finally:
            rabbitmq.resume()
        turn(agent, lambda: said("camera is gone"))
        assert counted(page) == (20, 0)
        stock(client, config, "cam2", range(21, 31))
        add_ring(config, "cam2")
        turn(agent, lambda: counted(page) == (30, 0))


def test_the_successor_knows_of_a_camera_whose_ring_is_gone(
    tmp_path: Path, redis_server: RedisServer, rabbitmq: RabbitMQ, vhost: str
):
    config, client = site_config(tmp_path, redis_server, rabbitmq.url(vhost)), redis_server.client()
    stock(client, config, "cam2", range(1, 11))
    ring = add_ring(config, "cam2")
    with publishing(config, tmp_path) as (agent, page):
        turn(agent, lambda: counted(page) == (10, 0))
    ring.unlink()
    stock(client, config, "cam2", range(11, 16))
    with publishing(config, tmp_path) as (agent, page):
        turn(agent, lambda: counted(page) == (15, 0))


def test_entries_trimmed_before_the_first_read_are_counted(
    tmp_path: Path, redis_server: RedisServer, rabbitmq: RabbitMQ, vhost: str
):
    """Of the present ring; those that a former site's publisher did not confirm nobody waits for."""
    config, client = site_config(tmp_path, redis_server, rabbitmq.url(vhost)), redis_server.client()
    stock(client, config, numbers=range(500, 511))
    client.hset(keys.written_key(config.vhost, config.prefix), "cam1", format_mark(Mark((1, 1), 510, 400)))
    with publishing(config, tmp_path) as (agent, page):
        turn(agent, lambda: counted(page) == (11, 99))


def test_a_restart_without_cursors_makes_up_no_events(
    tmp_path: Path, redis_server: RedisServer, rabbitmq: RabbitMQ, vhost: str
):
    config, client = site_config(tmp_path, redis_server, rabbitmq.url(vhost)), redis_server.client()
    stock(client, config, numbers=range(1, 11))
    client.hset(keys.written_key(config.vhost, config.prefix), "cam1", format_mark(Mark((1, 1), 10, 0)))
    with publishing(config, tmp_path) as (agent, page):
        turn(agent, lambda: counted(page) == (10, 0))
    client.flushall()
    stock(client, config, numbers=range(11, 21))
    client.hset(keys.written_key(config.vhost, config.prefix), "cam1", format_mark(Mark((1, 1), 20, 0)))
    with publishing(config, tmp_path) as (agent, page):
        turn(agent, lambda: counted(page)[0] == 20)
        stock(client, config, numbers=range(23, 31))
        turn(agent, lambda: counted(page) == (28, 2))


def test_an_entry_far_ahead_hides_none_of_those_that_follow_when_it_is_gone(
    tmp_path: Path, redis_server: RedisServer, rabbitmq: RabbitMQ, vhost: str
):
    config = site_config(tmp_path, redis_server, rabbitmq.url(vhost))
    client, journal = redis_server.client(), keys.journal_key(vhost, config.prefix, "cam1")
    stock(client, config, numbers=range(1, 11))
    client.xadd(journal, {"a": "b"}, id="5000000000000000000-1")
    with publishing(config, tmp_path) as (agent, page):
        turn(agent, lambda: page.counts[PublisherCount.CONFIRMED] == 10)
        looked = time.monotonic() + 2.5
        turn(agent, lambda: time.monotonic() > looked)
        assert agent.drained()
    with publishing(config, tmp_path) as (agent, page):
        client.delete(journal)
        stock(client, config, numbers=range(11, 21))
        turn(agent, lambda: page.counts[PublisherCount.CONFIRMED] == 20)
        assert page.counts[PublisherCount.EXPIRED] == 0


def test_a_cursor_far_ahead_is_none(tmp_path: Path, redis_server: RedisServer, rabbitmq: RabbitMQ, vhost: str):
    config = site_config(tmp_path, redis_server, rabbitmq.url(vhost))
    client = redis_server.client()
    client.hset(keys.cursor_key(vhost, config.prefix), "cam1", "5000000000000000000-1 7")
    stock(client, config, numbers=range(1, 11))
    with publishing(config, tmp_path) as (agent, page):
        turn(agent, lambda: page.counts[PublisherCount.CONFIRMED] == 10)


def test_entries_of_a_clock_that_was_set_back_since_are_announced(
    tmp_path: Path, redis_server: RedisServer, rabbitmq: RabbitMQ, vhost: str
):
    """The writer's mark says that this camera has come so far."""
    config = site_config(tmp_path, redis_server, rabbitmq.url(vhost))
    client, ahead = redis_server.client(), time.time_ns() + 5 * 24 * 3600 * 10**9
    client.hset(keys.written_key(vhost, config.prefix), "cam1", format_mark(Mark((ahead + 9, 9), 9, 0)))
    client.set(
        keys.frame_key_prefix(vhost, config.prefix, "cam1") + keys.frame_key_suffix(ahead + 9, 9), b"jpeg", ex=300
    )
    entry = JournalEntry(ahead + 9, 9, 100, 64, 48, "jpeg", True, 9)
    client.execute_command(
        "XADD", keys.journal_key(vhost, config.prefix, "cam1"), entry_id(ahead + 9, 9), *entry_fields(entry)
    )
    with publishing(config, tmp_path) as (agent, page):
        turn(agent, lambda: page.counts[PublisherCount.CONFIRMED] == 1)


@pytest.mark.parametrize("kind", ["string", "hash of states", "hash of marks"])
def test_what_is_not_ours_costs_one_camera_at_most(
    tmp_path: Path,
    redis_server: RedisServer,
    rabbitmq: RabbitMQ,
    vhost: str,
    capsys: pytest.CaptureFixture[str],
    kind: str,
):
    config, client = site_config(tmp_path, redis_server, rabbitmq.url(vhost)), redis_server.client()
    foreign = {
        "string": keys.journal_key(config.vhost, config.prefix, "cam2"),
        "hash of states": keys.cameras_key(config.vhost, config.prefix),
        "hash of marks": keys.written_key(config.vhost, config.prefix),
    }[kind]
    client.set(foreign, "something else")
    for camera in ("cam2", "cam3"):
        add_ring(config, camera)
    with publishing(config, tmp_path) as (agent, page):
        stock(client, config, numbers=range(1, 11))
        stock(client, config, "cam3", range(1, 11))
        turn(agent, lambda: counted(page) == (20, 0))
        log = capsys.readouterr().out
        assert log.count("passed over") == 1
        assert f"{foreign} holds a string, which is not the engine's" in log
        assert f"redis-cli DEL {foreign}" in log
        client.delete(foreign)
        stock(client, config, "cam2", range(1, 6))
        turn(agent, lambda: counted(page) == (25, 0))
        turn(agent, lambda: "read again" in capsys.readouterr().out)
