"""Finished GOPs of stored video, announced by the publisher's agent between a real Redis and a real broker."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import redis
import structlog

from engine.config import Config, from_document
from engine.shm import ring_file, segment
from engine.shm.site import SitePaths
from engine.shm.status_page import PublisherCount, StatusPage
from engine.stages.publisher import accounts, gops
from engine.stages.publisher.agent import PublisherAgent
from engine.wire import keys
from engine.wire.journal import entry_id
from engine.wire.metadata import GopEvent, decode_event
from tests.servers.rabbitmq import RabbitMQ
from tests.servers.redis_server import RedisServer
from tests.stages.test_publisher import publishing, stock, turn
from tests.stored_video import VideoUnit, store_video, video_units


def site_config(
    directory: Path,
    redis_server: RedisServer,
    amqp_url: str,
    *,
    video: str = "gop",
    cameras: tuple[str, ...] = ("cam1",),
) -> Config:
    document = {
        "site": {"run_directory": str(directory / "run")},
        "ring": {"directory": str(directory)},
        "redis": {"address": redis_server.address},
        "video": {"ttl_seconds": 120},
        "amqp": {"amqp_url": amqp_url},
        "metadata": {"video": video},
        "cameras": [{"id": name, "url": "rtsp://192.0.2.1/x", "video": True} for name in cameras],
    }
    return from_document(document, {})


class Announced:
    """What a queue that is bound to the key of GOPs gets."""

    def __init__(self, channel: Any, config: Config) -> None:
        self._channel = channel
        metadata = config.metadata
        channel.exchange_declare(metadata.exchange, exchange_type="topic", durable=metadata.exchange_durable)
        self._queue = channel.queue_declare("", exclusive=True).method.queue
        channel.queue_bind(self._queue, metadata.exchange, "camera.metadata.event.video")

    def take(self) -> list[GopEvent]:
        """All events so far."""
        found = []
        while (message := self._channel.basic_get(self._queue, auto_ack=True))[0]:
            event = decode_event(message[2])
            assert isinstance(event, GopEvent)
            assert message[1].content_type == "application/json"
            assert message[1].delivery_mode == 2
            found.append(event)
        return found


@pytest.fixture
def client(redis_server: RedisServer) -> redis.Redis:
    return redis_server.client()


@pytest.fixture
def soon(monkeypatch: pytest.MonkeyPatch) -> None:
    """A GOP that nothing follows is finished after half a second."""
    monkeypatch.setattr(gops, "QUIET_SECONDS", 0.5)


@pytest.fixture
def listen(rabbitmq: RabbitMQ, vhost: str) -> Iterator[Callable[[Config], Announced]]:
    connection = rabbitmq.connect(vhost)
    yield lambda config: Announced(connection.channel(), config)
    connection.close()


def counted(page: StatusPage) -> tuple[int, int]:
    """GOPs confirmed, access units expired."""
    return page.counts[PublisherCount.GOPS], page.counts[PublisherCount.VIDEO_EXPIRED]


def spans(events: list[GopEvent]) -> list[tuple[str, str, int]]:
    return [(event.first_key, event.last_key, event.frames) for event in events]


def gop(units: list[VideoUnit], begin: int, end: int, vhost: str) -> tuple[str, str, int]:
    return units[begin].key(vhost), units[end - 1].key(vhost), end - begin


def cursor(client: redis.Redis, vhost: str, camera: str = "cam1") -> str:
    return (client.hget(keys.video_cursor_key(vhost, "frames"), camera) or b"").decode()


def test_each_finished_gop_is_announced_once_it_is_finished(
    tmp_path: Path, redis_server: RedisServer, client: redis.Redis, rabbitmq: RabbitMQ, vhost: str, listen: Any
):
    config = site_config(tmp_path, redis_server, rabbitmq.url(vhost), cameras=("cam1", "cam/2"))
    units = {name: video_units(name, "K....K...K.") for name in ("cam1", "cam/2")}
    announced = listen(config)
    with publishing(config, tmp_path) as (agent, page):
        for own_units in units.values():
            store_video(client, vhost, own_units)
        turn(agent, lambda: counted(page) == (4, 0))
        events = announced.take()
        for name, own_units in units.items():
            own = [event for event in events if event.camera_id == name]
            assert spans(own) == [gop(own_units, 0, 5, vhost), gop(own_units, 5, 9, vhost)]
            entries = [unit.entry for unit in own_units]
            assert own[0].size_bytes == sum(entry.size for entry in entries[:5])
            assert (own[0].timestamp_nano, own[0].last_timestamp_nano) == (entries[0].unix_nano, entries[4].unix_nano)
            assert own[0].duration_seconds == pytest.approx((entries[5].unix_nano - entries[0].unix_nano) / 1e9)
            told = own[0].width, own[0].height, own[0].encoding, own[0].ttl_seconds, own[0].vhost
            assert told == (640, 480, "h264", 120, vhost)
            for key in (own[0].first_key, own[0].last_key):
                assert client.exists(key)
        turn(agent, lambda: cursor(client, vhost).startswith(entry_id(*units["cam1"][8].entry[:2])))
        assert cursor(client, vhost).split()[1] == "9"


def test_gops_are_announced_only_where_they_are_wanted(
    tmp_path: Path, redis_server: RedisServer, client: redis.Redis, rabbitmq: RabbitMQ, vhost: str, listen: Any
):
    config = site_config(tmp_path, redis_server, rabbitmq.url(vhost), video="none")
    announced = listen(config)
    store_video(client, vhost, video_units("cam1", "K..K.."))
    stock(client, config, numbers=range(1, 11))
    with publishing(config, tmp_path) as (agent, page):
        turn(agent, lambda: page.counts[PublisherCount.CONFIRMED] == 10)
        turn(agent, agent.drained)
    assert announced.take() == []
    assert not client.exists(keys.video_cursor_key(vhost, "frames"))


@pytest.mark.usefixtures("soon")
def test_a_gop_that_nothing_follows_is_announced_and_again_if_it_goes_on(
    tmp_path: Path, redis_server: RedisServer, client: redis.Redis, rabbitmq: RabbitMQ, vhost: str, listen: Any
):
    config = site_config(tmp_path, redis_server, rabbitmq.url(vhost))
    units = video_units("cam1", "K......K")
    announced = listen(config)
    with publishing(config, tmp_path) as (agent, page):
        store_video(client, vhost, units[:4])
        turn(agent, lambda: counted(page) == (1, 0))
        store_video(client, vhost, units[4:])
        turn(agent, lambda: counted(page) == (3, 0))
    expected = [gop(units, 0, 4, vhost), gop(units, 0, 7, vhost), gop(units, 7, 8, vhost)]
    assert spans(announced.take()) == expected


def test_a_stop_announces_the_last_gop_and_a_successor_what_follows(
    tmp_path: Path, redis_server: RedisServer, client: redis.Redis, rabbitmq: RabbitMQ, vhost: str, listen: Any
):
    config = site_config(tmp_path, redis_server, rabbitmq.url(vhost))
    units = video_units("cam1", "K..K....K")
    announced = listen(config)
    store_video(client, vhost, units[:6])
    with publishing(config, tmp_path) as (agent, page):
        turn(agent, agent.drained)
        assert counted(page) == (2, 0)
    assert spans(announced.take()) == [gop(units, 0, 3, vhost), gop(units, 3, 6, vhost)]
    store_video(client, vhost, units[6:])
    with publishing(config, tmp_path) as (agent, page):
        turn(agent, agent.drained)
        assert counted(page) == (4, 0)
    assert spans(announced.take()) == [gop(units, 3, 8, vhost), gop(units, 8, 9, vhost)]


def test_a_killed_publisher_leaves_no_gop_out(
    tmp_path: Path, redis_server: RedisServer, client: redis.Redis, rabbitmq: RabbitMQ, vhost: str, listen: Any
):
    config = site_config(tmp_path, redis_server, rabbitmq.url(vhost))
    units = video_units("cam1", "K...." * 20)
    announced = listen(config)
    store_video(client, vhost, units)
    for goal in (3, 8, 19):
        page = StatusPage.claim(tmp_path / "publisher.status")
        agent = PublisherAgent(config, page, structlog.get_logger())
        turn(agent, lambda page=page, goal=goal: page.counts[PublisherCount.GOPS] >= goal)
        # Killed: nothing is saved, and the connections break.
        agent._broker.close()
        agent._disconnect()
        page.close()
    found = spans(announced.take())
    wanted = [gop(units, begin, begin + 5, vhost) for begin in range(0, 95, 5)]
    assert list(dict.fromkeys(found)) == wanted


def test_gops_whose_key_frame_has_expired_are_counted(
    tmp_path: Path, redis_server: RedisServer, client: redis.Redis, rabbitmq: RabbitMQ, vhost: str, listen: Any
):
    config = site_config(tmp_path, redis_server, rabbitmq.url(vhost))
    units = video_units("cam1", "K....K....K....K")
    announced = listen(config)
    store_video(client, vhost, units)
    client.delete(units[0].key(vhost), units[1].key(vhost), units[5].key(vhost))
    with publishing(config, tmp_path) as (agent, page):
        turn(agent, lambda: counted(page) == (1, 10))
    assert spans(announced.take()) == [gop(units, 10, 15, vhost)]


def test_units_whose_entries_were_trimmed_before_they_were_read_are_counted(
    tmp_path: Path, redis_server: RedisServer, client: redis.Redis, rabbitmq: RabbitMQ, vhost: str, listen: Any
):
    config = site_config(tmp_path, redis_server, rabbitmq.url(vhost))
    units = video_units("cam1", "K....K....K....K")
    announced = listen(config)
    store_video(client, vhost, units)
    # The second GOP lacks its key frame's entry.
    client.xtrim(
        keys.video_journal_key(vhost, "frames", "cam1"), minid=entry_id(*units[6].entry[:2]), approximate=False
    )
    with publishing(config, tmp_path) as (agent, page):
        turn(agent, lambda: counted(page) == (1, 10))
    assert spans(announced.take()) == [gop(units, 10, 15, vhost)]


def test_an_outage_of_the_broker_delays_gops_and_those_that_expire_meanwhile_are_counted(
    tmp_path: Path, redis_server: RedisServer, client: redis.Redis, rabbitmq: RabbitMQ, vhost: str, listen: Any
):
    config = site_config(tmp_path, redis_server, rabbitmq.url(vhost))
    units = video_units("cam1", "K...." * 6 + "K")
    announced = listen(config)
    with publishing(config, tmp_path) as (agent, page):
        turn(agent, lambda: page.counts[PublisherCount.CONNECTED])
        store_video(client, vhost, units[:6])
        turn(agent, lambda: counted(page) == (1, 0))
        agent._connection.lost(ConnectionError("cut by the test"))
        agent._connection._retry_at = float("inf")
        store_video(client, vhost, units[6:])
        client.delete(units[10].key(vhost), units[15].key(vhost))
        turn(agent, lambda: len(agent._gops._ready) >= 4)
        agent._connection._retry_at = 0.0
        turn(agent, lambda: counted(page) == (4, 10))
    assert spans(announced.take()) == [gop(units, begin, begin + 5, vhost) for begin in (0, 5, 20, 25)]


def test_expiring_shows_while_the_broker_is_away(
    tmp_path: Path, redis_server: RedisServer, client: redis.Redis, rabbitmq: RabbitMQ, vhost: str
):
    config = site_config(tmp_path, redis_server, rabbitmq.url(vhost))
    units = video_units("cam1", "K...." * 4 + "K")
    with publishing(config, tmp_path) as (agent, page):
        agent._connection._retry_at = float("inf")
        store_video(client, vhost, units)
        turn(agent, lambda: len(agent._gops._ready) == 4)
        client.delete(*(unit.key(vhost) for unit in units[:10]))
        turn(agent, lambda: counted(page) == (0, 10))


def test_cameras_come_and_go_with_their_video_rings(
    tmp_path: Path,
    redis_server: RedisServer,
    client: redis.Redis,
    rabbitmq: RabbitMQ,
    vhost: str,
    listen: Any,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
):
    """One that the site file does not name is served until its last GOP is announced, also by a successor."""
    monkeypatch.setattr(accounts, "_LINGER_SECONDS", 0.1)
    monkeypatch.setattr(gops, "QUIET_SECONDS", 1.0)
    config = site_config(tmp_path, redis_server, rabbitmq.url(vhost))
    units = video_units("cam9", "K..K..K..")
    paths = SitePaths.of(config)
    segment.private_directory(paths.directory)
    ring = paths.ring("cam9", video=True)
    ring_file.create(ring, 2**16, "cam9", video=True)
    announced = listen(config)
    store_video(client, vhost, units[:4])
    with publishing(config, tmp_path) as (agent, page):
        turn(agent, lambda: counted(page) == (1, 0))
        # An outage must not make it forget the camera.
        agent._connection.lost(ConnectionError("cut by the test"))
    ring.unlink()
    store_video(client, vhost, units[4:])
    with publishing(config, tmp_path) as (agent, page):
        turn(agent, lambda: "all of its GOPs are published" in capsys.readouterr().out)
        assert counted(page) == (3, 0)
    assert spans(announced.take()) == [gop(units, begin, begin + 3, vhost) for begin in (0, 3, 6)]


def test_what_is_no_journal_costs_one_camera_s_gops(
    tmp_path: Path,
    redis_server: RedisServer,
    client: redis.Redis,
    rabbitmq: RabbitMQ,
    vhost: str,
    capsys: pytest.CaptureFixture[str],
):
    config = site_config(tmp_path, redis_server, rabbitmq.url(vhost), cameras=("cam1", "cam2"))
    foreign = keys.video_journal_key(vhost, "frames", "cam2")
    client.set(foreign, "something else")
    store_video(client, vhost, video_units("cam1", "K..K"))
    stock(client, config, numbers=range(1, 11))
    with publishing(config, tmp_path) as (agent, page):
        turn(agent, lambda: counted(page) == (1, 0) and page.counts[PublisherCount.CONFIRMED] == 10)
        assert f"redis-cli DEL {foreign}" in capsys.readouterr().out
        client.delete(foreign)
        store_video(client, vhost, video_units("cam2", "K..K"))
        turn(agent, lambda: counted(page) == (2, 0))
