"""RabbitMQ that dies, closes connections and channels, takes nothing, refuses, or does not answer."""

from __future__ import annotations

import signal
import time

import pytest

from engine.wire.journal import JournalEntry, entry_fields, entry_id
from engine.wire.keys import frame_key_prefix, frame_key_suffix, journal_key
from tests.faults.run import CAMERAS, FaultRun, pattern
from tests.servers.wait import wait_until

EXCHANGE = "camera.metadata"


def disconnected(run: FaultRun) -> None:
    wait_until(lambda: not run.site.status()["publisher"]["connected"], 30, "the publisher is cut off")


def stores_meanwhile(run: FaultRun) -> None:
    """No frame waits for the broker."""
    run.flows(1)
    assert not run.site.dropped()


@pytest.mark.case("broker-killed")
def test_killed(run: FaultRun) -> None:
    run.start()
    run.moment()
    run.broker.kill()
    disconnected(run)
    stores_meanwhile(run)
    run.broker.start()
    run.ends()


@pytest.mark.case("broker-restarted")
def test_restarted(run: FaultRun) -> None:
    run.start()
    run.moment()
    run.broker.restart()
    run.ends()


@pytest.mark.case("broker-closes-connection")
def test_connections_closed(run: FaultRun) -> None:
    run.start()
    for _ in range(3):
        connects = run.site.log_text().count("rabbitmq connected")
        run.broker.eval('rabbit_networking:close_all_connections("fault")')
        wait_until(
            lambda before=connects: run.site.log_text().count("rabbitmq connected") > before, 20, "it connects again"
        )
    run.ends()


@pytest.mark.case("broker-closes-channel")
@pytest.mark.usefixtures("neighbour")
def test_channel_closed(run: FaultRun) -> None:
    run.start()
    assert run.consumer is not None
    with run.broker.connect(run.vhost) as connection:
        channel = connection.channel()
        # Publishing waits while the exchange is away and nothing listens, so that no event goes nowhere.
        run.signal(signal.SIGSTOP, "publisher")
        channel.exchange_delete(EXCHANGE)
        run.signal(signal.SIGCONT, "publisher")
        disconnected(run)
        run.signal(signal.SIGSTOP, "publisher")
        channel.exchange_declare(EXCHANGE, "topic", durable=True)
        channel.queue_bind(run.consumer.QUEUE, EXCHANGE, "camera.metadata.#")
        run.signal(signal.SIGCONT, "publisher")
    run.ends()
    assert "(404)" in run.site.log_text()


@pytest.mark.case("broker-alarm")
def test_memory_alarm(run: FaultRun) -> None:
    run.start()
    run.broker.set_alarm(True)
    try:
        wait_until(lambda: run.site.status()["publisher"]["lag_seconds"] > 2, 20, "events wait")
        stores_meanwhile(run)
    finally:
        run.broker.set_alarm(False)
    run.ends()


@pytest.mark.case("broker-rejects")
@pytest.mark.usefixtures("neighbour")
def test_a_queue_that_rejects(run: FaultRun) -> None:
    run.start()
    with run.broker.connect(run.vhost) as connection:
        channel = connection.channel()
        arguments = {"x-max-length": 5, "x-overflow": "reject-publish"}
        channel.queue_declare("full", arguments=arguments)
        channel.queue_bind("full", EXCHANGE, "camera.metadata.event")
        wait_until(lambda: run.site.status()["publisher"]["nacked"] > 0, 20, "messages are refused")
        stores_meanwhile(run)
        channel.queue_delete("full")
    run.ends()


@pytest.mark.case("broker-permission")
@pytest.mark.usefixtures("neighbour")
def test_permission_taken_away(run: FaultRun) -> None:
    user, password = f"engine-{run.vhost}", "engine-password"
    run.broker.add_user(user, password, run.vhost)
    run.start(amqp={"amqp_url": proxied(run, user, password)})
    run.broker.permit(user, run.vhost, ".*", "^$", ".*")
    # An open channel goes on with the rights that it began with.
    run.broker_proxy.reset()
    disconnected(run)
    wait_until(lambda: "(403)" in run.site.log_text(), 20, "publishing is refused")
    stores_meanwhile(run)
    run.broker.permit(user, run.vhost, ".*", ".*", ".*")
    run.ends()


def proxied(run: FaultRun, user: str, password: str) -> str:
    url = run.broker.url(run.vhost, user, password)
    return url.replace(f":{run.broker.port}/", f":{run.broker_proxy.port}/")


@pytest.mark.case("broker-406")
def test_exchange_declared_otherwise(run: FaultRun) -> None:
    run.start()
    assert run.consumer is not None
    run.broker_proxy.refusing = True
    run.broker_proxy.reset()
    disconnected(run)
    with run.broker.connect(run.vhost) as connection:
        channel = connection.channel()
        channel.exchange_delete(EXCHANGE)
        channel.exchange_declare(EXCHANGE, "topic", durable=False)
        run.broker_proxy.refusing = False
        connects = run.broker_proxy.accepted
        wait_until(lambda: run.broker_proxy.accepted > connects + 1, 30, "it is tried again and again")
        stores_meanwhile(run)
        assert "is not durable; set `metadata.exchange_durable = false`, or delete it once" in run.site.log_text()
        run.broker_proxy.refusing = True
        run.broker_proxy.reset()
        channel.exchange_delete(EXCHANGE)
        channel.exchange_declare(EXCHANGE, "topic", durable=True)
        channel.queue_bind(run.consumer.QUEUE, EXCHANGE, "camera.metadata.#")
    run.broker_proxy.refusing = False
    run.ends()


@pytest.mark.case("broker-heartbeats")
def test_heartbeats_lost(run: FaultRun) -> None:
    run.start()
    run.broker_proxy.stalled = True
    wait_until(lambda: "rabbitmq is away" in run.site.log_text(), 40, "the connection is given up")
    stores_meanwhile(run)
    run.broker_proxy.stalled = False
    run.ends()


@pytest.mark.case("broker-expired")
def test_away_for_longer_than_frames_live(run: FaultRun) -> None:
    run.start(redis={"ttl_seconds": 3})
    run.broker_proxy.refusing = True
    run.broker_proxy.reset()
    wait_until(lambda: run.site.status()["publisher"]["expired"] > 100, 60, "events expire", interval=0.1)
    run.broker_proxy.refusing = False
    run.mended()
    run.recovers()
    run.balances(cut=True)


@pytest.mark.case("broker-backlog")
def test_an_hour_s_backlog(run: FaultRun) -> None:
    """The hour's frames are put into Redis as the writer puts them, under a site whose publisher starts afterwards."""
    hour, now = 3600, time.time_ns()
    client = run.redis.client()
    for camera in CAMERAS:
        pipeline = client.pipeline(transaction=False)
        prefix, journal = frame_key_prefix(run.vhost, "frames", camera), journal_key(run.vhost, "frames", camera)
        for second in range(hour):
            nano, sequence = now - (hour - second) * 10**9, second + 1
            pipeline.set(prefix + frame_key_suffix(nano, sequence), b"\xff\xd8\xff\xd9", ex=7200)
            fields = entry_fields(JournalEntry(nano, sequence, 4, 320, 240, "jpeg", True))
            pipeline.execute_command("XADD", journal, entry_id(nano, sequence), *fields)
        pipeline.execute()
    run.configure([{"id": name, "url": pattern()} for name in CAMERAS], redis={"ttl_seconds": 7200})
    run.listen()
    run.site.start()
    run.mended()
    run.recovers()
    assert run.consumer is not None
    total = hour * len(CAMERAS)
    wait_until(lambda: len(run.consumer.frames()) > total, 60, "the backlog has arrived", interval=0.2)
    assert run.site.stop() == 0
    for camera, numbers in run.consumer.sequences().items():
        assert numbers[:hour] == list(range(1, hour + 1)), camera
    run.note = f"{total:,} events of the backlog, each once and in order"
