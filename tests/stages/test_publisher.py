"""The publisher's agent between a real Redis and a real broker."""

from __future__ import annotations

import contextlib
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
import redis
import structlog

from engine.config import Config, from_document
from engine.shm.slate import PublisherCount, Slate
from engine.stages.publisher import PublisherAgent
from engine.wire import keys
from engine.wire.journal import JournalEntry, entry_fields, entry_id
from engine.wire.metadata import decode_event
from engine.wire.state import CameraStatus, encode_status
from tests.servers.certificate import self_signed
from tests.servers.rabbitmq import RabbitMQ
from tests.servers.redis_server import RedisServer
from tests.servers.wait import free_port

#: More than the publisher holds at a time.
ENTRIES = 3000


def site_config(directory: Path, redis_server: RedisServer, amqp_url: str) -> Config:
    document = {
        "site": {"run_directory": str(directory / "run")},
        "redis": {"address": redis_server.address},
        "amqp": {"amqp_url": amqp_url},
        "cameras": [{"id": "cam1", "url": "test://"}],
    }
    return from_document(document, {})


@contextlib.contextmanager
def publishing(config: Config, directory: Path) -> Iterator[tuple[PublisherAgent, Slate]]:
    slate = Slate.claim(directory / "publisher.slate")
    agent = PublisherAgent(config, slate, structlog.get_logger())
    agent.on_start()
    try:
        yield agent, slate
    finally:
        agent.on_close()
        slate.close()


def stock(client: redis.Redis, config: Config) -> None:
    """Frames and their entries, of this moment."""
    now = time.time_ns()
    frame = keys.frame_key_prefix(config.vhost, config.prefix, "cam1")
    journal = keys.journal_key(config.vhost, config.prefix, "cam1")
    with client.pipeline(transaction=False) as pipeline:
        for number in range(1, ENTRIES + 1):
            entry = JournalEntry(now + number, number, 100, 64, 48, "jpeg", True)
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
    with publishing(config, tmp_path) as (agent, slate):
        turn(agent, lambda: slate.counts[PublisherCount.CONNECTED])
        rabbitmq.pause()
        try:
            stock(redis_server.client(), config)
            turn(agent, lambda: slate.counts[PublisherCount.PUBLISHED] >= config.publisher.window)
            second = time.monotonic() + 1
            assert turn(agent, lambda: time.monotonic() > second) < 100
        finally:
            rabbitmq.resume()
        turn(agent, lambda: slate.counts[PublisherCount.CONFIRMED] == ENTRIES)


def test_over_tls_every_event_arrives_in_order(
    tmp_path: Path, short_path: Path, redis_server: RedisServer, monkeypatch: pytest.MonkeyPatch
):
    certificate, key = self_signed(short_path)
    monkeypatch.setenv("SSL_CERT_FILE", str(certificate))
    port = free_port()
    tls = f"listeners.ssl.local = 127.0.0.1:{port}\nssl_options.certfile = {certificate}\nssl_options.keyfile = {key}\n"
    with RabbitMQ(short_path / "broker", tls) as broker:
        config = site_config(tmp_path, redis_server, f"amqps://guest:guest@localhost:{port}/%2F")
        with publishing(config, tmp_path) as (agent, slate):
            turn(agent, lambda: slate.counts[PublisherCount.CONNECTED])
            channel = broker.connect().channel()
            queue = channel.queue_declare("", exclusive=True).method.queue
            channel.queue_bind(queue, config.metadata.exchange, config.metadata.routing_key)
            stock(redis_server.client(), config)
            turn(agent, lambda: slate.counts[PublisherCount.CONFIRMED] == ENTRIES)
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

    with publishing(config, tmp_path) as (agent, slate):
        turn(agent, lambda: slate.counts[PublisherCount.CONNECTED])
        tell(10**18, 1)
        turn(agent, lambda: slate.counts[PublisherCount.STATUS_EVENTS] == 1)
        for failures in range(2, 5):
            tell(10**18, failures)
            seen = agent._states
            turn(agent, lambda seen=seen: agent._states is not seen)
        tell(10**18 + 1, 5)
        turn(agent, lambda: slate.counts[PublisherCount.STATUS_EVENTS] > 1)
        turn(agent, agent.drained)
        assert slate.counts[PublisherCount.STATUS_EVENTS] == 2
