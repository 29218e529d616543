"""Servers that go away and come back."""

from __future__ import annotations

import time
from pathlib import Path

from tests.servers.rabbitmq import RabbitMQ
from tests.servers.redis_server import RedisServer
from tests.servers.wait import wait_until
from tests.system.consumer import Consumer, first_times
from tests.system.site import Site, missing_numbers, stored_frames

CAMERAS = [{"id": f"cam{number}", "url": "test://?fps=30&kb=60"} for number in range(1, 11)]


def test_a_stopped_broker_costs_nothing_but_delay(
    site: Site, redis_server: RedisServer, rabbitmq: RabbitMQ, vhost: str
) -> None:
    site.write(cameras=CAMERAS, redis={"address": redis_server.address}, amqp_url=rabbitmq.url(vhost))
    with Consumer(rabbitmq, vhost) as consumer:
        site.start()
        wait_until(lambda: len(consumer.frames()) > 300, 60, "events arrive")
        rabbitmq.stop()
        stopped = time.monotonic()
        stored = site.total("stored")
        # The outage itself: 20 seconds in which frames must go on being stored.
        wait_until(lambda: time.monotonic() - stopped > 20, 30, "the outage has lasted")
        assert site.total("stored") > stored + 20 * 10 * 30 * 0.8
        rabbitmq.start()
        assert wait_until(lambda: site.status()["publisher"]["connected"], 60, "the publisher is back")
        wait_until(lambda: site.status()["publisher"]["lag_seconds"] < 1, 60, "the backlog is sent")
        assert site.stop() == 0
        numbers = stored_frames(redis_server.client(), vhost).numbers
        total = sum(map(len, numbers.values()))
        wait_until(lambda: sum(map(len, map(first_times, consumer.sequences().values()))) >= total, 60, "all arrived")
        assert {camera: first_times(got) for camera, got in consumer.sequences().items()} == numbers
    assert not any(missing_numbers(got) for got in numbers.values())


def test_a_redis_pause_that_the_rings_outlast_loses_nothing(site: Site, redis_server: RedisServer) -> None:
    site.write(cameras=CAMERAS, redis={"address": redis_server.address})
    site.start()
    wait_until(lambda: site.total("stored") > 300, 30, "frames flow")
    redis_server.pause()
    paused = time.monotonic()
    captured = site.total("captured")
    wait_until(lambda: time.monotonic() - paused > 3, 10, "the pause has lasted")
    assert site.total("captured") > captured + 3 * 10 * 30 * 0.8
    redis_server.resume()
    wait_until(lambda: site.total("stored") > captured + 900, 30, "frames flow again")
    assert site.stop() == 0
    assert not any(missing_numbers(got) for got in stored_frames(redis_server.client(), "default").numbers.values())


def test_a_redis_restart_that_the_rings_outlast_loses_nothing(site: Site, short_path: Path) -> None:
    with RedisServer(short_path / "aof", args=["--appendonly", "yes", "--appendfsync", "always"]) as server:
        site.write(cameras=CAMERAS[:4], redis={"address": server.address})
        site.start()
        wait_until(lambda: site.total("stored") > 200, 30, "frames flow")
        server.kill()
        captured = site.total("captured")
        wait_until(lambda: site.total("captured") > captured + 200, 30, "rings fill")
        server.start()
        wait_until(lambda: site.total("stored") > captured + 400, 30, "frames flow again")
        assert site.stop() == 0
        assert not any(missing_numbers(got) for got in stored_frames(server.client(), "default").numbers.values())


def test_a_redis_outage_longer_than_the_rings_loses_exactly_what_is_counted(
    site: Site, redis_server: RedisServer
) -> None:
    frames = 900
    cameras = [{"id": f"cam{number}", "url": f"test://?fps=30&kb=60&frames={frames}"} for number in range(1, 5)]
    redis = {"address": redis_server.address, "timeout_seconds": 1.0}
    site.write(cameras=cameras, redis=redis, ring={"capacity_mb": 2})
    site.start()
    wait_until(lambda: site.total("stored") > 200, 30, "frames flow")
    redis_server.pause()
    wait_until(lambda: site.dropped().get("outage", 0) > 100, 60, "rings overflow")
    captured = site.total("captured")
    wait_until(lambda: site.total("captured") > captured + 200, 30, "capture goes on")
    redis_server.resume()
    wait_until(lambda: site.total("stored") + sum(site.dropped().values()) == 4 * frames, 60, "all is accounted for")
    # What the broken connection left in the server's socket is stored, and counted so, a moment later.
    client = redis_server.client()
    wait_until(lambda: site.total("stored") == len(client.keys("default:frames:*")), 10, "the counts are final")
    numbers = stored_frames(client, "default").numbers
    for camera in site.status()["cameras"]:
        got = numbers[camera["id"]]
        assert camera["captured"] == frames
        assert len(got) == camera["stored"]
        assert len(missing_numbers(got)) + frames - got[-1] == sum(camera["dropped"].values())
        # The outage ended with the newest frames in the ring.
        assert got[-1] == frames
    assert site.stop() == 0


def test_events_that_expire_while_the_broker_is_away_are_counted(
    site: Site, redis_server: RedisServer, rabbitmq: RabbitMQ, vhost: str
) -> None:
    frames = 400
    url = f"test://?fps=30&kb=20&size=320x240&frames={frames}"
    site.write(
        cameras=[{"id": "cam1", "url": url}, {"id": "cam2", "url": url}],
        redis={"address": redis_server.address, "ttl_seconds": 3},
        amqp_url=rabbitmq.url(vhost),
    )
    with Consumer(rabbitmq, vhost) as consumer:
        site.start()
        wait_until(lambda: len(consumer.frames()) > 60, 30, "events arrive")
        rabbitmq.stop()
        wait_until(lambda: site.status()["publisher"]["expired"] > 100, 60, "events expire")
        rabbitmq.start()
        wait_until(lambda: site.total("stored") == 2 * frames, 60, "all is stored")

        def settled() -> bool:
            publisher = site.status()["publisher"]
            return publisher["confirmed"] + publisher["expired"] >= 2 * frames

        wait_until(settled, 60, "every event is announced or counted")
        publisher = site.status()["publisher"]
        assert site.stop() == 0
        announced = {camera: first_times(got) for camera, got in consumer.sequences().items()}
    assert sum(map(len, announced.values())) + publisher["expired"] == 2 * frames
    assert all(got == sorted(got) for got in announced.values())


def test_a_redis_out_of_memory_is_said_once_counted_and_survived(site: Site, short_path: Path) -> None:
    with RedisServer(short_path / "small", args=["--maxmemory", "30mb", "--maxmemory-policy", "noeviction"]) as server:
        frames = 600
        site.write(
            cameras=[{"id": "cam1", "url": f"test://?fps=60&kb=60&frames={frames}"}],
            redis={"address": server.address},
            ring={"capacity_mb": 4},
        )
        site.start()
        wait_until(lambda: site.dropped().get("outage", 0) > 20, 60, "the ring overflows")
        server.client().config_set("maxmemory", 0)
        wait_until(lambda: site.total("stored") + sum(site.dropped().values()) == frames, 60, "all is accounted for")
        numbers = stored_frames(server.client(), "default").numbers["cam1"]
        assert len(numbers) == site.total("stored")
        assert site.stop() == 0
    assert site.log_text().count("redis takes no frames") == 1
    assert "OOM" in site.log_text()
    assert "redis is back" in site.log_text()
