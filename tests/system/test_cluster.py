"""A site on a real Redis Cluster, under users of least privilege: start, failover, outage of a shard, restart, stop."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from engine import FrameStore
from engine.wire import keys
from engine.wire.redis_address import parse_cluster
from tests.servers.rabbitmq import RabbitMQ
from tests.servers.redis_cluster import RedisCluster
from tests.servers.wait import wait_until
from tests.system.consumer import Consumer, first_times
from tests.system.site import Site, command, stored_frames

PASSWORD = "correct horse"
CAMERAS = [f"cam{number}" for number in range(6)]


@pytest.fixture(scope="module")
def cluster(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RedisCluster]:
    with RedisCluster(tmp_path_factory.mktemp("cluster"), masters=3, replicas=1) as started:
        yield started


def make_users(cluster: RedisCluster, vhost: str, directory: Path) -> None:
    """A user for each role, on every node."""
    file = directory / "password"
    file.write_text(PASSWORD)
    for role in ("writer", "publisher", "reader"):
        done = command(
            *("tenants", "acl", vhost, "--role", role, "--user", f"{vhost}-{role}", "--password-file", str(file)),
            *("--apply", "--redis", "cluster://" + ",".join(cluster.addresses[:2])),
        )
        assert done.returncode == 0, done.stderr


def refusals(cluster: RedisCluster) -> list[tuple[str, str, str]]:
    """What any node refused to any user."""
    found = []
    for node in cluster.nodes:
        if node.running:
            with node.client() as client:
                found += [(entry["username"], entry["reason"], entry["object"]) for entry in client.acl_log()]
    return found


def test_a_site_stores_and_announces_every_frame_under_least_privilege(
    cluster: RedisCluster, site: Site, rabbitmq: RabbitMQ, vhost: str, tmp_path: Path
):
    make_users(cluster, vhost, tmp_path)
    users = {
        "username": f"{vhost}-writer",
        "password": PASSWORD,
        "publisher_username": f"{vhost}-publisher",
        "publisher_password": PASSWORD,
    }
    site.write(
        cameras=[{"id": camera, "url": "test://?fps=10&kb=8&size=320x240"} for camera in CAMERAS],
        redis={"cluster": cluster.addresses, "timeout_seconds": 2, **users},
        amqp_url=rabbitmq.url(vhost),
    )
    with Consumer(rabbitmq, vhost) as consumer:
        site.start()
        wait_until(lambda: site.status()["publisher"]["confirmed"] > 100, 30, "events are confirmed", log=site.log_text)
        cluster.failover(0)
        before = site.status()["publisher"]["confirmed"]
        wait_until(
            lambda: site.status()["publisher"]["confirmed"] > before + 100,
            30,
            "events after the failover",
            log=lambda: (
                str([(c["stored"], c["ring"]["held"], c["state"]) for c in site.status()["cameras"]])
                + str(site.status()["outages"])
                + site.log_text()[-2500:]
                + str(refusals(cluster))[-800:]
            ),
        )
        assert site.stop() == 0
        site.start()
        wait_until(lambda: site.total("stored") > 50, 30, "frames after the restart", log=site.log_text)
        assert site.stop() == 0
        with cluster.client() as client:
            stored = stored_frames(client, vhost)
            wait_until(
                lambda: len({one["redis_key"] for one in consumer.frames()}) >= len(stored.keys),
                30,
                "all events arrived",
            )
            announced = {camera: first_times(numbers) for camera, numbers in consumer.sequences().items()}
            for camera in CAMERAS:
                assert announced[camera] == sorted(stored.numbers[camera])
                assert len(announced[camera]) == client.xlen(keys.journal_key(vhost, "frames", camera))
    address = parse_cluster(cluster.addresses)._replace(username=f"{vhost}-reader", password=PASSWORD)
    with FrameStore(address, vhost) as store:
        assert list(store.cameras()) == CAMERAS
        assert len(list(store.entries("cam0"))) == len(stored.numbers["cam0"])
    assert refusals(cluster) == []


def test_a_start_names_the_node_that_is_away_and_slots_without_a_master(site: Site, tmp_path: Path):
    with RedisCluster(tmp_path / "c", masters=3, replicas=0) as cluster:
        away = cluster.masters()[1]
        away.kill()
        cluster.await_down(away)
        site.write(cameras=[{"id": "cam1", "url": "test://"}], redis={"cluster": cluster.addresses})
        done = command("run", "-c", str(site.file))
        assert done.returncode == 2, done.stderr
        (line,) = [line for line in done.stderr.splitlines() if line.startswith("edge-video:")]
        assert "redis.cluster" in line
        assert f":{away.port}" in line or "slots have no master" in line
        assert not site.paths.directory.exists()
