"""The publisher's agent between a real Redis and a real broker."""

from __future__ import annotations

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
from tests.servers.rabbitmq import RabbitMQ
from tests.servers.redis_server import RedisServer

#: More than the publisher holds at a time.
ENTRIES = 3000


@pytest.fixture
def config(tmp_path: Path, redis_server: RedisServer, rabbitmq: RabbitMQ, vhost: str) -> Config:
    document = {
        "site": {"run_directory": str(tmp_path / "run")},
        "redis": {"address": redis_server.address},
        "amqp": {"amqp_url": rabbitmq.url(vhost)},
        "cameras": [{"id": "cam1", "url": "test://"}],
    }
    return from_document(document, {})


@pytest.fixture
def publisher(config: Config, tmp_path: Path) -> Iterator[tuple[PublisherAgent, Slate]]:
    slate = Slate.claim(tmp_path / "publisher.slate")
    agent = PublisherAgent(config, slate, structlog.get_logger())
    agent.on_start()
    yield agent, slate
    agent.on_close()
    slate.close()


def stock(client: redis.Redis, config: Config) -> None:
    """Entries of this moment."""
    now = time.time_ns()
    journal = keys.journal_key(config.vhost, config.prefix, "cam1")
    with client.pipeline(transaction=False) as pipeline:
        for number in range(1, ENTRIES + 1):
            entry = JournalEntry(now + number, number, 100, 64, 48, "jpeg", True)
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
    config: Config, publisher: tuple[PublisherAgent, Slate], redis_server: RedisServer, rabbitmq: RabbitMQ
):
    """A look for entries is not due while there are enough at hand, however long ago the last one was."""
    agent, slate = publisher
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
