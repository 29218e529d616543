"""Several publishers of one site: who announces which camera, and what stays counted when their number changes."""

from __future__ import annotations

import contextlib
from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import redis
import structlog

from engine.config import Config, from_document
from engine.runtime.status_processes import publisher_report
from engine.shm import segment
from engine.shm.site import SitePaths
from engine.shm.status_page import PublisherCount, StatusPage
from engine.stages.publisher.agent import PublisherAgent
from engine.wire import keys
from engine.wire.marks import Mark, format_mark
from engine.wire.metadata import StatusEvent, decode_event
from engine.wire.state import CameraStatus, encode_status
from tests.servers.rabbitmq import RabbitMQ
from tests.servers.redis_server import RedisServer
from tests.servers.wait import wait_until
from tests.stages.test_publisher import add_ring, stock

CAMERAS = tuple(f"cam{number}" for number in range(8))


@pytest.fixture
def site(tmp_path: Path, redis_server: RedisServer, rabbitmq: RabbitMQ, vhost: str) -> Callable[[int], Config]:
    """The site with so many publishers."""

    def made(publishers: int, cameras: tuple[str, ...] = CAMERAS) -> Config:
        document: dict[str, Any] = {
            "site": {"run_directory": str(tmp_path / "run")},
            "ring": {"directory": str(tmp_path)},
            "redis": {"address": redis_server.address},
            "amqp": {"amqp_url": rabbitmq.url(vhost)},
            "publisher": {"publishers": publishers},
            "cameras": [{"id": name, "url": "test://"} for name in cameras],
        }
        config = from_document(document, {})
        segment.private_directory(SitePaths.of(config).directory)
        return config

    return made


class Running:
    """The publishers of a site, in turn."""

    def __init__(self, config: Config) -> None:
        paths, self.config = SitePaths.of(config), config
        self.pages = [StatusPage.claim(paths.publisher(number)) for number in range(config.publisher.publishers)]
        log = structlog.get_logger()
        self.agents = [PublisherAgent(config, page, log, number) for number, page in enumerate(self.pages)]

    def total(self, count: PublisherCount) -> int:
        return sum(page.counts[count] for page in self.pages)

    def until_confirmed(self, events: int) -> None:
        rounds = 0
        while self.total(PublisherCount.CONFIRMED) < events:
            rounds += 1
            for agent in self.agents:
                agent.do_work()
                agent.idle()
            assert rounds < 3000, f"{self.total(PublisherCount.CONFIRMED)} of {events}"

    def abandon(self) -> None:
        """As after a kill: nothing is saved."""
        for agent in self.agents:
            agent._broker.close()
            agent._disconnect()
        for page in self.pages:
            page.close()


@contextlib.contextmanager
def publishing(config: Config) -> Iterator[Running]:
    running = Running(config)
    try:
        yield running
    finally:
        for agent in running.agents:
            agent.on_close()
        for page in running.pages:
            page.close()


def written(client: redis.Redis, config: Config, camera: str, entries: int) -> None:
    client.hset(keys.written_key(config.vhost, config.prefix), camera, format_mark(Mark((1, 1), entries, 0)))


def test_each_event_and_each_state_is_sent_by_one_publisher(
    site: Callable[..., Config], redis_server: RedisServer, rabbitmq: RabbitMQ, vhost: str
) -> None:
    config, client = site(3), redis_server.client()
    with rabbitmq.connect(vhost) as connection:
        channel = connection.channel()
        channel.exchange_declare("camera.metadata", "topic", durable=True)
        channel.queue_declare("all")
        channel.queue_bind("all", "camera.metadata", "camera.metadata.#")
        for camera in CAMERAS:
            stock(client, config, camera, range(1, 21))
            status = encode_status(CameraStatus("active", 10**18, 0, ""))
            client.hset(keys.cameras_key(config.vhost, config.prefix), camera, status)
        with publishing(config) as running:
            running.until_confirmed(160)
            while running.total(PublisherCount.STATUS_EVENTS) < len(CAMERAS):
                for agent in running.agents:
                    agent.do_work()
                    agent.idle()
            for number, page in enumerate(running.pages):
                mine = sum(config.publisher_of(camera) == number for camera in CAMERAS)
                assert (page.counts[PublisherCount.CONFIRMED], page.counts[PublisherCount.STATUS_EVENTS]) == (
                    20 * mine, mine,
                )  # fmt: skip
            report = publisher_report(config)
            assert report is not None
            assert (report.confirmed, report.connected) == (160, True)
            assert report.brokers == [f"127.0.0.1:{rabbitmq.port}"]
        found: list[Any] = []
        while (message := channel.basic_get("all", auto_ack=True))[0]:
            found.append(decode_event(message[2]))
    states = Counter(event.camera_id for event in found if isinstance(event, StatusEvent))
    frames: dict[str, list[int]] = {}
    for event in found:
        if not isinstance(event, StatusEvent):
            frames.setdefault(event.camera_id, []).append(int(event.sequence))
    assert states == Counter(CAMERAS)
    assert frames == {camera: list(range(1, 21)) for camera in CAMERAS}


def test_only_the_first_sends_alerts(site: Callable[..., Config]) -> None:
    with publishing(site(3)) as running:
        assert [agent._alerts._reader is not None for agent in running.agents] == [True, False, False]


@pytest.mark.parametrize(("before", "after"), [(1, 3), (3, 1), (3, 2), (2, 5)], ids=str)
def test_with_another_number_nothing_is_lost_or_sent_twice(
    site: Callable[..., Config], redis_server: RedisServer, before: int, after: int
) -> None:
    """Each camera's journal has lost ten entries unread: they count once, whichever publisher notices."""
    config, client = site(before), redis_server.client()
    for camera in CAMERAS:
        stock(client, config, camera, range(1, 11))
        written(client, config, camera, 10)
    with publishing(config) as running:
        running.until_confirmed(80)
    config = site(after)
    for camera in CAMERAS:
        stock(client, config, camera, range(21, 31))
        written(client, config, camera, 30)
    former = publisher_report(config)
    assert former is not None
    with publishing(config) as running:
        new = 160 - former.confirmed + running.total(PublisherCount.CONFIRMED)
        running.until_confirmed(new)
    report = publisher_report(config)
    assert report is not None
    assert (report.confirmed, report.expired, report.published) == (160, 80, 160)


@pytest.mark.parametrize("saved", [True, False], ids=["saved", "not saved"])
@pytest.mark.parametrize("after", [1, 2, 8])
def test_a_kill_between_cursor_and_count_is_made_up_for_with_another_number(
    site: Callable[..., Config], redis_server: RedisServer, saved: bool, after: int
) -> None:
    """All publishers are killed when the cursors were saved and the counts not shown, or just before."""
    config, client = site(3), redis_server.client()
    for camera in CAMERAS:
        stock(client, config, camera, range(1, 11))
        written(client, config, camera, 10)
    with publishing(config) as running:
        running.until_confirmed(80)
    for camera in CAMERAS:
        stock(client, config, camera, range(21, 31))
        written(client, config, camera, 30)
    running = Running(config)
    for agent in running.agents:
        journals, booking = agent._journals, agent._accounts._booking
        save = journals.save
        # The process dies in the save that passes the lost entries.
        booking.settle = lambda: None

        def dies(cursors: Any, serial: str = "", save: Any = save) -> None:
            if serial and not saved:
                raise RuntimeError("killed before the save")
            save(cursors, serial)
            if serial:
                raise RuntimeError("killed behind the save")

        journals.save = dies
        with contextlib.suppress(RuntimeError):
            for _ in range(3000):
                agent.do_work()
                agent.idle()
            raise AssertionError("nothing was counted")
    running.abandon()
    config = site(after)
    with publishing(config) as running:
        # The last one begins first, and saves before the others read.
        for agent in reversed(running.agents):
            while not (agent._accounts.begun and agent._journals.overview() and agent._broker.ready):
                agent.do_work()
                agent.idle()
            for camera in list(agent._accounts.by_camera)[:1]:
                stock(client, config, camera, [31])
            agent.do_work()
            agent._accounts.save(all_of_them=True)

        def settled() -> bool:
            for agent in running.agents:
                agent.do_work()
            report = publisher_report(config)
            return bool(report and report.expired >= 80 and not report.lag_seconds)

        wait_until(settled, 20, "all lost events are counted")
    report = publisher_report(config)
    assert report is not None
    assert report.expired == 80


def test_a_camera_whose_ring_is_gone_is_known_to_the_publisher_that_serves_it(
    site: Callable[..., Config], redis_server: RedisServer
) -> None:
    config, client = site(1, ("cam0",)), redis_server.client()
    others = CAMERAS[1:]
    for camera in others:
        stock(client, config, camera, range(1, 11))
        add_ring(config, camera)
    with publishing(config) as running:
        running.until_confirmed(70)
    for camera in others:
        SitePaths.of(config).ring(camera).unlink()
        stock(client, config, camera, range(11, 16))
    config = site(3, ("cam0",))
    first = Running(config)
    # The first one begins, and writes its file, before the others have read it. Then all are killed.
    while not first.agents[0]._accounts.begun:
        first.agents[0].do_work()
    first.abandon()
    with publishing(config) as running:
        before = running.total(PublisherCount.CONFIRMED)
        running.until_confirmed(before + 35)
        served = {camera for agent in running.agents for camera in agent._accounts.by_camera}
        assert served == set(CAMERAS)
